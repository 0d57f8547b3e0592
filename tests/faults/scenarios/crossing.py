"""Two servers do to the same families of executions what crosses: cancel the tree, end a child, take back a lost
worker's work, start batches below the parents and under keys in opposite orders."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from tests.faults.checker import FINAL
from tests.faults.run import Broken, ProvesTooLittle, Run
from tests.faults.stores import Peer, Peers, yields
from tests.store.world import GRACE_US, SECOND, child, raw, step

from perdure.store.verbs.runs import claims
from perdure.wire.base.errors import Conflict, LeaseLost, NotCancellable, NotFound, PerdureError
from perdure.wire.runs.requests import Complete, Entry, EventItem, Publish, StartItem

FAMILIES = 12
CHILDREN = 4
REFUSALS = (Conflict, NotCancellable, NotFound, LeaseLost)
"""What a caller may hear when somebody else was faster. Anything else is the database's trouble shining through."""


async def crossing(run: Run) -> None:
    rounds = run.pick(6, 60, 500)
    told: Counter[str] = Counter()
    async with Peers(run, 2) as peers:
        if run.database.servers_max > 1:
            name = run.database.url.partition("@/")[2].partition("?")[0]
            await run.database.rows(f"ALTER DATABASE {name} SET deadlock_timeout = '50ms'")
            for peer in peers:  # the setting is of new connections
                for writer in (peer.store._write, peer.store._sweep):  # type: ignore[attr-defined]  # PostgreSQL's
                    writer._postgres.drop()
        for n in range(rounds):
            await _round(run, peers, n, told)
    met = await run.database.rows(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        if run.database.servers_max > 1
        else "SELECT 0"
    )
    run.figures["deadlocks met and repeated by the driver"] = met[0][0]
    run.figures["counts"] = dict(sorted(told.items()))
    wrong = {what: n for what, n in told.items() if what.endswith("!")}
    if wrong:
        raise Broken(f"callers heard of the database's troubles: {wrong}")
    lacking = [what for what in ("cancel", "complete", "reap", "batch", "publish") if told[what] < rounds]
    if lacking:
        raise ProvesTooLittle(f"too few succeeded of {lacking}")


async def _round(run: Run, peers: list[Peer], n: int, told: Counter[str]) -> None:
    """Families with children that run in a worker of the round; then everything at once, in random order."""
    first, second = peers[0], peers[-1]
    worker = f"round-{n}"
    await first.register(worker)
    parents = await first.start_all([StartItem("wf") for _ in range(FAMILIES)])
    assert set(await first.claim_ids(worker)) == set(parents)
    for parent in parents:
        below = [child(f"c{k}") for k in range(CHILDREN)]
        await first.report(parent, below, worker=worker, attempt=1, number=1, seen=1)
    kids: dict[str, list[str]] = {parent: [] for parent in parents}
    for claimed in await first.claim(worker, 500):
        kids[claimed.parent_execution_id or ""].append(claimed.id)
    work: list[tuple[str, Coroutine[Any, Any, object]]] = []
    for parent, ids in kids.items():
        if run.chance.random() < 0.6:
            work.append(("cancel", second.cancel(parent)))
        end = Complete(raw(1))
        for place, id in enumerate(ids):
            if place % 2:
                work.append(("complete", first.report(id, end=end, worker=worker, attempt=1, number=1, seen=1)))
            else:
                topic = f"topic{place % 3}"
                news: list[Entry] = [step("s", 1), Publish("p", None, topic, [EventItem(raw(1))])]
                work.append(("step", second.report(id, news, worker=worker, attempt=1, number=1, seen=1)))
        work.append(("complete", second.report(parent, end=end, worker=worker, attempt=1, number=2, seen=99)))
    for place, peer in enumerate(peers * 3):
        order = parents if place % 2 else parents[::-1]
        items = [StartItem("wf", key=f"{n}-{i}", parent_execution_id=parent) for i, parent in enumerate(order)]
        if place % 2:
            items = [StartItem("wf", key=f"{n}-{FAMILIES - 1 - i}", parent_execution_id=p) for i, p in enumerate(order)]
        work.append(("batch", peer.batch(items)))
        work.append(("publish", peer.publish(f"topic{place % 3}", n)))
    for peer in peers:
        work.append(("reap", _lose(peer, worker)))
        work.append(("overdue", peer.end_overdue(seconds=GRACE_US / SECOND)))  # of those that are cancelled by then
    run.chance.shuffle(work)
    await asyncio.gather(*[_note(run, told, what, one) for what, one in work])
    await _end_all(run, first)


async def _lose(peer: Peer, worker: str) -> int:
    await peer.store.write(claims.cut_lease(worker_id=worker, until_us=peer.now_us))
    return await peer.reap()


async def _note(run: Run, told: Counter[str], what: str, work: Coroutine[Any, Any, object]) -> None:
    await yields(run.chance, 12)
    try:
        await work
    except PerdureError as error:
        told[f"{what}: {error.code}" + ("" if isinstance(error, REFUSALS) else "!")] += 1
    except Exception as error:  # whatever the driver let through
        told[f"{what}: {type(error).__name__}!"] += 1
    else:
        told[what] += 1


async def _end_all(run: Run, peer: Peer) -> None:
    """Cancel the rest of the round, so that the next round begins without ready executions."""
    for (id,) in await run.database.rows(f"SELECT id FROM executions WHERE phase NOT IN {FINAL}"):
        with contextlib.suppress(NotCancellable):  # it went with its parent
            await peer.cancel(id)
    peer.advance(3_600)
    while await peer.wake_due():
        pass
