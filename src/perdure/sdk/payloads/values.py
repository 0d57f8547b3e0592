"""`encode` reads its own output back, because msgspec would silently write NaN as null, and walks through the value
only on a difference. So an encoder refuses a result unfit for its own hint at once, not at a later replay. The bytes
would pass `check_json`, so an engine in the same process does not check again."""

from typing import Any, Final

import msgspec

from perdure.sdk.payloads.faults import below, to_fault, type_name
from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.payloads.inspection import refuse
from perdure.sdk.payloads.native import holds_raw
from perdure.sdk.payloads.reading import reader_for
from perdure.sdk.payloads.writing import dump_foreign, read_plain, write
from perdure.wire.base.codec import check_json, check_limits
from perdure.wire.base.errors import BadValue
from perdure.wire.base.limits import DEPTH_MAX


def encode(value: object, type_: Any = Any, *, where: str = "value") -> bytes:
    """Raises `BadValue` with the path of the fault.

    >>> encode({"id": 7, "tags": ["new"]}, where="input")
    b'{"id":7,"tags":["new"]}'
    >>> encode({"items": [{"price": float("nan")}]}, where="input")
    Traceback (most recent call last):
    perdure.wire.base.errors.BadValue: input.items[0].price: nan is not JSON; only finite numbers are
    """
    return encode_and_read(value, type_, where=where)[0]


def encode_and_read(value: object, type_: Any = Any, *, where: str = "value") -> tuple[bytes, Any]:
    """See `encode`. Also returns the value that `decode` would return."""
    if type(value) is msgspec.Raw and type_ is msgspec.Raw:
        check_json(memoryview(value), where=where)
        return bytes(value), value
    read, guesses = reader_for(type_, where)
    try:
        data = write(value)
    except Exception as error:  # a model's serializers may raise anything
        refuse(value, value, where)
        raise BadValue(f"{where}: {error}") from error
    if len(data) > 2 * DEPTH_MAX:
        try:
            check_limits(data, where=where)
        except BadValue:
            refuse(value, value, where)
            raise
    try:
        twin = read(data)
    except Exception as error:  # validators may raise anything
        refuse(value, value, where)
        raise BadValue(_message(where, error)) from error
    if read is not read_plain and holds_raw(type_):
        check_json(data, where=where)
    same = _equal(twin, value)
    if not (same and (read is read_plain or _is_finite(value, data))):
        refuse(value, value if same else twin, where)
        if guesses and not same:
            raise BadValue(
                f"{where}: would come back as another member of `{type_name(type_)}`, which JSON cannot tell apart"
            )
    if type(type_) is Unannotated and type(value) not in JSON_SCALARS:
        refuse_changes(value, twin, type_, where)
    return data, twin


def decode(data: bytes, type_: Any = Any, *, where: str = "value") -> Any:
    """Raises `BadValue` with the path of a value unfit for the type hint.

    >>> from datetime import date
    >>> decode(b'{"2026-11-25":["YQ=="]}', dict[date, list[bytes]], where="result")
    {datetime.date(2026, 11, 25): [b'a']}
    """
    read, _ = reader_for(type_, where)
    try:
        return read(data)
    except Exception as error:  # as above
        raise BadValue(_message(where, error)) from error


def _is_finite(value: object, data: bytes) -> bool:
    """A field left out of comparisons by its type may hold NaN or infinity."""
    if b"NaN" in data or b"Infinity" in data:  # as a string, by Decimal and pydantic
        return False
    if b"null" not in data:
        return True
    try:
        return bool(msgspec.to_builtins(value, str_keys=True, enc_hook=dump_foreign) == read_plain(data))
    except Exception:  # as in `encode`
        return False


def _equal(twin: object, value: object) -> bool:
    try:
        return bool(twin == value)
    except Exception:  # a user's __eq__, or Decimal's sNaN
        return False


def _message(where: str, error: Exception) -> str:
    fault = to_fault(error)
    return f"{where}{fault.path}: {fault}"


JSON_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


_KEYS: Final = frozenset({str})


def refuse_changes(value: object, twin: object, hint: Unannotated, where: str) -> None:
    """Raise `BadValue` with the path of the first part whose type differs in `twin`, the value read back. The caller
    has checked scalars."""
    found = _first_change(value, twin)
    if found is not None:
        path, was, becomes = found
        raise BadValue(
            f"{where}{path}: a `{was.__name__}` would come back as a `{becomes.__name__}`; {hint.advice()}, "
            "or use plain JSON values"
        )


def _first_change(value: Any, twin: Any) -> tuple[str, type, type] | None:
    # Compare exact types: a StrEnum equals its text, a defaultdict a dict.
    kind = type(value)
    if kind is list:
        parts = enumerate(value)
    elif kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return "", next(type(key) for key in value if type(key) is not str), str
        parts = value.items()
    else:
        return "", kind, type(twin)
    for name, part in parts:
        if type(part) not in JSON_SCALARS:
            found = _first_change(part, twin[name])
            if found is not None:
                path, was, becomes = found
                return below("", name) + path, was, becomes
    return None
