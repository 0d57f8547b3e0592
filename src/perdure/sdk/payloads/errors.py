"""Only text is recorded, so reading an exception cannot run code."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

import msgspec

from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed, Fatal, in_words
from perdure.sdk.payloads import tracebacks
from perdure.sdk.payloads.tracebacks import Frame, frames_of
from perdure.wire.base.codec import ERROR_BYTES_MAX, NAME_BYTES_MAX, check_json, scrub_text
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Finished

DETAIL_BYTES_MAX: Final = 16 << 10
_NOTED: Final = "_perdure_details"

CAUSES_MAX: Final = 8
CAUSE_BYTES_MAX: Final = 1 << 10
_T = TypeVar("_T")
_R = TypeVar("_R")


class ErrorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    message: str
    detail: str | None = None
    details: dict[str, object] | None = None
    """Details from an error of Perdure, or from `note_details`."""
    steps: list[str] | None = None
    """Keys of the steps whose failures ended the execution."""
    children: list[str] | None = None
    """Keys of the children whose failures ended the execution."""
    later: dict[str, str | None] | None = None
    """The calls that the code made after the first of these failures, with their `on_retry`."""
    frames: list[Frame] | None = None
    """The traceback of the error itself; `detail` also has the causes."""

    def __str__(self) -> str:
        return in_words(self.type, self.message)


def error_to_json(
    error: BaseException,
    *,
    with_detail: bool = True,
    steps: Sequence[str] = (),
    children: Sequence[str] = (),
    later: dict[str, str | None] | None = None,
) -> bytes:
    """Never raises. `detail` and `frames` are the traceback, together cut to 16 KiB, as are both lists of keys. A
    longer `later` is left out."""
    message = _error_text(error)
    if isinstance(error, BaseExceptionGroup):
        message = f"{message}: {_guarded(lambda: _describe_causes(error), '(its errors could not be read)')}"
    detail: str | None = None
    frames: list[Frame] | None = None
    room = DETAIL_BYTES_MAX
    if with_detail and tracebacks.KEPT:
        detail = _guarded(lambda: "".join(traceback.format_exception(error, limit=-20)), None)
        frames = _guarded(lambda: frames_of(error), None)
        room -= len(msgspec.json.encode(frames))
    record = ErrorRecord(
        type=_class_name(error),
        message=scrub_text(message, ERROR_BYTES_MAX),
        detail=None if detail is None else scrub_text(detail, room),
        details=_details(error),
        steps=first_keys(steps),
        children=first_keys(children),
        later=later if later is None or len(msgspec.json.encode(later)) <= DETAIL_BYTES_MAX else None,
        frames=frames,
    )
    return msgspec.json.encode(record)


def first_keys(keys: Sequence[str]) -> list[str] | None:
    """The first keys that fit into 16 KiB."""
    room = DETAIL_BYTES_MAX
    fits = []
    for key in keys:
        room -= len(key.encode()) + 3  # quotes and a comma
        if room < 0:
            break
        fits.append(key)
    return fits or None


def note_details(error: BaseException, details: dict[str, object]) -> None:
    """Record details with an error of another library."""
    setattr(error, _NOTED, details)


def _class_name(error: BaseException) -> str:
    return scrub_text(type(error).__name__, NAME_BYTES_MAX)


def _error_text(error: BaseException) -> str:
    return _guarded(lambda: str(error), "(the error's text could not be read)")


def _describe_causes(group: BaseExceptionGroup[BaseException]) -> str:
    """A group's own text gives only the number of errors."""
    causes = _leaf_errors(group)
    words = [
        str(ErrorRecord(_class_name(cause), scrub_text(_error_text(cause), CAUSE_BYTES_MAX)))
        for cause in islice(causes, CAUSES_MAX)
    ]
    rest = sum(1 for _ in causes)
    return "; ".join([*words, f"and {rest:,} more"] if rest else words)


def _leaf_errors(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    waiting: list[BaseException] = [group]
    while waiting:  # no recursion: groups may be nested deeper than the stack
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(reversed(error.exceptions))
        else:
            yield error


def _details(error: BaseException) -> dict[str, object] | None:
    try:
        # A subclass may not call `__init__`, which sets them.
        details: dict[str, object] | None = (
            error.details if isinstance(error, PerdureError) else getattr(error, _NOTED, None)
        )
        if not details:
            return None
        data = msgspec.json.encode(details)
        check_json(data, where="details")
    except Exception:  # details may hold anything
        return None
    return details if len(data) <= DETAIL_BYTES_MAX else None


def error_from_json(data: bytes) -> ErrorRecord:
    """Other JSON, from another client, becomes the message."""
    try:
        return msgspec.json.decode(data, type=ErrorRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ErrorRecord(type="Error", message=scrub_text(data.decode("utf-8", "replace"), ERROR_BYTES_MAX))


def execution_failure(id: str, finished: Finished) -> ExecutionFailed:
    if finished.phase == Phase.CANCELLED:
        return ExecutionCancelled(f"Execution {id} was cancelled.", execution_id=id)
    shown = finished.error or "no reason was recorded"
    if finished.detail is None:
        return ExecutionFailed(shown, execution_id=id)
    record = error_from_json(bytes(finished.detail))
    message = record.message if shown == str(record) else shown
    return ExecutionFailed(message, type=record.type, execution_id=id, shown=shown)


def unclear(error: BaseException, wrong: BaseException) -> Fatal:
    """The error of a step whose predicate could not decide about a retry."""
    final = Fatal(f"{in_short(error)}; the decision about a retry failed: {in_short(wrong)}")
    final.__cause__ = wrong
    return final


def in_short(error: BaseException) -> str:
    return str(error_from_json(error_to_json(error, with_detail=False)))


def _guarded(read: Callable[[], _R], otherwise: _T) -> _R | _T:
    try:
        return read()
    except BaseException:  # a user's __str__ may raise anything
        return otherwise
