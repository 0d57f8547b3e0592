"""Conversation histories: the newest messages, in order."""

from typing import NamedTuple

import msgspec
from msgspec import Raw

from perdure.store.interface import query, verb
from perdure.store.verbs.idempotency import Idempotency, recall, remember
from perdure.wire.limits import REPLY_BYTES_MAX

MESSAGES_MAX = 10_000
"""Messages kept per agent and conversation; a writer cannot ask for more."""


class Message(NamedTuple):
    """`id` grows within the conversation."""

    id: int
    role: str
    content: Raw
    created_at_us: int
    agent_run_id: str | None


@verb(sweep=True)
async def add_message(
    *,
    project_id: str,
    conversation_id: str,
    agent_id: str,
    role: str,
    content: Raw,
    agent_run_id: str | None,
    keep: int | None,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> int:
    """Append a message, then drop all but this agent's newest `keep`. Answers the message's id."""
    first = await recall(project_id, idempotency)
    if first is not None:
        return msgspec.json.decode(first, type=int)
    rows = await query("advance_conversation", project_id=project_id, conversation_id=conversation_id)
    id: int = rows[0][0]
    await query(
        "insert_message",
        project_id=project_id,
        conversation_id=conversation_id,
        agent_id=agent_id,
        id=id,
        role=role,
        content=bytes(content),
        agent_run_id=agent_run_id,
        now_us=now_us,
    )
    await query(
        "trim_messages",
        project_id=project_id,
        conversation_id=conversation_id,
        agent_id=agent_id,
        keep=MESSAGES_MAX if keep is None else min(keep, MESSAGES_MAX),
    )
    await remember(project_id, idempotency, msgspec.json.encode(id), now_us)
    return id


@verb(looks=True)
async def get_messages(
    *, project_id: str, conversation_id: str, agent_id: str, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> list[Message]:
    """The newest messages, oldest first. The one that fills `bytes_max` is the last."""
    where: dict[str, object] = {"project_id": project_id, "conversation_id": conversation_id, "agent_id": agent_id}
    fits, room = 0, bytes_max
    for (size,) in await query("message_sizes", limit=limit, **where):
        if room <= 0:
            break
        room -= size
        fits += 1
    rows = await query("newest_messages", limit=fits, **where) if fits else []
    return [
        Message(id, role, Raw(content), created_at_us, agent_run_id)
        for id, role, content, created_at_us, agent_run_id in reversed(rows)
    ]
