"""What commands do otherwise on Windows, as far as it can be seen elsewhere."""

import io
import os
import sys
from pathlib import Path

import pytest
import typer
from tests.cli.processes import House

from perdure.cli.base.commands import make_group
from perdure.cli.processes.dev_session import _line


def test_arguments_stay_as_they_are_given_and_pipes_carry_utf_8(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = make_group("A command.")

    @app.command()
    def say(text: str) -> None:
        typer.echo(f"{text} →")

    @app.callback()
    def main() -> None: ...

    (tmp_path / "1").touch()
    for given in ("[1]", '{"home": "$HOME ~"}'):
        pipe = io.BytesIO()
        with monkeypatch.context() as windows:
            windows.chdir(tmp_path)
            windows.setenv("HOME", "elsewhere")
            windows.setattr(sys, "platform", "win32")
            windows.setattr(os, "name", "nt")
            windows.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="cp1252"))
            windows.setattr(sys, "argv", ["perdure", "say", given])
            with pytest.raises(SystemExit) as ended:
                app()
            sys.stdout.flush()
        assert ended.value.code == 0
        assert pipe.getvalue().decode() == f"{given} →\n"


def test_a_copy_is_synced_by_a_handle_that_may_write(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    sync, synced = os.fsync, []

    def as_on_windows(handle: int) -> None:
        """Refuses what Windows refuses."""
        if not os.path.isdir(f"/dev/fd/{handle}"):
            if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise PermissionError(13, "Permission denied")
            synced.append(handle)
        sync(handle)

    house.run("keys", "create", "one")
    monkeypatch.setattr(os, "fsync", as_on_windows)
    house.run("backup", "copy.db")
    house.run("restore", "copy.db", "--force")
    assert len(synced) == 2


def test_lines_to_copy_are_quoted_as_the_command_prompt_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["perdure", "run", "order", "--input", '{"id": 7}']
    assert _line(arguments) == """perdure run order --input '{"id": 7}'"""
    monkeypatch.setattr(sys, "platform", "win32")
    assert _line(arguments) == r"""perdure run order --input "{\"id\": 7}" """.strip()
