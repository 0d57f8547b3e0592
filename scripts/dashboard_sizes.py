"""How large the built dashboard is, compressed. Fails above the bars and names the files that grew."""

import gzip
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BUILT: Final = "src/perdure/dashboard"
BARS: Final = {"all JavaScript": 180_000, "all CSS": 14_000, "JavaScript of the first page": 60_000}  # bytes
FIRST_PAGE: Final = "overview"

_HASH = re.compile(r"-[\w-]{8}(?=\.\w+$)")
_IMPORT = re.compile(r'(?:from|import)"\./([^"]+)"')


def built(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "assets").iterdir())}


def committed() -> dict[str, bytes]:
    """The files of the last commit; empty outside of a checkout."""
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD", f"{BUILT}/assets/"], cwd=ROOT, capture_output=True
    )
    paths = listed.stdout.decode().split()
    return {
        Path(path).name: subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True).stdout
        for path in paths
    }


def packed(files: dict[str, bytes]) -> dict[str, int]:
    """The compressed size of each script and stylesheet, by its name without the hash."""
    sizes: dict[str, int] = {}
    for name, content in files.items():
        if name.endswith((".js", ".css")):
            plain = _HASH.sub("", name)
            sizes[plain] = sizes.get(plain, 0) + len(gzip.compress(content, 9))
    return sizes


def first_page(files: dict[str, bytes], html: str) -> int:
    """The compressed size of the scripts that a browser loads before it shows the first page."""
    names = re.findall(r'src="[^"]*/([^"/]+\.js)"', html) + [
        name for name in files if name.startswith(f"{FIRST_PAGE}-")
    ]
    loaded: set[str] = set()
    while names:
        name = names.pop()
        if name.endswith(".js") and name not in loaded:
            loaded.add(name)
            names += _IMPORT.findall(files[name].decode())
    return sum(len(gzip.compress(files[name], 9)) for name in loaded)


def measure(folder: Path) -> dict[str, int]:
    files = built(folder)
    sizes = packed(files)
    return {
        "all JavaScript": sum(size for name, size in sizes.items() if name.endswith(".js")),
        "all CSS": sum(size for name, size in sizes.items() if name.endswith(".css")),
        "JavaScript of the first page": first_page(files, (folder / "index.html").read_text()),
    }


def growth(folder: Path) -> list[str]:
    before, now = packed(committed()), packed(built(folder))
    grown = {name: size - before.get(name, 0) for name, size in now.items() if size > before.get(name, 0)}
    return [
        f"  {name} grew by {by:,} to {now[name]:,} bytes" for name, by in sorted(grown.items(), key=lambda one: -one[1])
    ]


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / BUILT
    over = False
    for what, size in measure(folder).items():
        over |= size > BARS[what]
        print(f"dashboard: {what}: {size / 1_000:.1f} of {BARS[what] / 1_000:.0f} KB compressed")
    if over:
        print("dashboard: too large. Since the last commit:", *growth(folder), sep="\n", file=sys.stderr)
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
