"""Workers and the server are killed at random, for real: nothing recorded runs again, nothing is lost (I1 to I4)."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from tests.faults.processes import Processes, expected, five_steps, wait_until

from perdure import Client
from perdure.store.sqlite import SQLiteStore
from perdure.store.verbs import looks
from perdure.wire.records import Kind, Row


async def run_under_fire(folder: Path, executions: int, kills: int, seed: int) -> None:
    """Start many executions, kill processes while they run, then hold everything to what was promised."""
    chance = random.Random(seed)
    processes = Processes(folder, workers=3)
    try:
        client = Client.connect(processes.url, processes.access["key"])
        starting = asyncio.gather(*[client.start(five_steps, n, key=f"e{n}") for n in range(executions)])
        fire = asyncio.to_thread(kill_at_random, processes, kills, chance)
        handles, hits = await asyncio.gather(starting, fire)
        print(f"{hits} of {kills} kills hit a step in flight")  # noqa: T201  # the run's evidence
        assert hits >= 0.6 * kills
        async with asyncio.timeout(240):
            results = await asyncio.gather(*[handle.result() for handle in handles])
        assert results == [expected(n) for n in range(executions)]
        await client.close()
    finally:
        await asyncio.to_thread(processes.stop)
    await check_store(folder, processes, executions)


def kill_at_random(processes: Processes, kills: int, chance: random.Random) -> int:
    """Two of five kills hit the server. Each comes when some work was done and its victim is at work; gives how many
    hit a step in flight all the same (it may end just before the kill)."""
    hits = 0
    for _ in range(kills):
        before = processes.progress()
        grow = chance.randint(200, 4_000)
        wait_until(lambda before=before, grow=grow: processes.progress() > before + grow, 60.0, "work goes on")  # type: ignore[misc]  # bound now
        if chance.random() < 0.4:
            wait_until(lambda: processes.in_flight() > 0, 60.0, "some step runs")
            hits += processes.in_flight() > 0
            processes.kill_server()
        else:
            n = chance.randrange(3)
            pid = processes.workers[n].pid
            wait_until(lambda pid=pid: processes.in_flight(pid) > 0, 60.0, "the victim runs a step")  # type: ignore[misc]  # as above
            hits += processes.in_flight(processes.kill_worker(n)) > 0
    return hits


async def check_store(folder: Path, processes: Processes, executions: int) -> None:
    """What is on disk: no step recorded twice, none run after its record, and every invariant."""
    store = SQLiteStore(str(folder / "perdure.db"))
    try:
        found = await store.read(looks.doctor())
        assert not any(found.values()), found
        project_id = store._reader.execute("SELECT id FROM projects").get
        ids = [row[0] for row in store._reader.execute("SELECT id FROM executions")]
        assert len(ids) == executions
        recorded: dict[tuple[str, str | None], int] = {}
        losses = 0
        for id in ids:
            rows: list[Row] = await store.read(
                looks.journal(project_id=project_id, execution_id=id, after=0, limit=1_000)
            )
            losses += sum(row.kind is Kind.LOST for row in rows)
            recorded.update({(id, row.key): row.attempt for row in rows if row.kind is Kind.STEP})
    finally:
        await store.close()
    begun = [line.split("\t")[1:4] for line in processes.side.read_text().splitlines() if line.startswith("begin")]
    again = [(id, key) for id, key, attempt in begun if int(attempt) > recorded[id, key]]
    assert again == []
    repeats = len(begun) - len(Counter((id, key) for id, key, _ in begun))
    print(f"{losses} executions lost their worker, {repeats} steps in flight ran again, 0 recorded ones")  # noqa: T201  # as above
    assert losses > 0


async def test_kills_lose_nothing_and_repeat_nothing_recorded(tmp_path: Path) -> None:
    await run_under_fire(tmp_path, executions=300, kills=8, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_fifty_kills_of_a_thousand_executions(tmp_path: Path) -> None:
    await run_under_fire(tmp_path, executions=1_000, kills=50, seed=2)
