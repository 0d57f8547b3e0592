"""Transcripts: the messages of a session, as a model is shown them, and the turns that add to it.

A transcript is append-only: entries are numbered from 1, and its *version* is the number of the newest. A summary is an
entry that stands for all of the transcript up to another one. So what a version holds never changes, whatever is
appended or summarized later.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Raw

MESSAGES_MAX: Final = 1_000
"""How many messages are appended, or taken, at once."""

READ: Final = "read"
APPEND: Final = "append"
SUMMARIZE: Final = "summarize"
TAKE: Final = "take"
LEAVE: Final = "leave"
"""Names of the journal's rows of kind `transcript`."""


class OnConflict(StrEnum):
    """What a turn does while another one of its session is open."""

    QUEUE = "queue"
    """It waits until those before it have ended."""
    REJECT = "reject"
    """It is not started."""
    DELIVER = "deliver"
    """It waits, too, but the one that is open may, if it is of the same workflow, take its message into its own turn;
    then it answers for both."""


class Entry(NamedTuple):
    """One entry: its number, a message of any JSON, and (of a summary) the last entry that it stands for."""

    seq: int
    message: Raw
    summary_of: int | None = None


class Page(NamedTuple):
    """Entries of a transcript at a version, as they are stored. `next` asks for what follows, None: that is all."""

    version: int
    entries: Sequence[Entry]
    next: int | None = None


class Transcript(NamedTuple):
    """What a model is shown at a version: the newest summary, if there is one, and what it does not stand for."""

    version: int
    entries: Sequence[Entry]


def shown(version: int, entries: Sequence[Entry]) -> Transcript:
    """The transcript at a version, of stored entries that have all of it (and may have older and newer ones).

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
