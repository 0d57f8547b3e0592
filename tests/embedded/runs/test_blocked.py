"""Code that does not match the journal blocks the execution, and the right code unblocks the execution."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.embedded.house import Counter, House, reaches, rows_of

from perdure.embedded import Embedded
from perdure.sdk.base.errors import ExecutionCancelled
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.logs import TOLD
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


def version(count: Counter, steps: list[str], *, strict: bool = False, input: int = 1) -> Registry:
    app = Registry()

    async def body(name: str, n: int) -> str:
        count(name)
        return name

    @app.workflow(strict=strict)
    async def changing(ctx: Context) -> list[str]:
        done = []
        for n, name in enumerate(steps):
            if n == 2:
                await ctx.wait_for_event("go")
            done.append(await ctx.step(name, body, name, input))
        return done

    return app


@contextlib.asynccontextmanager
async def blocked_by(steps: list[str], house: House, count: Counter) -> AsyncIterator[tuple[Embedded, Handle[object]]]:
    """An execution that began with the steps a, b and c."""
    async with house.open(version(count, ["a", "b", "c"])) as p:
        handle = await p.start("changing")
        await reaches(handle, Phase.WAITING)
    async with house.open(version(count, steps)) as p:
        handle = p.handle(handle.id)
        await p.publish("go", None)
        await reaches(handle, Phase.BLOCKED)
        yield p, handle


async def test_diverged_code_blocks_and_a_registration_with_the_right_code_unblocks(
    house: House, count: Counter
) -> None:
    async with blocked_by(["a", "x", "c"], house, count) as (_, handle):
        blocked = (await rows_of(handle))[-1]
        assert blocked.kind is Kind.BLOCKED
        detail = msgspec.json.decode(blocked.value)
        assert detail["recorded"] == {"kind": "step", "key": "b", "name": "b"}
        assert detail["asked"] == {"kind": "step", "key": "x", "name": "x"}
        assert "test_blocked.py:" in detail["source"]
        error = (await handle.get()).error
        assert error is not None and "'b'" in error and "'x'" in error
    assert count["x"] == 0
    async with house.open(version(count, ["a", "b", "c"])) as p:
        assert await p.handle(handle.id).result() == ["a", "b", "c"]
        assert (await p.get(handle.id)).error is None
    assert count.runs == {"a": 1, "b": 1, "c": 1}


async def test_the_fork_that_why_names_goes_on_with_the_code_as_it_is(house: House, count: Counter) -> None:
    async with blocked_by(["a", "x", "c"], house, count) as (p, handle):
        why = await p.why(handle.id)
        [command] = [one for one in why.commands if "fork" in one]
        way = "from 'b' on the code as it is"
        assert way in (why.remedy or "") and f"fork the execution {way}, or cancel" in str(why.facts)
        *start, step = command.split()
        assert start == ["perdure", "fork", handle.id, "--from"]
        fork = await handle.fork(from_step=step)
        assert await fork.result() == ["a", "x", "c"]
    assert count.runs == {"a": 1, "x": 1, "c": 1, "b": 1}


async def test_a_blocked_execution_can_be_cancelled(house: House, count: Counter) -> None:
    async with blocked_by(["z"], house, count) as (_, handle):
        assert (await handle.cancel()).phase is Phase.CANCELLED
        with pytest.raises(ExecutionCancelled):
            await handle.result()


async def test_a_changed_input_is_let_through_unless_the_workflow_is_strict(house: House, count: Counter) -> None:
    for strict, phase in ((False, Phase.COMPLETED), (True, Phase.BLOCKED)):
        async with house.open(version(count, ["a", "b", "c"], strict=strict)) as p:
            handle = await p.start("changing")
            await reaches(handle, Phase.WAITING)
        async with house.open(version(count, ["a", "b", "c"], strict=strict, input=2)) as p:
            await p.publish("go", None)
            await reaches(p.handle(handle.id), phase)


async def test_a_workflow_that_left_the_registry_blocks_until_it_is_back(house: House, count: Counter) -> None:
    async with house.open(version(count, ["a", "b", "c"])) as p:
        handle = await p.start("changing")
        await reaches(handle, Phase.WAITING)
    async with house.open(Registry()) as p:
        await p.publish("go", None)
        await reaches(p.handle(handle.id), Phase.BLOCKED)
        error = (await p.get(handle.id)).error
        assert error is not None and "'changing' is not in this worker's registry" in error
    async with house.open(version(count, ["a", "b", "c"])) as p:
        assert await p.handle(handle.id).result() == ["a", "b", "c"]


async def test_a_later_registration_of_another_workflow_unblocks_in_the_same_process(
    house: House, count: Counter
) -> None:
    app, other = Registry(), Registry()
    right = False

    @app.workflow
    async def moody(ctx: Context) -> str:
        await ctx.step("a" if not right else "b", lambda: None)
        await ctx.wait_for_event("go")
        return "done"

    @other.workflow
    async def unrelated(ctx: Context) -> None:
        return None

    async with house.open(app, parks=False) as p:
        handle = await p.start(moody)
        await reaches(handle, Phase.WAITING)
        right = True
        await p.publish("go", None)
        await reaches(handle, Phase.BLOCKED)
        right = False
        await (await p.start(unrelated)).result()
        assert await handle.result() == "done"
        await asyncio.sleep(0)


async def test_coroutines_from_a_set_get_their_own_results(house: House) -> None:
    app = Registry()

    async def fetch(item: str) -> str:
        return item

    @app.workflow
    async def gathered(ctx: Context) -> dict[str, str]:
        got: dict[str, str] = {}

        async def one(item: str) -> None:
            got[item] = await ctx.step("fetch", fetch, item)
            await ctx.wait_for_event("go")

        await asyncio.gather(*{one(item) for item in "abcdef"})
        return got

    async with house.open(app, parks=False) as p:
        handles = [await p.start("gathered") for _ in range(10)]
        for handle in handles:
            await reaches(handle, Phase.WAITING)
        for _ in "abcdef":  # each execution takes an event once, for one of its waits
            await p.publish("go", None)
        assert [await handle.result() for handle in handles] == [{item: item for item in "abcdef"}] * 10


async def test_a_changed_input_is_told_in_the_log_and_counted(house: House, count: Counter) -> None:
    async with house.open(version(count, ["a", "b", "c"])) as p:
        handle = await p.start("changing")
        await reaches(handle, Phase.WAITING)
    async with house.open(version(count, ["a", "b", "c"], input=2)) as p:
        await p.publish("go", None)
        assert await p.handle(handle.id).result() == ["a", "b", "c"]
        lines = [line.text for _, line in await p.logs(handle.id)]
        assert len(lines) == 1
        assert "another input than the recorded one" in lines[0]
        assert "'a', 'b'" in lines[0]
        stats = p.worker.transport.engine.stats  # type: ignore[attr-defined]  # the embedded one has an engine
        assert stats.counted["changed_inputs"] == 2


async def test_calls_that_nothing_tells_apart_are_told_and_blocked_when_strict(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def registry(*, strict: bool) -> Registry:
        app = Registry()

        @app.workflow(strict=strict)
        async def locks(ctx: Context) -> None:
            for _ in range(2):
                await asyncio.gather(*(ctx.step("lock", lambda lock: None, threading.Lock()) for _ in range(3)))

        return app

    TOLD.clear()  # each process says it once
    text = "Nothing tells the concurrent calls of step 'lock' apart"
    async with house.open(registry(strict=False)) as p:
        for _ in range(2):
            handle = await p.start("locks")
            await handle.result()
            [line] = [line.text for _, line in await p.logs(handle.id)]
            assert line.startswith(text) and "test_blocked.py:" in line
        told = [one.message for one in caplog.records if text in one.message]
        assert len(told) == 1 and "Workflow 'locks'" in told[0]
    async with house.open(registry(strict=True)) as p:
        handle = await p.start("locks")
        await reaches(handle, Phase.BLOCKED)
        error = (await handle.get()).error
        assert error is not None and text in error
        assert not [row for row in await rows_of(handle) if row.kind is Kind.STEP]


async def test_equal_calls_stay_interchangeable(house: House, caplog: pytest.LogCaptureFixture) -> None:
    app = Registry()

    @app.workflow(strict=True)
    async def three(ctx: Context) -> list[int]:
        client = threading.Lock()
        return await asyncio.gather(*(ctx.step("ask", lambda lock: 7, client) for _ in range(3)))

    async with house.open(app) as p:
        assert await (await p.start("three")).result() == [7, 7, 7]
    assert "Nothing tells" not in caplog.text
