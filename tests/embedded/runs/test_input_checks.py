"""A start is refused if the input does not fit the schema that the workflow's worker registered."""

import asyncio
import copy
import json
import random
import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest
from msgspec import Meta, Raw
from tests.embedded.house import House
from tests.kit.polling import until

from perdure import BadValue, ChildFailed, Context, ExecutionFailed, Registry, TopicEvent
from perdure.sdk.workflows.declared_schedules import NO_INPUT
from perdure.wire.base.records import Problem
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.clock.schedules import ScheduleStatus
from perdure.wire.runs.requests import Started, StartItem
from perdure.wire.runs.starts import BatchItem, SubmitWorkflows


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Line:
    sku: Annotated[str, Meta(min_length=1, max_length=8)]
    count: Annotated[int, Meta(ge=1)]
    weights: list[float] = field(default_factory=list)


@dataclass
class Order:
    id: int
    customer: str
    lines: list[Line]
    day: date
    at: datetime
    within: timedelta
    ref: UUID
    price: Decimal
    size: Size
    way: Literal["air", "sea"]
    photo: bytes
    notes: dict[str, str | None]
    counts: dict[int, str]
    box: tuple[int, int]
    gift: Line | None = None
    marks: set[str] = field(default_factory=set)


@dataclass
class Packed:
    """An event, as far as the workflow reads it."""

    data: Line


class Model(pydantic.BaseModel):
    id: int
    at: datetime
    lines: list[Line]


class Reading(pydantic.BaseModel):
    """Reads a text, although its schema says an integer."""

    count: int

    @pydantic.field_validator("count", mode="before")
    @classmethod
    def _counted(cls, value: object) -> object:
        return len(value) if isinstance(value, list) else value


class Renamed(pydantic.BaseModel):
    count: int = pydantic.Field(validation_alias="Count")


app = Registry()


@app.workflow
async def order(ctx: Context, order: Order) -> int:
    return order.id


@app.workflow
async def modelled(ctx: Context, model: Model) -> int:
    return model.id


@app.workflow
async def reading(ctx: Context, reading: Reading) -> int:
    return reading.count


@app.workflow
async def renamed(ctx: Context, renamed: Renamed) -> int:
    return renamed.count


@app.workflow
async def optional(ctx: Context, count: int = 7) -> int:
    return count


@app.workflow
async def nothing(ctx: Context) -> str:
    return "nothing"


@app.workflow
async def anything(ctx: Context, given: Any) -> Any:
    return given


RIGHT: dict[str, Any] = {
    "id": 7,
    "customer": "ann",
    "lines": [{"sku": "tea", "count": 2, "weights": [0.5, 1]}, {"sku": "cup", "count": 1}],
    "day": "2026-11-30",
    "at": "2026-11-30T07:00:00+01:00",
    "within": "P1DT2H",
    "ref": "0199a5c8-73f7-77f2-99c2-26c47dee6e01",
    "price": "12.50",
    "size": "s",
    "way": "air",
    "photo": "YWJj",
    "notes": {"door": None, "floor": "3"},
    "counts": {"1": "one", "-2": "two"},
    "box": [1, 2],
    "gift": None,
    "marks": ["a", "a"],
    "unknown": "is ignored",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [place for name, part in value.items() for place in places(part, (*path, name))]
    elif isinstance(value, list):
        found += [place for n, part in enumerate(value) for place in places(part, (*path, n))]
    return found


STRANGE: tuple[Any, ...] = (None, True, -1, 0.5, 1e300, "", "yesterday", "2026-13-01", [], [None], {}, {"a": 1}, 2**70)


def wrong_inputs(seed: int) -> list[tuple[Any, tuple[Any, ...]]]:
    """Inputs with a value replaced or taken away, and the path of the change."""
    chance = random.Random(seed)
    made: list[tuple[Any, tuple[Any, ...]]] = []
    while len(made) < 1_500:
        value, place = copy.deepcopy(RIGHT), chance.choice(places(RIGHT)[1:])
        inner = value
        for name in place[:-1]:
            inner = inner[name]
        if isinstance(inner, dict) and chance.random() < 0.2:
            del inner[place[-1]]
        else:
            inner[place[-1]] = chance.choice(STRANGE)
        made.append((value, place))
    return made


def reads(value: Any) -> bool:
    """Whether the worker would take the input."""
    try:
        order.read_input(json.dumps(value).encode())
    except BadValue:
        return False
    return True


async def test_500_wrong_inputs_are_refused_with_the_path_of_the_field_and_right_ones_run(house: House) -> None:
    tried = wrong_inputs(7)
    wrong = [(value, place) for value, place in tried if not reads(value)][:500]
    right = [value for value, _ in tried if reads(value)][:50]
    assert (len(wrong), len(right)) == (500, 50)
    async with house.open(app) as p:
        items = [StartItem("order", Raw(json.dumps(value).encode())) for value, _ in wrong]
        answers = await p._transport.start(items)
        for (value, place), answer in zip(wrong, answers, strict=True):
            assert isinstance(answer, Problem), value
            assert answer.error_type == "BAD_VALUE" and answer.details is not None
            path = answer.details["path"]
            assert answer.error.startswith(f"{path}: ")
            names = [f"[{name}]" if isinstance(name, int) else f".{name}" for name in place]
            changed = f"payload{''.join(names)}"
            assert changed.startswith(str(path)) or str(path).startswith(changed), (path, place, answer.error)
            assert str(path).startswith(f"payload{names[0]}")
        assert (await p.list()).executions == []
        for value in [RIGHT, *right]:
            assert isinstance(await (await p.start("order", value)).result(timeout=60), int)


GIVEN: list[tuple[str, Any, str | None]] = [
    ("order", None, 'payload: null is not of type "object"'),
    ("order", {**RIGHT, "id": "seven"}, 'payload.id: "seven" is not of type "integer"'),
    ("order", {**RIGHT, "lines": [{"sku": "tea"}]}, "payload.lines[0].count: is missing"),
    ("order", {**RIGHT, "gift": {"sku": "tea", "count": "x"}}, "payload.gift.count: "),
    ("modelled", {"id": 7, "at": "yesterday", "lines": []}, 'payload.at: "yesterday" is not a "date-time"'),
    ("nothing", {"a": 1}, "payload: the workflow takes no input"),
    ("optional", "seven", 'payload: "seven" is not of type "integer"'),
    ("modelled", {"id": 7, "at": "2026-11-30 07:00", "lines": []}, None),
    ("modelled", {"id": 7, "at": 1_750_000_000, "lines": []}, "payload.at: "),
    ("reading", {"count": [1, 2, 3]}, None),
    ("renamed", {"Count": 3}, None),
    ("optional", None, None),
    ("nothing", {}, None),
    ("nothing", {"id": "e", "topic": "t", "sequence_id": 1, "data": 1, "created_at": "2026-01-01T00:00:00Z"}, None),
    ("anything", {"a": [1]}, None),
    ("order", {**RIGHT, "price": 12.5}, None),
]


async def test_an_input_is_refused_with_its_path_or_runs(house: House) -> None:
    async with house.open(app) as p:
        for name, given, refused in GIVEN:
            before = [one.id for one in (await p.list()).executions]
            if refused is None:
                await (await p.start(name, given)).result(timeout=60)
                continue
            with pytest.raises(BadValue) as info:
                await p.start(name, given)
            assert str(info.value).startswith(refused), (name, given)
            assert [one.id for one in (await p.list()).executions] == before, (name, given)


newer = Registry()


@newer.workflow(name="optional")
async def takes_text(ctx: Context, text: str) -> str:
    return text


async def test_the_deployment_that_will_run_it_says_what_it_takes(house: House) -> None:
    async with house.open(app) as p:
        await (await p.start("optional", 7)).result()
    async with house.open(newer) as p:
        assert await (await p.start("optional", "seven")).result() == "seven"
        with pytest.raises(BadValue, match=r'payload: 7 is not of type "string"'):
            await p.start("optional", 7)
        # A client whose code is older has read it as a number.
        [answer] = await p._transport.start([StartItem("optional", Raw(b"7"))], optional.input_check)
        assert isinstance(answer, Problem) and answer.error == 'payload: 7 is not of type "string"'


async def test_an_input_of_which_only_the_name_is_known_is_checked_among_those_that_the_client_has_read(
    house: House,
) -> None:
    async with house.open(app) as p:
        read, unread = await asyncio.gather(p.start(optional, 7), p.start("optional", "seven"), return_exceptions=True)
        assert isinstance(unread, BadValue) and str(unread) == 'payload: "seven" is not of type "integer"'
        assert not isinstance(read, BaseException) and await read.result() == 7
        assert len((await p.list()).executions) == 1


async def test_an_input_that_its_caller_says_to_have_read_fails_in_the_execution(house: House) -> None:
    async with house.open(app) as p:
        [answer] = await p._transport.start([StartItem("optional", Raw(b'"seven"'))], optional.input_check)
        assert isinstance(answer, Started)
        with pytest.raises(ExecutionFailed, match="input: Expected `int`, got `str`"):
            await p.handle(answer.execution_id).result()


async def test_a_schema_makes_the_server_fetch_nothing_and_an_impossible_one_checks_nothing(house: House) -> None:
    from perdure.store.base.input_checks import check_input, compile_check

    described = b'{"input_check":"exact","input_schema":{"$ref":"http://127.0.0.1:9/schema"}}'
    check_input(compile_check(described), b'{"any":1}', "payload")


MISSING = "payload.lines[0].count: is missing"
WRONG: dict[str, Any] = {**RIGHT, "lines": [{"sku": "tea"}]}


async def test_a_schedule_is_refused_with_the_path_when_its_input_is_given(house: House) -> None:
    async with house.open(app) as p:
        with pytest.raises(BadValue) as info:
            await p.schedules.create("order", "0 9 * * *", input=WRONG)
        assert (str(info.value), info.value.details) == (MISSING, {"path": "payload.lines[0].count"})
        with pytest.raises(BadValue, match=r"^payload\.\w+: is missing"):
            await p.schedules.create("order", "0 9 * * *")  # its input is the due time
        assert await p.schedules.list() == []
        made = await p.schedules.create("order", "0 9 * * *", input=RIGHT)
        assert (await p.schedules.create("order", "0 10 * * *")).payload == made.payload
        with pytest.raises(BadValue, match=re.escape(MISSING)):
            await p.schedules.create("order", "0 9 * * *", input=WRONG)
        with pytest.raises(BadValue, match=re.escape(MISSING)):
            await p.schedules.change(made.id, input=WRONG)
        assert (await p.schedules.get(made.id)).payload == made.payload
        for name, given in (("nothing", NO_INPUT), ("anything", NO_INPUT), ("optional", 3)):
            await p.schedules.create(name, "0 9 * * *", input=given)


async def test_a_schedule_whose_input_no_longer_fits_can_still_be_paused_and_is_not_run_by_hand(house: House) -> None:
    async with house.open(app) as p:
        id = (await p.schedules.create("optional", "0 9 * * *", input=7)).id
    async with house.open(newer) as p:
        with pytest.raises(BadValue, match=r'^payload: 7 is not of type "string"'):
            await p.schedules.run(id)
        assert (await p.schedules.pause(id)).status is ScheduleStatus.PAUSED
        assert (await p.list()).executions == [] and await p.schedules.fires(id) == []


async def test_a_fork_is_refused_with_the_path_when_its_edited_input_does_not_fit(house: House) -> None:
    async with house.open(app) as p:
        first = await p.start("order", RIGHT)
        assert await first.result() == 7
        with pytest.raises(BadValue) as info:
            await first.fork(payload=WRONG)
        assert str(info.value) == f"edits.{MISSING}"
        assert info.value.details == {"path": "edits.payload.lines[0].count"}
        assert len((await p.list()).executions) == 1
        assert await (await first.fork(payload={**RIGHT, "id": 8})).result() == 8


async def test_the_item_of_a_batch_is_named(house: House) -> None:
    async with house.open(app) as p:
        items = [BatchItem("order", Raw(json.dumps(one).encode())) for one in (RIGHT, WRONG)]
        with pytest.raises(BadValue) as info:
            await p._transport.call(SubmitWorkflows(items))
        assert str(info.value) == f"workflows[1].{MISSING}"
        assert info.value.details == {"path": "workflows[1].payload.lines[0].count"}
        with pytest.raises(BadValue) as info:
            await p._transport.call(SubmitWorkflows([items[0], BatchItem("order", Raw(b"null"))]))
        assert str(info.value) == 'workflows[1].payload: null is not of type "object"'
        assert (await p.list()).executions == []


async def test_a_child_with_a_wrong_input_is_not_started_and_its_parent_reads_why(house: House) -> None:
    parents = Registry()
    parents.add(order)

    @parents.workflow
    async def parent(ctx: Context) -> list[str]:
        told = []
        for call in (ctx.run_child, ctx.start_child):
            try:
                await call("order", WRONG)
            except ChildFailed as error:
                told.append(f"{error.type} {error}")
        await ctx.sleep(0)
        return [*told, str(await ctx.run_child("order", RIGHT))]

    async with house.open(parents) as p:
        first, second, right = await (await p.start(parent)).result()
        assert first.startswith("BAD_VALUE ") and first.endswith(f"it was not started: {MISSING}")
        assert second.startswith("BAD_VALUE ") and second.endswith(f"it was not started: {MISSING}")
        assert right == "7"
        assert sorted(one.workflow_id for one in (await p.list()).executions) == ["order", "parent"]


async def test_an_event_that_does_not_fit_is_kept_as_the_input_of_a_failed_execution(house: House) -> None:
    booking = Registry()

    @booking.workflow(trigger_on="orders")
    async def book(ctx: Context, event: TopicEvent) -> None: ...

    @booking.workflow(trigger_on="orders")
    async def count(ctx: Context, event: Packed) -> int:
        return event.data.count

    async with house.open(booking) as p:
        await p.publish("orders", {"sku": "tea"})

        async def are_over() -> bool:
            found = (await p.list()).executions
            return len(found) == 2 and all(one.phase in FINAL for one in found)

        await until(are_over)
        by_name = {one.workflow_id: one for one in (await p.list()).executions}
        assert by_name["book"].phase is Phase.COMPLETED
        failed = await p.get(by_name["count"].id)
        assert (failed.phase, failed.input["data"]) == (Phase.FAILED, {"sku": "tea"})
        assert failed.error == "BadValue: input.data: Object missing required field `count`"
