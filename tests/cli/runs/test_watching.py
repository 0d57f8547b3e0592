"""What `perdure run` shows of a run, and which commands are suggested."""

import io
import logging
from typing import Any

import msgspec
import pytest
import typer.main
from msgspec import Raw
from rich.console import Console
from typer.testing import CliRunner

from perdure.cli.base.commands import DESTRUCTIVE
from perdure.cli.main import app
from perdure.cli.runs import watching
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Execution, LogLine, Row


def running(done: float, total: float | None) -> Execution:
    progress = Raw(msgspec.json.encode({"done": done, "total": total, "text": "importing"}))
    return Execution(
        id="x",
        workflow_id="import",
        payload=Raw(b"null"),
        created_at_us=0,
        retry_count=0,
        attempt=1,
        phase=Phase.RUNNING,
        progress=progress,
    )


def watched(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, rows: int) -> str:
    screen = io.StringIO()
    monkeypatch.setattr(
        watching, "console", lambda stderr: Console(file=screen, force_terminal=terminal, width=120, highlight=False)
    )
    with watching.RunWatch("x") as watch:
        for n in range(1, rows + 1):
            watch.see(Row(n, n, Kind.STEP, 1, f"row#{n}"))
            if n % 50 == 0:
                watch.see(running(n, rows))
                if watch._bar is not None:
                    watch._bar.refresh()
        watch.see(LogLine(at_us=1, level=logging.WARNING, text="one is odd"))
        watch.see(Row(rows + 1, rows + 1, Kind.COMPLETED, 1))
    return screen.getvalue()


def test_a_large_run_is_one_bar_with_its_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = watched(monkeypatch, terminal=True, rows=300)
    assert "row#40" in shown and "row#41" not in shown
    assert "`perdure logs -f x` shows every line" in shown
    assert "running 150/300 importing" in shown and "━" in shown and "/s" in shown and "0:00:0" in shown
    assert "one is odd" in shown and "completed" in shown


def test_a_large_run_is_a_line_for_each_look_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = watched(monkeypatch, terminal=False, rows=300).splitlines()
    assert len(lines) == 40 + 1 + 6 + 2
    assert lines[-3] == "running 300/300 importing, 300 rows"


def test_a_small_run_is_shown_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = watched(monkeypatch, terminal=False, rows=30).splitlines()
    assert len(lines) == 32 and "row#30" in lines[29]


def groups(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = [(path, group)]
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            found += groups(one, (*path, name))
    return found


def test_no_suggestion_names_a_command_that_destroys_something() -> None:
    every = groups(typer.main.get_command(app))
    assert {name for _, group in every for name in group.commands} >= DESTRUCTIVE
    for path, group in every:
        for name in DESTRUCTIVE & group.commands.keys():
            shown = CliRunner().invoke(app, [*path, name[:-1]]).output
            assert "No such command" in shown and repr(name) not in shown, (path, name)
    assert "Did you mean 'show'?" in CliRunner().invoke(app, ["shwo"]).output
