"""Sums of model calls, read from journal rows."""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from perdure.wire.agents.agent_steps import CallUsage, call_usage
from perdure.wire.agents.usage import ChildUsage, ExecutionUsage, ModelCall, ModelUsage, Spent
from perdure.wire.base.entries import JournalEntry

S = TypeVar("S", bound=Spent)


class SpendingExecution(Struct, frozen=True, gc=False):
    id: str
    workflow_id: str
    parent_execution_id: str | None
    kept_rows: int | None


class UsageFacts(Struct, frozen=True):
    """Facts of a tree. The execution itself comes first, and parents before their children."""

    executions: Sequence[SpendingExecution]
    rows: Sequence[JournalEntry]
    whole: bool


def sums(facts: UsageFacts) -> ExecutionUsage:
    root = facts.executions[0]
    below: dict[str, SpendingExecution] = {}
    """Maps an execution's id to the child of the root above the execution."""
    for one in facts.executions[1:]:
        below[one.id] = one if one.parent_execution_id == root.id else below[one.parent_execution_id or ""]
    found = [(row, call) for row in facts.rows if (call := _call(row)) is not None]
    calls = sorted((call for _, call in found), key=attrgetter("at_us"))
    models: dict[str | None, ModelUsage] = {}
    children: dict[str, ChildUsage] = {}
    total = own = Spent()
    for call in calls:
        ms = call.ms or 0.0
        total = plus(total, call, ms)
        models[call.model] = plus(models.get(call.model) or ModelUsage(model=call.model), call, ms)
        child = below.get(call.execution_id)
        if child is None:
            own = plus(own, call, ms)
        else:
            known = children.get(child.id) or ChildUsage(execution_id=child.id, workflow_id=child.workflow_id)
            children[child.id] = plus(known, call, ms)
    return ExecutionUsage(
        execution_id=root.id,
        total=total,
        own=own,
        models=dearest(models),
        children=dearest(children),
        calls=calls,
        exact=facts.whole and all(row.value is not None for row in facts.rows),
    )


def _call(row: JournalEntry) -> ModelCall | None:
    used = call_usage(row.name, row.value)
    if used is None:
        return None
    ms = None if row.started_at_us is None else max(0, row.at_us - row.started_at_us) / 1_000
    said: dict[str, Any] = used._asdict()
    return ModelCall(execution_id=row.execution_id, seq=row.seq, key=row.key or "", at_us=row.at_us, ms=ms, **said)


SUMMED: Final = ("input_tokens", "output_tokens", "cached_tokens")


def plus(spent: S, call: ModelCall | CallUsage, ms: float) -> S:
    return replace(
        spent,
        calls=spent.calls + 1,
        usd=spent.usd + (call.usd or 0.0),
        unpriced=spent.unpriced + (call.usd is None),
        ms=spent.ms + ms,
        **{name: getattr(spent, name) + getattr(call, name) for name in SUMMED},
    )


def dearest(found: Mapping[str, S] | Mapping[str | None, S]) -> list[S]:
    """The most expensive first."""
    values: Iterable[S] = found.values()
    return sorted(values, key=lambda one: (-one.usd, -one.input_tokens - one.output_tokens))
