"""Turns answers of the HTTP API into the SDK's records."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from perdure.wire.errors import PerdureError

T = TypeVar("T")


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the body of an answer. Raises PerdureError if it is not an answer of Perdure."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise PerdureError(f"The server's answer is not one of Perdure ({error}); is it the right server?") from error
