"""A provider's own limits: a refusal with a time suspends the run until then.

Hooks for failed requests, such as `ModelFallback`, see a refusal first, and the run waits only if no hook handles the
refusal. The step records both decisions, so a replay decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeGuard, TypeVar

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.durable_exec import ModelRequestParams
from pydantic_ai.exceptions import FallbackExceptionGroup, ModelHTTPError, RetryModelRequest
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from perdure.agents.failures import each_failure, is_transient
from perdure.agents.model_errors import note_failure, recorded_failure
from perdure.agents.runs import AgentRun, current_run
from perdure.sdk.base.errors import Postponed, StepFailed
from perdure.sdk.budgets import admitted
from perdure.wire.base.retry import RetryPolicy

T = TypeVar("T")

BUSY: Final = frozenset({429, 503, 529})
SECONDS_MAX: Final = 86_400.0
SOON_SECONDS: Final = 60.0
"""Seconds of the longest wait if another model was busy without naming a time."""
WAITS_MAX: Final = 30
"""Most waits of one request, unless `retry` of `model_step` limits the tries."""
REFUSALS: Final = "refusals"
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def asked_wait(error: BaseException) -> tuple[float, str] | None:
    """The seconds to wait, and why. None if the failure names no time."""
    waits: list[tuple[float, str]] = []
    soon = False
    for one in each_failure(error):
        seconds = requested_wait(one) if isinstance(one, ModelHTTPError) and one.status_code in BUSY else None
        if isinstance(one, ModelHTTPError) and seconds is not None:
            waits.append((seconds, f"{one.model_name} is busy (status {one.status_code})"))
        else:
            soon = soon or is_transient(one)
    if not waits:
        return None
    seconds, why = min(waits)
    return min(seconds, SOON_SECONDS) if soon else seconds, why


def is_tried_again(error: BaseException) -> bool:
    """Whether a step asks the model again. Waiting for a named time would hold the worker."""
    return is_transient(error) and asked_wait(error) is None


def failed_request(
    error: Exception, run: AgentRun, retry: RetryPolicy | None, *, hooks_first: bool = False
) -> Exception:
    """The exception of a step whose request failed: `Postponed` to repeat the request later, or the error, which fails
    the step. With `hooks_first`, the library's hooks see the error before the run waits."""
    asked = asked_wait(error)
    most = WAITS_MAX if retry is None else retry.max_attempts - 1
    if asked is None or run.refusals >= most:
        note_failure(error)
        return error
    seconds = max(asked[0], min(2.0**run.refusals, SOON_SECONDS))
    if hooks_first:
        note_failure(error, seconds)
        return error
    postponed = Postponed(seconds, asked[1])
    postponed.details = {**(postponed.details or {}), REFUSALS: run.refusals + 1}
    postponed.__cause__ = error
    return postponed


async def admitted_request(run: AgentRun, ask: Callable[[], Awaitable[T]]) -> T:
    """Raises `BudgetExceeded` or the step's failure."""

    async def asked() -> T:
        try:
            return await ask()
        except StepFailed as failed:
            details = {} if failed.cause is None else failed.cause.details or {}
            refusals = details.get(REFUSALS)
            run.refusals = refusals if isinstance(refusals, int) else run.refusals
            raise

    made = await admitted(run.ctx, asked, apart=True)
    run.refusals = 0
    return made


class Waits(AbstractCapability[Any]):
    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    async def on_model_request_error(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        run = current_run()
        # The last fallback model is asked again: its time counts.
        last = error.exceptions[-1] if _is_of_agent(error) else error
        failed = last.__cause__
        if run is None or not isinstance(failed, StepFailed) or failed.key is None:
            raise error
        _, seconds = recorded_failure(failed, "")
        if seconds is None:
            raise error
        run.refusals += 1
        with run.apart(failed.key):
            await run.ctx.sleep(seconds)
        raise RetryModelRequest from error


def _is_of_agent(error: Exception) -> TypeGuard[FallbackExceptionGroup]:
    """Whether `ModelFallback` made the group. `FallbackModel` makes a group inside a step."""
    return isinstance(error, FallbackExceptionGroup) and not isinstance(error.__cause__, StepFailed)


def requested_wait(error: ModelHTTPError) -> float | None:
    """The seconds to wait, at most a day."""
    seconds = error.retry_after
    if seconds is None and error.headers is not None:
        seconds = renewed_in(error.headers)
    return None if seconds is None else min(max(seconds, 0.0), SECONDS_MAX)


def renewed_in(headers: Mapping[str, str]) -> float | None:
    """The seconds until an exhausted quota is renewed.

    >>> renewed_in({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0.5s"})
    360.5
    """
    waits: list[float] = []
    for name, left in headers.items():
        if "ratelimit-remaining" not in name or left.strip() not in ("0", "0.0"):
            continue
        until = headers.get(name.replace("remaining", "reset"), "").strip()
        parts = _DURATION.findall(until)
        if parts and "".join(number + unit for number, unit in parts) == until:
            waits.append(sum(float(number) * _UNITS[unit] for number, unit in parts))
        elif re.fullmatch(r"\d{1,6}(\.\d+)?", until):
            waits.append(float(until))
    return max(waits, default=None)


def patient(params: ModelRequestParams) -> ModelSettings:
    """Settings without the client's own retries, which would hold the worker."""
    return {"max_retries": 0, **(params.model_settings or {})}
