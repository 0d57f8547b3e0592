"""The line between a worker and the servers is dead for three leases: other workers do the work, and the servers refuse
late reports."""

from __future__ import annotations

import asyncio
import time

from tests.faults.run import TURN_SECONDS, Run, spread
from tests.kit.polling import until

KINDS = ("both ways", "replies only", "cut, then dead")


async def partitions(run: Run) -> None:
    lease_seconds = float(run.pick(1, 2, 12))
    times = run.pick(1, 3, 6)
    cluster = run.make_cluster(
        servers=2,
        workers=3,
        capacity=6,
        step_seconds=0.2,
        settings={"lease_seconds": lease_seconds, "poll_seconds_max": 2},
    )
    await cluster.prepare()
    lines = await run.proxies()
    urls = [server.url for server in cluster.servers]
    cluster.worker_urls = lambda n: urls if n else [line.url for line in lines]
    await cluster.start()
    far = cluster.workers[0]
    load = run.load(open_max=15)
    run.begin(load)
    kinds = [KINDS[n % len(KINDS)] for n in range(times)]
    run.chance.shuffle(kinds)
    for kind in kinds:
        await run.victim([far])
        at_us = time.time_ns() // 1_000
        for line in lines:
            line.set(**({"replies_down": True} if kind == "replies only" else {"down": True}))
            if kind.startswith("cut"):
                line.cut()
        run.hit("cut off", cluster.effects.in_flight([far.pid]), at_us)
        run.note(kind)
        await asyncio.sleep(3 * lease_seconds)
        for line in lines:
            line.heal()
        run.note("healed")
        seen = len(cluster.effects.read().all)
        await until(
            lambda seen=seen: any(one.pid == far.pid for one in cluster.effects.read().all[seen:]),  # type: ignore[misc]  # bound now
            TURN_SECONDS,
            "the worker that was cut off works again",
        )
    await run.stop_loads()
    late = sum(line.counts["late requests"] + line.counts["late replies"] for line in lines)
    verdict = await run.finish()
    verdict.counts["late messages"] = late
    run.figures["late messages"] = late
    recoveries = run.recoveries("cut off")
    run.figures["cut off, a worker's work runs elsewhere"] = spread(recoveries)
    run.figures["within 15 s"] = f"{sum(one <= 15 for one in recoveries)} of {len(recoveries)}"
    run.demand(verdict, faults=times, rows_lost=times, late_messages=times, bodies_ended_as_a_stale_attempt=1)
