"""Transcripts: the messages of a session, as a model sees them, and the turns that add to them.

A transcript is append-only. Entries are numbered from 1, and the *version* is the number of the newest. A summary is an
entry that stands for the transcript up to another entry. So later messages and summaries do not change a version.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Raw

MESSAGES_MAX: Final = 1_000
"""The most messages to append or take at once."""

READ: Final = "read"
APPEND: Final = "append"
SUMMARIZE: Final = "summarize"
TAKE: Final = "take"
LEAVE: Final = "leave"
"""Names of the journal's rows of kind `transcript`."""


class OnConflict(StrEnum):
    """The policy for a turn while another turn of its session is open."""

    QUEUE = "queue"
    """It waits until the turns before it have ended."""
    REJECT = "reject"
    DELIVER = "deliver"
    """It waits. An open turn of the same workflow may take its message, and then answers for both."""


class Entry(NamedTuple):
    """One entry: its number, a message of any JSON, and for a summary the last entry that it stands for."""

    seq: int
    message: Raw
    summary_of: int | None = None


class Page(NamedTuple):
    """Stored entries of a transcript at a version. `next` asks for the following page; it is None after the last."""

    version: int
    entries: Sequence[Entry]
    next: int | None = None


class Transcript(NamedTuple):
    """A version as a model sees it: the newest summary, if any, and the entries that it does not stand for."""

    version: int
    entries: Sequence[Entry]


def shown(version: int, entries: Sequence[Entry]) -> Transcript:
    """The transcript at a version. `entries` must hold all of it, and may hold older and newer entries.

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
