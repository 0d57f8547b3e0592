"""The process ends, gracefully or by SIGKILL, and the next process continues."""

import asyncio
import collections
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.embedded import downloads, survivor
from tests.embedded.house import Counter, House, keys_of, reaches, rows_of
from tests.kit.polling import until

from perdure.embedded import embedded
from perdure.engine.base.clock import ManualClock
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.store.drivers.file_lock import StoreInUse
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


def life(count: Counter) -> Registry:
    app = Registry()

    @app.workflow
    async def child(ctx: Context) -> str:
        await ctx.step("child", count, "child")
        await ctx.wait_for_event("child")
        return "child"

    @app.workflow
    async def whole(ctx: Context) -> list[object]:
        seen: list[object] = [await ctx.step("before", count, "before")]
        await ctx.sleep(3_600)
        seen.append(await ctx.step("slept", count, "slept"))
        seen.append((await ctx.wait_for_event("event")).data)
        seen.append(await ctx.suspend("answer"))
        seen.append(await ctx.run_child(child))
        seen.append(await ctx.step("after", count, "after"))
        return seen

    return app


async def test_the_process_is_restarted_in_the_middle_of_every_kind_of_wait(house: House, count: Counter) -> None:
    clock = ManualClock()
    async with house.open(life(count), clock=clock) as p:
        id = (await p.start("whole")).id
        await reaches(p.handle(id), Phase.WAITING)
    clock.advance(3_601)  # due while nobody is there
    async with house.open(life(count), clock=clock) as p:
        await until(lambda: count["slept"] == 1)
        await reaches(p.handle(id), Phase.WAITING)
    async with house.open(life(count), clock=clock) as p:
        await p.publish("event", "e")

        async def asks() -> bool:
            return "event" in await keys_of(p.handle(id), Kind.EVENT)

        await until(asks)
        await reaches(p.handle(id), Phase.WAITING)
    async with house.open(life(count), clock=clock) as p:
        await p.resume(id, "answer", "a")
        await until(lambda: count["child"] == 1)
        await reaches(p.handle(id), Phase.WAITING)
    async with house.open(life(count), clock=clock) as p:
        await p.publish("child", None)
        assert await p.handle(id).result() == [1, 1, "e", "a", "child", 1]
    assert set(count.runs.values()) == {1}


async def test_what_was_accepted_and_not_yet_run_runs_after_the_restart(house: House, count: Counter) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def later(ctx: Context, n: int) -> int:
        return n

    async with house.open(app, clock=clock) as p:
        ids = [(await p.start(later, n, delay=60)).id for n in range(20)]
    clock.advance(61)
    async with house.open(app, clock=clock) as p:
        assert [await p.handle(id).result() for id in ids] == list(range(20))


async def test_a_drain_lets_steps_end_and_loses_nothing(house: House, count: Counter) -> None:
    app = Registry()
    begun, go = asyncio.Event(), asyncio.Event()

    @app.workflow
    async def busy(ctx: Context, n: int) -> int:
        async def slow() -> int:
            count(f"slow {n}")
            begun.set()
            await go.wait()
            return n

        async def slower() -> int:
            count(f"slower {n}")
            await go.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            return n

        both = await asyncio.gather(ctx.step("slow", slow), ctx.step("slower", slower))
        return sum(both) + await ctx.step("after", count, f"after {n}")

    async def open_the_gate() -> None:
        await until(lambda: all(runner._releasing for runner in p.worker._running.values()))
        go.set()

    async with house.open(app) as p:
        ids = [(await p.start(busy, n)).id for n in range(20)]
        await begun.wait()
        await until(lambda: len(count.runs) == 40)
        opening = asyncio.create_task(open_the_gate())
    await opening
    assert not any(name.startswith("after") for name in count.runs)
    async with house.open(app) as p:
        assert [await p.handle(id).result() for id in ids] == [2 * n + 1 for n in range(20)]
        kinds = [row.kind for row in await rows_of(p.handle(ids[0]))]
        assert Kind.RELEASED in kinds and Kind.LOST not in kinds
    assert set(count.runs.values()) == {1}


async def test_steps_that_outlast_the_grace_are_handed_back_and_run_again(house: House, count: Counter) -> None:
    app = Registry()
    stuck = True

    @app.workflow
    async def endless(ctx: Context) -> int:
        async def body() -> int:
            if count("body") and stuck:
                await asyncio.Event().wait()
            return 7

        return await ctx.step("body", body)

    async with house.open(app, grace_seconds=0.01) as p:
        id = (await p.start(endless)).id
        await until(lambda: count["body"] == 1)
    stuck = False
    async with house.open(app) as p:
        assert await p.handle(id).result() == 7
        kinds = [row.kind for row in await rows_of(p.handle(id))]
        assert Kind.RELEASED in kinds and Kind.LOST not in kinds
    assert count["body"] == 2


async def test_a_second_process_is_refused_while_the_file_is_open(tmp_path: Path) -> None:
    """A PostgreSQL is shared, see test_shared.py."""
    house = House(str(tmp_path / "perdure.db"), parks=True)
    async with house.open(Registry()):
        with pytest.raises(StoreInUse):
            async with embedded(house.address, Registry()):
                pass
    async with house.open(Registry()):
        pass


def killed_and_restarted(store: str, side: Path, executions: int, kills: int, seed: int) -> tuple[str, list[str]]:
    """Run survivor.py to the end, with kills on the way. Returns the printed results and the lines of the side file."""
    command = [sys.executable, survivor.__file__, store, str(side), str(executions)]
    chance = random.Random(seed)
    lines = executions * 2 * survivor.STEPS
    for turn in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        wanted = lines * (turn + 1) // (kills + 1) + chance.randrange(10)
        while process.poll() is None and (len(side.read_text().splitlines()) if side.exists() else 0) < wanted:
            time.sleep(0.002)
        process.kill()
        process.communicate()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, side.read_text().splitlines()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_process_loses_nothing_and_no_recorded_step_runs_again(
    database: str, tmp_path: Path, seed: int
) -> None:
    executions, kills = 20, 3
    printed, lines = killed_and_restarted(database, tmp_path / "side.txt", executions, kills, seed)
    each = sum(range(survivor.STEPS))
    assert printed.splitlines() == ["started", " ".join([str(2 * each + 1000)] * executions)]
    runs = collections.Counter(lines)
    assert set(runs) == {
        f"e{n}{suffix} {step}" for n in range(executions) for suffix in ("", "-child") for step in range(survivor.STEPS)
    }
    asyncio.run(_compare_with_journals(database, runs))


async def _compare_with_journals(store: str, runs: collections.Counter[str]) -> None:
    """A body may run once more for each attempt lost before the outcome was recorded, and never after the record."""
    async with embedded(store, survivor.app) as p:
        page = await p.list(limit=500)
        repeats = 0
        for execution in page.executions:
            rows = await p.journal(execution.id)
            name = execution.input
            recorded = [row for row in rows if row.kind is Kind.STEP]
            assert len(recorded) == survivor.STEPS
            previous = 0
            for row in recorded:
                ran = runs[f"{name} {bytes(row.value).decode()}"]
                losses = sum(1 for other in rows if other.kind is Kind.LOST and previous < other.seq < row.seq)
                assert 1 <= ran <= 1 + losses
                repeats += ran - 1
                previous = row.seq
        assert repeats <= len(page.executions) * 3


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_downloads_of_a_set_keep_their_bodies_when_another_process_goes_on(tmp_path: Path) -> None:
    for run in range(20):
        command = [sys.executable, downloads.__file__, str(tmp_path / f"{run}.db")]
        for life in ("killed", "whole"):
            seed = {**os.environ, "PYTHONHASHSEED": str(2 * run + (life == "whole") + 1)}
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=seed)
            assert process.stdout is not None
            assert process.stdout.readline() == "downloaded\n"
            if life == "killed":
                process.kill()
            printed, _ = process.communicate("go\n" if life == "whole" else None)
        assert printed == " ".join(f"{url}=body of {url}" for url in sorted(downloads.URLS)) + "\n"
