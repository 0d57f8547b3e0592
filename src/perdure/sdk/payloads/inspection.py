import enum
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from perdure.sdk.payloads.faults import Fault, below, not_json
from perdure.sdk.payloads.models import is_model_type, secrets_in
from perdure.sdk.payloads.writing import field_names
from perdure.wire.base.codec import INTEGER_DIGITS_MAX, check_json
from perdure.wire.base.errors import BadValue
from perdure.wire.base.limits import DEPTH_MAX

# Keys that msgspec can write, besides strings.
_KEYS: Final = (int, float, Decimal, enum.Enum, UUID, date, time, timedelta, bytes)
_INTEGER_LIMIT: Final = 10**INTEGER_DIGITS_MAX


def refuse(value: object, twin: object, where: str) -> None:
    try:
        _inspect(value, twin, ())
    except Fault as fault:
        raise BadValue(f"{where}{fault.path}: {fault}") from None


def _inspect(value: Any, twin: Any, around: tuple[int, ...]) -> None:
    """`twin` is the value read back, `around` the ids of the enclosing containers."""
    if value is None or isinstance(value, bool | bytes | bytearray | memoryview):
        return
    if isinstance(value, enum.Enum):
        _inspect(value.value, None, around)
    elif isinstance(value, str):
        _inspect_text(value)
    elif isinstance(value, int):
        if abs(value) >= _INTEGER_LIMIT:
            raise Fault("", f"an integer of more than {INTEGER_DIGITS_MAX:,} digits; send it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Fault("", f"{float(value)!r} is not JSON; only finite numbers are")
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise Fault("", f"Decimal {value} is not JSON; only finite numbers are")
    elif isinstance(value, datetime | time):
        offset = value.utcoffset()
        if offset is not None and offset.total_seconds() % 60:
            raise Fault("", f"the UTC offset {offset} is not in whole minutes, and would be written as if it were")
    elif id(value) in around:
        raise Fault("", f"this `{type(value).__name__}` contains itself")
    elif len(around) == DEPTH_MAX and not isinstance(value, date | timedelta | UUID):
        raise Fault("", f"nested deeper than {DEPTH_MAX} levels")
    elif is_model_type(type(value)):
        _inspect_model(value, around)
    elif isinstance(value, msgspec.Raw):
        _inspect_raw(value, around)
    else:
        _inspect_parts(value, twin, (*around, id(value)))


def _inspect_parts(value: Any, twin: Any, around: tuple[int, ...]) -> None:
    for name, part, part_twin in _parts(value, twin):
        if type(part) is str and part.isprintable():  # the usual case, for speed
            continue
        try:
            _inspect(part, part_twin, around)
        except Fault as fault:
            # The path grows on the way out.
            fault.path = below("", name) + fault.path
            raise


def _parts(value: Any, twin: Any) -> Iterator[tuple[object, Any, Any]]:
    if isinstance(value, dict):
        twins = twin if isinstance(twin, dict) else {}
        for key, part in value.items():
            _inspect_key(key, twins)
            yield key, part, twins.get(key)
    elif isinstance(value, list | tuple):
        paired = isinstance(twin, list | tuple) and len(twin) == len(value)
        for index, part in enumerate(value):
            yield index, part, twin[index] if paired else None
    elif isinstance(value, set | frozenset):
        for index, part in enumerate(value):
            yield index, part, None
    else:
        cls: Any = type(value)  # mypy does not take `type` for hashable
        names = field_names(cls)
        if names is None and not isinstance(value, date | timedelta | UUID):
            raise Fault("", not_json(value))
        for name in names or ():
            part = getattr(value, name, msgspec.UNSET)
            if part is not msgspec.UNSET:
                yield name, part, getattr(twin, name, None)


def _inspect_key(key: object, twins: dict[Any, Any]) -> None:
    if isinstance(key, str):
        _inspect_text(key)
    elif isinstance(key, float) and not math.isfinite(key):
        raise Fault("", f"the key {key!r} is not JSON; only finite numbers are")
    elif key not in twins or not isinstance(key, _KEYS):
        name = type(key).__name__
        raise Fault(
            "",
            f"the key {key!r} is `{name}`, but JSON keys are strings; "
            f"use strings, or give the dict a type hint that says so, such as dict[{name}, …]",
        )


def _inspect_text(value: str) -> None:
    if not value.isprintable():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Fault("", f"holds a lone surrogate {value[error.start]!r} (at position {error.start})") from None


def _inspect_raw(value: msgspec.Raw, around: tuple[int, ...]) -> None:
    try:
        check_json(memoryview(value), where="raw JSON", max_depth=DEPTH_MAX - len(around))
    except BadValue as error:
        raise Fault("", error.message) from None


def _inspect_model(value: Any, around: tuple[int, ...]) -> None:
    for path in secrets_in(value, ""):
        raise Fault(path, "a secret is recorded as asterisks; pass a reference to it, such as its name")
    try:
        dumped = value.model_dump(mode="json", by_alias=False, round_trip=True)
    except Exception as error:  # serializers may raise anything
        for name in type(value).model_fields:
            try:
                value.model_dump(mode="json", by_alias=False, round_trip=True, include={name})
            except Exception as field_error:
                raise Fault(below("", name), str(field_error)) from None
        raise Fault("", str(error)) from None
    _inspect(dumped, dumped, around)
