"""A provider's own limits: when it says to come back later, the run lets go of its worker until then.

A 429 with a time (Retry-After, or headers that say when a quota is renewed) suspends the run: a timer in its journal,
no worker and no slot held. One without a time is tried again as `model_step` says, as other failures that pass are.
Where models stand in for one another and all refuse, the run waits for the one that may be asked again first.

How often a request waits is bounded, and the waits grow, however soon the provider says to come back. Where a program
has hooks for failed requests (`ModelFallback` is one), they get the refusal at once. The run waits for what
they let through. Both are decided in the step and recorded with its failure, so that a replay decides nothing.
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
from perdure.sdk.budgets import admitted
from perdure.sdk.errors import Postponed, StepFailed
from perdure.wire.retry import RetryPolicy

T = TypeVar("T")

BUSY: Final = frozenset({429, 503, 529})
SECONDS_MAX: Final = 86_400.0
SOON_SECONDS: Final = 60.0
"""When a model that is busy without a time is asked again at the latest, beside one that names a later one."""
WAITS_MAX: Final = 30
"""How often one request waits, unless `retry` of `model_step` says how often it is made in all."""
REFUSALS: Final = "refusals"
"""Under this name the details of a `Postponed` say how often the provider has refused the request by then."""
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def asked_wait(error: BaseException) -> tuple[float, str] | None:
    """How many seconds the models that refused a request ask to wait, and why; None when none of them says."""
    waits: list[tuple[float, str]] = []
    soon = False
    for one in each_failure(error):
        seconds = wait_of(one) if isinstance(one, ModelHTTPError) and one.status_code in BUSY else None
        if isinstance(one, ModelHTTPError) and seconds is not None:
            waits.append((seconds, f"{one.model_name} is busy (status {one.status_code})"))
        else:
            soon = soon or is_transient(one)
    if not waits:
        return None
    seconds, why = min(waits)
    return min(seconds, SOON_SECONDS) if soon else seconds, why


def is_tried_again(error: BaseException) -> bool:
    """Whether a step asks its model once more. A refusal with a time is not for a step to wait for: that would hold the
    worker."""
    return is_transient(error) and asked_wait(error) is None


def failed_request(
    error: Exception, run: AgentRun, retry: RetryPolicy | None, *, hooks_first: bool = False
) -> Exception:
    """In a step: what to raise for a request that failed. `Postponed` has the run wait and make the request again; the
    error itself is the failure of the step, with all that the library's hooks look at. `hooks_first`: they see it
    before the run waits."""
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
    """Make a request by a step, as often as budgets and the provider's own limits take. Raises `BudgetExceeded`, and
    what the step failed with."""

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
    """Waits for a busy provider in an agent with hooks for failed requests: after all of them. Then the model that was
    asked last is asked again."""

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    async def on_model_request_error(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        run = current_run()
        # Of models that were asked one after the other the last one counts: it is the one that is asked again.
        last = error.exceptions[-1] if _is_of_agent(error) else error
        failed = last.__cause__
        if run is None or not isinstance(failed, StepFailed) or failed.key is None:
            raise error
        seconds = recorded_failure(failed, "").wait_seconds
        if seconds is None:
            raise error
        run.refusals += 1
        with run.apart(failed.key):
            await run.ctx.sleep(seconds)
        raise RetryModelRequest from error


def _is_of_agent(error: Exception) -> TypeGuard[FallbackExceptionGroup]:
    """Whether the group was made by `ModelFallback`, in the agent's code. One of a `FallbackModel` is a step's."""
    return isinstance(error, FallbackExceptionGroup) and not isinstance(error.__cause__, StepFailed)


def wait_of(error: ModelHTTPError) -> float | None:
    """How many seconds a refusal asks to wait, at most a day; None when it does not say."""
    seconds = error.retry_after
    if seconds is None and error.headers is not None:
        seconds = renewed_in(error.headers)
    return None if seconds is None else min(max(seconds, 0.0), SECONDS_MAX)


def renewed_in(headers: Mapping[str, str]) -> float | None:
    """In how many seconds a quota is renewed of which nothing is left, by the headers that many providers send.

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
    """The settings of a request whose client does not wait by itself when it is refused: that would hold the worker."""
    return {"max_retries": 0, **(params.model_settings or {})}
