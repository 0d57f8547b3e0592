from collections.abc import Iterator
from typing import Any, Final

from pydantic_ai import exceptions
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext

from perdure.sdk.base.errors import StepFailed

TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_BROKEN: Final = frozenset({"TransportError", "BrokenResourceError", "ClosedResourceError", "EndOfStream"})
"""Class names, because the HTTP clients and streams of MCP's releases may not be installed."""
_MCP_TRANSIENT: Final = frozenset({-32000, -32001, -32603, 408})
"""MCP's codes for a closed connection, a time-out (-32001; 408 in older clients) and a failed server."""


def each_failure(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, exceptions.FallbackExceptionGroup):
        for one in error.exceptions:
            yield from each_failure(one)
    else:
        yield error


def is_refusal(error: BaseException) -> bool:
    """Whether every model refused the request, which then costs nothing."""
    return all(isinstance(one, exceptions.ModelHTTPError) and not one.in_stream for one in each_failure(error))


def is_transient(error: BaseException) -> bool:
    if isinstance(error, exceptions.FallbackExceptionGroup):
        return any(map(is_transient, each_failure(error)))
    if isinstance(error, exceptions.ModelHTTPError):
        return error.status_code in TRANSIENT_STATUS
    return isinstance(error, exceptions.ModelAPIError | ConnectionError | TimeoutError)


def is_out_of_reach(error: BaseException) -> bool:
    """Clients report an unreachable server by a class, a status or a code, and wrap the caught error."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_out_of_reach, error.exceptions))
    if is_transient(error) or any(kind.__name__ in _BROKEN for kind in type(error).__mro__):
        return True
    if (
        _number(error, "response", "status_code") in TRANSIENT_STATUS
        or _number(error, "error", "code") in _MCP_TRANSIENT
    ):
        return True
    return error.__cause__ is not None and is_out_of_reach(error.__cause__)


def _number(error: BaseException, part: str, name: str) -> int | None:
    found = getattr(getattr(error, part, None), name, None)
    return found if isinstance(found, int) else None


class AskedAgain(AbstractCapability[Any]):
    """Asks the model again if a hook of the call raised `ModelRetry`. For streaming models, the library accepts
    `ModelRetry` only here. Only agents with hooks pay for the slower streams."""

    async def on_model_request_error(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        if isinstance(error, StepFailed) and error.type == exceptions.ModelRetry.__name__:
            raise exceptions.ModelRetry(error.message) from error
        raise error
