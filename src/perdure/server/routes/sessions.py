"""Sessions: their runs, and the memory that agents keep of them."""

import re
from typing import Final

from msgspec import Struct

from perdure.server.bodies import VALUES
from perdure.server.routing import Call, Routes
from perdure.store.verbs.sessions import RunFilters
from perdure.wire.access import Role
from perdure.wire.errors import BadRequest
from perdure.wire.public import INT64_MAX, Int64, Moment, microseconds
from perdure.wire.public_sessions import (
    PutSessionMemoryRequest,
    PutSessionMemoryResponse,
    SessionDetail,
    SessionMemoryResponse,
    SessionsResponse,
    session_detail,
    sessions_response,
)
from perdure.wire.status import STATUS

routes = Routes("Sessions")


class SessionsQuery(Struct, frozen=True):
    limit: Int64 = 50
    """The number of runs, 1 to 500. They are grouped into sessions afterwards."""
    offset: Int64 = 0
    """Runs to leave out after the cursor, up to 10,000. Newly begun runs shift an offset, not a cursor."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    start_time: Moment | None = None
    """Only runs that began then or later."""
    end_time: Moment | None = None
    """Only runs that began then or earlier."""
    status: str | None = None
    """pending, running, completed, failed or cancelled."""
    agent_id: str | None = None


@routes.get("/api/v1/sessions", contract=True)
async def get_sessions(call: Call, query: SessionsQuery) -> SessionsResponse:
    """Sessions of agents, by their newest runs."""
    phases = None
    if query.status is not None:
        phases = [phase.value for phase, status in STATUS.items() if status == query.status]
        if not phases:
            known = ", ".join(sorted({*STATUS.values()}))
            raise BadRequest(f"query.status: {query.status!r} is not one of {known}", {"path": "query.status"})
    filters = RunFilters(
        query.agent_id,
        phases,
        0 if query.start_time is None else microseconds(query.start_time),
        1 << 62 if query.end_time is None else microseconds(query.end_time),
    )
    runs, cursor = await call.engine.sessions.runs(call.project_id, filters, query.cursor, query.limit, query.offset)
    return sessions_response(runs, cursor)


@routes.get("/api/v1/sessions/{execution_id}", contract=True)
async def get_session_detail(call: Call, execution_id: str) -> SessionDetail:
    """One session, by the id of one of its root executions.

    It has the messages, steps, questions and answers.
    """
    return session_detail(await call.engine.sessions.get(call.project_id, execution_id))


@routes.get("/internal/session/{session_id}/memory", contract=True)
async def get_session_memory(call: Call, session_id: str) -> SessionMemoryResponse:
    """The memory that an agent keeps of a session."""
    found = await call.engine.sessions.memory(call.project_id, session_id)
    return SessionMemoryResponse(found.messages, found.version, found.summary)


@routes.route(
    "PUT",
    "/internal/session/{session_id}/memory",
    role=Role.WRITE,
    contract=True,
    headers=("If-Match",),
    body_bytes_max=VALUES,
)
async def put_session_memory(call: Call, session_id: str, body: PutSessionMemoryRequest) -> PutSessionMemoryResponse:
    """Replace the memory that an agent keeps of a session.

    With a `version`, in the body or as `If-Match`, the server replaces only this version. 409 if it has changed.
    """
    version = body.version if body.version is not None else _matched(call.header(b"if-match"))
    saved = await call.engine.sessions.remember(call.project_id, session_id, body.summary, body.messages, version)
    return PutSessionMemoryResponse(saved)


def _matched(text: str | None) -> int | None:
    if text is None:
        return None
    found = _VERSION.fullmatch(text.strip())
    if found is None or int(found[1]) > INT64_MAX:
        raise BadRequest(f'The header If-Match must be a version, like "3"; got {text!r}.')
    return int(found[1])


_VERSION: Final = re.compile(r'"?([0-9]{1,19})"?', re.ASCII)
