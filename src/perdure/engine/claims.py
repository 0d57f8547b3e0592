"""Desk: the worker's side. Who may do what with an execution, and what a crash leaves behind.

A worker opens a *registration* and keeps its lease with beats. A *claim* hands it executions: each claim of an
execution raises its attempt, and from then on only messages with that attempt count, whatever a worker that was
frozen, cut off or replaced still sends. So a crash leaves behind nothing but a lease that runs out: the reaper hands
the work to others, and the next attempt finds in the journal every outcome that the lost one was told is recorded.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from uuid_utils import uuid7

from perdure.engine.executions import check_item
from perdure.store.verbs import claims, reports
from perdure.wire.codec import REPLY_BYTES_MAX, TOPIC_BYTES_MAX, check_json, check_name
from perdure.wire.errors import BadRequest, BadValue, LeaseLost, PerdureError
from perdure.wire.records import Kind, Problem, Row
from perdure.wire.requests import (
    BeatReply,
    BeatRequest,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    DrainRequest,
    Fail,
    ItemReply,
    Publish,
    RegisterReply,
    RegisterRequest,
    ReportItem,
    ReportReply,
    ReportRequest,
    StartChild,
    StepDone,
    Suspend,
)

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

CLAIM_MAX = 500
POLL_SECONDS_MAX = 60.0
REPORT_ITEMS_MAX = 500
JOURNAL_ROWS_MAX = 10_000


class Claims:
    """What workers may ask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._after: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._turn = 0

    async def register(self, project_id: str, request: RegisterRequest) -> RegisterReply:
        """Open a registration, or open the same one again."""
        check_name(request.deployment_id, where="deployment_id")
        for spec in request.workflows:
            check_name(spec.id, where="workflows.id")
        for queue in request.queues:
            check_name(queue.name, where="queues.name")
            for name in ("concurrency_limit", "total_limit"):
                limit = getattr(queue, name)
                if limit is not None and limit < 0:
                    raise BadValue(f"Queue {queue.name!r}: `{name}` must not be negative, got {limit}.")
        if len({spec.id for spec in request.workflows}) != len(request.workflows):
            raise BadValue("`workflows` names a workflow twice; each id stands for one function.")
        engine = self._engine
        await engine.store.write(
            claims.register(
                project_id=project_id, request=request, now_us=engine.clock.now_us(), lease_us=engine.lease_us
            )
        )
        return RegisterReply(engine.store.epoch, project_id, engine.lease_us, engine.beat_us, engine.grace_us)

    async def claim(self, project_id: str, request: ClaimRequest) -> ClaimReply:
        """Hand out work: at once when there is some, else as soon as there is, at most `wait_seconds` from now."""
        self._check_epoch(request.epoch)
        engine = self._engine
        worker_id = request.worker_id
        capacity = max(0, min(request.capacity, CLAIM_MAX))
        until = asyncio.get_running_loop().time() + min(max(request.wait_seconds, 0.0), POLL_SECONDS_MAX)
        ready, own = ("ready", project_id), ("worker", worker_id)
        while True:
            ticket, own_ticket = engine.doorbell.ticket(ready), engine.doorbell.ticket(own)
            news = engine.take_news(worker_id)
            items: list[Claimed] = []
            if capacity:
                items = await self._try(project_id, request, capacity)
                if len(items) == capacity:
                    engine.doorbell.ring_one(ready)  # there may be more for others
            left = until - asyncio.get_running_loop().time()
            if items or news or left <= 0 or engine.closing:
                return ClaimReply(items, news)
            pause = min(left, engine.settings.poll_seconds * random.uniform(0.5, 1.5))
            if not capacity:
                await engine.doorbell.wait(own, own_ticket, pause)
            else:
                await engine.doorbell.wait_either((ready, ticket), (own, own_ticket), pause)

    async def _try(self, project_id: str, request: ClaimRequest, capacity: int) -> list[Claimed]:
        engine = self._engine
        self._turn += 1
        picked, after = await engine.store.write(
            claims.claim(
                project_id=project_id,
                worker_id=request.worker_id,
                claim_id=request.claim_id,
                capacity=capacity,
                now_us=engine.clock.now_us(),
                grace_us=engine.grace_us,
                after=self._after.get(request.worker_id, ("", "")),
                limited_first=self._turn % 2 == 0,
            )
        )
        self._after[request.worker_id] = after
        self._after.move_to_end(request.worker_id)
        while len(self._after) > 10_000:
            self._after.popitem(last=False)
        if not picked:
            return []
        wanted = [(claimed.id, base) for claimed, base in picked if claimed.base > 1]
        found: Iterator[tuple[list[Row], bool]] = iter(())
        if wanted:
            found = iter(
                await engine.store.read(
                    claims.journals(wanted=wanted, rows_max=JOURNAL_ROWS_MAX, bytes_max=REPLY_BYTES_MAX)
                )
            )
        items: list[Claimed] = []
        now_us = engine.clock.now_us()
        for claimed, base in picked:
            if claimed.base > 1:
                rows, more = next(found)
                items.append(claims.with_journal(claimed, base, rows, more))
            else:  # the first claim of a fresh execution: its journal is this claim
                row = Row(1, now_us, Kind.CLAIMED, claimed.attempt, name=request.worker_id)
                items.append(claims.with_journal(claimed, 0, [row], more=False))
        return items

    async def report(self, project_id: str, request: ReportRequest) -> ReportReply:
        """Take what piled up in a worker; each item has its own answer."""
        self._check_epoch(request.epoch)
        if len(request.items) > REPORT_ITEMS_MAX:
            raise BadRequest(f"A report carries at most {REPORT_ITEMS_MAX} items, got {len(request.items)}.")
        engine = self._engine
        now_us = engine.clock.now_us()
        verbs = []
        problems: list[Problem | None] = []
        for item in request.items:
            problem = check_report(item)
            problems.append(problem)
            if problem is None:
                verbs.append(
                    reports.report(
                        project_id=project_id,
                        worker_id=request.worker_id,
                        item=item,
                        now_us=now_us,
                        ids=fresh_ids(item),
                        grace_us=engine.grace_us,
                    )
                )
        answers = iter(await engine.store.write_all(verbs))
        return ReportReply([_reply(next(answers)) if p is None else ItemReply(problem=p) for p in problems])

    async def beat(self, project_id: str, request: BeatRequest) -> BeatReply:
        """Renew a registration's lease; tells what it holds, and whether it lost everything."""
        if request.epoch != self._engine.store.epoch:
            return BeatReply(lost=True)
        held = await self._engine.store.write(
            claims.beat(
                project_id=project_id,
                worker_id=request.worker_id,
                now_us=self._engine.clock.now_us(),
                lease_us=self._engine.lease_us,
            )
        )
        return BeatReply(lost=held is None, holding=held or [])

    async def disconnected(self, worker_id: str) -> None:
        """The connection that carried the beats is gone: cut the lease to a second unless a beat follows."""
        await self._engine.store.write(
            claims.cut_lease(worker_id=worker_id, until_us=self._engine.clock.now_us() + 1_000_000)
        )
        self._engine.wake_loops()

    async def drain(self, project_id: str, request: DrainRequest) -> None:
        """End a registration; what it holds goes back at once."""
        self._check_epoch(request.epoch)
        await self._engine.store.write(
            claims.drain(project_id=project_id, worker_id=request.worker_id, now_us=self._engine.clock.now_us())
        )

    def _check_epoch(self, epoch: str) -> None:
        if epoch != self._engine.store.epoch:
            raise LeaseLost("The store was restored or replaced since this worker registered; register again.")


def _reply(answer: ItemReply | Exception) -> ItemReply:
    if isinstance(answer, PerdureError):
        return ItemReply(problem=Problem(answer.message, answer.code, answer.details))
    if isinstance(answer, Exception):
        return ItemReply(
            problem=Problem("The server failed to record this report; its log says why.", "INTERNAL_ERROR")
        )
    return answer


def fresh_ids(item: ReportItem) -> Sequence[str]:
    """One new id for each child or event that the item creates."""
    if not item.entries:
        return ()
    ids: list[str] = []
    for entry in item.entries:
        if type(entry) is StartChild:
            ids.append(str(uuid7()))
        elif type(entry) is Publish:
            ids.extend(str(uuid7()) for _ in entry.events)
    return ids


def check_report(item: ReportItem) -> Problem | None:
    """Refuse values that cannot be kept: an SDK of ours never sends them."""
    try:
        for entry in item.entries:
            if type(entry) is StepDone:
                check_json(bytes(entry.value), where=f"step {entry.key!r}")
            elif type(entry) is Publish:
                check_name(entry.topic, where="topic", max_bytes=TOPIC_BYTES_MAX)
                for event in entry.events:
                    check_json(bytes(event.data), where="event")
            elif type(entry) is StartChild:
                check_item(entry.item)
        end = item.end
        if type(end) is Complete:
            check_json(bytes(end.result), where="result")
        elif type(end) is Fail:
            check_json(bytes(end.detail), where="detail")
        elif type(end) is Suspend and len(end.waits) > 100_000:
            raise BadValue("An execution may hold at most 100,000 open waits.")
    except PerdureError as error:
        return Problem(error.message, error.code, error.details)
    return None
