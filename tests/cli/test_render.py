"""What others have sent is shown, and moves no terminal about."""

import logging

import pytest
from msgspec import Raw, json

from perdure.cli.execution import text_line
from perdure.cli.output import note
from perdure.wire.executions import LogLine, Row
from perdure.wire.records import Kind

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
