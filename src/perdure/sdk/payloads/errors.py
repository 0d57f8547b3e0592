"""Exceptions ↔ JSON: words only, so reading them can never run code."""

import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, TypeVar

import msgspec

from perdure.wire.codec import ERROR_BYTES_MAX, NAME_BYTES_MAX, check_json, scrub_text
from perdure.wire.errors import PerdureError

DETAIL_BYTES_MAX: Final = 16 << 10
_NOTED: Final = "_perdure_details"

CAUSES_MAX: Final = 8
"""How many errors of a group its message names."""
CAUSE_BYTES_MAX: Final = 1 << 10
_T = TypeVar("_T")


class ErrorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as it is recorded: words only, so reading it can never run code."""

    type: str
    message: str
    detail: str | None = None
    details: dict[str, object] | None = None
    """What an error of Perdure's says to programs, or what `note_details` noted on another one."""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def error_to_json(error: BaseException, *, with_detail: bool = True) -> bytes:
    """`error` as recordable JSON, whatever it is: never raises. `detail` is its traceback, cut to 16 KiB."""
    message = _text_of(error)
    if isinstance(error, BaseExceptionGroup):
        message = f"{message}: {_guarded(lambda: _causes_of(error), '(its errors could not be read)')}"
    detail = _guarded(lambda: "".join(traceback.format_exception(error, limit=-20)), None) if with_detail else None
    record = ErrorRecord(
        type=_type_of(error),
        message=scrub_text(message, ERROR_BYTES_MAX),
        detail=None if detail is None else scrub_text(detail, DETAIL_BYTES_MAX),
        details=_details(error),
    )
    return msgspec.json.encode(record)


def note_details(error: BaseException, details: dict[str, object]) -> None:
    """Have an error of another library recorded with these details."""
    setattr(error, _NOTED, details)


def _type_of(error: BaseException) -> str:
    return scrub_text(type(error).__name__, NAME_BYTES_MAX)


def _text_of(error: BaseException) -> str:
    return _guarded(lambda: str(error), "(the error's text could not be read)")


def _causes_of(group: BaseExceptionGroup[BaseException]) -> str:
    """The first errors of a group, in words. A group says only how many it has."""
    causes = _leaves_of(group)
    words = [
        str(ErrorRecord(_type_of(cause), scrub_text(_text_of(cause), CAUSE_BYTES_MAX)))
        for cause in islice(causes, CAUSES_MAX)
    ]
    rest = sum(1 for _ in causes)
    return "; ".join([*words, f"and {rest:,} more"] if rest else words)


def _leaves_of(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    waiting: list[BaseException] = [group]
    while waiting:  # no recursion: groups may be nested deeper than the interpreter's stack
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(reversed(error.exceptions))
        else:
            yield error


def _details(error: BaseException) -> dict[str, object] | None:
    """The details of one of our errors, or those noted on another one, if they can be recorded."""
    try:
        # A user's class may have forgotten to call ours, which sets them.
        details: dict[str, object] | None = (
            error.details if isinstance(error, PerdureError) else getattr(error, _NOTED, None)
        )
        if not details:
            return None
        data = msgspec.json.encode(details)
        check_json(data, where="details")
    except Exception:  # whoever raised it may have put anything there; the error must be recorded all the same
        return None
    return details if len(data) <= DETAIL_BYTES_MAX else None


def error_from_json(data: bytes) -> ErrorRecord:
    """The reverse of `error_to_json`; what another client recorded in a shape of its own is shown as its message."""
    try:
        return msgspec.json.decode(data, type=ErrorRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ErrorRecord(type="Error", message=scrub_text(data.decode("utf-8", "replace"), ERROR_BYTES_MAX))


def _guarded(read: Callable[[], str], otherwise: _T) -> str | _T:
    try:
        return read()
    except BaseException:  # A user's __str__ may raise anything; the error must be recorded all the same.
        return otherwise
