"""Reads request bodies within limits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from typing import Any, Final, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Raw, Struct
from starlette.types import Receive

from perdure.server.streams import ClientGone
from perdure.wire.accounts import BODY_BYTES_MAX
from perdure.wire.codec import commas_in, split_path
from perdure.wire.errors import BadValue, PerdureError, TooLarge, UnsupportedMediaType
from perdure.wire.fields import Most
from perdure.wire.limits import STEPS_MAX
from perdure.wire.operation import marks
from perdure.wire.record import choices
from perdure.wire.records import NULL

SMALL: Final = BODY_BYTES_MAX
USUAL: Final = 1 << 20
"""For names and numbers."""
VALUES: Final = 1 << 30
"""For payloads and other values, limited by `request_bytes_max` alone."""

COUNTED_BYTES_MIN: Final = 256 << 10
"""Decoding checks smaller bodies in milliseconds."""
PARTS_MAX: Final = 2 * STEPS_MAX
"""An execution may open so many waits, and name them, in one report."""


class _Part(NamedTuple):
    where: str
    most: Most | None
    read: Callable[[bytes], Iterable[Struct]]
    """Takes each item or name from the count. Returns the items that have parts of their own."""


class BodyCount:
    """Counts the items of a body's lists and the names of its objects before they are decoded.

    Decoding millions of them blocks the event loop for seconds, even in a thread, because msgspec keeps the interpreter
    lock. So a list or object is read only up to its limit, and its items without their own lists and objects.
    """

    def __init__(self, body_type: type[Struct]) -> None:
        self._left = 0
        self._few = PARTS_MAX // 2
        """Bodies with fewer commas need no count: a list may have an eighth of this."""
        self._parts: dict[type, dict[str, _Part | None]] = {}
        """The fields of each skeleton; None: a struct."""
        take = self._take

        class Name(Enum):
            ANY = "\0"

            @classmethod
            def _missing_(cls, value: object) -> "Name":
                take()
                return cls.ANY

        self._names = msgspec.json.Decoder(dict[Name, Raw]).decode
        self._body = msgspec.json.Decoder(self._skeleton([body_type], "body")).decode

    def check(self, body: bytes) -> None:
        """Raises the refusal of a list, BadValue for all together, and msgspec's errors."""
        if len(body) >= COUNTED_BYTES_MIN and body.count(b",") > self._few:
            self._check(self._body(body), PARTS_MAX)

    def _check(self, found: Struct, left: int) -> int:
        for name, part in self._parts[type(found)].items():
            value = getattr(found, name)
            if part is None:
                left = left if value is None else self._check(value, left)
                continue
            if (data := bytes(value)) == b"null":
                continue
            self._left = limit = left if part.most is None else min(left, part.most.items)
            try:
                items = part.read(data)
            except msgspec.MsgspecError as error:
                if self._left >= 0:
                    path, text = split_path(str(error))
                    raise type(error)(f"{text} - at `${part.where.removeprefix('body')}{path}`") from None
                raise _too_many(part.where, part.most if limit < left else None) from None
            left -= limit - self._left
            for item in items:
                left = self._check(item, left)
        return left

    def _take(self, number: int = 1) -> None:
        self._left -= number
        if self._left < 0:
            raise msgspec.ValidationError

    def _skeleton(self, kinds: Sequence[type[Struct]], where: str, **namespace: object) -> type[Struct]:
        """A struct that has only the parts of `kinds`, undecoded, and the way to them."""
        parts: dict[str, _Part | None] = {}
        fields: list[tuple[str, Any, object]] = []
        for one in (field for kind in kinds for field in msgspec.structs.fields(kind)):
            name, at = one.encode_name, f"{where}.{one.encode_name}"
            for kind in choices(one.type):
                if get_origin(kind) in (list, dict):
                    parts[name] = self._part(kind, at, next(iter(marks(one.type, Most)), None))
            structs = [kind for kind in choices(one.type) if isinstance(kind, type) and issubclass(kind, Struct)]
            if structs and self._parts[made := self._skeleton(structs, at)]:
                parts[name] = None
                fields.append((name, made | None, None))
        fields += [(name, Raw, NULL) for name, part in parts.items() if part is not None]
        skeleton = msgspec.defstruct("Skeleton", fields, namespace=namespace)
        self._parts[skeleton] = parts
        return skeleton

    def _part(self, kind: Any, where: str, most: Most | None) -> _Part:
        *_, item = get_args(kind)
        values = choices(item)
        if most is not None:
            self._few = min(self._few, 8 * most.items)
        if get_origin(kind) is dict and values == [Raw]:
            return _Part(where, most, self._read_names)
        if get_origin(kind) is list and all(isinstance(one, type) and issubclass(one, Struct) for one in values):
            skeleton = self._skeleton(values, f"{where}[]", __post_init__=lambda _: self._take())
            read = msgspec.json.Decoder(list[skeleton]).decode  # type: ignore[valid-type]  # made here
            return _Part(where, most, read if self._parts[skeleton] else lambda data: read(data) and ())
        if all(one in (str, int, float, bool) for one in values):
            return _Part(where, most, self._read_texts)
        if get_origin(kind) is dict or most is None:
            raise TypeError(f"{where}: how is {kind} counted before it is decoded? Give it a limit with Most.")
        return _Part(where, most, partial(self._read_values, most.items))

    def _read_names(self, data: bytes) -> Iterable[Struct]:
        self._names(data)
        return ()

    def _read_texts(self, data: bytes) -> Iterable[Struct]:
        self._take(commas_in(data) + 1)
        return ()

    def _read_values(self, items_max: int, data: bytes) -> Iterable[Struct]:
        try:
            _up_to(items_max)(data)
        except msgspec.ValidationError as error:
            if "at most length" in str(error):
                self._left = -1
            raise
        self._take(len(_list(data)))
        return ()


@cache
def _up_to(items_max: int) -> Callable[[bytes], object]:
    """It stops at a list that is too long, because a struct in array form has no room for more items than fields."""
    fields = [(f"item_{n}", Raw, NULL) for n in range(items_max)]
    return msgspec.json.Decoder(msgspec.defstruct("Items", fields, array_like=True, forbid_unknown_fields=True)).decode


_list: Final = msgspec.json.Decoder(list[Raw]).decode


def _too_many(where: str, most: Most | None) -> PerdureError:
    if most is None:
        return BadValue(f"body: holds more than {PARTS_MAX:,} entries, tags and other parts in all", {"path": "body"})
    text = f"{where}: holds more than {most.items:,} entries, which is the limit; send fewer at a time"
    return most.refusal(text, {"path": where})


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
