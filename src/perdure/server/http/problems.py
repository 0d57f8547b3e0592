"""Turns exceptions into the JSON of errors: `{"error": "<a sentence>", "error_type": "<CODE>", "details"?: …}`.

A server's fault is 500: the log has the details, and the caller gets only the log line's id.
"""

import logging
import re
from typing import Final
from uuid import uuid4

import msgspec

from perdure.wire.base.codec import check_json, scrub_text
from perdure.wire.base.errors import BadRequest, BadValue, InternalError, MethodNotAllowed, PerdureError
from perdure.wire.base.records import Problem

logger = logging.getLogger("perdure.server")

Header = tuple[bytes, bytes]


class Reply(msgspec.Struct, frozen=True, gc=False):
    status: int
    body: bytes
    headers: tuple[Header, ...]


def text_reply(text: str, content_type: str, *headers: Header) -> Reply:
    body = text.encode()
    size = (b"content-length", b"%d" % len(body))
    return Reply(200, body, ((b"content-type", content_type.encode()), size, _NO_SNIFF, *headers))


def json_headers(size: int, extra: tuple[Header, ...] = (), kind: bytes = b"application/json") -> tuple[Header, ...]:
    return ((b"content-type", kind), _NO_STORE, _NO_SNIFF, (b"content-length", b"%d" % size), *extra)


def problem_reply(error: PerdureError) -> Reply:
    # The error may quote unencodable text of the request.
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
    id = uuid4().hex[:12]
    logger.error("%s failed (%s).", doing, id, exc_info=error, extra={"error_id": id})
    return InternalError(f"The server failed; its log says why under {id}.", {"error_id": id})


def undecodable(body: bytes, error: Exception, kind: type | None = None, where: str = "body") -> PerdureError:
    """Not JSON (400), or not of the type `kind` (422)."""
    if isinstance(error, msgspec.ValidationError):
        return shape_problem(error, where, kind)
    try:
        check_json(body, where=where, max_bytes=len(body))
    except BadValue as complaint:
        return BadRequest(complaint.message)
    return BadRequest(f"{where}: is not valid JSON: {error}")


def shape_problem(error: msgspec.ValidationError, where: str, kind: type | None = None) -> BadValue:
    """Adds the field's path: `body.items[3].priority: Expected `int`, got `str``. With `kind`, the errors
    of an unknown field and of an unknown word list the valid ones."""
    text = str(error)
    found = _PATH.search(text)
    path = where + found[1] if found else where
    what = text[: found.start()] if found else text
    if kind is not None:
        types = _types_at(msgspec.inspect.type_info(kind), _PARTS.findall(found[1] if found else ""))
        structs = [one for one in types if isinstance(one, msgspec.inspect.StructType)]
        enums = [one for one in types if isinstance(one, msgspec.inspect.EnumType)]
        if "unknown field" in what and len(structs) == 1:
            what += f"; it takes {', '.join(f'`{field.encode_name}`' for field in structs[0].fields)}"
        elif "Invalid enum value" in what and len(enums) == 1:
            what += f"; it takes {', '.join(str(one.value) for one in enums[0].cls)}"
    return BadValue(f"{path}: {what}", {"path": path})


def _types_at(kind: msgspec.inspect.Type, parts: list[str]) -> list[msgspec.inspect.Type]:
    """Several types if unions leave a choice."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _types_at(kind.type, parts)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [found for one in kind.types for found in _types_at(one, parts)]
    if not parts:
        return [kind]
    if isinstance(kind, msgspec.inspect.StructType):
        below = [field.type for field in kind.fields if field.encode_name == parts[0].lstrip(".")]
        return _types_at(below[0], parts[1:]) if below else []
    if isinstance(kind, msgspec.inspect.ListType):
        return _types_at(kind.item_type, parts[1:])
    return []


_encode: Final = msgspec.json.Encoder().encode
_PARTS: Final = re.compile(r"\.[^.\[]+|\[[^\]]*\]")
_PATH: Final = re.compile(r" - at (?:`key` in )?`\$(.*)`$", re.DOTALL)
_NO_STORE: Final = (b"cache-control", b"no-store")
_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
# Their rest is not read, so the connection must close.
_CLOSING: Final = frozenset({408, 413, 414, 431})
