"""Reads request bodies within limits."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import msgspec
from msgspec import Raw
from starlette.types import Receive

from perdure.server.streams import ClientGone
from perdure.wire.accounts import BODY_BYTES_MAX
from perdure.wire.errors import TooLarge, UnsupportedMediaType
from perdure.wire.fields import Most
from perdure.wire.records import NULL

SMALL: Final = BODY_BYTES_MAX
USUAL: Final = 1 << 20
"""For names and numbers."""
VALUES: Final = 1 << 30
"""For payloads and other values, limited by `request_bytes_max` alone."""

COUNTED_BYTES_MIN: Final = 256 << 10
"""Decoding checks smaller bodies in milliseconds."""


def check_lists(body: bytes, lists: Mapping[str, Most]) -> None:
    """Decoding millions of small items blocks the event loop for seconds, even in a thread, because msgspec keeps the
    interpreter lock. Raises the list's refusal."""
    for name, most in lists.items():
        try:
            _count(name, most.items)(body)
        except msgspec.ValidationError as error:
            if "at most length" in str(error):
                raise most.refusal(
                    f"body.{name}: holds more than {most.items:,} entries, which is the limit; send fewer at a time",
                    {"path": f"body.{name}"},
                ) from None
        except (msgspec.DecodeError, RecursionError):
            return  # decoding reports the error


@cache
def _count(name: str, items_max: int) -> Callable[[bytes], object]:
    """It stops at a list that is too long, because a struct in array form with `items_max` fields has no room for
    more."""
    fields = [(f"item_{n}", Raw, NULL) for n in range(items_max)]
    items = msgspec.defstruct("Items", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(msgspec.defstruct("Body", [(name, items | None, None)])).decode


async def read_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    bytes_max: int,
    hold: Callable[[int], None],
    wanted: bytes = b"application/json",
) -> bytes:
    content_type = headers.get(b"content-type")
    if content_type is not None and content_type != wanted:
        _check_content_type(content_type, wanted)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Compressed bodies are not supported; send plain JSON.")
    return await read_bytes(receive, headers, bytes_max, hold)


async def read_bytes(
    receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int, hold: Callable[[int], None]
) -> bytes:
    """`hold` gets the size of each part, and may refuse it."""
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length[:20]) > bytes_max:
        raise _too_large(bytes_max)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message["body"]
    size = len(body)
    if size > bytes_max:
        raise _too_large(bytes_max)
    hold(size)
    if not message["more_body"]:
        return body
    parts = [body]
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message["body"]
        size += len(part)
        if size > bytes_max:
            raise _too_large(bytes_max)
        hold(len(part))
        parts.append(part)
    return b"".join(parts)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(
        f"body: more than {bytes_max:,} bytes, the limit of this route; send it in parts, or keep large data elsewhere."
    )


def _check_content_type(content_type: bytes, wanted: bytes) -> None:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if kind.strip() != wanted or charset not in (b"", b"utf-8", b"utf8"):
        text = content_type.decode("latin-1")
        raise UnsupportedMediaType(f"Content-Type {text!r} is not taken; send {wanted.decode()} in UTF-8.")
