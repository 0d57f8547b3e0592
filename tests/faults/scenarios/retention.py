"""Two servers delete executions that ended long ago while other connections write: no transaction is long, and no
living or just ended execution is deleted."""

from __future__ import annotations

import asyncio
import time

from tests.faults.run import Broken, ProvesTooLittle, Run, spread
from tests.faults.stores import Peer, Peers, together, yields
from tests.store.world import event_wait, raw, step

from perdure.store.verbs import retention as verbs
from perdure.wire.runs.requests import Complete, StartItem, Suspend

DAY_US = 86_400_000_000
DAYS = 30
OPEN_FOR = """
SELECT COALESCE(MAX(EXTRACT(EPOCH FROM clock_timestamp() - xact_start)), 0)::FLOAT8,
  COUNT(*) FILTER (WHERE wait_event_type = 'Lock')
FROM pg_stat_activity WHERE application_name LIKE 'perdure %' AND datname = current_database()"""


async def retention(run: Run) -> None:
    old = run.pick(600, 5_000, 20_000)
    live = run.pick(100, 500, 1_000)
    async with Peers(run, 2) as peers:
        await _lives(peers[0], old, steps=3)
        await _lives(peers[0], 4, steps=run.pick(500, 5_000, 15_000))
        waiting = await _waiting(peers[0], live)
        peers[0].advance((DAYS + 1) * 86_400)
        young = await _lives(peers[0], live, steps=1)
        stop = asyncio.Event()
        took: list[float] = []
        writers = [asyncio.create_task(_write(run, peer, stop, took)) for peer in peers for _ in range(4)]
        watching = asyncio.create_task(_watch(run, stop))
        pruned = await together(_prune(peer) for peer in peers)
        stop.set()
        written = sum([len(await writer) for writer in writers])
        longest, waits = await watching
        kept = {id for (id,) in await run.database.rows("SELECT id FROM executions")}
        for id in waiting:  # they live on
            await peers[-1].publish(f"for {id}", 1)
        assert set(await _claimed(peers[0], live)) == set(waiting)
    run.figures["counts"] = {"deleted": sum(pruned), "written meanwhile": written, "kept": len(kept)}
    run.figures["start, claim, step and end of one meanwhile"] = spread(took)
    if run.database.servers_max > 1:
        run.figures["the longest transaction"] = f"{longest:.2f} s, {waits} looks saw somebody wait for a lock"
    lost = [id for id in (*waiting, *young) if id not in kept]
    if lost:
        raise Broken(f"{len(lost)} that live or are young were deleted: {lost[:5]}")
    if len(kept) != len(waiting) + len(young) + written or sum(pruned) < old:
        raise Broken(f"{len(kept)} are left of {len(waiting)} waiting, {len(young)} young and {written} written")
    if not written:
        raise ProvesTooLittle("nothing was written meanwhile")


async def _lives(peer: Peer, amount: int, *, steps: int) -> list[str]:
    """Executions from their start to their end."""
    done: list[str] = []
    for start in range(0, amount, 100):
        ids = await peer.start_all([StartItem("wf") for _ in range(min(100, amount - start))])
        assert set(await _claimed(peer, len(ids))) == set(ids)
        rows = [step(f"s{n}", "x" * 100) for n in range(steps)]
        await together(peer.report(id, rows, worker=peer.worker, attempt=1, number=1, seen=1) for id in ids)
        end = Complete(raw("x" * 100))
        await together(peer.report(id, end=end, worker=peer.worker, attempt=1, number=2, seen=1) for id in ids)
        done += ids
    return done


async def _waiting(peer: Peer, amount: int) -> list[str]:
    """Equally old executions that still wait."""
    ids = await peer.start_all([StartItem("wf") for _ in range(amount)])
    assert set(await _claimed(peer, amount)) == set(ids)
    await together(
        peer.report(
            id, [event_wait("k", f"for {id}")], Suspend(["k"], None), worker=peer.worker, attempt=1, number=1, seen=1
        )
        for id in ids
    )
    return ids


async def _claimed(peer: Peer, amount: int) -> list[str]:
    ids: list[str] = []
    while len(ids) < amount:
        found = await peer.claim_ids(peer.worker, 500)
        assert found, f"{amount - len(ids)} of {amount} are not there"
        ids += found
    return ids


async def _write(run: Run, peer: Peer, stop: asyncio.Event, took: list[float]) -> list[str]:
    """Whole lives, one after the other, and events."""
    done: list[str] = []
    worker = f"{peer.worker}-{id(took)}-{run.chance.random()}"
    deployment = worker
    await peer.register(worker, deployment=deployment, embedded=True)
    while not stop.is_set():
        began = time.perf_counter()
        item = StartItem("wf", deployment_id=deployment)
        [execution] = await peer.start_all([item])
        assert await peer.claim_ids(worker, 1) == [execution]
        await peer.report(execution, [step("s", 1)], worker=worker, attempt=1, number=1, seen=1)
        await peer.report(execution, end=Complete(raw(1)), worker=worker, attempt=1, number=2, seen=1)
        took.append(time.perf_counter() - began)
        await peer.publish("news", len(done))
        done.append(execution)
        await yields(run.chance)
    return done


async def _prune(peer: Peer) -> int:
    """Prune like a server's loop, without pauses. Returns how much was deleted."""
    total, after, more = 0, ("", ""), True
    while more:
        deleted, after, more = await peer.store.write(
            verbs.prune(
                after=after,
                finished_before_us=peer.now_us - DAYS * DAY_US,
                idempotency_before_us=peer.now_us - DAY_US,
                now_us=peer.now_us,
                limit=500,
            )
        )
        total += deleted
    return total


async def _watch(run: Run, stop: asyncio.Event) -> tuple[float, int]:
    """The longest transaction seen, and how often a transaction waited for a lock."""
    longest, waits = 0.0, 0
    while run.database.servers_max > 1 and not stop.is_set():
        [[seconds, waiting]] = await run.database.rows(OPEN_FOR)
        longest, waits = max(longest, seconds), waits + (waiting > 0)
        await asyncio.sleep(0.02)
    return longest, waits
