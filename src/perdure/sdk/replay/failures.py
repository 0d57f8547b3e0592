"""Finds the failed steps and children that ended a run, and the steps for a retry of the workflow to repeat."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from perdure.sdk.base.errors import ChildFailed, StepFailed
from perdure.wire.runs.executions import Row

if TYPE_CHECKING:
    from perdure.sdk.replay.handles import InnerTask


LATER_MAX: Final = 500
"""Most calls remembered. A reply with more calls says so, and the server then judges by the journal's rows."""


class StepFailures:
    __slots__ = ("_later", "ended_at", "seen", "strays", "unseen")

    def __init__(self) -> None:
        self.ended_at = 0
        """The last row seen by the code."""
        self.seen: dict[str, int] = {}
        """The last row seen when the code met a failure, by the key of its step or child."""
        self.unseen: dict[str, int] = {}
        """Failures after the code had given the step up, or had ended."""
        self.strays: dict[str, tuple[int, int]] = {}
        """Failures uncaught in a task: the `seq`, and the last row seen when the code asked for the step."""

        self._later: deque[tuple[int, str, str | None]] = deque(maxlen=LATER_MAX)
        """Calls asked for after a failure: the last row seen by then, the key, and the step's `on_retry`."""

    def note(self, row: Row, *, at: int | None) -> None:
        """`at`: the last row seen when the code meets the failure. None: the code never does."""
        assert row.key is not None
        if at is None:
            self.unseen[row.key] = row.seq
        else:
            self.seen[row.key] = at

    def note_later(self, asked: int, key: str, on_retry: str | None) -> None:
        """The call has an outcome, or is given up, or the code has ended."""
        self._later.append((asked, key, on_retry))

    def later_than(self, blamed: Collection[str]) -> dict[str, str | None] | None:
        """The calls that the code made after meeting the first failure of `blamed`, with their `on_retry`. None: too
        many.

        Calls under way at the delivery of the failure are left out, even if they ended later.
        """
        first = min((self.seen[key] for key in blamed if key in self.seen), default=self.ended_at + 1)
        if len(self._later) == LATER_MAX and self._later[0][0] >= first:
            return None
        return {key: on_retry for asked, key, on_retry in self._later if asked >= first and key not in blamed}

    def raised_in(self, task: "InnerTask", key: str, seq: int, asked: int) -> None:
        if task.failure is None:
            task.add_done_callback(self._task_over)
        task.failure = (key, seq, asked)

    def _task_over(self, task: asyncio.Task[object]) -> None:
        key, seq, asked = task.failure  # type: ignore[attr-defined]  # all tasks here are ours
        # `exception()` would mark it as retrieved, and asyncio would not report it.
        if key in steps_to_blame(task._exception):
            self.strays[key] = (seq, asked)

    def beside(self, blamed: Iterable[str]) -> Iterator[str]:
        """Failed steps under way when the steps in `blamed` ended the attempt.

        The next attempt would meet such a failure at once and end. Earlier failures and caught failures have the same
        effect in the next attempt.
        """
        first = min((self.seen[key] for key in blamed if key in self.seen), default=self.ended_at)
        yield from (key for key, seq in self.unseen.items() if seq > first)
        yield from (key for key, (seq, asked) in self.strays.items() if asked < first < seq)


def steps_to_blame(error: BaseException | None) -> list[str]:
    """The keys of steps for a retry of the workflow to run again. Children keep their outcomes."""
    return list(dict.fromkeys(one.key for one in _find(error, StepFailed) if one.key is not None))


def calls_to_blame(error: BaseException | None) -> tuple[list[str], list[str]]:
    """The keys of the steps, and of the children, whose failures ended the run."""
    steps: dict[str, None] = {}
    children: dict[str, None] = {}
    for one in _find(error, StepFailed, ChildFailed):
        if one.key is not None:
            (steps if isinstance(one, StepFailed) else children)[one.key] = None
    return list(steps), list(children)


_Failed: TypeAlias = StepFailed | ChildFailed
_Kinds: TypeAlias = tuple[type[_Failed], ...]


def _find(error: BaseException | None, *kinds: type[_Failed]) -> list[_Failed]:
    found: dict[int, _Failed] = {}
    _find_causes(error, kinds, found, set())
    return list(found.values())


def _find_causes(error: BaseException | None, kinds: _Kinds, found: dict[int, _Failed], seen: set[int]) -> bool:
    """Errors handled before the call's failure do not count."""
    while error is not None:
        if isinstance(error, kinds):
            found[id(error)] = error
            return True
        if id(error) in seen:
            return False
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            members = [_find_causes(one, kinds, found, seen) for one in error.exceptions]
            if any(members):
                return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
