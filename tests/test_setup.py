"""What `make setup` says on a machine that lacks something, before it has changed anything; and that once is enough."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("sh", "dirname", "sed", "awk", "cat", "rm", "tr", "ln")
WITHOUT_VENV = f"""#!/bin/sh
case "$*" in *ensurepip*) echo "No module named ensurepip" >&2; exit 1 ;; esac
exec {sys.executable} "$@"
"""
OLD = """#!/bin/sh
exit 1
"""
UV = f"""#!{sys.executable}
import os, sys
if sys.argv[1] == "venv":
    os.makedirs(".venv/bin")
    os.symlink({sys.executable!r}, ".venv/bin/python")
elif sys.argv[1] == "--version":
    print("uv 99.0.0")
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="make and sh are not a user's there")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A clone on a machine with nothing but a few tools."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (bin / tool).symlink_to(found)
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def setup(machine: Path, **variables: str) -> str:
    """The message of a refusal."""
    ran = subprocess.run(
        ["sh", "scripts/setup.sh"],
        cwd=machine,
        env={"PATH": str(machine / "bin"), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stdout + ran.stderr
    assert not (machine / ".venv").exists()
    return ran.stderr


def install(machine: Path, name: str, text: str) -> Path:
    path = machine / "bin" / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_python_without_venv_is_told_with_the_package_that_brings_it(machine: Path) -> None:
    install(machine, "python3", WITHOUT_VENV)
    minor = f"3.{sys.version_info[1]}"
    said = setup(machine)
    assert said.startswith(
        f"setup: Python {minor} (python3) lacks its modules venv or ensurepip. Install them, then run"
    )
    release = Path("/etc/os-release").read_text() if os.path.exists("/etc/os-release") else ""
    if "ID=debian" in release or "ID=ubuntu" in release:
        assert said.endswith("\n           sudo apt install python3-venv\n")
        (machine / "bin" / "python3").rename(machine / "bin" / f"python{minor}")
        assert setup(machine).endswith(f"\n           sudo apt install python{minor}-venv\n"), "not the system's own"
    else:
        assert "install" in said or "apk add" in said or "pacman" in said


def test_a_machine_without_a_python_that_will_do(machine: Path) -> None:
    install(machine, "python3", OLD)
    assert "no Python 3.11, 3.12 or 3.13 found" in setup(machine)
    assert "PYTHON=python9 is not a program" in setup(machine, PYTHON="python9")
    old = install(machine, "python3.9", OLD)
    assert f"PYTHON={old} is not Python 3.11, 3.12 or 3.13." in setup(machine, PYTHON=str(old))


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_clone_behind_a_link_is_set_up_once(machine: Path) -> None:
    """All paths in /tmp are behind a link on macOS."""
    install(machine, "uv", UV)
    (machine / "bin" / "python3").symlink_to(sys.executable)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, machine)
    link = machine / "link"
    link.symlink_to(machine, target_is_directory=True)
    # As a shell leaves it that went there: the tools of this machine come after those of that one.
    variables = {"PATH": f"{machine / 'bin'}:{os.environ['PATH']}", "PWD": str(link)}
    said = [
        subprocess.run(["make", "setup"], cwd=link, env=variables, capture_output=True, text=True, timeout=60)
        for _ in range(2)
    ]
    assert [one.returncode for one in said] == [0, 0], said
    assert "making .venv" in said[0].stdout and said[1].stdout.count("setup:") == 0
