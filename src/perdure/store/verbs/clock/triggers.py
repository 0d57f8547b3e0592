"""Event triggers: make, delete, and take events of topics."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import asdict, replace

from perdure.store.base.interface import Metric, Notify, query, record, records, serves, value, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.base.pages import newest
from perdure.store.verbs.runs.start_targets import find_target, suggestion
from perdure.store.verbs.runs.starts import New, start_items
from perdure.wire.base.errors import DeploymentNotFound, NotFound, TooManyTriggers, WorkflowNotFound
from perdure.wire.base.limits import VALUE_BYTES_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done, writer
from perdure.wire.base.records import Problem
from perdure.wire.clock.triggers import (
    BATCH_MAX,
    DeleteEventTrigger,
    ListedTrigger,
    ListEventTriggers,
    RegisterEventTrigger,
    StoredTrigger,
    TriggerSpec,
    due_at_us,
)
from perdure.wire.runs.events import Event
from perdure.wire.runs.requests import StartItem

TRIGGERS_MAX = 10_000
_ENVELOPE = 1_024
"""Approximate bytes of an event without data."""


@serves(RegisterEventTrigger, sweep=True, wakes="trigger")
async def register_trigger(at: At, op: RegisterEventTrigger) -> Done:
    if await at.recall() is not None:
        return DONE
    values = asdict(op)
    project_id, deployment_id = at.project_id, values.pop("deployment_id")
    spec = TriggerSpec(**values)
    target = await find_target(project_id, spec.workflow_id, deployment_id)
    if target is None or target.deployment_id is None:
        raise DeploymentNotFound(f"Deployment {deployment_id!r} does not exist, or is retired.")
    if not target.runs:
        hint = await suggestion(project_id, target, spec.workflow_id)
        raise WorkflowNotFound(
            f"Workflow {spec.workflow_id!r} is not registered in deployment {deployment_id!r}.{hint}"
        )
    current = await value("current_deployment", project_id=project_id) == deployment_id
    await put_trigger(project_id, at.new_id, spec, at.now_us, declared=False, changes=current)
    await at.remember(None)
    return DONE


async def put_trigger(
    project_id: str, id: str, spec: TriggerSpec, now_us: int, *, declared: bool, changes: bool = True
) -> None:
    """An unchanged definition changes nothing. A new trigger starts at the topic's end."""
    last: int = await value("lock_topic", project_id=project_id, topic=spec.topic)
    before = await record(
        StoredTrigger, "find_trigger", project_id=project_id, topic=spec.topic, workflow_id=spec.workflow_id
    )
    if before is None:
        if not declared and await value("count_triggers", project_id=project_id) >= TRIGGERS_MAX:
            raise TooManyTriggers(
                f"The project has {TRIGGERS_MAX:,} event triggers, the most there may be; delete some first."
            )
        new = StoredTrigger(
            id=id, taken_seq=last, created_at_us=now_us, updated_at_us=now_us, declared=declared, **asdict(spec)
        )
        await query("insert_trigger", new, project_id=project_id)
        return
    after = replace(before, declared=before.declared or declared, **asdict(spec))
    if changes and after != before:
        await query("update_trigger", replace(after, updated_at_us=now_us), project_id=project_id)


@serves(DeleteEventTrigger, sweep=True)
async def delete_trigger(at: At, op: DeleteEventTrigger) -> None:
    if not await query("delete_trigger", at, id=op.trigger_id):
        raise NotFound(f"Event trigger {op.trigger_id!r} does not exist.")


async def declare_triggers(
    project_id: str, deployment_id: str, specs: Sequence[TriggerSpec], ids: Sequence[str], now_us: int
) -> None:
    """Make the declared triggers of the current deployment exactly `specs`."""
    if await value("current_deployment", project_id=project_id) != deployment_id:
        return
    wanted = {(spec.topic, spec.workflow_id): (spec, id) for spec, id in zip(specs, ids, strict=True)}
    for id, workflow_id, topic in await query("declared_triggers", project_id=project_id):
        if (topic, workflow_id) not in wanted:
            await query("delete_trigger", project_id=project_id, id=id)
    for named in sorted(wanted):  # all registrations lock topics in this order
        spec, id = wanted[named]
        await put_trigger(project_id, id, spec, now_us, declared=True)


class TakenEvents(NamedTuple):
    started: int = 0
    more: bool = False
    """Whether another batch may be ready."""
    refused: str | None = None
    """Why executions cannot be started; the events wait."""


@verb(sweep=True)
async def take_for_trigger(
    *, project_id: str, trigger_id: str, ids: Sequence[str], now_us: int, bytes_max: int = VALUE_BYTES_MAX
) -> TakenEvents:
    """Start a trigger's executions on the current deployment, at most one per id, and move the cursor."""
    trigger = await record(StoredTrigger, "try_lock_trigger", project_id=project_id, id=trigger_id)
    if trigger is None:
        return TakenEvents()
    taken_seq = await _skip_deleted(project_id, trigger)
    where = {"project_id": project_id, "topic": trigger.topic, "after": taken_seq}
    limit = min(trigger.batch_size * len(ids), BATCH_MAX)
    waiting = await query("event_sizes", limit=limit, **where)
    sizes, more = batches(trigger, waiting, len(ids), now_us, bytes_max, whole=len(waiting) < limit)
    if sizes:
        events = await records(Event, "read_events", limit=sum(sizes), **where)
        if len(events) < sum(sizes):  # some were deleted by age since the look
            return TakenEvents(more=True)
        ends = accumulate(sizes)
        news = [
            New(id, _item(trigger, events[end - size : end])) for id, size, end in zip(ids, sizes, ends, strict=False)
        ]
        first, *_ = await start_items(project_id, news, now_us)
        if isinstance(first, Problem):  # all go to the same workflow, so none was started
            return TakenEvents(refused=first.error)
        taken_seq = events[-1].sequence_id
        await Notify(Metric("trigger_starts", len(news)))
    if taken_seq > trigger.taken_seq:
        await query("take_events", project_id=project_id, id=trigger_id, taken_seq=taken_seq)
    return TakenEvents(len(sizes), more)


async def _skip_deleted(project_id: str, trigger: StoredTrigger) -> int:
    """The cursor behind untaken events deleted by age. The topic's end is read first: missing numbers up to the end are
    deleted."""
    end = await query("topic_end", project_id=project_id, topic=trigger.topic)
    left = await query("event_sizes", project_id=project_id, topic=trigger.topic, after=trigger.taken_seq, limit=1)
    gone_seq: int = left[0][0] - 1 if left else end[0][0]
    return max(trigger.taken_seq, gone_seq)


def batches(
    trigger: StoredTrigger,
    waiting: Sequence[tuple[int, int, int]],
    most: int,
    now_us: int,
    bytes_max: int,
    *,
    whole: bool,
) -> tuple[list[int], bool]:
    """The batch sizes to start now, and whether another batch may follow.

    `waiting` has number, size and time of waiting events: all if `whole`. A batch ends before the event beyond
    `bytes_max`. All batches together exceed the limit by at most the last batch.
    """
    sizes: list[int] = []
    at = used = 0
    while len(sizes) < most and used < bytes_max:
        count = size = 0
        for _, data_size, _ in waiting[at : at + trigger.batch_size]:
            if count and size + data_size + _ENVELOPE > bytes_max:
                break
            size += data_size + _ENVELOPE
            count += 1
        if count < trigger.batch_size and at + count == len(waiting):  # an incomplete batch may wait for more
            since_us = waiting[at][2] if count else None
            due_us = due_at_us(trigger.batch_size, trigger.batch_timeout_seconds, count, since_us)
            if not whole or due_us is None or due_us > now_us:
                return sizes, not whole
        sizes.append(count)
        at += count
        used += size
    return sizes, True


def _item(trigger: StoredTrigger, events: Sequence[Event]) -> StartItem:
    shown = [writer(Event)(event) for event in events]
    payload = msgspec.json.encode(shown[0] if trigger.takes_single_events else {"events": shown})
    return StartItem(
        workflow_id=trigger.workflow_id, payload=Raw(payload), queue_name=trigger.queue_name, accept_early=True
    )


class WatchedTopic(NamedTuple):
    project_id: str
    trigger_id: str
    topic: str
    due_at_us: int | None
    """0: now; None: not before more events come."""


@verb(reads=True)
async def watched_topics() -> list[WatchedTopic]:
    return [
        WatchedTopic(project_id, id, topic, due_at_us(batch_size, timeout, waiting, since_us))
        for project_id, id, topic, batch_size, timeout, waiting, since_us in await query("watched_topics")
    ]


@serves(ListEventTriggers, reads=True)
async def list_triggers(at: At, op: ListEventTriggers) -> Listed[ListedTrigger]:
    return await newest(ListedTrigger, "list_triggers", at, op)
