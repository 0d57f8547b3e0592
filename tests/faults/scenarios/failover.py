"""The primary of a synchronous pair dies under load and its standby takes over; the servers know both addresses."""

from __future__ import annotations

import time

from tests.faults.database import Pair
from tests.faults.run import TURN_SECONDS, Run
from tests.kit.polling import until


async def failover(run: Run) -> None:
    database = run.database
    assert isinstance(database, Pair)
    cluster = await run.start_cluster(
        servers=2, workers=3, capacity=10, step_seconds=0.1, settings={"poll_seconds_max": 2}
    )
    run.begin(run.load(open_max=15), run.journeys(open_max=10))
    await run.progress(run.pick(100, 400, 2_000))
    await run.victim()
    caught, at_us = run.cluster.all_in_flight(), time.time_ns() // 1_000
    await database.fail_over()
    run.hit("failover", caught, at_us)
    since_us = time.time_ns() // 1_000
    effects = cluster.effects
    begun: list[int] = []

    def goes_on() -> bool:
        begun[:] = [one.at_us for one in effects.read().all if one.what == "begin" and one.at_us > since_us]
        return bool(begun)

    await until(goes_on, TURN_SECONDS, "a step begins after the failover")
    run.figures["progress after the promotion"] = f"{(min(begun) - since_us) / 1e6:.2f} s"
    await run.progress(run.pick(100, 400, 2_000))
    await run.stop_loads()
    verdict = await run.finish()
    run.demand(verdict, faults=1, faults_that_caught_a_step_in_flight=1, completed=30)
