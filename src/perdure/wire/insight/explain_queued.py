"""Explanations of queued executions: the rule of admission that holds an execution back, and the remedy."""

import shlex
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from perdure.wire.base.records import Kind
from perdure.wire.base.wording import NAMED_MAX, cut, listed, moment, quoted, times
from perdure.wire.insight.why import Fact, Why, explained, worker_words
from perdure.wire.insight.why_facts import BEFORE_MAX, Limit, Queued
from perdure.wire.runs.admission import PAUSES, Rule
from perdure.wire.runs.queues import Pause, unpause_command
from perdure.wire.runs.waits import QueuedBehind
from perdure.wire.runs.workers import WorkerState

WORKERS_SHOWN_MAX: Final = 10


class QueueVerdict(NamedTuple):
    sentence: str
    remedy: str | None = None
    commands: tuple[str, ...] = ()
    since_us: int | None = None
    """None: since the execution is ready."""
    until_us: int | None = None


def explain_queued(facts: Queued) -> Why:
    subject = facts.subject
    told = _nothing(facts) if facts.rule is None else _TOLD[facts.rule](facts)
    sentence = told.sentence
    if facts.rule in (Rule.TURN, Rule.START_TIME) and not facts.workers:
        sentence += f" No worker serves deployment {quoted(subject.summary.deployment_id or '')} now."
    if subject.cancelled_at_us is not None:
        sentence += f" It was cancelled at {moment(subject.cancelled_at_us)}, and cleans up when it starts."
    found = explained(
        subject.summary,
        sentence,
        since_us=subject.ready_at_us if told.since_us is None else told.since_us,
        until_us=told.until_us,
        remedy=told.remedy,
        commands=told.commands,
        details=_details(facts),
    )
    count = None
    if facts.limit is not None:
        count = facts.limit.held
    elif facts.rule is Rule.CAPACITY:
        count = sum(worker.listed.running for worker in facts.workers)
    return replace(found, rule=facts.rule, holders=[*facts.holders], held_by_count=count, pause=facts.pause)


def queued_behind(facts: Queued) -> QueuedBehind | None:
    """None: the execution does not wait for a session, a queue or a pause."""
    if facts.pause is not None:
        return QueuedBehind("pause", facts.pause.name, [], pause=facts.pause)
    if facts.rule is Rule.TURN:
        session_id = facts.session_id or facts.subject.summary.session_id
        return QueuedBehind("session", session_id, [] if facts.behind_id is None else [facts.behind_id])
    if facts.limit is None or facts.rule not in (Rule.QUEUE_LIMIT, Rule.KEY_LIMIT):
        return None
    what = "queue" if facts.rule is Rule.QUEUE_LIMIT else "concurrency_key"
    holders = sorted(one.execution_id for one in facts.holders)
    return QueuedBehind(what, facts.subject.summary.queue_name, holders, facts.limit.most)


def _turn(facts: Queued) -> QueueVerdict:
    before = "" if facts.behind_id is None else f", after execution {facts.behind_id}"
    return QueueVerdict(
        f"It waits for its turn in session {quoted(facts.session_id or facts.subject.summary.session_id)}{before}.",
        None if facts.behind_id is None else f"the end of execution {facts.behind_id}",
        () if facts.behind_id is None else (f"perdure why {facts.behind_id}",),
    )


def _start_time(facts: Queued) -> QueueVerdict:
    subject, newest = facts.subject, facts.newest
    assert subject.due_at_us is not None
    reason = "as its caller asked"
    if newest is not None and newest.kind is Kind.RETRIED:
        reason = f"after the pause of its retry policy; it failed {times(subject.summary.tries - 1)}"
    elif newest is not None and newest.kind is Kind.LOST:
        reason = f"after a pause, because its worker was lost {times(subject.summary.losses)} without a new outcome"
    elif newest is not None:
        reason = "after a pause, because its worker handed it back"
    return QueueVerdict(
        f"It starts at {moment(subject.due_at_us)}, {reason}.",
        "its start time",
        since_us=subject.summary.since_us,
        until_us=subject.due_at_us,
    )


def _deployment(facts: Queued) -> QueueVerdict:
    workflow = facts.subject.summary.workflow_id
    return QueueVerdict(
        f"No deployment has registered workflow {quoted(workflow)} yet.",
        f"a worker that registers workflow {quoted(workflow)}",
        ("perdure work APP", "perdure workflows"),
        since_us=facts.subject.summary.created_at_us,
    )


def _pause(facts: Queued) -> QueueVerdict:
    pause = facts.pause
    if pause is None:  # its end came between two looks
        return _releasing(facts)
    ends = "when an admin ends the pause" if pause.until_us is None else f"at {moment(pause.until_us)}"
    return QueueVerdict(
        f"{pause_words(pause, f' since {moment(pause.paused_at_us)}')}. It goes on {ends}.",
        "the end of the pause",
        (unpause_command(pause), "perdure pauses"),
        since_us=max(pause.paused_at_us, facts.subject.ready_at_us),
        until_us=pause.until_us,
    )


def pause_words(pause: Pause, since: str = "") -> str:
    note = "" if pause.note is None else f": {cut(pause.note)}"
    what, who = cut(pause.what), cut(pause.paused_by)
    return f"{what[:1].upper()}{what[1:]} has been paused{since} by {who}{note}"


def _releasing(facts: Queued) -> QueueVerdict:
    return QueueVerdict(
        "The pause that held it has ended, and the server releases what it held, some hundred executions at a time.",
        "its release, which comes by itself",
        ("perdure pauses",),
    )


def _limit(facts: Queued) -> QueueVerdict:
    limit, subject = facts.limit, facts.subject
    assert limit is not None and facts.rule is not None
    reached = limit_words(facts.rule, limit, subject.summary.queue_name, subject.summary.concurrency_key)
    began = [one.since_us for one in facts.holders if one.since_us is not None]
    since = f" since {moment(min(began))}" if began else ""
    return QueueVerdict(
        f"{reached}{since}; {_before(facts)}.",
        "the end of one of these executions, or a higher limit",
        tuple(f"perdure why {one.execution_id}" for one in facts.holders[:NAMED_MAX]),
    )


def limit_words(rule: Rule, limit: Limit, queue_name: str, concurrency_key: str | None) -> str:
    is_key = rule is Rule.KEY_LIMIT
    each = " of each concurrency key" if is_key else ""
    whose = f" of key {quoted(concurrency_key)}" if is_key and concurrency_key else ""
    are = "is" if limit.held == 1 else "are"
    return f"Queue {quoted(queue_name)} runs {limit.most:,}{each} at a time, and {limit.held:,}{whose} {are} running"


def _before(facts: Queued) -> str:
    if not facts.before:
        return "it is the next one"
    count = f"{facts.before:,}" if facts.before < BEFORE_MAX else f"at least {BEFORE_MAX:,}"
    return f"{count} {'is' if facts.before == 1 else 'are'} before it"


def _no_worker(facts: Queued) -> QueueVerdict:
    deployment = facts.subject.summary.deployment_id or ""
    return QueueVerdict(
        f"No worker serves deployment {quoted(deployment)}. It has been ready since "
        f"{moment(facts.subject.ready_at_us)}.",
        f"{'its push worker' if facts.push else f'a worker of deployment {quoted(deployment)}'}",
        (*(() if facts.push else (f"perdure work APP --deployment {shlex.quote(deployment)}",)), "perdure workers"),
    )


def _python(facts: Queued) -> QueueVerdict:
    python, deployment = facts.subject.python, quoted(facts.subject.summary.deployment_id or "")
    others = listed(sorted({worker.suits_python for worker in facts.workers}))
    return QueueVerdict(
        f"It began on Python {python}, and the workers of deployment {deployment} run Python {others}.",
        f"a worker of deployment {deployment} on Python {python}",
        ("perdure workers",),
    )


def _protocol(facts: Queued) -> QueueVerdict:
    deployment = quoted(facts.subject.summary.deployment_id or "")
    return QueueVerdict(
        f"It needs a worker of a newer release of perdure than the workers of deployment {deployment} have.",
        f"a worker of deployment {deployment} with this release",
        ("perdure workers",),
    )


def _capacity(facts: Queued) -> QueueVerdict:
    deployment = quoted(facts.subject.summary.deployment_id or "")
    held = sum(one.listed.running for one in facts.workers)
    capacity = sum(one.listed.capacity for one in facts.workers)
    amount = len(facts.workers)
    who = "The worker" if amount == 1 else f"All {amount:,} workers"
    return QueueVerdict(
        f"{who} of deployment {deployment} {'is' if amount == 1 else 'are'} full ({held:,} of {capacity:,}).",
        f"the end of one of {'its' if amount == 1 else 'their'} executions, or another worker",
        tuple(f"perdure why {one.execution_id}" for one in facts.holders[:NAMED_MAX]) or ("perdure workers",),
    )


def _order(facts: Queued) -> QueueVerdict:
    count = facts.before + facts.beside
    amount = f"{count:,}" if count < BEFORE_MAX else f"At least {BEFORE_MAX:,}"
    are = "execution goes" if count == 1 else "executions go"
    may = " or may go" if facts.beside else ""
    return QueueVerdict(
        f"{amount} ready {are}{may} before it, and the workers have room for these only.",
        "the claims of the executions before it, or another worker",
        ("perdure workers",),
    )


def _nothing(facts: Queued) -> QueueVerdict:
    ready = moment(facts.subject.ready_at_us)
    listed = [worker.listed for worker in facts.workers]
    if listed and all(worker.state is WorkerState.LAPSED for worker in listed):
        ended = max(worker.lease_until_us or 0 for worker in listed)
        return QueueVerdict(
            f"Nothing has held it back since {ready}, but the last lease of its workers ended at {moment(ended)}.",
            f"a worker of deployment {quoted(facts.subject.summary.deployment_id or '')} that beats",
            ("perdure workers",),
        )
    return QueueVerdict(f"Nothing has held it back since {ready}; a worker takes it with its next claim.")


_TOLD: Final[dict[Rule, Callable[[Queued], QueueVerdict]]] = {
    Rule.TURN: _turn,
    Rule.START_TIME: _start_time,
    Rule.DEPLOYMENT: _deployment,
    **dict.fromkeys(PAUSES, _pause),
    Rule.RELEASING: _releasing,
    Rule.QUEUE_LIMIT: _limit,
    Rule.KEY_LIMIT: _limit,
    Rule.WORKER: _no_worker,
    Rule.PYTHON: _python,
    Rule.PROTOCOL: _protocol,
    Rule.CAPACITY: _capacity,
    Rule.ORDER: _order,
}


def _details(facts: Queued) -> Iterator[Fact]:
    subject = facts.subject
    if subject.due_at_us is None:
        yield Fact("ready", f"{facts.before:,} before it" if facts.before else "", subject.ready_at_us)
    queue = subject.summary.queue_name
    if subject.summary.concurrency_key is not None:
        queue += f" / {subject.summary.concurrency_key}"
    yield Fact("queue", queue)
    if subject.summary.started_at_us is not None:
        yield Fact("began", "", subject.summary.started_at_us)
    for worker in facts.workers[:WORKERS_SHOWN_MAX]:
        yield Fact("worker", worker_words(worker.listed))
    if len(facts.workers) > WORKERS_SHOWN_MAX:
        yield Fact("workers", f"{len(facts.workers) - WORKERS_SHOWN_MAX:,} more")
