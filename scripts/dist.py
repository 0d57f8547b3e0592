"""Builds the wheel and proves it: installed alone, outside the clone, it runs the README's quickstart.

The wheel goes to dist/. The proof happens in a temporary folder: an empty environment, the pinned requirements of
requirements/base.txt, the wheel, and every Python block of README.md that stands right after `<!-- quickstart -->`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts import website

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".venv" / "bin" / "uv"
QUICKSTART = re.compile(r"^<!-- quickstart -->\s*\n```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICKSTART_SECONDS_MAX = 120


def run(*command: str | Path, cwd: Path = ROOT, timeout: float | None = None) -> None:
    # Neither the clone's packages nor its environment may help the wheel along.
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    env |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", "UV_SYSTEM_CERTS": "1"}
    if "PIP_CERT" in env:
        env.setdefault("SSL_CERT_FILE", env["PIP_CERT"])
    if "PIP_INDEX_URL" in env and "UV_INDEX_URL" not in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    subprocess.run([str(part) for part in command], cwd=cwd, env=env, timeout=timeout, check=True)


@contextmanager
def with_pages() -> Iterator[None]:
    """The wheel carries the documentation, which `perdure docs` reads."""
    place = ROOT / "src" / "perdure" / "docs"
    shutil.rmtree(place, ignore_errors=True)
    website.write_pages(place)
    shutil.rmtree(place / "images")
    try:
        yield
    finally:
        shutil.rmtree(place)


def build(python: Path) -> Path:
    dist = ROOT / "dist"
    for old in dist.glob("perdure-*.whl"):
        old.unlink()
    with with_pages():
        run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", python, "--out-dir", dist)
    (wheel,) = dist.glob("perdure-*.whl")
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


def main() -> None:
    started = time.monotonic()
    python = Path(sys.executable)
    wheel = build(python)
    print(f"dist: built {wheel.relative_to(ROOT)} ({wheel.stat().st_size / 1024:.0f} KiB)", flush=True)
    prove(wheel, python)
    print(f"dist: the wheel works alone ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    main()
