"""PostgreSQL is stopped hard, crashes, or ends all sessions, again and again under load."""

from __future__ import annotations

import asyncio
import time

from tests.faults.database import Postgres
from tests.faults.run import TURN_SECONDS, Run, spread
from tests.kit.polling import until


async def outages(run: Run) -> None:
    times = run.pick(3, 6, 30)
    pause_seconds = run.pick(1, 2, 17)
    await run.start_cluster(servers=2, workers=3, capacity=10, step_seconds=0.1, settings={"poll_seconds_max": 2})
    run.begin(run.load(open_max=15), run.journeys(open_max=10))
    kinds = ["stop", "crash", "sessions"] * (times // 3)
    run.chance.shuffle(kinds)
    back: list[float] = []
    for kind in kinds:
        await run.progress(10)
        await asyncio.sleep(pause_seconds * run.chance.uniform(0.8, 1.2))
        back.append(await interrupt(run, kind))
    await run.stop_loads()
    verdict = await run.finish()
    run.figures["progress after its return"] = spread(back)
    run.figures["within 5 s"] = f"{sum(one <= 5 for one in back)} of {len(back)}"
    run.demand(verdict, faults=times, faults_that_caught_a_step_in_flight=times // 2, completed=10 * times)


async def interrupt(run: Run, kind: str) -> float:
    """One outage; how many seconds after the database's return a step began."""
    database = run.database
    assert isinstance(database, Postgres)
    await run.victim()
    at_us = time.time_ns() // 1_000
    caught = run.cluster.all_in_flight()  # when it is over they have ended, and wait to be recorded
    if kind == "sessions":
        ended = await database.terminate_sessions()
        run.hit(f"{ended} sessions terminated", caught, at_us)
    else:
        await (database.stop_hard() if kind == "stop" else database.crash())
        run.hit(f"PostgreSQL: {kind}", caught, at_us)
        await asyncio.sleep(run.chance.uniform(0.1, 3.0))
        await database.start()
    back_us = time.time_ns() // 1_000
    run.note("PostgreSQL is back")
    effects = run.cluster.effects
    seen = len(effects.read().all)
    found: list[int] = []

    def begun() -> bool:
        found[:] = [one.at_us for one in effects.read().all[seen:] if one.what == "begin" and one.at_us > back_us]
        return bool(found) or run.idle()

    await until(begun, TURN_SECONDS, "a step begins after the database's return")
    return (min(found) - back_us) / 1e6 if found else 0.0
