"""The one seam between the wings: the requests that the SDK sends to a server, by HTTP or by function calls."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol, TypeVar

from perdure.wire.errors import BadRequest, BadValue, TooLarge
from perdure.wire.executions import Finished
from perdure.wire.operation import Operation
from perdure.wire.records import Problem
from perdure.wire.requests import (
    Started,
    StartItem,
)
from perdure.wire.streams import StreamItem

R = TypeVar("R")

REFUSALS: Final = (BadRequest, BadValue, TooLarge)
"""Errors that refuse a request as a whole: none of it was done."""


class Transport(Protocol):
    """The access to one project. Every call is safe to repeat, and raises the errors of `perdure.wire.errors`."""

    async def call(self, op: Operation[R], key: str | None = None) -> R:
        """Send an operation and return its reply. A repeat with the same `key` has no effect."""
        ...

    async def start(self, items: Sequence[StartItem]) -> Sequence[Started | Problem]:
        """Start independent executions. Returns an answer for each, in order."""
        ...

    async def result(self, execution_id: str) -> Finished:
        """Wait without limit for an execution's end."""
        ...

    def stream(self, execution_id: str, cursor: str | None) -> AsyncGenerator[tuple[str, StreamItem], None]:
        """Follow the stream of an execution and its descendants to its end, from the cursor or the beginning. Each
        item comes with the cursor behind it, and may come twice."""
        ...

    async def close(self) -> None: ...
