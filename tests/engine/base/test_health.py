"""Refused writes count for whether the store takes writes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest
from tests.store.disk import watched_disk
from tests.store.locks import held

from perdure.engine.engine import Engine
from perdure.engine.loops import Loop, Loops
from perdure.store.base.interface import Notify, Trouble, verb
from perdure.store.open import open_store
from perdure.store.verbs.base import access
from perdure.wire.base.errors import Unavailable


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe may take its time on a slow machine. A probe that waits for a lock is refused after eight seconds."""
    monkeypatch.setattr("perdure.engine.engine.PROBE_SECONDS_MAX", 60.0)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(await open_store(":memory:"))
    await engine.start()
    yield engine
    await engine.stop()


async def test_a_store_that_refused_a_change_is_well_again_with_the_first_write_of_some_size(tmp_path: Path) -> None:
    """A small write may find room on a nearly full disk."""
    with watched_disk() as disk:
        engine = Engine(await open_store(path := str(tmp_path / "s.db")))
        await engine.health()
        reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)  # while it reads, the log cannot begin anew
        reader.execute("BEGIN; SELECT * FROM meta").fetchall()
        disk.full_from, disk.full_after = "-wal", os.path.getsize(f"{path}-wal") + 20_000
        with pytest.raises(Unavailable):
            await engine.store.write(access.touch(now_us=0, ballast="x" * 100_000))
        await engine.store.write(access.touch(now_us=0))
        for _ in range(2):
            with pytest.raises(Unavailable, match="no space left"):
                await engine.health()
        reader.close()
        disk.full_from = None
        await engine.health()
        disk.full_from, disk.full_after = "-wal", os.path.getsize(f"{path}-wal") + 20_000
        await engine.health()
        await engine.store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")
async def test_a_probe_that_another_server_kept_from_being_written_tells_nothing(url: str) -> None:
    engine = Engine(await open_store(url))
    await engine.health()
    await engine.store.write(_in_trouble())
    async with held(url, "meta", "touched_at_us"):
        with pytest.raises(Unavailable, match="has just refused a change"):
            await engine.health()
    await engine.health()
    await engine.store.close()


@verb(locks="")
async def _in_trouble() -> None:
    await Notify(Trouble("no space left"))


async def test_an_outage_is_one_line_however_many_loops_meet_it(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = {"one": 0, "two": 0}
    over = asyncio.Event()

    def loop(name: str) -> Loop:
        async def round() -> float:
            engine.notifier.notify(("loop", name))  # the next round comes at once
            rounds[name] += 1
            await asyncio.sleep(0)
            if rounds[name] <= 5:
                raise Unavailable("The database is away.")
            if min(rounds.values()) > 7:
                over.set()
            return 60.0

        return Loop(name, round)

    runner = Loops(engine.notifier)
    tasks = [asyncio.create_task(runner.run(loop(name))) for name in rounds]
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == [
        "Loop one: The database is away. The loops try again every second.",
        "The store answers all loops again.",
    ]


async def test_a_loop_that_meets_the_end_of_the_interpreter_ends_quietly(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def round() -> float:
        await asyncio.get_running_loop().run_in_executor(ended, len, "")
        return 0.0

    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    await Loops(engine.notifier).run(Loop("fold", round))
    assert caplog.records == []


@pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")
async def test_a_row_that_somebody_has_locked_makes_no_server_unwell(url: str) -> None:
    engine = Engine(await open_store(url))
    await engine.health()
    async with held(url, "meta", "touched_at_us"):
        await engine.health()
    await engine.store.close()
