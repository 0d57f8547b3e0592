"""The database takes no more writes: the disk is full, or the database has become read-only. Callers are told,
`/health` and `/ready` say so, acknowledged writes stay, and all work goes on when the database takes writes again."""

from __future__ import annotations

import asyncio
import re
import time

from tests import postgres
from tests.faults import app
from tests.faults.database import Postgres, SQLiteFile
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.load import Load
from tests.faults.run import Broken, Run
from tests.kit.polling import until

from perdure.wire.base.errors import Unavailable

SECONDS_MAX = 40.0


async def full_disk(run: Run) -> None:
    """Three times full and free again."""
    with small_disk(64) as disk:
        if isinstance(run.database, Postgres):
            await _move(run.database, disk)
        else:
            run.database = SQLiteFile(disk.path)
        load, loading = await _begin(run)
        for _ in range(run.pick(1, 2, 3)):
            await run.progress(run.pick(40, 100, 300))
            run.note(f"disk filled with {disk.fill():,} bytes")
            try:
                await _refuses(run, "o space|disk is full|extend")
            finally:
                disk.free()
            run.note("disk freed")
            await _goes_on(run, load)
        await _end(run, load, loading)
        await run.database.close()  # before the disk goes


async def read_only(run: Run) -> None:
    """Make the database read-only: by a setting, while connections are open, then as a standby, until promoted."""
    assert isinstance(run.database, Postgres)
    load, loading = await _begin(run)
    rows = run.database.rows
    for _ in range(run.pick(1, 2, 3)):
        await run.progress(run.pick(40, 100, 300))
        await rows("ALTER SYSTEM SET default_transaction_read_only = on")
        await rows("SELECT pg_reload_conf()")
        run.note("read-only")
        try:
            await _refuses(run, "read-only")
        finally:
            await rows("ALTER SYSTEM RESET default_transaction_read_only")
            await rows("SELECT pg_reload_conf()")
        run.note("takes writes again")
        await _goes_on(run, load)
    await run.progress(run.pick(20, 100, 300))
    await run.database.stop_hard()
    await asyncio.to_thread(run.database.server.data_file("standby.signal").touch)
    postgres.give_away(run.database.server.data_file("standby.signal"))
    await run.database.start()
    run.note("a standby")
    await _refuses(run, "standby|read-only", looks=False)
    await rows("SELECT pg_promote()")
    run.note("promoted")
    await _goes_on(run, load)
    await _end(run, load, loading)


async def _move(database: Postgres, disk: SmallDisk) -> None:
    """Put the database's tables on the small disk; the server's log of changes stays where it is."""
    place = disk.path / "tables"
    place.mkdir(mode=0o700)
    postgres.give_away(place)
    name = database.url.partition("@/")[2].partition("?")[0]
    await postgres.admin(f"CREATE TABLESPACE small LOCATION '{place}'", database.server)
    await postgres.admin(f"ALTER DATABASE {name} SET TABLESPACE small", database.server)


async def _begin(run: Run) -> tuple[Load, asyncio.Task[None]]:
    await run.start_cluster(servers=2, workers=2, capacity=6)
    load = run.load(client=run.client(patience_seconds=0.5), open_max=30)
    return load, asyncio.create_task(load.run(1_000_000))


async def _refuses(run: Run, why: str, *, looks: bool = True) -> None:
    """Every server is red, callers are told why, and looks are answered all the same."""
    for server in run.cluster.servers:
        await until(server.is_red, SECONDS_MAX, f"{server.name} is red")
        run.note(f"{server.name} is red")
    client = run.client(patience_seconds=0.1)
    told = ""
    for _ in range(50):  # some changes still find room on a page that is there already
        try:
            await client.start(app.five_steps, 0)
            run.figures["keyless"] = run.figures.get("keyless", 0) + 1
        except Unavailable as error:
            told = f"{error.status} {error.message}"
            if re.search(why, told):
                break
    else:
        raise Broken(f"no caller was told of {why!r}, the last of {told!r}")
    run.figures["what a caller is told"] = told
    if looks and len((await asyncio.wait_for(client.list(limit=5), 15)).executions) != 5:
        raise Broken("looks are not answered while the store refuses writes")


async def _goes_on(run: Run, load: Load) -> None:
    """Nobody has to restart anything: the servers are green, and callers get results again."""
    began = time.monotonic()
    for server in run.cluster.servers:
        await until(server.is_green, SECONDS_MAX, f"{server.name} is green")
    done = load.done
    await until(lambda: load.done > done, SECONDS_MAX, "an execution has ended")
    run.figures.setdefault("an execution ends after", []).append(f"{time.monotonic() - began:.1f} s")
    if any(len(server.pids) != 1 or not server.alive for server in run.cluster.servers):
        raise Broken("a server has ended")


async def _end(run: Run, load: Load, loading: asyncio.Task[None]) -> None:
    load.stopping = True
    await loading
    verdict = await run.finish()
    accepted = run.figures.pop("keyless", 0)
    [[there]] = await run.database.rows("SELECT COUNT(*) FROM executions WHERE key IS NULL")
    if there != accepted:
        raise Broken(f"{accepted} starts without a key were accepted, {there} are there: a refused one happened")
    run.demand(verdict, completed=30)
