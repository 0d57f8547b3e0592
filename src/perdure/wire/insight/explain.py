"""Explanations from facts, without a clock or a database."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec.structs import replace

from perdure.wire.agents.agent_runs import early_end
from perdure.wire.base.failures import Failure, read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.times import duration
from perdure.wire.base.wording import NAMED_MAX, cut, decoded_object, listed, moment, quoted, times
from perdure.wire.insight.critical_path import PathSpan, shares
from perdure.wire.insight.explain_queued import explain_queued
from perdure.wire.insight.explain_waiting import explain_held, explain_waiting
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.insight.why import Difference, Fact, PathKind, PathPart, Why, explained, worker_words
from perdure.wire.insight.why_facts import (
    Blocked,
    Cause,
    Compared,
    EndFacts,
    Facts,
    Failed,
    Queued,
    Running,
    Subject,
    WaitFacts,
)
from perdure.wire.runs.executions import CANCEL, Act
from perdure.wire.runs.workers import WorkerState

MESSAGE_MAX: Final = 1_000
NAMED_PERCENT: Final = 5
"""A sentence names no smaller parts of a path."""


def explain(facts: Facts, acts: Sequence[Act], now_us: int) -> Why:
    """Explain an execution; `acts` are its newest acts."""
    found = _explain(facts, acts, now_us)
    return replace(found, facts=[*found.facts, *map(_act, acts)])


def _act(act: Act) -> Fact:
    what = act.action if act.key is None else f"{act.action} {quoted(act.key)}"
    note = "" if not act.note else f": {cut(act.note)}"
    return Fact("act", f"{what} by {cut(act.acted_by)}{note}", act.at_us)


def _explain(facts: Facts, acts: Sequence[Act], now_us: int) -> Why:
    match facts:
        case Queued():
            return explain_queued(facts)
        case WaitFacts():
            return explain_held(facts) if facts.subject.summary.phase is Phase.HELD else explain_waiting(facts)
        case Running():
            return explain_running(facts, acts, now_us)
        case Blocked():
            return explain_blocked(facts)
        case Failed():
            return explain_failed(facts)
        case EndFacts():
            return explain_end(facts, acts)


def with_path(found: Why, spans: Sequence[PathSpan]) -> Why:
    path = shares(spans)
    largest = sorted(path, key=lambda part: part.percent, reverse=True)[:NAMED_MAX]
    words = [
        f"{part.percent:.0f} % into {_part(part, found.execution_id)}"
        for part in largest
        if part.percent >= NAMED_PERCENT
    ]
    took = duration(sum(span.us for span in spans))
    sentence = (
        f"{found.sentence} Of its {took}, {listed(words).replace('%', '% went', 1)}." if words else found.sentence
    )
    commands = [command for command in found.commands if "--slow" not in command]
    return replace(found, sentence=sentence, commands=commands, path=path)


_INTO: Final = {
    PathKind.QUEUE: "waiting for a worker",
    PathKind.CODE: "the workflow's code",
    PathKind.STEP: "step",
    PathKind.PAUSE: "pauses between tries",
    PathKind.WAIT: "the wait for",
    PathKind.TIMER: "the timer",
    PathKind.CHILD: "child",
    PathKind.LOST: "work that was lost with a worker",
    PathKind.BLOCKED: "the time in which it was blocked",
    PathKind.HELD: "the hold",
    PathKind.REST: "smaller parts",
    PathKind.UNREAD: "the time before the rows that were read",
}


def _part(part: PathPart, id: str) -> str:
    words = _INTO[part.kind]
    if part.name:
        of = part.kind in (PathKind.PAUSE, PathKind.HELD)
        words += f"{' of' if of else ''} {quoted(part.name)}"
    else:
        words = {PathKind.WAIT: "waiting", PathKind.TIMER: "a timer"}.get(part.kind, words)
    return words if part.execution_id == id else f"{words} of execution {part.execution_id}"


def explain_running(facts: Running, acts: Sequence[Act], now_us: int) -> Why:
    subject, summary, worker, newest = facts.subject, facts.subject.summary, facts.worker, facts.newest
    worker_id = summary.assigned_to_worker
    if facts.steps:
        place = listed(
            [f"step {quoted(one.key or '')} has run since {moment(one.since_us or 0)}" for one in facts.steps]
        )
    elif newest is None:
        place = "no outcome is recorded yet"
    else:
        ago = duration(max(0, now_us - newest.at_us))
        place = f"the newest outcome is {outcome_words(newest.kind, newest.key)}, recorded {ago} ago"
    if worker is not None and worker.state is WorkerState.LAPSED and worker.lease_until_us is not None:
        place += f"; the worker's lease ended at {moment(worker.lease_until_us)}, so the server takes it back"
    if summary.phase is Phase.CANCELLING and subject.cancelled_at_us is not None:
        cancelled = cancel_words(subject, acts, subject.cancelled_at_us)
        sentence = f"{cancelled}, and worker {worker_id} cleans up"
        if subject.due_at_us is not None:
            sentence += f" until {moment(subject.due_at_us)} at the latest"
        since_us = subject.cancelled_at_us
    else:
        sentence = f"Worker {worker_id} has run it since {moment(facts.claimed_at_us)}"
        since_us = facts.claimed_at_us
    return explained(
        summary,
        f"{sentence}; {place}.",
        since_us=since_us,
        until_us=subject.due_at_us,
        commands=[f"perdure logs {summary.id} --follow", *(f"perdure pending {summary.id}" for _ in facts.steps[:1])],
        details=_running_facts(facts),
    )


def outcome_words(kind: Kind, key: str | None) -> str:
    known = {Kind.CHILD_STARTED: "the start of child", Kind.CHILD: "the end of child", Kind.RESUME: "the answer to"}
    words = known.get(kind, kind.value.replace("_", " "))
    return words if key is None else f"{words} {quoted(key)}"


def _running_facts(facts: Running) -> Iterator[Fact]:
    subject, summary, worker, losses = facts.subject, facts.subject.summary, facts.worker, facts.losses
    if worker is None:
        yield Fact("worker", f"{summary.assigned_to_worker}; its registration has ended")
    else:
        yield Fact("worker", worker_words(worker))
        if worker.last_beat_at_us is not None:
            yield Fact("last beat", "", worker.last_beat_at_us)
    yield Fact("claimed", "", facts.claimed_at_us)
    for step in facts.steps:
        tried = f", after {step.tries} failed tries" if step.tries else ""
        yield Fact("step", f"{step.key}{tried}", step.since_us)
    if facts.newest is not None:
        yield Fact("newest outcome", outcome_words(facts.newest.kind, facts.newest.key), facts.newest.at_us)
    if losses.lost:
        last = "" if losses.last_lost_at_us is None else "; the last one"
        yield Fact(
            "lost", f"{times(losses.lost)}, {summary.losses} since its last outcome{last}", losses.last_lost_at_us
        )
    if losses.released:
        yield Fact("handed back", times(losses.released))
    if subject.due_at_us is not None:
        yield Fact("ends" if summary.phase is Phase.CANCELLING else "time-out", "", subject.due_at_us)


def explain_blocked(facts: Blocked) -> Why:
    subject, summary, row = facts.subject, facts.subject.summary, facts.row
    found = decoded_object(row.value)
    recorded, asked, source, message = (found.get(name) for name in ("recorded", "asked", "source", "message"))
    since, deployment = moment(row.at_us), quoted(summary.deployment_id or "")
    sentence = f"It has been blocked since {since}: {cut(str(message or subject.error)).rstrip('.')}."
    remedy = f"a worker that registers for deployment {deployment} with workflow {quoted(summary.workflow_id)}"
    details = [Fact("blocked", f"by worker {summary.assigned_to_worker}", row.at_us)]
    commands = [f"perdure show {summary.id} --journal", f"perdure cancel {summary.id}"]
    if isinstance(recorded, dict):
        there = f" ({cut(source)})" if isinstance(source, str) else ""
        asks = f"asks for {_side(asked)}" if isinstance(asked, dict) else "does not ask for it"
        sentence = (
            f"Its code has not matched its journal since {since}: row {found.get('seq')} is {_side(recorded)}, but the "
            f"code {asks}{there}."
        )
        remedy = f"a worker that registers for deployment {deployment} with code that makes the recorded calls"
        if isinstance(key := recorded.get("key"), str):
            remedy += f", or as a fork from {quoted(key)} on the code as it is"
            commands.insert(1, f"perdure fork {summary.id} --from {shlex.quote(key)}")
        details.append(Fact("recorded", _side(recorded)))
    if isinstance(asked, dict):
        details.append(Fact("the code asks for", _side(asked)))
    if isinstance(source, str):
        details.append(Fact("source", cut(source)))
    if message:
        details.append(Fact("message", str(message)[:MESSAGE_MAX]))
    return explained(
        summary,
        sentence,
        since_us=row.at_us,
        remedy=remedy,
        commands=commands,
        details=details,
    )


def _side(call: dict[str, Any]) -> str:
    kind, key, name = (call.get(word) for word in ("kind", "key", "name"))
    words = f"{kind} {quoted(str(key))}"
    return words if name is None or name == key else f"{words} of {quoted(str(name))}"


def explain_failed(facts: Failed) -> Why:
    subject, summary, causes = facts.subject, facts.subject.summary, facts.causes
    first_id = causes[-1].id if causes else summary.id
    sentence, remedy = _failure(subject, causes), "a retry" if summary.retried_as is None else None
    commands = [f"perdure retry {summary.id}" if summary.retried_as is None else f"perdure why {summary.retried_as}"]
    if facts.later:
        steps = listed([quoted(key) for key in facts.later])
        sentence += f" After the failure its code called {steps}, which may have undone earlier steps."
        remedy = "a retry that says what becomes of these outcomes"
        commands = [f"{commands[0]} --keep-later", f"{commands[0]} --redo-later"]
    commands += [f"perdure why {first_id}"] if first_id != summary.id else []
    found = explained(
        summary,
        sentence,
        since_us=summary.completed_at_us,
        remedy=remedy,
        commands=[*commands, f"perdure show {first_id} --journal"],
        details=_failed_facts(facts),
    )
    differences = [] if facts.before is None else [*_differences(facts.run, facts.before)]
    return replace(found, differences=differences)


def _failure(subject: Subject, causes: Sequence[Cause]) -> str:
    if not causes:
        return f"It failed: {cut(subject.error or 'no reason was recorded')}."
    first = causes[-1]
    where = f"In its descendant {first.id} ({first.workflow_id})" if len(causes) > 2 else None
    if len(causes) == 2:
        where = f"In its child {first.id} ({first.workflow_id})"
    if first.row is None:
        error = read_failure(first.end.value)
        if error.type == "Poisoned":
            what = cut(error.message.removesuffix("."))
            return f"{where}: {what}." if where else f"It failed as {what}."
        what = f"the code failed: {cut(str(error))}{_at(error)}"
        return f"{where} {what}." if where else f"Its code failed: {cut(str(error))}{_at(error)}."
    error = read_failure(first.row.value)
    key = quoted(first.row.key or "")
    if first.row.kind is Kind.STEP:
        tried = f" after {first.row.tries} tries" if first.row.tries > 1 else ""
        what = f"step {key} failed{tried}: {cut(str(error))}{_at(error)}"
    elif first.row.kind is Kind.CHILD_STARTED:
        what = f"the start of child {key} was refused: {cut(str(error))}"
    elif first.row.name == Phase.CANCELLED:
        what = f"child {key} was cancelled"
    else:
        what = f"child {key} failed: {cut(str(error))}"
    return f"{where} {what}." if where else f"{what[0].upper()}{what[1:]}."


def _at(error: Failure) -> str:
    lines = _FRAME.findall(str(error.detail or ""))
    return f" ({lines[-1][0]}:{lines[-1][1]})" if lines else ""


_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)


def _failed_facts(facts: Failed) -> Iterator[Fact]:
    summary = facts.subject.summary
    took = "" if summary.completed_at_us is None else f"{_after(summary)} after its creation"
    yield Fact("failed", took, summary.completed_at_us)
    for key in facts.later[:NAMED_MAX]:
        yield Fact("after the failure", quoted(key))
    for cause in facts.causes[1:]:
        yield Fact("in child", f"{cause.id} ({cause.workflow_id})", cause.end.at_us)
    for cause in facts.causes[-1:]:
        row = cause.row
        for failed in cause.tries:
            yield Fact(f"try {failed.tries}", cut(str(read_failure(failed.value))), failed.at_us)
        if row is not None and row.tries not in {failed.tries for failed in cause.tries}:
            name = f"try {row.tries}" if row.kind is Kind.STEP else "child"
            yield Fact(name, cut(str(read_failure(row.value))), row.at_us)
    if summary.tries > 1:
        yield Fact("run again", f"{times(summary.tries - 1)} by its own retry policy")
    if facts.before is not None:
        yield Fact("last completed", f"{facts.before.id} of the same workflow", facts.before.completed_at_us)


def _differences(run: Compared, before: Compared) -> Iterator[Difference]:
    pairs = (
        ("deployment", before.deployment_id, run.deployment_id),
        ("Python", before.python, run.python),
        ("queue", before.queue_name, run.queue_name),
    )
    for what, then, now in pairs:
        if then != now:
            yield Difference(what, then or "none", now or "none")
    same_input = run.payload is not None and run.payload == before.payload
    if not same_input:
        then, now = f"{before.payload_bytes:,} bytes", f"{run.payload_bytes:,} bytes"
        yield Difference("input", then, now if then != now else f"{now}, other content")
    earlier = {step.key: step for step in before.steps}
    new = next((step for step in run.steps if step.key not in earlier), None)
    if new is not None:
        yield Difference("first new step", "none", quoted(new.key or ""))
    changed = (step for step in run.steps if step.key in earlier and step.fingerprint != earlier[step.key].fingerprint)
    if same_input and (step := next(changed, None)) is not None:
        yield Difference("first step with another input", quoted(step.key or ""), quoted(step.key or ""))
    if run.step_count != before.step_count:
        yield Difference("steps with an outcome", f"{before.step_count:,}", f"{run.step_count:,}")


def explain_end(facts: EndFacts, acts: Sequence[Act]) -> Why:
    subject, summary, end = facts.subject, facts.subject.summary, facts.end
    at_us = summary.completed_at_us or summary.since_us
    if summary.phase is Phase.COMPLETED:
        early = early_end(summary.progress)
        sentence = f"It completed at {moment(at_us)}, {_after(summary)} after its creation."
        sentence += f" It {cut(early)}" if early else ""
    else:
        how = {"grace over": "its worker did not clean up in time", "worker lost": "its worker vanished meanwhile"}
        note = "" if end is None else how.get(end.name or "", "")
        sentence = cancel_words(subject, acts, subject.cancelled_at_us or at_us)
        sentence += f"; {note}." if note else "."
    queued = "" if summary.started_at_us is None else f"{duration(summary.started_at_us - summary.created_at_us)} after"
    details = [Fact("ended", f"{_after(summary)} after its creation", at_us)]
    if summary.started_at_us is not None:
        details.append(Fact("began", f"{queued} its creation", summary.started_at_us))
    details.append(Fact("steps", f"{facts.steps:,}"))
    return explained(
        summary,
        sentence,
        since_us=at_us,
        commands=[f"perdure why {summary.id} --slow", f"perdure show {summary.id}"],
        details=details,
    )


def cancel_words(subject: Subject, acts: Sequence[Act], at_us: int) -> str:
    """Say that an execution was cancelled, naming the caller and the note, if recorded."""
    who, rest = author(subject.cancelled_by, subject.run_timeout_seconds), ""
    act = next((one for one in acts if one.action == CANCEL), None)
    if act is not None and subject.cancelled_by != "system":
        rest = "" if subject.cancelled_by == "user" else f" with {who}"
        rest += "" if not act.note else f" ({quoted(act.note)})"
        who = cut(act.acted_by[:1].upper() + act.acted_by[1:])
    return f"{who} cancelled it{rest} at {moment(at_us)}"


def author(cancelled_by: str | None, run_timeout_seconds: int | None) -> str:
    if cancelled_by == "system":
        return "The server" if run_timeout_seconds is None else f"The run time-out of {run_timeout_seconds} s"
    return "A caller" if cancelled_by in (None, "user") else cut(cancelled_by)


def _after(summary: ExecutionSummary) -> str:
    return duration((summary.completed_at_us or summary.since_us) - summary.created_at_us)
