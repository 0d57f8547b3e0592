"""The API's errors are in `perdure.wire.base.errors`.

    PerdureError
    ├── StepFailed
    ├── ChildFailed
    │   └── ChildCancelled
    ├── RecordedError
    ├── ExecutionFailed
    │   └── ExecutionCancelled
    ├── Fatal
    │   └── NotAwaited
    ├── RetryAfter
    ├── Postponed
    ├── BudgetExceeded
    ├── DuplicateKey
    ├── Misplaced
    ├── Stuck
    ├── UnsupportedPython
    └── Diverged
        └── Outdated

    BaseException
    └── Evicted

The machine raises `Diverged`, `Outdated` and `Stuck` outside of workflow code, so no `except` can hide them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from perdure.wire.base.errors import PerdureError


def in_words(type: str, message: str) -> str:
    return f"{type}: {message}" if message else type


class StepFailed(PerdureError):
    """A step failed for good.

    `type` and `message` are the exception's class and text, `key` is the step's key, `tries` the number of tries,
    `cause` the recorded exception.
    """

    code: ClassVar[str] = "STEP_FAILED"

    def __init__(
        self, message: str, *, type: str = "Exception", key: str | None = None, name: str | None = None, tries: int = 1
    ) -> None:
        super().__init__(message)
        self.type = type
        self.key = key
        self.name = name
        self.tries = tries

    @property
    def cause(self) -> "RecordedError | None":
        """The step's last error, as recorded."""
        return self.__cause__ if isinstance(self.__cause__, RecordedError) else None

    def __str__(self) -> str:
        tried = f" after {self.tries} tries" if self.tries > 1 else ""
        return f"step {self.key!r} failed{tried}: {in_words(self.type, self.message)}"


class RecordedError(PerdureError):
    """The exception behind a StepFailed, as text: `detail` is the traceback, `details` come from an error of
    Perdure."""

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
        words = in_words(self.type, self.message)
        return f"{words}\n\nRecorded traceback:\n{self.detail}" if self.detail else words


class ChildFailed(PerdureError):
    """A child execution failed, or the server refused to start the child. `execution_id` is the child's id, `type` the
    class of the error."""

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
        return f"child {self.workflow} ({self.execution_id}) failed: {in_words(self.type, self.message)}"


class ChildCancelled(ChildFailed):
    """The child was cancelled, by its own code or from outside."""

    code: ClassVar[str] = "CHILD_CANCELLED"

    def __str__(self) -> str:
        return f"child {self.workflow} ({self.execution_id}) was cancelled"


class ExecutionFailed(PerdureError):
    """The awaited execution has failed.

    `type` and `message` are the error's class and text, `str()` the whole error.
    """

    code: ClassVar[str] = "EXECUTION_FAILED"

    def __init__(self, message: str, *, execution_id: str, type: str = "Exception", shown: str | None = None) -> None:
        super().__init__(message if shown is None else shown)
        self.message = message
        self.execution_id = execution_id
        self.type = type


class ExecutionCancelled(ExecutionFailed):
    """The execution was cancelled before it had a result."""

    code: ClassVar[str] = "EXECUTION_CANCELLED"


class Fatal(PerdureError):
    """Raise `Fatal` in a step, alone or in a group, to end the step without retries."""

    code: ClassVar[str] = "FATAL"


class NotAwaited(Fatal):
    """The workflow's code called a step, a child or another durable call without `await`, so the call did not run."""

    code: ClassVar[str] = "NOT_AWAITED"


class RetryAfter(PerdureError):
    """Raise `RetryAfter` in a step to set the delay before the next try.

    The policy's number of tries stays. In a group the longest delay counts.
    """

    code: ClassVar[str] = "RETRY_AFTER"

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"try again in {seconds:g} s")
        self.seconds = seconds


def is_fatal(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_fatal, error.exceptions))
    return isinstance(error, Fatal)


def asked_pause(error: BaseException) -> float | None:
    """The pause that `RetryAfter` or an attribute `retry_after` asks for."""
    if isinstance(error, BaseExceptionGroup):
        return max((asked for one in error.exceptions if (asked := asked_pause(one)) is not None), default=None)
    asked = error.seconds if isinstance(error, RetryAfter) else getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) else None


class Postponed(PerdureError):
    """Raise `Postponed` in a step whose work must wait.

    `admitted` makes the step again after `seconds`. Until then the execution holds no worker and no slot.
    """

    code: ClassVar[str] = "POSTPONED"

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(f"{message or 'not now'}; next try in {seconds:.3g} s", {"seconds": seconds})
        self.seconds = seconds


class BudgetExceeded(PerdureError):
    """A budget is used up. `details` name the budget and the amounts spent.

    `answer` is the output of an agent ended early by the budget, inside a workflow (`await agent(ctx, …)`) or as a
    child. None if the agent has said nothing, or must fail (`on_exceed="fail"`).

    >>> BudgetExceeded("The budget is used up.", answer="Two of three shelves are empty.").answer
    'Two of three shelves are empty.'
    """

    code: ClassVar[str] = "BUDGET_EXCEEDED"

    def __init__(self, message: str, details: dict[str, object] | None = None, *, answer: Any = None) -> None:
        super().__init__(message, details)
        self.answer = answer


class DuplicateKey(PerdureError):
    """Two calls of an execution have the same `key=`."""

    code: ClassVar[str] = "DUPLICATE_KEY"


class Misplaced(PerdureError, RuntimeError):
    """Called in the wrong place, such as input/output in a workflow's body."""

    code: ClassVar[str] = "MISPLACED"


class Stuck(PerdureError):
    """Every branch of the workflow waits, and nothing can wake a branch."""

    code: ClassVar[str] = "STUCK"


class UnsupportedPython(PerdureError):
    """A worker does not start on a Python whose asyncio it cannot replay."""

    code: ClassVar[str] = "UNSUPPORTED_PYTHON"


class Diverged(PerdureError):
    """The code does not match the journal; `details` describe both. The execution is blocked, not failed."""

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
    """The journal took back a step failure already shown to this parked execution: replay from the first row."""


class Evicted(BaseException):
    """Ends the coroutines of an execution leaving memory. Not an `Exception`, so handlers do not catch `Evicted`."""
