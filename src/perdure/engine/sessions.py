"""The service of sessions: agents' memory and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.engine.executions import checked_cursor, checked_id
from perdure.store.verbs import sessions
from perdure.store.verbs.sessions import RunFilters
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.errors import BadRequest, BadValue
from perdure.wire.sessions import SUMMARY_BYTES_MAX, Memory, Session, SessionRun

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.engine.engine import Engine


LIST_MAX = 500
OFFSET_MAX = 10_000


class Sessions:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def memory(self, project_id: str, session_id: str) -> Memory:
        """Empty for an unknown session. Raises BadValue for an invalid name."""
        check_name(session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
        return await self._engine.store.read(sessions.get_memory(project_id=project_id, session_id=session_id))

    async def remember(
        self, project_id: str, session_id: str, summary: str | None, messages: Raw, version: int | None = None
    ) -> int:
        """Returns the new version. Raises Conflict if `version` is not the last one, BadValue."""
        check_name(session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
        check_json(bytes(messages), where="messages")
        if summary is not None and len(summary.encode()) > SUMMARY_BYTES_MAX:
            raise BadValue(f"summary: more than {SUMMARY_BYTES_MAX:,} bytes of UTF-8", {"path": "summary"})
        return await self._engine.store.write(
            sessions.put_memory(
                project_id=project_id,
                session_id=session_id,
                summary=summary,
                messages=messages,
                version=version,
                now_us=self._engine.clock.now_us(),
            )
        )

    async def runs(
        self, project_id: str, filters: RunFilters, cursor: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[SessionRun], str | None]:
        """Agents' root executions, newest first, and the next cursor. Raises BadRequest."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX}, got {limit}.")
        if not 0 <= offset <= OFFSET_MAX:
            raise BadRequest(f"`offset` must be 0 to {OFFSET_MAX:,}, got {offset}; ask for a time range instead.")
        before = checked_cursor(cursor)
        return await self._engine.store.scan(
            sessions.list_agent_runs(project_id=project_id, filters=filters, before=before, limit=limit, offset=offset)
        )

    async def get(self, project_id: str, execution_id: str) -> Session:
        """Raises NotFound."""
        return await self._engine.store.scan(
            sessions.get_session(project_id=project_id, execution_id=checked_id(execution_id))
        )
