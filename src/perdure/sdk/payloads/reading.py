import functools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from perdure.sdk.payloads.conversion import convert
from perdure.sdk.payloads.faults import Fault
from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.payloads.models import is_model_type, validate
from perdure.sdk.payloads.native import native_reader, remembered
from perdure.sdk.payloads.writing import read_plain
from perdure.wire.base.errors import BadValue

Reader: TypeAlias = tuple[Callable[[bytes], Any], bool]
"""A decoder, and true if several types of the hint may fit the same JSON."""

_PLAIN: Final[Reader] = read_plain, False


def reader_for(type_: Any, where: str) -> Reader:
    if type_ is Any or type(type_) is Unannotated:
        return _PLAIN
    try:
        return _make_reader(type_)
    except Fault as fault:
        raise BadValue(f"{where}: {fault}") from None


@remembered
def _make_reader(type_: Any) -> Reader:
    if type_ is object:
        return _PLAIN
    if is_model_type(type_):
        return functools.partial(validate, type_), False
    native = native_reader(type_)
    if native is not None:
        return native, False
    return lambda data: convert(read_plain(data), type_, ""), True
