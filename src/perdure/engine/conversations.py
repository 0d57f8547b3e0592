"""The service of conversation histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.store.verbs import conversations
from perdure.store.verbs.conversations import Message
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.errors import BadRequest
from perdure.wire.fields import checked_id

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.engine.engine import Engine

LIST_MAX: Final = 1_000


class Conversations:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(
        self,
        project_id: str,
        conversation_id: str,
        agent_id: str,
        role: str,
        content: Raw,
        *,
        agent_run_id: str | None = None,
        keep: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> int:
        """Keeps this agent's newest `keep`. Returns the message's id. Raises BadRequest, BadValue."""
        check_name(conversation_id, where="conversation_id", max_bytes=KEY_BYTES_MAX)
        check_name(agent_id, where="agent_id")
        check_name(role, where="role")
        check_json(bytes(content), where="content")
        if keep is not None and keep < 1:
            raise BadRequest(f"`conversation_history_limit` must be 1 or more, got {keep}.")
        return await self._engine.store.write(
            conversations.add_message(
                project_id=project_id,
                conversation_id=conversation_id,
                agent_id=agent_id,
                role=role,
                content=content,
                agent_run_id=None if agent_run_id is None else checked_id(agent_run_id),
                keep=keep,
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )

    async def get(
        self, project_id: str, conversation_id: str, agent_id: str, limit: int | None = None
    ) -> Sequence[Message]:
        """The newest, oldest first: at most LIST_MAX, fewer if they are large. Raises BadRequest."""
        if limit is not None and limit < 1:
            raise BadRequest(f"`limit` must be 1 or more, got {limit}.")
        return await self._engine.store.read(
            conversations.get_messages(
                project_id=project_id,
                conversation_id=conversation_id,
                agent_id=agent_id,
                limit=LIST_MAX if limit is None else min(limit, LIST_MAX),
            )
        )
