"""One of three servers is cut off from PostgreSQL, or stands still with its transactions open: it says so, the others
carry on, and it comes back by itself."""

from __future__ import annotations

import asyncio
import time

from tests.faults.cluster import until
from tests.faults.run import TURN_SECONDS, Run, spread

KINDS = ("cut off from its database", "frozen")


async def severed(run: Run) -> None:
    times = run.pick(1, 2, 4)
    cluster = run.make_cluster(servers=3, workers=3, capacity=6, settings={"lease_seconds": 4.0, "poll_seconds_max": 2})
    lines = await run.database_lines()
    await cluster.start()
    loads = [run.load(open_max=15), run.journeys(open_max=5)]
    loading = [asyncio.create_task(load.run(1_000_000)) for load in loads]
    said: list[float] = []
    for n in range(times):
        await run.progress(30)
        server, line = cluster.servers[n % 3], lines[n % 3]
        began = time.monotonic()
        kind = KINDS[n % len(KINDS)]
        if kind == "frozen":
            server.freeze()
        else:
            line.set(down=True)
        run.hit(f"{server.name} is {kind}", cluster.all_in_flight(), time.time_ns() // 1_000)

        async def not_ready() -> bool:
            return not await server.is_ready()  # noqa: B023  # awaited below, in this round

        await until(not_ready, TURN_SECONDS, "the server says that it is not ready")
        said.append(time.monotonic() - began)
        await run.progress(60)
        run.note("the others went on")
        if kind == "frozen":
            server.thaw()
        else:
            line.heal()
            line.cut()
        await until(server.is_ready, TURN_SECONDS, "the server is ready again")
        run.note("it is back")
    for load in loads:
        load.stopping = True
    await asyncio.gather(*loading)
    verdict = await run.finish()
    run.figures["it says so"] = spread(said)
    run.demand(verdict, faults=times, completed=20)
