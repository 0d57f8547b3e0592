"""Reads request bodies within limits."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Raw
from starlette.types import Receive

from perdure.server.streams import ClientGone
from perdure.wire.accounts import BODY_BYTES_MAX
from perdure.wire.codec import commas_in
from perdure.wire.errors import BadValue, TooLarge, UnsupportedMediaType
from perdure.wire.fields import Most
from perdure.wire.records import NULL

SMALL: Final = BODY_BYTES_MAX
USUAL: Final = 1 << 20
"""For names and numbers."""
VALUES: Final = 1 << 30
"""For payloads and other values, limited by `request_bytes_max` alone."""

COUNTED_BYTES_MIN: Final = 256 << 10
"""Decoding checks smaller bodies in milliseconds."""
TEXTS_MAX: Final = 100_000
"""10 tags for each of 10,000 starts."""


def has_many_items(body: bytes, lists: Mapping[str, Most]) -> bool:
    """Whether decoding could find many times as many items as a list or the tags may have."""
    if len(body) < COUNTED_BYTES_MIN:
        return False
    return body.count(b",") > min([TEXTS_MAX, *(8 * most.items for most in lists.values())])


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


def check_texts(body: bytes, skeleton: Callable[[bytes], object]) -> None:
    """As `check_lists`, for tags: objects of texts."""
    try:
        found = [bytes(one) for one in _raws(skeleton(body))]
    except (msgspec.MsgspecError, RecursionError):
        return  # decoding reports the error
    if sum(one.count(b",") for one in found) > TEXTS_MAX and sum(map(commas_in, found)) > TEXTS_MAX:
        raise BadValue(f"body: holds more than {TEXTS_MAX:,} tags in all; an execution may have 10")


def skeleton_of(body_type: type[msgspec.Struct]) -> Callable[[bytes], object] | None:
    """Decodes only the way to objects of texts, and leaves these raw."""
    found = _skeleton(msgspec.inspect.type_info(body_type))
    return None if found is None else msgspec.json.Decoder(found).decode


def _skeleton(kind: msgspec.inspect.Type) -> Any:
    if isinstance(kind, msgspec.inspect.DictType):
        return Raw if isinstance(kind.value_type, msgspec.inspect.StrType) else None
    if isinstance(kind, msgspec.inspect.ListType):
        item = _skeleton(kind.item_type)
        return None if item is None else list[item]  # type: ignore[valid-type]  # made here
    structs = [kind] if isinstance(kind, msgspec.inspect.StructType) else []
    if isinstance(kind, msgspec.inspect.UnionType):
        structs = [one for one in kind.types if isinstance(one, msgspec.inspect.StructType)]
        if not structs:
            return next((found for one in kind.types if (found := _skeleton(one)) is not None), None)
    fields = {one.encode_name: found for kind in structs for one in kind.fields if (found := _skeleton(one.type))}
    given = [(name, Raw, NULL) if one is Raw else (name, one | None, None) for name, one in fields.items()]
    return msgspec.defstruct("Skeleton", given) if given else None


def _raws(value: object) -> Iterator[Raw]:
    if isinstance(value, Raw):
        yield value
    elif value is not None:
        for part in value if isinstance(value, list) else msgspec.structs.astuple(value):  # type: ignore[arg-type]  # a skeleton
            yield from _raws(part)


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
