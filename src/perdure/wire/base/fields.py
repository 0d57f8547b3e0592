"""Types of fields, with JSON schema and checks."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta, Raw

from perdure.wire.base.codec import KEY_BYTES_MAX, NAME_BYTES_MAX, TOPIC_BYTES_MAX, check_json, check_name, check_text
from perdure.wire.base.errors import BadRequest, BadValue, PerdureError
from perdure.wire.base.records import MaybeRaw

INT64_MAX: Final = 2**63 - 1
PAGE_MAX: Final = 1_000
FIRST_CURSOR: Final = "~"
"""A text before every id: the start of lists with the newest first."""


class Conversion(Enum):
    """Marks a field whose JSON differs from the value in memory."""

    TIME = auto()
    ZONED_TIME = auto()
    VALUE = auto()
    ROLE = auto()


Check = Callable[[Any, str], Any]
"""A function in the type of an operation's field. It takes the value and the name, and returns the value to use."""


class Header(str):
    """Marks a text that travels in the header of this name."""


class MaxItems(NamedTuple):
    """Most items of a list, and the error for a longer list. The server counts before decoding."""

    items: int
    refusal: type[PerdureError] = BadValue


def described(text: str) -> Meta:
    """The description of fields without a docstring in the API's document."""
    return Meta(extra_json_schema={"description": text})


Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Moment = Annotated[datetime, Meta(tz=True)]
"""A caller's time, with offset."""
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, extra_json_schema={"format": "int32"})]
Double = Annotated[float, Meta(extra_json_schema={"format": "double"})]
Int64 = Annotated[int, Meta(extra_json_schema={"format": "int64"})]
Position = Annotated[int, Meta(ge=0, le=INT64_MAX, extra_json_schema={"format": "int64"})]
"""A counting cursor: exclusive, 0 is the beginning."""

Time = Annotated[int, Conversion.TIME]
"""Microseconds since the epoch in memory and in rows; RFC 3339 in UTC in JSON. Callers may send any offset."""
ZonedTime = Annotated[datetime, Conversion.ZONED_TIME]
"""A time whose offset JSON keeps."""
Value = Annotated[MaybeRaw, Conversion.VALUE]
"""A user's JSON in a record, byte for byte. None is null."""


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def checked_id(id: str, what: str = "execution") -> str:
    """The id in lower case. Raises BadRequest for another text."""
    if not is_uuid(id):
        a = "an" if what[0] in "aeiou" else "a"
        raise BadRequest(f"{id!r} is not {a} {what} id; ids look like 0190a5f2-7c1e-7b3a-9d55-0242ac120002.")
    return id.lower()


def checked_cursor(cursor: str, where: str) -> str:
    """Raises BadRequest for another text than an id."""
    if not is_uuid(cursor):
        raise BadRequest("`cursor` is not one that a list gave; leave it out to start with the newest.")
    return cursor.lower()


def in_body(check: Check) -> Check:
    """Name a text in errors as `body.…`."""
    return lambda value, where: check(value, f"body.{where}")


def id_check(what: str) -> Check:
    """Raises BadRequest with the name of the thing."""
    return lambda value, where: checked_id(value, what)


def between(least: int, most: int) -> Check:
    """Bounds of a number in a query. Raises BadRequest."""

    def run(value: int, where: str) -> int:
        if not least <= value <= most:
            raise BadRequest(f"query.{where}: must be {least} to {most}, got {value}", {"path": f"query.{where}"})
        return value

    return run


def within(least: int, most: int) -> Check:
    """Bounds of a number in a body. Raises BadValue."""

    def run(value: int, where: str) -> int:
        if not least <= value <= most:
            raise BadValue(f"{where}: must be {least:,} to {most:,}, got {value}", {"path": where})
        return value

    return run


def text_check(bytes_max: int, check: Callable[..., None] = check_text) -> Check:
    def run(value: str, where: str) -> str:
        check(value, where=where, max_bytes=bytes_max)
        return value

    return run


def name_check(bytes_max: int = NAME_BYTES_MAX) -> Check:
    return text_check(bytes_max, check_name)


def count_check(most: int) -> Check:
    """Bounds the number of a list's items. Raises BadValue."""

    def run(value: Sequence[object], where: str) -> Sequence[object]:
        if len(value) > most:
            raise BadValue(f"{where}: holds {len(value):,} entries; the limit is {most:,}", {"path": where})
        return value

    return run


def checked_json(value: Raw, where: str) -> Raw:
    check_json(bytes(value), where=where)
    return value


ExecutionId = Annotated[str, id_check("execution")]
Name = Annotated[str, name_check()]
KeyName = Annotated[str, name_check(KEY_BYTES_MAX)]
Note = Annotated[str, text_check(2 << 10)]
"""A caller's reason, at most 2 KiB."""
Topic = Annotated[str, name_check(TOPIC_BYTES_MAX)]
PageCursor = Annotated[str, described("The `next_cursor`, or the header `Next-Cursor`, of the page before.")]
Cursor = Annotated[PageCursor, checked_cursor]
ProjectInQuery = Annotated[str, described("Instead of the header.")]
NextCursor = Annotated[str, described("Asks for the following page, also after a short one; null after the last.")]
HasMore = Annotated[bool, described("Whether more may follow, also after a short page.")]
Limit = Annotated[int, between(1, PAGE_MAX), described(f"1 to {PAGE_MAX:,}.")]
Declared = Annotated[
    bool, described("Declared in code: the server deletes it when a registration of the current deployment omits it.")
]
Json = Annotated[MaybeRaw, checked_json]
"""A user's JSON in a request. null is a value like any other."""
RequiredJson = Annotated[Raw, checked_json]

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
