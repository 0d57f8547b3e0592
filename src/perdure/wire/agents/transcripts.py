"""Transcripts: the messages of a session, as a model sees them.

A summary is an entry, so later messages and summaries do not change a version.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, Final, NamedTuple

from msgspec import Raw

from perdure.wire.base.access import Role
from perdure.wire.base.codec import check_json
from perdure.wire.base.fields import Int64, KeyName, MaxItems, Position, between, count_check
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record

MESSAGES_MAX: Final = 1_000

READ: Final = "read"
APPEND: Final = "append"
SUMMARIZE: Final = "summarize"
TAKE: Final = "take"
LEAVE: Final = "leave"
"""Journal rows of kind `transcript` have this `name`."""


class OnConflict(StrEnum):
    QUEUE = "queue"
    """The new turn waits until the turns before have ended."""
    REJECT = "reject"
    DELIVER = "deliver"
    """The new turn waits. An open turn of the same workflow may take the new turn's message and then answers for
    both."""


class Entry(Record, frozen=True):
    """A summary replaces the entries up to `summary_of` and older summaries."""

    shown_as: ClassVar[str] = "TranscriptEntryResponse"

    seq: int
    message: Raw
    """Any JSON."""
    summary_of: int | None = None


class Page(Record, frozen=True):
    """`next` is the `after` of the following page, or null at the end."""

    shown_as: ClassVar[str] = "TranscriptResponse"

    version: int
    entries: list[Entry]
    next: int | None = None


class NewVersion(Record, frozen=True):
    """The version after the request."""

    shown_as: ClassVar[str] = "AppendMessagesResponse"

    version: Int64


class Transcript(NamedTuple):
    """The newest summary, if any, and the entries after `summary_of`."""

    version: int
    entries: Sequence[Entry]


def shown(version: int, entries: Sequence[Entry]) -> Transcript:
    """Return the transcript at a version. `entries` may hold more than the transcript, but must hold all of it.

    >>> entries = [Entry(1, Raw(b'"a"')), Entry(2, Raw(b'"b"')), Entry(3, Raw(b'"so far"'), 1), Entry(4, Raw(b'"c"'))]
    >>> [bytes(entry.message) for entry in shown(4, entries).entries]
    [b'"so far"', b'"b"', b'"c"']
    >>> [entry.seq for entry in shown(2, entries).entries]
    [1, 2]
    """
    known = [entry for entry in entries if entry.seq <= version]
    summary = next((entry for entry in reversed(known) if entry.summary_of is not None), None)
    if summary is None or summary.summary_of is None:
        return Transcript(version, known)
    rest = [entry for entry in known if entry.summary_of is None and entry.seq > summary.summary_of]
    return Transcript(version, [summary, *rest])


def check_messages(messages: list[Raw], where: str) -> list[Raw]:
    """Raises BadValue for messages out of bounds."""
    count_check(MESSAGES_MAX)(messages, where)
    for n, message in enumerate(messages):
        check_json(bytes(message), where=f"{where}[{n}]")
    return messages


EntryNumber = Annotated[Position, between(0, (1 << 62) - 1)]

transcripts: Final = Noun("Sessions")


@transcripts.get("/internal/session/{session_id}/transcript")
class GetTranscript(Operation[Page], frozen=True):
    """The entries of a session's transcript at a version, a page at a time."""

    session_id: KeyName
    version: EntryNumber | None = None
    """Default: the newest version."""
    after: EntryNumber | None = None
    """Start behind this entry. Default: start with the first entry that the version needs."""


@transcripts.post(
    "/internal/session/{session_id}/transcript",
    role=Role.WORK,
    name="append_messages",
    idempotent=True,
    body="AppendMessagesRequest",
)
class AppendToTranscript(Operation[NewVersion], frozen=True):
    """Add messages to the end of a session's transcript.

    409 if `version` is no longer the newest.
    """

    session_id: KeyName
    messages: Annotated[list[Raw], MaxItems(MESSAGES_MAX), check_messages]
    """Any JSON values."""
    version: Position | None = None
    """Append only if this version is the newest."""
