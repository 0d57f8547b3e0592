"""Worker registrations and claims. A lease decides when work is handed out again, never whether a message counts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.store.base.executions import JournalRow, StoredWorker
from perdure.store.base.interface import Metric, Notify, Written, query, query_many, record, records, value, verb
from perdure.store.verbs.base.try_lock import try_write
from perdure.store.verbs.clock.schedules import declare
from perdure.store.verbs.clock.triggers import declare_triggers
from perdure.store.verbs.runs import admission, workers
from perdure.store.verbs.runs.deployments import (
    adopt_early,
    check_room,
    enter_deployment,
    look_at_deployment,
    offer_work,
)
from perdure.store.verbs.runs.direct_dispatch import HandedOut
from perdure.store.verbs.runs.fields import declare_fields
from perdure.store.verbs.runs.queues import put_queue
from perdure.store.verbs.runs.rows import ROW_BYTES, journal_after
from perdure.store.verbs.runs.transitions import lose, try_lose
from perdure.wire.base.errors import Conflict, LeaseLost
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import Kind
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Claimed, RegisterRequest, StepInFlight
from perdure.wire.runs.workflows import WorkflowType

_AFTER_EVERY_KEY = "\U0010ffff"
_ARRIVED = "+"
"""A claim's id plus this sorts before the next claim's id."""
REAPED = "reaped_at_us"
"""Key in `meta` of the last reap's time."""
PUSHED = 2
"""`workers.embedded` of push workers."""
GROUPS_PER_CLAIM = 256
SHORT_ROWS = 16
"""Journals with fewer rows are read together."""


class RankRange(NamedTuple):
    """A part of a queue's order, from (`rank`, `ready_from_us`) up to `rank_before`."""

    rank: int
    ready_from_us: int
    """Applies to the first rank only."""
    rank_before: int


Held = list[tuple[str, int, int]]
"""Executions with attempt and last seq."""


class Beat(NamedTuple):
    project_id: str
    worker_id: str
    now_us: int
    """When the beat came."""
    steps: Sequence[StepInFlight] = ()


class Looked(NamedTuple):
    deployment_id: str
    python: str
    protocol: int
    heads: Sequence[tuple[int, int]] = ()
    """Ranks, each with the time when its first execution became ready; filled with `ranges`."""
    repeated: bool = False
    """The claim was a repeat, so no ready execution was looked for."""


@verb(sweep=True)
async def register(
    *,
    project_id: str,
    request: RegisterRequest,
    now_us: int,
    lease_us: int,
    schedule_ids: Sequence[str] = (),
    trigger_ids: Sequence[str] = (),
) -> None:
    """Open a registration, with fresh ids for schedules and event triggers.

    The current deployment's declarations replace earlier ones. An ended registration stays ended, even if a late copy
    of its first message arrives. Raises LeaseLost, Conflict.
    """
    if await query("read_ended", id=request.worker_id):
        raise _not_registered(request.worker_id)
    await check_room(project_id, [spec.id for spec in request.workflows])
    fresh, changes_sides = await look_at_deployment(project_id, request.deployment_id, now_us, push=False)
    worker = {"id": request.worker_id, "project_id": project_id, "lease_until_us": now_us + lease_us}
    kept = await query("upsert_worker", request, **worker, now_us=now_us)
    if not kept:
        raise Conflict(f"Worker id {request.worker_id!r} is taken; make a new random one.")
    await enter_deployment(project_id, request.deployment_id, now_us, fresh=fresh, push=False)
    ages: dict[str, int] = dict(
        await query("workflow_ages", project_id=project_id, deployment_id=request.deployment_id)
    )
    # This locks topics, so it comes before anything that locks executions.
    await declare_triggers(project_id, request.deployment_id, request.triggers, trigger_ids, now_us)
    scheduled = {spec.workflow_id for spec in request.schedules}
    triggered = {spec.workflow_id for spec in request.triggers}
    await query("delete_workflows", project_id=project_id, deployment_id=request.deployment_id)
    await query_many(
        "insert_workflow",
        [
            (
                project_id,
                request.deployment_id,
                spec.id,
                spec.queue_name,
                spec.output_schema_name,
                spec.run_timeout_seconds,
                int(spec.wake_on_cancel),
                spec.type.value,
                int(spec.id in triggered),
                int(spec.id in scheduled),
                ages.get(spec.id, now_us),
                msgspec.json.encode(spec.searchable).decode() if spec.searchable else None,
                None if spec.description is None else msgspec.json.encode(spec.description),
                None if spec.description is None else spec.description.check_name,
            )
            for spec in request.workflows
        ],
    )
    await declare_fields(project_id, request.workflows, now_us)
    agents = [spec.agent for spec in request.workflows if spec.agent is not None]
    if agents:
        await query_many(
            "put_definition",
            [
                (project_id, WorkflowType.AGENT.value, request.deployment_id, one.id, msgspec.json.encode(one), now_us)
                for one in agents
            ],
        )
    for queue in request.queues:
        await put_queue(project_id, queue)
    await declare(project_id, request.deployment_id, request.schedules, schedule_ids, now_us)
    await adopt_early("adopt_early", project_id, request.deployment_id)
    if changes_sides:  # a push worker that was given up would come back with its next beat
        for (id,) in await query("push_workers_of", project_id=project_id, deployment_id=request.deployment_id):
            await end_registration(id, now_us, replaced=True)
    await offer_work(project_id, request.deployment_id, now_us)


@verb(sweep=True)
async def claim(
    *,
    project_id: str,
    worker_id: str,
    claim_id: str,
    capacity: int,
    now_us: int,
    grace_us: int,
    after: tuple[str, str] = ("", ""),
    limited_first: bool = False,
    bytes_max: int = REPLY_BYTES_MAX,
    ranges: Sequence[RankRange] | None = None,
) -> tuple[list[tuple[Claimed, int]], tuple[str, str], Looked]:
    """Claim up to `capacity` executions. Returns each with the parked seq (0: none), and the limited group where the
    next claim starts.

    Claim ids ascend. The newest id again gets the unacknowledged part of its batch. An older id is a late copy and gets
    nothing.
    """
    worker = await _worker(project_id, worker_id)
    looked = Looked(worker.deployment_id, worker.python, worker.protocol)
    if claim_id == worker.last_claim_id:
        before = await records(HandedOut, "claimed_before", worker_id=worker_id, claim_id=claim_id)
        return [row.to_claimed(worker_id, again=True) for row in before], after, looked._replace(repeated=True)
    if worker.last_claim_id is not None and claim_id < worker.last_claim_id:
        return [], after, looked._replace(repeated=True)
    values = {
        "project_id": project_id,
        "deployment_id": worker.deployment_id,
        "worker_id": worker_id,
        "claim_id": claim_id,
        "python": worker.python,
        "protocol": worker.protocol,
        "now_us": now_us,
        "grace_us": grace_us,
    }
    room = Room(capacity, None if worker.embedded else bytes_max)
    after, heads = await pick(values, room, after, limited_first, ranges)
    if room.picked and not worker.embedded:  # its reply cannot be lost, so it never asks for the batch again
        await query("note_claim", id=worker_id, claim_id=claim_id)
    return [row.to_claimed(worker_id) for row in room.picked], after, looked._replace(heads=heads)


async def pick(
    values: dict[str, Any],
    room: "Room",
    after: tuple[str, str],
    limited_first: bool,
    ranges: Sequence[RankRange] | None = None,
) -> tuple[tuple[str, str], Sequence[tuple[int, int]]]:
    """Claim ready executions into `room.picked`. Returns the next limited group, and `Looked.heads`."""
    heads: Sequence[tuple[int, int]] = ()
    if not limited_first:
        heads = await _claim_ready(values, room, ranges)
    if room.executions > 0:
        after = await _claim_limited(values, room, after)
    if limited_first and room.executions > 0:
        heads = await _claim_ready(values, room, ranges)
    picked = room.picked
    if picked:
        picked.sort(key=lambda row: (row.rank, row.ready_at_us, row.claimed.id))
        rows = [
            JournalRow(row.claimed.id, row.seq, row.at_us, Kind.CLAIMED, row.claimed.attempt, name=values["worker_id"])
            for row in picked
        ]
        await query_many("insert_journal", rows)
        await Notify(Metric("claimed", len(picked)), *[Written(row.claimed.id) for row in picked])
    return after, heads


class Room:
    def __init__(self, executions: int, bytes_left: int | None) -> None:
        self.executions = executions
        self.picked: list[HandedOut] = []
        self._bytes = bytes_left

    async def pick(self, name: str, sizes: str, values: dict[str, Any], at_most: int) -> None:
        """Claim by the query `name`; the query `sizes` first says how many fit."""
        at_most = min(at_most, self.executions)
        if self._bytes is not None and at_most > 1:
            left = self._bytes
            for n, (size,) in enumerate(await query(sizes, capacity=at_most, **values), 1):
                left -= size
                if left <= 0:
                    at_most = n
                    break
        rows = await records(HandedOut, name, capacity=at_most, **values)
        self.picked += rows
        self.executions -= len(rows)
        if self._bytes is not None:
            self._bytes -= sum(len(row.claimed.payload) for row in rows)
            if self._bytes <= 0:
                self.executions = 0


async def _claim_ready(
    values: dict[str, Any], room: Room, ranges: Sequence[RankRange] | None
) -> Sequence[tuple[int, int]]:
    if ranges is None:
        await room.pick("claim_executions", "ready_sizes", values, room.executions)
        return ()
    before = len(room.picked)
    for place in ranges:
        if room.executions <= 0:
            break
        await room.pick("claim_between", "ready_sizes_between", {**values, **place._asdict()}, room.executions)
    heads: dict[int, int] = {}
    for row in room.picked[before:]:
        heads[row.rank] = min(row.ready_at_us, heads.get(row.rank, row.ready_at_us))
    return list(heads.items())


async def _worker(project_id: str, worker_id: str) -> StoredWorker:
    worker = await record(StoredWorker, "lock_worker", id=worker_id)
    if worker is None or worker.project_id != project_id or worker.embedded == PUSHED:
        raise _not_registered(worker_id)
    return worker


def _not_registered(worker_id: str) -> LeaseLost:
    return LeaseLost(f"Worker {worker_id!r} is not registered (any more); register again with a new id.")


async def _claim_limited(values: dict[str, Any], room: Room, after: tuple[str, str]) -> tuple[str, str]:
    project_id = values["project_id"]
    locked: set[str] = set()
    wrapped = after == ("", "")
    for _ in range(GROUPS_PER_CLAIM):
        place = {"queue_name": after[0], "concurrency_key": after[1]}
        of_deployment = {"project_id": project_id, "deployment_id": values["deployment_id"]}
        groups = await query("next_limited_group", **of_deployment, **place)
        if not groups:
            after = ("", "")
            if wrapped:
                break
            wrapped = True
            continue
        queue_name, key = after = groups[0]
        if queue_name not in locked:
            if not await query("lock_queue", project_id=project_id, name=queue_name):  # another server is counting
                after = (queue_name, _AFTER_EVERY_KEY)
                continue
            locked.add(queue_name)
        free, full = admission.room(await admission.group_room(project_id, queue_name, key))
        if full is Rule.QUEUE_LIMIT:
            after = (queue_name, _AFTER_EVERY_KEY)
        if free:
            group = {**values, "queue_name": queue_name, "concurrency_key": key}
            await room.pick("claim_limited", "ready_sizes_limited", group, free)
        if room.executions <= 0:
            break
    return after


@verb(locks="worker=worker_id")
async def note_arrival(*, project_id: str, worker_id: str, claim_id: str) -> None:
    """Note that the newest claim's answer has arrived, so `recall` leaves its work."""
    worker = await _worker(project_id, worker_id)
    if worker.last_claim_id == claim_id:
        await query("note_claim", id=worker_id, claim_id=claim_id + _ARRIVED)


@verb(sweep=True)
async def recall(*, project_id: str, worker_id: str, claim_id: str, now_us: int) -> int:
    """Take back the unacknowledged part of the worker's newest claim. Returns the count of executions.

    Such executions count as deliveries in vain, so the next worker acknowledges first. Thus code that blocks an event
    loop blocks at most two workers.
    """
    worker = await record(StoredWorker, "read_worker", id=worker_id)
    if worker is None or worker.last_claim_id != claim_id:
        return 0
    held = await query("unheard_of", worker_id=worker_id, claim_id=claim_id)
    for id, attempt in held:
        await lose(project_id, id, attempt, worker_id, now_us, released=True, begun=True, refused=True)
    return len(held)


@verb(reads=True)
async def journals(*, wanted: Sequence[tuple[str, int]], rows_max: int, bytes_max: int) -> list[tuple[list[Row], bool]]:
    """Read journals, each after a seq. Each answer says whether rows were left out for size."""
    short = await _short_journals(wanted, min(rows_max, SHORT_ROWS), bytes_max)
    found: list[tuple[list[Row], bool]] = []
    room = bytes_max
    for execution_id, after in wanted:
        rows, more = short.get(execution_id, []), False
        if not rows:
            rows, more = await journal_after(execution_id, after, rows_max=rows_max, bytes_max=room)
        room -= sum(ROW_BYTES + len(bytes(row.value)) for row in rows)
        found.append((rows, more))
    return found


async def _short_journals(wanted: Sequence[tuple[str, int]], rows_max: int, bytes_max: int) -> Mapping[str, list[Row]]:
    """Read short journals whole while they fit: two queries in place of two per journal."""
    places: dict[int, list[str]] = {}
    for execution_id, after in wanted:
        places.setdefault(after, []).append(execution_id)
    found: dict[str, list[Row]] = {}
    for after, ids in places.items():
        if len(ids) < 2:
            continue
        fits: list[str] = []
        where = {"after": after, "last": after + rows_max}
        for execution_id, rows, size in await query("short_sizes", ids=_json(ids), **where):
            bytes_max -= rows * ROW_BYTES + size
            if bytes_max < 0:
                break
            if rows < rows_max:
                fits.append(execution_id)
        for row in await records(JournalRow, "read_short", ids=_json(fits), **where):
            found.setdefault(row.execution_id, []).append(row.to_row())
    return {execution_id: rows for execution_id, rows in found.items() if len(rows) < rows_max}


def _json(ids: Sequence[str]) -> str:
    return msgspec.json.encode(ids).decode()


@verb(sweep=True)
async def beat(
    *, project_id: str, worker_id: str, now_us: int, lease_us: int, steps: Sequence[StepInFlight] = ()
) -> Held | None:
    """Renew a lease; `steps` are in flight. None: the lease has ended, so the worker must drop everything."""
    rows = await query(
        "beat_worker",
        id=worker_id,
        project_id=project_id,
        now_us=now_us,
        lease_until_us=now_us + lease_us,
        in_flight=workers.write_steps(steps),
    )
    if not rows:
        return None
    held = await query("held_by", worker_id=worker_id)
    return [(id, attempt, seq) for _, id, attempt, seq in held]


@verb(sweep=True)
async def beat_together(*, beats: Sequence[Beat], lease_us: int) -> dict[str, Held]:
    """Renew many workers' leases like `beat`. Leaves out locked workers and ended leases."""
    rows = [
        {
            "id": beat.worker_id,
            "project_id": beat.project_id,
            "now_us": beat.now_us,
            "lease_until_us": beat.now_us + lease_us,
            "in_flight": workers.write_steps(beat.steps),
        }
        for beat in beats
    ]
    held: dict[str, Held] = {id: [] for (id,) in await query_many("beat_unlocked", rows)}
    if held:
        for worker_id, id, attempt, seq in await query("held_by_all", workers=_json(list(held))):
            held[worker_id].append((id, attempt, seq))
    return held


@verb(sweep=True)
async def renew_leases(*, leases: Sequence[tuple[int, str]]) -> None:
    """Write the ends of leases, each with its worker."""
    await query_many("renew_lease", leases)


@verb(reads=True)
async def read_lease(*, project_id: str, worker_id: str) -> tuple[int, bytes | None, Held] | None:
    """Read the lease's end, the running steps as `workers.write_steps` makes them, and the held executions."""
    for lease_until_us, steps in await query("read_lease", id=worker_id, project_id=project_id):
        held = await query("held_by", worker_id=worker_id)
        return lease_until_us, steps, [(id, attempt, seq) for _, id, attempt, seq in held]
    return None


@verb(reads=True)
async def any_lease_until(*, until_us: int) -> bool:
    return bool(await query("any_lease_until", until_us=until_us))


@verb(locks="worker=worker_id")
async def cut_lease(*, worker_id: str, until_us: int, granted_us: int | None = None) -> None:
    """End the lease at `until_us`, because the worker's connection is gone, unless a beat has moved the end from
    `granted_us`."""
    await query("cut_lease", id=worker_id, lease_until_us=until_us, granted_us=granted_us)


@verb(sweep=True)
async def grant_leases(*, until_us: int, unless_from_us: int | None = None) -> int | None:
    """The server was away, so give every registration a full lease. Returns the count of locked registrations; the
    caller grants again before reaping.

    None: another server has reaped since `unless_from_us`.
    """
    if unless_from_us is not None:
        reaped_at_us = await value("read_meta", name=REAPED)
        # A mark later than `until_us` was made before the clock went back.
        if reaped_at_us is not None and unless_from_us <= int(reaped_at_us) <= until_us:
            return None
    await query("grant_leases", lease_until_us=until_us)
    left: int = await value("count_shorter_leases", lease_until_us=until_us)
    return left


@verb(sweep=True)
async def limit_leases(*, until_us: int) -> int:
    """Cut leases to `until_us`, because the clock went back. Returns the count of locked leases."""
    await query("limit_leases", lease_until_us=until_us)
    left: int = await value("count_longer_leases", lease_until_us=until_us)
    return left


@verb(sweep=True)
async def drain(*, project_id: str, worker_id: str, now_us: int, died: bool = False) -> None:
    """Return the worker's executions at once, without a loss unless the process `died`."""
    worker = await record(StoredWorker, "read_worker", id=worker_id)
    if worker is None and not died:
        await forgive(project_id, worker_id)
    if worker is None or worker.project_id != project_id:
        return
    await end_registration(worker_id, now_us, released=not died)
    if died:
        await Notify(Metric("workers_lost"))


async def forgive(project_id: str, worker_id: str) -> None:
    """Turn losses into deliveries in vain, because a worker taken for lost is alive."""
    await query("forgive_losses", project_id=project_id, worker_id=worker_id)
    await query("drop_losses", project_id=project_id, worker_id=worker_id)


async def end_registration(worker_id: str, now_us: int, *, released: bool = False, replaced: bool = False) -> None:
    """The worker counts as lost unless `released` or `replaced`."""
    steps = {} if released else await workers.steps_of(worker_id)
    await query("delete_push_worker", id=worker_id)
    places = await query("delete_worker", id=worker_id)  # first: from here on nothing is handed to it
    held = await query("held_by", worker_id=worker_id)
    project_id, deployment_id = places[0] if places else (None, None)
    place = {"project_id": project_id, "deployment_id": deployment_id, "lost": int(not (released or replaced))}
    await query("note_ended", id=worker_id, now_us=now_us, **place)
    for project_id, id, attempt, _ in held:
        await lose(project_id, id, attempt, worker_id, now_us, released=released, steps=steps.get(id, ()))


@verb(sweep=True)
async def reap(*, now_us: int, limit: int, patience_us: int = 0, by_database: bool = False) -> int:
    """End registrations whose lease ran out, except locked ones. Returns their count.

    Executions are poisoned only `patience_us` after the lease, when the worker can no longer prove alive (`forgive`).
    With `by_database` the database's clock must agree, because another server may have followed its jump.
    """
    ended = 0
    expired = await query("expired_workers", now_us=now_us, limit=limit, by_database=int(by_database))
    for worker_id, lease_until_us in expired:
        if await try_take_back(worker_id, now_us, sure=now_us >= lease_until_us + patience_us):
            await end_registration(worker_id, now_us)
            ended += 1
    if ended:
        await Notify(Metric("workers_lost", ended))
    return ended


@verb(locks=f"meta='{REAPED}'")
async def mark_reaper(*, now_us: int, every_us: int, locked_us: int) -> bool:
    """Mark every `every_us` that a server reaps, while any lease can run out.

    False: another server is writing the mark, so this server reaps later, unless the mark is older than `locked_us`.
    """
    reaped_at_us = await value("read_meta", name=REAPED)
    age_us = locked_us if reaped_at_us is None else now_us - int(reaped_at_us)
    if 0 <= age_us < every_us or not await query("any_lease"):
        return True
    return await try_write(REAPED, str(now_us)) or not 0 <= age_us < locked_us


async def try_take_back(worker_id: str, now_us: int, *, sure: bool = True) -> bool:
    """False: some executions are left for the next round."""
    held = await query("held_by", worker_id=worker_id)
    steps = await workers.steps_of(worker_id)
    return all(
        [
            await try_lose(project_id, id, attempt, worker_id, now_us, sure=sure, steps=steps.get(id, ()))
            for project_id, id, attempt, _ in held
        ]
    )


@verb(sweep=True)
async def end_embedded(*, now_us: int) -> None:
    """End the embedded workers of earlier processes, because this process opened the file alone."""
    for worker_id, _ in await query("embedded_workers"):
        await end_registration(worker_id, now_us)
    for project_id, id, attempt, worker_id in await query("orphaned", limit=10_000):
        await lose(project_id, id, attempt, worker_id, now_us)
