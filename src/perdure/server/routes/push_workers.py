"""Polls of push workers for work."""

from msgspec import Struct

from perdure.server.http.routing import Call, Routes
from perdure.wire.base.access import Role
from perdure.wire.base.fields import Int32
from perdure.wire.outside.push_workers import PolledWork

routes = Routes("Workers")


class PollQuery(Struct, frozen=True):
    max_workflows: Int32 = 1
    """The number of workflows to take, 1 or more."""


@routes.get("/api/v1/workers/{worker_id}/poll", contract=True, role=Role.WORK, acts=True)
async def poll_workflow(call: Call, worker_id: str, query: PollQuery) -> list[PolledWork]:
    """Ask for work; waits up to 30 s.

    Deprecated: register a URL instead, and the server brings the work.
    """
    async with call.poll():
        picked = await call.engine.push.poll(
            call.project_id, worker_id, query.max_workflows, call.settings.poll_seconds_max
        )
    return picked
