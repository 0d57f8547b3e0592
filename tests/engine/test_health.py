"""Whether the store takes writes is judged by those that it refuses, too."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
from tests.store.locks import held

from perdure.engine import engine as engines
from perdure.engine.engine import TROUBLE_US, Engine
from perdure.engine.loops import Loop, run_loop
from perdure.store.interface import Tell, Trouble, verb
from perdure.store.open import open_store
from perdure.wire.errors import Unavailable


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(await open_store(":memory:"))
    await engine.start()
    yield engine
    await engine.stop()


@verb
async def _in_trouble() -> None:
    await Tell(Trouble("no space left"))


async def test_a_change_that_was_just_refused_is_held_against_the_store(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small write may find room on a disk that is full for all others."""
    now_us = 10 * TROUBLE_US
    monkeypatch.setattr(engines, "boottime_us", lambda: now_us)
    await engine.health()
    await engine.store.write(_in_trouble())
    with pytest.raises(Unavailable, match="no space left"):
        await engine.health()
    now_us += TROUBLE_US
    await engine.health()


async def test_an_outage_is_one_line_however_many_loops_meet_it(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = {"one": 0, "two": 0}
    over = asyncio.Event()

    def loop(name: str) -> Loop:
        async def round(engine: Engine) -> float:
            engine.doorbell.ring(("loop", name))  # the next round comes at once
            rounds[name] += 1
            await asyncio.sleep(0)
            if rounds[name] <= 5:
                raise Unavailable("The database is away.")
            if min(rounds.values()) > 7:
                over.set()
            return 60.0

        return Loop(name, round)

    tasks = [asyncio.create_task(run_loop(engine, loop(name))) for name in rounds]
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == [
        "Loop one: The database is away. The loops try again every second.",
        "The store answers all loops again.",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")
async def test_a_row_that_somebody_has_locked_makes_no_server_unwell(url: str) -> None:
    engine = Engine(await open_store(url))
    await engine.health()
    async with held(url, "meta", "touched_at_us"):
        await engine.health()
    await engine.store.close()
