import msgspec

from perdure.sdk.base.errors import Outdated
from perdure.sdk.payloads.fingerprints import LATEST, only_tokens_differ, split
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.determinism_errors import side
from perdure.wire.runs.executions import Row


class LateEvents:
    __slots__ = ("rows", "waits")

    def __init__(self) -> None:
        self.waits: dict[str, DurableCall] = {}
        """Abandoned waits that an event may still meet."""
        self.rows: list[tuple[DurableCall, Row]] = []
        """Events not taken by a later wait."""

    def take(self, call: DurableCall) -> Row | None:
        for at, (wait, row) in enumerate(self.rows):
            if same_question(call, wait):
                del self.rows[at]
                return row
        return None


def same_question(call: DurableCall, other: DurableCall) -> bool:
    """Whether the event of one wait may go to the other."""
    asked = split(call.fingerprint)[0]
    if not asked or asked.startswith(LATEST):
        return False
    return (call.name, asked) == (other.name, split(other.fingerprint)[0])


class OrphanedOutcomes:
    __slots__ = ("aside", "due", "excused_until", "failed_seqs", "taken_back", "tries")

    def __init__(self) -> None:
        self.tries: dict[str, int] = {}
        self.failed_seqs: dict[int, str] = {}
        self.taken_back: dict[int, int] = {}
        """The `seq` of the `retried` row, by the `seq` of the step failure taken back."""
        self.excused_until = 0
        """Outcomes without a call before this row come from a failed attempt."""
        self.aside: dict[str, list[Row]] = {}
        self.due: list[Row] = []
        """Outcomes whose calls came later; delivered before the journal continues."""

    def other_key(self, key: str, seq: int | None = None) -> str:
        """The key is the same in every replay."""
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
        """The code has seen the rows up to `seen`."""
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

    def ask(self, call: DurableCall) -> None:
        """Deliver an outcome of the same call next; rename the call if the outcome belongs to another key."""
        while (rows := self.aside.get(call.key)) is not None:
            first = rows[0]
            same_input = only_tokens_differ(first.fingerprint, call.fingerprint)
            if first.kind is call.kind and first.name == call.name and same_input:
                self.due.extend(self.aside.pop(call.key))
                return
            call.key = self.other_key(call.key)


def taken_back_by(row: Row) -> list[int]:
    found: int | list[int] | None = msgspec.json.decode(row.value, type=int | list[int] | None)
    return found if isinstance(found, list) else [] if found is None else [found]
