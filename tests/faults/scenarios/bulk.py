"""Each fifth execution fails. The bulk retry is stopped and continued, and the server is killed half-way: each failed
execution is retried once, and no recorded step runs again."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.faults import app
from tests.faults.run import TURN_SECONDS, Broken, ProvesTooLittle, Run
from tests.kit.polling import until

from perdure import Client
from perdure.wire.base.errors import Conflict
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters
from perdure.wire.steering.bulk import BulkJob, JobState

STILL_SECONDS = 1.0
"""How long a stopped job is watched."""
AT_ONCE = 500
FAILED = ListFilters(workflow_id="mendable", status=["failed"])


async def bulk(run: Run) -> None:
    amount = run.pick(80, 300, 1_000)
    cluster = await run.start_cluster(servers=2, workers=2, capacity=50, step_seconds=0.0)
    client = run.client(patience_seconds=TURN_SECONDS)
    ids = await _run(run, client, 5 * amount)
    broken = ids[::5]
    found = await client.bulk.preview("retry", FAILED)
    if (found.count, len(found.sample)) != (amount, 20):
        raise Broken(f"the dry run says {found.count}, not {amount}, and shows {len(found.sample)}")
    (run.folder / "mended").touch()
    job = await client.bulk.start("retry", FAILED, newest=found.newest, expect=found.count)
    await _until_taken(run, 1)  # on a busy machine more are taken before it is stopped, or killed
    try:
        stopped_at = await _stop_and_continue(run, client, job)
    except Conflict as error:
        raise ProvesTooLittle("the job had ended before the stop") from error
    if stopped_at == amount:
        raise ProvesTooLittle("all were taken before the stop")
    await _until_taken(run, stopped_at + 1)
    [server, *others] = cluster.servers  # the first one was asked to continue
    server.kill()
    taken = await _taken(run)
    run.hit(f"{server.name} killed after {taken}")
    if not others:
        server.start()
        await cluster.until_ready(server)
    job = await _ended(client, job)
    if (job.done, job.refused, job.later) != (amount, 0, 0):
        raise Broken(f"{job.done} are done, {job.refused} refused, {job.later} for later, of {amount}")
    await _check(run, client, job, broken)
    if taken == amount:
        raise ProvesTooLittle("the job had ended before the kill")


async def _run(run: Run, client: Client, amount: int) -> list[str]:
    """Executions of which each fifth has failed, all of them ended."""
    ids: list[str] = []
    for start in range(0, amount, AT_ONCE):
        inputs = range(start, min(start + AT_ONCE, amount))
        handles = await asyncio.gather(*[client.start(app.mendable, n) for n in inputs])
        ends = await asyncio.gather(*[run.ended(handle) for handle in handles])
        wanted = [Phase.FAILED if n % 5 == 0 else Phase.COMPLETED for n in inputs]
        if [end.phase for end in ends] != wanted:
            raise Broken(f"not each fifth has failed of {start} to {start + AT_ONCE}")
        ids += [handle.id for handle in handles]
    return ids


async def _check(run: Run, client: Client, job: BulkJob, broken: list[str]) -> None:
    rows = await run.database.rows("SELECT id, retried_as FROM executions WHERE retried_as IS NOT NULL")
    retried = dict(rows)
    if sorted(retried) != sorted(broken):
        raise Broken(f"{len(retried)} are retried, of {len(broken)}")
    made = [id for (id,) in await run.database.rows("SELECT id FROM executions WHERE forked_from IS NOT NULL")]
    items = [id for (id,) in await run.database.rows("SELECT made_id FROM bulk_items WHERE state = 'done'")]
    if not sorted(made) == sorted(items) == sorted(retried.values()):
        raise Broken(f"{len(made)} executions and {len(items)} items for {len(retried)} retries")
    for start in range(0, len(made), AT_ONCE):
        handles = [client.handle(id) for id in made[start : start + AT_ONCE]]
        ends = await asyncio.gather(*[run.ended(handle) for handle in handles])
        if wrong := [end.id for end in ends if end.phase is not Phase.COMPLETED]:
            raise Broken(f"{len(wrong)} retries did not complete: {wrong[:5]}")
    run.cluster.effects.read()
    runs = Counter(
        (one.execution_id, one.key.partition("#")[0]) for one in run.cluster.effects.all if one.what == "end"
    )
    twice = [what for what, times in runs.items() if times > 1]
    again = [id for id in made if runs[id, "advance"]]
    never = [id for id in made if runs[id, "mended"] != 1]
    if twice or again or never:
        raise Broken(f"steps ran twice: {twice[:5]}; recorded steps again: {again[:5]}; never: {never[:5]}")
    run.figures["retries"] = f"{len(made)}, {job.per_second or 0:.0f} a second"


async def _taken(run: Run) -> int:
    [[taken]] = await run.database.rows("SELECT done + refused FROM bulk_jobs")
    return int(taken)


async def _until_taken(run: Run, amount: int) -> None:
    async def far() -> bool:
        return await _taken(run) >= amount

    await until(far, TURN_SECONDS, f"the job has taken {amount}")


async def _stop_and_continue(run: Run, client: Client, job: BulkJob) -> int:
    """Stop and continue the job. Returns how many executions the job had taken at the stop."""
    stopped = await client.bulk.stop(job.id)
    counts = await _taken(run)
    await asyncio.sleep(STILL_SECONDS)
    if (stopped.done + stopped.refused, await _taken(run)) != (counts, counts):
        raise Broken(f"after the stop it went on: {stopped.done}, {counts}, {await _taken(run)}")
    run.note(f"stopped after {counts}")
    await client.bulk.continue_job(job.id)
    return counts


async def _ended(client: Client, job: BulkJob) -> BulkJob:
    async with asyncio.timeout(TURN_SECONDS):
        while job.state is JobState.RUNNING:
            await asyncio.sleep(0.1)
            job = await client.bulk.get(job.id)
    return job
