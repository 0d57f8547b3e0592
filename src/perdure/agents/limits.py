"""A provider's own limits: when it says to come back later, the run lets go of its worker until then.

A 429 with a time (Retry-After, or headers that say when a quota is renewed) suspends the run: a timer in its journal,
no worker and no slot held. One without a time is tried again as `model_step` says, as other failures that pass are.
Where models stand in for one another and all refuse, the run waits for the one that may be asked again first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pydantic_ai.durable_exec import ModelRequestParams
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.settings import ModelSettings

from perdure.agents.calls import Call, CallHook
from perdure.agents.failures import each_failure, is_transient
from perdure.sdk.errors import Postponed

BUSY: Final = frozenset({429, 503, 529})
SECONDS_MAX: Final = 86_400.0
SOON_SECONDS: Final = 60.0
"""When a model that is busy without a time is asked again at the latest, beside one that names a later one."""
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


class Limits(CallHook):
    """Postpones a request that the provider refused for a time that it named."""

    async def failed(self, call: Call, error: Exception) -> None:
        """Raises Postponed in the place of such a refusal."""
        if call.kind != "model":
            return
        waits: list[tuple[float, str]] = []
        soon = False
        for one in each_failure(error):
            seconds = wait_of(one) if isinstance(one, ModelHTTPError) and one.status_code in BUSY else None
            if isinstance(one, ModelHTTPError) and seconds is not None:
                waits.append((seconds, f"{one.model_name} is busy (status {one.status_code})"))
            else:
                soon = soon or is_transient(one)
        if waits:
            seconds, why = min(waits)
            raise Postponed(min(seconds, SOON_SECONDS) if soon else seconds, why) from error


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
