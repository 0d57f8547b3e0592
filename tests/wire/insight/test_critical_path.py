"""The critical path: what the time of an execution went into."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.insight.critical_path import PathExecution, PathSpan, path_of, shares
from perdure.wire.insight.why import PathKind
from perdure.wire.runs.waits import RecordedWait

SECOND = 1_000_000
ID = "0190a5f2-7c1e-7b3a-9d55-000000000001"
CHILD = "0190a5f2-7c1e-7b3a-9d55-000000000002"


def row(seq: int, at: float, kind: Kind, key: str | None = None, **values: Any) -> JournalEntry:
    began = values.pop("began", None)
    fields = {"name": None, "ok": True, "value": None, **values}
    started_at_us = None if began is None else round(began * SECOND)
    return JournalEntry(seq, round(at * SECOND), kind, key, started_at_us=started_at_us, **fields)


def execution(*rows: JournalEntry, end: float | None, phase: Phase = Phase.COMPLETED, **values: Any) -> PathExecution:
    completed = None if end is None else round(end * SECOND)
    return PathExecution(
        id=ID,
        workflow_id="wf",
        phase=phase,
        created_at_us=0,
        started_at_us=0,
        completed_at_us=completed,
        next_seq=len(rows) + 1,
        rows=rows,
        **values,
    )


def path(one: PathExecution, to: float) -> list[tuple[str, str, float]]:
    """(kind, name, seconds) of the path, whose spans follow one another without gaps."""
    spans = path_of(one, 0, round(to * SECOND))
    whole(spans, 0, round(to * SECOND))
    return [(span.kind.value, span.name, span.us / SECOND) for span in spans]


def whole(spans: list[PathSpan], from_us: int, to_us: int) -> None:
    at_us = from_us
    for span in spans:
        assert span.from_us == at_us < span.to_us, spans
        at_us = span.to_us
    assert at_us == to_us


def test_a_step_its_tries_and_the_pause_between_them() -> None:
    one = execution(
        row(1, 2, Kind.CLAIMED),
        row(2, 4, Kind.STEP_FAILED, "pay", began=3, ok=False),
        row(3, 10, Kind.STEP, "pay", began=9),
        row(4, 10.5, Kind.COMPLETED),
        end=10.5,
    )
    assert path(one, 10.5) == [
        ("queue", "", 2.0),
        ("code", "", 1.0),
        ("step", "pay", 1.0),
        ("pause", "pay", 5.0),
        ("step", "pay", 1.0),
        ("code", "", 0.5),
    ]


def test_what_runs_beside_the_path_is_not_on_it() -> None:
    one = execution(
        row(1, 0, Kind.CLAIMED),
        row(2, 3, Kind.STEP, "short", began=0),
        row(3, 10, Kind.STEP, "long", began=0),
        end=10,
    )
    assert path(one, 10) == [("step", "long", 10.0)]


def test_a_wait_and_the_queue_after_it() -> None:
    one = execution(
        row(1, 0, Kind.CLAIMED),
        row(2, 1, Kind.WAITING),
        row(3, 61, Kind.EVENT, "paid"),
        row(4, 64, Kind.CLAIMED),
        row(5, 65, Kind.COMPLETED),
        end=65,
        waits=[RecordedWait("paid", 1 * SECOND, "payments", state="met")],
    )
    assert path(one, 65) == [("code", "", 1.0), ("wait", "payments", 60.0), ("queue", "", 3.0), ("code", "", 1.0)]


def test_a_timer_lasts_from_the_outcome_before_it() -> None:
    one = execution(
        row(1, 0, Kind.CLAIMED),
        row(2, 1, Kind.STEP, "a", began=0),
        row(3, 1, Kind.WAITING),
        row(4, 31, Kind.TIMER, "timer"),
        row(5, 32, Kind.CLAIMED),
        end=32,
    )
    assert path(one, 32) == [("step", "a", 1.0), ("timer", "", 30.0), ("queue", "", 1.0)]


def test_a_child_is_one_span_that_names_it() -> None:
    started = row(2, 1, Kind.CHILD_STARTED, "sub", name="billing", value=msgspec.json.encode(CHILD))
    one = execution(row(1, 0, Kind.CLAIMED), started, row(3, 9, Kind.CHILD, "sub"), end=10)
    spans = path_of(one, 0, 10 * SECOND)
    assert [(span.kind.value, span.name, span.child_id) for span in spans] == [
        ("code", "", None),
        ("child", "billing", CHILD),
        ("code", "", None),
    ]


def test_the_work_of_a_lost_attempt() -> None:
    one = execution(row(1, 0, Kind.CLAIMED), row(2, 20, Kind.LOST), row(3, 25, Kind.CLAIMED), end=26)
    assert path(one, 26) == [("lost", "", 20.0), ("queue", "", 5.0), ("code", "", 1.0)]


def test_the_time_in_which_it_was_held() -> None:
    one = execution(
        row(1, 0, Kind.CLAIMED),
        row(2, 2, Kind.STEP_FAILED, "pay", began=1, ok=False),
        row(3, 2, Kind.HELD, ok=False),
        row(4, 60, Kind.STEP, "pay"),
        row(5, 61, Kind.CLAIMED),
        row(6, 62, Kind.COMPLETED),
        end=62,
    )
    assert path(one, 62)[-3:] == [("held", "pay", 58.0), ("queue", "", 1.0), ("code", "", 1.0)]


def test_an_open_execution_ends_now_with_what_it_has_waited_for_the_longest() -> None:
    waits = [RecordedWait("late", 5 * SECOND), RecordedWait("early", 2 * SECOND)]
    one = execution(row(1, 1, Kind.CLAIMED), row(2, 5, Kind.WAITING), end=None, phase=Phase.WAITING, waits=waits)
    assert path(one, 12) == [("queue", "", 1.0), ("code", "", 1.0), ("wait", "early", 10.0)]
    pause = execution(
        row(1, 0, Kind.CLAIMED),
        row(2, 2, Kind.STEP_FAILED, "pay", began=1, ok=False),
        row(3, 2, Kind.WAITING),
        end=None,
        phase=Phase.WAITING,
    )
    assert path(pause, 4) == [("code", "", 2.0), ("wait", "", 2.0)]


def test_rows_that_were_not_read() -> None:
    one = execution(row(901, 50, Kind.STEP, "a", began=40), row(902, 60, Kind.COMPLETED), end=60, whole=False)
    assert path(one, 60) == [("unread", "", 50.0), ("code", "", 10.0)]


def test_shares_sum_to_100_and_small_parts_are_one() -> None:
    spans = [PathSpan(PathKind.STEP, f"s{n % 3}", ID, n, n + 1) for n in range(300)]
    large = [PathSpan(PathKind.STEP, "large", ID, 300, 400), PathSpan(PathKind.STEP, "large", ID, 400, 700)]
    parts = shares([*spans, *large])
    assert [(part.kind.value, part.name, part.times) for part in parts] == [("step", "large", 2), ("rest", "", 300)]
    assert [part.percent for part in parts] == [57.1, 42.9]
    assert shares([]) == []


def test_any_journal_has_a_path_without_gaps() -> None:
    chance = random.Random(19)
    kinds = [Kind.CLAIMED, Kind.WAITING, Kind.STEP, Kind.STEP_FAILED, Kind.TIMER, Kind.EVENT, Kind.CHILD_STARTED]
    kinds += [Kind.CHILD, Kind.LOST, Kind.RELEASED, Kind.RETRIED, Kind.BLOCKED, Kind.UNBLOCKED, Kind.PUBLISHED]
    for _ in range(2_000):
        at, rows, waits = 0.0, [], []
        for seq in range(1, chance.randrange(1, 14)):
            at += chance.choice((0, 0, 0.5, 1, 7))
            kind, key = chance.choice(kinds), f"k{seq}" if chance.random() < 0.7 else "again"
            began = max(0.0, at - chance.choice((0, 1, 5))) if kind in (Kind.STEP, Kind.STEP_FAILED) else None
            rows.append(row(seq, at, kind, key, began=began, value=msgspec.json.encode(CHILD)))
            if kind is Kind.EVENT or chance.random() < 0.1:
                waits.append(
                    RecordedWait(key, round(chance.uniform(0, at) * SECOND), "t", state=chance.choice(("met", "open")))
                )
        end = at + chance.choice((0, 1))
        phase = chance.choice((Phase.WAITING, Phase.COMPLETED))
        one = execution(*rows, end=None if phase is Phase.WAITING else end, phase=phase, waits=waits, whole=True)
        spans = path_of(one, 0, round(end * SECOND))
        if spans:
            whole(spans, 0, round(end * SECOND))
            assert round(sum(part.percent for part in shares(spans)), 6) == 100
        else:
            assert end == 0
