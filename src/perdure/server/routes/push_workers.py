"""Push workers: registration, heartbeats, and polls for work."""

from msgspec import Raw, Struct

from perdure.server.routing import Call, Routes
from perdure.store.verbs.push_workers import Pushed
from perdure.wire.access import Role
from perdure.wire.public import DONE, Done, Int32, rfc3339
from perdure.wire.public_push import (
    ActiveWorkersResponse,
    HeartbeatResponse,
    PollWorkflowResponse,
    RegisterWorkerRequest,
    RegisterWorkerResponse,
)

routes = Routes("Workers")


@routes.post("/api/v1/workers/register", contract=True)
async def register_worker(call: Call, body: RegisterWorkerRequest) -> RegisterWorkerResponse:
    """Register a push worker under a new id.

    A worker that was registered under the same URL is retired. Its executions go to other workers.
    """
    call.check_project(body.project_id)
    return RegisterWorkerResponse(await call.engine.push.register(call.project_id, body))


@routes.get("/api/v1/workers/active", contract=True)
async def get_active_workers(call: Call) -> ActiveWorkersResponse:
    """Live workers of the project."""
    return ActiveWorkersResponse(list(await call.engine.push.active(call.project_id)))


@routes.post("/api/v1/workers/{worker_id}/online", contract=True)
async def worker_online(call: Call, worker_id: str) -> Done:
    """End the registration: the server may send work."""
    await call.engine.push.online(call.project_id, worker_id)
    return DONE


@routes.post("/api/v1/workers/{worker_id}/heartbeat", contract=True)
async def worker_heartbeat(call: Call, worker_id: str) -> HeartbeatResponse:
    """Keep a worker alive.

    `re_register` is true only for an unknown worker. With a new id, the reports of a worker's running executions would
    be refused.
    """
    return HeartbeatResponse(await call.engine.push.heartbeat(call.project_id, worker_id))


class PollQuery(Struct, frozen=True):
    max_workflows: Int32 = 1
    """At least 1."""


@routes.get("/api/v1/workers/{worker_id}/poll", contract=True, role=Role.WRITE, acts=True)
async def poll_workflow(call: Call, worker_id: str, query: PollQuery) -> list[PollWorkflowResponse]:
    """Ask for work; waits up to 30 s.

    Deprecated: register a URL instead, and the server brings the work.
    """
    async with call.poll():
        picked = await call.engine.push.poll(
            call.project_id, worker_id, query.max_workflows, call.settings.poll_seconds_max
        )
    return [_polled(one) for one in picked]


def _polled(one: Pushed) -> PollWorkflowResponse:
    claimed, details = one.claimed, one.details
    return PollWorkflowResponse(
        execution_id=claimed.id,
        workflow_id=claimed.workflow_id,
        payload=claimed.payload,
        retry_count=claimed.retry_count,
        created_at=rfc3339(claimed.created_at_us),
        deployment_id=claimed.deployment_id,
        parent_execution_id=claimed.parent_execution_id,
        root_execution_id=claimed.root_execution_id,
        step_key=details.step_key,
        session_id=claimed.session_id,
        user_id=claimed.user_id,
        otel_traceparent=details.otel_traceparent,
        otel_span_id=details.otel_span_id,
        initial_state=None if details.initial_state is None else Raw(details.initial_state),
    )
