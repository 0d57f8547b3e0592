"""Topics with many waits or many events: `python -m benchmarks.topics --database postgres`.

Verbs alone, on a store of their own:

- opening waits on one topic, 256 at a time, and publishing an event to a topic with so many waits of different `match`
- a wait with `match` after so many other events of its topic
- publishing event by event, 256 at a time
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import bytes_written, run_loop
from msgspec import Raw
from tests import postgres
from tests.databases import migrated
from tests.store.world import LEASE_US, PROJECT, World

from perdure.store.base.interface import Store
from perdure.store.open import open_store
from perdure.store.verbs.runs import claims, events, reports, starts
from perdure.store.verbs.runs.starts import New
from perdure.wire.runs.requests import EventItem, ItemReply, OpenWait, ReportItem, StartItem, Suspend

AT_ONCE: Final = 256
TIMES: Final = 20


async def running(world: World, amount: int) -> list[str]:
    """Fresh executions in the worker's hands."""
    world.advance(1)
    await world.store.write(
        claims.beat(project_id=PROJECT, worker_id="w", now_us=world.now_us, lease_us=86_400 * LEASE_US)
    )
    found: list[str] = []
    while len(found) < amount:
        news = [New(world.new_id(), StartItem("wf")) for _ in range(min(AT_ONCE, amount - len(found)))]
        await world.store.write(starts.start(project_id=PROJECT, news=news, now_us=world.now_us))
        found += await world.claim_ids(capacity=len(news))
    return found


def open_wait(world: World, id: str, wait: OpenWait, number: int = 1, seen: int = 1) -> Awaitable[ItemReply]:
    item = ReportItem(id, 1, number, seen, [wait], Suspend([wait.key]))
    return world.store.write(reports.report(project_id=PROJECT, worker_id="w", item=item, now_us=world.now_us))


def publish(world: World, topic: str, *data: dict[str, Any]) -> Awaitable[Any]:
    items = [EventItem(Raw(json.dumps(each).encode())) for each in data]
    ids = [world.new_id() for _ in items]
    return world.store.write(
        events.publish(project_id=PROJECT, topic=topic, events=items, ids=ids, now_us=world.now_us)
    )


def wanted(n: int, topic: str = "topic") -> OpenWait:
    return OpenWait("k", None, topic=topic, match={"order": Raw(b"%d" % n), "kind": Raw(b'"paid"')})


async def median_ms(action: Callable[[int], Awaitable[object]], times: int = TIMES) -> dict[str, float]:
    """`cpu_ms` is of this process, so it does not depend on what else the machine does."""
    took: list[float] = []
    used: list[float] = []
    for n in range(times):
        begin, cpu = time.perf_counter(), time.process_time()
        await action(n)
        took.append((time.perf_counter() - begin) * 1e3)
        used.append((time.process_time() - cpu) * 1e3)
    return {
        "p50_ms": round(statistics.median(took), 2),
        "max_ms": round(max(took), 2),
        "cpu_ms": round(statistics.median(used), 2),
    }


async def opened(store: Store, amount: int) -> dict[str, float]:
    """Waits opened per second."""
    world = await ready(store)
    ids = await running(world, amount)
    begin = time.perf_counter()
    for first in range(0, amount, AT_ONCE):
        await asyncio.gather(
            *(open_wait(world, id, wanted(first + n)) for n, id in enumerate(ids[first : first + AT_ONCE]))
        )
    return {"waits_per_s": round(amount / (time.perf_counter() - begin))}


async def waited_for(store: Store, amount: int) -> dict[str, Any]:
    """One event at a time: for one of so many waits, for none, and on a topic without waits."""
    found = dict(await opened(store, amount))
    world = await ready(store)
    one = await median_ms(lambda n: publish(world, "topic", {"order": n, "kind": "paid", "of": "one"}))
    await publish(world, "another", {"order": -1})
    elsewhere = await median_ms(lambda n: publish(world, "another", {"order": n, "kind": "paid", "of": "none"}))
    none = await median_ms(lambda n: publish(world, "topic", {"order": -1 - n, "kind": "paid", "of": "none"}))
    return {**found, "for_one": one, "for_none": none, "elsewhere": elsewhere}


async def after(store: Store, amount: int) -> dict[str, Any]:
    """The first wait of a topic, and later ones, each of an execution that is older than so many events."""
    world = await ready(store)
    ids = await running(world, TIMES + 2)
    await open_wait(world, ids[TIMES + 1], wanted(-1, "another"))  # PostgreSQL plans a connection's first statements
    begin, written = time.perf_counter(), bytes_written()
    for first in range(0, amount, 100):
        await publish(world, "topic", *({"order": n, "kind": "paid", "of": "all"} for n in range(first, first + 100)))
    filled = time.perf_counter() - begin
    first_one = await median_ms(lambda n: open_wait(world, ids[TIMES], wanted(-1)), 1)
    found: dict[str, Any] = {
        "published_100_at_once_per_s": round(amount / filled),
        "first": first_one,
        "later": await median_ms(lambda n: open_wait(world, ids[n], wanted(-1 - n))),
    }
    if written is not None:
        found["bytes_per_event"] = round(((bytes_written() or 0) - written) / amount)
    return found


async def published(store: Store, amount: int) -> dict[str, Any]:
    """Events published one by one, so many at a time."""
    world = await ready(store)
    written, begin = bytes_written(), time.perf_counter()
    used = time.process_time()
    for first in range(0, amount, AT_ONCE):
        await asyncio.gather(
            *(publish(world, "topic", {"order": n, "kind": "paid", "of": "all"}) for n in range(first, first + AT_ONCE))
        )
    took, used = time.perf_counter() - begin, time.process_time() - used
    found = {"events_per_s": round(amount / took), "cpu_us_per_event": round(used / amount * 1e6, 1)}
    if written is not None:
        found["bytes_per_event"] = round(((bytes_written() or 0) - written) / amount)
    return found


async def ready(store: Store) -> World:
    world = await World.make(store)
    await world.register(capacity=1_000)
    return world


PARTS: Final[dict[str, Callable[[Store, int], Awaitable[dict[str, Any]]]]] = {
    "waited_for": waited_for,
    "after": after,
    "published": published,
}


async def measure(name: str, amount: int, url: str) -> dict[str, Any]:
    store = await open_store(url)
    try:
        return await PARTS[name](store, amount)
    finally:
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--amounts", nargs="*", type=int, default=[1_000, 20_000, 100_000])
    given = parser.parse_args()
    with contextlib.ExitStack() as opened_:
        folder = Path(opened_.enter_context(tempfile.TemporaryDirectory(prefix="perdure-bench-")))
        server = opened_.enter_context(postgres.running(postgres.SAFE)) if given.database == "postgres" else None
        for name in given.parts:
            for amount in given.amounts:
                url = str(folder / f"{name}-{amount}.db")
                if server is not None:
                    url = server.database_url(run_loop(postgres.make(server=server)))
                    run_loop(migrated(url))
                found = run_loop(measure(name, amount, url))
                print(json.dumps({"part": name, "amount": amount, **found}), flush=True)


if __name__ == "__main__":
    main()
