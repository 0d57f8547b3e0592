from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pydantic_ai import exceptions
from pydantic_core import to_json

from perdure.sdk.base.errors import RecordedError, StepFailed
from perdure.sdk.payloads.errors import note_details

FAILURE: Final = "model_error"
WAIT: Final = "wait_seconds"
BODY_BYTES_MAX: Final = 4_000
"""Longer bodies are cut: a provider may answer with an HTML page."""
_HEADERS: Final = re.compile(r"retry-after(-ms)?|x-should-retry|.*ratelimit.*|.*request-id")
"""Other headers may hold cookies."""

_HTTP_KINDS: Final = (
    exceptions.ModelRateLimitError,
    exceptions.ModelQuotaExceededError,
    exceptions.ModelOverloadedError,
    exceptions.ModelUnavailableError,
    exceptions.ModelServerError,
    exceptions.ModelContextWindowExceededError,
    exceptions.ModelAuthenticationError,
    exceptions.ModelNotFoundError,
    exceptions.ModelRequestRejectedError,
)
"""Categories of `ModelHTTPError`."""
_KINDS: Final = {
    kind.__name__: kind
    for kind in (
        *_HTTP_KINDS,
        exceptions.ModelTimeoutError,
        exceptions.ModelConnectionError,
        exceptions.ModelRequestTimeout,
        exceptions.ModelHTTPError,
        exceptions.ModelAPIError,
        exceptions.IncompleteToolCall,
        exceptions.OutputTokenLimitExceeded,
        exceptions.ContentFilterError,
        exceptions.UnexpectedModelBehavior,
        exceptions.UsageLimitExceeded,
        exceptions.ConcurrencyLimitExceeded,
        exceptions.SuspendedResponseExpired,
        exceptions.FallbackExceptionGroup,
        exceptions.UserError,
    )
}
_PLAIN: Final = ("UnexpectedModelBehavior", "ContentFilterError", "UsageLimitExceeded", "UserError")
"""The classes for journals without fields."""
_COMMON: Final = ("provider_error_code", "provider_error_type", "retry_after", "in_stream")
_HTTP: Final = re.compile(r"status_code: (\d{3}), model_name: (.*?), body: (.*)", re.DOTALL)


_VALUES: Final = ("model_name", "status_code", "suggested_model_id", "hint", "phase", "timeout", "setting", *_COMMON)


class _Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """`kind` is a name in `_KINDS`. Within `exceptions`, `kind` may be any class name."""

    kind: str
    message: str
    model_name: str = ""
    status_code: int | None = None
    body: Any = None
    headers: dict[str, str] | None = None
    suggested_model_id: str | None = None
    hint: str | None = None
    provider_error_code: str | None = None
    provider_error_type: str | None = None
    retry_after: float | None = None
    in_stream: bool = False
    phase: str | None = None
    timeout: float | None = None
    setting: str | None = None
    exceptions: tuple[_Failure, ...] = ()


def note_failure(error: Exception, wait_seconds: float | None = None) -> None:
    """Notes fields of known kinds. Other errors keep only their text."""
    if _error_kind(error) is None:
        return
    details = {FAILURE: msgspec.to_builtins(_written(error, BODY_BYTES_MAX))}
    note_details(error, details if wait_seconds is None else {**details, WAIT: wait_seconds})


def _written(error: BaseException, body_bytes: int) -> _Failure:
    kind = _error_kind(error)
    if isinstance(error, exceptions.FallbackExceptionGroup):
        share = body_bytes // len(error.exceptions)
        return _Failure(str(kind), error.message, exceptions=tuple(_written(one, share) for one in error.exceptions))
    if kind is None:
        return _Failure(type(error).__name__, _cut(str(error), body_bytes))
    if not isinstance(error, exceptions.ModelAPIError):
        message, body = getattr(error, "message", str(error)), getattr(error, "body", None)
        return _Failure(kind, _cut(message, body_bytes), body=_cut(body, body_bytes))
    headers: Mapping[str, str] = getattr(error, "headers", None) or {}
    return _Failure(
        kind,
        _cut(error.message, body_bytes),  # contains the body
        body=_cut(error.body, body_bytes),
        headers={name: value for name, value in headers.items() if _HEADERS.fullmatch(name)} or None,
        **{name: getattr(error, name) for name in _VALUES if hasattr(error, name)},
    )


def _error_kind(error: BaseException) -> str | None:
    """The kind of an error; for an HTTP error, the category."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if _KINDS.get(kind.__name__) is kind]
    if isinstance(error, exceptions.ModelHTTPError):
        return next((name for name in kinds if _KINDS[name] in _HTTP_KINDS), exceptions.ModelHTTPError.__name__)
    return kinds[0] if kinds else None


def _cut(body: object, bytes_max: int) -> Any:
    data = to_json(body, fallback=str, inf_nan_mode="strings")
    if len(data) <= bytes_max:
        return msgspec.json.decode(data)
    return (body if isinstance(body, str) else data.decode())[: bytes_max // 4] + "…"


def recorded_failure(failure: StepFailed, model_name: str) -> tuple[Exception, float | None]:
    """The error, and the seconds to wait if no hook handles it. Failures of other kinds stay StepFailed."""
    details = {} if failure.cause is None else failure.cause.details or {}
    error: Exception | None
    try:
        error = _rebuild(msgspec.convert(details[FAILURE], _Failure))
    except (KeyError, msgspec.ValidationError):  # an error of the program, or an older journal
        error = _from_words(failure, model_name)
    if error is None:
        return failure, None
    if isinstance(error, exceptions.ModelAPIError):
        error.message, error.args = failure.message, (failure.message,)
    error.__cause__ = failure
    wait = details.get(WAIT)
    return error, float(wait) if isinstance(wait, int | float) else None


def _rebuild(failure: _Failure) -> Exception:
    kind: Any = _KINDS.get(failure.kind)
    error: Any
    if kind is None:
        return RecordedError(failure.message, type=failure.kind)
    if kind is exceptions.FallbackExceptionGroup:
        return exceptions.FallbackExceptionGroup(failure.message, [_rebuild(one) for one in failure.exceptions])
    if not issubclass(kind, exceptions.ModelAPIError):
        has_body = issubclass(kind, exceptions.UnexpectedModelBehavior)
        error = kind(failure.message, failure.body) if has_body else kind(failure.message)
        return error  # type: ignore[no-any-return]  # its class is looked up
    common = {name: getattr(failure, name) for name in ("body", *_COMMON)}
    if failure.status_code is not None:
        error = exceptions.ModelHTTPError.for_category(
            kind if kind in _HTTP_KINDS else None,
            status_code=failure.status_code,
            model_name=failure.model_name,
            headers=failure.headers,
            suggested_model_id=failure.suggested_model_id,
            hint=failure.hint,
            **common,
        )
    elif kind is exceptions.ModelRequestTimeout:
        setting: Any = failure.setting or "request_timeout"
        return exceptions.ModelRequestTimeout(failure.model_name, failure.timeout or 0.0, setting=setting)
    elif issubclass(kind, exceptions.ModelConnectionError):
        error = kind(failure.model_name, failure.message, phase=failure.phase, **common)
    else:
        error = kind(failure.model_name, failure.message, **common)
    error.message, error.args = failure.message, (failure.message,)  # the body may be cut at another place
    return error  # type: ignore[no-any-return]  # its class is looked up


def _from_words(failure: StepFailed, model_name: str) -> Exception | None:
    if (http := _HTTP.match(failure.message)) is not None:
        return exceptions.ModelHTTPError(int(http[1]), http[2], http[3])
    if failure.type in _PLAIN:
        return _rebuild(_Failure(failure.type, failure.message))
    kind = getattr(exceptions, failure.type, None)
    if isinstance(kind, type) and issubclass(kind, exceptions.ModelAPIError):
        return exceptions.ModelAPIError(model_name, failure.message)
    return None
