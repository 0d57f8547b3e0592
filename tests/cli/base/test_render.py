"""What others have sent is shown, and moves no terminal about."""

import logging

import pytest
from msgspec import Raw, json

from perdure.cli.base.output import note, print_table
from perdure.cli.runs.execution import print_conversation, print_execution, text_line
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Execution, LogLine, Row

NASTY = "all is well\x1b]0;owned\x07\x1b[2J\x9b31m"
ERROR = Raw(json.encode({"type": "ValueError", "message": NASTY, "detail": f"Traceback:\n\t{NASTY}"}))


@pytest.mark.parametrize(
    "item",
    [
        LogLine(at_us=0, level=logging.INFO, text=NASTY),
        LogLine(at_us=0, level=logging.ERROR, text=NASTY),
        Row(1, 0, Kind.STEP, 1, NASTY, NASTY, ok=False, value=ERROR, tries=2),
        Row(1, 0, Kind.STEP, 1, "key", "name", value=Raw(json.encode(NASTY))),
        Row(1, 0, Kind.CANCEL, 1, None, NASTY),
    ],
)
def test_a_line_of_a_log(item: Row | LogLine) -> None:
    line = text_line(item).plain
    assert all(one.isprintable() or one in "\n\t" for one in line), ascii(line)
    assert "all is well" in line


def test_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    note(NASTY)
    said = capsys.readouterr().err
    assert said.startswith("all is well") and "\x1b" not in said


def test_an_empty_message_and_an_empty_error_are_lines_of_a_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    one = Execution(
        id="e",
        workflow_id="helper",
        payload=Raw(b'""'),
        created_at_us=0,
        retry_count=0,
        error="",
        phase=Phase.FAILED,
        attempt=1,
    )
    print_conversation(one, [], [])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()][:2] == ["user", "error"]
    print_execution(one, "", losses=0)
    assert "error" not in capsys.readouterr().out


def test_a_table_in_a_narrow_terminal_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    id, step = "01a22b5b-4d56-767b-ba1e-7ab87e5b901a", "approve_refund_call_id__refund"
    at = "2026-11-30 07:28:54 +00:00"
    columns, whole = ("ID", "STEP", "WORKFLOW", "ASKED", "ASKS"), ("ID", "STEP", "ASKED")
    print_table(columns, [(id, step, "support", at, "Allow refund?")], whole=whole)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == list(columns)
    assert row == f"{id}  {step}  support   {at}  Allow refund?"

    print_table(("QUEUE", "PAUSED"), [("packing", "a long note " * 20)], whole=("QUEUE",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 80

    print_table(("SEQ", "WHAT"), [], whole=("SEQ",))
    assert capsys.readouterr().out.split() == ["SEQ", "WHAT"], "a journal without rows"
