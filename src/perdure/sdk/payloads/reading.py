import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from perdure.sdk.payloads.conversion import convert
from perdure.sdk.payloads.faults import Fault
from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.payloads.models import is_model_type, validate
from perdure.sdk.payloads.native import native_reader, remembered
from perdure.sdk.payloads.writing import read_plain
from perdure.wire.errors import BadValue


class Reader(NamedTuple):
    read: Callable[[bytes], Any]
    is_plain: bool = False
    # More than one type of the hint may fit the same JSON.
    guesses: bool = False


_PLAIN: Final = Reader(read_plain, is_plain=True)


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
        return Reader(functools.partial(validate, type_))
    native = native_reader(type_)
    if native is not None:
        return Reader(native)
    return Reader(lambda data: convert(read_plain(data), type_, ""), guesses=True)
