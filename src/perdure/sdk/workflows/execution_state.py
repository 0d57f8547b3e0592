"""`Context` adds the calls for workflow code."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.sdk.workflows.streams import Outbox

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.sdk.replay.machine import Machine
    from perdure.wire.agents.transcripts import Transcript
    from perdure.wire.runs.executions import LogLine
    from perdure.wire.runs.requests import Claimed

_NOTHING: Final = contextvars.Context()


class ExecutionState:
    __slots__ = (
        "budget_of",
        "claim",
        "logs",
        "machine",
        "outbox",
        "outside",
        "pending_progress",
        "readings",
        "refused",
        "taken",
        "unlimited",
    )

    def __init__(
        self,
        machine: Machine,
        claim: Claimed,
        readings: dict[int, Transcript] | None = None,
        notify: Callable[[str], None] | None = None,
        outside: Mapping[contextvars.ContextVar[Any], Any] = _NOTHING,
    ) -> None:
        self.machine = machine
        self.claim = claim
        self.logs: list[LogLine] = []
        self.pending_progress: list[Raw] = []
        """Only the last report counts."""
        self.readings = {} if readings is None else readings
        """Readings by the `seq` of their rows."""
        self.taken: dict[str, None] = {}
        self.outbox = Outbox(claim.id, notify)
        self.outside = outside
        """The context variables around the worker's start."""
        self.budget_of: str | None = None
        """The agent whose budget the execution holds."""
        self.unlimited = False
        """The server said that the execution has no budget."""
        self.refused: dict[str, asyncio.Event] = {}
        """Exhausted budgets. The first branch waits for a raise, the other branches for the first."""

    @property
    def execution_id(self) -> str:
        return self.claim.id

    @property
    def workflow_id(self) -> str:
        return self.claim.workflow_id

    @property
    def deployment_id(self) -> str | None:
        return self.claim.deployment_id

    @property
    def parent_execution_id(self) -> str | None:
        return self.claim.parent_execution_id

    @property
    def root_execution_id(self) -> str:
        return self.claim.root_execution_id or self.claim.id

    @property
    def key(self) -> str | None:
        return self.claim.key

    @property
    def queue_name(self) -> str | None:
        return self.claim.queue_name

    @property
    def concurrency_key(self) -> str | None:
        return self.claim.concurrency_key

    @property
    def session_id(self) -> str | None:
        return self.claim.session_id

    @property
    def user_id(self) -> str | None:
        return self.claim.user_id

    @property
    def tags(self) -> dict[str, str]:
        tags = self.claim.tags
        return {} if tags is None else msgspec.json.decode(tags, type=dict[str, str] | None) or {}

    @property
    def attempt(self) -> int:
        """Number of claims of the execution by workers. Do not branch on this number: replays get another."""
        return self.claim.attempt

    @property
    def retry_count(self) -> int:
        """Number of retries of the workflow. Do not branch on this number."""
        return self.claim.retry_count

    @property
    def is_active(self) -> bool:
        """True in workflow code, false in steps."""
        return asyncio._get_running_loop() is self.machine.loop

    @property
    def is_cancelling(self) -> bool:
        """True once a cancel was requested; the main task gets CancelledError."""
        return self.machine.cancel_requested
