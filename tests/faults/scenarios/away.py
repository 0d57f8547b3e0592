"""The store takes no writes for longer than a lease, while earlier steps end. No such step may run again.

PostgreSQL is stopped or frozen. The disk of an SQLite file is full, or another program holds the file's lock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import apsw
from tests.faults import app
from tests.faults.database import Postgres, SQLiteFile
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.run import TURN_SECONDS, Broken, NotHere, Run
from tests.kit.polling import until


async def away(run: Run) -> None:
    """Steps begin just before the store is away, and end while it is."""
    lease_seconds, away_seconds = run.pick(4, 12, 12), run.pick(7, 20, 20)
    async with AsyncExitStack() as open_until_end:
        ways = ["stop", "freeze"] if isinstance(run.database, Postgres) else ["lock"]
        if isinstance(run.database, SQLiteFile):
            try:
                disk = open_until_end.enter_context(small_disk(64))
            except NotHere as error:
                run.figures["without a full disk"] = str(error)
            else:
                run.database = SQLiteFile(disk.path)
                ways.append("fill")
        cluster = run.make_cluster(
            servers=2,
            workers=2,
            capacity=20,
            settings={"lease_seconds": lease_seconds},
            environment={"FAULTS_LINGER_SECONDS": f"{away_seconds * 0.7}"},
        )
        await cluster.start()
        if len(run.cluster.servers) > 1:
            ways.append("stop one of the servers with it")
        first = 0
        for _ in range(run.pick(1, 1, 3)):
            for way in ways:
                await _once(run, way, away_seconds, first)
                first += 20
        await run.finish()
        await run.database.close()  # before the disk goes


async def _once(run: Run, way: str, seconds: float, first: int) -> None:
    load = run.load(app.lingering, app.expected_lingering, open_max=20, first=first)
    loading = asyncio.create_task(load.run(20))
    await until(lambda: run.cluster.in_flight() == 20, TURN_SECONDS, "all steps have begun")
    at_us = time.time_ns() // 1_000
    async with _gone(run, way):
        run.hit(f"{way} for {seconds:g} s", run.cluster.all_in_flight(), at_us)
        await asyncio.sleep(seconds)
        ended = {(one.execution_id, one.key) for one in run.cluster.effects.read().all if one.what == "end"}
        held = run.cluster.in_flight()
    run.note(f"the store is back, {held} bodies in flight")
    await loading
    begun = Counter((one.execution_id, one.key) for one in run.cluster.effects.read().begun())
    again = [key for key, times in begun.items() if times > 1 and key in ended]
    if again:
        raise Broken(f"{way}: {len(again)} steps that had ended ran again: {again}")
    run.figures[way] = f"{len(ended)} steps had ended, none ran again"


@asynccontextmanager
async def _gone(run: Run, way: str) -> AsyncIterator[None]:
    """The store takes no writes inside of the block."""
    database = run.database
    if isinstance(database, Postgres):
        if way == "freeze":
            with database.frozen():
                yield
            return
        await database.stop_hard()
        if way == "stop":
            yield
        else:
            run.cluster.servers[0].kill()
            yield
            run.cluster.servers[0].start()
        await database.start()
    elif way == "lock":
        lock = apsw.Connection(database.url)
        lock.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            lock.close()
    else:
        assert isinstance(database, SQLiteFile)
        disk = SmallDisk(database.path.parent)
        disk.fill()
        try:
            yield
        finally:
            disk.free()
