"""The protocol of native workers: register, claim, report, beat, drain."""

from typing import Final

from perdure.server.bodies import VALUES
from perdure.server.routing import Call, Routes
from perdure.wire.errors import BadRequest
from perdure.wire.fields import Most
from perdure.wire.limits import REGISTERED_MAX, REPORT_ITEMS_MAX
from perdure.wire.requests import (
    PROTOCOL_VERSION,
    BeatReply,
    BeatRequest,
    ClaimReply,
    ClaimRequest,
    DrainRequest,
    RegisterReply,
    RegisterRequest,
    ReportReply,
    ReportRequest,
)

VERSION_HEADER: Final = "Perdure-Protocol"
_VERSION: Final = str(PROTOCOL_VERSION).encode()
HEADERS: Final = (VERSION_HEADER,)
REGISTERED: Final = {name: Most(REGISTERED_MAX) for name in ("workflows", "queues", "schedules", "triggers")}

routes = Routes("Workers")


@routes.post("/worker/v1/register", headers=HEADERS, body_bytes_max=VALUES, lists=REGISTERED)
async def register(call: Call, body: RegisterRequest) -> RegisterReply:
    """Open a registration, or open the same one again."""
    check_version(call)
    if body.embedded:
        raise BadRequest("body.embedded: only a worker in the server's own process is embedded.")
    return await call.engine.claims.register(call.project_id, body)


@routes.post("/worker/v1/claim", headers=HEADERS)
async def claim(call: Call, body: ClaimRequest) -> ClaimReply:
    """Ask for work: answered at once when there is some, else as soon as there is."""
    check_version(call)
    # When the server goes away the engine ends the poll itself: work that was handed out is still told.
    async with call.poll(until_closing=False):
        reply = await call.engine.claims.claim(call.project_id, body)
    return reply


@routes.post(
    "/worker/v1/report", headers=HEADERS, body_bytes_max=VALUES, lists={"items": Most(REPORT_ITEMS_MAX, BadRequest)}
)
async def report(call: Call, body: ReportRequest) -> ReportReply:
    """Bring what piled up in a worker; each item has its own answer."""
    check_version(call)
    return await call.engine.claims.report(call.project_id, body)


@routes.post("/worker/v1/beat", headers=HEADERS)
async def beat(call: Call, body: BeatRequest) -> BeatReply:
    """Renew the registration's lease. When the peer closes this connection the lease is cut to a second."""
    check_version(call)
    reply, granted_us = await call.engine.claims.renew(call.project_id, body)
    if call.connection is not None and not reply.lost:
        call.connection.workers[body.worker_id] = granted_us
    return reply


@routes.post("/worker/v1/drain", headers=HEADERS)
async def drain(call: Call, body: DrainRequest) -> None:
    """End the registration; what it still holds goes back to the queues."""
    check_version(call)
    await call.engine.claims.drain(call.project_id, body)
    if call.connection is not None:
        call.connection.workers.pop(body.worker_id, None)


def check_version(call: Call) -> None:
    version = call.headers.get(b"perdure-protocol")
    if version != _VERSION:
        said = "none" if version is None else repr(version.decode("latin-1"))
        raise BadRequest(
            f"The header {VERSION_HEADER} says {said}; this server speaks {PROTOCOL_VERSION}. Install the same release "
            "of perdure on both sides."
        )
