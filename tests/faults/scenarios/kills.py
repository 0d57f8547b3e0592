"""Workers and servers are killed at random while executions run: nothing is lost, nothing recorded runs again."""

from __future__ import annotations

from tests.faults.run import ProvesTooLittle, Run, spread

HITS_MIN = 0.6


async def kills(run: Run) -> None:
    executions = run.pick(100, 1_000, 10_000)
    of_workers = run.pick(4, 40, 100)
    of_servers = run.pick(1, 10, 20)
    workers = run.pick(3, 4, 6)
    await run.start_cluster(
        servers=2, workers=workers, capacity=run.pick(4, 8, 12), settings={"lease_seconds": 4.0, "poll_seconds_max": 2}
    )
    load = run.load(open_max=run.pick(60, 200, 300))
    run.begin(load)  # each fault is to meet some that run, however late it comes
    faults = [run.kill_worker] * of_workers + [run.kill_server] * of_servers
    run.chance.shuffle(faults)
    pace = executions * 5 * 0.85 / len(faults)
    for fault in faults:
        await run.progress(int(pace * run.chance.uniform(0.5, 1.5)))
        await fault()
    while load.started < executions:
        await run.progress(5)
    await run.stop_loads()
    verdict = await run.finish()
    recoveries = run.recoveries("worker killed")
    run.figures["a killed worker's work runs elsewhere"] = f"{spread(recoveries)} ({len(recoveries)})"
    clean = run.recoveries("worker killed", alone=True)
    run.figures["of those that nothing else hit"] = spread(clean)
    run.figures["within 3 s"] = f"{sum(one <= 3 for one in clean)} of {len(clean)}"
    hits = verdict.counts["faults that caught a step in flight"]
    if hits < HITS_MIN * len(faults):
        raise ProvesTooLittle(f"only {hits} of {len(faults)} kills hit a step in flight")
    least = {"rows_lost": len(faults) // 2, "bodies_begun_again": 1, "ends_in_the_report_of_a_step": executions // 2}
    run.demand(verdict, faults=len(faults), completed=executions, **least)
