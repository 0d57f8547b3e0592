"""Embedded processes that share a PostgreSQL: each has a lease, and a dead process's executions go to another."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests import postgres
from tests.databases import migrated
from tests.kit.polling import until

from perdure.embedded import embedded
from perdure.engine.base.settings import EngineSettings
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no PostgreSQL is started there")

SHORT = EngineSettings(lease_seconds=2.0)

DIES = """
import asyncio, sys
from perdure.embedded import embedded
from perdure.engine.base.settings import EngineSettings
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry

app = Registry()

@app.workflow
async def two(ctx: Context) -> str:
    first = await ctx.step("first", lambda: "first, by the one that dies")
    print("recorded", flush=True)
    async def for_ever() -> str:
        await asyncio.Event().wait()
    return first + await ctx.step("second", for_ever)

async def main():
    async with embedded(sys.argv[1], app, settings=EngineSettings(lease_seconds=2.0)) as p:
        print((await p.start(two)).id, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with postgres.fresh(migrated) as url:
        yield url


def app() -> Registry:
    app = Registry()

    @app.workflow
    async def two(ctx: Context) -> str:
        first = await ctx.step("first", lambda: "not run again")
        return first + await ctx.step("second", lambda: ", second")

    return app


async def test_what_a_killed_process_held_goes_to_another(url: str, tmp_path: Path) -> None:
    program = tmp_path / "dies.py"
    program.write_text(DIES)
    first = subprocess.Popen([sys.executable, str(program), url], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        id = (await asyncio.to_thread(first.stdout.readline)).strip()
        assert (await asyncio.to_thread(first.stdout.readline)).strip() == "recorded"
        async with embedded(url, app(), settings=SHORT) as p:
            first.kill()
            assert await p.handle(id).result() == "first, by the one that dies, second"
            kinds = [row.kind for row in await p.journal(id)]
        assert kinds.count(Kind.LOST) == 1
        assert kinds.count(Kind.STEP) == 2
    finally:
        first.kill()
        await asyncio.to_thread(first.communicate)


async def test_a_second_process_takes_nothing_from_one_that_runs(url: str) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    busy = Registry()

    @busy.workflow
    async def two(ctx: Context) -> str:
        async def wait() -> str:
            entered.set()
            await leave.wait()
            return "whole"

        return await ctx.step("wait", wait)

    async with embedded(url, busy, settings=SHORT) as one:
        handle = await one.start("two")
        await entered.wait()
        async with embedded(url, app(), settings=SHORT):
            lease = one.worker.lease
            assert lease is not None
            first = lease._deadline
            await until(lambda: lease._deadline > first + 2 * SHORT.lease_seconds)  # two leases' worth of chances
            leave.set()
            assert await handle.result() == "whole"
        assert Kind.LOST not in [row.kind for row in await one.journal(handle.id)]
