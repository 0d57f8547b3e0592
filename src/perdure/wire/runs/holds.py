"""The value of a journal row `held`: the error, and which steps wait."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct


class HeldFor(Struct, frozen=True):
    """`held` are the keys of failed steps that the code waits for. Without any, the code itself has failed; the steps
    `take_back` have ended it, and run again if it is tried again."""

    held: list[str] = []
    take_back: list[str] = []
    later: dict[str, str | None] | None = None
    """The calls that the code made after the failures in `take_back`, with their `on_retry`."""
    type: str = "Error"
    message: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


_BESIDE: Final = frozenset({"held", "take_back", "retry_at_us"})


def write_held(detail: Raw, held: list[str], take_back: list[str]) -> bytes:
    return msgspec.json.encode({**_fields(detail), "held": held, "take_back": take_back})


def read_held(value: bytes | Raw) -> HeldFor:
    return msgspec.json.decode(value, type=HeldFor)


def error_of(value: bytes | Raw) -> bytes:
    """The error alone."""
    fields = _fields(value)
    return msgspec.json.encode({name: fields[name] for name in fields if name not in _BESIDE})


def _fields(detail: bytes | Raw) -> dict[str, Any]:
    """Other JSON, from another client, becomes the message."""
    try:
        return msgspec.json.decode(detail, type=dict[str, Raw])
    except msgspec.ValidationError:
        return {"type": "Error", "message": bytes(detail).decode()}
