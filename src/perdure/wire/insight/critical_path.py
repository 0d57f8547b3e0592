"""The critical path of an execution: the parts of the time from its creation to its end.

Walk back from the end. The newest outcome before made the code go on, so the code used the time since. The outcome used
the time before: a step's tries, a wait, a child. Continue at the outcome's begin. Parallel parts are not on the path.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from perdure.wire.base.brief_executions import BriefExecution
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.base.status import Phase
from perdure.wire.insight.why import PathKind, PathPart
from perdure.wire.runs.waits import RecordedWait

SMALL: Final = 0.01
"""Smaller shares are shown together."""


class PathExecution(BriefExecution, frozen=True, kw_only=True):
    """An execution with its newest rows in the journal's order. `whole`: the journal has no earlier rows."""

    next_seq: int
    rows: Sequence[JournalEntry] = ()
    waits: Sequence[RecordedWait] = ()
    whole: bool = True


class PathSpan(NamedTuple):
    """A part of the path from `from_us` to `to_us`. `child_id` names the child whose own path the part stands for."""

    kind: PathKind
    name: str
    execution_id: str
    from_us: int
    to_us: int
    child_id: str | None = None

    @property
    def us(self) -> int:
        return self.to_us - self.from_us


def path_of(execution: PathExecution, from_us: int, to_us: int) -> list[PathSpan]:
    """Return the path within a time, in order and without gaps. A child is one span."""
    return [*reversed([*_Walk(execution, from_us).back(to_us)])]


class _Walk:
    def __init__(self, execution: PathExecution, from_us: int) -> None:
        self._id = execution.id
        self._is_open = execution.completed_at_us is None
        self._phase = execution.phase
        # A fork begins with rows of its source, which cost it no time.
        rows = [row for row in execution.rows if row.at_us >= execution.created_at_us]
        self._outcomes = [row for row in rows if row.kind in OUTCOMES]
        self._times = [row.at_us for row in self._outcomes]
        self._waits = {wait.key: wait for wait in execution.waits}
        self._children = {row.key: row for row in execution.rows if row.kind is Kind.CHILD_STARTED and row.ok}
        self._tries: dict[str | None, list[JournalEntry]] = {}
        for row in rows:
            if row.kind is Kind.STEP_FAILED or row.kind is Kind.STEP:
                self._tries.setdefault(row.key, []).append(row)
        self._moves = _moves(execution, rows)
        self._move_times = [at_us for at_us, _ in self._moves]
        self._held_times = [at_us for at_us, kind in self._moves if kind is PathKind.HELD]
        self._known_us = from_us
        if not execution.whole and execution.rows:
            self._known_us = max(from_us, execution.rows[0].at_us)
        self._from_us = from_us
        self._began_us = execution.created_at_us if execution.started_at_us is None else execution.started_at_us

    def back(self, to_us: int) -> Iterator[PathSpan]:
        place = len(self._outcomes)
        if self._is_open and self._phase is Phase.WAITING:
            for span in self._waiting(to_us):
                yield span
                to_us = span.from_us
        while to_us > self._known_us:
            place = min(place, bisect_right(self._times, to_us))
            if place == 0:
                yield from self._gap(self._known_us, to_us)
                break
            place -= 1
            row = self._outcomes[place]
            at_us = max(row.at_us, self._known_us)
            yield from self._gap(at_us, to_us)
            to_us = at_us
            for span in self._outcome(row, to_us, place):
                yield span
                to_us = span.from_us
        if self._known_us > self._from_us:
            yield PathSpan(PathKind.UNREAD, "", self._id, self._from_us, min(self._known_us, max(to_us, self._from_us)))

    def _span(
        self, kind: PathKind, name: str | None, from_us: int, to_us: int, child: str | None = None
    ) -> list[PathSpan]:
        from_us = max(from_us, self._known_us)
        return [PathSpan(kind, name or "", self._id, from_us, to_us, child_id=child)] if from_us < to_us else []

    def _outcome(self, row: JournalEntry, to_us: int, place: int) -> Iterator[PathSpan]:
        """Yield the spans of an outcome, the last first."""
        if row.kind is Kind.STEP:
            yield from self._step(row, to_us)
        elif row.kind is Kind.CHILD:
            started = self._children.get(row.key)
            if started is not None:
                yield from self._span(PathKind.CHILD, started.name, started.at_us, to_us, started.child_id)
        elif row.kind in (Kind.EVENT, Kind.RESUME):
            wait = self._waits.get(row.key or "")
            if wait is not None:
                yield from self._span(PathKind.WAIT, wait.topic or wait.key, wait.opened_at_us, to_us)
        elif row.kind is Kind.TIMER:
            # The journal does not say when it was set. The outcome before it is the earliest time.
            began_us = self._outcomes[place - 1].at_us if place else self._began_us
            yield from self._span(PathKind.TIMER, "" if row.key == "timer" else row.key, began_us, to_us)

    def _step(self, row: JournalEntry, to_us: int) -> Iterator[PathSpan]:
        for one in reversed([one for one in self._tries.get(row.key, ()) if one.seq <= row.seq]):
            if one.started_at_us is None or one.at_us > to_us:
                continue
            held = bisect_right(self._held_times, to_us - 1) > bisect_left(self._held_times, one.at_us)
            yield from self._span(PathKind.HELD if held else PathKind.PAUSE, one.key, one.at_us, to_us)
            to_us = min(one.at_us, to_us)
            began_us = min(one.started_at_us, to_us)
            yield from self._span(PathKind.STEP, one.key, began_us, to_us)
            to_us = began_us

    def _waiting(self, to_us: int) -> Iterator[PathSpan]:
        """Yield the wait or child for which an open execution has waited longest."""
        ended = {row.key for row in self._outcomes if row.kind is Kind.CHILD}
        children = [row for key, row in self._children.items() if key not in ended]
        waits = [wait for wait in self._waits.values() if wait.state == "open"]
        child = min(children, key=lambda row: row.at_us, default=None)
        wait = min(waits, key=lambda wait: wait.opened_at_us, default=None)
        if child is not None and (wait is None or child.at_us <= wait.opened_at_us):
            yield from self._span(PathKind.CHILD, child.name, child.at_us, to_us, child.child_id)
        elif wait is not None:
            yield from self._span(PathKind.WAIT, wait.topic or wait.key, wait.opened_at_us, to_us)

    def _gap(self, from_us: int, to_us: int) -> Iterator[PathSpan]:
        """Yield the time after an outcome: the code's, apart from queues and losses."""
        place = bisect_right(self._move_times, to_us)
        while to_us > from_us:
            place -= 1
            at_us, kind = self._moves[place] if place >= 0 else (from_us, PathKind.QUEUE)
            yield from self._span(kind, "", max(at_us, from_us), to_us)
            to_us = min(to_us, max(at_us, from_us))


def _moves(execution: PathExecution, rows: Iterable[JournalEntry]) -> list[tuple[int, PathKind]]:
    """List when the execution was queued, ran or stood still."""
    found = [(execution.created_at_us, PathKind.QUEUE if execution.whole else PathKind.CODE)]
    for row in rows:
        kind = _AFTER.get(row.kind)
        if row.kind in OUTCOMES and found[-1][1] in _STANDS_STILL:
            kind = PathKind.QUEUE
        if row.kind is Kind.RETRIED and found[-1][1] is not PathKind.CODE:
            kind = PathKind.QUEUE  # by an act, or at the begin of a fork
        if row.kind is Kind.LOST and found[-1][1] is PathKind.CODE:
            found[-1] = (found[-1][0], PathKind.LOST)
        if kind is not None:
            found.append((row.at_us, kind))
    return found


_AFTER: Final = {
    Kind.CLAIMED: PathKind.CODE,
    Kind.WAITING: PathKind.WAIT,
    Kind.WOKEN: PathKind.QUEUE,
    Kind.RETRIED: PathKind.PAUSE,
    Kind.RELEASED: PathKind.QUEUE,
    Kind.LOST: PathKind.QUEUE,
    Kind.HELD: PathKind.HELD,
    Kind.BLOCKED: PathKind.BLOCKED,
    Kind.UNBLOCKED: PathKind.QUEUE,
}
_STANDS_STILL: Final = frozenset({PathKind.WAIT, PathKind.HELD})
"""An outcome queues an execution in such a part."""


def shares(spans: Sequence[PathSpan]) -> list[PathPart]:
    """Return percentages with the sum 100. Small parts become one."""
    total = sum(span.us for span in spans)
    if total <= 0:
        return []
    joined = [_joined([*group]) for _, group in groupby(spans, key=lambda span: span[:3])]
    large = [one for one in joined if one[0].us >= SMALL * total]
    small = [one for one in joined if one[0].us < SMALL * total]
    if small:
        rest_us = sum(span.us for span, _ in small)
        first = small[0][0]
        rest = first._replace(kind=PathKind.REST, name="", to_us=first.from_us + rest_us)
        large.append((rest, sum(count for _, count in small)))
    tenths = _round([span.us * 1_000 / total for span, _ in large], 1_000)
    return [
        PathPart(
            *span[:3],
            started_at_us=span.from_us,
            seconds=span.us / 1e6,
            percent=part / 10,
            times=count,
        )
        for (span, count), part in zip(large, tenths, strict=True)
    ]


def _joined(group: Sequence[PathSpan]) -> tuple[PathSpan, int]:
    """Join neighbours of one kind, such as the tries of two attempts."""
    return group[0]._replace(to_us=group[-1].to_us), len(group)


def _round(parts: Sequence[float], total: int) -> list[int]:
    """Return whole numbers with the sum `total`, rounding up the largest remainders."""
    found = [int(part) for part in parts]
    order = sorted(range(len(parts)), key=lambda n: found[n] - parts[n])
    for n in order[: total - sum(found)]:
        found[n] += 1
    return found
