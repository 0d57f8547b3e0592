"""What goes out to workers, and the hands of those that wait for it.

Most work is claimed by a verb of its own (`claims`). But where a worker's claim waits already, whatever makes an
execution ready can put it into that worker's hands in the same transaction: one commit and one look less.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Raw, structs

from perdure.store.interface import Counted, Tell, Written, query, query_many
from perdure.store.verbs.rows import JournalRow, Outcome, as_row, journal_after, journal_row
from perdure.wire.records import Kind, Row
from perdure.wire.requests import Claimed
from perdure.wire.status import Phase

WOKEN_ROWS_MAX = 500
WOKEN_BYTES_MAX = 1024 * 1024
"""How much of a journal goes out with what was woken; the rest is fetched by its worker."""


class Offer(NamedTuple):
    """A worker whose claim waits for work: what it could take at once."""

    worker_id: str
    deployment_id: str
    python: str
    claim_id: str
    capacity: int


class Hands:
    """The hands of a worker whose claim waits: how much they can take, and what a verb has put into them.

    Made anew in each run of a verb. What is started or woken into them is claimed at once, provided nothing else is
    ready: nobody is overtaken.
    """

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.given: list[Claimed] = []
        self.room = 0
        self._keeps = True
        self._opened = False

    async def open(self, project_id: str) -> None:
        """See whether the worker is still what it was when it offered, and whether anybody waits already."""
        if not self._opened:
            worker = await query("check_offer", worker_id=self.offer.worker_id)
            self.see(project_id, worker[0] if worker else None)

    def see(self, project_id: str, worker: Sequence[Any] | None) -> None:
        """`open`, by whoever has asked already; None: the worker is gone, or somebody has locked it."""
        self._opened = True
        offer = self.offer
        if worker is None or tuple(worker[:3]) != (project_id, offer.deployment_id, offer.python):
            return
        embedded, anything, last_claim_id = worker[3:]
        if not anything and (last_claim_id is None or last_claim_id < offer.claim_id):
            self.room = offer.capacity
            self._keeps = not embedded

    async def note(self, given: Sequence[Claimed], now_us: int) -> None:
        """Write down what was started into them."""
        rows = [journal_row(one.id, 1, now_us, Kind.CLAIMED, 1, name=self.offer.worker_id) for one in given]
        await self._note(rows)
        await Tell(Counted("claimed", len(given)))
        self.given += given

    async def wake(
        self, project_id: str, execution_id: str, now_us: int, outcome: Outcome, key: str | None, started: bytes | None
    ) -> bool:
        """Give an outcome to an execution that waits for it, parked by this worker, and claim it. False: nothing was
        done, it is another's, or there is no room. Opens the hands by the way."""
        if (self.room if self._opened else self.offer.capacity) <= 0:
            return False
        offer = self.offer
        rows = await query(
            "deliver_and_claim",
            project_id=project_id,
            id=execution_id,
            deployment_id=offer.deployment_id,
            worker_id=offer.worker_id,
            claim_id=offer.claim_id,
            python=offer.python,
            now_us=now_us,
            key=key,
            started=started,
        )
        if not rows:
            return False
        *row, embedded = rows[0]
        if not self._opened:
            self._opened, self.room, self._keeps = True, offer.capacity, not embedded
        self.room -= 1
        claimed, parked = claimed_of(row, offer.worker_id)
        seq, at_us, attempt = claimed.base, row[20], claimed.attempt
        claim = journal_row(execution_id, seq, at_us, Kind.CLAIMED, attempt, name=offer.worker_id)
        news = [outcome(seq - 1, at_us, attempt - 1), claim]
        await self._note(news)
        if seq == parked + 3:  # all that came before these is the row that says it waits
            waits = journal_row(execution_id, parked + 1, row[-1], Kind.WAITING, attempt - 1)
            found, more = [as_row(row) for row in (waits, *news)], False
        else:
            found, more = await journal_after(execution_id, parked, rows_max=WOKEN_ROWS_MAX, bytes_max=WOKEN_BYTES_MAX)
        await Tell(Counted("claimed"))
        self.given.append(with_journal(claimed, parked, found, more))
        await Tell(Written(execution_id))
        return True

    async def _note(self, rows: Sequence[JournalRow]) -> None:
        if self._keeps:  # an embedded worker's reply cannot be lost, so it never asks for the batch again
            await query("note_claim", id=self.offer.worker_id, claim_id=self.offer.claim_id)
        await query_many("insert_journal", rows)


def claimed_of(row: Sequence[Any], worker_id: str, *, again: bool = False) -> tuple[Claimed, int]:
    """What a statement has claimed, as it is handed out, and the last seq that its worker has parked (0: none)."""
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
    """The claim as it goes out, with the journal that its worker lacks."""
    return structs.replace(claimed, base=base, rows=rows, more=more)
