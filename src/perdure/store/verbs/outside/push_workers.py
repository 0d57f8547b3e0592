"""Push workers: registrations that the server calls. A row in `workers` makes claims, leases and losses work as for
native workers."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Raw, Struct
from msgspec.structs import astuple

from perdure.store.base.executions import State
from perdure.store.base.interface import Metric, Notify, query, record, records, verb
from perdure.store.verbs.runs.claims import PUSHED, Room, end_registration, forgive, pick, try_take_back
from perdure.store.verbs.runs.deployments import active_deployment, put_push_deployment
from perdure.store.verbs.runs.rows import overrule
from perdure.store.verbs.runs.transitions import lose
from perdure.wire.base.errors import NotFound
from perdure.wire.base.status import LEASED, Phase
from perdure.wire.runs.requests import Claimed

PUSH_RUNTIME = "push"
"""`executions.python` of push executions, which native workers never continue."""
PROTOCOL = 1
"""Push deployments have no execution in need of a greater version."""
REFUSED_MAX = 2


class PushWorker(Struct, frozen=True):
    id: str
    project_id: str
    deployment_id: str
    url: str
    capacity: int


class Details(Struct, frozen=True):
    step_key: str | None
    run_timeout_seconds: int | None
    root_workflow_id: str | None
    otel_traceparent: str | None
    otel_span_id: str | None
    initial_state: Raw | None
    channel_context: Raw | None


class Pushed(NamedTuple):
    claimed: Claimed
    details: Details
    woken_at_us: int | None
    """When a woken execution became ready. The worker may still unwind the earlier attempt."""


class Handed(NamedTuple):
    picked: Sequence[Pushed]
    after: tuple[str, str]
    room: int
    """The worker's room; also 0 while another server counts."""


class PushDelivery(Struct, frozen=True):
    """An attempt of an execution, brought to a push worker."""

    project_id: str
    execution_id: str
    attempt: int
    worker_id: str
    cancelling: bool = False


@verb(sweep=True)
async def register_push_worker(
    *,
    project_id: str,
    worker_id: str,
    deployment_id: str | None,
    url: str,
    capacity: int,
    now_us: int,
    lease_us: int,
    check_us: int,
) -> str:
    """Open a registration and end earlier registrations of the URL. Returns the deployment. Raises Conflict,
    BadRequest."""
    if deployment_id is None:
        deployment_id = await active_deployment(project_id, None)
    before = await query("push_worker_at", project_id=project_id, url=url)
    await put_push_deployment(project_id, deployment_id, now_us)
    for (id,) in before:
        await end_registration(id, now_us, replaced=True)
    runtime = {"python": PUSH_RUNTIME, "protocol": PROTOCOL, "embedded": PUSHED, "host": None, "pid": None}
    place = {"id": worker_id, "project_id": project_id, "deployment_id": deployment_id, "capacity": capacity}
    await query("upsert_worker", **place, **runtime, lease_until_us=now_us + lease_us, now_us=now_us)
    await query("insert_push_worker", id=worker_id, project_id=project_id, url=url, check_at_us=now_us + check_us)
    return deployment_id


@verb(locks="worker=worker_id")
async def push_worker_online(*, project_id: str, worker_id: str, now_us: int, lease_us: int, check_us: int) -> None:
    """The worker may get work now. Raises NotFound."""
    moved = await query(
        "push_online", id=worker_id, project_id=project_id, now_us=now_us, check_at_us=now_us + check_us
    )
    if not moved:
        raise NotFound(f"Worker {worker_id!r} is not registered (any more); register again.")
    await query("renew_push_lease", id=worker_id, lease_until_us=now_us + lease_us)


@verb(locks="worker=worker_id")
async def push_worker_beat(
    *, project_id: str, worker_id: str, now_us: int, lease_us: int, check_us: int, own: bool = False
) -> bool:
    """Renew the lease. The worker's `own` heartbeat also sets it online. False: not registered."""
    known = await query("push_beat", id=worker_id, project_id=project_id, own=int(own), check_at_us=now_us + check_us)
    if known:
        await query("renew_push_lease", id=worker_id, lease_until_us=now_us + lease_us)
    return bool(known)


@verb(reads=True)
async def has_lapsed(*, worker_id: str) -> bool:
    return bool(await query("has_lapsed", id=worker_id))


@verb(sweep=True)
async def forgive_push_worker(*, project_id: str, worker_id: str) -> None:
    """Call before a lapsed worker's beat. Until the beat, `has_lapsed` makes each heartbeat repeat the call."""
    await forgive(project_id, worker_id)


@verb(sweep=True)
async def push_worker_refused(*, worker_id: str, now_us: int, check_us: int, young_us: int) -> bool:
    """Count a refused connection. Answers whether the worker is gone. A worker that just came online may not listen
    yet."""
    for (refused,) in await query(
        "push_refused", id=worker_id, young_us=now_us - young_us, check_at_us=now_us + check_us
    ):
        if refused >= REFUSED_MAX:
            await lapse(worker_id, now_us)
            return True
    return False


@verb(locks="worker=worker_id")
async def hurry_push_check(*, worker_id: str, at_us: int) -> None:
    await query("hurry_check", id=worker_id, check_at_us=at_us)


@verb(sweep=True)
async def retire_push_worker(*, worker_id: str, now_us: int) -> None:
    """Call if another worker id answers at the address."""
    if await query("read_worker", id=worker_id):
        await end_registration(worker_id, now_us)
        await Notify(Metric("workers_lost"))


async def lapse(worker_id: str, now_us: int) -> None:
    """Give up a worker until the next beat."""
    if not await query("lapse_push_worker", id=worker_id):
        return
    await query("end_push_lease", id=worker_id, now_us=now_us)
    for project_id, id, attempt, _ in await query("held_by", worker_id=worker_id):
        await lose(project_id, id, attempt, worker_id, now_us)
    await Notify(Metric("workers_lost"))


@verb(sweep=True)
async def lapse_expired(
    *, now_us: int, forget_before_us: int, limit: int, patience_us: int = 0, by_database: bool = False
) -> int:
    """Reap like `claims.reap`, and forget workers lapsed long ago. Returns how many lapsed."""
    lapsed = 0
    expired = await query("expired_push_workers", now_us=now_us, limit=limit, by_database=int(by_database))
    for worker_id, lease_until_us in expired:
        if await try_take_back(worker_id, now_us, sure=now_us >= lease_until_us + patience_us):
            await lapse(worker_id, now_us)
            lapsed += 1
    for (worker_id,) in await query("lapsed_long_ago", before_us=forget_before_us, limit=limit):
        await end_registration(worker_id, now_us)
    return lapsed


@verb(sweep=True)
async def take_push_checks(*, now_us: int, every_us: int, limit: int) -> list[tuple[str, str, str]]:
    """The workers to check now. Other servers leave these workers alone for `every_us`."""
    rows = await query("take_push_checks", now_us=now_us, next_us=now_us + every_us, limit=limit)
    return [(id, project_id, url) for id, project_id, url in rows]


@verb(reads=True)
async def watch_push_workers(*, now_us: int) -> tuple[list[PushWorker], bool, int | None]:
    """The workers online, whether a lease has expired, and when the next check is due."""
    online: list[PushWorker] = []
    expired = False
    next_check_us: int | None = None
    for state, lease_until_us, check_at_us, *worker in await query("live_push_workers"):
        expired = expired or lease_until_us <= now_us
        if state == "online" and lease_until_us > now_us:
            online.append(PushWorker(*worker))
            next_check_us = check_at_us if next_check_us is None else min(next_check_us, check_at_us)
    return online, expired, next_check_us


@verb(reads=True)
async def active_workers(*, project_id: str, now_us: int) -> list[str]:
    pushed = await query("active_push_workers", project_id=project_id, now_us=now_us)
    native = await query("active_native_workers", project_id=project_id, now_us=now_us)
    return [id for (id,) in (*native, *pushed)]


@verb(sweep=True)
async def claim_pushed(
    *,
    worker_id: str,
    claim_id: str,
    at_most: int,
    now_us: int,
    grace_us: int,
    after: tuple[str, str] = ("", ""),
    limited_first: bool = False,
    polled: bool = False,
) -> Handed:
    """`polled`: the worker asks, so the answer is the acknowledgement."""
    locked = await query("lock_push_worker", id=worker_id)
    if not locked:
        return Handed((), after, 0)
    [(project_id, deployment_id, capacity, state, lease_until_us)] = locked
    if (state != "online" and not polled) or lease_until_us <= now_us:
        return Handed((), after, 0)
    ((held,),) = await query("count_held_by", worker_id=worker_id)
    free = capacity - held
    if free <= 0:
        return Handed((), after, 0)
    room = Room(min(free, at_most), None)
    values = {
        "project_id": project_id,
        "deployment_id": deployment_id,
        "worker_id": worker_id,
        "claim_id": claim_id,
        "python": PUSH_RUNTIME,
        "protocol": PROTOCOL,
        "now_us": now_us,
        "grace_us": grace_us,
    }
    after, _ = await pick(values, room, after, limited_first)
    picked: list[Pushed] = []
    for row in room.picked:
        claimed, _ = row.to_claimed(worker_id)
        [details] = await records(Details, "push_details", project_id=project_id, id=claimed.id)
        picked.append(Pushed(claimed, details, row.ready_at_us if claimed.attempt > 1 else None))
        if polled:
            await query("accept_push", PushDelivery(project_id, claimed.id, claimed.attempt, worker_id))
    return Handed(picked, after, free - len(picked))


@verb(locks="execution=delivery.execution_id")
async def accept_push(*, delivery: PushDelivery) -> None:
    await query("accept_push", delivery)


@verb(locks="execution=delivery.execution_id")
async def hand_back(*, delivery: PushDelivery, now_us: int) -> None:
    """The worker refused the execution, which does not count."""
    project_id, id, attempt, worker_id, _ = astuple(delivery)
    await lose(project_id, id, attempt, worker_id, now_us, released=True, refused=True)


@verb(locks="execution=delivery.execution_id")
async def lost_delivery(*, delivery: PushDelivery, now_us: int) -> bool:
    """Count a delivery as lost. False: the worker acknowledged after all, or no longer holds the attempt."""
    project_id, id, attempt, worker_id, _ = astuple(delivery)
    held = await record(State, "lock_state", project_id=project_id, id=id)
    if held is None or held.phase not in LEASED or held.acked:
        return False
    if (held.attempt, held.assigned_to_worker) != (attempt, worker_id):
        return False
    await lose(project_id, id, attempt, worker_id, now_us)
    return True


@verb(reads=True)
async def untold(*, before_us: int, limit: int) -> list[PushDelivery]:
    """Unacknowledged deliveries from before `before_us`, and untold cancels."""
    return await records(PushDelivery, "untold_of_push_workers", before_us=before_us, limit=limit)


@verb(locks="execution=delivery.execution_id")
async def tell_cancel(*, delivery: PushDelivery) -> bool:
    """Claim the duty to tell the worker of a cancel. False: another server has the duty."""
    return bool(await query("tell_cancel", delivery))


@verb(locks="execution=delivery.execution_id")
async def untell_cancel(*, delivery: PushDelivery) -> None:
    """The worker could not be told, so the cancel is open again."""
    await query("untell_cancel", delivery)


@verb(locks="execution=delivery.execution_id")
async def cancel_absent(*, delivery: PushDelivery, now_us: int) -> None:
    """The worker does not run the cancelled execution, which ends at once."""
    project_id, id, attempt, worker_id, _ = astuple(delivery)
    held = await record(State, "lock_state", project_id=project_id, id=id)
    if held is None or (held.phase, held.attempt, held.assigned_to_worker) != (Phase.CANCELLING, attempt, worker_id):
        return
    await overrule(project_id, id, now_us, "not running")
