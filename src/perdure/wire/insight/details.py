"""The line of details of an execution in a list, worded like explanations, but without times."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from perdure.wire.agents.agent_runs import early_end
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.failures import read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.wording import cut, quoted, times
from perdure.wire.insight.explain import author, outcome_words
from perdure.wire.insight.explain_queued import limit_words, pause_words
from perdure.wire.insight.explain_waiting import awaited
from perdure.wire.insight.why_facts import Limit, Subject
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.queues import Pause
from perdure.wire.runs.waits import RecordedWait

CHILDREN_MAX: Final = 20
"""Newest children examined per execution."""


class OpenChildren(Struct, frozen=True, gc=False):
    """Open children among the newest children. `id` is the newest open child."""

    parent_id: str
    amount: int
    id: str
    workflow_id: str


class NumberedPause(Struct, frozen=True):
    number: int
    pause: Pause


class Served(Struct, frozen=True, gc=False):
    """The Python versions and the newest protocol of a deployment's workers."""

    pythons: frozenset[str] = frozenset()
    protocol: int = 0


class PageContext(Struct, frozen=True):
    """Facts about the open executions of a page, by execution."""

    waits: Mapping[str, RecordedWait]
    """Oldest open waits."""
    children: Mapping[str, OpenChildren]
    steps: Mapping[str, str]
    rows: Mapping[str, JournalEntry]
    """The newest outcomes of running executions, and the newest failed tries of waiting executions, if recent."""
    limits: Mapping[tuple[str, str], tuple[Rule, Limit]]
    """Reached limits, by queue and concurrency key."""
    pauses: Mapping[int, NumberedPause]
    served: Mapping[str, Served]


def details(one: Subject, beside: PageContext) -> str | None:
    match one.summary.phase:
        case Phase.COMPLETED:
            early = early_end(one.summary.progress)
            return None if early is None else cut(early[:1].upper() + early[1:])
        case Phase.FAILED | Phase.BLOCKED | Phase.HELD:
            return cut(one.error or "No reason was recorded.")
        case Phase.CANCELLED:
            return f"{author(one.cancelled_by, one.run_timeout_seconds)} cancelled it"
        case Phase.CANCELLING:
            return f"{author(one.cancelled_by, one.run_timeout_seconds)} cancelled it; its worker cleans up"
        case Phase.RUNNING:
            return _running(one.summary.id, beside)
        case Phase.WAITING:
            return _waiting(one, beside)
        case Phase.QUEUED:
            return _queued(one, beside)


def _running(id: str, beside: PageContext) -> str:
    step, row = beside.steps.get(id), beside.rows.get(id)
    if step is not None:
        return f"Runs step {quoted(step)}"
    if row is None:
        return "No outcome is recorded yet"
    if row.kind is Kind.STEP_FAILED:
        return f"Step {quoted(row.key or '')} failed {times(row.tries)}: {_error(row)}"
    return f"Newest outcome: {outcome_words(row.kind, row.key)}"


def _error(row: JournalEntry) -> str:
    return cut(str(read_failure(row.value)) if row.value is not None else "its error is long")


def _waiting(one: Subject, beside: PageContext) -> str:
    id = one.summary.id
    first, row, children = beside.waits.get(id), beside.rows.get(id), beside.children.get(id)
    if one.timer_key is None and one.summary.due_at_us is not None and row is not None:
        return f"Waits for try {row.tries + 1} of step {quoted(row.key or '')}; the last one failed: {_error(row)}"
    if first is not None:
        more = f" and {first.amount - 1} more" if first.amount > 1 else ""
        return f"Waits for {awaited(first)}{more}"
    if children is not None and children.amount == 1:
        return f"Waits for its child {children.id} ({children.workflow_id})"
    if children is not None:
        least = "at least " if children.amount == CHILDREN_MAX else ""
        return f"Waits for {least}{children.amount} children"
    return "Waits for its timer" if one.summary.due_at_us is not None else "Waits for an outcome"


def _queued(one: Subject, beside: PageContext) -> str:
    summary = one.summary
    if one.waits_for_turn:
        return f"Waits for its turn in session {quoted(summary.session_id)}"
    if summary.due_at_us is not None:
        return _later(one)
    if summary.deployment_id is None:
        return f"No deployment has registered workflow {quoted(summary.workflow_id)} yet"
    if one.gate > 1:
        pause = beside.pauses.get(one.gate)
        return (
            "The pause that held it has ended, and the server releases it"
            if pause is None
            else pause_words(pause.pause)
        )
    key = summary.concurrency_key
    reached = beside.limits.get((summary.queue_name, key or "")) if one.gate == 1 else None
    if reached is not None:
        rule, limit = reached
        return limit_words(rule, limit, summary.queue_name, key)
    deployment, served = quoted(summary.deployment_id), beside.served.get(summary.deployment_id, Served())
    if not served.pythons:
        return f"No worker serves deployment {deployment}"
    if one.python is not None and one.python not in served.pythons:
        return f"It began on Python {one.python}, and no worker of deployment {deployment} runs that"
    if one.needs_protocol is not None and one.needs_protocol > served.protocol:
        return f"It needs a worker of a newer release of perdure than deployment {deployment} has"
    return "Ready for a worker"


def _later(one: Subject) -> str:
    if one.summary.tries > 1:
        return f"Runs again after the pause of its retry policy; it failed {times(one.summary.tries - 1)}"
    if one.summary.losses:
        return (
            f"Runs again after a pause, because its worker was lost {times(one.summary.losses)} without a new outcome"
        )
    return "Waits for its start time"
