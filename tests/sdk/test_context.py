"""What users write: workflows, steps and the Context, against a machine whose journal the test writes."""

import asyncio
import functools
import inspect
import logging
import re
import threading
import types
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from tests.sdk.fake_server import Journal, advance

from perdure.sdk.base.errors import (
    ChildCancelled,
    ChildFailed,
    DuplicateKey,
    Fatal,
    Misplaced,
    RecordedError,
    RetryAfter,
    StepFailed,
    asked_pause,
)
from perdure.sdk.clients.starts import start_item
from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.replay.calls import DurableCall, Effects, MachineState
from perdure.sdk.replay.machine import Machine
from perdure.sdk.workflows.children import ChildHandle, Mapped
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.events import Event
from perdure.sdk.workflows.logs import ReplayFilter, keep_logs
from perdure.sdk.workflows.steps import StepCall, StepInfo, StepSettings, current_step, running_step, step
from perdure.sdk.workflows.workflow import Queue, Registry, Workflow, workflow
from perdure.wire.agents.approvals import AnswerState
from perdure.wire.base.errors import BadValue, Conflict, NotFound
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.runs.events import JournalEvent
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Answer, Claimed, OpenWait, Publish, StartChild


def claim(**values: Any) -> Claimed:
    return Claimed("00000000-0000-7000-8000-000000000001", "test", 3, Raw(b"null"), 1_000_000, **values)


class Live:
    """An execution whose steps run when the test says so."""

    def __init__(self, flow: Workflow[Any, Any], input: Any = None, **values: Any) -> None:
        self.flow = flow
        self.input = input
        self.claim = claim(**values)
        self.journal = Journal()
        self._open()

    def _open(self) -> None:
        self.machine = Machine(lambda: self.flow.begin(self.ctx, self.input), seed="seed", strict=self.flow.strict)
        self.ctx = Context(self.machine, self.claim)
        self.effects = advance(self.machine, self.journal.rows)

    def feed(self, *rows: Row) -> Effects:
        self.effects = advance(self.machine, rows)
        return self.effects

    def call(self, key: str) -> DurableCall:
        return next(call for call in self.machine.outstanding() if call.key == key)

    def answer(self, key: str, value: object = None, *, ok: bool = True, **rest: Any) -> Effects:
        raw = value if isinstance(value, Raw) else Raw(msgspec.json.encode(value))
        return self.feed(self.journal.answer(self.call(key), ok=ok, value=raw, **rest))

    def request(self, key: str) -> Any:
        return self.call(key).request

    def timer(self) -> Effects:
        assert self.effects.timer is not None
        key, due_us = self.effects.timer
        dt_us = due_us - self.journal.rows[-1].at_us
        return self.feed(self.journal.add(Kind.TIMER, key, fingerprint=fingerprint_of_timer(due_us), dt_us=dt_us))

    @property
    def result(self) -> Any:
        assert self.effects.state is MachineState.DONE, self.effects
        if self.machine.error is not None:
            raise self.machine.error
        return self.machine.result

    def replay(self) -> "Live":
        self.machine.close()
        self._open()
        return self


# --- steps ---------------------------------------------------------------------------------------------------------


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Parcel:
    id: int
    size: Size
    packed: datetime


async def pack(id: int, size: Size = Size.SMALL) -> Parcel: ...  # type: ignore[empty-body]  # never run here


def weigh(parcel: Parcel) -> float:
    return 1.5


@workflow
async def packing(ctx: Context, id: int) -> float:
    parcel = await ctx.step("pack it", pack, id, Size.LARGE)
    assert isinstance(parcel, Parcel)
    assert parcel.size is Size.LARGE
    return await ctx.step(weigh, parcel)


def test_steps_come_back_as_their_type_hints_say() -> None:
    live = Live(packing, 7)
    request = live.request("pack it")
    assert isinstance(request, StepCall)
    assert (request.fn, request.args, request.is_async, request.result_type) == (pack, (7, Size.LARGE), True, Parcel)
    live.answer("pack it", {"id": 7, "size": "l", "packed": "2026-01-01T00:00:00Z"})
    request = live.request("weigh")
    assert (request.fn, request.is_async, request.call()) == (weigh, False, 1.5)
    live.answer("weigh", 2.5)
    assert live.result == 2.5
    assert live.replay().result == 2.5


def test_a_recorded_result_without_an_annotation_is_read_as_plain_json() -> None:
    """The recording may come from a release that took a dataclass there, or from another client."""

    @step
    async def find():  # type: ignore[no-untyped-def]
        raise NotImplementedError

    @workflow
    async def flow(ctx: Context) -> list[object]:
        return [await find(), await ctx.step("again", lambda: None)]  # type: ignore[no-untyped-call]

    live = Live(flow)
    live.answer("find", {"id": 7, "size": "l"})
    live.answer("again", "2026-01-01T00:00:00Z")
    assert live.result == [{"id": 7, "size": "l"}, "2026-01-01T00:00:00Z"]


def test_a_changed_input_is_marked() -> None:
    live = Live(packing, 7)
    live.answer("pack it", {"id": 7, "size": "l", "packed": "2026-01-01T00:00:00Z"})
    live.input = 8
    changed = live.replay().machine.changed_inputs
    assert changed is not None
    assert changed.keys == ["pack it"]


def test_inputs_without_content_are_marked_by_their_class_and_sets_have_no_order() -> None:
    @workflow
    async def flow(ctx: Context, items: list[str]) -> None:
        await asyncio.gather(
            ctx.step("lock", lambda lock: None, threading.Lock()), ctx.step("set", lambda names: None, set(items))
        )

    one, two = Live(flow, ["a", "b", "c"]), Live(flow, ["c", "b", "a"])
    assert one.call("lock").fingerprint == two.call("lock").fingerprint
    assert one.call("set").fingerprint == two.call("set").fingerprint is not None


def test_a_failed_step_raises_what_the_journal_remembers() -> None:
    @workflow
    async def flow(ctx: Context) -> str:
        try:
            await ctx.step("pack", pack, 1)
        except StepFailed as error:
            assert (error.type, error.message, error.key, error.tries) == ("KeyError", "'x'", "pack", 3)
            assert isinstance(error.cause, RecordedError)
            assert "line 1" in str(error.cause)
            return str(error)
        return "worked"

    live = Live(flow)
    live.answer("pack", {"type": "KeyError", "message": "'x'", "detail": "line 1"}, ok=False, tries=3)
    assert live.result == "step 'pack' failed after 3 tries: KeyError: 'x'"


def test_a_recorded_value_that_no_longer_fits_names_the_step() -> None:
    live = Live(packing, 7)
    live.answer("pack it", {"id": "seven"})
    with pytest.raises(BadValue, match="the result of step 'pack it'"):
        _ = live.result


def test_options_of_a_step() -> None:
    @step(retry=5, timeout=3, name="renamed")
    async def declared(x: int) -> int:
        return x

    @workflow
    async def flow(ctx: Context) -> None:
        policy = RetryPolicy(max_attempts=2)
        async with asyncio.TaskGroup() as group:
            group.create_task(declared(1))
            group.create_task(ctx.step("own", declared, 1, retry=policy, key="a key"))
            group.create_task(ctx.step(pack, 1, timeout=9, retry=4))
            group.create_task(ctx.step(functools.partial(pack, 1)))
            group.create_task(ctx.step("lambda", lambda: 5))

    live = Live(flow)
    first = live.request("renamed")
    assert (first.settings.retry.max_attempts, first.settings.timeout_seconds, first.is_async) == (5, 3, True)
    second = live.request("a key")
    assert (live.call("a key").name, second.settings.retry.max_attempts, second.settings.timeout_seconds) == (
        "own",
        2,
        3,
    )
    assert inspect.iscoroutinefunction(second.fn)
    third = live.request("pack")
    assert (third.settings.retry.max_attempts, third.settings.timeout_seconds) == (4, 9)
    assert live.request("pack#2").is_async
    assert live.request("pack#2").result_type is Parcel
    assert not live.request("lambda").is_async


class Text(str):
    """A subclass of `str`, which does not travel as a plain text."""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda ctx: ctx.step("pack", pack, key=5), "key: must be text, got a `int`"),
        (lambda ctx: ctx.suspend(5), "key: must be text, got a `int`"),
        (lambda ctx: ctx.wait_for_event(5), "topic: must be text, got a `int`"),
        (lambda ctx: ctx.wait_for_event("t", match={5: 1}), "match: must be text, got a `int`"),
        (lambda ctx: ctx.wait_for_event("t", match=5), "match: must be a dict, got a `int`"),
        (lambda ctx: ctx.wait_for_event("t", after="5"), "after: must be a whole number, got a `str`"),
        (lambda ctx: ctx.wait_for_event("t", after=2**63), "after: must be below 2**63, got 9223372036854775808"),
        (lambda ctx: ctx.publish(5), "topic: must be text, got a `int`"),
        (lambda ctx: ctx.emit(5), "kind: must be text, got a `int`"),
        (lambda ctx: ctx.log(5), "text: must be text, got a `int`"),
        (lambda ctx: ctx.log("packed", level="INFO"), "level: must be a whole number, got a `str`"),
    ],
)
def test_what_is_no_name_is_told_where_it_is_given(call: Callable[[Context], Any], words: str) -> None:
    @workflow
    async def mistaken(ctx: Context) -> None:
        await call(ctx)

    with pytest.raises(BadValue, match=re.escape(words)):
        _ = Live(mistaken).result


def test_what_repeats_in_a_replay_cannot_be_asked_for_by_steps() -> None:
    live = Live(packing, 1)
    for ask in (live.ctx.uuid, lambda: live.ctx.random):
        with pytest.raises(Misplaced, match="outside of its workflow's code"):
            ask()


def test_names_of_a_class_of_their_own_are_plain_text_for_others() -> None:
    @step(name=Text("weighs"))
    async def weigh() -> None: ...

    @workflow
    async def named(ctx: Context) -> None:
        ctx.emit(Text("kind"))
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step(Text("pack"), pack, 1, key=Text("first")))
            group.create_task(weigh())
            group.create_task(ctx.wait_for_event(Text("topic"), match={Text("size"): Text("big")}, key=Text("wait")))
            group.create_task(ctx.publish(Text("topic"), Text("big"), key=Text("said")))
            group.create_task(ctx.suspend(Text("ask")))

    live = Live(named)
    names = [(call.key, call.name) for call in live.machine.outstanding()]
    assert names == [("first", "pack"), ("weighs", "weighs"), ("wait", "topic"), ("said", "topic"), ("ask", None)]
    assert {type(text) for pair in names for text in pair} == {str, type(None)}
    assert [type(one.kind) for one in live.ctx.outbox.take(last=True)] == [str, str]
    entries = [call.request for call in live.machine.outstanding() if not isinstance(call.request, StepCall)]
    assert msgspec.json.encode(entries)


def test_options_are_checked() -> None:
    with pytest.raises(BadValue, match="name of a step: holds"):
        step(name="a\nb")
    with pytest.raises(ValueError, match="timeout"):
        step(timeout=0)
    with pytest.raises(ValueError, match="max_attempts"):
        step(retry=0)
    with pytest.raises(TypeError, match="retry wants a RetryPolicy or a number of tries, got 'often'"):
        step(retry="often")  # type: ignore[call-overload]

    @workflow
    async def nameless(ctx: Context) -> None:
        await ctx.step("")  # type: ignore[call-overload]

    with pytest.raises(TypeError, match="lacks the function"):
        _ = Live(nameless).result

    @workflow
    async def bad_name(ctx: Context) -> None:
        await ctx.step("a\nb", lambda: None)

    with pytest.raises(BadValue, match="name of a step"):
        _ = Live(bad_name).result


async def _two_inputs(ctx: Context, first: int, second: int) -> None: ...


async def _no_context() -> None: ...


async def _only_by_name(ctx: Context, *, amount: int) -> None: ...


def _not_async(ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (_two_inputs, "_two_inputs.*cannot be called like that. Pass several values as one input"),
        (_no_context, "_no_context.*cannot be called like that"),
        (_only_by_name, "_only_by_name.*cannot be called like that"),
        (_not_async, "is not async"),
    ],
)
def test_what_no_worker_could_call_is_no_workflow(fn: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        workflow(fn)


class _Shop:
    async def order(self, ctx: Context) -> None: ...

    async def order_one(self, ctx: Context, id: int) -> None: ...

    @classmethod
    async def of_all(cls, ctx: Context) -> None: ...

    @staticmethod
    async def alone(ctx: Context) -> None: ...


@pytest.mark.parametrize("name", ["order", "order_one", "of_all", "alone"])
def test_a_method_is_no_workflow(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^_Shop\.{name}\(\) is a method, and a worker has no object to call it on"):
        workflow(vars(_Shop)[name])


def test_a_method_of_an_object_that_is_there_may_be_a_workflow() -> None:
    live = Live(workflow(_Shop().order))
    assert live.result is None


def _yields(n: int) -> Any:
    yield n


async def _yields_later(n: int) -> Any:
    yield n


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (staticmethod(weigh), "was put on the staticmethod 'weigh'; write @staticmethod above @step"),
        (vars(_Shop)["of_all"], "was put on the classmethod 'of_all'; write @classmethod above @step"),
        (_yields, "returns its result, and '_yields' yields"),
        (_yields_later, "returns its result, and '_yields_later' yields"),
        (_Shop, "wants a function, got <class"),
        (7, "wants a function, got 7"),
    ],
)
def test_what_gives_no_result_is_no_step(fn: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"^@step.*{said}"):
        step(fn)


def test_an_execution_that_has_begun_with_an_input_that_nobody_takes_goes_on() -> None:
    """A release before dropped the input."""

    @workflow
    async def flow(ctx: Context) -> float:
        return await ctx.step("weigh", lambda: 2.5)

    with pytest.raises(BadValue, match="workflow 'flow' takes no input, got a `dict`"):
        _ = Live(flow, {"id": 7}).result
    live = Live(flow)
    live.answer("weigh", 2.5)
    live.input = {"id": 7}
    assert live.replay().result == 2.5


def test_a_hint_that_cannot_be_resolved_names_its_workflow() -> None:
    @workflow(name="orders")
    async def flow(ctx: Context, order: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError) as refusal:
        Registry(flow).specs()
    assert re.fullmatch(
        r"Workflow 'orders' of module tests\.sdk\.test_context: The type hint 'Nowhere' of parameter 'order' of "
        r".*flow\(\) cannot be resolved: name 'Nowhere' is not defined\. .* remove @workflow from its function, or "
        r"give the worker a Registry without it\.",
        str(refusal.value),
    )


def test_a_workflow_may_have_further_parameters_with_defaults() -> None:
    async def flow(ctx: Context, order: int, retries: int = 3, *, loud: bool = False) -> None: ...

    assert workflow(flow).takes_input


@pytest.mark.parametrize(
    ("options", "error", "final"),
    [
        ({}, ValueError(), False),
        ({}, Fatal("no"), True),
        ({}, RetryAfter(5), False),
        ({"fatal": ValueError}, ValueError(), True),
        ({"fatal": (KeyError, ValueError)}, KeyError(), True),
        ({"fatal": ValueError}, KeyError(), False),
        ({"fatal": lambda error: "no" in str(error)}, KeyError("no"), True),
        ({"retry_if": TimeoutError}, TimeoutError(), False),
        ({"retry_if": TimeoutError}, ValueError(), True),
        ({"retry_if": lambda error: True, "fatal": ValueError}, ValueError(), True),
        ({}, ExceptionGroup("", [KeyError(), ValueError()]), False),
        ({}, ExceptionGroup("", [KeyError(), ExceptionGroup("", [Fatal("no")])]), True),
        ({"fatal": ValueError}, ExceptionGroup("", [KeyError(), ValueError()]), True),
        ({"fatal": ValueError}, ExceptionGroup("", [KeyError()]), False),
        ({"fatal": ExceptionGroup}, ExceptionGroup("", [KeyError()]), True),
        ({"retry_if": TimeoutError}, ExceptionGroup("", [TimeoutError(), TimeoutError()]), False),
        ({"retry_if": TimeoutError}, ExceptionGroup("", [TimeoutError(), ValueError()]), True),
        ({"retry_if": ExceptionGroup}, ExceptionGroup("", [ValueError()]), False),
        ({"retry_if": ExceptionGroup}, ExceptionGroup("", [Fatal("no")]), True),
        ({"retry_if": lambda error: True, "fatal": ValueError}, ExceptionGroup("", [ValueError()]), True),
        ({"retry_if": lambda error: True, "fatal": ValueError}, ExceptionGroup("", [KeyError()]), False),
    ],
)
def test_errors_that_end_a_step(options: dict[str, Any], error: BaseException, final: bool) -> None:
    assert StepSettings(**options).is_final(error) is final


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ValueError(), None),
        (RetryAfter(5), 5.0),
        (ExceptionGroup("", [ValueError(), RetryAfter(5), ExceptionGroup("", [RetryAfter(7)])]), 7.0),
        (ExceptionGroup("", [ValueError()]), None),
    ],
)
def test_the_longest_pause_that_was_asked_for_counts(error: BaseException, seconds: float | None) -> None:
    assert asked_pause(error) == seconds


async def _asks_elsewhere(error: BaseException) -> bool:
    raise NotImplementedError


class _AsksElsewhere:
    async def __call__(self, error: BaseException) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("option", ["retry_if", "fatal"])
@pytest.mark.parametrize(
    "predicate",
    [_asks_elsewhere, _AsksElsewhere(), functools.partial(_asks_elsewhere)],
    ids=["def", "object", "partial"],
)
def test_an_async_predicate_is_refused_where_it_is_given(option: str, predicate: Any) -> None:
    """A coroutine would count as true."""
    choice: Any = {option: predicate}
    with pytest.raises(TypeError, match=rf"{option} wants a sync predicate, and '_.*' is async"):
        step(**choice)

    @workflow
    async def flow(ctx: Context) -> None:
        await ctx.step("weigh", lambda: None, **choice)

    with pytest.raises(TypeError, match=f"{option} wants a sync predicate"):
        _ = Live(flow).result


@pytest.mark.parametrize("option", ["retry_if", "fatal"])
def test_a_predicate_that_gives_a_coroutine_decides_nothing(option: str) -> None:
    choice: Any = {option: lambda error: _asks_elsewhere(error)}
    with pytest.raises(TypeError, match="the predicate '<lambda>' returned a `coroutine`; it must be sync"):
        StepSettings(**choice).is_final(ValueError())


async def test_a_decorated_step_just_runs_outside_of_a_workflow_and_inside_a_step() -> None:
    @step
    async def inner(x: int) -> int:
        """Twice."""
        return 2 * x

    @step(retry=3)
    async def outer(x: int) -> int:
        return await inner(x) + 1

    assert await outer(5) == 11
    assert inner.__doc__ == "Twice."

    @workflow
    async def flow(ctx: Context) -> int:
        return await outer(20)

    live = Live(flow)
    assert await live.request("outer").call() == 41
    live.answer("outer", 41)
    assert live.result == 41


def test_a_decorated_method_is_a_step_too() -> None:
    class Shop:
        @step
        async def sell(self, id: int) -> str:
            return f"sold {id}"

    @workflow
    async def flow(ctx: Context) -> str:
        return await Shop().sell(7)

    live = Live(flow)
    assert live.request("sell").args[1:] == (7,)
    live.answer("sell", "sold")
    assert live.result == "sold"


def test_keys() -> None:
    @workflow
    async def flow(ctx: Context) -> None:
        await ctx.step("a", lambda: None, key="order-7")
        await ctx.step("a", lambda: None, key="order-7")

    live = Live(flow)
    live.answer("order-7", 1.0)
    with pytest.raises(DuplicateKey, match="order-7"):
        _ = live.result


async def test_a_context_does_not_work_in_a_step() -> None:
    contexts: list[Context] = []

    @workflow
    async def flow(ctx: Context) -> None:
        contexts.append(ctx)
        await ctx.step(lambda: None)

    live = Live(flow)
    with pytest.raises(Misplaced, match="not inside a step"):
        await contexts[0].step(pack, 1)
    with pytest.raises(Misplaced, match="inside the step's body"):
        _ = contexts[0].idempotency_key
    with pytest.raises(Misplaced):
        current_step()
    token = running_step.set(StepInfo(live.ctx.execution_id, "pack#2", "pack", 1, live.ctx))
    try:
        assert current_step().idempotency_key == contexts[0].idempotency_key == f"{live.claim.id}:pack#2"
    finally:
        running_step.reset(token)
    live.machine.close()


def test_a_fork_continues_the_idempotency_keys_of_its_source() -> None:
    info = StepInfo(execution_id="fork", key="pack#2", name="pack", tries=1, keys_id="source")
    assert info.idempotency_key == "source:pack#2"


# --- time and chance -----------------------------------------------------------------------------------------------


def test_time_and_chance_repeat() -> None:
    @workflow
    async def flow(ctx: Context) -> tuple[datetime, datetime, uuid.UUID, float, int]:
        before = ctx.now()
        await ctx.sleep(timedelta(days=3))
        return before, ctx.now(), ctx.uuid(), ctx.random.random(), ctx.random.choice(range(100))

    live = Live(flow)
    assert live.effects.state is MachineState.SUSPENDED
    live.timer()
    result = live.result
    assert result[0] == datetime.fromtimestamp(1_000, UTC)
    assert result[1] - result[0] == timedelta(days=3)
    assert live.replay().result == result


def test_sleeping_until_a_moment() -> None:
    @workflow
    async def flow(ctx: Context, moment: datetime) -> datetime:
        await ctx.sleep_until(moment)
        return ctx.now()

    moment = datetime.fromtimestamp(5_000, UTC)
    live = Live(flow, moment)
    assert live.effects.timer == ("timer", 5_000_000_000)
    live.timer()
    assert live.result == moment
    assert Live(flow, datetime.fromtimestamp(5, UTC)).result == datetime.fromtimestamp(1_000, UTC)
    with pytest.raises(ValueError, match="time zone"):
        _ = Live(flow, datetime(2030, 1, 1)).result  # noqa: DTZ001  # what the test is about


# --- events and answers --------------------------------------------------------------------------------------------


def event(topic: str, data: object, number: int = 1) -> Raw:
    return Raw(
        msgspec.json.encode(JournalEvent("id", number, topic, "made", Raw(msgspec.json.encode(data)), 2_000_000_000))
    )


def test_waiting_for_an_event() -> None:
    @workflow
    async def flow(ctx: Context) -> Event[Parcel]:
        return await ctx.wait_for_event("parcels/7", Parcel, match={"id": 7}, after=3)

    live = Live(flow)
    assert live.effects.state is MachineState.SUSPENDED
    wait = live.request("parcels/7")
    assert isinstance(wait, OpenWait)
    assert (wait.key, wait.topic, wait.after, wait.latest) == ("parcels/7", "parcels/7", 3, False)
    assert wait.match == {"id": Raw(b"7")}
    live.answer("parcels/7", event("parcels/7", {"id": 7, "size": "s", "packed": "2026-01-01T00:00:00Z"}, 4))
    got = live.result
    assert (got.sequence_id, got.topic, got.event_type, got.data.size) == (4, "parcels/7", "made", Size.SMALL)
    assert got.created_at == datetime.fromtimestamp(2_000, UTC)
    assert live.replay().result == got


def test_waiting_for_an_event_in_vain() -> None:
    @workflow
    async def flow(ctx: Context) -> str:
        try:
            await ctx.wait_for_event("topic", timeout=60)
        except TimeoutError:
            return "none"
        return "one"

    live = Live(flow)
    assert live.machine.waits() == ["topic"]
    effects = live.timer()
    assert [call.key for call in effects.abandoned] == ["topic"]
    assert live.result == "none"


def test_suspending_for_an_answer() -> None:
    @workflow
    async def flow(ctx: Context) -> Size:
        return await ctx.suspend("approve", {"amount": 120}, answer_type=Size, timeout=86_400)

    live = Live(flow)
    wait = live.request("approve")
    assert (wait.topic, bytes(wait.data)) == (None, b'{"amount":120}')
    assert msgspec.json.decode(wait.answer_schema) == {
        "$ref": "#/$defs/Size",
        "$defs": {"Size": {"enum": ["l", "s"], "title": "Size"}},
    }
    live.answer("approve", "l")
    assert live.result is Size.LARGE


def test_a_question_without_a_type_has_no_schema_and_a_large_one_is_left_out() -> None:
    large = msgspec.defstruct("Large", [(f"field_{n}", int) for n in range(1_000)])

    for answer_type in (Any, large):

        @workflow
        async def flow(ctx: Context, answer_type: Any = answer_type) -> None:
            await ctx.suspend("ask", answer_type=answer_type)

        wait = Live(flow).request("ask")
        assert isinstance(wait, OpenWait) and wait.answer_schema is None


def test_answering_another_execution() -> None:
    @workflow
    async def flow(ctx: Context) -> AnswerState:
        return await ctx.resume("other", "approve", {"yes": True})

    live = Live(flow)
    request = live.request("approve")
    assert isinstance(request, Answer)
    assert (request.execution_id, request.step_key, bytes(request.data)) == ("other", "approve", b'{"yes":true}')
    live.answer("approve", "early")
    assert live.result is AnswerState.EARLY

    live = Live(flow)
    live.answer("approve")  # of an older server
    assert live.result is AnswerState.ANSWERED

    live = Live(flow)
    live.answer("approve", {"type": "NOT_FOUND", "message": "no such execution"}, ok=False)
    with pytest.raises(NotFound, match="no such execution"):
        _ = live.result
    live = Live(flow)
    live.answer("approve", {"type": "CONFLICT", "message": "answered before"}, ok=False)
    with pytest.raises(Conflict):
        _ = live.result


def test_publishing() -> None:
    @workflow
    async def flow(ctx: Context) -> int:
        return await ctx.publish("topic", {"n": 1}, event_type="made", dedup_key="once")

    live = Live(flow)
    request = live.request("topic")
    assert isinstance(request, Publish)
    assert (request.topic, request.events[0].event_type, request.events[0].dedup_key) == ("topic", "made", "once")
    live.answer("topic", [41])
    assert live.result == 41


def test_values_that_cannot_be_kept_are_refused_with_their_path() -> None:
    @workflow
    async def flow(ctx: Context) -> None:
        await ctx.publish("topic", {"prices": [1.0, float("nan")]})

    with pytest.raises(BadValue, match=r"data\.prices\[1\]"):
        _ = Live(flow).result


# --- children ------------------------------------------------------------------------------------------------------


def end_child(live: Live, key: str, value: object = None, *, ok: bool = True, how: str = "completed") -> Effects:
    return live.feed(live.journal.add(Kind.CHILD, key, how, ok=ok, value=Raw(msgspec.json.encode(value))))


def test_running_a_child() -> None:
    @workflow
    async def flow(ctx: Context) -> float:
        return await ctx.run_child(
            packing, 7, queue="slow", tags={"a": "b"}, delay=3, execution_key="parcel-7", concurrency_key="c"
        )

    live = Live(flow, session_id="session", user_id="user")
    request = live.request("packing")
    assert isinstance(request, StartChild)
    item = request.item
    assert (item.workflow_id, bytes(item.payload), item.queue_name, item.key) == ("packing", b"7", "slow", "parcel-7")
    assert (item.session_id, item.user_id, item.tags, item.delay_seconds) == ("session", "user", {"a": "b"}, 3)
    assert live.answer("packing", "child-id").state is MachineState.SUSPENDED
    end_child(live, "packing", 1.5)
    assert live.result == 1.5
    assert live.replay().result == 1.5


@pytest.mark.parametrize("option", [{"at": datetime(2026, 1, 1, tzinfo=UTC)}, {"deployment_id": "d"}, {"tag": "a"}])
def test_a_child_does_not_take_the_options_of_a_client(option: dict[str, Any]) -> None:
    @workflow
    async def flow(ctx: Context) -> float:
        return await ctx.run_child(packing, 7, **option)

    with pytest.raises(TypeError, match=rf"no option '{next(iter(option))}'; it takes queue, .*, execution_key"):
        _ = Live(flow).result


def test_a_client_does_not_take_the_options_of_a_child() -> None:
    wrong: Any = {"execution_key": "parcel-7"}
    with pytest.raises(TypeError, match=r"no option 'execution_key'; it takes queue, .*, key"):
        start_item(packing, 7, **wrong)


@pytest.mark.parametrize(
    ("how", "value", "error", "says"),
    [
        (
            "failed",
            {"type": "ValueError", "message": "bad"},
            ChildFailed,
            r"packing \(child-id\) failed: ValueError: bad",
        ),
        ("cancelled", None, ChildCancelled, r"packing \(child-id\) was cancelled"),
    ],
)
def test_a_child_without_a_result(how: str, value: object, error: type[ChildFailed], says: str) -> None:
    @workflow
    async def flow(ctx: Context) -> float:
        return await ctx.run_child(packing, 7)

    live = Live(flow)
    live.answer("packing", "child-id")
    end_child(live, "packing", value, ok=False, how=how)
    with pytest.raises(error, match=says) as caught:
        _ = live.result
    assert type(caught.value) is error
    assert (caught.value.key, caught.value.workflow, caught.value.execution_id) == ("packing", "packing", "child-id")


def test_a_child_that_is_refused() -> None:
    @workflow
    async def flow(ctx: Context) -> float:
        return await ctx.run_child(packing, 7)

    live = Live(flow)
    live.answer("packing", {"type": "WORKFLOW_NOT_FOUND", "message": "nobody serves it"}, ok=False)
    with pytest.raises(ChildFailed, match="nobody serves it"):
        _ = live.result


def test_starting_a_child_and_asking_later() -> None:
    @workflow
    async def flow(ctx: Context) -> tuple[str, float, float]:
        handle = await ctx.start_child(packing, 7)
        assert isinstance(handle, ChildHandle)
        first, again = await asyncio.gather(handle.result(), handle.result())
        other = await ctx.start_child("elsewhere", {"any": "thing"})
        return other.id, first, again

    live = Live(flow)
    live.answer("packing", "child-id")
    end_child(live, "packing", 1.5)
    live.answer("elsewhere", "other-id")
    assert live.result == ("other-id", 1.5, 1.5)


def test_a_childs_input_must_fit() -> None:
    @workflow
    async def flow(ctx: Context) -> None:
        await ctx.run_child(packing, "seven")  # type: ignore[misc]

    with pytest.raises(BadValue, match="the input of child 'packing'"):
        _ = Live(flow).result


def test_mapping_children_keeps_order_and_limit_and_shows_failures() -> None:
    @workflow
    async def flow(ctx: Context) -> list[str]:
        done = await ctx.map_children(packing, range(5), limit=2)
        assert isinstance(done, Mapped)
        assert len(done) == 5
        assert [n for n, _ in done.failures] == [1, 4]
        with pytest.raises(ExceptionGroup, match="2 of 5 children failed"):
            done.results()
        return [str(one) for one in done.outcomes]

    live = Live(flow)
    keys = ["packing", "packing#2", "packing#3", "packing#4", "packing#5"]
    assert [call.key for call in live.effects.started] == keys[:2]
    live.answer(keys[1], {"type": "LIMIT", "message": "no"}, ok=False)
    assert [call.key for call in live.effects.started] == keys[2:3]
    live.answer(keys[2], "id-2")
    end_child(live, keys[2], 2.0)
    live.answer(keys[3], "id-3")
    live.answer(keys[0], "id-0")
    assert live.effects.state is MachineState.SUSPENDED
    end_child(live, keys[0], 0.5)
    live.answer(keys[4], "id-4")
    end_child(live, keys[4], {"type": "ValueError", "message": "bad"}, ok=False, how="failed")
    end_child(live, keys[3], 3.0)
    result = live.result
    assert result[0] == "0.5"
    assert "not started: no" in result[1]
    assert result[2:4] == ["2.0", "3.0"]
    assert "ValueError: bad" in result[4]
    assert live.replay().result == result


def test_mapping_over_an_async_generator_that_runs_steps() -> None:
    @workflow
    async def flow(ctx: Context) -> list[float]:
        async def inputs() -> AsyncIterator[int]:
            for _ in range(3):
                yield await ctx.step("next", lambda: 1)

        return (await ctx.map_children(packing, inputs(), limit=10)).results()

    live = Live(flow)
    for n, suffix in enumerate(("", "#2", "#3")):
        live.answer(f"next{suffix}", n)
        live.answer(f"packing{suffix}", f"id-{n}")
    for n, suffix in reversed(list(enumerate(("", "#2", "#3")))):
        end_child(live, f"packing{suffix}", n)
    assert live.result == [0, 1, 2]
    assert live.replay().result == [0, 1, 2]


def test_a_map_can_be_given_up() -> None:
    @workflow
    async def flow(ctx: Context) -> str:
        try:
            async with asyncio.timeout(10):
                await ctx.map_children(packing, range(3))
        except TimeoutError:
            await ctx.step("after", lambda: None)
            return "late"
        return "in time"

    live = Live(flow)
    live.answer("packing", "id-0")
    effects = live.timer()
    assert [call.key for call in effects.abandoned] == ["packing#2", "packing#3"]
    assert live.machine.children() == []
    live.feed(live.journal.add(Kind.CHILD_STARTED, "packing#2", "packing", value=Raw(b'"id-1"')))
    live.feed(live.journal.add(Kind.CHILD, "packing#2", "completed", value=Raw(b"1")))
    live.answer("after")
    assert live.result == "late"
    assert live.replay().result == "late"


def test_mapping_nothing() -> None:
    @workflow
    async def flow(ctx: Context) -> list[float]:
        with pytest.raises(ValueError, match="limit"):
            await ctx.map_children(packing, [1], limit=0)
        return (await ctx.map_children(packing, [])).results()

    assert Live(flow).result == []


# --- what people see -----------------------------------------------------------------------------------------------


def lines(live: Live) -> list[tuple[int, str]]:
    return [(line.level, line.text) for line in live.ctx.logs]


def test_what_workflow_code_logs_is_kept_once() -> None:
    logger = logging.getLogger("test_context")
    logger.setLevel(logging.INFO)
    console: list[str] = []

    class Console(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.append(record.getMessage())

    keep_logs()
    plain = Console()
    plain.addFilter(ReplayFilter())
    logger.addHandler(plain)

    @workflow
    async def flow(ctx: Context) -> None:
        ctx.log("begin %d", 7)
        logger.warning("half-way")
        ctx.progress(1, 2, "half-way")
        await ctx.step("a", lambda: None)
        logger.info("end")
        ctx.progress(2, 2)

    try:
        logger.info("nobody's line")
        live = Live(flow)
        assert lines(live) == [(logging.INFO, "begin 7"), (logging.WARNING, "half-way")]
        assert [bytes(one) for one in live.ctx.pending_progress] == [b'{"done":1,"total":2,"text":"half-way"}']
        live.journal.answer(live.call("a"))
        live.replay()
        assert lines(live) == [(logging.INFO, "end")]
        assert [bytes(one) for one in live.ctx.pending_progress] == [b'{"done":2,"total":2,"text":null}']
        assert console == ["nobody's line", "half-way", "end"]
        # And a step's lines go to the log of its execution.
        token = running_step.set(StepInfo("id", "a", "a", 1, live.ctx))
        logger.error("in a step")
        running_step.reset(token)
        assert lines(live)[-1] == (logging.ERROR, "in a step")
    finally:
        logger.removeHandler(plain)


def test_a_flood_of_lines_is_bounded() -> None:
    @workflow
    async def flow(ctx: Context) -> None:
        for n in range(5_000):
            ctx.log(f"line {n}\ud800")

    live = Live(flow)
    assert len(live.ctx.logs) <= 1_000
    assert live.ctx.logs[-1].text == "line 4999\ufffd"


def test_what_a_context_knows() -> None:
    seen: dict[str, Any] = {}

    @workflow
    async def flow(ctx: Context) -> None:
        for name in ("execution_id", "workflow_id", "attempt", "session_id", "user_id", "key", "tags", "queue_name"):
            seen[name] = getattr(ctx, name)
        assert ctx.is_active
        assert not ctx.is_cancelling
        assert ctx.root_execution_id == ctx.execution_id
        with pytest.raises(Misplaced):
            ctx.__reduce__()

    _ = Live(flow, session_id="s", user_id="u", key="k", tags=Raw(b'{"a":"b"}'), queue_name="q").result
    assert seen == {
        "execution_id": claim().id,
        "workflow_id": "test",
        "attempt": 3,
        "session_id": "s",
        "user_id": "u",
        "key": "k",
        "tags": {"a": "b"},
        "queue_name": "q",
    }


# --- workflows and registries --------------------------------------------------------------------------------------


def test_options_of_a_workflow() -> None:
    mail = Queue("mail", concurrency_limit=5, total_limit=50)

    @workflow(name="order", retry=3, queue=mail, run_timeout_seconds=60, on_cancel="wake", strict=True)
    async def flow(ctx: Context, id: int) -> dict[str, Parcel]:
        """Orders."""
        return {}

    spec = flow.spec()
    assert (spec.id, spec.queue_name, spec.run_timeout_seconds, spec.wake_on_cancel) == ("order", "mail", 60, True)
    assert spec.output_schema_name == "dict[str, tests.sdk.test_context.Parcel]"
    assert (flow.retry.max_attempts, flow.strict, flow.input_type, flow.__doc__) == (3, True, int, "Orders.")
    assert packing.output_schema_name == "float"
    assert (packing.takes_input, packing.retry.max_attempts) == (True, 1)

    @workflow
    async def untyped(ctx, input):  # type: ignore[no-untyped-def]
        return input

    assert (untyped.output_schema_name, untyped.input_type) == (None, Unannotated(untyped.fn, "input"))


@pytest.mark.parametrize(
    "options",
    [{"on_cancel": "ignore"}, {"run_timeout_seconds": 0}, {"retry": 0}, {"queue": Queue}],
    ids=lambda options: next(iter(options)),
)
def test_options_of_a_workflow_are_checked(options: dict[str, Any]) -> None:
    async def flow(ctx: Context) -> None: ...

    if options == {"queue": Queue}:
        with pytest.raises(ValueError, match="total_limit"):
            Queue("q", total_limit=0)
    else:
        with pytest.raises(ValueError):
            workflow(**options)(flow)


def test_a_workflow_is_async() -> None:
    with pytest.raises(TypeError, match="async def"):
        workflow(weigh)  # type: ignore[arg-type]


def test_a_workflow_can_be_called_in_another_one() -> None:
    @workflow
    async def inner(ctx: Context) -> float:
        return await packing(ctx, 7) + 1

    live = Live(inner)
    live.answer("pack it", {"id": 7, "size": "l", "packed": "2026-01-01T00:00:00Z"})
    live.answer("weigh", 2.5)
    assert live.result == 3.5


def test_a_registry_holds_workflows_and_their_queues() -> None:
    mail = Queue("mail", total_limit=50)
    app = Registry(mail)

    @app.workflow
    async def one(ctx: Context) -> None: ...

    @app.workflow(queue=Queue("slow"), name="second")
    async def two(ctx: Context, input: int) -> None: ...

    @app.workflow(queue="only named")
    async def three(ctx: Context) -> None: ...

    assert list(app.workflows) == ["one", "second", "three"]
    assert list(app.queues) == ["mail", "slow"]
    assert app["second"] is two
    assert "one" in app
    workflows, queues, schedules, triggers = app.specs()
    assert schedules == [] == triggers
    assert [spec.id for spec in workflows] == ["one", "second", "three"]
    assert [spec.name for spec in queues] == ["mail", "slow"]
    app.add(two)
    with pytest.raises(ValueError, match="Two workflows are called 'one'"):
        app.workflow(name="one")(three.fn)
    with pytest.raises(ValueError, match="Two different queues"):
        app.add(Queue("mail", total_limit=51))

    module = types.ModuleType("module")
    vars(module).update(app=app, packing=packing, alias=packing, other=Queue("other"))
    assert list(Registry.of(module).workflows) == ["one", "second", "three", "packing"]
    assert list(Registry.of(module).queues) == ["mail", "slow", "other"]


def test_dir_shows_what_programs_may_use() -> None:
    shown = dir(Context)
    assert {"step", "now", "random", "uuid", "suspend", "emit", "execution_id", "tags"} <= set(shown)
    assert {"machine", "claim", "outbox", "pending_progress", "taken", "is_active"}.isdisjoint(shown)
