"""The only seam between the wings: the SDK's requests, by HTTP or by function calls."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from perdure.wire.base.errors import BadRequest, BadValue, PerdureError, TooLarge
from perdure.wire.base.operation import Operation, Stream
from perdure.wire.base.records import Problem
from perdure.wire.runs.executions import Finished
from perdure.wire.runs.requests import Started, StartItem

R = TypeVar("R")
T = TypeVar("T")

PAUSE_SECONDS_MAX: Final = 5.0

REFUSALS: Final = (BadRequest, BadValue, TooLarge)
"""Errors that refuse a request as a whole."""


class Transport(Protocol):
    """Every call is safe to repeat, and raises the errors of `perdure.wire.base.errors`."""

    async def call(self, op: Operation[R], key: str | None = None) -> R:
        """A repeat with the same `key` has no effect."""
        ...

    async def start(self, items: Sequence[StartItem], input_check: str | None = None) -> Sequence[Started | Problem]:
        """Start independent executions. The answers are in order. `input_check`: as for `StartExecutions`."""
        ...

    async def result(self, execution_id: str) -> Finished:
        """Wait without a time limit."""
        ...

    def stream(self, op: Operation[Stream[R]]) -> AsyncGenerator[tuple[str, R], None]:
        """Follow a stream to its end. Each record comes with the cursor behind it, and may come twice."""
        ...

    async def close(self) -> None: ...


async def until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while no server can be reached. Raises refusals."""
    pause = 0.1
    while True:
        try:
            return await ask()
        except PerdureError as error:
            if not error.retryable:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, PAUSE_SECONDS_MAX)


class HasTransport(Protocol):
    _transport: Transport
    """A forked process gets another transport."""
