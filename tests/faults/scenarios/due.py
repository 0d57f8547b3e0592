"""Thousands of timers are due at the same moment, and every server wakes them: each fires once."""

from __future__ import annotations

from tests.faults.run import Broken, ProvesTooLittle, Run
from tests.faults.stores import Peer, Peers, together
from tests.store.world import SECOND

from perdure.wire.runs.requests import StartItem, Suspend

ONCE = """
SELECT e.id FROM executions e LEFT JOIN journal j ON j.execution_id = e.id AND j.kind = 'timer' AND j.key = 't'
WHERE e.workflow_id = 'wf' GROUP BY e.id, e.phase HAVING COUNT(j.seq) <> 1 OR e.phase <> 'queued'"""


async def due(run: Run) -> None:
    amount = run.pick(1_000, 10_000, 10_000)
    async with Peers(run, 4) as peers:
        for start in range(0, amount, 500):
            await peers[0].start_all([StartItem("wf") for _ in range(min(500, amount - start))])
        at_us = peers[0].now_us + 60 * SECOND
        claimed = 0
        while claimed < amount:
            ids = await peers[0].claim_ids("w0", 500)
            claimed += len(ids)
            timer = Suspend([], ("t", at_us))
            await together(peers[0].report(id, end=timer, worker="w0", attempt=1, number=1, seen=1) for id in ids)
        early = sum([await peer.wake_due() for peer in peers])
        peers[0].advance(60)
        shares = await together(_wake(peer) for peer in peers)
    wrong = await run.database.rows(ONCE)
    run.figures["counts"] = {"timers": amount, **{f"woken by server {n}": share for n, share in enumerate(shares)}}
    if wrong or early or sum(shares) != amount:
        raise Broken(f"{early} too early, {sum(shares)} of {amount} woken, not once: {wrong[:10]}")
    if len(shares) > 1 and sorted(shares)[-2] == 0:
        raise ProvesTooLittle("one server woke them all")


async def _wake(peer: Peer) -> int:
    """Wake batch after batch until nothing is due any more; how many this server woke."""
    woken = 0
    while batch := await peer.wake_due(100):
        woken += batch
    return woken
