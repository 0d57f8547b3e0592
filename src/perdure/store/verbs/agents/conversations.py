"""Conversation histories: the newest messages, in order."""

import msgspec

from perdure.store.base.interface import query, records, verb
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.base.pages import fitting
from perdure.wire.agents.conversations import AddConversationMessage, ConversationMessage
from perdure.wire.base.limits import REPLY_BYTES_MAX

MESSAGES_MAX = 10_000
"""Messages kept per agent and conversation; a writer cannot ask for more."""


@verb(sweep=True)
async def add_message(
    *, project_id: str, message: AddConversationMessage, now_us: int, idempotency: Idempotency | None = None
) -> int:
    """Add a message, and drop all but the agent's newest messages. Returns the message's id."""
    first = await recall(project_id, idempotency)
    if first is not None:
        return msgspec.json.decode(first, type=int)
    conversation = {"project_id": project_id, "conversation_id": message.conversation_id}
    [(id,)] = await query("advance_conversation", **conversation)
    await query("insert_message", message, project_id=project_id, id=id, now_us=now_us)
    wanted = message.conversation_history_limit
    await query(
        "trim_messages",
        agent_id=message.agent_id,
        keep=MESSAGES_MAX if wanted is None else min(wanted, MESSAGES_MAX),
        **conversation,
    )
    await remember(project_id, idempotency, msgspec.json.encode(id), now_us)
    return int(id)


@verb(reads=True)
async def get_messages(
    *, project_id: str, conversation_id: str, agent_id: str, limit: int
) -> list[ConversationMessage]:
    """The newest messages, oldest first."""
    where: dict[str, object] = {"project_id": project_id, "conversation_id": conversation_id, "agent_id": agent_id}
    fits = fitting((size for (size,) in await query("message_sizes", limit=limit, **where)), REPLY_BYTES_MAX)
    found = await records(ConversationMessage, "newest_messages", limit=fits, **where) if fits else []
    return found[::-1]
