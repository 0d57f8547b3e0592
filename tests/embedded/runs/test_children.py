"""Children: started once, awaited or not, mapped over, failing and cancelled."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.embedded.house import Counter, House, ends, keys_of, reaches
from tests.kit.polling import until

from perdure.sdk.base.errors import ChildCancelled, ChildFailed, ExecutionFailed
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters

app = Registry()


@app.workflow
async def double(ctx: Context, n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return await ctx.step("double", lambda: n * 2)


@app.workflow
async def gated(ctx: Context, n: int) -> int:
    await ctx.wait_for_event("gate")
    return n


@app.workflow
async def runs_one(ctx: Context, n: int) -> int:
    return await ctx.run_child(double, n)


async def test_a_child_of_wrong_options_fails_its_run_and_takes_no_other_with_it(house: House) -> None:
    own = Registry(double)
    together = asyncio.Barrier(5)

    @own.workflow
    async def wrong(ctx: Context, n: int) -> object:
        await ctx.step("meet", together.wait)
        options: list[dict[str, Any]] = [{}, {"concurrency_key": 7}, {"priority": "high"}, {"tags": {"a": 1}}, {}]
        return await ctx.run_child(double, n, **options[n])

    async with house.open(own) as p:
        handles = [await p.start(wrong, n) for n in range(5)]
        ended = await asyncio.gather(*[handle.result(timeout=60) for handle in handles], return_exceptions=True)
    assert [one if isinstance(one, int) else type(one) for one in ended] == [0, *[ExecutionFailed] * 3, 8]


async def test_run_child_gives_the_result_or_raises_child_failed(house: House) -> None:
    own = Registry(double)

    @own.workflow
    async def parent(ctx: Context) -> list[object]:
        good = await ctx.run_child(double, 4)
        try:
            await ctx.run_child(double, -1)
        except ChildFailed as error:
            return [good, error.type, error.message, error.workflow]
        return []

    async with house.open(own) as p:
        handle = await p.start(parent)
        assert await handle.result() == [8, "ValueError", "-1 is negative", "double"]


async def test_start_child_goes_on_and_its_result_is_there_for_every_branch(house: House) -> None:
    own = Registry(gated)

    @own.workflow
    async def parent(ctx: Context) -> list[int]:
        child = await ctx.start_child(gated, 3)
        await ctx.publish("gate")
        return [*await asyncio.gather(child.result(), child.result()), await child.result()]

    async with house.open(own) as p:
        assert await (await p.start(parent)).result() == [3, 3, 3]


async def test_children_know_their_family(house: House) -> None:
    own = Registry()

    @own.workflow
    async def leaf(ctx: Context) -> list[str | None]:
        return [ctx.root_execution_id, ctx.parent_execution_id, ctx.session_id, ctx.user_id]

    @own.workflow
    async def middle(ctx: Context) -> list[str | None]:
        return await ctx.run_child(leaf)

    @own.workflow
    async def top(ctx: Context) -> list[str | None]:
        return await ctx.run_child(middle, key="the middle", tags={"a": "b"})

    async with house.open(own) as p:
        handle = await p.start(top, session_id="s-1", user_id="u-1")
        root, parent, session, user = await handle.result()
        family = await p.list(ListFilters(root_execution_id=handle.id))
        by_workflow = {execution.workflow_id: execution for execution in family.executions}
        assert (root, parent, session, user) == (handle.id, by_workflow["middle"].id, "s-1", "u-1")
        assert by_workflow["middle"].parent_execution_id == handle.id
        assert by_workflow["middle"].raw.step_key == "the middle"
        assert by_workflow["leaf"].root_execution_id == handle.id


async def test_map_children_keeps_the_order_and_shows_partial_failures(house: House) -> None:
    own = Registry(double)

    @own.workflow
    async def mapping(ctx: Context) -> list[object]:
        mapped = await ctx.map_children(double, [1, -2, 3, -4, 5])
        failures = [(n, error.message) for n, error in mapped.failures]
        try:
            mapped.results()
        except ExceptionGroup as group:
            good = [one for one in mapped.outcomes if isinstance(one, int)]
            return [good, failures, len(mapped), str(group)]
        return []

    async with house.open(own) as p:
        assert await (await p.start(mapping)).result() == [
            [2, 6, 10],
            [[1, "-2 is negative"], [3, "-4 is negative"]],
            5,
            "2 of 5 children failed (2 sub-exceptions)",
        ]


async def test_map_children_keeps_at_most_limit_open(house: House) -> None:
    own = Registry()
    now, most = 0, 0

    @own.workflow
    async def counted(ctx: Context, n: int) -> int:
        async def busy() -> int:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return n

        return await ctx.step("busy", busy)

    @own.workflow
    async def mapping(ctx: Context) -> int:
        return sum((await ctx.map_children(counted, range(30), limit=4)).results())

    async with house.open(own) as p:
        assert await (await p.start(mapping)).result() == sum(range(30))
    assert 1 <= most <= 4


async def test_map_children_takes_an_async_iterator_that_runs_steps(house: House, count: Counter) -> None:
    own = Registry(double)

    @own.workflow
    async def paging(ctx: Context) -> list[int]:
        def read(page: int) -> list[int]:
            return [page * 2, page * 2 + 1]

        async def numbers() -> AsyncIterator[int]:
            for page in range(3):
                count(f"page {page}")
                for n in await ctx.step("page", read, page):
                    yield n

        return (await ctx.map_children(double, numbers(), limit=2)).results()

    async with house.open(own) as p:
        handle = await p.start(paging)
        assert await handle.result() == [0, 2, 4, 6, 8, 10]
        assert await keys_of(handle, Kind.STEP) == ["page", "page#2", "page#3"]


async def test_a_hundred_children_and_a_tree(house: House) -> None:
    own = Registry(double, runs_one)

    @own.workflow
    async def tree(ctx: Context) -> int:
        mapped = await ctx.map_children(runs_one, range(100), limit=1_000)
        return sum(mapped.results())

    async with house.open(own) as p:
        handle = await p.start(tree)
        assert await handle.result() == 2 * sum(range(100))
        family = await p.list(ListFilters(root_execution_id=handle.id), limit=500)
        assert len(family.executions) == 200


async def test_a_child_of_an_unknown_workflow_is_a_failure_of_the_call(house: House) -> None:
    own = Registry()

    @own.workflow
    async def parent(ctx: Context) -> str:
        try:
            await ctx.run_child("nowhere", 1)
        except ChildFailed as error:
            return error.type
        return ""

    async with house.open(own) as p:
        assert await (await p.start(parent)).result() == "WORKFLOW_NOT_FOUND"


async def test_a_cancelled_child_raises_child_cancelled_in_its_parent(house: House) -> None:
    own = Registry(gated)
    started: list[str] = []

    @own.workflow
    async def parent(ctx: Context) -> str:
        child = await ctx.start_child(gated, 1)
        await ctx.step("tell", started.append, child.id)
        try:
            await child.result()
        except ChildCancelled as error:
            return str(error)
        return ""

    async with house.open(own) as p:
        handle = await p.start(parent)
        await until(lambda: bool(started))
        await p.cancel(started[0])
        assert await handle.result() == f"child gated ({started[0]}) was cancelled"


async def test_cancelling_a_parent_cancels_everything_below_and_nothing_above(house: House) -> None:
    own = Registry(gated)

    @own.workflow
    async def middle(ctx: Context, n: int) -> int:
        return await ctx.run_child(gated, n)

    @own.workflow
    async def top(ctx: Context) -> list[str]:
        mapped = await ctx.map_children(middle, [1, 2])
        return [type(one).__name__ for one in mapped.outcomes]

    async with house.open(own) as p:
        handle = await p.start(top)

        async def family() -> dict[str, list[Phase]]:
            phases: dict[str, list[Phase]] = {}
            for execution in (await p.list(ListFilters(root_execution_id=handle.id))).executions:
                phases.setdefault(execution.workflow_id, []).append(execution.phase)
            return phases

        async def all_wait() -> bool:
            return (await handle.get()).phase is Phase.WAITING and await family() == {
                "middle": [Phase.WAITING] * 2,
                "gated": [Phase.WAITING] * 2,
            }

        await until(all_wait)
        middles = await p.list(ListFilters(workflow_id="middle"))
        await p.cancel(middles.executions[0].id)
        await until(lambda: _counts(p, Phase.CANCELLED, 2))
        assert (await handle.get()).phase is not Phase.CANCELLED
        await handle.cancel()
        assert await ends(handle) is Phase.CANCELLED
        await until(lambda: _counts(p, Phase.CANCELLED, 5))


async def _counts(p: object, phase: Phase, number: int) -> bool:
    page = await p.list(ListFilters(phases=[phase]))  # type: ignore[attr-defined]  # an Embedded
    return len(page.executions) == number


async def test_giving_up_a_child_does_not_cancel_it(house: House) -> None:
    own = Registry(gated)

    @own.workflow
    async def impatient(ctx: Context) -> str:
        child = await ctx.start_child(gated, 1)
        waiting = asyncio.create_task(child.result())
        await ctx.wait_for_event("enough")
        waiting.cancel()
        return child.id

    async with house.open(own) as p:
        handle = await p.start(impatient)
        await reaches(handle, Phase.WAITING)
        await p.publish("enough", None)
        child = p.handle(await handle.result(), gated)
        await reaches(child, Phase.WAITING)
        await p.publish("gate", None)
        assert await child.result() == 1


async def test_an_execution_key_names_the_child_and_a_taken_one_is_refused(house: House) -> None:
    own = Registry(double)

    @own.workflow
    async def parent(ctx: Context, n: int) -> int:
        return await ctx.run_child(double, n, execution_key="the-one")

    async with house.open(own) as p:
        assert await (await p.start(parent, 1)).result() == 2
        assert await (await p.find(double, "the-one")).result() == 2
        for n in (1, 2):  # with the same input, too: the end of that child is told to its own parent
            with pytest.raises(ExecutionFailed, match="the-one"):
                await (await p.start(parent, n)).result()


async def test_calling_a_workflow_runs_it_inside_the_caller(house: House) -> None:
    own = Registry(double)

    @own.workflow
    async def inline(ctx: Context) -> int:
        return await double(ctx, 3) + await double(ctx, 4)

    async with house.open(own) as p:
        handle = await p.start(inline)
        assert await handle.result() == 14
        assert await keys_of(handle, Kind.STEP) == ["double", "double#2"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": 1_001}, "`priority` must be -1000 to 1000, got 1001"),
        ({"delay": 1e12}, "`delay_seconds` must be 0 to 316224000"),
        ({"run_timeout_seconds": 0}, "`run_timeout_seconds` must be 1 to "),
        ({"tags": {str(n): "" for n in range(11)}}, "`tags` may hold 10 entries, got 11"),
        ({"session_id": "s", "on_conflict": "queue", "delay": 5}, "`on_conflict`: a turn begins at once"),
    ],
    ids=["priority", "delay", "run_timeout_seconds", "tags", "on_conflict"],
)
async def test_a_child_that_cannot_be_asked_for_is_refused_where_the_code_asks(
    house: House, count: Counter, options: dict[str, Any], words: str
) -> None:
    """A refusal of the whole report would lose the outcomes of other steps in the report."""
    own = Registry()

    @own.workflow
    async def child(ctx: Context) -> None: ...

    def note() -> int:
        return count("note")

    async def asks(ctx: Context) -> None:
        await ctx.run_child(child, **options)

    @own.workflow
    async def parent(ctx: Context) -> str:
        beside, refused = await asyncio.gather(ctx.step(note), asks(ctx), return_exceptions=True)
        return f"{beside}: {type(refused).__name__}: {refused}"

    async with house.open(own) as p:
        said = await asyncio.wait_for((await p.start(parent)).result(), 60)
    assert said.startswith(f"1: BadValue: {words}")
