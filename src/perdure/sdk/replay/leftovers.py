"""Outcomes that come when nobody waits for them: events of waits given up, and what failed attempts left behind."""

import msgspec

from perdure.sdk.errors import Outdated
from perdure.sdk.payloads.fingerprints import LATEST
from perdure.sdk.replay.calls import Call
from perdure.sdk.replay.complaints import side
from perdure.sdk.replay.places import is_captured
from perdure.wire.records import Row


class LateEvents:
    """Events that met waits which the code had given up."""

    __slots__ = ("rows", "waits")

    def __init__(self) -> None:
        self.waits: dict[str, Call] = {}
        """Waits that were given up and may still be met."""
        self.rows: list[tuple[Call, Row]] = []
        """Events that nobody has asked for again yet, in their order."""

    def take(self, call: Call) -> Row | None:
        for at, (wait, row) in enumerate(self.rows):
            if same_question(call, wait):
                del self.rows[at]
                return row
        return None


def same_question(call: Call, other: Call) -> bool:
    """Whether the event of one of two waits may go to the other."""
    asked = call.fingerprint
    if asked is None or asked.startswith(LATEST):
        return False
    return (call.name, asked) == (other.name, other.fingerprint)


class Leftovers:
    """What failed tries and attempts left in the journal."""

    __slots__ = ("aside", "due", "excused_until", "failed_seqs", "taken_back", "tries")

    def __init__(self) -> None:
        self.tries: dict[str, int] = {}
        """By step key, how many tries have failed."""
        self.failed_seqs: dict[int, str] = {}
        self.taken_back: dict[int, int] = {}
        """By `seq` of a step failure that was taken back, the `seq` of the `retried` row that did it."""
        self.excused_until = 0
        """Before this row, outcomes that nobody asks for are what a failed attempt left behind."""
        self.aside: dict[str, list[Row]] = {}
        """Those outcomes, by key."""
        self.due: list[Row] = []
        """Those that were asked for since: delivered next, before the journal goes on."""

    def other_key(self, key: str, seq: int | None = None) -> str:
        """A key for a call whose own is taken by what a failed attempt left behind: the same in every replay."""
        return f"{key}@{self.aside[key][0].seq if seq is None else seq}"

    def free_key(self, key: str) -> str:
        while key in self.aside:
            key = self.other_key(key)
        return key

    def note_failed(self, row: Row) -> None:
        assert row.key is not None
        self.tries[row.key] = row.tries or self.tries.get(row.key, 0) + 1
        self.failed_seqs[row.seq] = row.key
        self.excused_until = max(self.excused_until, self.taken_back.get(row.seq, 0))

    def note_taken_back(self, taken: int, row: Row, seen: int) -> None:
        """The `retried` row takes back the step failure `taken`; the code has seen the rows up to `seen`."""
        self.taken_back[taken] = row.seq
        if taken > seen:
            return
        if taken not in self.failed_seqs:
            raise Outdated(
                f"Row {taken} was taken back after this parked execution had seen it; replay it from its first row.",
                seq=row.seq,
                recorded=side(row.kind, row.key, row.name),
            )
        self.excused_until = max(self.excused_until, row.seq)

    def forget_tries(self, taken: int) -> None:
        self.tries.pop(self.failed_seqs[taken], None)

    def excuses(self, row: Row) -> bool:
        return row.seq < self.excused_until

    def ask(self, call: Call) -> None:
        """A failed attempt has left an outcome under this key: it is delivered next, if it is of the same call."""
        while (rows := self.aside.get(call.key)) is not None:
            first = rows[0]
            same_input = first.fingerprint == call.fingerprint or is_captured(call.fingerprint)
            if first.kind is call.kind and first.name == call.name and same_input:
                self.due.extend(self.aside.pop(call.key))
                return
            call.key = self.other_key(call.key)


def taken_back_by(row: Row) -> list[int]:
    """The step failures that a `retried` row takes back, by their `seq`."""
    found: int | list[int] | None = msgspec.json.decode(row.value, type=int | list[int] | None)
    return found if isinstance(found, list) else [] if found is None else [found]
