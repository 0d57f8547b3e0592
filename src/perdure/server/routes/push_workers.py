"""Polls of push workers for work."""

from typing import Annotated

from perdure.server.http.routing import RouteCall, Routes
from perdure.wire.base.access import Role
from perdure.wire.base.fields import Int32, described
from perdure.wire.outside.push_workers import PolledWork

routes = Routes("Workers")


MaxWorkflows = Annotated[Int32, described("The number of workflows to take, 1 or more.")]


@routes.get("/api/v1/workers/{worker_id}/poll", contract=True, role=Role.WORK, acts=True)
async def poll_workflow(call: RouteCall, worker_id: str, *, max_workflows: MaxWorkflows = 1) -> list[PolledWork]:
    """Ask for work; waits up to 30 s.

    Deprecated: register a URL instead, and the server brings the work.
    """
    async with call.poll():
        picked = await call.engine.push.poll(call.project_id, worker_id, max_workflows, call.settings.poll_seconds_max)
    return picked
