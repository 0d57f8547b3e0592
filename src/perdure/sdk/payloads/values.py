"""`encode` and `decode`: a value to JSON and back, by the type hint of whoever reads it.

`encode` reads back what it wrote and compares: equal means that nothing was lost, which costs less than walking the
value (msgspec writes NaN as null without a word). Only when they differ is the value walked, to find out whether that
matters and where. Reading back also shows at once a result that does not fit its own hint, which a replay would stumble
over much later.
"""

from typing import Any

import msgspec

from perdure.sdk.payloads.changes import JSON_SCALARS, refuse_changes
from perdure.sdk.payloads.faults import fault_of, name_of
from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.payloads.inspection import refuse
from perdure.sdk.payloads.reading import reader_of
from perdure.sdk.payloads.writing import dump_foreign, read_plain, write
from perdure.wire.codec import check_json, check_limits
from perdure.wire.errors import BadValue
from perdure.wire.limits import DEPTH_MAX


def encode(value: object, type_: Any = Any, *, where: str = "value") -> bytes:
    """`value` as JSON that `decode` with the same `type_` reads back; `BadValue` with the path if there is none.

    >>> encode({"id": 7, "tags": ["new"]}, where="input")
    b'{"id":7,"tags":["new"]}'
    >>> encode({"items": [{"price": float("nan")}]}, where="input")
    Traceback (most recent call last):
    perdure.wire.errors.BadValue: input.items[0].price: nan is not JSON; only finite numbers are
    """
    return encode_and_read(value, type_, where=where)[0]


def encode_and_read(value: object, type_: Any = Any, *, where: str = "value") -> tuple[bytes, Any]:
    """As `encode`; with what `decode` would make of it."""
    if type(value) is msgspec.Raw and type_ is msgspec.Raw:
        # JSON that somebody else has written, for a reader who takes it as it is: nothing can be lost on the way.
        check_json(memoryview(value), where=where)
        return bytes(value), value
    reader = reader_of(type_, where)
    try:
        data = write(value)
    except Exception as error:  # A model's serializers are user code and may raise anything.
        refuse(value, value, where)
        raise BadValue(f"{where}: {error}") from error
    if len(data) > 2 * DEPTH_MAX:
        try:
            check_limits(data, where=where)
        except BadValue:
            refuse(value, value, where)
            raise
    try:
        twin = reader.read(data)
    except Exception as error:  # A type's __post_init__ and validators are user code and may raise anything.
        refuse(value, value, where)
        raise BadValue(_complaint(where, error)) from error
    same = _equal(twin, value)
    if not (same and (reader.is_plain or _is_finite(value, data))):
        refuse(value, value if same else twin, where)
        if reader.guesses and not same:
            raise BadValue(
                f"{where}: would come back as another member of `{name_of(type_)}`, which JSON cannot tell apart"
            )
    if type(type_) is Unannotated and type(value) not in JSON_SCALARS:
        refuse_changes(value, twin, type_, where)
    return data, twin


def decode(data: bytes, type_: Any = Any, *, where: str = "value") -> Any:
    """The value that `data` holds for a reader whose type hint is `type_`; `BadValue` with the path if it does not fit.

    >>> from datetime import date
    >>> decode(b'{"2026-11-25":["YQ=="]}', dict[date, list[bytes]], where="result")
    {datetime.date(2026, 11, 25): [b'a']}
    """
    reader = reader_of(type_, where)
    try:
        return reader.read(data)
    except Exception as error:  # As above: user code may raise anything.
        raise BadValue(_complaint(where, error)) from error


def _is_finite(value: object, data: bytes) -> bool:
    """Whether `value`, which was written as `data`, surely holds no NaN or infinity.

    Its type has called it equal to what was read back, but a type may leave a field out of that comparison.
    """
    if b"NaN" in data or b"Infinity" in data:  # As a string, by Decimal and pydantic.
        return False
    if b"null" not in data:
        return True
    try:
        return bool(msgspec.to_builtins(value, str_keys=True, enc_hook=dump_foreign) == read_plain(data))
    except Exception:  # As in `encode`; look closely.
        return False


def _equal(twin: object, value: object) -> bool:
    try:
        return bool(twin == value)
    except Exception:  # A user's __eq__, or Decimal's sNaN: cannot tell, so look closely.
        return False


def _complaint(where: str, error: Exception) -> str:
    fault = fault_of(error)
    return f"{where}{fault.path}: {fault}"
