"""The summary of `make faults` does not call a run sound if the run was not played."""

from typing import Any

import pytest
from tests.faults.__main__ import show, summary

SOUND: dict[str, Any] = {"scenario": "kills", "database": "sqlite", "seconds": 1.0, "wrong": ""}
BROKEN = SOUND | {"database": "postgres", "wrong": "Traceback"}
NOT_PLAYED = SOUND | {"scenario": "clocks", "not played": "shifting a process' clock needs a C compiler"}


def test_what_was_not_played_is_not_called_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary([SOUND]) == "all sound"
    assert summary([SOUND, BROKEN, NOT_PLAYED]) == "broken: kills on postgres; not played: clocks on sqlite"
    show(NOT_PLAYED)
    said = capsys.readouterr().out
    assert "not played" in said.splitlines()[1] and "sound" not in said and "C compiler" in said
