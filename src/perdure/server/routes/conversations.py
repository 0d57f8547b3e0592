"""Conversation histories, as older workers keep them."""

from msgspec import Struct

from perdure.server.bodies import VALUES
from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.wire.public import DONE, Done, Int64, rfc3339
from perdure.wire.public_conversations import AddMessageRequest, ConversationMessage, ConversationResponse

routes = Routes("Conversations")


class HistoryQuery(Struct, frozen=True):
    agent_id: str
    deployment_id: str | None = None
    """Ignored."""
    limit: Int64 | None = None
    """The newest so many; at most 1,000, which is the default."""


@routes.get("/api/v1/conversation/{conversation_id}/get", contract=True)
async def get_conversation_history(call: Call, conversation_id: str, query: HistoryQuery) -> ConversationResponse:
    """The newest messages of an agent in a conversation, oldest first; fewer where they would fill more than 8 MiB."""
    found = await call.engine.conversations.get(call.project_id, conversation_id, query.agent_id, query.limit)
    return ConversationResponse(
        [
            ConversationMessage(
                one.id,
                conversation_id,
                query.agent_id,
                one.role,
                one.content,
                rfc3339(one.created_at_us),
                one.agent_run_id,
            )
            for one in found
        ]
    )


@routes.post("/internal/conversation/{conversation_id}/add", contract=True, idempotent=True, body_bytes_max=VALUES)
async def add_conversation_message(call: Call, conversation_id: str, body: AddMessageRequest) -> Done:
    """Append a message; the newest are kept: as many as it says, at most 10,000 of each agent."""
    await call.engine.conversations.add(
        call.project_id,
        conversation_id,
        body.agent_id,
        body.role,
        body.content,
        agent_run_id=body.agent_run_id,
        keep=body.conversation_history_limit,
        idempotency=idempotency(call),
    )
    return DONE
