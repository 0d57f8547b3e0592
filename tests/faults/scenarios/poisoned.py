"""An execution crashes its worker each time: the server fails the execution after five losses. All others go on."""

from __future__ import annotations

import asyncio

from tests.faults import app
from tests.faults.run import Broken, Run, spread

KILLS_MAX = 6


async def poisoned(run: Run) -> None:
    healthy = run.pick(60, 200, 1_000)
    settings = {"lease_seconds": 4.0, "poll_seconds_max": 2}
    cluster = await run.start_cluster(servers=2, workers=4, capacity=5, settings=settings, restart=True)
    alone = run.load(open_max=20)
    await alone.run(healthy)
    beside = run.load(open_max=20, first=healthy)
    loading = asyncio.create_task(beside.run(healthy))
    # It is urgent, so that all five losses fall into the time of the others.
    handle = await run.client(patience_seconds=30.0).start(app.poison, key="poison", priority=10)
    execution = await run.ended(handle)
    await loading
    if not all(worker.alive for worker in cluster.workers):
        raise Broken("a worker's parent has ended with it")
    verdict = await run.finish()
    kills = sum(effect.execution_id == handle.id for effect in cluster.effects.begun())
    run.figures["kills"] = kills
    hit = {id for (id,) in await run.database.rows("SELECT DISTINCT execution_id FROM journal WHERE kind = 'lost'")}
    apart = [seconds for id, seconds in beside.seconds.items() if id not in hit]
    run.figures["alone"] = spread([*alone.seconds.values()])
    run.figures["beside the poison"] = spread([*beside.seconds.values()])
    run.figures["never in a process that it killed"] = f"{spread(apart)} ({len(apart)} of {healthy})"
    if not (execution.error or "").startswith("POISONED") or not 5 <= kills <= KILLS_MAX:
        raise Broken(f"after {kills} kills the execution is {execution.phase}: {execution.error}")
    run.demand(verdict, completed=2 * healthy, failed=1, rows_lost=5)
