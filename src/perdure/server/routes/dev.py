"""Kills of workers, on servers of `perdure dev`. Other servers answer 404."""

from perdure.server.http.bodies import SMALL
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.process.dev import Chaos, Dev, DevStatus, Kill, Killed
from perdure.wire.base.access import Role
from perdure.wire.base.errors import NotFound

routes = Routes("Development")


@routes.get("/api/v1/dev", role=Role.ADMIN)
async def dev_status(call: RouteCall) -> DevStatus:
    """How often workers were killed, and whether a recorded step ran again.

    404 on a server without `perdure dev`.
    """
    return await _dev(call).status()


@routes.post(
    "/api/v1/dev/kill", repeated="kills the next worker, or 409 without one", role=Role.ADMIN, body_bytes_max=SMALL
)
async def kill_worker(call: RouteCall, body: Kill) -> Killed:
    """Kill the worker of `perdure dev` with SIGKILL.

    Another worker starts at once and continues the executions. 409 without a worker.
    """
    return await _dev(call).kill(body.worker_id)


@routes.route("PUT", "/api/v1/dev/chaos", role=Role.ADMIN, body_bytes_max=SMALL)
async def set_chaos(call: RouteCall, body: Chaos) -> DevStatus:
    """Kill the worker of `perdure dev` at random, on average every `every_seconds`; null ends the kills."""
    return await _dev(call).set_chaos(body.every_seconds)


def _dev(call: RouteCall) -> Dev:
    if call.services.dev is None:
        raise NotFound("Workers are killed on a server of `perdure dev` only.")
    return call.services.dev
