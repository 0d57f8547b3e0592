"""A bulk job is stopped and continued, and its server is killed half-way: each execution is taken once."""

from __future__ import annotations

import asyncio
import time

from tests.faults.cluster import until
from tests.faults.run import TURN_SECONDS, Broken, Run

from perdure import Client
from perdure.wire.bulk import BulkJob, JobState
from perdure.wire.executions import ListFilters

STILL_SECONDS = 1.0
"""How long a stopped job is watched."""
TAKEN = "SELECT done + refused FROM bulk_jobs"


async def bulk(run: Run) -> None:
    amount = run.pick(400, 600, 1_000)
    cluster = run.make_cluster(servers=2, workers=0)
    await cluster.start()
    client = run.client(patience_seconds=TURN_SECONDS)
    wanted = await _started(client, "five_steps", amount)
    others = await _started(client, "nap", 4 * amount)
    filters = ListFilters(workflow_id="five_steps")
    found = await client.bulk.preview("cancel", filters)
    if found.count != amount or len(found.sample) != 20:
        raise Broken(f"the dry run says {found.count}, not {amount}, and shows {len(found.sample)}")
    began = time.monotonic()
    job = await client.bulk.start("cancel", filters, newest=found.newest, expect=found.count)
    await _until_taken(run, amount // 4)
    await _stop_and_continue(run, client, job)
    await _until_taken(run, amount // 2)
    [server, *others_go_on] = cluster.servers  # the first one was asked to continue
    server.kill()
    taken = await _taken(run)
    run.hit(f"{server.name} killed after {taken}", [], time.time_ns() // 1_000)
    if taken == amount:
        raise Broken("the job had ended before the kill: the run proves too little")
    if not others_go_on:
        server.start()
        await cluster.until_ready(server)
    job = await _ended(client, job)
    run.figures["a second"] = f"{amount / (time.monotonic() - began):.0f}"
    if (job.done, job.refused, job.later) != (amount, 0, 0):
        raise Broken(f"{job.done} are done, {job.refused} refused, {job.later} for later, of {amount}")
    items = [id for (id,) in await run.database.rows("SELECT execution_id FROM bulk_items WHERE state = 'done'")]
    ends = [id for (id,) in await run.database.rows("SELECT execution_id FROM journal WHERE kind = 'cancelled'")]
    for what, ids in (("items", items), ("ends", ends)):
        if sorted(ids) != sorted(wanted):
            raise Broken(f"{len(ids)} {what}, of {len(set(ids))} executions, for {amount}")
    [[still]] = await run.database.rows("SELECT COUNT(*) FROM executions WHERE phase = 'queued'")
    if still != len(others):
        raise Broken(f"{still} of {len(others)} other executions are as they were")


async def _started(client: Client, workflow: str, amount: int) -> list[str]:
    handles = await asyncio.gather(*[client.start(workflow, n) for n in range(amount)])
    return [handle.id for handle in handles]


async def _taken(run: Run) -> int:
    [[taken]] = await run.database.rows(TAKEN)
    return int(taken)


async def _until_taken(run: Run, amount: int) -> None:
    async def far() -> bool:
        return await _taken(run) >= amount

    await until(far, TURN_SECONDS, f"the job has taken {amount}")


async def _stop_and_continue(run: Run, client: Client, job: BulkJob) -> None:
    stopped = await client.bulk.stop(job.id)
    counts = await _taken(run)
    await asyncio.sleep(STILL_SECONDS)
    if (stopped.done + stopped.refused, await _taken(run)) != (counts, counts):
        raise Broken(f"after the stop it went on: {stopped.done}, {counts}, {await _taken(run)}")
    run.note(f"stopped after {counts}")
    await client.bulk.continue_job(job.id)


async def _ended(client: Client, job: BulkJob) -> BulkJob:
    async with asyncio.timeout(TURN_SECONDS):
        while job.state is JobState.RUNNING:
            await asyncio.sleep(0.1)
            job = await client.bulk.get(job.id)
    return job
