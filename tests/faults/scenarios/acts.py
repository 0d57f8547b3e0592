"""An act meets the real outcome on another connection: one of both wins, and both sides are told which."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

from msgspec import structs
from tests.faults.run import Broken, ProvesTooLittle, Run
from tests.faults.stores import Peer, Peers, together, yields
from tests.store.world import HOLD, answer_wait, child, event_wait, raw, step, try_of

from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Complete, ItemReply, OpenCall, ReportItem, StartItem, Suspend
from perdure.wire.steering.acts import Acted, Action

KINDS = ("step", "last step", "returned step", "timer", "event", "answer", "child", "held")
ACT, REAL = "the act", "the real outcome"


async def acts(run: Run) -> None:
    wanted = run.pick(320, 10_000, 50_000 if run.database.servers_max > 1 else 20_000)
    won: Counter[str] = Counter()

    def lacks_orders() -> bool:
        return run.database.servers_max > 1 and len(won) < 2 * len(KINDS)

    async with Peers(run, 2) as peers:
        for peer in peers:
            await peer.register(peer.worker, embedded=True, protocol=2)
        n = 0
        while won.total() < wanted or (lacks_orders() and won.total() < 10 * wanted):
            kind = KINDS[n % len(KINDS)]
            for winner in await _wave(run, peers, kind, n):
                won[f"{kind}: {winner}"] += 1
            n += 1
    counts = run.figures["counts"] = dict(sorted(won.items()))
    if lacks_orders():
        raise ProvesTooLittle(f"one order never happened: {counts}")


async def _wave(run: Run, peers: list[Peer], kind: str, n: int) -> list[str]:
    """Run races of the same kind at once, and end all executions. Returns who won each race."""
    amount = run.pick(40, 120, 120)
    ids = await _prepared(peers, kind, n, amount)
    below: dict[str | None, str] = {}
    if kind == "child":
        claimed = await peers[1 % len(peers)].claim(peers[-1].worker, 2 * amount)
        below = {one.parent_execution_id: one.id for one in claimed}
        assert below.keys() == set(ids)
    key = "pay" if kind == "held" else "k"
    answers = await together(_race(run, peers, kind, id, f"{n}-{at}", kid=below.get(id)) for at, id in enumerate(ids))
    winners = []
    journals = await together(peers[0].journal(id) for id in ids)
    for id, (acted, real), rows in zip(ids, answers, journals, strict=True):
        outcomes = [
            row for row in rows if row.key == key and row.kind in OUTCOMES and row.kind is not Kind.CHILD_STARTED
        ]
        if len(outcomes) != 1:
            raise Broken(f"{kind} of {id} has {len(outcomes)} outcomes: {rows}")
        winner = ACT if isinstance(acted, Acted) else REAL
        if kind == "held":  # the real outcome is another act
            winner = ACT if isinstance(acted, Acted) and outcomes[0].seq == acted.seq else REAL
        _check(kind, id, outcomes[0], rows, acted, real)
        winners.append(winner)
    await together(_end(peers[0], id) for id in ids)
    return winners


async def _end(peer: Peer, id: str) -> None:
    phase = await peer.phase(id)
    if phase is Phase.RUNNING:
        await peer.report(id, end=Complete(raw("done")), worker="w0", number=20)
    elif phase not in FINAL:
        await peer.cancel(id)


def _check(kind: str, id: str, outcome: Row, rows: Sequence[Row], acted: object, real: object) -> None:
    """Whether both sides were told what the journal says."""
    by_act = bytes(outcome.value) == b'"given"' or (outcome.kind is Kind.EVENT and b'"given"' in bytes(outcome.value))
    if outcome.kind is Kind.TIMER:
        by_act = isinstance(acted, Acted) and acted.seq == outcome.seq
    told = isinstance(acted, Acted)
    if told != by_act or (isinstance(acted, Acted) and acted.seq != outcome.seq):
        raise Broken(f"{kind} of {id}: the act was told {acted!r}, and the journal has {outcome}")
    ignored = [row for row in rows if row.kind is Kind.IGNORED]
    if isinstance(real, ItemReply) and kind == "step":
        right = real.accepted == ([0] if by_act else [outcome.seq])
        shown = {row.kind for row in real.rows} >= {Kind.STEP, Kind.IGNORED}
        if not right or by_act != shown or by_act != (len(ignored) == 1):
            raise Broken(f"{kind} of {id}: the worker was told {real}, and the journal has {rows}")
    elif isinstance(real, ItemReply) and kind == "returned step":
        if by_act != (len(ignored) == 1) or real.ended == by_act or by_act != bool(real.rows):
            raise Broken(f"{kind} of {id}: the worker was told {real}, and the journal has {rows}")
    elif kind == "last step" and by_act != (len(ignored) == 1):
        raise Broken(f"{kind} of {id}: the journal has {rows}")
    elif kind in ("answer", "held") and isinstance(real, Exception) != by_act:
        raise Broken(f"{kind} of {id}: the other side was told {real!r}, and the journal has {outcome}")


async def _prepared(peers: list[Peer], kind: str, n: int, amount: int) -> list[str]:
    """Executions in which a call is pending."""
    first = peers[0]
    await first.start_all([StartItem("wf") for _ in range(amount)])
    ids: list[str] = []
    while len(ids) < amount:
        ids += await first.claim_ids("w0", 500)
    await together(_prepare(first, kind, id, f"{n}-{at}") for at, id in enumerate(ids))
    return ids


async def _prepare(peer: Peer, kind: str, id: str, name: str) -> None:
    its: dict[str, Any] = {"worker": "w0", "attempt": 1, "seen": 1, "number": 1}
    if kind.endswith("step"):
        await peer.send(structs.replace(ReportItem(id, 1, 0, 1), open_calls=[OpenCall("k", "step", "k")]), "w0")
    elif kind == "timer":
        await peer.report(id, [], Suspend([], ("k", peer.now_us)), **its)
    elif kind == "held":
        await peer.report(id, [try_of("pay")], HOLD, **its)
    elif kind == "child":
        await peer.report(id, [child("k")], Suspend([], None), **its)
    else:
        wait = event_wait("k", name) if kind == "event" else answer_wait("k")
        await peer.report(id, [wait], Suspend(["k"], None), **its)


async def _race(
    run: Run, peers: list[Peer], kind: str, id: str, name: str, *, kid: str | None
) -> tuple[object, object]:
    """What the act was told, and what the other side was."""
    first, second = run.chance.sample(peers, 2) if len(peers) > 1 else (peers[0], peers[0])

    async def act() -> object:
        await yields(run.chance)
        if kind == "timer":
            return await first.act(id, Action.FIRE, "k")
        return await first.act(id, Action.COMPLETE, "pay" if kind == "held" else "k", value=raw("given"))

    async def happen() -> object:
        await yields(run.chance)
        its: dict[str, Any] = {"worker": "w0", "attempt": 1, "seen": 1, "number": 2}
        if kind == "step":
            return await second.report(id, [step("k", "real")], **its)
        if kind == "last step":
            return await second.report(id, [step("k", "real")], Complete(raw("done")), **its)
        if kind == "returned step":
            end = Complete(raw("real"), returns_step=True)
            return await second.report(id, [step("k", "real")], end, **its)
        if kind == "timer":
            return await second.wake_due(run.chance.randrange(1, 4))
        if kind == "event":
            return await second.publish(name, 1)
        if kind == "answer":
            return await second.resume(id, "k", "real")
        if kind == "held":
            return await second.act(id, Action.COMPLETE, "pay", value=raw("real"))
        assert kid is not None
        return await second.report(kid, [], Complete(raw("real")), worker=peers[-1].worker, attempt=1, seen=1, number=1)

    told, real = await asyncio.gather(_told(act()), _told(happen()))
    return told, real


async def _told(work: Awaitable[object]) -> object:
    try:
        return await work
    except (Conflict, NotFound) as error:
        return error
