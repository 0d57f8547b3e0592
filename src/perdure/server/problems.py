"""Exception → the one JSON error shape: `{"error": "<a sentence>", "error_type": "<CODE>", "details"?: …}`.

What the caller did is 4xx and names the field or the rule; what we did is 500, logged with an id that the caller sees
and nothing else of it. No answer has an empty body.
"""

import logging
import re
from typing import Final
from uuid import uuid4

import msgspec

from perdure.wire.codec import check_json, scrub_text
from perdure.wire.errors import BadRequest, BadValue, InternalError, MethodNotAllowed, PerdureError
from perdure.wire.records import Problem

logger = logging.getLogger("perdure.server")

Header = tuple[bytes, bytes]


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A status, a body and its headers, ready to be sent."""

    status: int
    body: bytes
    headers: tuple[Header, ...]


def json_headers(size: int, extra: tuple[Header, ...] = ()) -> tuple[Header, ...]:
    """The headers of every JSON answer. Nothing an API answers is for a cache, or for a browser to guess at."""
    return (_JSON, _NO_STORE, _NO_SNIFF, (b"content-length", b"%d" % size), *extra)


def problem_reply(error: PerdureError) -> Reply:
    """The answer that tells of an error."""
    # An error's text may quote whatever the caller sent; it must be sendable all the same.
    body = _encode(Problem(scrub_text(error.message), error.code, error.details))
    headers: list[Header] = []
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="perdure"'))
    if isinstance(error, MethodNotAllowed) and error.details:
        allow = error.details["allow"]
        assert isinstance(allow, list)
        headers.append((b"allow", ", ".join(allow).encode()))
    if error.retryable:
        headers.append((b"retry-after", b"1"))
    if error.status in _CLOSING:
        headers.append((b"connection", b"close"))
    return Reply(error.status, body, json_headers(len(body), tuple(headers)))


def internal_problem(error: Exception, doing: str) -> InternalError:
    """Log what went wrong with us, and say no more of it than the id of the log line."""
    id = uuid4().hex[:12]
    logger.error("%s failed (%s).", doing, id, exc_info=error, extra={"error_id": id})
    return InternalError(f"The server failed; its log says why under {id}.", {"error_id": id})


def undecodable(body: bytes, error: Exception, where: str = "body") -> PerdureError:
    """What is wrong with a request's body: not JSON (400), or not of the shape that was asked for (422)."""
    if isinstance(error, msgspec.ValidationError):
        return shape_problem(error, where)
    try:
        check_json(body, where=where, max_bytes=len(body))
    except BadValue as complaint:
        return BadRequest(complaint.message)
    return BadRequest(f"{where}: is not JSON that can be read: {error}")


def shape_problem(error: msgspec.ValidationError, where: str) -> BadValue:
    """A validation error with the path of the field, `body.items[3].priority: Expected `int`, got `str``."""
    text = str(error)
    found = _PATH.search(text)
    path = where + found[1] if found else where
    what = text[: found.start()] if found else text
    return BadValue(f"{path}: {what}", {"path": path})


_encode: Final = msgspec.json.Encoder().encode
_PATH: Final = re.compile(r" - at (?:`key` in )?`\$(.*)`$", re.DOTALL)
_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")
_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
# What is left of the request is not read: the connection cannot be used again.
_CLOSING: Final = frozenset({408, 413, 414, 431})
