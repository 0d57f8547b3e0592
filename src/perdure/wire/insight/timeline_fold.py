"""Journal rows to spans. The same rows give the same spans, and any cut into pages gives the same whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from perdure.wire.agents.agent_steps import call_usage
from perdure.wire.base.brief_executions import BriefExecution
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.failures import read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.insight.timelines import (
    MESSAGE_CHARS_MAX,
    ClaimEnd,
    Proof,
    SpanChild,
    SpanError,
    SpanKind,
    SpanRun,
    SpanState,
    SpanTry,
    SpanWait,
    Timeline,
    TimelineClaim,
    TimelineMark,
    TimelineSpan,
)
from perdure.wire.runs.waits import RecordedWait
from perdure.wire.steering.acts import Actable, PendingCall


class RunningStep(Struct, frozen=True):
    """A step under way at the worker's last message."""

    key: str
    tries: int
    started_at_us: int


class TimelineFacts(Struct, frozen=True, kw_only=True):
    """A page of journal rows, with the waits, children and acts they refer to. `before` is the row before the page."""

    execution: Actable
    before: JournalEntry | None
    rows: Sequence[JournalEntry]
    last_seq: int
    has_more: bool
    waits: Sequence[RecordedWait]
    children: Sequence[BriefExecution]
    timers: Sequence[PendingCall] = ()
    in_flight: Sequence[RunningStep] = ()
    acts: Mapping[int, str]
    """Maps a row written by an act to the action."""
    steps_rerun: int


class LostWork(Struct, frozen=True):
    """The value of a row `lost`: what the worker's newest beat said."""

    in_flight: Sequence[RunningStep] = ()
    worker: str | None = None
    """The worker, in the error of a poisoned execution."""


_lost_work: Final = msgspec.json.Decoder(LostWork).decode

_WAITS: Final = {
    Kind.TIMER: SpanKind.TIMER,
    Kind.EVENT: SpanKind.EVENT,
    Kind.RESUME: SpanKind.ANSWER,
}
_INSTANTS: Final = {
    Kind.PUBLISHED: SpanKind.PUBLISH,
    Kind.SENT: SpanKind.SENT,
    Kind.TRANSCRIPT: SpanKind.TRANSCRIPT,
    Kind.MESSAGE: SpanKind.MESSAGE,
    Kind.CANCEL: SpanKind.CANCEL,
}
_CLAIM_ENDS: Final = {Kind(end): end for end in ClaimEnd}
_MARKS: Final = frozenset(
    {
        Kind.WOKEN,
        Kind.FORKED,
        Kind.RETRIED,
        Kind.HELD,
        Kind.IGNORED,
        Kind.BLOCKED,
        Kind.UNBLOCKED,
        Kind.COMPLETED,
        Kind.FAILED,
        Kind.CANCELLED,
    }
)
_CHILD_ENDS: Final = {phase: SpanState(phase) for phase in FINAL}

Key = tuple[SpanKind, str]


def fold(facts: TimelineFacts) -> Timeline:
    made = _Fold(facts.execution, facts.before)
    made.add(facts.rows)
    made.place_waits(facts.waits)
    made.place_timers(facts.timers)
    made.place_children({child.id: child for child in facts.children})
    if facts.execution.worker_id is not None:
        made.place_in_flight(facts.in_flight, facts.execution.attempt, facts.execution.worker_id)
    if facts.acts:
        made.note_acts(facts.acts)
    counts = Counter(row.kind for row in facts.rows)
    return Timeline(
        execution_id=facts.execution.id,
        last_seq=facts.last_seq,
        has_more=facts.has_more,
        spans=[TimelineSpan(**values) for values in made.spans.values()],
        claims=[TimelineClaim(**values) for values in made.claims.values()],
        marks=made.marks,
        counts={kind.value: amount for kind, amount in counts.items()},
        proof=Proof(counts[Kind.LOST], facts.steps_rerun),
    )


def wait_keys(rows: Sequence[JournalEntry]) -> list[str]:
    return [row.key for row in rows if row.key is not None and row.kind in (Kind.EVENT, Kind.RESUME)]


def child_ids(rows: Sequence[JournalEntry]) -> list[str]:
    found = (row.child_id for row in rows if row.kind is Kind.CHILD_STARTED and row.ok)
    return [id for id in found if id is not None]


class _Fold:
    def __init__(self, execution: Actable, before: JournalEntry | None) -> None:
        self._is_over = execution.phase in FINAL
        self._kept = execution.kept_rows or 0
        self.spans: dict[Key, dict[str, Any]] = {}
        self.claims: dict[int, dict[str, Any]] = {}
        self.marks: list[TimelineMark] = []
        self._before_us = None if before is None else before.at_us
        """The time of the row before. A timer was set then or earlier."""
        self._due = None if before is None or before.kind is not Kind.WAITING else before.fingerprint

    def add(self, rows: Sequence[JournalEntry]) -> None:
        for row in rows:
            kind = row.kind
            if kind is Kind.STEP or kind is Kind.STEP_FAILED:
                self._step(row)
            elif kind is Kind.CHILD_STARTED:
                self._child_started(row)
            elif kind is Kind.CHILD:
                self._child_ended(row)
            elif kind in _WAITS:
                self._waited(row, _WAITS[kind])
            elif kind in _INSTANTS:
                self._instant(row, _INSTANTS[kind])
            else:
                self._transition(row)
            self._before_us = row.at_us

    def place_waits(self, waits: Sequence[RecordedWait]) -> None:
        """Place waits of the page's keys, and in the last page all open and closed waits."""
        for wait in waits:
            span = self.spans.get((SpanKind.EVENT, wait.key)) or self.spans.get((SpanKind.ANSWER, wait.key))
            is_met = span is not None
            if span is None:
                if wait.state == "met":
                    continue  # by an outcome of another kind: a batch of children, or a time-out
                kind = SpanKind.ANSWER if wait.topic is None or wait.is_question else SpanKind.EVENT
                span = self._span(kind, wait.key)
                span["state"] = SpanState.WAITING if wait.state == "open" else SpanState.CLOSED
            span["wait"] = SpanWait(
                what=span["kind"].value,
                topic=wait.topic,
                match=wait.match,
                until_us=wait.expires_at_us,
                by=wait.answered_by if is_met else None,
            )
            span.setdefault("name", wait.topic)
            span["started_at_us"] = min(wait.opened_at_us, span.get("ended_at_us", wait.opened_at_us))

    def place_timers(self, timers: Sequence[PendingCall]) -> None:
        for timer in timers:
            span = self._span(SpanKind.TIMER, timer.key or "")
            span["state"] = SpanState.WAITING
            span["wait"] = SpanWait(what=SpanKind.TIMER.value, until_us=timer.due_at_us)
            if timer.since_us is not None:
                span["started_at_us"] = timer.since_us

    def place_children(self, children: Mapping[str, BriefExecution]) -> None:
        for (kind, _), span in self.spans.items():
            if kind is not SpanKind.CHILD or "child" not in span:
                continue
            child = children.get(span["child"].execution_id)
            if child is None:
                continue
            span["child"] = SpanChild(execution_id=child.id, workflow_id=span["child"].workflow_id, phase=child.phase)
            span["queued_at_us"] = child.created_at_us
            if child.started_at_us is not None:
                span["started_at_us"] = child.started_at_us
            if "ended_at_us" in span:
                continue
            if child.phase in FINAL:
                span["state"] = _CHILD_ENDS[child.phase]
                if child.completed_at_us is not None:
                    span["ended_at_us"] = child.completed_at_us
            else:
                rests = child.phase in (Phase.QUEUED, Phase.WAITING, Phase.HELD, Phase.BLOCKED)
                span["state"] = SpanState.WAITING if rests else SpanState.RUNNING

    def place_in_flight(self, steps: Sequence[RunningStep], attempt: int, worker: str) -> None:
        for step in steps:
            span = self._span(SpanKind.STEP, step.key)
            self._add_run(span, step, attempt, worker)
            span["state"] = SpanState.RUNNING

    def note_acts(self, actions: Mapping[int, str]) -> None:
        for span in self.spans.values():
            action = next((actions[seq] for seq in span.get("seqs", ()) if seq in actions), None)
            if action is not None:
                span["edited"] = action

    def _span(self, kind: SpanKind, key: str) -> dict[str, Any]:
        span = self.spans.get((kind, key))
        if span is None:
            span = self.spans[kind, key] = {"key": key, "kind": kind}
        return span

    def _of_row(self, row: JournalEntry, kind: SpanKind) -> dict[str, Any]:
        key = row.key if row.key is not None else f"{row.kind.value} {row.seq}"
        span = self._span(kind, key)
        if "seqs" in span:
            span["seqs"].append(row.seq)
        else:
            span["seqs"] = [row.seq]
        if row.seq <= self._kept:
            span["copied"] = True
        return span

    def _step(self, row: JournalEntry) -> None:
        if (SpanKind.CHILD, row.key) in self.spans:
            return  # a child's failure that a retry has taken back
        span = self._of_row(row, SpanKind.STEP)
        span["name"] = row.name
        if row.label is not None:
            span.setdefault("label", row.label)
        if row.quiet:
            span["quiet"] = True
        started_us = row.started_at_us
        if started_us is not None and "started_at_us" not in span:
            span["started_at_us"] = started_us
        span["ended_at_us"] = row.at_us
        error = retry_at_us = None
        if row.ok:
            span["state"] = SpanState.COMPLETED
            span["bytes"] = row.size
            if row.value is not None:
                self._used(span, row)
        else:
            failure = read_failure(row.value)
            error, retry_at_us = failure_in_short(row), failure.retry_at_us
            span["state"] = SpanState.FAILED
            if row.kind is Kind.STEP_FAILED and not self._is_over:
                if failure.held:
                    span["state"] = SpanState.HELD
                elif retry_at_us is not None:
                    span["state"] = SpanState.PAUSED
        tries = span.setdefault("tries", [])
        number = row.tries or len(tries) + 1
        tries.append(
            SpanTry(
                n=number,
                seq=row.seq,
                attempt=row.attempt,
                started_at_us=started_us,
                ended_at_us=row.at_us,
                ok=row.ok,
                error=error,
                retry_at_us=retry_at_us,
            )
        )

    def _used(self, span: dict[str, Any], row: JournalEntry) -> None:
        used = call_usage(row.name, row.value)
        if used is not None:
            span["tokens"] = used.input_tokens + used.output_tokens
            if used.usd is not None:
                span["usd"] = used.usd

    def _child_started(self, row: JournalEntry) -> None:
        span = self._of_row(row, SpanKind.CHILD)
        span["name"] = row.name
        span["queued_at_us"] = row.at_us
        if not row.ok:
            span["state"] = SpanState.FAILED
            span["ended_at_us"] = row.at_us
            span["error"] = failure_in_short(row)
            return
        span["state"] = SpanState.RUNNING
        if row.child_id is not None:
            span["child"] = SpanChild(execution_id=row.child_id, workflow_id=row.name or "")

    def _child_ended(self, row: JournalEntry) -> None:
        span = self._of_row(row, SpanKind.CHILD)
        phase = next((phase for phase in _CHILD_ENDS if phase == row.name), None)
        span["state"] = SpanState.FAILED if phase is None else _CHILD_ENDS[phase]
        if phase is None and row.ok:
            span["state"] = SpanState.COMPLETED
        span["ended_at_us"] = row.at_us
        span["bytes"] = row.size
        if not row.ok and row.value is not None and row.name != Phase.CANCELLED:
            span["error"] = failure_in_short(row)

    def _waited(self, row: JournalEntry, kind: SpanKind) -> None:
        span = self._of_row(row, kind)
        span["state"] = SpanState.COMPLETED if row.ok else SpanState.FAILED
        span["ended_at_us"] = row.at_us
        if kind is SpanKind.TIMER:
            due = row.fingerprint or self._due
            since_us = row.started_at_us if row.started_at_us is not None else self._before_us
            if since_us is not None:
                span["started_at_us"] = since_us
            span["wait"] = SpanWait(what=kind.value, until_us=int(due) if due is not None and due.isdigit() else None)
            return
        span["name"] = row.name
        span["bytes"] = row.size
        if not row.ok:
            span["error"] = failure_in_short(row)

    def _instant(self, row: JournalEntry, kind: SpanKind) -> None:
        span = self._of_row(row, kind)
        span["name"] = row.name
        span["state"] = SpanState.COMPLETED if row.ok else SpanState.FAILED
        span["started_at_us"] = span["ended_at_us"] = row.at_us
        if not row.ok:
            span["error"] = failure_in_short(row)

    def _transition(self, row: JournalEntry) -> None:
        kind = row.kind
        if kind is Kind.CLAIMED:
            claim = self.claims.setdefault(row.attempt, {"attempt": row.attempt})
            claim.update(worker=row.name, from_us=row.at_us, seq=row.seq)
            if row.seq <= self._kept:
                claim["copied"] = True
            self._due = None
        elif kind is Kind.WAITING:
            self._due = row.fingerprint
        elif kind is Kind.RETRIED and row.key is not None:  # an act let the held step run again
            self._span(SpanKind.STEP, row.key)["state"] = SpanState.PAUSED
        if row.value is not None and kind in (Kind.LOST, Kind.FAILED):
            self._lost(row)
        how = _CLAIM_ENDS.get(kind)
        if how is not None and row.attempt and not (kind is Kind.RETRIED and row.key is not None):
            claim = self.claims.setdefault(row.attempt, {"attempt": row.attempt})
            if "how" not in claim:
                claim.update(to_us=row.at_us, to_seq=row.seq, how=how)
        if kind in _MARKS:
            error = None if row.ok or row.value is None else failure_in_short(row)
            if kind is Kind.RETRIED and row.key is None and row.name:
                error = SpanError(message=row.name[:MESSAGE_CHARS_MAX])
            self.marks.append(
                TimelineMark(seq=row.seq, at_us=row.at_us, kind=kind, key=row.key, name=row.name, error=error)
            )

    def _lost(self, row: JournalEntry) -> None:
        assert row.value is not None
        try:
            work = _lost_work(row.value)
        except msgspec.MsgspecError:
            return
        worker = row.name if row.kind is Kind.LOST else work.worker
        for step in work.in_flight:
            span = self._span(SpanKind.STEP, step.key)
            self._add_run(span, step, row.attempt, worker or "", lost_at_us=row.at_us)
            span["state"] = SpanState.LOST

    def _add_run(
        self, span: dict[str, Any], step: RunningStep, attempt: int, worker: str, lost_at_us: int | None = None
    ) -> None:
        span.setdefault("started_at_us", step.started_at_us)
        run = SpanRun(
            attempt=attempt, worker=worker, n=step.tries, started_at_us=step.started_at_us, lost_at_us=lost_at_us
        )
        span.setdefault("runs", []).append(run)


def failure_in_short(row: JournalEntry) -> SpanError:
    failure = read_failure(row.value)
    return SpanError(failure.type[:MESSAGE_CHARS_MAX], failure.message[:MESSAGE_CHARS_MAX])
