"""Budgets of agents: each model request is reserved beforehand, and settled afterwards.

    research = durable(agent, budget=Budget(usd=2, on_exceed="ask"))

Budgets from the start of a run, or from an execution above it, also apply.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from pydantic_ai.durable_exec import ModelRequestParams
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, TextPart
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage

from perdure.agents.calls import Call, CallHook
from perdure.agents.failures import is_refusal
from perdure.agents.stops import instruct_to_answer, last_said
from perdure.sdk.base.errors import BudgetExceeded
from perdure.sdk.budgets import Reservation, is_limited, reserve
from perdure.sdk.workflows.start_options import Budget
from perdure.wire.agents.budgets import OnExceed, ReserveReply, usd_micros

logger = logging.getLogger("perdure.worker")

ParamsT = TypeVar("ParamsT")

Price: TypeAlias = Callable[[str, RequestUsage], float | Decimal]
"""The cost in US dollars of the usage of a named model. Default: `genai-prices`."""

OUTPUT_TOKENS: Final = 4_096
BYTES_PER_TOKEN: Final = 3
"""Most tokens are larger, so the estimate is high."""
USED_UP: Final = "The budget is used up."
_LAST: Final = "perdure_last_of_budget"
_reservation: ContextVar[Reservation | None] = ContextVar("perdure_reservation", default=None)


class Spending(CallHook):
    """Reserves and settles each call. If an answer breaks off, the reservation stays, because the cost is unknown."""

    def __init__(self, budget: Budget | None, price: Price | None) -> None:
        self._budget = budget
        self._price = price

    async def before(self, call: Call) -> None:
        """Raises BudgetExceeded, Postponed."""
        _reservation.set(None)
        if call.kind != "model" or not is_limited(self._budget):
            return
        usage = estimate(call)
        costs = self._asked(call, usage)
        _reservation.set(
            await reserve(
                usd_micros=_dearest(costs),
                tokens=usage.input_tokens + usage.output_tokens,
                budget=self._budget,
                unpriced=next((name for name, cost in costs if cost is None), None),
            )
        )

    async def after(self, call: Call, result: Any) -> None:
        if not isinstance(result, ModelResponse) or result.usage.unmeasured_requests:
            return  # the provider did not report usage
        usage = result.usage
        try:
            cost = self._dollars(result)
            # The answering model's price is unknown: the asked model's counts.
            micros = _dearest(self._asked(call, usage)) if cost is None else usd_micros(cost)
        except Exception as error:  # from the program's `price`: the answer stays
            logger.warning("The cost of %s is unknown, because its price failed: %r", result.model_name, error)
            return
        usage.cost = cost
        reservation = _reservation.get()
        if reservation is not None:
            await reservation.settle(usd_micros=micros, tokens=usage.input_tokens + usage.output_tokens)

    async def failed(self, call: Call, error: Exception) -> None:
        reservation = _reservation.get()
        if reservation is not None and is_refusal(error):  # it costs nothing
            await reservation.release()

    def _asked(self, call: Call, usage: RequestUsage) -> list[tuple[str, Decimal | None]]:
        return [(model.model_name, self._cost(model, usage)) for model in each_model(call.run_context.model)]

    def _cost(self, model: Model, usage: RequestUsage) -> Decimal | None:
        return self._dollars(
            ModelResponse(
                [],
                usage=usage,
                model_name=model.model_name,
                provider_name=model.system,
                provider_url=model.base_url,
            )
        )

    def unpriced(self, models: Iterable[Model | str]) -> list[str]:
        """The models with a needed but unknown price. A model given by name is not loaded."""
        if self._budget is None or self._budget.spec().usd_micros is None:
            return []
        found, usage = [], RequestUsage(input_tokens=1)
        for given in models:
            if isinstance(given, str):
                provider, _, name = given.rpartition(":")
                asked = [
                    ModelResponse([], usage=usage, model_name=name, provider_name=one)
                    for one in (None, provider, provider.partition("-")[0])
                ]
                if all(self._dollars(one) is None for one in asked):
                    found.append(given)
            else:
                found += [one.model_name for one in each_model(given) if self._cost(one, usage) is None]
        return found

    def _dollars(self, response: ModelResponse) -> Decimal | None:
        if self._price is not None:
            return Decimal(str(self._price(response.model_name or "", response.usage)))
        if response.usage.cost is not None:
            return response.usage.cost
        try:
            return response.cost().total_price
        except (LookupError, ValueError, AssertionError):  # the model is unnamed or not listed
            return None


def _dearest(costs: list[tuple[str, Decimal | None]]) -> int:
    return usd_micros(max(cost or Decimal(0) for _, cost in costs))


def each_model(model: Any) -> Iterator[Model]:
    models = getattr(model, "models", None)
    if not models:
        yield model
    for one in models or ():
        yield from each_model(one)


def estimate(call: Call) -> RequestUsage:
    request = call.request
    if request is None:  # compaction of a history
        return RequestUsage(input_tokens=OUTPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
    size = len(ModelMessagesTypeAdapter.dump_json(request.messages))
    parameters = request.model_request_parameters
    for tool in (*parameters.function_tools, *parameters.output_tools):
        size += len(tool.description or "") + len(str(tool.parameters_json_schema))
    if parameters.output_object is not None:
        size += len(str(parameters.output_object.json_schema))
    most = (request.model_settings or {}).get("max_tokens") or OUTPUT_TOKENS
    return RequestUsage(input_tokens=size // BYTES_PER_TOKEN + 1, output_tokens=most)


def last_words(params: ParamsT) -> ParamsT:
    """The last request of a budget has no tools."""
    reservation = _reservation.get()
    if reservation is None or not reservation.is_last or not isinstance(params, ModelRequestParams):
        return params
    if not params.model_request_parameters.function_tools:
        return params
    parameters = replace(params.model_request_parameters, function_tools=[])
    return replace(params, model_request_parameters=instruct_to_answer(parameters, USED_UP))


def mark_last(answer: ModelResponse) -> None:
    answer.metadata = {**(answer.metadata or {}), _LAST: True}


def is_last(answer: ModelResponse) -> bool:
    return bool((answer.metadata or {}).get(_LAST))


def ended_by(error: BudgetExceeded, params: object) -> ModelResponse | None:
    """The final answer after a budget is used up. None if the run must fail."""
    refused = msgspec.convert(error.details, ReserveReply)
    finishes = refused.budget is not None and refused.budget.limits.on_exceed is OnExceed.FINISH
    if not finishes or not isinstance(params, ModelRequestParams):
        return None
    if not params.model_request_parameters.allow_text_output:
        return None
    words = last_said(params.messages, params.run_context.run_id)
    return None if words is None else ModelResponse([TextPart(words)], finish_reason="length")
