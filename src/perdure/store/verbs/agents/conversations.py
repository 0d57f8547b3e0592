"""Conversation histories: the newest messages, in order."""

from typing import Final

from perdure.store.base.interface import query, records, serves
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.base.pages import fitting
from perdure.wire.agents.conversations import AddConversationMessage, ConversationMessage, GetConversationHistory
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done

LIST_MAX: Final = 1_000

MESSAGES_MAX = 10_000
"""Messages kept per agent and conversation; a writer cannot ask for more."""


@serves(AddConversationMessage, sweep=True)
async def add_message(at: At, op: AddConversationMessage) -> Done:
    """Add a message, and drop all but the agent's newest messages."""
    if await at.recall() is not None:
        return DONE
    [(id,)] = await query("advance_conversation", at, op)
    await query("insert_message", at, op, id=id)
    await query("trim_messages", at, op, keep=min(op.conversation_history_limit or MESSAGES_MAX, MESSAGES_MAX))
    await at.remember(id)
    return DONE


@serves(GetConversationHistory, reads=True)
async def get_messages(at: At, op: GetConversationHistory) -> Listed[ConversationMessage]:
    limit = min(op.limit or LIST_MAX, LIST_MAX)
    fits = fitting((size for (size,) in await query("message_sizes", at, op, limit=limit)), REPLY_BYTES_MAX)
    found = await records(ConversationMessage, "newest_messages", at, op, limit=fits) if fits else []
    return Listed(found[::-1])
