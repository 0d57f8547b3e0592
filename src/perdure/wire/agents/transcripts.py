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
"""Appended or taken at once."""

READ: Final = "read"
APPEND: Final = "append"
SUMMARIZE: Final = "summarize"
TAKE: Final = "take"
LEAVE: Final = "leave"
"""The `name` of journal rows of kind `transcript`."""


class OnConflict(StrEnum):
    QUEUE = "queue"
    """It waits until the turns before it have ended."""
    REJECT = "reject"
    DELIVER = "deliver"
    """It waits. An open turn of the same workflow may take its message, and then answers for both."""


class Entry(Record, frozen=True):
    """A summary stands for every entry up to `summary_of`, and for summaries before it."""

    shown_as: ClassVar[str] = "TranscriptEntryResponse"

    seq: int
    message: Raw
    """Any JSON."""
    summary_of: int | None = None


class Page(Record, frozen=True):
    """`next` is the `after` of the following page, if there is one."""

    shown_as: ClassVar[str] = "TranscriptResponse"

    version: int
    entries: list[Entry]
    next: int | None = None


class NewVersion(Record, frozen=True):
    """The version that the request made."""

    shown_as: ClassVar[str] = "AppendMessagesResponse"

    version: Int64


class Transcript(NamedTuple):
    """The newest summary, if any, and the entries that it does not stand for."""

    version: int
    entries: Sequence[Entry]


def shown(version: int, entries: Sequence[Entry]) -> Transcript:
    """The transcript at a version. `entries` must hold all of it, and may hold more.

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
    """Raises BadValue."""
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
    """Left out: the newest."""
    after: EntryNumber | None = None
    """Behind this entry; left out: from the first one that the version needs."""


@transcripts.post(
    "/internal/session/{session_id}/transcript",
    role=Role.WORK,
    name="append_messages",
    idempotent=True,
    body="AppendMessagesRequest",
)
class AppendToTranscript(Operation[NewVersion], frozen=True):
    """Add messages to the end of a session's transcript.

    409: `version` is not the newest any more.
    """

    session_id: KeyName
    messages: Annotated[list[Raw], MaxItems(MESSAGES_MAX), check_messages]
    """Each is any JSON."""
    version: Position | None = None
    """Only if this is the newest."""
