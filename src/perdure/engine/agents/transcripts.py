from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.agents import transcripts
from perdure.wire.agents.transcripts import AppendToTranscript, GetTranscript, NewVersion, Page, check_messages
from perdure.wire.base.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.runs.requests import AppendMessages, Summarize

if TYPE_CHECKING:
    from perdure.wire.runs.requests import TranscriptEntry

PAGE_MAX: Final = 1_000


class Transcripts(Service):
    @serves(GetTranscript)
    async def read_page(self, scope: Scope, op: GetTranscript) -> Page:
        """Read a page. An unknown session has version 0. Raises NotFound for a deleted version."""
        return await self.read(
            transcripts.read_transcript(
                project_id=scope.project_id,
                session_id=op.session_id,
                version=op.version,
                after=op.after,
                limit=PAGE_MAX,
            )
        )

    @serves(AppendToTranscript)
    async def append(self, scope: Scope, op: AppendToTranscript) -> NewVersion:
        """Raises Conflict if `version` is not the newest."""
        return NewVersion(
            await self.write(
                transcripts.append_messages(
                    project_id=scope.project_id,
                    session_id=op.session_id,
                    messages=op.messages,
                    version=op.version,
                    now_us=self.now_us(),
                    idempotency=scope.idempotency,
                )
            )
        )


def check_transcript_entry(entry: TranscriptEntry) -> None:
    check_name(entry.session_id, where="session_id", max_bytes=KEY_BYTES_MAX)
    if isinstance(entry, AppendMessages):
        check_messages(entry.messages, "messages")
    elif isinstance(entry, Summarize):
        check_json(bytes(entry.summary), where="summary")
