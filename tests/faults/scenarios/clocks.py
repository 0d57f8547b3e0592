"""The clock of one of three servers, and then the database's, is put an hour forward and back under load: no live lease
ends, nothing is recorded twice, and each timer fires once. A server's own clock fires no timer early either. On a file
the server's clock acts as the database's clock."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from tests.faults import app
from tests.faults.clockshift import ClockShift
from tests.faults.database import Postgres
from tests.faults.run import Broken, Run

LEASE_SECONDS = 4.0
HOUR = 3_600
TAKEN = "SELECT COUNT(*) FROM journal WHERE kind IN ('lost', 'released')"
ENDED = "SELECT COUNT(*) FROM ended_workers"
"""Most of the time a worker holds nothing to be taken away: naps do not occupy the worker."""
NOT_ONCE = """
SELECT e.id FROM executions e LEFT JOIN journal j ON j.execution_id = e.id AND j.kind = 'timer'
WHERE e.workflow_id = 'nap' GROUP BY e.id HAVING COUNT(j.seq) <> 1"""


async def clocks(run: Run) -> None:
    # Not in the run's own folder: the database's user has to read it.
    folder = Path(tempfile.mkdtemp(prefix="perdure-clock-"))
    folder.chmod(0o755)
    try:
        await _play(run, ClockShift(folder / "server"), ClockShift(folder / "store"))
    finally:
        shutil.rmtree(folder)


async def _play(run: Run, server: ClockShift, store: ClockShift) -> None:
    database = run.database
    if isinstance(database, Postgres):
        await database.stop_hard()
        await asyncio.to_thread(database.server.start, store.environment)
    settings = {"lease_seconds": LEASE_SECONDS, "poll_seconds_max": 2}
    cluster = run.make_cluster(servers=3, workers=4, capacity=6, settings=settings)
    await cluster.prepare()
    if isinstance(database, Postgres):
        cluster.servers[1].environment.update(server.environment)
    else:
        cluster.servers[0].environment.update(store.environment)
    await cluster.start()
    load = run.load(app.nap, app.expected_nap, open_max=40)
    steps = 0

    async def step(clock: ClockShift, seconds: int, whose: str) -> None:
        nonlocal steps
        clock.set(seconds)
        steps += 1
        run.note(f"the clock of {whose} is {seconds} s off")
        await asyncio.sleep(LEASE_SECONDS * 1.5)

    loading = asyncio.create_task(load.run(1_000_000))
    await run.progress(40)
    if isinstance(database, Postgres):
        for seconds in (HOUR, 0, -HOUR, 0) * run.pick(1, 2, 5):
            await step(server, seconds, "a server")
        early = _woken_early(run)
        if early:
            raise Broken(f"{len(early)} timers fired early, for example {early[:5]}")
    for _ in range(run.pick(1, 2, 5)):
        await step(store, -HOUR, "the store")  # what sleeps now wakes when the hour is back
        await step(store, 0, "the store")
        await step(store, HOUR, "the store")  # what sleeps now wakes early
        load.stopping = True
        await loading
        await step(store, 0, "the store")  # nothing sleeps, but the workers' leases go on
        load.stopping = False
        load.first = load.started
        loading = asyncio.create_task(load.run(1_000_000))
        await asyncio.sleep(0)  # it has begun: nothing is idle
    [[taken]], [[ended]] = await database.rows(TAKEN), await database.rows(ENDED)
    if taken or ended:
        raise Broken(f"{ended} leases of live workers ended, {taken} executions were taken from them")
    done = len(run.cluster.effects.read().begun())
    for _ in range(4):  # and a dead one is noticed still
        await run.progress(20)
        await run.kill_worker()
    load.stopping = True
    await loading
    not_once = await database.rows(NOT_ONCE)
    verdict = await run.finish(one_clock=False)
    if not_once:
        raise Broken(f"timers that did not fire once: {not_once[:5]}")
    run.figures["steps of a clock"] = steps
    run.demand(verdict, rows_timer=50 + 10 * steps, bodies_begun=done, rows_lost=2)


def _woken_early(run: Run) -> list[str]:
    """Executions whose second step began before their sleep could be over, by the workers' clocks, which are right."""
    ended: dict[str, int] = {}
    early: list[str] = []
    for effect in run.cluster.effects.read().all:
        if effect.what == "end":
            ended.setdefault(effect.execution_id, effect.at_us)
        elif effect.execution_id in ended and effect.at_us < ended[effect.execution_id] + app.NAP_SECONDS * 1e6 * 0.9:
            early.append(effect.execution_id)
    return early
