"""Bodies of requests, counted while they come."""

from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import Receive

from perdure.server.streams import ClientGone
from perdure.wire.errors import TooLarge, UnsupportedMediaType

SMALL: Final = 16 << 10
"""The limit of routes that take an e-mail, a password or a key, from callers who are not known yet."""
USUAL: Final = 1 << 20
"""The limit of routes that take names and numbers."""
VALUES: Final = 1 << 30
"""Routes that take payloads, results and other values have no limit but the setting `request_bytes_max`."""


async def read_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    bytes_max: int,
    hold: Callable[[int], None],
    wanted: bytes = b"application/json",
) -> bytes:
    """The whole body, counted while it comes; what a header says of its size is only believed when it is too large."""
    content_type = headers.get(b"content-type")
    if content_type is not None and content_type != wanted:
        _check_content_type(content_type, wanted)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Compressed bodies are not taken; send the JSON as it is.")
    return await read_bytes(receive, headers, bytes_max, hold)


async def read_bytes(
    receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int, hold: Callable[[int], None]
) -> bytes:
    """The whole body, whatever it is. `hold` is told of each part of it, and may refuse it."""
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
