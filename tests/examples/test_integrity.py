"""The main demo, as `make demo` runs it, in a terminal."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import httpx2
import pytest
from examples import integrity

ROOT = Path(__file__).parents[2]
MAY_BE_NULL = {"error", "cancelled_at", "cancelled_by"}


@pytest.mark.skipif(sys.platform == "win32", reason="no script is a program there")
def test_the_python_that_a_shell_finds_is_asked_if_it_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"new": f'#!/bin/sh\nexec {sys.executable} "$@"\n', "old": "#!/bin/sh\necho too old >&2\nexit 1\n"}
    for name, text in programs.items():
        program = tmp_path / name / "python3"
        program.parent.mkdir()
        program.write_text(text)
        program.chmod(0o755)
    for name, known in (("new", {"perdure", "pytest"}), ("old", set[str]())):
        monkeypatch.setenv("PATH", str(tmp_path / name))
        own, *_, found = integrity.interpreters()
        assert (own, found) == (sys.executable, str(tmp_path / name / "python3"))
        names = {package.name for package in integrity.packages_of(found)}
        assert names >= known and bool(names) == bool(known)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it needs a terminal")
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    status, said = in_a_terminal([sys.executable, "examples/integrity.py", "--keep"])
    assert status == 0, said
    shown = [(int(done), int(of)) for done, of in re.findall(r"verifying packages[^\r\n]*? (\d+)/(\d+)", said)]
    packages = shown[-1][1]
    assert len({done for done, _ in shown}) > 3 and shown[-1] == (packages, packages), "a bar, while it works"
    told = {name.strip(): int(value.replace(",", "")) for name, value in re.findall(r"│ (.+?) *│ *([\d,]+) *│", said)}
    assert told["packages"] == packages >= len({one.name.lower() for one in distributions()})
    assert told["recorded steps that ran again"] == told["steps lost"] == 0
    assert (
        told["step bodies run (side file)"]
        == told["steps recorded"] + told["of these, in flight at the kill and run again"]
    )
    [(pid, after)] = re.findall(r"killed the worker \(pid (\d+), SIGKILL\) after (\d+) packages", said)
    assert 0 < int(after) < packages and f"started another (pid {pid})" not in said
    assert told["bytes hashed"] > 1_000_000 and told["files verified"] > packages - told["of these, without a RECORD"]
    [(look, store)] = re.findall(r"(\S+ open (\S+))\r\n", said)
    try:
        [path] = re.findall(r"GET (\S+): all 24 fields", said)
        record = get_from_file(look.split(), path)
    finally:
        shutil.rmtree(Path(store).parent)
    assert record["workflow_id"] == "verify_package"
    contract = json.loads((ROOT / "tests" / "contract" / "openapi.json").read_text())
    fields = set(contract["components"]["schemas"]["ExecutionResponse"]["properties"])
    assert len(fields) == 24
    assert {name for name in fields if record[name] is None} == MAY_BE_NULL
    [write] = re.findall(r"(\S+ new shop)\r\n", said)
    program, *arguments = write.split()
    subprocess.run([ROOT / program, *arguments], cwd=tmp_path, check=True)
    assert (tmp_path / "shop" / "app.py").exists()


def get_from_file(look: list[str], path: str) -> dict[str, object]:
    """Ask the read-only server that a shown command starts."""
    command = [*look, "--no-browser", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            access = json.loads(process.stdout.readline())
            headers = {"Authorization": f"Bearer {access['api_key']}"}
            reply = httpx2.get(access["url"] + path, headers=headers)
        finally:
            process.terminate()
    assert reply.status_code == 200
    found: dict[str, object] = reply.json()
    return found


def in_a_terminal(command: list[str]) -> tuple[int, str]:
    """Exit code of a program in a terminal, and all output of the program, without colours."""
    master, terminal = os.openpty()
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal, cwd=ROOT, env=variables)
    os.close(terminal)
    said, until = b"", time.monotonic() + 280
    try:
        while select.select([master], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # how a terminal says that nobody writes any more
                break
            if not part:
                break
            said += part
        status = process.wait(max(1.0, until - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
