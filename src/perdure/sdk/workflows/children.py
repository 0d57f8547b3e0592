from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, Unpack, cast

import msgspec
from msgspec import Raw

from perdure.sdk.base.checks import checked_name
from perdure.sdk.base.errors import BudgetExceeded, ChildCancelled, ChildFailed
from perdure.sdk.base.interrupts import is_interrupt
from perdure.sdk.payloads.errors import error_from_json
from perdure.sdk.payloads.fingerprints import fingerprint, token, with_tokens
from perdure.sdk.payloads.values import decode
from perdure.sdk.replay.calls import AwaitedStart, DurableCall
from perdure.sdk.workflows.start_options import ChildOptions, start_fields
from perdure.sdk.workflows.workflow import Workflow, encode_input, named
from perdure.wire.agents.agent_runs import OVER_BUDGET
from perdure.wire.base.codec import NAME_BYTES_MAX
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import StartChild, StartItem
from perdure.wire.runs.starts import check_options

if TYPE_CHECKING:
    from perdure.sdk.replay.machine import Machine
    from perdure.sdk.workflows.execution_state import ExecutionState

I = TypeVar("I")  # noqa: E741  # as in workflow.py
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OPEN_CHILDREN: Final = 100
COMPLETED: Final = Phase.COMPLETED.value


class ChildHandle(Generic[R_co]):
    """A started child. Await `result()` as often as needed, in any branch."""

    def __init__(self, id: str, key: str, workflow: str, result_type: Any, context: ExecutionState) -> None:
        self.id = id
        self.key = key
        self.workflow = workflow
        self._result_type = result_type
        self._context = context

    def result(self) -> Coroutine[object, None, R_co]:
        """See `ctx.run_child`."""
        return self._context.machine.begins("handle.result()", self._result)

    async def _result(self) -> R_co:
        row = await self._context.machine.child_end(self.key)
        return cast("R_co", child_result(row, self.id, self.workflow, self._result_type))

    def __repr__(self) -> str:
        return f"<ChildHandle {self.workflow} {self.id}>"


class Mapped(Generic[R]):
    """An outcome for each input, in the order of the inputs."""

    _perdure_hint = "take its `.results()`, or look at its `.outcomes`"

    def __init__(self, outcomes: list[R | ChildFailed]) -> None:
        self.outcomes = outcomes

    @property
    def failures(self) -> list[tuple[int, ChildFailed]]:
        """Each failed child's error, with the index of its input."""
        return [(n, one) for n, one in enumerate(self.outcomes) if isinstance(one, ChildFailed)]

    def results(self) -> list[R]:
        """Raises an ExceptionGroup of the failures if there are any."""
        failures = [one for one in self.outcomes if isinstance(one, ChildFailed)]
        if failures:
            raise ExceptionGroup(f"{len(failures)} of {len(self.outcomes)} children failed", failures)
        return cast("list[R]", self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)


def child_call(
    context: ExecutionState,
    workflow: Workflow[Any, Any] | str,
    input: Any,
    *,
    batch_id: str | None = None,
    awaited: bool = False,
    **options: Unpack[ChildOptions],
) -> tuple[DurableCall, str, Any]:
    key = options.pop("key", None)
    name, result_type = named(workflow)
    payload = encode_input(workflow, input, where=f"the input of child {name!r}")
    print_: str | None = fingerprint(payload)
    inherited = {"session_id": context.session_id, "user_id": context.user_id, "batch_id": batch_id}
    fields = start_fields(options, ChildOptions)
    if any(fields.values()):
        print_ = with_tokens(print_, [token(fields)])
    item = StartItem(
        workflow_id=checked_name(name, "workflow", NAME_BYTES_MAX), payload=Raw(payload), **inherited | fields
    )
    check_options(item)
    call = context.machine.new_call(
        Kind.CHILD_STARTED,
        name,
        print_,
        lambda key: StartChild(key, print_, item),
        key=key,
        of=AwaitedStart if awaited else DurableCall,
    )
    return call, name, result_type


def child_id(row: Row, name: str) -> str:
    if row.ok:
        return msgspec.json.decode(row.value, type=str)
    problem = error_from_json(bytes(row.value))
    raise ChildFailed(f"it was not started: {problem.message}", type=problem.type, key=row.key, workflow=name)


def child_result(row: Row, id: str, name: str, result_type: Any) -> Any:
    if row.ok:
        result = decode(bytes(row.value), result_type, where=f"the result of child {name!r} ({id})")
        if row.name != COMPLETED and (row.name or "").startswith(OVER_BUDGET):
            raise BudgetExceeded(f"Agent {name!r} {row.name}", answer=result)
        return result
    if row.name == "cancelled":
        raise ChildCancelled("it was cancelled", type="Cancelled", key=row.key, workflow=name, execution_id=id)
    error = error_from_json(bytes(row.value))
    raise ChildFailed(error.message, type=error.type, key=row.key, workflow=name, execution_id=id)


async def run_all(
    context: ExecutionState,
    call_for: Callable[..., tuple[DurableCall, str, Any]],
    inputs: Iterable[I] | AsyncIterable[I],
    limit: int,
    concurrency_key: Callable[[I], str | None] | str | None,
) -> Mapped[Any]:
    """`call_for` is `child_call` without input and concurrency key."""
    outcomes: list[Any] = []
    open_children: set[_MappedChild] = set()
    room = asyncio.Event()

    def begin(input: I) -> None:
        key = concurrency_key(input) if callable(concurrency_key) else concurrency_key
        child = _MappedChild(context.machine, *call_for(input, concurrency_key=key), index=len(outcomes), end=end)
        outcomes.append(None)
        open_children.add(child)
        child.begin()

    def end(child: _MappedChild, outcome: Any) -> None:
        outcomes[child.index] = outcome
        open_children.discard(child)
        room.set()

    async def until_below(limit: int) -> None:
        while len(open_children) >= limit:
            room.clear()
            await room.wait()

    try:
        if isinstance(inputs, AsyncIterable):
            async for input in inputs:
                begin(input)
                await until_below(limit)
        else:
            for input in inputs:
                begin(input)
                await until_below(limit)
        await until_below(1)
    finally:
        for child in open_children:
            child.give_up()
    return Mapped(outcomes)


class _MappedChild:
    """Driven by callbacks, so thousands of children need no tasks."""

    __slots__ = ("_call", "_end", "_future", "_id", "_machine", "_name", "_result_type", "index")

    def __init__(
        self,
        machine: Machine,
        call: DurableCall,
        name: str,
        result_type: Any,
        *,
        index: int,
        end: Callable[[_MappedChild, Any], None],
    ) -> None:
        self._machine = machine
        self._call = call
        self._name = name
        self._result_type = result_type
        self.index = index
        self._end = end
        self._id = ""
        self._future: asyncio.Future[Row] | None = None

    def __hash__(self) -> int:
        return self.index

    def begin(self) -> None:
        self._future = self._machine.ask(self._call)
        self._future.add_done_callback(self._started)

    def give_up(self) -> None:
        assert self._future is not None
        self._future.cancel()
        self._machine.give_up(self._call)

    def _started(self, future: asyncio.Future[Row]) -> None:
        if future.cancelled():
            return
        try:
            self._id = child_id(future.result(), self._name)
        except Exception as error:  # it is the child's outcome
            return self._fail(error)
        self._future = self._machine.child_end(self._call.key)
        self._future.add_done_callback(self._ended)

    def _ended(self, future: asyncio.Future[Row]) -> None:
        if future.cancelled():
            return
        try:
            self._end(self, child_result(future.result(), self._id, self._name, self._result_type))
        except BaseException as error:  # validators of the result's type are user code
            if is_interrupt(error):
                raise
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, ChildFailed):
            failed = ChildFailed(
                str(error), type=type(error).__name__, key=self._call.key, workflow=self._name, execution_id=self._id
            )
            failed.__cause__ = error
            error = failed
        self._end(self, error)
