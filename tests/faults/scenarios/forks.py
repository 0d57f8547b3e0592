"""A server dies before each statement of a fork and of a retry, and at each point around their commits.

After each death the store has no fork of the request, or a whole fork. The client repeats the request under the same
Idempotency-Key until a server answers; then the request has made a single fork.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

import httpx2
from tests.faults import app
from tests.faults.failing import IN_FORK, POINTS
from tests.faults.run import TURN_SECONDS, Broken, ProvesTooLittle, Run
from tests.kit.polling import until

from perdure import Client
from perdure.wire.base.status import Phase

FAILING = [sys.executable, "-m", "tests.faults.failing"]
KILLED = -9
STATEMENTS_MAX = 100
"""All forks of the run have fewer statements."""
N, ANSWER, EDITED, BELOW = 7, 11, 13, 17
CHILDREN = "SELECT id FROM executions WHERE parent_execution_id = '{}'"
KEPT = (
    "SELECT seq, key, at_us, attempt FROM journal WHERE execution_id = '{}' AND seq <= "
    "(SELECT kept_rows FROM executions WHERE id = '{}') ORDER BY seq"
)
WRITTEN = """
SELECT (SELECT COUNT(*) FROM acts WHERE execution_id = e.id AND seq = e.kept_rows + 1),
  (SELECT COUNT(*) FROM journal WHERE execution_id = e.id AND seq = e.kept_rows + 1 AND kind = 'forked'),
  (SELECT COUNT(*) FROM idempotency WHERE key = '{key}' AND executions LIKE '%' || e.id || '%'),
  (SELECT COUNT(*) FROM waits WHERE execution_id = e.id AND state = 'met'),
  (SELECT COUNT(*) FROM executions c WHERE c.parent_execution_id = e.id),
  (SELECT COUNT(*) FROM executions o WHERE o.retried_as = e.id)
FROM executions e WHERE e.id = '{id}'"""
WHOLE = {"fork": (1, 1, 1, 1, 1, 0), "retry": (1, 1, 1, 0, 0, 1)}
"""Counts of `WRITTEN` for a fork: the act, its row, its answer, the kept wait, the child, the retried execution."""


class Asked(NamedTuple):
    """A request that makes a single fork, however often the request comes."""

    verb: str
    source: str
    key: str
    body: dict[str, Any]


async def forks(run: Run) -> None:
    cluster = await run.start_cluster(
        servers=1, workers=1, capacity=20, step_seconds=0.0, settings={"lease_seconds": 4.0}
    )
    client = run.client(patience_seconds=TURN_SECONDS)
    source = await _waits_for_its_child(run, client)
    failed = await _failed(run, client, 1 + len(POINTS))
    cluster.servers[0].program = FAILING
    plans = [[f"{IN_FORK}:{at}" for at in range(1, STATEMENTS_MAX, run.pick(7, 4, 1))]]
    plans += [[f"{point}:1:fork"] for point in POINTS]
    made: list[str] = []
    deaths: Counter[str] = Counter()
    for n, plan in enumerate(plans):
        edited = {"from_step": "advance#2", "edits": {"steps": {"answer": EDITED}}, "key": f"fork-{n}"}
        for asked in (Asked("fork", source, f"fork-{n}", edited), Asked("retry", failed[n], f"retry-{n}", {})):
            id, died = await _until_answered(run, asked, plan)
            made.append(id)
            deaths[asked.verb] += died
    await _complete(run, client, source, made)
    run.figures["deaths"] = dict(deaths)
    verdict = await run.finish()
    least = run.pick(4, 6, 16)
    if min(deaths[verb] for verb in WHOLE) < least:
        raise ProvesTooLittle(f"it died less than {least} times in a fork or in a retry: {deaths}")
    run.demand(verdict, faults=2 * least)


async def _waits_for_its_child(run: Run, client: Client) -> str:
    """An execution that has done all but wait for its child."""
    handle = await client.start(app.forkable, N, key="source")
    await handle.resume("answer", ANSWER)

    async def has_come_far() -> bool:
        [[rows]] = await run.database.rows(
            f"SELECT COUNT(*) FROM journal WHERE execution_id = '{handle.id}' AND key = 'advance#2' AND kind = 'step'"
        )
        return bool(rows)

    await until(has_come_far, TURN_SECONDS, "the second step is recorded")
    return handle.id


async def _failed(run: Run, client: Client, amount: int) -> list[str]:
    handles = [await client.start(app.mendable, 5 * n, key=f"mendable-{n}") for n in range(amount)]
    for handle in handles:
        await run.ended(handle)
    (run.folder / "mended").touch()
    return [handle.id for handle in handles]


async def _until_answered(run: Run, asked: Asked, plan: list[str]) -> tuple[str, int]:
    """Ask a server that dies at the first point, then a server that dies at the next, until a server answers. Returns
    the fork, and the number of deaths."""
    [server] = run.cluster.servers
    before = await _forks_of(run, asked)
    for died, point in enumerate([*plan, ""]):
        server.kill()
        server.environment["FAULTS_FAILPOINT"] = point
        server.start()
        await run.cluster.until_ready(server)
        told = await _ask(run, asked)
        if told is None:
            if (code := await server.ended()) != KILLED:
                raise Broken(f"the server ended with {code} and not at {point}:\n{server.said()}")
            run.hit(f"server died {point} of {asked.key}", [], time.time_ns() // 1_000)
        made = await _forks_of(run, asked) - before
        if len(made) > 1 or (told is not None and made != {told}):
            raise Broken(f"{asked} was told {told}, and the store has {made}")
        await _check_whole(run, asked, made)
        if told is not None:
            return told, died
    raise Broken(f"{asked} has no answer from a server that lives")


async def _ask(run: Run, asked: Asked) -> str | None:
    """None: no answer came."""
    headers = {"Authorization": f"Bearer {run.cluster.key}", "Idempotency-Key": asked.key}
    path = f"/api/v1/executions/{asked.source}/{asked.verb}"
    async with httpx2.AsyncClient(base_url=run.cluster.servers[0].url, timeout=TURN_SECONDS) as http:
        try:
            answer = await http.post(path, json=asked.body, headers=headers)
        except httpx2.TransportError:
            return None
    if answer.status_code >= 300:
        raise Broken(f"{asked} was refused: {answer.text}")
    return str(answer.json()["execution_id"])


async def _forks_of(run: Run, asked: Asked) -> set[str]:
    rows = await run.database.rows(f"SELECT id FROM executions WHERE forked_from = '{asked.source}'")
    return {id for (id,) in rows}


async def _check_whole(run: Run, asked: Asked, made: set[str]) -> None:
    """Check that nothing is half done, and that the made fork has everything that belongs to a fork."""
    orphans = await run.database.rows(
        "SELECT id FROM executions c WHERE parent_execution_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM executions p WHERE p.id = c.parent_execution_id)"
    )
    answers = await run.database.rows(f"SELECT key FROM idempotency WHERE key = '{asked.key}'")
    if orphans or len(answers) != len(made):
        raise Broken(f"{asked} has made {made}, {len(answers)} answers and children without a parent: {orphans}")
    for id in made:
        [counts] = await run.database.rows(WRITTEN.format(id=id, key=asked.key))
        kept = await run.database.rows(KEPT.format(id, id))
        children = await run.database.rows(CHILDREN.format(id))
        started = await run.database.rows(
            f"SELECT value FROM journal WHERE execution_id = '{id}' AND kind = 'child_started'"
        )
        if [json.loads(value) for (value,) in started] != [child for (child,) in children]:
            raise Broken(f"{asked} has made {id}, whose journal starts {started}, and the store has {children}")
        if tuple(counts) != WHOLE[asked.verb] or not kept:
            raise Broken(f"{asked} has made {id} with {counts} of {WHOLE[asked.verb]}, {len(kept)} rows kept")
        if kept != await run.database.rows(KEPT.format(asked.source, id)):
            raise Broken(f"{asked} has made {id}, whose kept rows are not those of its source: {kept}")


async def _complete(run: Run, client: Client, source: str, made: list[str]) -> None:
    """Check that each fork's result follows from the fork's kept and edited outcomes."""
    for id in [source, *made]:
        for (child,) in await run.database.rows(CHILDREN.format(id)):
            await client.resume(child, "answer", BELOW)
        end = await run.ended(client.handle(id))
        if end.workflow_id == app.forkable.name:
            wanted = app.expected_forkable(N, ANSWER if id == source else EDITED, BELOW)
        else:
            wanted = app.expected_mendable(json.loads(bytes(end.payload)))
        if end.phase is not Phase.COMPLETED or json.loads(bytes(end.result or b"null")) != wanted:
            raise Broken(f"{end} did not come to {wanted}")
