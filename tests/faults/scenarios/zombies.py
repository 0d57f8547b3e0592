"""Workers are frozen for longer than their lease and wake up: late reports and bodies change nothing."""

from __future__ import annotations

from tests.faults.run import Run, spread

LEASE_SECONDS = 1.0


async def zombies(run: Run) -> None:
    stops = run.pick(9, 60, 1_000)
    at_a_time = run.pick(3, 6, 20)
    cluster = await run.start_cluster(
        servers=2,
        workers=at_a_time + run.pick(1, 2, 5),
        capacity=4,
        step_seconds=0.2,
        settings={"lease_seconds": LEASE_SECONDS, "poll_seconds_max": 2},
    )
    load = run.load(open_max=5 * len(cluster.workers), may_be_poisoned=True)
    run.begin(load)
    left = stops
    while left:
        await run.progress(5 * at_a_time)
        run.chance.shuffle(cluster.workers)
        some = sorted(cluster.workers, key=lambda worker: not cluster.in_flight([worker]))[: min(left, at_a_time)]
        await run.freeze_workers(some, LEASE_SECONDS * run.chance.uniform(1.6, 2.4))
        left -= len(some)
    await run.stop_loads()
    verdict = await run.finish()
    await run.check_given_up(load)
    run.figures["frozen, a worker's work runs elsewhere"] = spread(run.recoveries("worker frozen"))
    run.demand(
        verdict,
        faults=stops,
        faults_that_caught_a_step_in_flight=stops // 2,
        rows_lost=stops // 2,
        bodies_ended_as_a_stale_attempt=stops // 4,
        lost_leases_noticed=stops // 2,
    )
