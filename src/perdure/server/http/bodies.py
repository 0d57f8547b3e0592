"""Reads request bodies within limits."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import Raw, Struct
from starlette.types import Receive

from perdure.server.http.streams import ClientGone
from perdure.wire.base.codec import commas_in, forget_judged, is_judged_slowly, judging
from perdure.wire.base.errors import BadValue, PerdureError, TooLarge, UnsupportedMediaType
from perdure.wire.base.fields import MaxItems
from perdure.wire.base.limits import STEPS_MAX
from perdure.wire.base.operation import marks
from perdure.wire.base.record import choices
from perdure.wire.base.records import NULL
from perdure.wire.people.accounts import BODY_BYTES_MAX

SMALL: Final = BODY_BYTES_MAX
USUAL: Final = 1 << 20
"""Most bytes of a body with names and numbers."""
VALUES: Final = 1 << 30
"""Most bytes of a body with payloads and other values, which only `request_bytes_max` limits."""

COUNTED_BYTES_MIN: Final = 256 << 10
"""Smaller bodies are not counted: decoding checks them in milliseconds."""
JUDGED_BYTES_MIN: Final = 512 << 10
"""Smaller bodies are judged within 40 ms."""
AT_ONCE_SECONDS: Final = 0.005
"""Seconds of judging values before other requests get a turn."""
PARTS_MAX: Final = 2 * STEPS_MAX
"""Most parts of a body: one report may open STEPS_MAX waits, and name each wait."""


class _Part:
    """A list or an object of a body. The limit of a list of structs is for all such lists together."""

    def __init__(self, where: str, most: MaxItems | None) -> None:
        self.where = where
        self.most = most
        self.limit = self.left = PARTS_MAX if most is None else most.items
        self.fields = 0
        """Number of fields of a struct and its inner structs."""


class BodyCount:
    """Counts the items of a body's lists and the names of its objects before decoding.

    Decoding millions of items would block the event loop for seconds, even in a thread: msgspec keeps the interpreter
    lock. Commas outside the values count everything else, also under a repeated name.
    """

    def __init__(self, body_type: type[Struct]) -> None:
        self._lock = threading.Lock()
        """A server in another thread may use the same counter."""
        self._left = self._commas = 0
        self._refusal: PerdureError | None = None
        self._parts: list[_Part] = []
        self._values: list[memoryview] = []
        self._readers: dict[type, dict[str, Callable[[Any], None]]] = {}
        """Functions that count the fields of each skeleton."""
        skeleton, self._fields = self._skeleton([body_type], "body")
        self._body = msgspec.json.Decoder(skeleton).decode
        # A list may have an eighth of the commas that need no count.
        self._few = min([PARTS_MAX // 2, *(8 * part.limit for part in self._parts)])

    def check(self, body: bytes) -> bool:
        """Whether the body was counted. Raises a list's refusal, BadValue for all together, and msgspec's errors."""
        if len(body) < COUNTED_BYTES_MIN or body.count(b",") <= self._few:
            return False
        with self._lock:
            self._left, self._commas, self._refusal = PARTS_MAX, self._fields, None
            for part in self._parts:
                part.left = part.limit
            try:
                self._count_in(self._body(body))
                self._check_rest(body)
            except msgspec.MsgspecError:
                if self._refusal is None:
                    raise
                raise self._refusal from None
            finally:
                self._values.clear()
        return True

    def _check_rest(self, body: bytes) -> None:
        most = self._left + self._commas
        if len(body) - sum(map(len, self._values)) <= most:
            return
        if commas_in(body) - commas_in(b" ".join(self._values)) > most:
            raise _too_many("body", None)

    def _count_in(self, found: Struct) -> None:
        for name, read in self._readers[type(found)].items():
            value = getattr(found, name)
            if value is not None and value is not NULL:
                read(value)

    def _count_in_each(self, found: Sequence[Struct]) -> None:
        for one in found:
            self._count_in(one)

    def _add(self, value: Raw) -> None:
        self._values.append(memoryview(value))

    def _take(self, part: _Part, number: int = 1) -> None:
        self._left -= number
        self._commas += part.fields
        part.left -= number
        if part.left < 0 or self._left < 0:
            self._refusal = _too_many(part.where, part.most if part.left < 0 else None)
            raise msgspec.ValidationError

    def _skeleton(self, kinds: Sequence[type[Struct]], where: str, **namespace: object) -> tuple[type[Struct], int]:
        """A struct with only the values and structs of `kinds`, and the number of all fields."""
        fields: dict[str, tuple[str, Any, object]] = {}
        readers: dict[str, Callable[[Any], None]] = {}
        number = 0
        for one in (field for kind in kinds for field in msgspec.structs.fields(kind)):
            name, at = one.encode_name, f"{where}.{one.encode_name}"
            number += 1
            for kind in choices(one.type):
                if (made := self._field(kind, _Part(at, next(iter(marks(one.type, MaxItems)), None)))) is not None:
                    fields[name], readers[name] = (name, *made[:2]), made[2]
            if structs := [kind for kind in choices(one.type) if _is_struct(kind)]:
                skeleton, more = self._skeleton(structs, at)
                fields[name], readers[name] = (name, skeleton | None, None), self._count_in
                number += more
        skeleton = msgspec.defstruct("Skeleton", list(fields.values()), namespace=namespace)
        self._readers[skeleton] = readers
        return skeleton, number

    def _field(self, kind: Any, part: _Part) -> tuple[Any, object, Callable[[Any], None]] | None:
        """The field's type and default in the skeleton, and its counter. None: the field's commas count."""
        if kind is Raw:
            return Raw, NULL, self._add
        if get_origin(kind) not in (list, dict):
            return None
        *_, item = get_args(kind)
        values = choices(item)
        if all(one in (str, int, float, bool) for one in values):
            return None
        self._parts.append(part)
        if get_origin(kind) is list and all(map(_is_struct, values)):
            skeleton, part.fields = self._skeleton(values, f"{part.where}[]", __post_init__=lambda _: self._take(part))
            return list[skeleton] | None, None, self._count_in_each  # type: ignore[valid-type]  # made here
        if get_origin(kind) is dict and values == [Raw]:
            read = _read_names(partial(self._take, part))
        elif get_origin(kind) is list and part.most is not None:
            read = partial(self._read_values, part)
        else:
            raise TypeError(f"{part.where}: how is {kind} counted before it is decoded? Give a list a limit with Most.")

        def count(value: Raw) -> None:
            self._add(value)
            if (data := bytes(value)) != b"null":
                part.left = part.limit
                read(data)

        return Raw, NULL, count

    def _read_values(self, part: _Part, data: bytes) -> None:
        try:
            _up_to(part.limit)(data)
        except msgspec.ValidationError as error:
            if "at most length" in str(error):
                self._take(part, part.limit + 1)
            raise
        self._take(part, len(_list(data)))


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _read_names(take: Callable[[], None]) -> Callable[[bytes], object]:
    class Name(Enum):
        ANY = "\0"

        @classmethod
        def _missing_(cls, value: object) -> "Name":
            take()
            return cls.ANY

    return msgspec.json.Decoder(dict[Name, Raw]).decode


@cache
def _up_to(items_max: int) -> Callable[[bytes], object]:
    """Stops at the first list beyond its limit, because a struct in array form takes no more items than fields."""
    fields = [(f"item_{n}", Raw, NULL) for n in range(items_max)]
    return msgspec.json.Decoder(msgspec.defstruct("Items", fields, array_like=True, forbid_unknown_fields=True)).decode


_list: Final = msgspec.json.Decoder(list[Raw]).decode


def _too_many(where: str, most: MaxItems | None) -> PerdureError:
    if most is None:
        text = f"body: holds more than {PARTS_MAX:,} entries, tags and other parts, also of repeated and unknown names"
        return BadValue(text, {"path": "body"})
    text = f"{where}: holds more than {most.items:,} entries, which is the limit; send fewer at a time"
    return most.refusal(text, {"path": where})


async def judge_values(body: bytes, decoded: Struct) -> Sequence[bytes]:
    """Check the values of a large body whose numbers or brackets need a close look. Other requests get turns. Returns
    the values, to be dropped once the request is answered."""
    if len(body) < JUDGED_BYTES_MIN:
        return ()
    await asyncio.sleep(0)
    if not is_judged_slowly(body):
        return ()
    judged: list[bytes] = []
    since = 0.0
    try:
        for value in _values_in(decoded):
            judged.append(bytes(value))
            for _ in judging(judged[-1]):
                if time.monotonic() > since + AT_ONCE_SECONDS:
                    await asyncio.sleep(0)
                    since = time.monotonic()
        await asyncio.sleep(0)
    except BaseException:
        forget_judged(judged)
        raise
    return judged


def _values_in(decoded: object) -> Iterator[Raw]:
    if isinstance(decoded, Raw):
        yield decoded
    elif isinstance(decoded, Struct):
        for name in decoded.__struct_fields__:
            yield from _values_in(getattr(decoded, name))
    elif isinstance(decoded, list | dict):
        for one in decoded if isinstance(decoded, list) else decoded.values():
            yield from _values_in(one)


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
    """`hold` gets the size of each part, and may refuse the part."""
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
