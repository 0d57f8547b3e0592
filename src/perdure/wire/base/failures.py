"""The error in a row of a journal: of a failed try or call, a hold, or the end."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct


class Failure(Struct, frozen=True, gc=False):
    """An error as people read it. Other clients write JSON of their own, so some fields may have any type."""

    type: str = "Error"
    message: str = ""
    detail: Any = None
    """The traceback."""
    code: Any = None
    details: Any = None
    steps: Sequence[str] | None = None
    children: Sequence[str] | None = None
    """Keys of children whose failures ended the run. Older journals lack the keys."""
    later: dict[str, str | None] | None = None
    """Calls of the code after the failures, with their `on_retry`."""
    retry_at_us: int | None = None
    held: bool | Sequence[str] = False
    """The step waits for an act. In a row `held`: the keys of such steps; empty if the code itself has failed."""
    take_back: Sequence[str] = ()
    """Steps that ended the held code, and run again with the next try."""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


_decode: Final = msgspec.json.Decoder(Failure).decode
_BESIDE: Final = frozenset({"held", "take_back", "retry_at_us"})


def read_failure(value: bytes | Raw | None) -> Failure:
    """Other JSON becomes the message. None, a value too large to be read, says nothing."""
    if value is None:
        return Failure()
    try:
        return _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Failure(message=bytes(value).decode("utf-8", "replace"))


def write_held(detail: Raw, held: list[str], take_back: list[str]) -> bytes:
    return msgspec.json.encode({**_fields(detail), "held": held, "take_back": take_back})


def error_of(value: bytes | Raw) -> bytes:
    """The error without the fields of a hold."""
    fields = _fields(value)
    return msgspec.json.encode({name: fields[name] for name in fields if name not in _BESIDE})


def _fields(detail: bytes | Raw) -> dict[str, Any]:
    """Other JSON, from another client, becomes the message."""
    try:
        return msgspec.json.decode(detail, type=dict[str, Raw])
    except msgspec.ValidationError:
        return {"type": "Error", "message": bytes(detail).decode()}
