"""Sessions: what agents remember of them."""

import re
from typing import Final

from perdure.server.routing import Call, Routes
from perdure.wire.access import Role
from perdure.wire.errors import BadRequest
from perdure.wire.public import INT64_MAX
from perdure.wire.public_sessions import PutSessionMemoryRequest, PutSessionMemoryResponse, SessionMemoryResponse

routes = Routes("Sessions")


@routes.get("/internal/session/{session_id}/memory", contract=True)
async def get_session_memory(call: Call, session_id: str) -> SessionMemoryResponse:
    """What an agent remembers of a session."""
    found = await call.engine.sessions.memory(call.project_id, session_id)
    return SessionMemoryResponse(found.messages, found.version, found.summary)


@routes.route("PUT", "/internal/session/{session_id}/memory", role=Role.WRITE, contract=True, headers=("If-Match",))
async def put_session_memory(call: Call, session_id: str, body: PutSessionMemoryRequest) -> PutSessionMemoryResponse:
    """Replace what an agent remembers of a session.

    With a `version`, in the body or as `If-Match`, only that one is replaced: 409 when it is another one by now.
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
