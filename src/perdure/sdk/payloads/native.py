import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from perdure.sdk.payloads.faults import Fault, not_readable, type_name
from perdure.sdk.payloads.models import holds, holds_validated, is_model_type, validate, validate_within
from perdure.sdk.payloads.writing import field_names, write_plain

_T = TypeVar("_T")
_BASES: Final = (str, int, float, list, dict)


def remembered(make: Callable[[Any], _T]) -> Callable[[Any], _T]:
    # The bound is for programs that create types at run time.
    cached = functools.lru_cache(maxsize=4_096)(make)

    def get(type_: Any) -> _T:
        try:
            return cached(type_)
        except TypeError:  # an unhashable hint, such as Annotated with a list
            return make(type_)

    return get


@remembered
def native_reader(type_: Any) -> Callable[[bytes], Any] | None:
    """None if msgspec declines the hint."""
    try:
        read = msgspec.json.Decoder(type_, dec_hook=_read_foreign).decode
    except TypeError:
        return None
    except NameError as error:
        raise Fault("", f"the type hint {type_name(type_)!r} cannot be resolved: {error}") from None
    return functools.partial(_read_and_validate, read) if holds_validated(type_) else read


@remembered
def holds_raw(type_: Any) -> bool:
    return holds(type_, lambda one: one is msgspec.Raw)


def _read_and_validate(read: Callable[[bytes], Any], data: bytes) -> Any:
    value = read(data)
    validate_within(value, field_names)
    return value


def _read_foreign(type_: Any, value: object) -> object:
    if type_ is object:  # as good as Any, and strict type checkers ask for it
        return value
    if is_model_type(type_):
        return validate(type_, write_plain(value))
    if isinstance(type_, type) and any(issubclass(type_, base) and isinstance(value, base) for base in _BASES):
        return type_(value)
    raise Fault("", not_readable(type_))
