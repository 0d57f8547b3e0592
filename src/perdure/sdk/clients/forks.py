"""The options of forks and retries, and the matching requests."""

from collections.abc import Mapping
from typing import Any, TypedDict

from msgspec import Raw

from perdure.sdk.payloads.values import encode
from perdure.wire.steering.forks import Edits, ForkExecution, RetryExecution


class _Options(TypedDict, total=False):
    from_step: str | None
    deployment_id: str | None
    fresh_keys: bool


class ForkChoices(_Options, total=False):
    """`payload` replaces the input, `steps` recorded outcomes by key."""

    payload: object
    steps: Mapping[str, object] | None


class ForkOptions(ForkChoices, total=False):
    """`key` names the fork within its workflow."""

    key: str | None
    note: str | None


class RetryChoices(_Options, total=False):
    """`from_end` keeps all outcomes, failures included. `keep_later` keeps the outcomes of steps called after the
    failure, `redo_later` drops them."""

    from_end: bool
    keep_later: bool
    redo_later: bool


class RetryOptions(RetryChoices, total=False):
    note: str | None


def fork_request(execution_id: str, options: ForkOptions) -> ForkExecution:
    return ForkExecution(execution_id, **with_edits(dict(options)))


def with_edits(options: dict[str, Any]) -> dict[str, Any]:
    """Turn `payload` and `steps` into `edits`. Raises `BadValue` for a value outside JSON."""
    steps = {key: Raw(encode(value, where=f"steps[{key!r}]")) for key, value in (options.pop("steps", 0) or {}).items()}
    payload = Raw(encode(options.pop("payload"), where="payload")) if "payload" in options else None
    return {**options, "edits": Edits(payload, steps) if steps or payload is not None else None}


def retry_request(execution_id: str, options: RetryOptions) -> RetryExecution:
    return RetryExecution(execution_id, **options)
