"""Schedules: make, change, delete, run by hand, and fire due slots.

A change or fire locks the schedule's row. A slot's row, the execution and the next slot are one transaction (I7).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import asdict, replace

from perdure.store.base.interface import Metric, Notify, query, record, records, serves, value, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.base.pages import newest
from perdure.store.verbs.runs.start_targets import StartTarget, check_payload, find_target, suggestion
from perdure.store.verbs.runs.starts import New, start_items
from perdure.wire.base.brief_executions import StartedExecution
from perdure.wire.base.errors import BadRequest, BadValue, NotFound, TooManySchedules, from_code
from perdure.wire.base.fields import ZonedTime
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import not_null
from perdure.wire.base.records import Problem
from perdure.wire.base.times import rfc3339
from perdure.wire.clock.cron import cron
from perdure.wire.clock.schedules import (
    WAITING_MAX,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    Fire,
    Fires,
    FireState,
    GetFires,
    GetNextRuns,
    GetSchedule,
    GetScheduledWorkflows,
    GetSchedulesForWorkflow,
    ListSchedules,
    Missed,
    Overlap,
    RunSchedule,
    ScheduleMade,
    ScheduleSpec,
    ScheduleStatus,
    StoredSchedule,
    due_slots,
    input_of,
)
from perdure.wire.runs.requests import StartItem

SCHEDULES_MAX = 10_000

_PUT = msgspec.json.Decoder(str)
_RUN = msgspec.json.Decoder(tuple[str, int])


@serves(CreateSchedule, locks="schedule_key=op.workflow_id,op.key", wakes="schedule")
async def make_schedule(at: At, op: CreateSchedule) -> ScheduleMade:
    first = await at.recall()
    if first is not None:
        return ScheduleMade(_PUT.decode(first))
    known = await put_schedule(at.project_id, at.new_id, op, at.now_us, declared=False)
    await at.remember(known)
    return ScheduleMade(known)


async def put_schedule(project_id: str, id: str, spec: ScheduleSpec, now_us: int, *, declared: bool) -> str:
    """An unchanged definition changes nothing; a pause stays."""
    while True:
        found = await value("find_schedule", project_id=project_id, workflow_id=spec.workflow_id, key=spec.key)
        if found is not None:
            before = await record(StoredSchedule, "lock_schedule", project_id=project_id, id=found)
            if before is None:
                continue  # deleted since the look
            payload = _payload(spec.payload, None if declared else before.payload)
            after = replace(before, **_given(spec), payload=payload, declared=before.declared or declared)
            if spec.payload is not None and not declared:
                await _check_payload(project_id, after, await find_target(project_id, spec.workflow_id))
            await _update(project_id, before, after, now_us)
            return before.id
        next_at_us = cron(spec.cron, spec.timezone).next_after(now_us)
        assert next_at_us is not None  # `ScheduleSpec.check` refused one that is never due
        new = StoredSchedule(
            id=id,
            status=ScheduleStatus.ACTIVE,
            next_at_us=next_at_us,
            created_at_us=now_us,
            updated_at_us=now_us,
            payload=_payload(spec.payload, None),
            declared=declared,
            **_given(spec),
        )
        if not declared:
            await _check_new(project_id, new)
        if await query("insert_schedule", new, project_id=project_id):
            return id


def _given(spec: ScheduleSpec | ChangeSchedule) -> dict[str, Any]:
    """The given fields, without the payload."""
    stays = ("schedule_id", "payload")
    return {name: value for name, value in asdict(spec).items() if value is not None and name not in stays}


def _payload(given: Raw | None, before: Raw | None) -> Raw | None:
    """JSON null: the input will describe the due time."""
    return before if given is None else not_null(given)


async def _update(project_id: str, before: StoredSchedule, after: StoredSchedule, now_us: int) -> None:
    """Another expression or zone, or the end of a pause, restarts the schedule now."""
    anew = (before.cron, before.timezone) != (after.cron, after.timezone)
    if anew or (before.status, after.status) == (ScheduleStatus.PAUSED, ScheduleStatus.ACTIVE):
        after = replace(after, next_at_us=after.following(now_us))
    if after == before:
        return
    await query("update_schedule", replace(after, updated_at_us=now_us), project_id=project_id)


async def _check_new(project_id: str, schedule: StoredSchedule) -> None:
    workflow_id = schedule.workflow_id
    target = await find_target(project_id, workflow_id)
    if target is None:
        raise NotFound(f"Project {project_id!r} does not exist.")
    if target.deployment_id is not None and not target.runs:
        hint = await suggestion(project_id, target, workflow_id)
        raise BadRequest(
            f"Workflow {workflow_id!r} cannot be scheduled: the current deployment, {target.deployment_id!r}, does not "
            f"have it; check its name, or start a worker that has it.{hint}"
        )
    await _check_payload(project_id, schedule, target)
    if await value("count_schedules", project_id=project_id) >= SCHEDULES_MAX:
        raise TooManySchedules(
            f"The project has {SCHEDULES_MAX:,} schedules, the most there may be; delete some first."
        )


async def _check_payload(project_id: str, schedule: StoredSchedule, target: StartTarget | None) -> None:
    """A declared payload is left to the worker, which encodes the input by the workflow's type."""
    try:
        await check_payload(project_id, schedule.workflow_id, target, input_of(schedule, schedule.next_at_us))
    except BadValue as error:
        if schedule.payload is not None:
            raise
        raise BadValue(f"{error.message}; a schedule without `payload` gives the due time", error.details) from None


@serves(ChangeSchedule, locks="schedule=op.schedule_id", wakes="schedule")
async def change_schedule(at: At, op: ChangeSchedule) -> StoredSchedule:
    before = await _schedule("lock_schedule", at.project_id, op.schedule_id)
    after = replace(before, **_given(op), payload=_payload(op.payload, before.payload))
    cron(after.cron, after.timezone)
    if op.payload is not None:
        await _check_payload(at.project_id, after, await find_target(at.project_id, after.workflow_id))
    await _update(at.project_id, before, after, at.now_us)
    return await _schedule("read_schedule", at.project_id, op.schedule_id)


@serves(DeleteSchedule, locks="schedule=op.schedule_id")
async def delete_schedule(at: At, op: DeleteSchedule) -> None:
    if not await query("delete_schedule", at, id=op.schedule_id):
        raise _unknown(op.schedule_id)
    await query("delete_fires", op)


async def declare(
    project_id: str, deployment_id: str, specs: Sequence[ScheduleSpec], ids: Sequence[str], now_us: int
) -> None:
    """Make the declared schedules of the current deployment exactly `specs`."""
    if await value("current_deployment", project_id=project_id) != deployment_id:
        return
    wanted = {(spec.workflow_id, spec.key): (spec, id) for spec, id in zip(specs, ids, strict=True)}
    for id, workflow_id, key in await query("declared_schedules", project_id=project_id):
        if (workflow_id, key) not in wanted:
            await query("delete_schedule", project_id=project_id, id=id)
            await query("delete_fires", schedule_id=id)
    for named in sorted(wanted):
        spec, id = wanted[named]
        await put_schedule(project_id, id, spec, now_us, declared=True)


@verb(locks="schedule=schedule_id")
async def fire_schedule(*, project_id: str, schedule_id: str, ids: Sequence[str], now_us: int) -> int | None:
    """Fire due and waiting slots, at most one per id; `ids` has two or more. Further slots stay due.

    Returns how many executions were started; None: another server has the schedule, or a needed row is locked. Raises
    BadValue if this machine does not know the zone.
    """
    schedule = before = await record(StoredSchedule, "try_lock_schedule", project_id=project_id, id=schedule_id)
    if schedule is None or before is None or schedule.status is ScheduleStatus.PAUSED:
        return None
    if await value("locked_fires", schedule_id=schedule_id):
        return None  # a locked execution holds up this schedule only
    slots, next_at_us = due_slots(schedule, now_us, len(ids) - 1)
    await query("settle_fires", schedule_id=schedule_id)
    running, waiting, first = (await query("open_fires", schedule_id=schedule_id))[0]
    started = 0
    in_turn = schedule.overlap is not Overlap.ALLOW
    while waiting and not (in_turn and running) and started < len(ids) - len(slots):
        schedule, did = await _start(project_id, schedule, first, ids[started], now_us)
        started += did
        running, waiting, first = (await query("open_fires", schedule_id=schedule_id))[0]
    for slot_us in slots:
        state, reason = FireState.STARTED, None
        if in_turn and running:
            state, reason = _blocked(schedule, waiting)
        fire = {"state": FireState.WAITING if reason is None else state, "execution_id": None, "reason": reason}
        slot = {"project_id": project_id, "schedule_id": schedule_id, "slot_us": slot_us, "now_us": now_us}
        if not await query("insert_fire", by_hand="", **slot, **fire):
            continue
        if state is FireState.STARTED:
            schedule, did = await _start(project_id, schedule, slot_us, ids[started], now_us)
            running += did
            started += did
        elif state is FireState.WAITING:
            waiting += 1
        else:
            await Notify(Metric("schedule_skips"))
    if (next_at_us, schedule.last_slot_us) != (before.next_at_us, before.last_slot_us):
        times = {"next_at_us": next_at_us, "last_slot_us": schedule.last_slot_us}
        await query("advance_schedule", project_id=project_id, id=schedule_id, **times)
    return started


def _blocked(schedule: StoredSchedule, waiting: int) -> tuple[FireState, str | None]:
    if schedule.overlap is Overlap.SKIP:
        return FireState.SKIPPED, "an execution of this schedule was still open"
    if waiting >= WAITING_MAX:
        return FireState.SKIPPED, f"{WAITING_MAX} fires were waiting already"
    return FireState.WAITING, None


async def _start(
    project_id: str, schedule: StoredSchedule, slot_us: int, id: str, now_us: int
) -> tuple[StoredSchedule, int]:
    """Answers the schedule afterwards, and how many executions were started."""
    [answer] = await start_items(project_id, [New(id, _item(schedule, slot_us))], now_us)
    refused = isinstance(answer, Problem)
    await query(
        "update_fire",
        schedule_id=schedule.id,
        slot_us=slot_us,
        state=FireState.SKIPPED if refused else FireState.STARTED,
        execution_id=None if isinstance(answer, Problem) else answer.execution_id,
        reason=answer.error if isinstance(answer, Problem) else None,
        now_us=now_us,
    )
    await Notify(Metric("schedule_refusals" if refused else "schedule_fires"))
    if refused:
        return schedule, 0
    return replace(schedule, last_slot_us=max(slot_us, schedule.last_slot_us or 0)), 1


def _item(schedule: StoredSchedule, at_us: int, *, by_hand: bool = False) -> StartItem:
    """The start of a slot. The key names schedule and slot, so a slot cannot have a second execution."""
    return StartItem(
        workflow_id=schedule.workflow_id,
        payload=input_of(schedule, at_us),
        concurrency_key=schedule.key,
        key=None if by_hand else f"{schedule.key}@{rfc3339(at_us)[:16]}Z",
        accept_early=True,
    )


@serves(RunSchedule, locks="schedule=op.schedule_id")
async def run_schedule(at: At, op: RunSchedule) -> StartedExecution:
    first = await at.recall()
    if first is not None:
        return StartedExecution(*_RUN.decode(first))
    schedule = await _schedule("lock_schedule", at.project_id, op.schedule_id)
    new = New(at.new_id, _item(schedule, at.now_us, by_hand=True))
    [answer] = await start_items(at.project_id, [new], at.now_us, checks_input=True)
    if isinstance(answer, Problem):
        raise from_code(answer.error_type, answer.error, answer.details)
    fire = {"slot_us": at.now_us, "by_hand": new.id, "state": FireState.STARTED, "execution_id": new.id, "reason": None}
    await query("insert_fire", at, op, **fire)
    await at.remember((new.id, at.now_us), [new.id])
    return StartedExecution(new.id, at.now_us)


class DueSchedule(NamedTuple):
    schedules: list[tuple[str, str, bool]]
    """Project, schedule, and whether all of its slots were missed."""
    since_us: int | None
    next_at_us: int | None
    waiting_workflows: frozenset[str]
    """Workflows whose ends waiting slots need."""


@verb(reads=True)
async def due_schedules(*, now_us: int, limit: int) -> DueSchedule:
    rows = await query("due_schedules", now_us=now_us, limit=limit)
    found = {(project_id, id): missed == Missed.ALL for project_id, id, missed, _ in rows}
    workflows = await query("waiting_workflows")
    if workflows:
        for project_id, id in await query("unblocked_schedules", limit=limit):
            found.setdefault((project_id, id), False)
    next_at = None if rows else await value("next_schedule")
    return DueSchedule(
        [(project_id, id, every) for (project_id, id), every in found.items()],
        rows[0][3] if rows else None,
        next_at,
        frozenset(id for (id,) in workflows),
    )


@serves(GetSchedule, reads=True)
async def get_schedule(at: At, op: GetSchedule) -> StoredSchedule:
    return _shown(await _schedule("read_schedule", at.project_id, op.schedule_id), at.now_us)


@serves(GetNextRuns, reads=True)
async def next_runs(at: At, op: GetNextRuns) -> Listed[ZonedTime]:
    schedule = _shown(await _schedule("read_schedule", at.project_id, op.schedule_id), at.now_us)
    read, first = cron(schedule.cron, schedule.timezone), schedule.next_at_us
    return Listed([read.local(at_us) for at_us in [first, *read.slots(first, 1 << 62, op.count - 1)]])


@serves(ListSchedules, reads=True)
async def list_schedules(at: At, op: ListSchedules) -> Listed[StoredSchedule]:
    return await _page(at, op)


@serves(GetSchedulesForWorkflow, reads=True)
async def schedules_of_workflow(at: At, op: GetSchedulesForWorkflow) -> Listed[StoredSchedule]:
    return await _page(at, op)


async def _page(at: At, op: ListSchedules | GetSchedulesForWorkflow) -> Listed[StoredSchedule]:
    page = await newest(StoredSchedule, "list_schedules", at, op)
    return page._replace(items=[_shown(one, at.now_us) for one in page.items])


def _shown(schedule: StoredSchedule, now_us: int) -> StoredSchedule:
    """A paused schedule shows the next due time after now."""
    if schedule.status is ScheduleStatus.ACTIVE:
        return schedule
    try:
        return replace(schedule, next_at_us=schedule.following(now_us))
    except BadValue:  # only other servers know the zone
        return schedule


@serves(GetScheduledWorkflows, reads=True)
async def scheduled_workflows(at: At, op: GetScheduledWorkflows) -> Listed[str]:
    return Listed([id for (id,) in await query("scheduled_workflows", at)])


@serves(GetFires, reads=True)
async def list_fires(at: At, op: GetFires) -> Fires:
    await _schedule("read_schedule", at.project_id, op.schedule_id)
    found = await records(Fire, "list_fires", op, before_us=1 << 62 if op.before is None else op.before)
    return Fires(found, len(found) == op.limit)


@verb(reads=True)
async def fires_between(
    *, project_id: str, before: str, limit: int, from_us: int, to_us: int, fires_max: int
) -> list[tuple[StoredSchedule, list[Fire]]]:
    """Schedules with their fires in the range: the latest `fires_max`."""
    found: list[tuple[StoredSchedule, list[Fire]]] = []
    for schedule in await records(
        StoredSchedule, "list_schedules", project_id=project_id, workflow_id=None, before=before, limit=limit
    ):
        fires = await records(Fire, "list_fires", schedule_id=schedule.id, before_us=to_us, limit=fires_max)
        found.append((schedule, [fire for fire in fires if fire.slot_us >= from_us]))
    return found


async def _schedule(name: str, project_id: str, schedule_id: str) -> StoredSchedule:
    found = await record(StoredSchedule, name, project_id=project_id, id=schedule_id)
    if found is None:
        raise _unknown(schedule_id)
    return found


def _unknown(schedule_id: str) -> NotFound:
    return NotFound(f"Schedule {schedule_id!r} does not exist; `perdure schedules ls` shows them.")
