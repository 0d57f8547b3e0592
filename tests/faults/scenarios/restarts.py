"""Servers and workers are restarted one after the other with SIGTERM, under load: no call fails, no attempt is lost."""

from __future__ import annotations

import time

from tests.faults.ledger import Outcome
from tests.faults.run import Broken, Run, spread


async def restarts(run: Run) -> None:
    rounds = run.pick(1, 2, 12)
    cluster = await run.start_cluster(servers=3, workers=3, capacity=6, settings={"poll_seconds_max": 2})
    client = run.client(patience_seconds=30.0)
    run.begin(run.load(open_max=15, client=client), run.journeys(open_max=5, client=client))
    seconds: list[float] = []
    for n in range(rounds):
        for server in cluster.servers:
            await run.progress(10)
            began = time.monotonic()
            run.hit(f"{server.name} restarts")
            server.terminate()
            if code := await server.ended():
                raise Broken(f"{server.name} ended with {code}:\n{server.said()}")
            seconds.append(time.monotonic() - began)
            server.start()
            await cluster.until_ready(server)
        await run.victim([worker := cluster.workers[n % 3]])
        run.hit(f"{worker.name} restarts", cluster.effects.in_flight([worker.pid]), time.time_ns() // 1_000)
        worker.terminate()
        if code := await worker.ended():
            raise Broken(f"{worker.name} ended with {code}:\n{worker.said()}")
        worker.start()
        await cluster.until_serving(worker)
    await run.stop_loads()
    verdict = await run.finish()
    run.figures["a server's end"] = spread(seconds)
    verdict.add("calls that failed", [entry for entry in run.ledger.entries if entry.outcome is not Outcome.DONE])
    if verdict.counts["rows lost"]:
        verdict.wrong.append(f"{verdict.counts['rows lost']} attempts were lost")
    if verdict.wrong:
        raise Broken("\n".join(verdict.wrong))
    run.demand(verdict, faults=rounds * (1 + len(cluster.servers)), rows_released=1, completed=10)
