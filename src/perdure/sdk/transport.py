"""The one seam between the wings: what the SDK asks of a server, whichever way it travels."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol, TypeVar

from msgspec import Raw

from perdure.wire.approvals import Became
from perdure.wire.budgets import BudgetChange, ReserveReply, ReserveRequest, SettleRequest
from perdure.wire.errors import BadRequest, BadValue, TooLarge
from perdure.wire.operation import Operation
from perdure.wire.public_budgets import BudgetResponse
from perdure.wire.records import Event, Execution, Problem, Row
from perdure.wire.requests import (
    BeatReply,
    BeatRequest,
    ClaimReply,
    ClaimRequest,
    DrainRequest,
    EventItem,
    ExecutionPage,
    Finished,
    ListFilters,
    LogLine,
    RegisterReply,
    RegisterRequest,
    ReportReply,
    ReportRequest,
    Started,
    StartItem,
)
from perdure.wire.streams import StreamItem
from perdure.wire.transcripts import Page

R = TypeVar("R")

REFUSALS: Final = (BadRequest, BadValue, TooLarge)
"""What a request is refused with as a whole when something in it is wrong; then none of it was done."""


class Transport(Protocol):
    """One connection to one project. Every call is safe to repeat; failures are the errors of `perdure.wire.errors`."""

    async def call(self, op: Operation[R]) -> R:
        """Send an operation and return its reply."""
        ...

    async def start(self, items: Sequence[StartItem]) -> Sequence[Started | Problem]:
        """Start independent executions; an answer for each, in order."""
        ...

    async def result(self, execution_id: str) -> Finished:
        """Wait, as long as it takes, for an execution's end."""
        ...

    async def get(self, execution_id: str) -> Execution: ...

    async def find(self, workflow_id: str, key: str) -> str:
        """The id of the execution that a workflow's readable key names."""
        ...

    async def list(self, filters: ListFilters, cursor: str | None, limit: int) -> ExecutionPage: ...

    async def journal(self, execution_id: str, after: int, limit: int) -> Sequence[Row]: ...

    async def logs(self, execution_id: str, after: int, limit: int) -> Sequence[tuple[int, LogLine]]: ...

    async def watch(self, execution_id: str, after: int, after_log: int, seconds: float) -> None:
        """Wait until journal or log have more than that, at most `seconds`."""
        ...

    def stream(self, execution_id: str, cursor: str | None) -> AsyncGenerator[tuple[str, StreamItem], None]:
        """What an execution and all below it emit, up to its end, each item with the cursor behind it; from a cursor
        on, or from the beginning. An item may come twice."""
        ...

    async def cancel(self, execution_id: str) -> Execution: ...

    async def delete(self, execution_id: str) -> None: ...

    async def resume(self, execution_id: str, step_key: str, data: Raw, question: str | None = None) -> Became: ...

    async def publish(self, topic: str, events: Sequence[EventItem]) -> Sequence[int]: ...

    async def read_events(self, topic: str, after: int, limit: int) -> Sequence[Event]: ...

    async def erase(self, user_id: str | None, session_id: str | None) -> tuple[int, int]: ...

    async def read_transcript(self, session_id: str, version: int | None, after: int | None) -> Page:
        """A page of the entries that a version of a session's transcript needs."""
        ...

    async def append_messages(self, session_id: str, messages: Sequence[Raw], version: int | None) -> int:
        """Add to the end of a session's transcript; answers its new version."""
        ...

    async def budget(self, execution_id: str) -> BudgetResponse:
        """The budget that an execution spends from. Raises `NotFound`."""
        ...

    async def raise_budget(self, execution_id: str, change: BudgetChange, key: str | None = None) -> BudgetResponse:
        """Change that budget; what waits for it goes on. The same `key` again changes nothing more."""
        ...

    async def reserve(self, request: ReserveRequest) -> ReserveReply: ...

    async def settle(self, request: SettleRequest) -> None: ...

    async def register(self, request: RegisterRequest) -> RegisterReply: ...

    async def claim(self, request: ClaimRequest) -> ClaimReply: ...

    async def report(self, request: ReportRequest) -> ReportReply: ...

    async def beat(self, request: BeatRequest) -> BeatReply: ...

    async def drain(self, request: DrainRequest) -> None: ...

    async def close(self) -> None: ...
