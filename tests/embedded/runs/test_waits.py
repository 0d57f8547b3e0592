"""Waiting for events and for answers, publishing and answering."""

import asyncio
import contextlib
import dataclasses
import itertools
import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.embedded.house import Counter, House, Report, keys_of, on_reports, pass_time, reaches, rows_of
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadRequest, BadValue, Conflict, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.insight.timelines import SpanKind
from perdure.wire.runs.requests import OpenWait, ReportReply, ReportRequest
from perdure.wire.steering.acts import PendingKind


@dataclasses.dataclass
class Payment:
    order_id: int
    amount: int


async def test_an_event_wakes_everybody_who_waits_for_it(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context) -> list[object]:
        event = await ctx.wait_for_event("news")
        return [event.data, event.topic, event.sequence_id, event.event_type]

    async with house.open(app) as p:
        handles = [await p.start(waiting) for _ in range(3)]
        for handle in handles:
            await reaches(handle, Phase.WAITING)
        assert await p.publish("news", {"a": [1]}, event_type="made") == 1
        for handle in handles:
            assert await handle.result() == [{"a": [1]}, "news", 1, "made"]


async def test_events_are_taken_in_order_each_once_already_there_or_not(house: House) -> None:
    app = Registry()

    @app.workflow
    async def reading(ctx: Context) -> list[object]:
        await ctx.wait_for_event("start")
        return [(await ctx.wait_for_event("numbers")).data for _ in range(4)]

    async with house.open(app) as p:
        await p.publish("numbers", 0)  # before the execution was created: not for it
        handle = await p.start(reading)
        await p.publish("numbers", 1)
        await p.publish("numbers", 2)
        await p.publish("start", None)
        await until(lambda: _has(handle, "numbers#2"))
        await p.publish("numbers", 3)
        await p.publish("numbers", 4)
        assert await handle.result() == [1, 2, 3, 4]


async def _has(handle: Handle[Any], key: str) -> bool:
    return key in await keys_of(handle, Kind.EVENT)


async def test_match_takes_only_events_whose_fields_are_equal(house: House) -> None:
    app = Registry()

    @app.workflow
    async def paid(ctx: Context, order_id: int) -> int:
        event = await ctx.wait_for_event("paid", Payment, match={"order_id": order_id})
        return event.data.amount

    async with house.open(app) as p:
        seven, eight = await p.start(paid, 7), await p.start(paid, 8)
        await reaches(seven, Phase.WAITING)
        await p.publish("paid", Payment(9, 90))
        await p.publish("paid", "not even an object")
        await p.publish("paid", Payment(8, 80))
        assert await eight.result() == 80
        assert (await seven.get()).phase is Phase.WAITING
        await p.publish("paid", Payment(7, 70))
        assert await seven.result() == 70


async def test_what_did_not_match_stays_for_other_waits(house: House) -> None:
    app = Registry()

    @app.workflow
    async def choosy(ctx: Context) -> list[object]:
        second = await ctx.wait_for_event("things", match={"n": 2})
        return [second.data, (await ctx.wait_for_event("things")).data]

    async with house.open(app) as p:
        handle = await p.start(choosy)
        await p.publish("things", {"n": 1})
        await p.publish("things", {"n": 2})
        assert await handle.result() == [{"n": 2}, {"n": 1}]


async def test_after_and_latest_choose_where_to_read(house: House) -> None:
    app = Registry()

    @app.workflow
    async def reading(ctx: Context) -> list[object]:
        old = await ctx.wait_for_event("log", after=1)
        fresh = await ctx.wait_for_event("log", latest=True)
        return [old.data, fresh.data]

    async with house.open(app) as p:
        for n in range(1, 5):
            await p.publish("log", n)
        handle = await p.start(reading)
        await reaches(handle, Phase.WAITING)
        await p.publish("log", "new")
        assert await handle.result() == [2, "new"]


async def test_a_wait_that_times_out_raises_and_a_later_event_is_for_the_next_wait(house: House) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def patient(ctx: Context) -> list[object]:
        seen: list[object] = []
        for _ in range(2):
            try:
                seen.append((await ctx.wait_for_event("bell", timeout=timedelta(minutes=1))).data)
            except TimeoutError:
                seen.append("timeout")
        return seen

    async with house.open(app, clock=clock) as p:
        handle = await p.start(patient)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 61)
        await until(lambda: _waits(handle, 2))
        await p.publish("bell", "rang")
        assert await handle.result() == ["timeout", "rang"]


async def _waits(handle: Handle[Any], number: int) -> bool:
    return [row.kind for row in await rows_of(handle)].count(Kind.WAITING) == number


async def test_an_event_that_comes_between_a_timeout_and_the_next_wait_is_for_the_next_wait(house: House) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def patient(ctx: Context) -> object:
        with contextlib.suppress(TimeoutError):
            await ctx.wait_for_event("bell", timeout=60)
        return (await ctx.wait_for_event("bell", timeout=600)).data

    async with house.open(app, clock=clock) as p:

        async def publish_before(report: Report, request: ReportRequest) -> ReportReply:
            asked = [entry.key for item in request.items for entry in item.entries if isinstance(entry, OpenWait)]
            if "bell#2" in asked:
                await p.publish("bell", "rang")
            return await report(request)

        on_reports(p, publish_before)
        handle = await p.start(patient)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 61)
        assert await handle.result() == "rang"


async def test_a_workflow_publishes_exactly_once(house: House) -> None:
    app = Registry()

    @app.workflow
    async def announcing(ctx: Context) -> list[int]:
        first = await ctx.publish("out", {"n": 1}, event_type="made")
        await ctx.wait_for_event("go")
        second = await ctx.publish("out", {"n": 2}, dedup_key="two")
        again = await ctx.publish("out", {"n": 2}, dedup_key="two")
        return [first, second, again]

    async with house.open(app) as p:
        handle = await p.start(announcing)
        await reaches(handle, Phase.WAITING)
        await p.publish("go", None)
        assert await handle.result() == [1, 2, 2]
        assert [bytes(event.data) for event in await p.events("out")] == [b'{"n":1}', b'{"n":2}']


async def test_a_workflow_hears_its_own_events(house: House) -> None:
    app = Registry()

    @app.workflow
    async def talking(ctx: Context) -> object:
        hearing = asyncio.create_task(ctx.wait_for_event("echo"))
        await ctx.publish("echo", "hello")
        return (await hearing).data

    async with house.open(app) as p:
        assert await (await p.start(talking)).result() == "hello"


async def test_suspended_steps_are_answered_once(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow
    async def approving(ctx: Context) -> list[object]:
        await ctx.step("before", count, "before")
        payment = await ctx.suspend("approve", {"amount": 120}, answer_type=Payment)
        return [payment.amount, isinstance(payment, Payment)]

    async with house.open(app) as p:
        handle = await p.start(approving)
        await reaches(handle, Phase.WAITING)
        await handle.resume("approve", {"order_id": 1, "amount": 99})
        with pytest.raises(Conflict):
            await handle.resume("approve", {"order_id": 1, "amount": 100})
        assert await handle.result() == [99, True]
        with pytest.raises(Conflict):
            await handle.resume("approve", None)
        with pytest.raises(NotFound):
            await p.resume("0190a5f2-7c1e-7b3a-9d55-0242ac120002", "approve")
    assert count["before"] == 1


@dataclasses.dataclass
class Positive:
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 1:
            raise ValueError("at least 1")


async def test_a_client_lists_the_questions_of_all_executions(house: House) -> None:
    app = Registry()
    keys = ["k" * 200, "\u05d0\u05d9\u05df"]  # one is read from the right
    shown = [None, {"n": (1 << 63) - 1}]

    @app.workflow
    async def asks(ctx: Context, n: int) -> object:
        return await ctx.suspend(keys[n], shown[n])

    async with house.open(app) as p:
        assert (await p.approvals()).items == []
        handles = [await p.start(asks, n) for n in range(2)]
        for handle in handles:
            await reaches(handle, Phase.WAITING)
        page = await p.approvals(limit=1)
        assert page.next_cursor is not None
        found = [*page.items, *(await p.approvals(cursor=page.next_cursor)).items]
        assert {(one.root_execution_id, one.step_key, bytes(one.data)) for one in found} == {
            (handle.id, key, msgspec.json.encode(data)) for handle, key, data in zip(handles, keys, shown, strict=True)
        }
        for one in found:
            await p.resume(one.execution_id, one.step_key, "yes", question=one.question)
        assert [await handle.result() for handle in handles] == ["yes", "yes"]
        assert (await p.approvals()).items == []
        answered = await p.approvals(state="answered")
        assert [one.answer for one in answered.items] == [msgspec.Raw(b'"yes"')] * 2
        with pytest.raises(ValueError, match="nonsense"):
            await p.approvals(state="nonsense")  # type: ignore[arg-type]
        with pytest.raises(BadRequest):
            await p.approvals(cursor="nonsense")


async def test_an_answer_that_a_type_refuses_by_its_own_code_can_be_asked_for_again(house: House) -> None:
    app = Registry()

    @app.workflow
    async def asks_once(ctx: Context) -> int:
        return (await ctx.suspend("approve", answer_type=Positive)).amount

    @app.workflow
    async def asks_again(ctx: Context) -> int:
        for n in itertools.count(1):
            try:
                return (await ctx.suspend(f"approve-{n}", answer_type=Positive)).amount
            except BadValue as error:
                ctx.log("asked again: %s", error)
        raise AssertionError

    async with house.open(app) as p:
        once, again = await p.start(asks_once), await p.start(asks_again)
        await once.resume("approve", {"amount": 0})
        said = "the answer to 'approve': at least 1; the answer stands, so catch BadValue"
        with pytest.raises(ExecutionFailed, match=re.escape(said)):
            await once.result()
        await again.resume("approve-1", {"amount": -1})
        await again.resume("approve-2", {"amount": 5})
        assert await again.result() == 5


async def test_a_server_of_an_earlier_release_gets_no_schemas(house: House) -> None:
    app = Registry()

    @app.workflow
    async def asking(ctx: Context) -> int:
        return (await ctx.suspend("approve", answer_type=Payment)).amount

    async with house.open(app) as p:

        async def older(report: Report, request: ReportRequest) -> ReportReply:
            if b"answer_schema" in msgspec.json.encode(request):
                raise BadValue("body.items[0].entries[0]: Object contains unknown field `answer_schema`")
            return await report(request)

        on_reports(p, older)
        handles = [await p.start(asking) for _ in range(3)]
        for handle in handles:
            await reaches(handle, Phase.WAITING)
            await handle.resume("approve", {"order_id": 1, "amount": 7})
            assert await handle.result() == 7


async def test_an_early_answer_is_kept_until_it_is_asked_for(house: House) -> None:
    app = Registry()

    @app.workflow
    async def late(ctx: Context) -> object:
        await ctx.wait_for_event("go")
        return await ctx.suspend("ask")

    async with house.open(app) as p:
        handle = await p.start(late)
        await handle.resume("ask", "early")
        with pytest.raises(Conflict):
            await handle.resume("ask", "twice")
        await p.publish("go", None)
        assert await handle.result() == "early"


async def test_a_suspended_step_times_out(house: House) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def asking(ctx: Context) -> object:
        try:
            return await ctx.suspend("ask", timeout=timedelta(hours=1))
        except TimeoutError:
            return "nobody answered"

    async with house.open(app, clock=clock) as p:
        handle = await p.start(asking)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 3_601)
        assert await handle.result() == "nobody answered"


async def test_an_execution_that_answers_too_early_is_told(house: House) -> None:
    """A step that shows nothing takes the early answer, and a question with data does not."""
    app = Registry()

    @app.workflow
    async def asking(ctx: Context) -> object:
        await ctx.wait_for_event("go")
        return [await ctx.suspend("plain"), await ctx.suspend("shown", {"question": "?"})]

    @app.workflow
    async def answering(ctx: Context, id: str) -> list[str]:
        early = [await ctx.resume(id, key, key, key=f"first {key}") for key in ("plain", "shown")]
        await ctx.publish("go")
        await ctx.wait_for_event("asked")
        return [*early, await ctx.resume(id, "plain", "plain")]

    async with house.open(app) as p:
        asks = await p.start(asking)
        answers = await p.start(answering, asks.id)

        async def is_asked() -> bool:
            return "shown" in [one.key for one in await p.pending(asks.id)]

        await until(is_asked)
        await p.publish("asked", None)
        assert await answers.result() == ["early", "early", "answered"]
        assert (await asks.get()).phase is Phase.WAITING


async def test_one_execution_answers_another(house: House) -> None:
    app = Registry()

    @app.workflow
    async def asking(ctx: Context) -> object:
        return await ctx.suspend("ask", {"question": "?"})

    @app.workflow
    async def answering(ctx: Context, id: str) -> str:
        await ctx.resume(id, "ask", 42)
        try:
            await ctx.resume(id, "ask", 43)
        except Conflict:
            return "once"
        return "twice"

    async with house.open(app) as p:
        asked = await p.start(asking)
        await reaches(asked, Phase.WAITING)
        assert await (await p.start(answering, asked.id)).result() == "once"
        assert await asked.result() == 42


async def test_several_waits_are_open_at_once_and_the_first_wins(house: House) -> None:
    app = Registry()

    @app.workflow
    async def racing(ctx: Context) -> list[object]:
        event = asyncio.create_task(ctx.wait_for_event("event"))
        answer = asyncio.create_task(ctx.suspend("answer"))
        await asyncio.wait([event, answer], return_when=asyncio.FIRST_COMPLETED)
        first = "event" if event.done() else "answer"
        await asyncio.wait([event, answer])
        return [first, event.result().data, answer.result()]

    async with house.open(app) as p:
        handle = await p.start(racing)
        await reaches(handle, Phase.WAITING)
        await handle.resume("answer", 1)
        await p.publish("event", 2)
        assert await handle.result() == ["answer", 2, 1]


async def test_a_wait_that_was_given_up_takes_no_event(house: House) -> None:
    app = Registry()

    @app.workflow
    async def changing(ctx: Context) -> list[object]:
        one = asyncio.create_task(ctx.wait_for_event("queue"))
        await ctx.wait_for_event("change")
        one.cancel()
        await ctx.step("between", lambda: None)
        await ctx.wait_for_event("go")
        return [(await ctx.wait_for_event("queue")).data]

    async with house.open(app) as p:
        handle = await p.start(changing)
        await reaches(handle, Phase.WAITING)
        await p.publish("change", None)
        await until(lambda: _stepped(handle))
        await p.publish("queue", "first")
        await p.publish("go", None)
        assert await handle.result() == ["first"]


async def _stepped(handle: Handle[Any]) -> bool:
    return await keys_of(handle, Kind.STEP) == ["between"] and (await handle.get()).phase is Phase.WAITING


async def test_a_workflow_that_nothing_can_wake_fails_with_the_reason(house: House) -> None:
    app = Registry()

    @app.workflow
    async def stuck(ctx: Context) -> None:
        await asyncio.Event().wait()

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed, match="waits for ever") as caught:
            await (await p.start(stuck)).result()
        assert caught.value.type == "Stuck"


async def test_bad_topics_keys_and_data_are_refused(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context) -> object:
        return (await ctx.wait_for_event("x")).data

    async with house.open(app) as p:
        with pytest.raises(BadValue, match="topic"):
            await p.publish("", 1)
        with pytest.raises(BadValue, match="data"):
            await p.publish("x", {"a": float("nan")})
        handle = await p.start(waiting)
        with pytest.raises(BadValue, match="step_key"):
            await handle.resume("", 1)
        await handle.cancel()


async def test_many_sleepers_and_waiters_cost_no_replay_when_parked(house: House) -> None:
    """A wake brings only the rows that a parked execution has not seen."""
    app, runs = Registry(), Counter()

    @app.workflow
    async def rounds(ctx: Context, n: int) -> int:
        runs("code")
        for _ in range(n):
            await ctx.wait_for_event("round")
            await ctx.step("step", runs, "step")
        return n

    async with house.open(app) as p:
        handles = [await p.start(rounds, 3) for _ in range(10)]
        for _ in range(3):
            for handle in handles:
                await reaches(handle, Phase.WAITING)
            await p.publish("round", None)
            for handle in handles:
                await until(lambda handle=handle: _is_back(handle))  # type: ignore[misc]  # bound now
        assert [await handle.result() for handle in handles] == [3] * 10
        for handle in handles:
            assert [row.seq for row in await rows_of(handle)] == list(range(1, len(await rows_of(handle)) + 1))
    assert runs["step"] == 30
    assert runs["code"] == (10 if house.parks else 40)


async def _is_back(handle: Handle[Any]) -> bool:
    execution = await handle.get()
    if execution.phase is Phase.COMPLETED:
        return True
    steps = await keys_of(handle, Kind.STEP)
    events = await keys_of(handle, Kind.EVENT)
    return execution.phase is Phase.WAITING and len(steps) == len(events)


async def test_a_wait_for_an_event_says_until_when(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context) -> None:
        await ctx.wait_for_event("news", timeout=3_600)

    async with house.open(app) as p:
        handle = await p.start(waiting)
        await reaches(handle, Phase.WAITING)
        call = next(one for one in await p.pending(handle.id) if one.kind is PendingKind.EVENT)
        assert call.since_us is not None and call.due_at_us is not None
        assert abs(call.due_at_us - call.since_us - 3_600_000_000) < 60_000_000
        (span,) = [one for one in (await p.timeline(handle.id)).spans if one.kind is SpanKind.EVENT]
        assert span.wait is not None and span.wait.until_us == call.due_at_us


async def test_progress_is_a_share_or_a_count(house: House) -> None:
    app = Registry()

    @app.workflow
    async def going(ctx: Context, share: bool) -> None:
        if share:
            ctx.progress(0.4, "x" * 1_000)
        else:
            ctx.progress(2, 5, "shipping")
        await ctx.wait_for_event("never")

    async with house.open(app) as p:
        said = []
        for share in (True, False):
            handle = await p.start(going, share)
            await reaches(handle, Phase.WAITING)
            said.append((await handle.get()).progress or {})
    assert (said[0]["done"], said[0]["total"], len(said[0]["text"].encode())) == (0.4, None, 500)
    assert said[1] == {"done": 2, "total": 5, "text": "shipping"}
