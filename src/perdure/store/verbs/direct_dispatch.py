"""Direct dispatch: give work to a waiting claim, and build claims for workers.

Most work is claimed by its own verb (`claims`). If a claim waits already, the transaction that makes an execution ready
can claim it as well. That saves a commit and a query.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Raw, structs

from perdure.store.interface import Metric, Notify, Written, query, query_many
from perdure.store.verbs.rows import JournalRow, Outcome, as_row, journal_after, journal_row
from perdure.wire.executions import Row
from perdure.wire.records import Kind
from perdure.wire.requests import Claimed
from perdure.wire.status import Phase

WOKEN_ROWS_MAX = 500
WOKEN_BYTES_MAX = 1024 * 1024
"""How much of a woken execution's journal goes out; its worker fetches the rest."""


class WaitingClaim(NamedTuple):
    """A waiting claim: the worker and what it could take."""

    worker_id: str
    deployment_id: str
    python: str
    claim_id: str
    capacity: int


class DirectDispatch:
    """The room of a waiting claim, and the executions that a verb has given to it.

    Each run of a verb makes its own. It claims an execution at once only if no other execution is ready, so none is
    overtaken.
    """

    def __init__(self, waiting_claim: WaitingClaim) -> None:
        self.waiting_claim = waiting_claim
        self.given: list[Claimed] = []
        self.room = 0
        self._keeps = True
        self._opened = False

    async def open(self, project_id: str) -> None:
        """Check that the worker is unchanged since its claim, and that no execution is ready already."""
        if not self._opened:
            worker = await query("check_waiting_claim", worker_id=self.waiting_claim.worker_id)
            self.see(project_id, worker[0] if worker else None)

    def see(self, project_id: str, worker: Sequence[Any] | None) -> None:
        """`open`, if the caller has read the worker; None: it is gone or locked."""
        self._opened = True
        waiting_claim = self.waiting_claim
        if worker is None or tuple(worker[:3]) != (project_id, waiting_claim.deployment_id, waiting_claim.python):
            return
        embedded, anything, last_claim_id = worker[3:]
        if not anything and (last_claim_id is None or last_claim_id < waiting_claim.claim_id):
            self.room = waiting_claim.capacity
            self._keeps = not embedded

    async def note(self, given: Sequence[Claimed], now_us: int) -> None:
        rows = [journal_row(one.id, 1, now_us, Kind.CLAIMED, 1, name=self.waiting_claim.worker_id) for one in given]
        await self._note(rows)
        await Notify(Metric("claimed", len(given)))
        self.given += given

    async def wake(
        self, project_id: str, execution_id: str, now_us: int, outcome: Outcome, key: str | None, started: bytes | None
    ) -> bool:
        """Deliver an outcome to a waiting execution that this worker has parked, and claim it.

        False: it did nothing; the execution belongs to another worker, or the room is full. Calls `open` if needed.
        """
        if (self.room if self._opened else self.waiting_claim.capacity) <= 0:
            return False
        waiting_claim = self.waiting_claim
        rows = await query(
            "deliver_and_claim",
            project_id=project_id,
            id=execution_id,
            deployment_id=waiting_claim.deployment_id,
            worker_id=waiting_claim.worker_id,
            claim_id=waiting_claim.claim_id,
            python=waiting_claim.python,
            now_us=now_us,
            key=key,
            started=started,
        )
        if not rows:
            return False
        *row, embedded = rows[0]
        if not self._opened:
            self._opened, self.room, self._keeps = True, waiting_claim.capacity, not embedded
        self.room -= 1
        claimed, parked = to_claimed(row, waiting_claim.worker_id)
        seq, at_us, attempt = claimed.base, row[20], claimed.attempt
        claim = journal_row(execution_id, seq, at_us, Kind.CLAIMED, attempt, name=waiting_claim.worker_id)
        news = [outcome(seq - 1, at_us, attempt - 1), claim]
        await self._note(news)
        if seq == parked + 3:  # the row before these is the one that says it waits
            waits = journal_row(execution_id, parked + 1, row[-1], Kind.WAITING, attempt - 1)
            found, more = [as_row(row) for row in (waits, *news)], False
        else:
            found, more = await journal_after(execution_id, parked, rows_max=WOKEN_ROWS_MAX, bytes_max=WOKEN_BYTES_MAX)
        await Notify(Metric("claimed"))
        self.given.append(with_journal(claimed, parked, found, more))
        await Notify(Written(execution_id))
        return True

    async def _note(self, rows: Sequence[JournalRow]) -> None:
        if self._keeps:  # an embedded worker's reply cannot be lost, so it never asks for the batch again
            await query("note_claim", id=self.waiting_claim.worker_id, claim_id=self.waiting_claim.claim_id)
        await query_many("insert_journal", rows)


def to_claimed(row: Sequence[Any], worker_id: str, *, again: bool = False) -> tuple[Claimed, int]:
    """A claimed row as a claim, and the last seq that its worker has parked (0: none)."""
    (
        id,
        workflow_id,
        attempt,
        payload,
        created_at_us,
        seq,
        lost,
        retry_count,
        phase,
        key,
        queue_name,
        concurrency_key,
        parent_id,
        root_id,
        deployment_id,
        session_id,
        user_id,
        tags,
        parked_worker,
        parked_seq,
        at_us,
        budgeted,
        _,
        _,
    ) = row
    parked = parked_seq if parked_worker == worker_id and parked_seq is not None and not again else 0
    claimed = Claimed(
        id=id,
        workflow_id=workflow_id,
        attempt=attempt,
        payload=Raw(payload),
        created_at_us=created_at_us,
        # The whole journal of a fresh execution is this claim.
        rows=[Row(seq, at_us, Kind.CLAIMED, attempt, name=worker_id)] if seq == 1 else [],
        base=seq if seq > 1 else 0,
        ack_first=lost > 0 or again,  # the server whose answer was lost may take it back meanwhile
        retry_count=retry_count,
        cancelling=phase == Phase.CANCELLING,
        key=key,
        queue_name=queue_name,
        concurrency_key=concurrency_key,
        parent_execution_id=parent_id,
        root_execution_id=root_id,
        deployment_id=deployment_id,
        session_id=session_id or id,
        user_id=user_id,
        tags=None if tags is None else Raw(tags),
        budgeted=budgeted is not None,
    )
    return claimed, parked


def with_journal(claimed: Claimed, base: int, rows: list[Row], more: bool) -> Claimed:
    return structs.replace(claimed, base=base, rows=rows, more=more)
