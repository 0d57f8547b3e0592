"""The reasons why an execution does not go on: its open waits, and a deployment without workers."""

from msgspec import Raw, Struct

from perdure.server.routing import Call, Routes
from perdure.store.verbs import queries, waits
from perdure.store.verbs.queued import queued_behind
from perdure.wire.public import Int64, Time, rfc3339
from perdure.wire.records import MaybeRaw
from perdure.wire.status import Phase

routes = Routes("Executions")


class WaitResponse(Struct, frozen=True):
    """One open wait. It is for an event of `topic` whose top-level fields equal `match`, or for an answer if there is
    `data` or no topic. A push worker's question has both: an event of the run's topic answers it."""

    key: str
    opened_at: Time
    topic: str | None = None
    match: MaybeRaw = None
    data: MaybeRaw = None
    """The question of a suspended step, as shown to the person who answers."""
    expires_at: Time | None = None
    """The time-out: the server refuses answers from then on."""


class QueuedBehindResponse(Struct, frozen=True):
    """The session or queue in which a queued execution waits for other executions."""

    what: str
    """session: waits for its turn; queue: for room; concurrency_key: for room in the queue for its key."""
    name: str
    """The name of the session or queue."""
    execution_ids: list[str]
    """The executions that it waits for, up to ten."""
    limit: Int64 | None = None
    """How many executions may run there."""


class WaitsResponse(Struct, frozen=True):
    """The open waits, oldest first."""

    waits: list[WaitResponse]
    queued_behind: QueuedBehindResponse | None = None


@routes.get("/api/v1/executions/{execution_id}/waits")
async def get_waits(call: Call, execution_id: str) -> WaitsResponse:
    """Open waits of an execution, for events and answers.

    A queued execution waits for its turn or for room. Timers and children are in the journal.
    """
    execution = await call.engine.executions.get(call.project_id, execution_id)
    found = {"project_id": call.project_id, "execution_id": execution.id}
    rows = await call.engine.store.read(waits.list_waits(**found))
    behind = None
    if execution.phase is Phase.QUEUED:
        behind = await call.engine.store.read(queued_behind(**found))
    return WaitsResponse(
        [
            WaitResponse(
                key, rfc3339(at_us), topic, _raw(match), _raw(data), None if until_us is None else rfc3339(until_us)
            )
            for key, topic, match, data, at_us, until_us in rows
        ],
        None if behind is None else QueuedBehindResponse(*behind),
    )


def _raw(value: bytes | str | None) -> Raw | None:
    return None if value is None else Raw(value)


class WorkerStatusQuery(Struct, frozen=True):
    deployment_id: str


class WorkerStatusResponse(Struct, frozen=True):
    """How many workers hold a lease."""

    online_count: Int64
    has_workers: bool


@routes.get("/api/v1/workers/status", contract=True)
async def get_worker_status(call: Call, query: WorkerStatusQuery) -> WorkerStatusResponse:
    """Live workers of a deployment."""
    now_us = call.engine.clock.now_us()
    rows = await call.engine.store.read(queries.list_workers(project_id=call.project_id))
    # id, deployment, python, capacity, embedded, lease until
    online = [row for row in rows if row[1] == query.deployment_id and (row[4] == 1 or row[5] > now_us)]
    return WorkerStatusResponse(len(online), bool(online))
