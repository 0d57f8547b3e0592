"""Errors in workflow code. The API's errors are in `perdure.wire.errors`.

    PerdureError
    ├── StepFailed         a step has failed and has no tries left
    ├── ChildFailed        a child execution has failed
    │   └── ChildCancelled a child execution was cancelled
    ├── RecordedError      the `__cause__` of a StepFailed, as recorded in the journal
    ├── ExecutionFailed    an execution that a client waits for has failed
    │   └── ExecutionCancelled
    ├── Fatal              raise it in a step: no further try
    ├── RetryAfter         raise it in a step: the next try after so many seconds
    ├── Postponed          raise it in a step: make it again later, and hold no worker meanwhile
    ├── BudgetExceeded     a budget is used up
    ├── DuplicateKey       a `key=` was used twice in one execution
    ├── Misplaced          called where it cannot work, such as input/output in a workflow's body
    ├── Stuck              nothing can wake any branch of the workflow
    └── Diverged           the code does not match the journal; the execution is blocked, not failed
        └── Outdated       a parked execution is out of date: replay it from its first row

    BaseException
    └── Evicted            ends the coroutines of an execution that leaves memory

The machine raises `Diverged`, `Outdated` and `Stuck` outside of workflow code, so no `except` can hide them.
"""

from collections.abc import Mapping
from typing import ClassVar

from perdure.wire.errors import PerdureError


class StepFailed(PerdureError):
    """A step failed for good.

    `type` and `message` are the exception's class and text, `key` is the step's key, `tries` the number of its tries.
    `cause` is the exception as recorded.
    """

    code: ClassVar[str] = "STEP_FAILED"

    def __init__(
        self,
        message: str,
        *,
        type: str = "Exception",
        key: str | None = None,
        name: str | None = None,
        tries: int = 1,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.key = key
        self.name = name
        self.tries = tries

    @property
    def cause(self) -> "RecordedError | None":
        return self.__cause__ if isinstance(self.__cause__, RecordedError) else None

    def __str__(self) -> str:
        words = f"{self.type}: {self.message}" if self.message else self.type
        tried = f" after {self.tries} tries" if self.tries > 1 else ""
        return f"step {self.key!r} failed{tried}: {words}"


class RecordedError(PerdureError):
    """An exception as recorded: text, never an object of its class. `detail` is its traceback, and `details` are those
    of an error of Perdure."""

    code: ClassVar[str] = "RECORDED_ERROR"

    def __init__(
        self,
        message: str,
        *,
        type: str = "Exception",
        detail: str | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message, details)
        self.type = type
        self.detail = detail

    def __str__(self) -> str:
        words = f"{self.type}: {self.message}" if self.message else self.type
        return f"{words}\n\nRecorded traceback:\n{self.detail}" if self.detail else words


class ChildFailed(PerdureError):
    """A child execution failed. `execution_id` is its id, `type` the class of its error."""

    code: ClassVar[str] = "CHILD_FAILED"

    def __init__(
        self,
        message: str,
        *,
        type: str = "Exception",
        key: str | None = None,
        workflow: str | None = None,
        execution_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.key = key
        self.workflow = workflow
        self.execution_id = execution_id

    def __str__(self) -> str:
        words = f"{self.type}: {self.message}" if self.message else self.type
        return f"child {self.workflow} ({self.execution_id}) failed: {words}"


class ChildCancelled(ChildFailed):
    code: ClassVar[str] = "CHILD_CANCELLED"

    def __str__(self) -> str:
        return f"child {self.workflow} ({self.execution_id}) was cancelled"


class ExecutionFailed(PerdureError):
    """The execution whose result was awaited has failed.

    `type` is the error's class and `message` its text. `str()` gives the error as the execution shows it, mostly both.
    """

    code: ClassVar[str] = "EXECUTION_FAILED"

    def __init__(self, message: str, *, execution_id: str, type: str = "Exception", shown: str | None = None) -> None:
        super().__init__(message if shown is None else shown)
        self.message = message
        self.execution_id = execution_id
        self.type = type


class ExecutionCancelled(ExecutionFailed):
    """The execution whose result was awaited was cancelled."""

    code: ClassVar[str] = "EXECUTION_CANCELLED"


class Fatal(PerdureError):
    """Raise it in a step to end the step at once, regardless of its retry policy.

    A group with one, such as a `TaskGroup` raises, does the same.
    """

    code: ClassVar[str] = "FATAL"


class RetryAfter(PerdureError):
    """Raise it in a step to set the delay before the next try, as a Retry-After header does.

    It replaces the policy's delay, not its number of tries. In a group, such as a `TaskGroup` raises, the longest
    counts.
    """

    code: ClassVar[str] = "RETRY_AFTER"

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"try again in {seconds:g} s")
        self.seconds = seconds


def is_fatal(error: BaseException) -> bool:
    """True for `Fatal` and for a group with one."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_fatal, error.exceptions))
    return isinstance(error, Fatal)


def asked_pause(error: BaseException) -> float | None:
    """The seconds before the next try, from `RetryAfter` or an attribute `retry_after`."""
    if isinstance(error, BaseExceptionGroup):
        return max((asked for one in error.exceptions if (asked := asked_pause(one)) is not None), default=None)
    asked = error.seconds if isinstance(error, RetryAfter) else getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) else None


class Postponed(PerdureError):
    """Raise it in a step that cannot do its work now, for example when a provider is overloaded.

    `admitted` makes the step again after `seconds`. Until then the execution holds no worker and no slot.
    """

    code: ClassVar[str] = "POSTPONED"

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(f"{message or 'not now'}; to be made again in {seconds:.3g} s", {"seconds": seconds})
        self.seconds = seconds


class BudgetExceeded(PerdureError):
    """A budget of the execution is used up. `details` say which one, and what is spent of it."""

    code: ClassVar[str] = "BUDGET_EXCEEDED"


class DuplicateKey(PerdureError):
    """Two calls of an execution have the same `key=`. They would share an outcome."""

    code: ClassVar[str] = "DUPLICATE_KEY"


class Misplaced(PerdureError, RuntimeError):
    """A call in a place where it cannot work. The message says where it belongs."""

    code: ClassVar[str] = "MISPLACED"


class Stuck(PerdureError):
    """Every branch of the workflow waits, and nothing can wake one."""

    code: ClassVar[str] = "STUCK"


class Diverged(PerdureError):
    """The code does not match its journal. The message and `details` describe both sides."""

    code: ClassVar[str] = "DIVERGED"

    def __init__(
        self,
        message: str,
        *,
        seq: int,
        recorded: Mapping[str, object],
        asked: Mapping[str, object] | None = None,
        source: str | None = None,
    ) -> None:
        details: dict[str, object] = {"seq": seq, "recorded": dict(recorded)}
        if asked is not None:
            details["asked"] = dict(asked)
        if source is not None:
            details["source"] = source
        super().__init__(message, details)
        self.seq = seq
        self.source = source


class Outdated(Diverged):
    """The journal took back a step failure that this parked execution has seen. The code is fine: drop the machine and
    replay from the first row."""


class Evicted(BaseException):
    """The execution leaves this process's memory and goes on elsewhere.

    `finally` blocks that run now are not part of it. Not an `Exception`, so that no handler takes it for a failure.
    """
