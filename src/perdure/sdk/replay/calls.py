from asyncio import Future
from collections.abc import Sequence
from contextvars import Context
from enum import Enum
from typing import Any, Final

from msgspec import Raw, Struct

from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.source_location import source_location
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row


class DurableCall(Struct, eq=False):
    key: str
    kind: Kind
    name: str | None
    fingerprint: str | None
    request: Any
    made_at: int
    """The turn of the loop in which the code made the call."""
    future: "Future[Row] | None" = None
    issued: bool = False
    after: int = 0
    """The last row seen when the code asked for the call, after a delivered failure."""
    begun: tuple[int, int] | None = None
    """The try of a step running here, and the time of its start."""
    made_after: int = 0
    """Number of swaps made before the call got its key (see `task_identity`)."""
    done_at: int | None = None
    content: tuple[bytes, list[object]] | None = None
    """See `Doubts.parts`."""
    variables: Context | None = None
    """The context variables of the code that asked for a step."""
    read: tuple[Raw, Any] | None = None
    """The value of a step run here, as reported and as read back for the code."""

    @property
    def source(self) -> str | None:
        if self.future is None:
            return None
        loop = self.future.get_loop()
        assert isinstance(loop, InnerLoop)
        tasks = loop.living_tasks()
        asking = next((task for task in tasks if getattr(task, "_fut_waiter", None) is self.future), None)
        if asking is None:
            return None
        by_path = {task.scope.prefix: task for task in tasks}
        prefix = asking.scope.prefix
        while (line := source_location(by_path[prefix].get_coro()) if prefix in by_path else None) is None:
            # `create_task(ctx.step(…))` has no line of the user's: look at the task that made it.
            if not prefix:
                return None
            prefix = prefix[: prefix.rstrip("/").rfind("/") + 1]
        return line

    def __repr__(self) -> str:
        return f"<DurableCall {self.kind.value} {self.key!r}>"


class AwaitedStart(DurableCall, eq=False):
    """The start of a child, awaited by the code to the child's end."""


class MachineState(Enum):
    RUNNING = "running"
    """This worker has a step to run or a call to report."""
    SUSPENDED = "suspended"
    """Only events, answers, children and timers are outstanding."""
    STARTING = "starting"
    """Suspended once the new children are started."""
    DONE = "done"
    AGAIN = "again"
    """The code has not settled: call `advance(())` again from a fresh callback."""


# Up to Python 3.11 a look-up in an enum's class takes twenty times as long.
STEP: Final = Kind.STEP
STEP_FAILED: Final = Kind.STEP_FAILED
RETRIED: Final = Kind.RETRIED
EVENT: Final = Kind.EVENT
CHILD_STARTED: Final = Kind.CHILD_STARTED
TRANSCRIPT: Final = Kind.TRANSCRIPT
TIMER: Final = Kind.TIMER
WOKEN: Final = Kind.WOKEN
FORKED: Final = Kind.FORKED
RUNNING: Final = MachineState.RUNNING
SUSPENDED: Final = MachineState.SUSPENDED
STARTING: Final = MachineState.STARTING
DONE: Final = MachineState.DONE
AGAIN: Final = MachineState.AGAIN


class Effects(Struct, frozen=True, gc=False):
    started: Sequence[DurableCall]
    """Calls without a row yet: run or report them."""
    abandoned: Sequence[DurableCall]
    """Started calls that the code has given up: cancel the step, close the wait."""
    timer: tuple[str, int] | None
    state: MachineState
