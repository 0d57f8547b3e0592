"""The options of forks and retries, and the matching requests."""

from collections.abc import Mapping
from typing import TypedDict

from msgspec import Raw

from perdure.sdk.payloads.values import encode
from perdure.wire.steering.forks import Edits, ForkExecution, RetryExecution


class _Options(TypedDict, total=False):
    from_step: str | None
    deployment_id: str | None
    fresh_keys: bool
    note: str | None


class ForkOptions(_Options, total=False):
    """`payload` replaces the input, `steps` recorded outcomes by key; `key` names the fork within its workflow."""

    payload: object
    steps: Mapping[str, object] | None
    key: str | None


class RetryOptions(_Options, total=False):
    """`from_end` keeps all outcomes, failures included. `keep_later` keeps the outcomes of steps called after the
    failure, `redo_later` drops them."""

    from_end: bool
    keep_later: bool
    redo_later: bool


def fork_request(execution_id: str, options: ForkOptions) -> ForkExecution:
    """Raises `BadValue` for a value outside JSON."""
    given = dict(options)
    steps = {key: Raw(encode(value, where=f"steps[{key!r}]")) for key, value in (options.get("steps") or {}).items()}
    payload = Raw(encode(options["payload"], where="payload")) if "payload" in options else None
    edits = Edits(payload, steps) if steps or payload is not None else None
    for name in ("steps", "payload"):
        given.pop(name, None)
    return ForkExecution(execution_id, edits=edits, **given)  # type: ignore[arg-type]  # the options that are left


def retry_request(execution_id: str, options: RetryOptions) -> RetryExecution:
    return RetryExecution(execution_id, **options)
