"""The ledger knows what a client may believe, and sees where the store disagrees."""

import json
from pathlib import Path

import pytest
from tests.faults.ledger import Ledger, Outcome

from perdure.wire.base.errors import InternalError, KeyReused, PerdureError, Unavailable, UnknownOutcome


async def answer(value: str | PerdureError) -> str:
    if isinstance(value, PerdureError):
        raise value
    return value


@pytest.mark.parametrize(
    ("answered", "outcome"),
    [
        ("id-1", Outcome.DONE),
        (Unavailable("nothing happened"), Outcome.REFUSED),
        (KeyReused("other body"), Outcome.REFUSED),
        (UnknownOutcome("no answer"), Outcome.UNKNOWN),
        (InternalError("a bug"), Outcome.UNKNOWN),
    ],
    ids=lambda value: value.code if isinstance(value, PerdureError) else str(value),
)
async def test_each_answer_is_one_of_three_outcomes(
    tmp_path: Path, answered: str | PerdureError, outcome: Outcome
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert await ledger.ask("start", "a", answer(answered)) == (answered if outcome is Outcome.DONE else None)
    assert ledger.keys("start")[outcome] == {"a"}
    assert [entry.outcome for entry in ledger.faults] == (
        [Outcome.UNKNOWN] if answered.__class__ is InternalError else []
    )
    assert json.loads((tmp_path / "ledger").read_text())[2] == outcome


async def test_asked_again_the_best_answer_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    asked: dict[str, list[str | PerdureError]] = {
        "done": [UnknownOutcome("?"), "id", Unavailable("-")],
        "unknown": [Unavailable("-"), UnknownOutcome("?"), Unavailable("-")],
        "refused": [Unavailable("-"), Unavailable("-")],
    }
    for key, answers in asked.items():
        for one in answers:
            await ledger.ask("start", key, answer(one))
    assert ledger.keys("start") == {outcome: {outcome.value} for outcome in Outcome}
    assert ledger.keys("publish") == {outcome: set() for outcome in Outcome}
    assert ledger.counts() == {"done": 1, "refused": 5, "unknown": 2}


async def test_the_store_is_held_to_what_was_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    await ledger.ask("start", "a", answer("id"))
    await ledger.ask("start", "b", answer(Unavailable("-")))
    await ledger.ask("start", "c", answer(UnknownOutcome("?")))
    assert ledger.disagreements("start", {"a": 1}) == []
    assert ledger.disagreements("start", {"a": 1, "c": 1}) == []
    assert ledger.disagreements("start", {"b": 1, "c": 2, "d": 1}) == [
        "start 'a' was accepted and is not there",
        "start 'b' was refused and is there",
        "start 'c' is there 2 times",
        "start 'd' is there and nobody asked for it",
    ]
