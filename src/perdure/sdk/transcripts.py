"""The journal records the version of the transcript read, not the messages. A worker caches recent transcripts and
fetches only new entries."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct

from perdure.sdk.payloads.errors import error_from_json
from perdure.sdk.payloads.fingerprints import fingerprint
from perdure.sdk.payloads.values import encode
from perdure.sdk.transports.transport import until_answered
from perdure.wire.agents.transcripts import (
    APPEND,
    LEAVE,
    READ,
    SUMMARIZE,
    TAKE,
    Entry,
    GetTranscript,
    Transcript,
    shown,
)
from perdure.wire.base.errors import NotFound, from_code
from perdure.wire.base.records import Kind, MaybeRaw
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import AppendMessages, LeaveMessages, ReadTranscript, Summarize, TakeMessages

if TYPE_CHECKING:
    from perdure.sdk.transports.transport import Transport
    from perdure.sdk.workflows.execution_state import ExecutionState

logger = logging.getLogger("perdure.worker")

KEPT_BYTES_MAX: Final = 64 << 20
ENTRY_BYTES: Final = 200
"""Assumed size of an entry without its message."""


class Reading(Struct, frozen=True):
    """The value of a row, and the entries of the version."""

    version: int
    session_id: str = ""
    begun_at_us: int = 0
    taken_by: str | None = None
    """The completed execution whose turn included this execution's work."""
    result: MaybeRaw = None
    entries: Sequence[Entry] = ()

    @property
    def messages(self) -> list[Raw]:
        return [entry.message for entry in self.entries]


class TakenMessage(Struct, frozen=True):
    """The input of an execution created during the turn."""

    execution_id: str
    message: Raw


def read_transcript(ctx: ExecutionState, session_id: str | None = None) -> Coroutine[object, None, Reading]:
    """Read the transcript of this execution's session, or of `session_id`.

    history = (await read_transcript(ctx)).messages
    """
    session = _session(ctx, session_id)
    call = ctx.machine.new_call(Kind.TRANSCRIPT, READ, None, lambda key: ReadTranscript(key, session))
    return _take_reading(ctx, ctx.machine.wait(call))


async def _take_reading(ctx: ExecutionState, row: Coroutine[Any, Any, Row]) -> Reading:
    found = await row
    return msgspec.structs.replace(_parse_reading(found), entries=ctx.readings.pop(found.seq).entries)


def append_messages(
    ctx: ExecutionState, messages: Sequence[object], *, session_id: str | None = None, version: int | None = None
) -> Coroutine[object, None, int]:
    """Append messages to a transcript, exactly once. Returns the new version.

    A message is any JSON value or `msgspec.Raw`, else `BadValue` with its path. Raises `Conflict` if entries were added
    after `version`.
    """
    session = _session(ctx, session_id)
    given = [_to_json(message, f"messages[{n}]") for n, message in enumerate(messages)]
    print_ = fingerprint(b"\n".join(map(bytes, given)))
    call = ctx.machine.new_call(
        Kind.TRANSCRIPT, APPEND, print_, lambda key: AppendMessages(key, print_, session, given, version)
    )
    return _new_version(ctx.machine.wait(call))


def summarize(
    ctx: ExecutionState, summary: object, upto: int, *, session_id: str | None = None, version: int | None = None
) -> Coroutine[object, None, int]:
    """Replace a transcript up to entry `upto` by a summary. Returns the new version.

    The replaced entries are deleted once no open execution can read them. Raises like `append_messages`, and
    `BadRequest` if an earlier summary replaces as much.
    """
    session = _session(ctx, session_id)
    given = _to_json(summary, "summary")
    print_ = fingerprint(bytes(given))
    call = ctx.machine.new_call(
        Kind.TRANSCRIPT, SUMMARIZE, print_, lambda key: Summarize(key, print_, session, upto, given, version=version)
    )
    return _new_version(ctx.machine.wait(call))


async def _new_version(row: Coroutine[Any, Any, Row]) -> int:
    found = await row
    if not found.ok:
        problem = error_from_json(bytes(found.value))
        raise from_code(problem.type, problem.message)
    return _parse_reading(found).version


async def take_messages(ctx: ExecutionState) -> Sequence[TakenMessage]:
    """Take the messages that came for the running turn since its beginning or the last take.

    No other execution gets the taken messages, unless this execution fails or calls `leave_messages`. Without messages
    nothing happens, so call `take_messages` before each call of a model.
    """
    arrived, ctx.machine.messages[:] = set(ctx.machine.messages), []
    if not arrived - ctx.taken.keys():
        return ()
    session = _session(ctx, None)
    call = ctx.machine.new_call(Kind.TRANSCRIPT, TAKE, None, lambda key: TakeMessages(key, session))
    row = await ctx.machine.wait(call)
    taken = msgspec.json.decode(row.value, type=list[TakenMessage])
    ctx.taken |= dict.fromkeys([*arrived, *(one.execution_id for one in taken)])
    return taken


async def leave_messages(ctx: ExecutionState, taken: Sequence[TakenMessage]) -> None:
    """Return messages unused by this execution. Each becomes a separate turn."""
    ids = [one.execution_id for one in taken]
    session = _session(ctx, None)
    await ctx.machine.call(Kind.TRANSCRIPT, LEAVE, None, lambda key: LeaveMessages(key, session, ids))


def _to_json(value: object, where: str) -> Raw:
    return value if isinstance(value, Raw) else Raw(encode(value, where=where))


def _session(ctx: ExecutionState, session_id: str | None) -> str:
    return session_id or ctx.session_id or ctx.execution_id


def _parse_reading(row: Row) -> Reading:
    return msgspec.json.decode(row.value, type=Reading)


class _CachedTranscript:
    """Holds entries without gaps, enough for all versions from `least` to the last entry."""

    __slots__ = ("entries", "least", "size")

    def __init__(self, least: int, entries: list[Entry], size: int) -> None:
        self.least = least
        self.entries = entries
        self.size = size

    @property
    def version(self) -> int:
        return self.entries[-1].seq


class TranscriptReader:
    def __init__(self, transport: Transport, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._transport = transport
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[str, int], _CachedTranscript] = OrderedDict()
        """Cached transcripts by session and start, since an erased transcript may begin again."""
        self._size = 0

    def forget(self) -> None:
        """Needed after a restore of the store, or a switch to another database server."""
        self._kept.clear()
        self._size = 0

    def known(self, session_id: str, begun_at_us: int, version: int) -> Transcript | None:
        if version == 0:
            return Transcript(0, ())
        kept = self._kept.get((session_id, begun_at_us))
        if kept is None or not kept.least <= version <= kept.version:
            return None
        self._kept.move_to_end((session_id, begun_at_us))
        return shown(version, kept.entries)

    async def read(self, session_id: str, begun_at_us: int, version: int) -> Transcript:
        """Retries an unreachable server. Raises refusals, and `NotFound` for an erased transcript."""
        found = self.known(session_id, begun_at_us, version)
        if found is not None:
            return found
        place = (session_id, begun_at_us)
        kept = self._kept.get(place)
        if kept is not None and kept.version < version:
            more = await self._fetch(session_id, version, kept.version)
            if _has_all(more, version) and more[0].seq == kept.version + 1:
                entries = [*kept.entries, *more]
                self._keep(place, _CachedTranscript(kept.least, entries, kept.size + _total_size(more)))
                return shown(version, entries)
        entries = await self._fetch(session_id, version, None)
        if not _has_all(entries, version):
            raise NotFound(f"Version {version} of the transcript of session {session_id!r} is gone: it was erased.")
        if kept is None or kept.version < version:
            self._keep(place, _CachedTranscript(version, entries, _total_size(entries)))
        return shown(version, entries)

    async def _fetch(self, session_id: str, version: int, after: int | None) -> list[Entry]:
        found: list[Entry] = []
        while True:
            op = GetTranscript(session_id, version=version, after=after)
            page = await until_answered(partial(self._transport.call, op))
            found += page.entries
            after = page.next
            if after is None:
                return found

    def _keep(self, place: tuple[str, int], kept: _CachedTranscript) -> None:
        """Drops the least recently read transcripts."""
        summary = next((entry for entry in reversed(kept.entries) if entry.summary_of is not None), None)
        if summary is not None and summary.summary_of is not None and kept.entries[0].seq <= summary.summary_of:
            rest = [entry for entry in kept.entries if entry.seq > (summary.summary_of or 0)]
            kept = _CachedTranscript(summary.seq, rest, _total_size(rest))
        before = self._kept.pop(place, None)
        self._size += kept.size - (0 if before is None else before.size)
        self._kept[place] = kept
        while self._size > self._bytes_max:
            self._size -= self._kept.popitem(last=False)[1].size


def _total_size(entries: Sequence[Entry]) -> int:
    return sum(ENTRY_BYTES + memoryview(entry.message).nbytes for entry in entries)


def _has_all(entries: Sequence[Entry], version: int) -> bool:
    return bool(entries) and entries[-1].seq == version and entries[-1].seq - entries[0].seq == len(entries) - 1


class Unread:
    def __init__(
        self,
        reader: TranscriptReader,
        found: dict[int, Transcript],
        give: Callable[[Sequence[Row], bool, bool | None], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._reader = reader
        self._found = found
        self._give = give
        self._failed = failed
        self._waiting: deque[tuple[Sequence[Row], bool, bool | None]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Later rows must not overtake waiting ones."""
        return bool(self._waiting)

    def holds(self, rows: Sequence[Row], more: bool, replay: bool | None) -> bool:
        if not self._waiting and all(map(self._is_here, rows)):
            return False
        self._waiting.append((rows, more, replay))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._fetch(), context=contextvars.Context())
        return True

    def forget(self) -> None:
        self._waiting.clear()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _is_here(self, row: Row) -> bool:
        if row.kind is not Kind.TRANSCRIPT or row.name != READ or row.seq in self._found:
            return True
        said = _parse_reading(row)
        known = self._reader.known(said.session_id, said.begun_at_us, said.version)
        if known is not None:
            self._found[row.seq] = known
        return known is not None

    async def _fetch(self) -> None:
        try:
            while self._waiting:
                first = self._waiting[0]
                for row in first[0]:
                    if not self._is_here(row):
                        said = _parse_reading(row)
                        found = await self._reader.read(said.session_id, said.begun_at_us, said.version)
                        self._found[row.seq] = found
                if self._waiting and self._waiting[0] is first:
                    self._waiting.popleft()
                    self._give(*first)
        except Exception as error:  # it was erased, or refused to this worker
            logger.error("A transcript cannot be read: %s", error)
            self._waiting.clear()
            self._failed(error)
        finally:
            self._task = None
