"""Groups of concurrent calls, drawn at random, that a crash interrupts and another process makes in another order.

Each call has a hidden truth, which the outcome tells. A *swap* is an outcome that tells another truth. A group is told
or blocked *without need* if the values of the calls differ wherever the truths do.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pydantic
from msgspec import Raw
from tests.sdk.fake_server import Journal, advance

from perdure import Context, step
from perdure.sdk.base.errors import Diverged
from perdure.sdk.payloads.values import encode
from perdure.sdk.replay.calls import DurableCall, Effects, MachineState
from perdure.sdk.replay.machine import Machine
from perdure.sdk.workflows.steps import StepCall, current_context
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.runs.requests import Claimed

VAR: ContextVar[Any] = ContextVar("drawn")
DRAWS = ("uuid", "random")


class Color(enum.Enum):
    RED = "0"
    BLUE = "1"
    GREEN = "2"


@dataclass
class Cat:
    name: str
    path: Path | None = None


@dataclass
class Dog:
    name: str


class Model(pydantic.BaseModel):
    name: str
    path: Path


class Job:
    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, *more: Any) -> str:
        return truth(self, *more)

    def rest(self, *more: Any) -> str:
        return truth("rest", self, *more)

    @step(name="call")
    async def decorated(self, *more: Any) -> str:
        return truth(self, *more)

    __call__ = run


class Locked(Job):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lock = threading.Lock()


class Volatile(Job):
    """The number differs between processes."""

    def __init__(self, name: str, process: int) -> None:
        super().__init__(name)
        self.started = process


class Opaque:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("no")


def truth(*values: Any) -> str:
    return msgspec.json.encode([_truth(value) for value in values]).decode()


def _truth(value: Any) -> str:
    match value:
        case Job():
            return f"{type(value).__name__} {value._name}"
        case Opaque():
            return f"opaque {value.name}"
        case set():
            return f"set {sorted(value)}"
        case tuple() | list() if len(value) > 64:
            return f"{value[-1]}"
        case _:
            return repr(value)


MAKERS: dict[str, Callable[[int, int], Any]] = {
    "text": lambda n, process: f"text {n}",
    "number": lambda n, process: n,
    "path": lambda n, process: Path(f"/data/{n}"),
    "complex": lambda n, process: complex(n, 1),
    "enum": lambda n, process: list(Color)[n],
    "dataclass": lambda n, process: Cat(f"{n}"),
    "dataclass of a path": lambda n, process: Cat("tom", Path(f"{n}")),
    "one of two classes": lambda n, process: [Cat("x"), Dog("x"), Cat("y")][n],
    "model": lambda n, process: Model(name="m", path=Path(f"{n}")),
    "set": lambda n, process: {f"{n}{letter}" for letter in "abcdef"},
    "large": lambda n, process: [*range(200), n],
    "large of paths": lambda n, process: [*map(Path, map(str, range(100))), Path(f"{n}")],
    "object": lambda n, process: Job(f"{n}"),
    "object with a lock": lambda n, process: Locked(f"{n}"),
    "volatile": lambda n, process: Volatile(f"{n}", process),
    "opaque": lambda n, process: Opaque(f"{n}"),
    "shared opaque": lambda n, process: Opaque("shared"),
    "shared volatile": lambda n, process: Volatile("shared", process),
}
HIDDEN = frozenset({"opaque", "one of two classes", "volatile"})
"""Kinds whose values may differ although their content is the same, or whose content differs by the process."""
STYLES = (
    "step args",
    "named step",
    "lambda",
    "lambda default",
    "nested lambda",
    "partial",
    "method",
    "one of two methods",
    "decorated method",
    "callable",
    "variable",
    "variable of some",
    "functions",
    "child",
    "child with tags",
    "event",
)
SHAPES = ("gather", "tasks", "semaphore", "semaphore outside", "sleeps", "two steps", "nested", "uuid", "random")


class Plan(NamedTuple):
    style: str
    shape: str
    kinds: tuple[str, ...]
    calls: tuple[tuple[int, ...], ...]
    """The value of each kind, by number."""
    limit: int
    strict: bool

    @property
    def needs_words(self) -> bool:
        """Whether two calls differ in what has no content."""
        seen: dict[object, object] = {}
        hidden = [kind in HIDDEN for kind in self.kinds]
        for call in self.calls:
            visible = tuple(0 if hide else n for n, hide in zip(call, hidden, strict=True))
            if self.style == "functions":
                visible = (0, *visible[1:])
            if self.style == "nested lambda" and any("volatile" in kind for kind in self.kinds):
                visible = ()
            if seen.setdefault(visible, call) != call:
                return True
        return False


def draw(fate: random.Random, *, strict: bool = False) -> Plan:
    style, shape = fate.choice(STYLES), fate.choice(SHAPES)
    json_only = style in ("child", "child with tags", "event")
    kinds = ["text", "number"] if json_only else list(MAKERS)
    chosen = [fate.choice(kinds) for _ in range(fate.choice((1, 1, 2, 3)))]
    if style in ("method", "one of two methods", "decorated method", "callable"):
        chosen[0] = fate.choice(["object", "object with a lock", "volatile"])
    spread = [1 if kind.startswith("shared") else fate.choice((1, 2, 3, 3)) for kind in chosen]
    calls = [tuple(fate.randrange(most) for most in spread) for _ in range(fate.randint(2, 6))]
    return Plan(style, shape, tuple(chosen), tuple(calls), fate.randint(1, 3), strict)


@step(name="call")
async def fetch(*values: Any) -> str:
    return truth(*values)


async def plain(*values: Any) -> str:
    return truth(*values)


async def first_function(*values: Any) -> str:
    return truth(0, *values)


async def second_function(*values: Any) -> str:
    return truth(1, *values)


async def third_function(*values: Any) -> str:
    return truth(2, *values)


async def read_variable(*values: Any) -> str:
    return truth(VAR.get("none"), *values)


class Process:
    """A process that runs the program of a plan over a journal."""

    def __init__(self, plan: Plan, number: int, order: list[int], fate: random.Random) -> None:
        self.plan = plan
        self.fate = fate
        self.order = order
        self.swapped: list[tuple[str, str]] = []
        made: dict[tuple[int, int], Any] = {}
        self.values = [
            [
                made.setdefault((place, 0 if kind.startswith("shared") else n), MAKERS[kind](n, number))
                for place, (kind, n) in enumerate(zip(plan.kinds, call, strict=True))
            ]
            for call in plan.calls
        ]
        self.shared = [values[at] for values in self.values for at, kind in enumerate(plan.kinds) if "shared" in kind]
        vars(self).update({f"shared{at}": one for at, one in enumerate(self.shared)})
        self.machine = Machine(self._begin, seed="drawn", strict=plan.strict)
        self.told_at: dict[int, bool] = {}

    def _begin(self) -> Any:
        claim = Claimed("01a21094-a017-72a2-9544-2eef408e9b75", "drawn", 1, Raw(b"null"), 0)
        context = Context(self.machine, claim)
        current_context.set(context)
        return self._code(context)

    async def _code(self, ctx: Context) -> None:
        room = asyncio.Semaphore(self.plan.limit)
        shape = self.plan.shape

        async def bounded(made: Any) -> None:
            async with room:
                await made

        async def task(n: int) -> None:
            if shape == "sleeps":
                await asyncio.sleep(1 + n % 2)
            if shape in DRAWS:
                mine = str(ctx.uuid()) if shape == "uuid" else ctx.random.random()
            if shape == "semaphore":
                async with room:
                    await self._one(ctx, n)
            elif shape == "nested":
                await asyncio.gather(asyncio.create_task(self._one(ctx, n)), asyncio.create_task(self._one(ctx, n)))
            else:
                await self._one(ctx, n)
            if shape == "two steps":
                await self._one(ctx, n)
            if shape in DRAWS:  # as a lambda brings it along, or an outside service knows it
                got = await ctx.step("owner", lambda: _owner(truth(n, mine)))
                self._check(truth(n, mine), got)

        if shape in ("gather", "semaphore outside"):
            calls = [self._one(ctx, n) for n in self.order]
            if self.plan.style.startswith("variable"):  # set in the task
                calls = [asyncio.create_task(one) for one in calls]
            await asyncio.gather(*(map(bounded, calls) if shape == "semaphore outside" else calls))
            return
        async with asyncio.TaskGroup() as group:
            for n in self.order:
                group.create_task(task(n))

    def _one(self, ctx: Context, n: int) -> Any:
        values = self.values[n]
        first, *more = values
        style = self.plan.style
        expected = truth(*values)
        made: Any
        step: Any = ctx.step
        match style:
            case "step args":
                made = fetch(*values)
            case "named step":
                made = step("call", plain, *values)
            case "lambda":
                a, b, c = [*values, None, None][:3]
                count = len(values)
                made = step("call", lambda: plain(*(a, b, c)[:count]))
            case "lambda default":
                a, b, c = [*values, None, None][:3]
                count = len(values)
                made = step("call", lambda a=a, b=b, c=c: plain(*(a, b, c)[:count]))
            case "nested lambda":
                inner: Any = lambda: values  # noqa: E731  # captured
                made = step("call", lambda: plain(*inner()))
            case "partial":
                made = step("call", functools.partial(plain, *values))
            case "method":
                made = step("call", first.run, *more)
            case "one of two methods":
                chosen = first.rest if self.plan.calls[n][0] == 1 else first.run
                expected = chosen(*more)
                made = step("call", chosen, *more)
            case "decorated method":
                made = first.decorated(*more)
            case "callable":
                made = step("call", first, *more)
            case "variable" | "variable of some":
                return self._with_variable(ctx, first, more, n)
            case "functions":
                which = self.plan.calls[n][0]
                expected = truth(which, *more)
                made = step("call", (first_function, second_function, third_function)[which], *more)
            case "child":
                made = ctx.run_child("call", truth(*values))
            case "child with tags":
                expected = truth(values)
                made = ctx.run_child("call", "same", tags={"of": truth(*values)})
                return self._checked(made, truth(*values))
            case _:
                made = self._event(ctx, truth(*values))
        return self._checked(made, expected)

    async def _event(self, ctx: Context, of: str) -> Any:
        return (await ctx.wait_for_event("topic", match={"of": of})).data

    async def _with_variable(self, ctx: Context, first: Any, more: list[Any], n: int) -> None:
        expected = truth("none", *more)
        if self.plan.style == "variable" or self.plan.calls[n][0] != 1:
            VAR.set(first)
            expected = truth(first, *more)
        self._check(expected, await ctx.step("call", read_variable, *more))

    async def _checked(self, made: Any, expected: str) -> None:
        self._check(expected, await made)

    def _check(self, expected: str, got: Any) -> None:
        if got != expected:
            self.swapped.append((expected, got))

    @property
    def is_told(self) -> bool:
        return self.machine.doubts is not None and bool(self.machine.doubts.texts)

    def run(self, journal: Journal) -> None:
        effects = advance(self.machine, list(journal.rows))
        bodies: dict[str, str] = {}
        while effects.state is not MachineState.DONE:
            self.told_at[len(journal.rows)] = self.is_told
            rows = [self._next_row(journal, effects, bodies)]
            effects = advance(self.machine, rows)
        self.told_at[len(journal.rows)] = self.is_told
        if self.machine.error is not None:
            raise self.machine.error

    def _next_row(self, journal: Journal, effects: Effects, bodies: dict[str, str]) -> Any:
        calls = self.machine.outstanding()
        children = self.machine.children()
        choice = self.fate.randrange(len(calls) + len(children) + (effects.timer is not None))
        if choice < len(calls):
            return self._answer(journal, calls[choice], bodies)
        if choice < len(calls) + len(children):
            key = children[choice - len(calls)]
            return journal.add(Kind.CHILD, key, "completed", ok=True, value=Raw(encode(self.children[key])))
        assert effects.timer is not None
        key, due_us = effects.timer
        return journal.add(
            Kind.TIMER, key, fingerprint=fingerprint_of_timer(due_us), dt_us=max(1, due_us - journal.rows[-1].at_us)
        )

    children: dict[str, str]

    def _answer(self, journal: Journal, call: DurableCall, bodies: dict[str, str]) -> Any:
        if call.kind is Kind.STEP:
            assert isinstance(call.request, StepCall)
            assert call.variables is not None
            return journal.answer(call, Raw(encode(_run(call.variables.copy(), call.request))))
        if call.kind is Kind.CHILD_STARTED:
            item = call.request.item
            tags = getattr(item, "tags", None)
            said = msgspec.json.decode(item.payload) if not tags else dict(tags)["of"]
            self.children[call.key] = said
            return journal.answer(call, Raw(encode(str(uuid.uuid5(uuid.NAMESPACE_OID, call.key)))))
        of = call.request.match["of"]
        event = {"id": "i", "sequence_id": 1, "topic": "topic", "event_type": None, "created_at_us": 1}
        return journal.answer(call, Raw(msgspec.json.encode({**event, "data": of})))


def _run(variables: Any, request: StepCall) -> Any:
    def body() -> Any:
        current_context.set(None)
        made = request.call()
        if not asyncio.iscoroutine(made):
            return made
        try:
            made.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a body waits")

    return variables.run(body)


async def _owner(said: str) -> str:
    return said


class Verdict(NamedTuple):
    swaps: int
    told: bool
    blocked: bool
    needed: bool
    what: object = None


def judge(plan: Plan, fate: random.Random) -> Verdict:
    """Run a plan, crash the process, and go on in another process whose tasks come in another order."""
    children: dict[str, str] = {}
    Process.children = children
    order = list(range(len(plan.calls)))
    fate.shuffle(order)
    journal = Journal()
    live = Process(plan, 1, order, fate)
    needed = plan.needs_words
    try:
        live.run(journal)
    except Diverged as error:
        return Verdict(0, told=False, blocked=True, needed=needed, what=str(error))
    assert not live.swapped, live.swapped
    at = fate.randint(1, len(journal.rows))
    again = order[:]
    fate.shuffle(again)
    is_other = [plan.calls[n] for n in again] != [plan.calls[n] for n in order]
    if (again != order and plan.shape in DRAWS) or (
        is_other and plan.shape.startswith("semaphore") and plan.limit < len(order)
    ):
        needed = True  # other ids, or other calls, than those that were recorded
    unsure = any(kind in ("volatile", "opaque") for kind in plan.kinds)
    if unsure and plan.shape.startswith(("semaphore", "sleeps")):
        needed = True  # a call that is yet to come may be the one with this object
    told = live.told_at[max(n for n in live.told_at if n <= at)]
    kept = Journal(*journal.rows[:at])
    replay = Process(plan, 2, again, fate)
    try:
        replay.run(kept)
    except Diverged as error:
        return Verdict(0, told=told, blocked=True, needed=needed, what=str(error))
    told = told or replay.is_told
    return Verdict(
        len(replay.swapped), told=told, blocked=False, needed=needed, what=(replay.swapped, at, order, again)
    )


def judge_many(first: int, groups: int, *, strict: bool = False) -> tuple[Counter[str], list[str]]:
    found: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(first, first + groups):
        fate = random.Random(seed)
        plan = draw(fate, strict=strict)
        verdict = judge(plan, fate)
        found["swapped"] += bool(verdict.swaps)
        found["told"] += verdict.told
        found["blocked"] += verdict.blocked
        silent = verdict.swaps and (strict or not verdict.told)
        idle = (verdict.told or verdict.blocked) and not verdict.needed
        found["silent"] += bool(silent)
        found["without need"] += idle
        if silent:
            wrong.append(f"SILENT seed {seed}: {plan} {verdict}")
        elif idle:
            wrong.append(f"IDLE seed {seed}: {plan} {verdict}")
    return found, wrong
