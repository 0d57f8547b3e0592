"""Four servers claim from queues with limits, as fast as possible: a limit holds at every moment."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.faults.run import Broken, ProvesTooLittle, Run
from tests.faults.stores import Peer, Peers, restart, together, yields
from tests.store.world import RELEASE, SECOND, failure, raw

from perdure.wire.runs.requests import Claimed, Complete, Fail, QueueSpec, Release, StartItem, Suspend

QUEUES = [QueueSpec("by key", concurrency_limit=5), QueueSpec("in all", total_limit=5), QueueSpec("both", 2, 5)]
KEYS = 4
ENDS_HOLDING = "('released', 'retried', 'waiting', 'blocked', 'lost', 'completed', 'failed', 'cancelled')"

# By the moments at which transactions were committed, not by what anybody's clock said: how many of a group were held
# right after each claim.
MOST = f"""
SELECT queue_name, MAX(of_key), MAX(of_queue) FROM (
  SELECT queue_name,
    SUM(held) OVER (PARTITION BY queue_name, concurrency_key ORDER BY at, held) AS of_key,
    SUM(held) OVER (PARTITION BY queue_name ORDER BY at, held) AS of_queue
  FROM (
    SELECT e.queue_name, e.concurrency_key, pg_xact_commit_timestamp(j.xmin) AS at,
      CASE WHEN j.kind = 'claimed' THEN 1 ELSE -1 END AS held
    FROM journal j JOIN executions e ON e.id = j.execution_id
    WHERE j.kind = 'claimed' OR j.kind IN {ENDS_HOLDING}) AS changes) AS sums
GROUP BY queue_name ORDER BY queue_name"""
NOW = """
SELECT queue_name, MAX(n), SUM(n) FROM (SELECT queue_name, COUNT(*) AS n FROM executions
  WHERE phase IN ('running', 'cancelling') GROUP BY queue_name, concurrency_key) AS held GROUP BY queue_name"""


class _Slots:
    """Executions surely held: from the answer to a claim until the ending report is sent."""

    def __init__(self) -> None:
        self.held: Counter[tuple[str, str | None]] = Counter()
        self.claims = 0
        self.full = 0
        """How often a claim filled a limit."""
        self.wrong: list[str] = []

    def take(self, claimed: Claimed) -> None:
        self.claims += 1
        queue = claimed.queue_name or ""
        for group in ((queue, claimed.concurrency_key), (queue, "all")):
            self.held[group] += 1
            limit = _limit(*group)
            if limit is not None:
                self.full += self.held[group] == limit
                if self.held[group] > limit:
                    self.wrong.append(f"{self.held[group]} of {limit} run in {group}")

    def give_back(self, claimed: Claimed) -> None:
        for key in (claimed.concurrency_key, "all"):
            self.held[claimed.queue_name or "", key] -= 1


def _limit(queue: str, key: str | None) -> int | None:
    spec = next(one for one in QUEUES if one.name == queue)
    return spec.total_limit if key == "all" else spec.concurrency_limit


async def limits(run: Run) -> None:
    postgres = run.database.servers_max > 1
    wanted = run.pick(1_500, 10_000, 100_000 if postgres else 20_000)
    if postgres:
        await restart(run, track_commit_timestamp="on")
    slots = _Slots()
    looks = 0
    async with Peers(run, 4, QUEUES) as peers:
        executions = wanted * 10 // 12  # about three in ten come back once
        for start in range(0, executions, 500):
            await peers[0].start_all(
                [
                    StartItem("wf", queue_name=QUEUES[n % 3].name, concurrency_key=f"k{n // 3 % KEYS}")
                    for n in range(start, min(start + 500, executions))
                ]
            )
        left = [executions]
        serving = asyncio.gather(*[_serve(run, peer, slots, left) for peer in peers])
        while not serving.done():
            for queue, most_of_key, of_queue in await run.database.rows(NOW):
                _compare(slots.wrong, queue, most_of_key, of_queue)
            looks += 1
            await asyncio.sleep(0.05)
        await serving
    if postgres:
        for queue, most_of_key, most_of_queue in await run.database.rows(MOST):
            run.figures[f"most at any moment in {queue!r}"] = f"{most_of_key} of a key, {most_of_queue} in all"
            _compare(slots.wrong, queue, most_of_key, most_of_queue)
    run.figures["counts"] = {"claims": slots.claims, "filled a limit": slots.full, "looks at the database": looks}
    if slots.wrong:
        raise Broken("\n".join(slots.wrong[:10]))
    if slots.claims < wanted or slots.full < slots.claims // 10:
        raise ProvesTooLittle("the limits were hardly met")


def _compare(wrong: list[str], queue: str, of_key: int, of_queue: int) -> None:
    for held, limit in ((of_key, _limit(queue, None)), (of_queue, _limit(queue, "all"))):
        if limit is not None and held > limit:
            wrong.append(f"the database has {held} of {limit} running in {queue!r}")


async def _serve(run: Run, peer: Peer, slots: _Slots, left: list[int]) -> None:
    """A server and its worker: claim all claimable executions, and end each in a random way."""
    reports: set[asyncio.Task[None]] = set()
    while left[0] > 0:
        found = await peer.claim(peer.worker, run.chance.choice((1, 3, 20)))
        for claimed in found:
            slots.take(claimed)
            task = asyncio.create_task(_end(run, peer, slots, claimed, left))
            reports.add(task)
            task.add_done_callback(reports.discard)
        if not found:
            await peer.wake_due()
            await asyncio.sleep(0.001)
    await together(_joined(task) for task in list(reports))


async def _joined(task: asyncio.Task[None]) -> None:
    await task


async def _end(run: Run, peer: Peer, slots: _Slots, claimed: Claimed, left: list[int]) -> None:
    await yields(run.chance, 30)
    end: Complete | Fail | Release | Suspend = Complete(raw(1))
    if claimed.attempt == 1:
        end = run.chance.choice(
            (*[end] * 7, RELEASE, failure(retry_delay_us=0), Suspend([], ("t", peer.now_us - SECOND)))
        )
    slots.give_back(claimed)
    seen = claimed.base + len(claimed.rows)
    reply = await peer.report(claimed.id, end=end, worker=peer.worker, attempt=claimed.attempt, number=1, seen=seen)
    assert reply.ended, (claimed, end, reply)
    left[0] -= type(end) is Complete
