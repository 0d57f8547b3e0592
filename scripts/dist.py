"""Builds the sdist and the wheel into dist/, and proves them.

- Two builds of the same sources are equal byte for byte, one from the sdist and one from a tree of another time and
  umask. The build backend writes fixed times, so SOURCE_DATE_EPOCH changes nothing.
- The wheel alone, with the pinned requirements, runs every Python block of README.md right after `<!-- quickstart -->`.
- `uvx` with an empty cache and a folder that has the wheel starts `perdure dev`, and a workflow gives its result.
- Where a container engine runs, it builds the server's image and starts it.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from scripts import website

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
UV = ROOT / ".venv" / "bin" / "uv"
QUICKSTART = re.compile(r"^<!-- quickstart -->\s*\n```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICKSTART_SECONDS_MAX = 120
BASES = re.compile(r"^FROM (\S+:\S+)", re.MULTILINE)
IMAGE = "perdure-server:dist"
PULL_SECONDS_MAX = 300
READY_SECONDS_MAX = 60


def environment() -> dict[str, str]:
    # Neither the clone's packages nor its environment may help the wheel along.
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    env |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", "UV_SYSTEM_CERTS": "1"}
    if "PIP_CERT" in env:
        env.setdefault("SSL_CERT_FILE", env["PIP_CERT"])
    if "PIP_INDEX_URL" in env and "UV_INDEX_URL" not in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    return env


def run(*command: str | Path, cwd: Path = ROOT, timeout: float | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment(), timeout=timeout, check=True)


def copy_sources(place: Path, mode: int, at: float) -> None:
    """What git tracks of the package, with the documentation in `perdure/docs`, where `perdure docs` reads it."""
    paths = ("pyproject.toml", "README.md", "LICENSE", "src")
    listed = subprocess.run(["git", "ls-files", "-z", *paths], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place / name)
    docs = place / "src" / "perdure" / "docs"
    website.write_pages(docs)
    shutil.rmtree(docs / "images")
    for path in filter(Path.is_file, place.rglob("*")):
        path.chmod(mode)
        os.utime(path, (at, at))


def build(python: Path) -> Path:
    shutil.rmtree(DIST, ignore_errors=True)
    # The pinned backend, not the one inside of uv: a machine may bring a newer uv.
    command = (UV, "build", "--quiet", "--force-pep517", "--no-build-isolation", "--python", python, "--out-dir")
    with tempfile.TemporaryDirectory(prefix="perdure-build-") as folder:
        again = Path(folder) / "dist"
        copy_sources(Path(folder) / "first", 0o644, time.time())
        run(*command, DIST, cwd=Path(folder) / "first")  # the sdist, and from it the wheel
        copy_sources(Path(folder) / "second", 0o600, 1e9)
        run(*command, again, "--sdist", "--wheel", cwd=Path(folder) / "second")  # both from the tree
        built = sorted(path.name for path in again.glob("perdure-*"))
        _, differing, missing = filecmp.cmpfiles(DIST, again, built, shallow=False)
    if differing or missing or len(built) != 2:
        sys.exit(f"dist: two builds gave {built} and differ in {differing + missing}.")
    for name in built:
        print(f"dist: built dist/{name} twice, equal ({(DIST / name).stat().st_size / 1024:.0f} KiB)", flush=True)
    (wheel,) = DIST.glob("perdure-*.whl")
    return wheel


def quickstarts() -> list[str]:
    blocks = QUICKSTART.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    if not blocks:
        sys.exit("dist: README.md has no Python block right after a line `<!-- quickstart -->`; nothing to prove.")
    return blocks


def prove(wheel: Path, python: Path) -> None:
    blocks = quickstarts()
    with tempfile.TemporaryDirectory(prefix="perdure-dist-") as folder:
        place = Path(folder)
        alone = place / "venv" / "bin" / "python"
        run(UV, "venv", "--quiet", "--python", python, place / "venv")
        pins = ROOT / "requirements" / "base.txt"
        run(UV, "pip", "install", "--quiet", "--python", alone, "--require-hashes", "-r", pins)
        run(UV, "pip", "install", "--quiet", "--python", alone, "--no-deps", wheel)
        run(alone, "-c", f"import perdure; assert not perdure.__file__.startswith({str(ROOT)!r}), perdure.__file__")
        run(alone, "-c", "from perdure.mcp import docs; docs.page('workflows')", cwd=place)
        for number, block in enumerate(blocks, 1):
            script = place / f"quickstart_{number}.py"
            script.write_text(block, encoding="utf-8")
            print(f"dist: quickstart {number} of {len(blocks)}", flush=True)
            run(alone, script, cwd=place, timeout=QUICKSTART_SECONDS_MAX)


def prove_uvx(wheel: Path, python: Path) -> None:
    """From nothing to the result of a workflow, as a newcomer types it."""
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory(prefix="perdure-uvx-") as folder:
        env = {name: value for name, value in environment().items() if not name.startswith("PERDURE_")}
        env |= {"HOME": folder, "UV_CACHE_DIR": f"{folder}/cache", "UV_TOOL_DIR": f"{folder}/tools"}
        shutil.copyfile(ROOT / "deploy" / "app.py", Path(folder) / "app.py")
        # The pins keep a dependency's release of today out; the wheel comes from the folder.
        uvx: list[str | Path] = [UV, "tool", "run", "--quiet", "--python", python, "--find-links", DIST]
        uvx += ["--constraints", ROOT / "requirements" / "base.txt", f"perdure@{version}"]
        started = time.monotonic()
        dev = subprocess.Popen(
            [*uvx, "dev", "app.py", "--port", "0", "--json"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
        )
        try:
            assert dev.stdout is not None
            if not any(json.loads(line)["event"] == "worker" for line in dev.stdout):
                sys.exit("dist: `uvx perdure dev` ended before its worker served.")
            ready = time.monotonic() - started
            asked = subprocess.run(
                [*uvx, "run", "greet", "--input", '"Ada"', "--quiet"],
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                text=True,
                timeout=QUICKSTART_SECONDS_MAX,
                check=True,
            )
        finally:
            dev.terminate()
            dev.communicate()
        if "Hello, Ada!" not in asked.stdout:
            sys.exit(f"dist: `uvx perdure run greet` printed {asked.stdout!r}.")
    print(f"dist: `uvx perdure dev` was ready after {ready:.1f} s, with an empty cache, and ran a workflow", flush=True)


def engine() -> str | None:
    """A container engine that answers and has, or gets, the images to build from; says why not."""
    found = [name for name in ("docker", "podman") if shutil.which(name) and works(name, "info")]
    bases = set(BASES.findall((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    for name in found:
        if all(works(name, "image", "inspect", base) or works(name, "pull", base) for base in bases):
            return name
    why = f"{found[0]} cannot pull {', '.join(bases)}" if found else "neither docker nor podman answers here"
    print(f"dist: skipped the image: {why}", flush=True)
    return None


def works(*command: str) -> bool:
    return not subprocess.run(command, capture_output=True, timeout=PULL_SECONDS_MAX).returncode


def prove_image() -> None:
    program = engine()
    if program is None:
        return
    run(program, "build", "--quiet", "--target", "server", "--tag", IMAGE, ROOT)
    if not works(program, "run", "--rm", IMAGE, "docs", "workflows"):
        sys.exit("dist: `perdure docs` does not find a page in the image.")
    volume = subprocess.check_output([program, "volume", "create"], text=True).strip()
    server = ["--cap-drop", "ALL", "--volume", f"{volume}:/data"]
    container = ""
    try:
        run(program, "run", "--rm", *server, IMAGE, "keys", "create", "dist")
        start = [program, "run", "--detach", *server, "--publish", "127.0.0.1::8080", IMAGE]
        container = subprocess.check_output(start, text=True).strip()
        address = subprocess.check_output([program, "port", container, "8080"], text=True).splitlines()[0]
        wait_until_ready(f"http://{address}/ready")
    finally:
        if container:
            run(program, "logs", container)
            run(program, "rm", "--force", container)
        run(program, "volume", "rm", volume)
    print("dist: the image was built, and its server is ready", flush=True)


def wait_until_ready(url: str) -> None:
    until = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def main() -> None:
    started = time.monotonic()
    python = Path(sys.executable)
    wheel = build(python)
    prove(wheel, python)
    prove_uvx(wheel, python)
    prove_image()
    print(f"dist: all of it works ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    main()
