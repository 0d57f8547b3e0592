"""The worker's side: registrations and the hand-out of work.

A claim raises `attempt`, and every later message of the worker carries it: whatever an older attempt says is refused by
the statement itself. A registration's lease only decides when work is handed out again, never whether a message counts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.store.interface import Counted, Rows, Tell, Written, query, query_many, verb
from perdure.store.verbs.deployments import enter_deployment, look_at_deployment, offer_work
from perdure.store.verbs.free import write_free
from perdure.store.verbs.hands import claimed_of
from perdure.store.verbs.moves import lose, lose_free
from perdure.store.verbs.queues import put_queue
from perdure.store.verbs.rows import ROW_BYTES, journal_after, journal_row
from perdure.store.verbs.schedules import declare
from perdure.store.verbs.triggers import declare_triggers
from perdure.wire.errors import Conflict, LeaseLost
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Kind, Row
from perdure.wire.requests import Claimed, RegisterRequest
from perdure.wire.workflows import WorkflowType

_AFTER_EVERY_KEY = "\U0010ffff"
_ARRIVED = "+"
"""Makes of a claim's id one that follows it and comes before the next claim's."""
REAPED = "reaped_at_us"
"""In `meta`: when a server last went round, where there may be others."""
PUSHED = 2
"""`workers.embedded` of push workers, for which servers claim (`push_workers`)."""
GROUPS_PER_CLAIM = 256
"""How many (queue, key) groups of limited queues one claim looks at before it leaves the rest to the next."""


class Range(NamedTuple):
    """A part of a queue's order: from a rank and a time on, up to another rank."""

    rank: int
    ready_from_us: int
    """In that first rank only."""
    rank_before: int


class Looked(NamedTuple):
    """What a claim found out beside what it took."""

    deployment_id: str
    python: str
    heads: Sequence[tuple[int, int]] = ()
    """Asked for `ranges`: what came first of each rank, by the time since which it was ready."""


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
    """Open a registration: its deployment with exactly these workflows, its queues with these limits, its lease.

    If the deployment is the current one the project has exactly the schedules and event triggers that it declares
    (`schedule_ids`, `trigger_ids`: one for each, should it be new), and those that were made otherwise.

    One that has ended stays so, however late a copy of its first message comes. Raises LeaseLost, Conflict.
    """
    if await query("read_ended", id=request.worker_id):
        raise _not_registered(request.worker_id)
    standing = await look_at_deployment(project_id, request.deployment_id, now_us, push=False)
    kept = await query(
        "upsert_worker",
        id=request.worker_id,
        project_id=project_id,
        deployment_id=request.deployment_id,
        python=request.python,
        capacity=request.capacity,
        embedded=int(request.embedded),
        lease_until_us=now_us + lease_us,
        now_us=now_us,
    )
    if not kept:
        raise Conflict(f"Worker id {request.worker_id!r} is taken; make a new random one.")
    await enter_deployment(project_id, request.deployment_id, now_us, standing, push=False)
    ages: dict[str, int] = dict(
        await query("workflow_ages", project_id=project_id, deployment_id=request.deployment_id)
    )
    # Before anything that locks executions: it locks topics.
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
            )
            for spec in request.workflows
        ],
    )
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
    await query("adopt_early", project_id=project_id, deployment_id=request.deployment_id)
    if standing.changes_sides:  # push workers that were given up would come back, with their next beat, beside these
        for (id,) in await query("push_workers_of", project_id=project_id, deployment_id=request.deployment_id):
            await end_registration(id, now_us)
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
    ranges: Sequence[Range] | None = None,
) -> tuple[list[tuple[Claimed, int]], tuple[str, str], Looked]:
    """Hand out up to `capacity` executions of the worker's deployment; none after that whose payload fills `bytes_max`.

    Answers with each (its `base` the seq up to which it lacks the journal) and the last seq that its worker has parked
    (0: none), and with the limited group at which the next claim should go on looking. The ids of a registration's
    claims ascend: the last one gets its batch again, as far as it was not acknowledged, and an older one, whose copy
    came late, gets nothing. With `ranges` only those are looked at, limited queues apart.
    """
    worker = await _worker(project_id, worker_id)
    _, deployment_id, python, last_claim_id, embedded = worker
    looked = Looked(deployment_id, python)
    if claim_id == last_claim_id:
        rows = await query("claimed_before", worker_id=worker_id, claim_id=claim_id)
        return [claimed_of(row, worker_id, again=True) for row in rows], after, looked
    if last_claim_id is not None and claim_id < last_claim_id:
        return [], after, looked
    values = claim_values(project_id, deployment_id, worker_id, claim_id, python, now_us, grace_us)
    room = Room(capacity, None if embedded else bytes_max)
    after, heads = await pick(values, room, after, limited_first, ranges)
    if room.picked and not embedded:  # an embedded worker's reply cannot be lost, so it never asks for the batch again
        await query("note_claim", id=worker_id, claim_id=claim_id)
    return [claimed_of(row, worker_id) for row in room.picked], after, Looked(deployment_id, python, heads)


def claim_values(
    project_id: str, deployment_id: str, worker_id: str, claim_id: str, python: str, now_us: int, grace_us: int
) -> dict[str, Any]:
    """What the queries that hand executions out have in common."""
    return {
        "project_id": project_id,
        "deployment_id": deployment_id,
        "worker_id": worker_id,
        "claim_id": claim_id,
        "python": python,
        "now_us": now_us,
        "grace_us": grace_us,
    }


async def pick(
    values: dict[str, Any],
    room: "Room",
    after: tuple[str, str],
    limited_first: bool,
    ranges: Sequence[Range] | None = None,
) -> tuple[tuple[str, str], Sequence[tuple[int, int]]]:
    """Hand out what is ready, as far as there is room; `room.picked` are its rows, in the order of admission.

    Answers with the limited group at which the next claim should go on looking and, asked for `ranges`, with what came
    first of each rank.
    """
    heads: Sequence[tuple[int, int]] = ()
    if not limited_first:
        heads = await _claim_ready(values, room, ranges)
    if room.executions > 0:
        after = await _claim_limited(values, room, after)
    if limited_first and room.executions > 0:
        heads = await _claim_ready(values, room, ranges)
    picked = room.picked
    if picked:
        picked.sort(key=lambda row: (row[-2], row[-1], row[0]))
        await query_many(
            "insert_journal",
            [journal_row(row[0], row[5], row[20], Kind.CLAIMED, row[2], name=values["worker_id"]) for row in picked],
        )
        await Tell(Counted("claimed", len(picked)), *[Written(row[0]) for row in picked])
    return after, heads


class Room:
    """What a claim has picked, and how much more its reply can carry (an embedded worker's is no message)."""

    def __init__(self, executions: int, bytes_left: int | None) -> None:
        self.executions = executions
        self.picked: Rows = []
        self._bytes = bytes_left

    async def pick(self, name: str, sizes: str, values: dict[str, Any], at_most: int) -> None:
        """Claim the first ready ones by one query, as many as another, of their sizes, says that there is room for."""
        at_most = min(at_most, self.executions)
        if self._bytes is not None and at_most > 1:
            left = self._bytes
            for n, (size,) in enumerate(await query(sizes, capacity=at_most, **values), 1):
                left -= size
                if left <= 0:
                    at_most = n
                    break
        rows = await query(name, capacity=at_most, **values)
        self.picked += rows
        self.executions -= len(rows)
        if self._bytes is not None:
            self._bytes -= sum(len(row[3]) for row in rows)
            if self._bytes <= 0:
                self.executions = 0


async def _claim_ready(values: dict[str, Any], room: Room, ranges: Sequence[Range] | None) -> Sequence[tuple[int, int]]:
    """Claim the first ready ones; with `ranges` those in them, and what came first of each rank."""
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
        heads[row[-2]] = min(row[-1], heads.get(row[-2], row[-1]))
    return list(heads.items())


async def _worker(project_id: str, worker_id: str) -> tuple[Any, ...]:
    rows = await query("lock_worker", id=worker_id)
    if not rows or rows[0][0] != project_id or rows[0][4] == PUSHED:
        raise _not_registered(worker_id)
    return rows[0]


def _not_registered(worker_id: str) -> LeaseLost:
    return LeaseLost(f"Worker {worker_id!r} is not registered (any more); register again with a new id.")


async def _claim_limited(values: dict[str, Any], room: Room, after: tuple[str, str]) -> tuple[str, str]:
    """Go round the (queue, key) groups with something ready, from `after`, and admit what their limits leave room for.

    The running rows themselves are counted, in the transaction that adds to them: there is no counter that could leak.
    """
    project_id = values["project_id"]
    limits: dict[str, tuple[int | None, int | None]] = {}
    wrapped = after == ("", "")
    for _ in range(GROUPS_PER_CLAIM):
        groups = await query(
            "next_limited_group",
            project_id=project_id,
            deployment_id=values["deployment_id"],
            queue_name=after[0],
            concurrency_key=after[1],
        )
        if not groups:
            after = ("", "")
            if wrapped:
                break
            wrapped = True
            continue
        queue_name, key = after = groups[0]
        if queue_name not in limits:
            rows = await query("lock_queue", project_id=project_id, name=queue_name)
            if not rows:  # another server is counting: what it leaves is looked at next time
                after = (queue_name, _AFTER_EVERY_KEY)
                continue
            limits[queue_name] = rows[0]
        key_limit, total_limit = limits[queue_name]
        free = room.executions
        if total_limit is not None:
            held = await query("count_held_of_queue", project_id=project_id, queue_name=queue_name)
            free = min(free, total_limit - held[0][0])
            if free <= 0:  # the queue is full: none of its other keys need be looked at
                after = (queue_name, _AFTER_EVERY_KEY)
                continue
        if key_limit is not None:
            held = await query("count_held_of_key", project_id=project_id, queue_name=queue_name, concurrency_key=key)
            free = min(free, key_limit - held[0][0])
        if free > 0:
            group = {**values, "queue_name": queue_name, "concurrency_key": key}
            await room.pick("claim_limited", "ready_sizes_limited", group, free)
        if room.executions <= 0:
            break
    return after


@verb(locks="worker=worker_id")
async def note_arrival(*, project_id: str, worker_id: str, claim_id: str) -> None:
    """The worker has the answer of that claim, its last one: nothing of it is taken back, or given to a late copy."""
    worker = await _worker(project_id, worker_id)
    if worker[3] == claim_id:
        await query("note_claim", id=worker_id, claim_id=claim_id + _ARRIVED)


@verb(sweep=True)
async def recall(*, project_id: str, worker_id: str, claim_id: str, now_us: int) -> int:
    """Take back what a claim brought to a worker that has not asked on since, as far as it was never acknowledged.
    Answers how many executions.

    They count as deliveries in vain, so the next worker acknowledges them before their code runs: code that stops an
    event loop stops no third one.
    """
    worker = await query("read_worker", id=worker_id)
    if not worker or worker[0][3] != claim_id:  # it has asked on, maybe at another server
        return 0
    held = await query("unheard_of", worker_id=worker_id, claim_id=claim_id)
    for id, attempt in held:
        await lose(project_id, id, attempt, worker_id, now_us, released=True, begun=True, refused=True)
    return len(held)


@verb(looks=True)
async def journals(*, wanted: Sequence[tuple[str, int]], rows_max: int, bytes_max: int) -> list[tuple[list[Row], bool]]:
    """The journals of many executions, each after a given seq; whether rows were left out to keep the whole small."""
    found: list[tuple[list[Row], bool]] = []
    room = bytes_max
    for execution_id, after in wanted:
        rows, more = await journal_after(execution_id, after, rows_max=rows_max, bytes_max=room)
        room -= sum(ROW_BYTES + len(bytes(row.value)) for row in rows)
        found.append((rows, more))
    return found


@verb(sweep=True)  # it looks at all that a worker holds
async def beat(*, project_id: str, worker_id: str, now_us: int, lease_us: int) -> list[tuple[str, int, int]] | None:
    """Renew a lease. None: it had run out, or there is no such registration; the worker must drop everything."""
    rows = await query(
        "beat_worker", id=worker_id, project_id=project_id, now_us=now_us, lease_until_us=now_us + lease_us
    )
    if not rows:
        return None
    held = await query("held_by", worker_id=worker_id)
    return [(id, attempt, seq) for _, id, attempt, seq in held]


@verb(locks="worker=worker_id")
async def cut_lease(*, worker_id: str, until_us: int, granted_us: int | None = None) -> None:
    """The worker's connection is gone: its lease ends at `until_us` unless a beat follows, or has followed already:
    then the lease is not the one that ends at `granted_us` any more."""
    await query("cut_lease", id=worker_id, lease_until_us=until_us, granted_us=granted_us)


@verb(sweep=True)
async def grant_leases(*, until_us: int, unless_from_us: int | None = None) -> int | None:
    """Give every registration one full lease before anything is taken from it: the server was away, not they.

    Nobody waits for those that others have locked. Answers how many are left: the caller grants again before it reaps.
    With `unless_from_us` only if no server has reaped since then: they could have beaten there. None: one has.
    """
    if unless_from_us is not None:
        rows = await query("read_meta", name=REAPED)
        # By the same clock: a mark from further ahead was made before that went back.
        if rows and unless_from_us <= int(rows[0][0]) <= until_us:
            return None
    await query("grant_leases", lease_until_us=until_us)
    left: int = (await query("count_shorter_leases", lease_until_us=until_us))[0][0]
    return left


@verb(sweep=True)
async def limit_leases(*, until_us: int) -> int:
    """No lease runs for longer than to `until_us`: those from before the clock went back. Answers how many are left,
    since others have locked them."""
    await query("limit_leases", lease_until_us=until_us)
    left: int = (await query("count_longer_leases", lease_until_us=until_us))[0][0]
    return left


@verb(sweep=True)
async def drain(*, project_id: str, worker_id: str, now_us: int, died: bool = False) -> None:
    """End a registration; what it still holds goes back at once and counts no loss, unless its process `died`. A worker
    whose registration was ended without it says so, too: what it lost counts as deliveries in vain from then on."""
    rows = await query("read_worker", id=worker_id)
    if not rows and not died:  # it was given up, and says itself that it is alive
        await forgive(project_id, worker_id)
    if not rows or rows[0][0] != project_id:
        return
    await end_registration(worker_id, now_us, released=not died)
    if died:
        await Tell(Counted("workers_lost"))


async def forgive(project_id: str, worker_id: str) -> None:
    """A worker that was given up is alive: the losses that were counted for it become deliveries in vain."""
    await query("forgive_losses", project_id=project_id, worker_id=worker_id)
    await query("drop_losses", project_id=project_id, worker_id=worker_id)


async def end_registration(worker_id: str, now_us: int, *, released: bool = False) -> None:
    """End a registration for good, and hand what it holds to others (`lose`)."""
    await query("delete_push_worker", id=worker_id)
    await query("delete_worker", id=worker_id)  # first: from here on nothing is handed to it
    held = await query("held_by", worker_id=worker_id)
    await query("note_ended", id=worker_id, now_us=now_us)
    for project_id, id, attempt, _ in held:
        await lose(project_id, id, attempt, worker_id, now_us, released=released)


@verb(sweep=True)
async def reap(*, now_us: int, limit: int, patience_us: int = 0, by_database: bool = False) -> int:
    """End the registrations whose lease ran out and hand their work to others. Answers how many ended; those that hold
    what somebody has locked do not yet. An execution is poisoned only `patience_us` after the end of the last lease:
    until then its worker may say that it is alive (`drain`).

    `by_database`: none unless the database's clock agrees with `now_us`. Another server may have followed a jump of it
    that this one has not seen yet.
    """
    ended = 0
    expired = await query("expired_workers", now_us=now_us, limit=limit, by_database=int(by_database))
    for worker_id, lease_until_us in expired:
        if await take_back_free(worker_id, now_us, sure=now_us >= lease_until_us + patience_us):
            await end_registration(worker_id, now_us)
            ended += 1
    if ended:
        await Tell(Counted("workers_lost", ended))
    return ended


@verb(locks=f"meta='{REAPED}'")
async def mark_reaper(*, now_us: int, every_us: int, locked_us: int) -> bool:
    """While there is anybody whose lease can run out, tell other servers that one was here, at most `every_us` ago
    (`grant_leases`).

    False: another server is about to, and may be waiting for a slow disk with beats behind it; this one reaps later.
    When the mark is older than `locked_us` it is somebody's lock, for which nobody waits.
    """
    rows = await query("read_meta", name=REAPED)
    age_us = now_us - int(rows[0][0]) if rows else locked_us
    if 0 <= age_us < every_us or not await query("any_lease"):
        return True
    return await write_free(REAPED, str(now_us)) or not 0 <= age_us < locked_us


async def take_back_free(worker_id: str, now_us: int, *, sure: bool = True) -> bool:
    """Hand on what a worker that is gone holds, as far as nobody else has locked it (`lose_free`). False: the rest is
    for another round, which finds the worker still there: nobody is kept waiting for one row."""
    held = await query("held_by", worker_id=worker_id)
    return all(
        [await lose_free(project_id, id, attempt, worker_id, now_us, sure=sure) for project_id, id, attempt, _ in held]
    )


@verb(sweep=True)
async def end_embedded(*, now_us: int) -> None:
    """A process that opens the file alone ends the registrations of embedded workers: theirs are gone."""
    for worker_id, _ in await query("embedded_workers"):
        await end_registration(worker_id, now_us)
    for project_id, id, attempt, worker_id in await query("orphaned", limit=10_000):
        await lose(project_id, id, attempt, worker_id, now_us)
