"""Schedules: make, look, change, pause, delete, preview, run now."""

from msgspec import Struct

from perdure.engine.schedules import LIST_MAX
from perdure.server.bodies import VALUES
from perdure.server.routes.executions import idempotency, page_limit
from perdure.server.routing import Call, Routes
from perdure.wire.access import Role
from perdure.wire.public import Moment, SubmitWorkflowResponse, microseconds, rfc3339
from perdure.wire.public_schedules import (
    CreateScheduleRequest,
    CreateScheduleResponse,
    FiresResponse,
    GetScheduledWorkflowsResponse,
    GetSchedulesResponse,
    NextRunsResponse,
    ScheduleResponse,
    SchedulesResponse,
    fire_response,
    schedule_response,
)
from perdure.wire.requests import ScheduleChange, ScheduleSpec

routes = Routes("Schedules")


@routes.post("/api/v1/schedules", contract=True, idempotent=True, body_bytes_max=VALUES)
async def create_schedule(call: Call, body: CreateScheduleRequest) -> CreateScheduleResponse:
    """Make or replace a schedule.

    The same definition again changes nothing. Another one starts anew from now; a paused schedule stays paused.
    """
    spec = ScheduleSpec(
        body.workflow_id,
        body.cron,
        body.timezone,
        body.key,
        body.overlap,
        body.missed,
        body.missed_window_seconds,
        body.payload,
    )
    return CreateScheduleResponse(await call.engine.schedules.put(call.project_id, spec, idempotency=idempotency(call)))


class ProjectQuery(Struct, frozen=True):
    project_id: str | None = None
    """Instead of the header."""


@routes.get("/api/v1/schedules/workflows", contract=True)
async def get_scheduled_workflows(call: Call, query: ProjectQuery) -> GetScheduledWorkflowsResponse:
    """Workflows that have an active schedule."""
    call.check_project(query.project_id)
    return GetScheduledWorkflowsResponse(list(await call.engine.schedules.workflows(call.project_id)))


class OfWorkflowQuery(Struct, frozen=True):
    project_id: str | None = None
    """Instead of the header."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    limit: int = LIST_MAX
    """1 to 1,000."""


@routes.get("/api/v1/schedules/workflows/{workflow_id}", contract=True)
async def get_schedules_for_workflow(call: Call, workflow_id: str, query: OfWorkflowQuery) -> GetSchedulesResponse:
    """Schedules of a workflow, newest first."""
    call.check_project(query.project_id)
    page, cursor = await call.engine.schedules.list(call.project_id, workflow_id, query.cursor, page_limit(query.limit))
    return GetSchedulesResponse([schedule_response(one) for one in page], cursor)


class SchedulesQuery(Struct, frozen=True):
    workflow_id: str | None = None
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    limit: int = 100
    """1 to 1,000."""


@routes.get("/api/v1/schedules")
async def list_schedules(call: Call, query: SchedulesQuery) -> SchedulesResponse:
    """The project's schedules, newest first."""
    page, cursor = await call.engine.schedules.list(
        call.project_id, query.workflow_id, query.cursor, page_limit(query.limit)
    )
    return SchedulesResponse([schedule_response(one) for one in page], cursor)


@routes.get("/api/v1/schedules/{schedule_id}")
async def get_schedule(call: Call, schedule_id: str) -> ScheduleResponse:
    """One schedule."""
    return schedule_response(await call.engine.schedules.get(call.project_id, schedule_id))


@routes.route("PATCH", "/api/v1/schedules/{schedule_id}", role=Role.WRITE, body_bytes_max=VALUES)
async def change_schedule(call: Call, schedule_id: str, body: ScheduleChange) -> ScheduleResponse:
    """Change, pause or resume a schedule; what is left out stays.

    What passes while it is paused is not missed: it goes on with the next due time after the pause.
    """
    return schedule_response(await call.engine.schedules.change(call.project_id, schedule_id, body))


@routes.delete("/api/v1/schedules/{schedule_id}")
async def delete_schedule(call: Call, schedule_id: str) -> None:
    """Delete a schedule and the list of its fires; executions that it started stay."""
    await call.engine.schedules.delete(call.project_id, schedule_id)


class NextQuery(Struct, frozen=True):
    count: int = 10
    """1 to 100."""


@routes.get("/api/v1/schedules/{schedule_id}/next")
async def get_next_runs(call: Call, schedule_id: str, query: NextQuery) -> NextRunsResponse:
    """The coming due times of a schedule."""
    coming = await call.engine.schedules.next(call.project_id, schedule_id, query.count)
    return NextRunsResponse([one.isoformat(timespec="microseconds") for one in coming])


class FiresQuery(Struct, frozen=True):
    before: Moment | None = None
    """Due before that: the `due_at` of the last one of the page before."""
    limit: int = 50
    """1 to 1,000."""


@routes.get("/api/v1/schedules/{schedule_id}/fires")
async def get_fires(call: Call, schedule_id: str, query: FiresQuery) -> FiresResponse:
    """What became of a schedule's due times, newest first."""
    limit = page_limit(query.limit)
    before_us = 1 << 62 if query.before is None else microseconds(query.before)
    fires = await call.engine.schedules.fires(call.project_id, schedule_id, before_us=before_us, limit=limit)
    return FiresResponse([fire_response(fire) for fire in fires], len(fires) == limit)


@routes.post("/api/v1/schedules/{schedule_id}/run", idempotent=True)
async def run_schedule(call: Call, schedule_id: str) -> SubmitWorkflowResponse:
    """Start an execution of a schedule now, whatever its overlap policy; its due times stay as they are."""
    started = await call.engine.schedules.run(call.project_id, schedule_id, idempotency=idempotency(call))
    return SubmitWorkflowResponse(started.execution_id, rfc3339(started.created_at_us))
