"""Steps as workflow code and their own bodies see them: what a call may choose, its outcome, and `current_step()`."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypedDict

from msgspec import Struct

from perdure.sdk.errors import Misplaced, RecordedError, StepFailed
from perdure.sdk.payloads.errors import error_from_json
from perdure.sdk.payloads.fingerprints import fingerprint_of_call
from perdure.sdk.payloads.values import decode

if TYPE_CHECKING:
    from perdure.sdk.context import Context
    from perdure.sdk.replay.calls import Call
    from perdure.sdk.replay.machine import Machine
    from perdure.sdk.worker import Worker
    from perdure.sdk.workflow import Errors, Retry


class StepChoices(TypedDict, total=False):
    """How one call of a step is run; what is given here goes before what `@step` says."""

    retry: Retry | None
    timeout: float | None
    key: str | None
    retry_if: Errors | None
    fatal: Errors | None


async def step_result(machine: Machine, call: Call, result_type: Any) -> Any:
    """Ask for a step and read its outcome."""
    asked = machine.seen
    try:
        row = await machine.ask(call)
    except BaseException:
        machine.give_up(call)
        raise
    if row.ok:
        return decode(bytes(row.value), result_type, where=f"the result of step {call.key!r}")
    error = error_from_json(bytes(row.value))
    machine.raised(row, asked)
    raise StepFailed(error.message, type=error.type, key=call.key, name=call.name, tries=row.tries) from RecordedError(
        error.message, type=error.type, detail=error.detail, details=error.details
    )


class StepInfo(Struct, frozen=True):
    """What a step's body may know of its call."""

    execution_id: str
    key: str
    name: str
    tries: int
    """Which try this is, counted from 1."""
    context: Context | None = None
    worker: Worker | None = None
    """Who runs it, and asks the server for it."""

    @property
    def idempotency_key(self) -> str:
        """The same in every try and every attempt: give it to services that drop repeats."""
        return f"{self.execution_id}:{self.key}"

    def emit(self, kind: str, data: object = None) -> None:
        """Send an item to whoever follows the execution live, as `ctx.emit` does."""
        if self.context is not None:
            self.context.outbox.add(kind, data, self.key, self.tries)


running_step: ContextVar[StepInfo | None] = ContextVar("perdure_step", default=None)
"""Set by the runner around a step's body."""


def current_step() -> StepInfo:
    """The step whose body is running. Raises `Misplaced` elsewhere.

    @step
    async def pay(order_id: int) -> None:
        await bank.pay(order_id, idempotency_key=current_step().idempotency_key)
    """
    info = running_step.get()
    if info is None:
        raise Misplaced("current_step() works inside a step's body only.")
    return info


def not_a_function(given: object) -> TypeError:
    """What to say when a step is given something else to run, most often a call that was made already."""
    what = repr(given)
    if inspect.iscoroutine(given):
        given.close()
        what = "a coroutine, that is a call which was made already"
    return TypeError(f'ctx.step wants a function and its arguments, as `ctx.step("name", fn, 1, 2)`; got {what}.')


def fingerprint_of_step(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The hash of a step's input, if it can be encoded. Raises `TypeError` for an argument that somebody forgot to
    await: the first try of the step would use it up."""
    found = fingerprint_of_call(args, kwargs)
    if found is None:
        for place, value in (*enumerate(args, 1), *kwargs.items()):
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(f"Argument {place} of step {name!r} is a coroutine; did you forget `await`?")
    return found
