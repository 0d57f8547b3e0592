"""Why an execution stands where it stands: the waits it holds open, and whether anybody serves its deployment."""

from msgspec import Raw, Struct

from perdure.server.routing import Call, Routes
from perdure.store.verbs import looks, waits
from perdure.wire.public import Int64, Time, rfc3339
from perdure.wire.records import MaybeRaw

routes = Routes("Executions")


class WaitResponse(Struct, frozen=True):
    """One open wait: for an event of `topic` whose top-level fields equal `match`, or (no topic) for an answer."""

    key: str
    opened_at: Time
    topic: str | None = None
    match: MaybeRaw = None
    data: MaybeRaw = None
    """What a suspended step shows to whoever answers it."""


class WaitsResponse(Struct, frozen=True):
    """The open waits, oldest first."""

    waits: list[WaitResponse]


@routes.get("/api/v1/executions/{execution_id}/waits")
async def get_waits(call: Call, execution_id: str) -> WaitsResponse:
    """What the execution waits for: events and answers. Timers and children stand in its journal."""
    execution = await call.engine.executions.get(call.project_id, execution_id)
    rows = await call.engine.store.read(waits.list_waits(project_id=call.project_id, execution_id=execution.id))
    return WaitsResponse(
        [WaitResponse(key, rfc3339(at_us), topic, _raw(match), _raw(data)) for key, topic, match, data, at_us in rows]
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
    rows = await call.engine.store.read(looks.list_named(name="workers", project_id=call.project_id))
    # id, deployment, python, capacity, embedded, lease until
    online = [row for row in rows if row[1] == query.deployment_id and (row[4] == 1 or row[5] > now_us)]
    return WorkerStatusResponse(len(online), bool(online))
