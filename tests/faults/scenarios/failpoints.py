"""Servers die at each point around a commit: before, after, after the hints, before the answer. Clients without an
answer ask again under the same key, and everything has happened once."""

from __future__ import annotations

import sys
from collections import Counter

from tests.faults.cluster import Server
from tests.faults.failing import POINTS
from tests.faults.run import TURN_SECONDS, Broken, Run
from tests.kit.polling import until

KILLED = -9
FAILING = [sys.executable, "-m", "tests.faults.failing"]


async def failpoints(run: Run) -> None:
    rounds = run.pick(1, 3, 20)
    cluster = run.make_cluster(servers=2, workers=3, capacity=6, settings={"lease_seconds": 4.0, "poll_seconds_max": 2})
    await cluster.prepare()
    points: list[str] = []

    def arm(server: Server) -> None:
        if not points:
            points.extend(run.chance.sample(POINTS, len(POINTS)))
        server.program = FAILING
        server.environment["FAULTS_FAILPOINT"] = f"{points.pop()}:{run.chance.randint(10, 100)}"

    await cluster.start()
    run.begin(run.load(open_max=15), run.journeys(open_max=10))
    for server in cluster.servers:
        server.terminate()
        await server.ended()
        arm(server)
        server.start()
        await cluster.until_ready(server)
    deaths: Counter[str] = Counter()
    # Callers go where somebody answers, so one server may live on until the other one has died again.
    while any(deaths[point] < rounds for point in POINTS):
        await until(lambda: not all(one.alive for one in cluster.servers), TURN_SECONDS, "a server has died")
        for server in cluster.servers:
            if not server.alive:
                point = server.environment["FAULTS_FAILPOINT"].partition(":")[0]
                if (code := await server.ended()) != KILLED:
                    raise Broken(f"{server.name} ended with {code} and not at {point}:\n{server.said()}")
                run.hit(f"{server.name} died {point}")
                deaths[point] += 1
                arm(server)
                server.start()
    for server in cluster.servers:
        server.kill()
        server.environment["FAULTS_FAILPOINT"] = ""
        server.start()
        await cluster.until_ready(server)
    await run.stop_loads()
    verdict = await run.finish()
    run.figures["deaths"] = dict(deaths)
    run.demand(verdict, faults=rounds * len(POINTS), completed=20)
