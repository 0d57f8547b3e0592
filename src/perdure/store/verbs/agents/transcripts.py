"""Transcripts of sessions. Changes, and reads for a replay, lock the transcript's row.

Summarized entries are dropped once no open execution has read an older version, which its replay would need.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from msgspec import Raw, Struct

from perdure.store.base.interface import query, query_many, record, records, serves, value
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.base.pages import fitting
from perdure.store.verbs.base.try_lock import try_lock_session
from perdure.wire.agents.transcripts import AppendToTranscript, Entry, GetTranscript, NewVersion, Page
from perdure.wire.base.errors import BadRequest, Conflict, NotFound, PerdureError
from perdure.wire.base.limits import REPLY_BYTES_MAX

PAGE_MAX: Final = 1_000
DROPPED_AT_ONCE: Final = 2_000
DELETED_AT_ONCE: Final = 50
"""Transcripts seen by retention per transaction."""


class StoredTranscript(Struct, frozen=True):
    version: int = 0
    turns: int = 0
    summarized: int = 0
    """The last entry covered by a summary."""
    dropped: int = 0
    """The last deleted entry."""
    begun_at_us: int = 0


def hash_of(project_id: str, message: bytes) -> bytes:
    """A message's storage key, different in each project."""
    return blake2b(message, digest_size=20, key=blake2b(project_id.encode(), digest_size=32).digest()).digest()


@serves(GetTranscript, reads=True)
async def read_transcript(at: At, op: GetTranscript) -> Page:
    """An unknown session has version 0.

    Raises BadRequest for a future version, NotFound if entries of the version were dropped.
    """
    session: dict[str, object] = {"project_id": at.project_id, "session_id": op.session_id}
    session_id, version, after = op.session_id, op.version, op.after
    newest, dropped = next(iter(await query("read_version", **session)), (0, 0))
    if version is None:
        version = newest
    elif version > newest:
        raise BadRequest(f"The transcript of session {session_id!r} has version {newest}, not {version} yet.")
    if after is None:
        after = await value("newest_summary", version=version, **session) or 0
        if after < min(dropped, version):
            raise NotFound(
                f"Version {version} of the transcript of session {session_id!r} is gone: a summary stands for its "
                f"first {dropped} entries."
            )
    where: dict[str, object] = {"after": after, "version": version, **session}
    fits = fitting((size for (size,) in await query("entry_sizes", limit=PAGE_MAX, **where)), REPLY_BYTES_MAX)
    entries = await records(Entry, "read_entries", limit=fits, **where) if fits else []
    more = bool(entries) and entries[-1].seq < version
    return Page(version, entries, entries[-1].seq if more else None)


@serves(AppendToTranscript, locks="session=op.session_id")
async def append_messages(at: At, op: AppendToTranscript) -> NewVersion:
    """Raises Conflict if `version` is not the newest."""
    first = await at.recall()
    if first is not None:
        return NewVersion(int(first))
    new = await append(at.project_id, op.session_id, op.messages, op.version, at.now_us)
    await at.remember(new)
    return NewVersion(new)


async def append(
    project_id: str,
    session_id: str,
    messages: Sequence[Raw],
    version: int | None,
    now_us: int,
    *,
    summary_of: int | None = None,
) -> int:
    """Append messages, or a summary up to entry `summary_of`. Refuses before the first write."""
    session = {"project_id": project_id, "session_id": session_id}
    known = await record(StoredTranscript, "lock_transcript", **session)
    stored = known or StoredTranscript()
    if version is not None and version != stored.version:
        raise _moved_on(session_id, stored.version, version)
    if summary_of is not None and not stored.summarized < summary_of <= stored.version:
        raise BadRequest(
            f"A summary of session {session_id!r} must stand for all up to an entry from {stored.summarized + 1} to "
            f"{stored.version}, not {summary_of}."
        )
    if not messages:
        return stored.version
    advanced = await query(
        "advance_transcript",
        **session,
        entries=len(messages),
        summarized=summary_of or 0,
        expected=version if known or version is None else 0,
        now_us=now_us,
    )
    if not advanced:  # another server made the first entries at this moment
        [(newest, _)] = await query("read_version", **session)
        raise _moved_on(session_id, newest, version or 0)
    [(new,)] = advanced
    hashes = [hash_of(project_id, bytes(message)) for message in messages]
    contents = dict(zip(hashes, map(bytes, messages), strict=True))
    # All writers go in the order of hashes, so two that share messages cannot deadlock.
    await query_many(
        "use_message",
        [
            {"project_id": project_id, "hash": hash, "content": contents[hash], "uses": uses}
            for hash, uses in sorted(Counter(hashes).items())
        ],
    )
    first = new - len(messages) + 1
    await query_many(
        "insert_entry",
        [{**session, "seq": first + n, "hash": hash, "summary_of": summary_of} for n, hash in enumerate(hashes)],
    )
    return int(new)


def _moved_on(session_id: str, newest: int, version: int) -> PerdureError:
    return Conflict(
        f"The transcript of session {session_id!r} has version {newest}, not {version}; read it again and add to that.",
        {"version": newest},
    )


async def drop_summarized(project_id: str, session_id: str) -> int:
    """Drop summarized entries without an open execution to read them again. Returns how many."""
    session = {"project_id": project_id, "session_id": session_id}
    stored = await record(StoredTranscript, "lock_transcript", **session)
    if stored is None or stored.summarized <= stored.dropped:
        return 0
    [(oldest,)] = await query("oldest_reading", **session)
    version = stored.version if oldest is None else oldest
    summary_of = await value("newest_summary", version=version, **session) or 0
    if summary_of <= stored.dropped:
        return 0
    gone = await query("drop_entries", upto=summary_of, limit=DROPPED_AT_ONCE, **session)
    await _release(project_id, [hash for (hash,) in gone])
    # Entries have no gaps, so the count gives the new first one.
    await query("note_dropped", dropped=stored.dropped + len(gone), **session)
    return len(gone)


async def _release(project_id: str, hashes: Iterable[bytes]) -> None:
    """Delete messages without an entry."""
    uses = sorted(Counter(hashes).items())
    await query_many(
        "release_message", [{"project_id": project_id, "hash": hash, "uses": count} for hash, count in uses]
    )
    await query_many("drop_unused_message", [{"project_id": project_id, "hash": hash} for hash, _ in uses])


async def delete_transcript(project_id: str, session_id: str) -> int:
    """Unless a turn is open. Answers how many rows; fewer than DROPPED_AT_ONCE means all."""
    if not await query("lock_transcript", project_id=project_id, session_id=session_id):
        return 0
    if await query("any_turn", project_id=project_id, session_id=session_id):
        return 0
    gone = await query(
        "drop_entries", project_id=project_id, session_id=session_id, upto=1 << 62, limit=DROPPED_AT_ONCE
    )
    await _release(project_id, [hash for (hash,) in gone])
    if len(gone) < DROPPED_AT_ONCE:
        await query("delete_transcript", project_id=project_id, session_id=session_id)
        return len(gone) + 1
    return len(gone)


async def prune_transcripts(before_us: int) -> bool:
    """True if there may be more."""
    rows = await query("old_transcripts", before_us=before_us, limit=DELETED_AT_ONCE)
    room = DROPPED_AT_ONCE
    for project_id, session_id in rows:
        if not await try_lock_session(project_id, session_id):
            continue
        room -= await delete_transcript(project_id, session_id)
        if room <= 0:
            return True
    return len(rows) == DELETED_AT_ONCE
