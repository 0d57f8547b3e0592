"""What leaves with one report, and what becomes of an execution whose report is refused."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pydantic
import pytest
from tests.embedded.house import Counter, House, Report, ends, listed, on_reports, reaches, rows_of
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed
from perdure.sdk.workers import reports
from perdure.sdk.workers.step_runner import READ_BYTES_MAX
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadValue, PerdureError, TooLarge, Unavailable, UnknownOutcome
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Complete, ItemReply, ReportReply, ReportRequest, StartChild, StepDone, Suspend

BIG = 500_000


async def test_outcomes_too_big_for_one_report_leave_with_several(house: House) -> None:
    app = Registry()
    sizes: list[int] = []

    @app.workflow
    async def child(ctx: Context, text: str) -> int:
        return len(text)

    @app.workflow
    async def bulky(ctx: Context) -> list[int]:
        async def make() -> str:
            return "x" * BIG

        made = await asyncio.gather(*[ctx.step("make", make) for _ in range(40)])
        for text in made[:20]:
            await ctx.publish("texts", text)
        mapped = await ctx.map_children(child, made, limit=100)
        return [sum(map(len, made)), sum(mapped.results())]

    async with house.open(app) as p:

        async def measured(report: Report, request: ReportRequest) -> ReportReply:
            sizes.append(len(msgspec.json.encode(request)))
            return await report(request)

        on_reports(p, measured)
        assert await (await p.start(bulky)).result() == [40 * BIG, 40 * BIG]
    assert max(sizes) < 10_000_000
    assert sum(sizes) > 40_000_000


@pytest.mark.parametrize(
    "how", ["run", "with a time limit", "map", "start", "beside a step", "refused", "refused and caught"]
)
async def test_whoever_only_waits_for_children_says_so_when_it_starts_them(house: House, how: str) -> None:
    app = Registry()
    said: list[tuple[int, str]] = []
    went_on: list[str] = []

    @app.workflow
    async def nothing(ctx: Context, n: int) -> int:
        return n

    @app.workflow
    async def parent(ctx: Context) -> int:
        async def body() -> int:
            return 1

        match how:
            case "run":
                first = await ctx.run_child(nothing, 1)
                return first + await ctx.run_child(nothing, 1)
            case "with a time limit":
                async with asyncio.timeout(3_600):
                    return 1 + await ctx.run_child(nothing, 1)
            case "map":
                return sum((await ctx.map_children(nothing, [1, 1])).results())
            case "start":
                handle = await ctx.start_child(nothing, 1)
                went_on.append(handle.id)
                return await ctx.step("one", body) + await handle.result()
            case "beside a step":
                return sum(await asyncio.gather(ctx.step("one", body), ctx.run_child(nothing, 1)))
            case _:
                try:
                    return await ctx.run_child("unknown", 1)  # type: ignore[return-value]  # it never returns
                except ExecutionFailed:
                    raise
                except Exception:
                    if how == "refused":
                        return 2
                    return 1 + await ctx.step("one", body)

    async with house.open(app) as p:

        async def heard(report: Report, request: ReportRequest) -> ReportReply:
            for item in request.items:
                starts = sum(type(entry) is StartChild for entry in item.entries)
                if starts or type(item.end) is Suspend:
                    said.append((starts, type(item.end).__name__))
            return await report(request)

        on_reports(p, heard)
        handle = await p.start(parent)
        assert await handle.result() == 2
        kinds = [row.kind for row in await rows_of(handle)]
    waits = said.count((0, "Suspend"))
    together = [one for one in said if one[0]]
    if how in ("run", "with a time limit", "map"):
        assert together == [(2, "Suspend")] if how == "map" else set(together) == {(1, "Suspend")}
        assert kinds.count(Kind.WAITING) == len(together) + waits
        assert waits <= (how == "map"), "of two that end one after the other, the first may find it waiting"
    elif how.startswith("refused"):
        assert together == [(1, "Suspend")]
        assert Kind.WAITING not in kinds
    else:
        assert together == [(1, "NoneType")]


async def test_big_outcomes_that_end_with_the_workflow_are_all_recorded(house: House) -> None:
    app = Registry()
    go = asyncio.Event()

    @app.workflow
    async def leaving(ctx: Context) -> str:
        async def make() -> str:
            await go.wait()
            return "x" * BIG

        steps = [asyncio.create_task(ctx.step("make", make)) for _ in range(40)]
        await ctx.step("open", go.set)
        await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
        return "done"

    async with house.open(app) as p:
        assert await (await p.start(leaving)).result() == "done"


async def test_a_refused_report_fails_the_execution_to_blame_and_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Registry()

    @app.workflow
    async def one(ctx: Context, n: int) -> int:
        return await ctx.step("n", lambda: n)

    async def refuse_13(report: Report, request: ReportRequest) -> ReportReply:
        values = [e.value for item in request.items for e in item.entries if isinstance(e, StepDone)]
        if any(bytes(value) == b"13" for value in values):
            raise TooLarge("13 is too much")
        return await report(request)

    async with house.open(app) as p:
        on_reports(p, refuse_13)
        handles = await asyncio.gather(*[p.start(one, n) for n in range(20)])
        results = await asyncio.gather(*[handle.result() for handle in handles], return_exceptions=True)
    failed = results.pop(13)
    assert isinstance(failed, ExecutionFailed) and "13 is too much" in failed.message
    assert results == [n for n in range(20) if n != 13]


WRONG: dict[str, Callable[[Context, Any], Awaitable[object]]] = {
    "event_type": lambda ctx, wrong: ctx.publish("t", 1, event_type=wrong),
    "dedup_key": lambda ctx, wrong: ctx.publish("t", 1, dedup_key=wrong),
    "execution_id": lambda ctx, wrong: ctx.resume(wrong, "k", 1),
    "step_key": lambda ctx, wrong: ctx.resume("x", wrong, 1),
    "queue": lambda ctx, wrong: ctx.run_child("one", 1, queue=wrong),
    "concurrency_key": lambda ctx, wrong: ctx.run_child("one", 1, concurrency_key=wrong),
    "session_id": lambda ctx, wrong: ctx.run_child("one", 1, session_id=wrong),
    "user_id": lambda ctx, wrong: ctx.run_child("one", 1, user_id=wrong),
    "tags.a": lambda ctx, wrong: ctx.run_child("one", 1, tags={"a": wrong}),
    "execution_key": lambda ctx, wrong: ctx.run_child("one", 1, execution_key=wrong),
}


@pytest.mark.parametrize("where", WRONG)
async def test_a_value_that_cannot_be_sent_is_refused_where_it_is_given(house: House, where: str) -> None:
    """A refusal of the report would keep all other outcomes in the report from being recorded."""
    app = Registry()

    @app.workflow
    async def one(ctx: Context, n: int) -> int:
        return n

    @app.workflow
    async def wrong(ctx: Context) -> list[str]:
        said: list[str] = []
        for value in (object(), "\ud800"):
            with pytest.raises(BadValue) as caught:
                await WRONG[where](ctx, value)
            said.append(str(caught.value))
        return said

    async with house.open(app) as p:
        said = await asyncio.wait_for((await p.start(wrong)).result(), 60)
    assert said == [
        f"{where}: must be text, got a `object`",
        f"{where}: holds a lone surrogate '\\ud800' (at position 0)",
    ]


@pytest.mark.parametrize("taken", [False, True], ids=["nothing happened", "only the answer was lost"])
async def test_an_item_that_the_store_could_not_take_is_sent_again(
    house: House, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """The server reports a full disk, or a commit with unknown outcome, item by item: the other items go on."""
    app = Registry()
    runs: list[int] = []

    @app.workflow
    async def one(ctx: Context, n: int) -> int:
        def run() -> int:
            runs.append(n)
            return n

        return await ctx.step("n", run)

    times = 4

    async def fail_7(report: Report, request: ReportRequest) -> ReportReply:
        nonlocal times
        blamed = [
            item
            for item in request.items
            if times and any(isinstance(e, StepDone) and bytes(e.value) == b"7" for e in item.entries)
        ]
        if not blamed:
            return await report(request)
        times -= 1
        assert times == 3 or request.items == blamed  # sent again, it is alone
        rest = [item for item in request.items if item not in blamed or taken]
        reply = await report(msgspec.structs.replace(request, items=rest))
        answers = dict(zip([item.execution_id for item in rest], reply.items, strict=True))
        error: PerdureError = UnknownOutcome("who knows") if taken else Unavailable("the disk is full")
        answers[blamed[0].execution_id] = ItemReply(problem=Problem(error.message, error.code))
        return ReportReply([answers[item.execution_id] for item in request.items])

    async with house.open(app) as p:
        on_reports(p, fail_7)
        handles = await asyncio.gather(*[p.start(one, n) for n in range(20)])
        assert await asyncio.gather(*[handle.result() for handle in handles]) == list(range(20))
    assert times == 0
    assert sorted(runs) == list(range(20))


async def test_an_error_of_the_workers_own_ends_the_execution_visibly(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Registry()

    @app.workflow
    async def unlucky(ctx: Context) -> None:
        await ctx.step("a", lambda: None)

    def broken(*given: object) -> None:
        raise ZeroDivisionError("a bug")

    async with house.open(app) as p:
        monkeypatch.setattr(reports, "merge", broken)
        handle = await p.start(unlucky)
        assert await ends(handle) is Phase.FAILED
        assert "a bug" in ((await handle.get()).error or "")


async def test_a_pause_that_ends_while_a_suspension_is_refused_is_not_forgotten(house: House, count: Counter) -> None:
    """A long pause is to be suspended. An event that comes at the same moment keeps the execution here."""
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def both(ctx: Context) -> list[object]:
        async def flaky() -> str:
            if count("flaky") == 1:
                raise ConnectionError("no")
            return "ok"

        policy = RetryPolicy(max_attempts=2, initial_seconds=60.0, jitter=False)
        step = asyncio.create_task(ctx.step("flaky", flaky, retry=policy))
        event = await ctx.wait_for_event("event")
        return [event.data, await step]

    async with house.open(app, clock=clock) as p:

        async def event_first(report: Report, request: ReportRequest) -> ReportReply:
            if any(item.end is not None for item in request.items) and not await p.events("event"):
                await p.publish("event", 1)
            return await report(request)

        on_reports(p, event_first)
        handle = await p.start(both)
        await reaches(handle, Phase.WAITING)
        clock.advance(61)
        p.engine.wake_loops()
        assert await handle.result() == [1, "ok"]
    assert count["flaky"] == 2


@pytest.mark.parametrize("code", ["returns", "returns a call", "goes on", "bad result"])
async def test_a_step_that_the_code_only_returns_is_reported_with_the_end(
    house: House, count: Counter, code: str
) -> None:
    app = Registry()

    async def body() -> int:
        count("body")
        return 7

    async def text() -> Any:
        return "seven"

    @app.workflow
    async def run(ctx: Context) -> int:
        async def call() -> int:
            return await ctx.step("step", body)

        if code == "returns":
            return await ctx.step("step", body)
        if code == "returns a call":
            return await call()
        if code == "bad result":
            return await ctx.step("step", text)
        value = await ctx.step("step", body)
        return value

    sent: list[list[str]] = []
    async with house.open(app) as p:

        async def noted(report: Report, request: ReportRequest) -> ReportReply:
            sent.extend([type(part).__name__ for part in (*item.entries, item.end) if part] for item in request.items)
            return await report(request)

        on_reports(p, noted)
        handle = await p.start(run)
        if code == "bad result":
            with pytest.raises(ExecutionFailed):
                await handle.result()
        else:
            assert await handle.result() == 7
            assert count["body"] == 1
        assert [row.kind for row in await rows_of(handle)][1] is Kind.STEP
    together = [["StepDone", "Complete"]]
    assert [one for one in sent if one] == (
        together if code.startswith("returns") else [["StepDone"], ["Fail" if code == "bad result" else "Complete"]]
    )


@pytest.mark.parametrize("meanwhile", ["an outcome", "a cancel"])
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.usefixtures("listed_at_once")
async def test_an_end_that_returns_its_step_yields_to_what_came_before(
    house: House, count: Counter, meanwhile: str, lost: bool
) -> None:
    """The journal decides: the code sees the act's outcome, or the cancel, and then its own step."""
    app = Registry()
    go = asyncio.Event()

    async def body() -> str:
        count("body")
        await go.wait()
        return "own"

    @app.workflow
    async def run(ctx: Context) -> str:
        return await ctx.step("step", body)

    async with house.open(app) as p:
        done = False

        async def late(report: Report, request: ReportRequest) -> ReportReply:
            nonlocal done
            if done or not any(item.end is not None for item in request.items):
                return await report(request)
            done = True
            if meanwhile == "an outcome":
                await p.act(handle.id, "complete", key="step", value="given")
            else:
                await handle.cancel()
            reply = await report(request)
            return await report(request) if lost else reply

        handle = await p.start(run)
        if meanwhile == "an outcome":  # which is given to a listed call
            await listed(p, handle, "step")
        worker = p.worker
        assert worker is not None
        await until(lambda: count["body"] == 1)
        await until(lambda: worker._running[handle.id].in_flight is None)  # the report that lists it is answered
        on_reports(p, late)
        go.set()
        if meanwhile == "a cancel":
            with pytest.raises(ExecutionCancelled):
                await handle.result()
        else:
            assert await handle.result() == "given"
        kinds = [row.kind for row in await rows_of(handle)][1:]
    first, last = (Kind.STEP, Kind.COMPLETED) if meanwhile == "an outcome" else (Kind.CANCEL, Kind.CANCELLED)
    assert kinds == [first, Kind.IGNORED if meanwhile == "an outcome" else Kind.STEP, last]
    assert count["body"] == 1


class Picky(pydantic.BaseModel):
    """It can be read once."""

    text: str

    @pydantic.model_validator(mode="after")
    def count(self) -> "Picky":
        picked.append(self)
        if len(picked) > 1:
            raise ValueError("again")
        return self


picked: list[Picky] = []


class Kept:
    """Freed with the code's frame."""


@pytest.mark.parametrize("what", ["a callback", "an async generator", "a generator", "a finalizer", "a raised error"])
async def test_what_follows_the_return_of_a_step_finds_it_recorded(house: House, what: str) -> None:
    app = Registry()
    lines: list[str] = []
    picked.clear()

    def say() -> None:
        lines.append("code")

    def one() -> Iterator[int]:
        try:
            yield 1
        finally:
            say()

    async def async_one() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            say()

    async def body() -> str:
        return "x"

    async def large() -> Picky:
        return Picky.model_construct(text="x" * READ_BYTES_MAX)

    @app.workflow
    async def run(ctx: Context) -> Any:
        if what == "a callback":
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda _: say())
        elif what == "an async generator":
            items = async_one()
            await anext(items)
        elif what == "a generator":
            numbers = one()
            next(numbers)
        elif what == "a finalizer":
            kept = Kept()
            weakref.finalize(kept, say)
        try:
            return await ctx.step("step", large if what == "a raised error" else body)
        except BadValue:
            say()
            return "x"

    async with house.open(app) as p:

        async def noted(report: Report, request: ReportRequest) -> ReportReply:
            reply = await report(request)
            lines.extend("recorded" for item in request.items for one in item.entries if isinstance(one, StepDone))
            return reply

        on_reports(p, noted)
        assert await (await p.start(run)).result() == "x"
        await until(lambda: len(lines) == 2)
    assert lines == ["recorded", "code"]


async def test_a_step_that_cancels_the_code_that_would_return_it(house: House) -> None:
    app = Registry()
    sent: list[int] = []

    @app.workflow
    async def run(ctx: Context) -> bool:
        task = asyncio.current_task()
        assert task is not None
        return await ctx.step("step", task.cancel)

    async with house.open(app) as p:

        async def noted(report: Report, request: ReportRequest) -> ReportReply:
            sent.extend(bool(item.entries) + 2 * (item.end is not None) for item in request.items)
            return await report(request)

        on_reports(p, noted)
        with pytest.raises(ExecutionFailed):
            await (await p.start(run)).result()
    assert [one for one in sent if one] == [1, 2]


@pytest.mark.parametrize("why", ["an unknown field", "the result"])
async def test_a_refused_end_does_not_take_its_step_with_it(house: House, count: Counter, why: str) -> None:
    """A server of an earlier release refuses the field, in a report with other items. If the result alone is at fault,
    the journal still has the step."""
    app = Registry()

    @app.workflow
    async def run(ctx: Context) -> int:
        async def body() -> int:
            ctx.emit("item", 1)
            return count("body")

        ctx.progress(1, 2)
        ctx.log("a line")
        return await ctx.step("step", body)

    async with house.open(app) as p:

        async def refuse(report: Report, request: ReportRequest) -> ReportReply:
            ends = [item.end for item in request.items if isinstance(item.end, Complete)]
            if why == "an unknown field" and any(end.returns_step for end in ends):
                raise BadValue("Object contains unknown field `returns_step`")
            if why == "the result" and ends:
                return ReportReply([ItemReply(problem=Problem("too deep", BadValue.code)) for _ in request.items])
            return await report(request)

        on_reports(p, refuse)
        handle = await p.start(run)
        assert await ends(handle) is (Phase.COMPLETED if why == "an unknown field" else Phase.FAILED)
        assert [row.key for row in await rows_of(handle) if row.kind is Kind.STEP] == ["step"]
        assert [line.text for _, line in await p.logs(handle.id)] == ["a line"]
        assert (await anext(handle.stream())).kind == "item"
        assert (await handle.get()).progress
    assert count["body"] == 1
