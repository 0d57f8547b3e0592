"""Bodies of requests, counted while they come."""

from collections.abc import Mapping

from starlette.types import Receive

from perdure.server.streams import ClientGone
from perdure.wire.errors import TooLarge, UnsupportedMediaType


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int, wanted: bytes = b"application/json"
) -> bytes:
    """The whole body, counted while it comes; what a header says of its size is only believed when it is too large."""
    content_type = headers.get(b"content-type")
    if content_type is not None and content_type != wanted:
        _check_content_type(content_type, wanted)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Compressed bodies are not taken; send the JSON as it is.")
    return await read_bytes(receive, headers, bytes_max)


async def read_bytes(receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int) -> bytes:
    """The whole body, whatever it is."""
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length[:20]) > bytes_max:
        raise _too_large(bytes_max)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message["body"]
    if not message["more_body"]:
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body
    parts = [body]
    size = len(body)
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message["body"])
        size += len(parts[-1])
        if size > bytes_max:
            raise _too_large(bytes_max)
    return b"".join(parts)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"body: more than {bytes_max:,} bytes; send it in parts, or keep large data elsewhere.")


def _check_content_type(content_type: bytes, wanted: bytes) -> None:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if kind.strip() != wanted or charset not in (b"", b"utf-8", b"utf8"):
        text = content_type.decode("latin-1")
        raise UnsupportedMediaType(f"Content-Type {text!r} is not taken; send {wanted.decode()} in UTF-8.")
