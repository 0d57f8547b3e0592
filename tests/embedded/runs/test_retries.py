"""A workflow is tried again: every step whose failure ended the workflow runs again, a handled failure stays."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from tests.embedded.house import Counter, House, Report, ends, keys_of, on_reports, rows_of

from perdure.sdk.base.errors import StepFailed
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import ReportReply, ReportRequest, StepDone

TWICE = RetryPolicy(max_attempts=2, initial_seconds=0.0)


def unlucky(count: Counter, names: str) -> Callable[[str], Awaitable[str]]:
    """A body that fails the first time, for all `names` at the same moment: the failures leave in the same report."""
    there: set[str] = set()
    all_there = asyncio.Event()

    async def body(name: str) -> str:
        if count(name) > 1:
            return name.upper()
        there.add(name)
        if there == set(names):
            all_there.set()
        await all_there.wait()
        raise ConnectionError(name)

    return body


@pytest.mark.parametrize("names", ["ab", "abcde"])
@pytest.mark.parametrize("how", ["gather", "gather and clean up", "exceptions", "group", "group and clean up"])
async def test_steps_that_fail_together_run_again_together(house: House, count: Counter, how: str, names: str) -> None:
    app = Registry()
    body = unlucky(count, names)

    @app.workflow(retry=TWICE)
    async def together(ctx: Context) -> list[object]:
        steps = [ctx.step(name, body, name) for name in names]
        if how == "exceptions":
            found = await asyncio.gather(*steps, return_exceptions=True)
            if errors := [one for one in found if isinstance(one, Exception)]:
                raise ExceptionGroup("several failed", errors)
            return list(found)
        try:
            if how.startswith("gather"):
                return list(await asyncio.gather(*steps))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in steps]
            return [task.result() for task in tasks]
        except (StepFailed, ExceptionGroup):
            if how.endswith("clean up"):
                await ctx.step("clean up", count, "clean up")
            raise

    async with house.open(app) as p:
        handle = await p.start(together)
        assert await handle.result() == list(names.upper())
        assert (await handle.get()).retry_count == 1
        assert [count[name] for name in names] == [2] * len(names)
        rows = await rows_of(handle)
        assert sorted(row.key or "" for row in rows if row.kind is Kind.STEP_FAILED) == list(names)
        assert all(row.ok for row in rows if row.kind is Kind.STEP)
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("handled", ["the first", "the second"])
async def test_a_failure_that_the_code_handled_stays_beside_one_that_it_did_not(
    house: House, count: Counter, handled: str
) -> None:
    """The code handled only rows before its end. No code has seen later rows."""
    app = Registry()
    body = unlucky(count, "ab")  # the last that is there is the first that fails
    careless = "a" if handled == "the first" else "b"

    @app.workflow(retry=TWICE)
    async def beside(ctx: Context) -> list[str]:
        async def one(name: str) -> str:
            try:
                return await ctx.step(f"step {name}", body, name)
            except StepFailed:
                if name == careless:
                    raise
                return "handled"

        return list(await asyncio.gather(one("a"), one("b")))

    async with house.open(app) as p:
        handle = await p.start(beside)
        result = await handle.result()
        assert (await handle.get()).retry_count == 1
        failed = await keys_of(handle, Kind.STEP_FAILED)
        if handled == "the first":
            assert (result, failed) == (["A", "handled"], ["1/step a"])
            assert count.runs == {"a": 2, "b": 1}
        else:
            assert (result, failed) == (["A", "B"], ["2/step b", "1/step a"])
            assert count.runs == {"a": 2, "b": 2}


async def test_a_step_that_fails_while_a_failure_is_handled_is_to_blame_alone(house: House, count: Counter) -> None:
    app = Registry()

    async def fails_once(name: str) -> str:
        if count(name) == 1:
            raise ConnectionError(name)
        return name.upper()

    @app.workflow(retry=TWICE)
    async def instead(ctx: Context) -> list[str]:
        try:
            return [await ctx.step("a", fails_once, "a")]
        except StepFailed:
            return list(await asyncio.gather(*[ctx.step(name, fails_once, name) for name in "bc"]))

    async with house.open(app) as p:
        handle = await p.start(instead)
        assert await handle.result() == ["B", "C"]
        assert (await handle.get()).retry_count == 1
        assert count.runs == {"a": 1, "b": 2, "c": 2}
        assert await keys_of(handle, Kind.STEP_FAILED) == ["b", "c"]


async def test_a_branch_that_caught_its_failure_during_the_clean_up_keeps_it(house: House, count: Counter) -> None:
    app = Registry()
    cleaning = asyncio.Event()

    async def fails_once(name: str) -> str:
        if count(name) == 1:
            if name != "a":
                await cleaning.wait()
            raise ConnectionError(name)
        return name.upper()

    @app.workflow(retry=TWICE)
    async def careful(ctx: Context) -> list[str]:
        async def caught() -> str:
            try:
                return await ctx.step("b", fails_once, "b")
            except StepFailed:
                return "caught"

        branches = [asyncio.ensure_future(one) for one in (ctx.step("a", fails_once, "a"), caught())]
        branches.append(asyncio.ensure_future(ctx.step("c", fails_once, "c")))
        try:
            return list(await asyncio.gather(*branches))
        except StepFailed:
            await ctx.step("clean up", cleaning.set)
            await asyncio.wait(branches)
            raise

    async with house.open(app) as p:
        handle = await p.start(careful)
        assert await handle.result() == ["A", "caught", "C"]
        assert (await handle.get()).retry_count == 1
        assert count.runs == {"a": 2, "b": 1, "c": 2}
        assert await keys_of(handle, Kind.STEP_FAILED) == ["a", "c"]


@pytest.mark.parametrize("when", ["the first is reported", "the first was reported"])
async def test_a_failure_that_is_not_reported_yet_is_taken_back_too(house: House, count: Counter, when: str) -> None:
    """The second step fails while the report with the failure of the first is under way."""
    app = Registry()
    go, failed = asyncio.Event(), asyncio.Event()

    async def fails_later(name: str) -> str:
        if count(name) == 1:
            if name == "b":
                await go.wait()
                failed.set()
            raise ConnectionError(name)
        return name.upper()

    @app.workflow(retry=TWICE)
    async def both(ctx: Context) -> list[object]:
        return list(await asyncio.gather(*[ctx.step(name, fails_later, name) for name in "ab"]))

    async with house.open(app) as p:

        async def slow(report: Report, request: ReportRequest) -> ReportReply:
            first = any(isinstance(one, StepDone) and one.key == "a" for item in request.items for one in item.entries)
            if not first or go.is_set():
                return await report(request)
            reply = await report(request) if when == "the first was reported" else None
            go.set()
            await failed.wait()
            return reply or await report(request)

        on_reports(p, slow)
        handle = await p.start(both)
        assert await handle.result() == ["A", "B"]
        assert (await handle.get()).retry_count == 1
        assert count.runs == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("what", "steps", "children"),
    [("steps", ["a", "b"], None), ("child", None, ["broken"]), ("code", None, None), ("caught", None, None)],
)
async def test_the_last_row_says_which_steps_or_child_ended_the_run(
    house: House, count: Counter, what: str, steps: list[str] | None, children: list[str] | None
) -> None:
    app = Registry()
    body = unlucky(count, "ab")

    @app.workflow
    async def broken(ctx: Context) -> None:
        raise ValueError("no")

    @app.workflow
    async def run(ctx: Context) -> None:
        if what == "steps":
            async with asyncio.TaskGroup() as group:
                for name in "ab":
                    group.create_task(ctx.step(name, body, name))
        if what == "child":
            await ctx.run_child(broken, key="broken")
        if what == "caught":
            await asyncio.gather(*[ctx.step(name, body, name) for name in "ab"], return_exceptions=True)
        raise ValueError("the code itself")

    async with house.open(app) as p:
        handle = await p.start(run)
        assert await ends(handle) is Phase.FAILED
        said = msgspec.json.decode((await rows_of(handle))[-1].value)
        assert (sorted(said.get("steps") or ()) or None, said.get("children")) == (steps, children)
