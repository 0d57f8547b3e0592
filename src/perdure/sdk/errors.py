"""What goes wrong in workflow code, beside the errors of the API (`perdure.wire.errors`).

    PerdureError
    ├── StepFailed         a step failed and has no tries left; workflow code may catch it
    ├── ChildFailed        a child execution failed
    │   └── ChildCancelled a child execution was cancelled
    ├── RecordedError      the `__cause__` of a StepFailed: what the step raised, as the journal remembers it
    ├── ExecutionFailed    what a client waits for has failed
    │   └── ExecutionCancelled
    ├── Fatal              raise it in a step: no further try
    ├── RetryAfter         raise it in a step: the next try not before so many seconds
    ├── Postponed          raise it in a step: not now; the workflow makes it again later and holds no worker meanwhile
    ├── BudgetExceeded     a budget is used up
    ├── DuplicateKey       a `key=` was used twice in one execution
    ├── Misplaced          called where it cannot work: input/output in a workflow's body, ctx outside of it
    ├── Stuck              every branch waits for something that can never come
    └── Diverged           the code does not match the journal; the execution is blocked, not failed
        └── Outdated       a parked execution was overtaken elsewhere: replay it from its first row

    BaseException
    └── Evicted            ends the coroutines of an execution that leaves memory

`Diverged`, `Outdated` and `Stuck` are raised by the machine, never through workflow code, so no `except` can hide them.
"""

from collections.abc import Mapping
from typing import ClassVar

from perdure.wire.errors import PerdureError


class StepFailed(PerdureError):
    """A step failed for good. `type` is the name of the exception's class, `message` its words, `key` the step's key,
    `tries` how often it was tried. `cause` is what the journal remembers of the exception."""

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
    """An exception as the journal remembers it: words, never an object of its class. `detail` is its traceback,
    `details` are those of an error of Perdure's."""

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
    """A child execution failed; `execution_id` names it, `type` is the class of the error it failed with."""

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
    """A child execution was cancelled."""

    code: ClassVar[str] = "CHILD_CANCELLED"

    def __str__(self) -> str:
        return f"child {self.workflow} ({self.execution_id}) was cancelled"


class ExecutionFailed(PerdureError):
    """The execution whose result was asked for has failed. `type` is the name of the error's class, `message` its
    words, and `str()` what the execution shows as its error: mostly both."""

    code: ClassVar[str] = "EXECUTION_FAILED"

    def __init__(self, message: str, *, execution_id: str, type: str = "Exception", shown: str | None = None) -> None:
        super().__init__(message if shown is None else shown)
        self.message = message
        self.execution_id = execution_id
        self.type = type


class ExecutionCancelled(ExecutionFailed):
    """The execution whose result was asked for was cancelled."""

    code: ClassVar[str] = "EXECUTION_CANCELLED"


class Fatal(PerdureError):
    """Raise it in a step when trying again is pointless: the step fails at once, whatever its retry policy says. So it
    does when it is one of a group, as a `TaskGroup` raises it."""

    code: ClassVar[str] = "FATAL"


class RetryAfter(PerdureError):
    """Raise it in a step to say when to try again, as a service does with its Retry-After header.

    It replaces the delay that the policy would have drawn; the number of tries stays the policy's. Of a group, as a
    `TaskGroup` raises it, the longest counts.
    """

    code: ClassVar[str] = "RETRY_AFTER"

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"try again in {seconds:g} s")
        self.seconds = seconds


def is_fatal(error: BaseException) -> bool:
    """Whether it is `Fatal`, or a group with one."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_fatal, error.exceptions))
    return isinstance(error, Fatal)


def asked_pause(error: BaseException) -> float | None:
    """How many seconds an error asks for before the next try, as `RetryAfter` or by an attribute `retry_after`."""
    if isinstance(error, BaseExceptionGroup):
        return max((asked for one in error.exceptions if (asked := asked_pause(one)) is not None), default=None)
    asked = error.seconds if isinstance(error, RetryAfter) else getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) else None


class Postponed(PerdureError):
    """Raise it in a step that cannot do its work now, as when a provider says to come back later. `admitted` makes the
    step again after so many seconds; until then the execution holds no worker and no slot."""

    code: ClassVar[str] = "POSTPONED"

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(f"{message or 'not now'}; to be made again in {seconds:.3g} s", {"seconds": seconds})
        self.seconds = seconds


class BudgetExceeded(PerdureError):
    """A budget that the execution spends from is used up. `details` say which one, and what is spent of it."""

    code: ClassVar[str] = "BUDGET_EXCEEDED"


class DuplicateKey(PerdureError):
    """A `key=` names one call of an execution; two calls with the same one would share an outcome."""

    code: ClassVar[str] = "DUPLICATE_KEY"


class Misplaced(PerdureError, RuntimeError):
    """Something was called where it cannot work; the message says where it belongs."""

    code: ClassVar[str] = "MISPLACED"


class Stuck(PerdureError):
    """Every branch of the workflow waits, and nothing outside can ever wake one."""

    code: ClassVar[str] = "STUCK"


class Diverged(PerdureError):
    """The code on offer asks for other things than its journal holds. The message and `details` name both sides."""

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
    """The journal took back a step failure that this parked execution has already seen. Nothing is wrong with the
    code: drop the machine and replay from the first row."""


class Evicted(BaseException):
    """The execution is leaving this process's memory and will go on elsewhere: `finally` blocks that run now are not
    part of it. Not an `Exception`, so that no handler takes it for a failure."""
