"""An execution begins to wait at the very moment at which what it waits for happens, on another connection."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.faults.run import Broken, ProvesTooLittle, Run
from tests.faults.stores import Peer, Peers, together, yields
from tests.store.world import answer_wait, child, event_wait, raw

from perdure.wire.runs.requests import Complete, ItemReply, StartItem, Suspend

WAVE = 300
KINDS = ("event", "answer", "child")


async def races(run: Run) -> None:
    wanted = run.pick(900, 9_000, 100_000 if run.database.servers_max > 1 else 30_000)
    done: Counter[str] = Counter()
    async with Peers(run, 2) as peers:
        n = 0
        while done.total() < wanted:
            kind = KINDS[n % len(KINDS)]
            for what in await _wave(run, peers, kind, n):
                done[f"{kind}: {what}"] += 1
            n += 1
        waiting = await run.database.rows("SELECT phase, COUNT(*) FROM executions GROUP BY phase")
        told = await run.database.rows(
            "SELECT kind, COUNT(*) FROM journal WHERE kind IN ('event', 'resume', 'child') GROUP BY kind"
        )
    counts = run.figures["counts"] = dict(sorted(done.items()))
    run.figures["stuck"] = sum(count for phase, count in waiting if phase != "completed")
    if run.figures["stuck"]:
        raise Broken(f"not everything has ended: {waiting}")
    if sum(count for _, count in told) != done.total():
        raise Broken(f"{done.total()} races left {told}")
    if run.database.servers_max > 1 and (len(counts) < 6 or min(counts.values()) < done.total() // 200):
        raise ProvesTooLittle(f"one order hardly ever happened: {counts}")


async def _wave(run: Run, peers: list[Peer], kind: str, n: int) -> list[str]:
    """Run races of the same kind at once, and end all executions. Returns how each race went."""
    ids = await _running(peers[0], WAVE)
    below: dict[str, str] = {}
    if kind == "child":
        await together(peers[i % len(peers)].report(id, [child("kid")], worker="w0") for i, id in enumerate(ids))
        for claimed in await peers[1 % len(peers)].claim(peers[-1].worker, WAVE):
            assert claimed.parent_execution_id is not None
            below[claimed.parent_execution_id] = claimed.id
        assert below.keys() == set(ids)
    replies = await together(_race(run, peers, kind, id, f"{n}-{i}", below.get(id)) for i, id in enumerate(ids))
    rest = [id for id, reply in zip(ids, replies, strict=True) if not reply.ended]
    woken: list[str] = []
    while len(woken) + len(rest) < len(ids):  # whoever was suspended is woken by now: all of them come at once
        found = await peers[0].claim_ids("w0", 500)
        if not found:
            raise Broken(f"{len(ids) - len(woken) - len(rest)} of {len(ids)} that wait for their {kind} are stuck")
        woken += found
    if sorted(woken + rest) != sorted(ids):
        raise Broken(f"woken without need: {set(woken) - set(ids)}")
    end = Complete(raw("done"))
    ended = await together(
        peers[i % len(peers)].report(id, end=end, worker="w0", number=10) for i, id in enumerate(ids)
    )
    assert all(reply.ended for reply in ended)
    return ["it was there already" if not reply.ended else "it woke a waiting one" for reply in replies]


async def _running(peer: Peer, amount: int) -> list[str]:
    """Fresh executions in the first worker's hands."""
    for start in range(0, amount, 100):
        await peer.start_all([StartItem("wf") for _ in range(min(100, amount - start))])
    ids: list[str] = []
    while len(ids) < amount:
        ids += await peer.claim_ids("w0", 500)
    return ids


async def _race(run: Run, peers: list[Peer], kind: str, id: str, name: str, kid: str | None) -> ItemReply:
    """Race a wait against the awaited event, by different stores. Returns the reply to the wait."""
    first, second = run.chance.sample(peers, 2) if len(peers) > 1 else (peers[0], peers[0])
    seen = 2 if kind == "child" else 1

    async def wait() -> ItemReply:
        await yields(run.chance)
        if kind == "child":
            return await first.report(id, [], Suspend([], None), worker="w0", attempt=1, seen=seen, number=9)
        opened = event_wait("k", name) if kind == "event" else answer_wait("k")
        return await first.report(id, [opened], Suspend(["k"], None), worker="w0", attempt=1, seen=seen, number=9)

    async def happen() -> None:
        await yields(run.chance)
        if kind == "event":
            await second.publish(name, 1)
        elif kind == "answer":
            await second.resume(id, "k")
        else:
            assert kid is not None
            end = Complete(raw("done"))
            await second.report(kid, [], end, worker=peers[-1].worker, attempt=1, seen=1, number=1)

    reply, _ = await asyncio.gather(wait(), happen())
    return reply
