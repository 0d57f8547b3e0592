"""One of three servers is cut off from PostgreSQL, or stands still with open transactions: the server says so, the
other servers carry on, and the server comes back by itself."""

from __future__ import annotations

import time

from tests.faults.run import TURN_SECONDS, Run, spread
from tests.kit.polling import until

KINDS = ("cut off from its database", "frozen")


async def severed(run: Run) -> None:
    times = run.pick(1, 2, 4)
    cluster = run.make_cluster(servers=3, workers=3, capacity=6, settings={"lease_seconds": 4.0, "poll_seconds_max": 2})
    lines = await run.database_lines()
    await cluster.start()
    run.begin(run.load(open_max=15), run.journeys(open_max=5))
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
        run.hit(f"{server.name} is {kind}")

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
    await run.stop_loads()
    verdict = await run.finish()
    run.figures["it says so"] = spread(said)
    run.demand(verdict, faults=times, completed=20)
