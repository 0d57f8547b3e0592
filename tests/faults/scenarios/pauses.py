"""Pauses under load, with servers killed: no claim after the reply, and each execution goes on after the end."""

from __future__ import annotations

from datetime import timedelta

from tests.faults.app import expected_nap, five_steps, nap
from tests.faults.run import TURN_SECONDS, Broken, ProvesTooLittle, Run
from tests.kit.polling import until

from perdure import Client
from perdure.wire.base.errors import BadValue
from perdure.wire.runs.queues import PauseKind

NAME = five_steps.name
OF_IT = f"e.workflow_id = '{NAME}'"
CLAIMS = (
    f"SELECT COUNT(*) FROM journal j JOIN executions e ON e.id = j.execution_id WHERE j.kind = 'claimed' AND {OF_IT}"
)
QUEUED = (
    "SELECT COUNT(*), COALESCE(SUM(CASE WHEN e.gate > 1 THEN 1 ELSE 0 END), 0) FROM executions e "
    f"WHERE e.phase = 'queued' AND {OF_IT}"
)
HELD_MIN = 20
"""Fewer executions that wait at a pause prove little."""


async def pauses(run: Run) -> None:
    rounds = run.pick(3, 9, 30)
    cluster = await run.start_cluster(
        servers=4, workers=4, capacity=4, step_seconds=0.02, settings={"lease_seconds": 4.0}
    )
    client = run.client(patience_seconds=TURN_SECONDS)
    load = run.load(open_max=200)
    run.begin(load)
    held: list[int] = []
    for n in range(rounds):
        await run.progress(20)
        kind = run.chance.choice((PauseKind.QUEUE, PauseKind.WORKFLOW))
        ends = timedelta(seconds=3) if n % 3 == 1 else None
        await _pause(client, kind, ends, f"round {n}")
        claims = await _number(run, CLAIMS)
        run.note(f"{kind} paused after {claims} claims")
        if n % 3 == 2:
            await run.kill_server(amid_a_step=False)  # behind a pause none may run
        await _another_goes_on(client, n)
        if ends is None:
            after = await _number(run, CLAIMS)
            if after != claims:
                raise Broken(f"round {n}: {after - claims} executions were handed out after the reply to the pause")
        [[queued, _]] = await run.database.rows(QUEUED)
        held.append(int(queued))
        if ends is None:
            ended = await client.unpause(kind, NAME)
            if not ended.was_paused:
                raise Broken(f"round {n}: the pause had ended by itself")

        async def goes_on(claims: int = claims) -> bool:
            return await _number(run, CLAIMS) > claims

        await until(goes_on, TURN_SECONDS, "executions are handed out again")
        for server in cluster.servers:
            await cluster.until_ready(server)
    await run.stop_loads()
    await until(lambda: _none_left(run), TURN_SECONDS, "the pauses and their numbers are gone")
    verdict = await run.finish()
    run.figures["held at once"] = f"{min(held)} to {max(held)}"
    if max(held) < HELD_MIN:
        raise ProvesTooLittle(f"at most {max(held)} executions waited")
    run.demand(verdict, completed=100, faults=rounds // 3)


async def _pause(client: Client, kind: PauseKind, ends: timedelta | None, note: str) -> None:
    """Pause, with a later end if a slow machine let the first end pass before the request arrived."""
    while True:
        try:
            await client.pause(kind, NAME, until=ends, note=note)
            return
        except BadValue:
            if ends is None:
                raise


async def _number(run: Run, sql: str) -> int:
    [[number]] = await run.database.rows(sql)
    return int(number)


async def _none_left(run: Run) -> bool:
    left = await _number(run, "SELECT COUNT(*) FROM pauses")
    [[_, marked]] = await run.database.rows(QUEUED)
    return not left and not marked


async def _another_goes_on(client: Client, n: int) -> None:
    """An execution outside the pause ends within the pause. The execution takes more than a second."""
    handle = await client.start(nap, n, key=f"beside-{n}")
    result = await handle.result(timeout=TURN_SECONDS)
    if result != expected_nap(n):
        raise Broken(f"round {n}: the execution beside the pause came to {result!r}")
