"""The service of transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.store.verbs import transcripts
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.errors import BadRequest, BadValue
from perdure.wire.requests import AppendMessages, Summarize
from perdure.wire.transcripts import MESSAGES_MAX, Page

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.engine.engine import Engine
    from perdure.store.verbs.idempotency import Idempotency
    from perdure.wire.requests import TranscriptEntry

PAGE_MAX: Final = 1_000


class Transcripts:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(
        self, project_id: str, session_id: str, version: int | None = None, after: int | None = None
    ) -> Page:
        """A page of a transcript at a version; an unknown session has version 0. Raises BadRequest, BadValue, and
        NotFound for a version that is gone."""
        check_name(session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
        for name, value in (("version", version), ("after", after)):
            if value is not None and not 0 <= value < 1 << 62:
                raise BadRequest(f"`{name}` must be the number of an entry, got {value}.")
        return await self._engine.store.read(
            transcripts.read_transcript(
                project_id=project_id, session_id=session_id, version=version, after=after, limit=PAGE_MAX
            )
        )

    async def append(
        self,
        project_id: str,
        session_id: str,
        messages: Sequence[Raw],
        version: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> int:
        """Append messages; returns the new version. Raises BadValue, and Conflict if `version` is not the newest."""
        check_name(session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
        _check_messages(messages)
        return await self._engine.store.write(
            transcripts.append_messages(
                project_id=project_id,
                session_id=session_id,
                messages=messages,
                version=version,
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )


def check_transcript_entry(entry: TranscriptEntry) -> None:
    """Check a report's entry. Raises BadValue."""
    check_name(entry.session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
    if isinstance(entry, AppendMessages):
        _check_messages(entry.messages)
    elif isinstance(entry, Summarize):
        check_json(bytes(entry.summary), where="summary")


def _check_messages(messages: Sequence[Raw]) -> None:
    if len(messages) > MESSAGES_MAX:
        raise BadValue(
            f"messages: holds {len(messages):,} entries; the limit is {MESSAGES_MAX:,}", {"path": "messages"}
        )
    for n, message in enumerate(messages):
        check_json(bytes(message), where=f"messages[{n}]")
