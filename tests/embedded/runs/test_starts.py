"""Starting: keys, queues, priorities, what is refused, and workflows that are made later."""

import asyncio
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, cast

import pytest
from tests.embedded.house import Counter, House, ends, reaches
from tests.kit.polling import until

from perdure.embedded import Embedded
from perdure.engine.base.clock import ManualClock
from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Queue, Registry, workflow
from perdure.store.base.interface import EndNotice, Verb
from perdure.wire.base.errors import BadValue, Conflict, DeploymentNotFound, NotFound, Unavailable, WorkflowNotFound
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters


async def test_a_key_names_one_execution_with_one_input(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow
    async def order(ctx: Context, id: int) -> int:
        assert ctx.key == "order-7"
        await ctx.step("count", count, "ran")
        return id

    async with house.open(app) as p:
        first = await p.start(order, 7, key="order-7")
        again = await asyncio.gather(*[p.start(order, 7, key="order-7") for _ in range(20)])
        assert not first.existing and all(handle.existing and handle.id == first.id for handle in again)
        assert await again[0].result() == 7
        late = await p.start(order, 7, key="order-7")
        assert (late.id, late.existing, await late.result()) == (first.id, True, 7)
        with pytest.raises(Conflict, match=first.id) as refused:
            await p.start(order, 8, key="order-7")
        assert refused.value.details == {"key": "order-7", "execution_id": first.id}
        found = await p.find(order, "order-7")
        assert (found.id, await found.result()) == (first.id, 7)
        with pytest.raises(NotFound):
            await p.find(order, "order-8")
        await p.delete(first.id)
        with pytest.raises(NotFound):
            await p.get(first.id)
        fresh = await p.start(order, 10, key="order-7")
        assert (fresh.existing, await fresh.result()) == (False, 10)
    assert count["ran"] == 2


async def test_no_start_outlives_its_client(house: House) -> None:
    app = Registry()

    @app.workflow
    async def order(ctx: Context, id: int) -> int:
        return id

    async with house.open(app) as p:
        for turns in range(6):  # of the event loop: to the flush, to the begin of the request, and into the commit
            client = Client(p._transport)
            starts = [asyncio.create_task(client.start(order, n)) for n in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await client.close()
            for outcome in await asyncio.gather(*starts, return_exceptions=True):
                assert isinstance(outcome, Handle | Unavailable), outcome


async def test_no_input_gives_the_default_of_the_function(house: House) -> None:
    app = Registry()

    @app.workflow
    async def counts(ctx: Context, n: int = 10) -> int:
        return n

    @app.workflow
    async def may_be_none(ctx: Context, n: int | None = 11) -> int | None:
        return n

    @app.workflow
    async def says_no_type(ctx, n=12):  # type: ignore[no-untyped-def]
        return n

    @app.workflow
    async def parent(ctx: Context) -> list[object]:
        return [await ctx.run_child(counts), await ctx.run_child(counts, 3), await ctx.run_child("counts")]

    async with house.open(app) as p:
        given: list[Any] = [counts, may_be_none, says_no_type, "counts"]  # whoever names one does not know its types
        handles = [*[await p.start(one) for one in given], await p.start(counts, 3), await p.start(parent)]
        assert [await one.result() for one in handles] == [10, 11, 12, 10, 3, [10, 3, 10]]


async def test_an_input_that_the_workflow_does_not_take_is_refused(house: House) -> None:
    app = Registry()

    @app.workflow(trigger_on="parcels")
    async def nightly(ctx: Context) -> str:
        return "done"

    @app.workflow
    async def parent(ctx: Context) -> str:
        return await ctx.run_child(nightly, 7)  # type: ignore[misc]  # the mistake

    says = "input: workflow 'nightly' takes no input, got a `int`; start it without one, or give its function a second"
    async with house.open(app) as p:
        with pytest.raises(BadValue, match=f"^{says}"):
            await p.start(nightly, 7)  # type: ignore[misc]  # the mistake
        with pytest.raises(ExecutionFailed, match="the input of child 'nightly': workflow 'nightly' takes no input"):
            await (await p.start(parent)).result()
        with pytest.raises(BadValue, match=r"^payload: the workflow takes no input"):
            await p.start("nightly", 7)
        empty: list[Handle[Any]] = [await p.start(nightly), await p.start("nightly"), await p.start("nightly", {})]
        assert [await one.result() for one in empty] == ["done"] * 3
        # A schedule and an event trigger give an input to whoever takes one.
        made = await p.schedules.create(nightly, "0 9 * * *")
        fired: Handle[object] = await p.schedules.run(made.id)
        assert await fired.result() == "done"
        await p.publish("parcels", {"n": 7})
        await until(lambda: _ended(p, "nightly", 5))


async def _ended(p: Embedded, workflow_id: str, count: int) -> bool:
    page = await p.list(ListFilters(workflow_id=workflow_id))
    return sum(one.phase is Phase.COMPLETED for one in page.executions) == count


async def test_the_same_key_in_one_request_is_one_execution(house: House) -> None:
    app = Registry()

    @app.workflow
    async def one(ctx: Context, n: int) -> int:
        return n

    async with house.open(app) as p:
        handles = await asyncio.gather(*[p.start(one, 1, key="same") for _ in range(50)])
        assert len({handle.id for handle in handles}) == 1
        assert [handle.existing for handle in handles].count(False) == 1


async def test_everything_given_at_the_start_is_there_in_the_workflow_and_on_the_record(house: House) -> None:
    queue = Queue("lane", concurrency_limit=3)
    app = Registry()

    @app.workflow(queue=queue, run_timeout_seconds=77)
    async def full(ctx: Context, n: int) -> list[object]:
        return [ctx.queue_name, ctx.concurrency_key, ctx.session_id, ctx.user_id, ctx.tags, ctx.workflow_id]

    @app.workflow
    async def plain(ctx: Context) -> list[object]:
        return [ctx.queue_name, ctx.concurrency_key, ctx.session_id == ctx.execution_id, ctx.user_id, ctx.tags]

    async with house.open(app) as p:
        handle = await p.start(
            full, 1, concurrency_key="c", session_id="s", user_id="u", tags={"team": "blue"}, priority=5
        )
        assert await handle.result() == ["lane", "c", "s", "u", {"team": "blue"}, "full"]
        record = await handle.get()
        assert (record.queue_name, record.concurrency_key, record.session_id, record.user_id) == ("lane", "c", "s", "u")
        assert (record.run_timeout_seconds, record.deployment_id, record.attempt) == (77, "default", 1)
        assert record.raw.output_schema_name == "list[object]"
        assert record.assigned_to_worker == p.worker.id
        assert record.started_at is not None and record.completed_at is not None
        assert await (await p.start(plain)).result() == ["plain", None, True, None, {}]
        by_tag = await p.list(ListFilters(tag="team=blue"))
        assert [execution.id for execution in by_tag.executions] == [handle.id]


async def test_priority_goes_before_age(house: House) -> None:
    app = Registry()
    order: list[int] = []
    gate = asyncio.Event()

    @app.workflow
    async def step(ctx: Context, n: int) -> None:
        await ctx.step("note", order.append, n)

    @app.workflow
    async def holds(ctx: Context) -> None:
        await ctx.step("wait", gate.wait)

    async with house.open(app, capacity=1) as p:
        holder = await p.start(holds)
        await until(lambda: p.worker.running == 1)
        handles = [await p.start(step, n, priority=priority) for n, priority in enumerate((0, 5, -5, 5, 0))]
        gate.set()
        await holder.result()
        for handle in handles:
            await handle.result()
    assert order == [1, 3, 0, 4, 2]


class Gauge:
    """How many bodies run at once, by key."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def body(self, key: str) -> None:
        for name in (key, "all"):
            self.now[name] = self.now.get(name, 0) + 1
            self.most[name] = max(self.most.get(name, 0), self.now[name])
        await asyncio.sleep(0.002)
        for name in (key, "all"):
            self.now[name] -= 1


async def test_queue_limits_declared_in_code_hold(house: House) -> None:
    app = Registry()
    mail = Queue("mail", concurrency_limit=2, total_limit=5)
    gauge = Gauge()

    @app.workflow(queue=mail)
    async def send(ctx: Context, to: str) -> None:
        await ctx.step("send", gauge.body, to)
        await ctx.sleep(0.001)  # a waiting execution holds no slot
        await ctx.step("sent", gauge.body, to)

    async with house.open(app) as p:
        handles = [await p.start(send, key, concurrency_key=key) for key in "abcd" * 8]
        for handle in handles:
            await handle.result()
    assert all(gauge.most[key] <= 2 for key in "abcd")
    assert gauge.most["all"] <= 5


async def test_a_limit_of_one_runs_one_after_another_even_without_a_key(house: House) -> None:
    app = Registry()
    gauge = Gauge()

    @app.workflow(queue=Queue("single", total_limit=1))
    async def lone(ctx: Context, n: int) -> int:
        await ctx.step("body", gauge.body, "x")
        return n

    async with house.open(app) as p:
        handles = [await p.start(lone, n) for n in range(10)]
        assert [await handle.result() for handle in handles] == list(range(10))
    assert gauge.most["all"] == 1


async def test_the_latest_declaration_of_a_queue_holds(house: House) -> None:
    gauge = Gauge()

    def version(limit: int | None, most: int) -> Registry:
        app = Registry()
        together = asyncio.Barrier(most)

        async def body() -> None:
            await together.wait()  # so many are let in
            await gauge.body("x")

        @app.workflow(queue=Queue("lane", total_limit=limit))
        async def lane(ctx: Context) -> None:
            await ctx.step("body", body)

        return app

    for limit, most in ((1, 1), (3, 3), (None, 12)):
        gauge.most.clear()
        async with house.open(version(limit, most)) as p:
            handles = [await p.start("lane") for _ in range(12)]
            for handle in handles:
                await handle.result()
        assert gauge.most["all"] <= most  # and no more


async def test_an_unknown_workflow_is_refused_and_one_that_is_given_is_taken_up(house: House) -> None:
    app, later = Registry(), Registry()

    @app.workflow
    async def known(ctx: Context) -> str:
        return "known"

    @later.workflow
    async def unknown(ctx: Context) -> str:
        return "known by now"

    async with house.open(app) as p:
        with pytest.raises(WorkflowNotFound, match="'unknown' is not registered"):
            await p.start("unknown")
        assert await (await p.start(known)).result() == "known"
        handle = await p.start(unknown)  # not by its name but itself: the registry takes it up
        assert await handle.result() == "known by now"
        assert await (await p.start("unknown")).result() == "known by now"
        assert "unknown" in p.worker.registry


async def test_a_workflow_with_a_taken_name_is_refused_by_an_explicit_registry(house: House) -> None:
    app, other = Registry(), Registry()

    @app.workflow(name="twin")
    async def one(ctx: Context) -> int:
        return 1

    @other.workflow(name="twin")
    async def two(ctx: Context) -> int:
        return 2

    async with house.open(app) as p:
        with pytest.raises(ValueError, match="Two workflows are called 'twin'"):
            await p.start(two)
        assert await (await p.start(one)).result() == 1


async def test_without_a_registry_every_plain_workflow_is_served_the_last_made_first(house: House) -> None:
    @workflow(name="embedded-test-plain")
    async def plain(ctx: Context) -> str:
        return "first"

    async with house.open() as p:
        assert await (await p.start(plain)).result() == "first"
        assert await (await p.start("embedded-test-plain")).result() == "first"

        @workflow(name="embedded-test-later")
        async def later(ctx: Context) -> str:
            return "later"

        @workflow(name="embedded-test-plain")
        async def plain_again(ctx: Context) -> str:
            return "second"

        handles = await asyncio.gather(*[p.start(later) for _ in range(10)])
        assert [await handle.result() for handle in handles] == ["later"] * 10
        assert await (await p.start(plain_again)).result() == "second"
        assert await (await p.start("embedded-test-plain")).result() == "second"


async def test_bad_starts_are_refused_each_with_its_field(house: House) -> None:
    app = Registry()

    @app.workflow
    async def fine(ctx: Context, input: object) -> object:
        return input

    async with house.open(app) as p:
        with pytest.raises(BadValue, match="priority"):
            await p.start(fine, 1, priority=5_000)
        with pytest.raises(BadValue, match="tags"):
            await p.start(fine, 1, tags={str(n): "x" for n in range(11)})
        with pytest.raises(BadValue, match="run_timeout_seconds"):
            await p.start(fine, 1, run_timeout_seconds=0)
        with pytest.raises(BadValue, match="key"):
            await p.start(fine, 1, key="")
        with pytest.raises(BadValue, match=r"input"):
            await p.start(fine, {"a": "\ud800"})
        with pytest.raises(BadValue):
            await p.start(fine, {1: "a number as a key"})
        with pytest.raises(DeploymentNotFound):
            await p.start(fine, 1, deployment_id="elsewhere")
        good = await asyncio.gather(
            p.start(fine, 1), p.start(fine, 1, priority=5_000), p.start(fine, 2), return_exceptions=True
        )
        assert [isinstance(one, BadValue) for one in good] == [False, True, False]


SOMETHING = object()


WRONG_VALUES: list[tuple[str, object]] = [
    ("key", "\ud800"),
    ("key", 7),
    ("user_id", SOMETHING),
    ("concurrency_key", 7),
    ("queue", b"lane"),
    ("session_id", 1.5),
    ("deployment_id", ["default"]),
    ("webhook_url", "https://example.com/\udfff"),
    ("webhook_url", SOMETHING),
    ("tags", {"team": 7}),
    ("tags", {"team": "\ud800"}),
    ("tags", {None: "blue"}),
    ("tags", ["team"]),
    ("priority", None),
    ("priority", "high"),
    ("run_timeout_seconds", 1.5),
    ("delay", Decimal(1)),
    ("delay", 10**400),
    ("at", "tomorrow"),
]


async def test_a_wrong_value_is_told_to_whoever_gave_it_and_to_nobody_else(house: House) -> None:
    app = Registry()

    @app.workflow
    async def fine(ctx: Context, input: object) -> object:
        return input

    async with house.open(app) as p:
        for name, value in WRONG_VALUES:
            wrong: dict[str, Any] = {name: value}
            before, refused, after = await asyncio.gather(
                p.start(fine, 1), p.start(fine, 2, **wrong), p.start(fine, 3), return_exceptions=True
            )
            assert isinstance(refused, BadValue) and name in refused.message, (name, value)
            assert [await cast(Handle[object], one).result() for one in (before, after)] == [1, 3], (name, value)


async def test_texts_and_numbers_of_classes_of_their_own_are_taken(house: House) -> None:
    class Text(str):
        pass

    class Team(StrEnum):
        BLUE = "blue"

    class Level(IntEnum):
        HIGH = 5

    app = Registry()

    @app.workflow
    async def fine(ctx: Context) -> list[object]:
        return [ctx.key, ctx.user_id, ctx.tags]

    async with house.open(app) as p:
        handle = await p.start(fine, key=Text("k"), user_id=Team.BLUE, tags={Text("t"): Team.BLUE}, priority=Level.HIGH)
        assert await handle.result() == ["k", "blue", {"t": "blue"}]


async def test_a_result_can_be_waited_for_with_a_timeout_and_the_execution_goes_on(house: House) -> None:
    app = Registry()

    @app.workflow
    async def slow(ctx: Context) -> str:
        await ctx.wait_for_event("go")
        return "done"

    async with house.open(app) as p:
        handle = await p.start(slow)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.01)
        await p.publish("go", None)
        results = await asyncio.gather(*[handle.result(timeout=60) for _ in range(5)], p.handle(handle.id).result())
        assert results == ["done"] * 6
        with pytest.raises(NotFound):
            await p.handle("0190a5f2-7c1e-7b3a-9d55-0242ac120002").result()


async def test_watch_follows_the_journal_to_its_end(house: House) -> None:
    app = Registry()

    @app.workflow
    async def walk(ctx: Context) -> None:
        await ctx.step("one", lambda: 1)
        await ctx.wait_for_event("go")
        await ctx.step("two", lambda: 2)

    async with house.open(app) as p:
        handle = await p.start(walk)
        seen = []
        async for row in p.watch(handle.id):
            seen.append(row)
            if row.kind.value == "waiting":
                await p.publish("go", None)
        assert [row.seq for row in seen] == list(range(1, len(seen) + 1))
        assert [row.key for row in seen if row.kind.value == "step"] == ["one", "two"]
        assert seen[-1].kind.value == "completed"


async def test_erase_deletes_what_belongs_to_a_user_and_leaves_what_is_open(house: House) -> None:
    app = Registry()

    @app.workflow
    async def mine(ctx: Context, wait: bool) -> None:
        if wait:
            await ctx.wait_for_event("never")

    async with house.open(app) as p:
        done = [await p.start(mine, False, user_id="u-1") for _ in range(3)]
        other = await p.start(mine, False, user_id="u-2")
        still = await p.start(mine, True, user_id="u-1")
        for handle in (*done, other):
            await ends(handle)
        await reaches(still, Phase.WAITING)
        assert await p.erase(user_id="u-1") == (3, 1)
        assert (await other.get()).phase is Phase.COMPLETED
        with pytest.raises(BadValue):
            await p.erase()


async def test_a_workflow_is_tried_again_and_only_what_failed_runs_again(house: House, count: Counter) -> None:
    app = Registry()

    def flaky() -> int:
        if count("flaky") < 3:
            raise ConnectionError("not yet")
        return 7

    @app.workflow(retry=3)
    async def retried(ctx: Context) -> list[int]:
        first = await ctx.step("solid", count, "solid")
        return [first, await ctx.step("flaky", flaky), ctx.retry_count]

    @app.workflow(retry=3)
    async def wrapped(ctx: Context) -> int:
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(ctx.step("flaky", flaky))
                group.create_task(ctx.step("solid", count, "solid"))
        except* ConnectionError:
            raise AssertionError from None
        except* Exception as errors:
            raise RuntimeError("it did not work") from errors
        return task.result()

    async with house.open(app, clock=(clock := ManualClock())) as p:
        for workflow_, result in ((retried, [1, 7, 2]), (wrapped, 7)):
            count.runs.clear()
            handle = await p.start(workflow_.name)
            for tries in (1, 2):
                await until(lambda tries=tries: count["flaky"] == tries)  # type: ignore[misc]  # bound now
                await reaches(handle, Phase.QUEUED)
                clock.advance(600)
                p.engine.wake_loops()
            assert await handle.result() == result
            assert (await handle.get()).retry_count == 2
            assert count.runs == {"solid": 1, "flaky": 3}


async def test_a_workflow_that_fails_for_good_says_so_once(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow
    async def failing(ctx: Context) -> None:
        count("code")
        raise LookupError("nothing there")

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed, match="nothing there") as caught:
            await (await p.start(failing)).result()
        assert caught.value.type == "LookupError"
    assert count["code"] == 1


async def test_who_still_waits_when_the_block_ends_is_told(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waits(ctx: Context) -> object:
        return await ctx.suspend("for ever")

    async with house.open(app) as p:
        handle = await p.start(waits)
        waiting = asyncio.create_task(handle.result())
        await reaches(handle, Phase.WAITING)
    with pytest.raises(Unavailable, match="closed while the result was awaited"):
        await waiting


async def test_what_is_no_workflow_is_told_by_its_name(house: House) -> None:
    async def plain(ctx: Context) -> int:
        return 1

    app = Registry()

    @app.workflow
    async def parent(ctx: Context) -> int:
        not_one: Any = plain  # a mistake, as those make it who check no types
        return int(await ctx.run_child(not_one, 1))

    async with house.open(app) as p:
        with pytest.raises(TypeError, match="plain is not a workflow; decorate its function with @workflow"):
            await p.start(cast(Any, plain), 1)
        with pytest.raises(ExecutionFailed, match="plain is not a workflow"):
            await (await p.start(parent)).result()


async def test_an_end_may_be_heard_before_its_start_is_answered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    app, ended = Registry(), asyncio.Event()

    @app.workflow
    async def plain(ctx: Context) -> str:
        return "done"

    async with house.open(app) as p:
        engine = p.engine
        write, tell = engine.store.write, engine.end_listeners.tell

        async def answer_late(verb: Verb[Any]) -> Any:
            answer = await write(verb)
            if verb.name == "start":
                await ended.wait()
            return answer

        def hear(end: EndNotice) -> None:
            tell(end)
            ended.set()

        monkeypatch.setattr(engine.store, "write", answer_late)
        monkeypatch.setattr(engine.end_listeners, "tell", hear)
        async with asyncio.timeout(30):
            assert await (await p.start(plain)).result() == "done"
