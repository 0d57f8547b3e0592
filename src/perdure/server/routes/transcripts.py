"""Transcripts: what a session's model is shown."""

from msgspec import Struct

from perdure.server.bodies import VALUES
from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.wire.fields import Most
from perdure.wire.public import Position
from perdure.wire.public_transcripts import AppendMessagesRequest, AppendMessagesResponse, TranscriptResponse
from perdure.wire.transcripts import MESSAGES_MAX

routes = Routes("Sessions")


class TranscriptQuery(Struct, frozen=True):
    version: Position | None = None
    """As it was then; left out: as it is."""
    after: Position | None = None
    """Behind this entry; left out: from the first one that the version needs."""


@routes.get("/internal/session/{session_id}/transcript")
async def get_transcript(call: Call, session_id: str, query: TranscriptQuery) -> TranscriptResponse:
    """The entries of a session's transcript at a version, a page at a time."""
    return TranscriptResponse.of(
        await call.engine.transcripts.read(call.project_id, session_id, query.version, query.after)
    )


@routes.post(
    "/internal/session/{session_id}/transcript",
    idempotent=True,
    body_bytes_max=VALUES,
    lists={"messages": Most(MESSAGES_MAX)},
)
async def append_messages(call: Call, session_id: str, body: AppendMessagesRequest) -> AppendMessagesResponse:
    """Add messages to the end of a session's transcript. 409: `version` is not the newest any more."""
    version = await call.engine.transcripts.append(
        call.project_id, session_id, body.messages, body.version, idempotency(call)
    )
    return AppendMessagesResponse(version)
