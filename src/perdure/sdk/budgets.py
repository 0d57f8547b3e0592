"""A step reserves before a call and settles afterwards:

    async def ask_model(question: str) -> str:
        reservation = await reserve(usd_micros=20_000, tokens=3_000)
        answer = await provider.ask(question)
        await reservation.settle(usd_micros=answer.cost, tokens=answer.tokens)
        return answer.text

    text = await admitted(ctx, lambda: ctx.step("ask", ask_model, question))

`admitted` waits as long as needed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import msgspec

from perdure.sdk.base.errors import BudgetExceeded, Misplaced, Postponed, StepFailed
from perdure.sdk.transports.transport import until_answered
from perdure.sdk.workflows.start_options import Budget
from perdure.sdk.workflows.steps import StepWorker, current_step
from perdure.wire.agents.budgets import (
    Amounts,
    BudgetChange,
    OnExceed,
    RaiseBudget,
    Reserve,
    ReserveReply,
    Settle,
    StoredBudget,
    Verdict,
    is_balance,
    topic_of,
    usd_micros,
)
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.times import microseconds, rfc3339

if TYPE_CHECKING:
    from perdure.sdk.workflows.context import Context

logger = logging.getLogger("perdure.worker")

T = TypeVar("T")

BUSY_SECONDS: Final = 3.0
"""Seconds of waiting in the worker for other calls to settle."""
LATER_SECONDS: Final = (2.0, 8.0)
"""The execution looks again after a random time, since many executions may wait for the same rest."""


class Reservation:
    """A call's share of its budgets. Without a settlement the share stays spent."""

    def __init__(self, worker: StepWorker | None, execution_id: str, id: str, *, is_last: bool = False) -> None:
        self._worker = worker
        self._execution_id = execution_id
        self._id = id
        self.is_last = is_last
        """True if this call uses up a budget with `on_exceed="finish"`: the run should end."""

    async def settle(self, *, usd_micros: int = 0, tokens: int = 0, calls: int = 1) -> None:
        """Report the call's real cost. A refusal is only logged, since the call was made."""
        worker = self._worker
        if worker is None:
            return
        self._worker = None
        settle = Settle(
            execution_id=self._execution_id,
            reservation_id=self._id,
            amounts=Amounts(usd_micros=usd_micros, tokens=tokens, calls=calls),
        )
        try:
            await until_answered(lambda: worker.transport.call(settle))
        except PerdureError as error:
            logger.warning("Execution %s: a call is not settled: %s", self._execution_id, error)

    async def release(self) -> None:
        """Return the share: no call was made, or the provider refused the call."""
        await self.settle(calls=0)


def is_limited(budget: Budget | None = None) -> bool:
    """Tells a step whether an estimate is needed."""
    context = current_step().context
    return budget is not None or (context is not None and context.claim.budgeted and not context.unlimited)


async def reserve(
    *, usd_micros: int = 0, tokens: int = 0, calls: int = 1, budget: Budget | None = None, unpriced: str | None = None
) -> Reservation:
    """Reserve a call's share in every budget of the execution, from within a step.

    `budget` becomes the execution's own budget if none exists. Without any budget, does nothing. `unpriced` names a
    model without a known price: a `BadRequest` for budgets in money. Raises `BudgetExceeded` when nothing is left, and
    `Postponed` when other calls have reserved the rest; `admitted` handles both.
    """
    info = current_step()
    context, worker = info.context, info.worker
    if context is None or worker is None or not is_limited(budget):
        return Reservation(None, info.execution_id, "")
    request = Reserve(
        worker_id=worker.id,
        epoch=worker.epoch,
        execution_id=info.execution_id,
        attempt=context.attempt,
        reservation_id=str(uuid4()),
        amounts=Amounts(usd_micros=usd_micros, tokens=tokens, calls=calls),
        budget=None if budget is None else budget.spec(),
        unpriced=unpriced,
    )
    loop = asyncio.get_running_loop()
    until = loop.time() + BUSY_SECONDS
    pause = 0.05
    while True:
        reply = await until_answered(lambda: worker.transport.call(request))
        if reply.verdict is Verdict.GRANTED:
            return Reservation(worker, info.execution_id, request.reservation_id, is_last=reply.is_last)
        if reply.verdict is Verdict.UNLIMITED:
            context.unlimited = True
            return Reservation(None, info.execution_id, "")
        if reply.verdict is Verdict.EXCEEDED:
            raise _exceeded(reply)
        if loop.time() >= until:
            raise Postponed(random.uniform(*LATER_SECONDS), "calls under way have reserved the rest of the budget")
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, 1.0)


def _exceeded(refused: ReserveReply) -> BudgetExceeded:
    budget = refused.budget
    assert budget is not None
    said = f"{budget.title} is used up: {spent_words(budget, refused.reached)}."
    if budget.name is not None:
        said += f" `perdure budget raise {budget.execution_id}` adds to it.{_renewal(budget)}"
    return BudgetExceeded(said, msgspec.to_builtins(refused))


def _renewal(budget: StoredBudget) -> str:
    """The renewal of a day's balance, as text."""
    return "" if budget.until_us is None else f" It counts anew from {rfc3339(budget.until_us)[:10]} 00:00 UTC."


def spent_words(budget: StoredBudget, reached: list[str]) -> str:
    words: list[str] = []
    for name in reached:
        limit = getattr(budget.limits, name)
        if name == "seconds":
            words.append(f"its {limit:,} seconds are over")
            continue
        spent = getattr(budget.spent, name) + getattr(budget.reserved, name)
        if name == "usd_micros":
            words.append(f"{_dollars(spent)} of {_dollars(limit)}")
        else:
            words.append(f"{spent:,} of {limit:,} {name}")
    return ", ".join(words)


def _dollars(micros: int) -> str:
    return f"${micros / 1e6:,.{2 if micros % 10_000 == 0 else 4}f}"


async def admitted(ctx: Context, call: Callable[[], Awaitable[T]], *, apart: bool = False) -> T:
    """Repeat a step that reserves or may be postponed, until the step succeeds. For workflow code.

    Between the tries the execution holds no worker. Raises `BudgetExceeded` for a budget that does not ask. With
    `apart`, the step names the waits, not the task.
    """
    while True:
        try:
            return await call()
        except StepFailed as failed:
            cause = failed.cause
            details = None if cause is None else cause.details
            if details is None:
                raise
            with ctx.machine.loop.within(failed.key) if apart and failed.key else nullcontext():
                if failed.type == Postponed.__name__:
                    await ctx.sleep(float(str(details["seconds"])))
                elif failed.type == BudgetExceeded.__name__:
                    await _more(ctx, msgspec.convert(details, ReserveReply))
                else:
                    raise


async def _more(ctx: Context, refused: ReserveReply) -> None:
    """Only one branch waits for the change, since a single wait takes each event."""
    budget = refused.budget
    assert budget is not None
    if budget.limits.on_exceed is not OnExceed.ASK:
        raise _exceeded(refused)
    before = ctx.refused.get(budget.execution_id)
    if before is not None:
        await before.wait()
        return
    over = ctx.refused[budget.execution_id] = asyncio.Event()
    try:
        await _changed(ctx, budget, refused)
    finally:
        del ctx.refused[budget.execution_id]
        over.set()


async def _changed(ctx: Context, budget: StoredBudget, refused: ReserveReply) -> None:
    """The execution that asks also takes the answer."""
    # Counted from the last change, since the next may come before this line.
    changed = ctx.wait_for_event(topic_of(budget.execution_id), after=budget.raises, timeout=_seconds_left(ctx, budget))
    if not refused.asks:
        with suppress(TimeoutError):  # its day is over
            await changed
        return
    # A chosen key, which people see, and another one each time.
    key = ctx.machine.loop.key_for("over budget").translate(_PLAIN).lstrip("-")
    asked = ctx.suspend(key, question(budget, refused.reached))
    waits = [asyncio.ensure_future(changed), asyncio.ensure_future(asked)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        answer = waits[1].result() if waits[1].done() and not waits[0].done() else None
        if waits[0].done():
            waits[0].exception()  # a time-out: its day is over
    finally:
        for wait in waits:
            wait.cancel()
    if answer is not None:
        change = parse_change(answer, budget, refused.reached)
        if change is not None:
            await ctx.step("raise budget", _change, budget.execution_id, change)


def _seconds_left(ctx: Context, budget: StoredBudget) -> float | None:
    if budget.until_us is None:
        return None
    return max(0, budget.until_us - microseconds(ctx.now())) / 1e6 + 0.001  # a float may round down


async def _change(budget_id: str, change: BudgetChange) -> None:
    info = current_step()
    worker = info.worker
    if worker is None:
        raise Misplaced("A budget can be raised only in a step that a worker runs.")
    # In a fork the step's input may name the source's budget. The fork raises its own.
    context = info.context
    if context is not None and context.parent_execution_id is None and not is_balance(budget_id):
        budget_id = info.execution_id
    op = RaiseBudget(budget_id, **msgspec.structs.asdict(change))
    await until_answered(lambda: worker.transport.call(op, f"{info.execution_id}:{info.key}"))


def question(budget: StoredBudget, reached: list[str]) -> dict[str, Any]:
    limits = budget.limits
    fields: list[dict[str, Any]] = [{"key": "approved", "type": "boolean", "label": "Go on?"}]
    for name, label in (("usd", "US dollars"), ("tokens", "tokens"), ("calls", "calls"), ("seconds", "seconds")):
        limit = limits.usd_micros if name == "usd" else getattr(limits, name)
        if limit is not None:
            hit = ("usd_micros" if name == "usd" else name) in reached
            field = {"key": name, "type": "number" if name == "usd" else "integer", "label": f"Raise by ({label})"}
            fields.append({**field, "default": limit / 1e6 if name == "usd" else limit} if hit else field)
    return {
        "_form": {
            "title": f"{budget.title} is used up",
            "description": f"{spent_words(budget, reached)}. {_choice(budget)}",
            "fields": fields,
        },
        "budget": budget.execution_id,
        "spent": msgspec.to_builtins(budget.spent),
        "limits": msgspec.to_builtins(limits),
    }


def _choice(budget: StoredBudget) -> str:
    if budget.name is None:
        return "Approve to raise it, reject to end with what there is."
    choice = "Approve to raise it for all that spend from it, reject to end them with what there is."
    return choice + _renewal(budget)


def parse_change(answer: object, budget: StoredBudget, reached: list[str]) -> BudgetChange | None:
    """Returns None to ask again.

    An approval without a number raises the reached limits by their own amount.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("approved"), bool):
        return None
    if not answer["approved"]:
        return BudgetChange(on_exceed=OnExceed.FINISH)
    raised: dict[str, int] = {}
    for name in _NAMES:
        amount = answer.get("usd" if name == "usd_micros" else name)
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1e9:
            continue
        if getattr(budget.limits, name) is not None:
            raised[name] = usd_micros(amount) if name == "usd_micros" else int(amount)
    return msgspec.convert(raised or {name: getattr(budget.limits, name) for name in reached}, BudgetChange)


_PLAIN: Final = str.maketrans("#/~% ", "----_")
_NAMES: Final = ("usd_micros", "tokens", "calls", "seconds")
