"""A server frozen between its statements and COMMIT holds row locks: the database ends the server's session."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import asyncpg
import pytest
from tests.kit.polling import until
from tests.store.world import World, step

from perdure.store.drivers.postgres import PostgresStore
from perdure.wire.runs.requests import Complete, StartItem

ROOT = Path(__file__).resolve().parents[2]

FREEZER = """
import asyncio, json, os, signal, sys
import asyncpg
from tests.store.world import World
from perdure.store.drivers.postgres import PostgresStore
from perdure.wire.runs.requests import StartItem

real = asyncpg.Connection.execute
frozen = False

async def execute(self, text, *values, **rest):
    global frozen
    if text == "COMMIT" and armed and not frozen:
        frozen = True
        print("freezing", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return await real(self, text, *values, **rest)

async def main():
    global armed
    armed = False
    store = await PostgresStore.open(sys.argv[1])
    world = World(store)
    world._ids = 1_000_000
    await world.register("frozen")
    asyncpg.Connection.execute = execute
    armed = True
    if sys.argv[2] == "claim":
        answer = await world.claim_ids("frozen", capacity=3)
    else:
        answer = str(await world.cancel(sys.argv[3]))
    print(json.dumps(answer), flush=True)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="freezes a process by a signal")
@pytest.mark.parametrize("what", ["claim", pytest.param("cancel", marks=pytest.mark.slow)])
async def test_rows_locked_by_a_frozen_server_are_free_within_its_transaction_s_timeout(url: str, what: str) -> None:
    store = await PostgresStore.open(url)
    world = await World.make(store)
    await world.register()
    ids = await world.start_all([StartItem("wf") for _ in range(3)])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FREEZER, url, what, ids[0], cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"freezing\n"
        claimed = await world.claim_ids()
        assert store._lock_queue._task is None  # what is locked is passed over, not waited for
        if await _sessions(url):  # a slow machine may claim after the time-out
            assert sorted(claimed) == ([] if what == "claim" else sorted(ids[1:]))

        async def all_claimed() -> bool:
            claimed.extend(await world.claim_ids())
            return len(claimed) == 3

        await until(all_claimed)
        assert sorted(claimed) == sorted(ids)
        assert await _sessions(url) == []
        process.send_signal(signal.SIGCONT)
        answer = json.loads(await process.stdout.readline())
        # What it had done was taken back, so it was done again, on what is there now.
        assert answer == ([] if what == "claim" else "cancelling")
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    for id in ids if what == "claim" else ids[1:]:
        assert (await world.report(id, [step("s", 1)], end=Complete(step("x", 1).value))).ended
    await world.check()
    await store.close()


async def _sessions(url: str) -> list[str]:
    """Sessions idle in a transaction."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
        )
        return [str(row[0]) for row in rows]
    finally:
        await connection.close()
