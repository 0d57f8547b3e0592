"""Workers are killed at random while agents run, with tools and approvals: no recorded call is made again.

Calls of models are counted by the provider, those of tools by the effect log; neither is ever killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from tests.agents.asking import signature
from tests.agents.provider import Call, read_log
from tests.embedded.house import answer_when_asked
from tests.faults import agents_app
from tests.faults.cluster import Node
from tests.faults.run import TURN_SECONDS, Broken, Run
from tests.ports import free_port

from perdure.sdk.clients.client import Handle


async def agents(run: Run) -> None:
    executions = run.pick(20, 40, 300)
    kills = run.pick(4, 8, 100)  # and as many on the other database
    log = run.folder / "provider.jsonl"
    scripts = run.folder / "scripts.json"
    scripts.write_text(json.dumps(agents_app.SCRIPTS))
    port = free_port()
    provider = Node("provider", run.folder, ["--scripts", str(scripts), "--log", str(log), "--port", str(port)], {})
    provider.program = [sys.executable, "-m", "tests.agents.provider"]
    provider.start()
    try:
        cluster = run.make_cluster(
            servers=2,
            workers=3,
            capacity=6,
            app="tests.faults.agents_app",
            settings={"lease_seconds": 4.0, "poll_seconds_max": 2},
            environment={"FAULTS_PROVIDER": f"http://127.0.0.1:{port}/v1"},
        )
        await cluster.start()
        await run.client(patience_seconds=TURN_SECONDS).budgets.put("all", per="project", tokens=1_000_000_000)
        load = run.load(agents_app.order, agents_app.expected, open_max=24, also=approve, may_be_poisoned=True)
        loading = asyncio.create_task(load.run(executions))
        for n in range(kills):
            # Half of them while a tool runs, the others whenever it comes: most likely while a model is asked.
            await run.progress(int(run.chance.uniform(0.5, 1.5) * executions * 3 * 0.8 / kills))
            await (run.kill_worker() if n % 2 else kill_any(run))
        await loading
        verdict = await run.finish()
        await run.check_given_up(load)
        await check_calls(run, read_log(log), load.poisoned)
    finally:
        provider.kill()
    run.demand(verdict, faults=kills, completed=executions - executions // 20, rows_lost=kills // 3)


async def approve(handle: Handle[Any], n: int) -> None:
    """Allow the refund once the agent asks. An answer that comes before the question does not count."""
    await answer_when_asked(handle, agents_app.APPROVAL, {"approved": True})


async def kill_any(run: Run) -> None:
    """SIGKILL a random worker, and start another in its place."""
    worker = run.chance.choice([worker for worker in run.cluster.workers if worker.alive])
    at_us = time.time_ns() // 1_000
    worker.kill()
    run.hit("worker killed", run.cluster.effects.in_flight([worker.pid]), at_us)
    worker.start()


async def check_calls(run: Run, calls: list[Call], given_up: Collection[str]) -> None:
    """Check that no model call was made after the recorded outcome, nor more often than the attempt was lost.
    Executions given up may have made a call without a recorded outcome."""
    recorded = {
        (execution_id, key): (attempt, at_us)
        for execution_id, key, attempt, at_us in await run.database.rows(
            "SELECT execution_id, key, attempt, at_us FROM journal WHERE kind = 'step' AND name = 'model.request'"
        )
    }
    lost = dict(
        await run.database.rows(
            "SELECT execution_id, COUNT(*) FROM journal WHERE kind IN ('lost', 'released') GROUP BY execution_id"
        )
    )
    made: Counter[tuple[str, str]] = Counter()
    again: list[str] = []
    for call in calls:
        if call.what != "begin":
            continue
        execution_id, attempt, key = signature(call)
        made[execution_id, key] += 1
        if (execution_id, key) not in recorded and execution_id in given_up:
            continue
        by, at_us = recorded[execution_id, key]
        if attempt > by or call.at_us > at_us:
            again.append(f"{call} was recorded by attempt {by} at {at_us}")
    often = [f"{key} {times} times" for key, times in made.items() if times > 1 + lost.get(key[0], 0)]
    repeated = made.total() - len(made)
    run.figures["calls of the model"] = f"{made.total()}, of which {repeated} again because they were in flight"
    if again or often:
        raise Broken(f"recorded calls were made again: {again[:3]}; more often than lost: {often[:3]}")
    if missing := recorded.keys() - made.keys():
        raise Broken(f"{len(missing)} recorded calls were never made")
    sums = "SUM(calls_spent + calls_reserved), SUM(tokens_spent), SUM(tokens_reserved)"
    own, shared = [
        await run.database.rows(f"SELECT {sums} FROM budgets WHERE key {which}") for which in ("IS NULL", "IS NOT NULL")
    ]
    [[counted, spent, reserved]] = own
    run.figures["budgets"] = f"{counted} calls, {spent} tokens spent, {reserved} set aside for calls that were lost"
    if counted < made.total():
        raise Broken(f"the budgets counted {counted} calls of {made.total()} that were made")
    if own != shared:
        raise Broken(f"the shared budget counted {shared}, and those of the executions {own}")
