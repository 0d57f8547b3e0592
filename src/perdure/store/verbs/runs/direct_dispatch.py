"""Direct dispatch: give work to a waiting claim, which saves a commit and a query."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct, structs

from perdure.store.base.executions import JournalRow, StoredWorker
from perdure.store.base.interface import Metric, Notify, Written, query, query_many, record
from perdure.store.verbs.runs.rows import Outcome, journal_after
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Claimed

WOKEN_ROWS_MAX = 500
WOKEN_BYTES_MAX = 1024 * 1024
"""The worker fetches the rest of a woken execution's journal."""


class WaitingClaim(NamedTuple):
    worker_id: str
    deployment_id: str
    python: str
    claim_id: str
    capacity: int
    protocol: int = 1


class HandedOut(Struct, frozen=True, gc=False):
    """An execution given to a claim. `seq` and `at_us` are from the claim's row."""

    claimed: Claimed
    seq: int
    at_us: int
    parked_worker: str | None
    parked_seq: int | None
    rank: int
    ready_at_us: int
    embedded: bool = False
    """The worker's reply cannot be lost."""

    def to_claimed(self, worker_id: str, *, again: bool = False) -> tuple[Claimed, int]:
        """Return the claim, and the last seq that the worker has parked (0: none)."""
        parked = 0 if again or self.parked_worker != worker_id else self.parked_seq or 0
        attempt = self.claimed.attempt
        claimed = structs.replace(
            self.claimed,
            # The whole journal of a fresh execution is this claim.
            rows=[Row(1, self.at_us, Kind.CLAIMED, attempt, name=worker_id)] if self.seq == 1 else [],
            base=self.seq if self.seq > 1 else 0,
            ack_first=self.claimed.ack_first or again,  # the server whose answer was lost may take it back meanwhile
        )
        return claimed, parked


class DirectDispatch:
    """The room of a waiting claim, in one run of a verb."""

    def __init__(self, waiting_claim: WaitingClaim) -> None:
        self.waiting_claim = waiting_claim
        self.given: list[Claimed] = []
        self.room = 0
        self._keeps = True
        self._opened = False

    async def open(self, project_id: str) -> None:
        """Check that the worker is unchanged since the claim, and that no ready execution would be overtaken."""
        if not self._opened:
            worker = await record(StoredWorker, "check_waiting_claim", worker_id=self.waiting_claim.worker_id)
            self.see(project_id, worker)

    def see(self, project_id: str, worker: StoredWorker | None) -> None:
        """Check like `open`, with a worker that the caller has read; None: the worker is gone or locked."""
        self._opened = True
        mine = self.waiting_claim
        if worker is None or worker.anything or (worker.last_claim_id or "") >= mine.claim_id:
            return
        place = worker.project_id, worker.deployment_id, worker.python
        if place == (project_id, mine.deployment_id, mine.python):
            self.room = mine.capacity
            self._keeps = not worker.embedded

    async def note(self, given: Sequence[Claimed], now_us: int) -> None:
        rows = [JournalRow(one.id, 1, now_us, Kind.CLAIMED, 1, name=self.waiting_claim.worker_id) for one in given]
        await self._note(rows)
        await Notify(Metric("claimed", len(given)))
        self.given += given

    async def wake(
        self,
        project_id: str,
        execution_id: str,
        now_us: int,
        outcome: Outcome,
        *,
        key: str | None,
        started: bytes | None,
    ) -> bool:
        """Deliver an outcome to an execution that this worker has parked, and claim it. False: another worker has
        parked the execution, or the room is full."""
        if (self.room if self._opened else self.waiting_claim.capacity) <= 0:
            return False
        waiting_claim = self.waiting_claim
        row = await record(
            HandedOut,
            "deliver_and_claim",
            project_id=project_id,
            id=execution_id,
            deployment_id=waiting_claim.deployment_id,
            worker_id=waiting_claim.worker_id,
            claim_id=waiting_claim.claim_id,
            python=waiting_claim.python,
            protocol=waiting_claim.protocol,
            now_us=now_us,
            key=key,
            started=started,
        )
        if row is None:
            return False
        if not self._opened:
            self._opened, self.room, self._keeps = True, waiting_claim.capacity, not row.embedded
        self.room -= 1
        claimed, parked = row.to_claimed(waiting_claim.worker_id)
        seq, at_us, attempt = row.seq, row.at_us, claimed.attempt
        claim = JournalRow(execution_id, seq, at_us, Kind.CLAIMED, attempt, name=waiting_claim.worker_id)
        news = [outcome(seq - 1, at_us, attempt - 1), claim]
        await self._note(news)
        if seq == parked + 3:  # the row before these is the one that says it waits
            waits = JournalRow(execution_id, parked + 1, row.ready_at_us, Kind.WAITING, attempt - 1)
            found, more = [one.to_row() for one in (waits, *news)], False
        else:
            found, more = await journal_after(execution_id, parked, rows_max=WOKEN_ROWS_MAX, bytes_max=WOKEN_BYTES_MAX)
        await Notify(Metric("claimed"))
        self.given.append(with_journal(claimed, parked, found, more))
        await Notify(Written(execution_id))
        return True

    async def _note(self, rows: Sequence[JournalRow]) -> None:
        if self._keeps:  # an embedded worker never asks for the batch again
            await query("note_claim", id=self.waiting_claim.worker_id, claim_id=self.waiting_claim.claim_id)
        await query_many("insert_journal", rows)


def with_journal(claimed: Claimed, base: int, rows: list[Row], more: bool) -> Claimed:
    return structs.replace(claimed, base=base, rows=rows, more=more)
