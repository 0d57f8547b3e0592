"""Journals recorded by earlier releases replay: every outcome is asked for, nothing is started, the end is the same."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw
from tests.journals.agents import helpdesk
from tests.journals.hands import steered
from tests.journals.workflows import app

from perdure import StepFailed
from perdure.sdk.payloads.values import decode, encode
from perdure.sdk.replay.calls import MachineState
from perdure.sdk.replay.machine import Machine
from perdure.sdk.workflows.context import Context
from perdure.wire.agents.transcripts import Entry, Transcript
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Claimed

WORKFLOWS = {one.name: one for one in (*app, helpdesk, steered)}
RECORDED = sorted(Path(__file__).parent.glob("*/*.json"))


class Kept(msgspec.Struct):
    workflow: str
    python: str
    id: str
    payload: Raw
    phase: str
    result: Raw
    rows: list[Row]
    seed: str | None = None
    """The source of a fork."""
    session_id: str | None = None
    readings: dict[int, tuple[int, list[tuple[int, Raw, int | None]]]] = {}
    """Transcripts by the row of the reading: the version, and each entry as an array."""


def test_there_are_journals() -> None:
    assert {path.stem for path in RECORDED} >= WORKFLOWS.keys() - {"small"}


@pytest.mark.parametrize("path", RECORDED, ids=[f"{path.parent.name}-{path.stem}" for path in RECORDED])
@pytest.mark.parametrize("chunk", [1, 3, 1_000])
def test_a_recorded_journal_replays(path: Path, chunk: int) -> None:
    kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    workflow = WORKFLOWS[kept.workflow]
    value = decode(bytes(kept.payload), workflow.input_type)
    machine = Machine(lambda: workflow.begin(context, value), seed=kept.seed or kept.id)
    claim = Claimed(kept.id, kept.workflow, 1, kept.payload, 0, session_id=kept.session_id)
    readings = {
        seq: Transcript(version, [Entry(*entry) for entry in entries])
        for seq, (version, entries) in kept.readings.items()
    }
    context = Context(machine, claim, readings)
    last = len(kept.rows) - 1
    for first in range(0, len(kept.rows), chunk):
        more = first + chunk <= last
        effects = machine.advance(kept.rows[first : first + chunk], more=more)
        while effects.state is MachineState.AGAIN:
            effects = machine.advance((), more=more)
        assert not effects.started
    assert effects.state is MachineState.DONE
    if kept.phase == "completed":
        assert msgspec.json.decode(encode(machine.result, workflow.result_type)) == msgspec.json.decode(kept.result)
    else:
        assert isinstance(machine.error, StepFailed if kept.phase == "failed" else asyncio.CancelledError)
