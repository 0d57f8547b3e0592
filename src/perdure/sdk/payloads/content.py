"""Canonical bytes tell values apart, alike in every process."""

import copyreg
import decimal
import functools
import os
import sys
import types
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import msgspec

_OBJECTS_DEEP: Final = 3
_VALUES_IN_OBJECT: Final = 500
"""Most values read from an object of a class that is not data: a client may hold a whole library."""
_DATA: Final = frozenset(
    {
        *("array", "builtins", "collections", "datetime", "decimal", "enum", "fractions", "ipaddress"),
        *("pathlib", "re", "types", "uuid", "zoneinfo"),
    }
)
_DATA_MARKS: Final = ("__dataclass_fields__", "__struct_fields__", "__pydantic_fields__", "__attrs_attrs__")
_NAMED: Final = types.BuiltinFunctionType | type | types.ModuleType
_PLAIN: Final = frozenset({type(None), bool, int, float, complex})
_SMALL: Final = 16
_LARGE: Final = frozenset({list, tuple, dict})

encode_arguments: Final = msgspec.json.Encoder(order="deterministic").encode
"""The order is fixed, because sets of strings iterate differently in each process."""
_decode: Final = msgspec.json.Decoder().decode


def to_plain(value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> bytes | None:
    """The JSON of a value that survives JSON unchanged, apart from an outer tuple."""
    try:
        data = encode_arguments(value)
        return data if _decode(data) == (list(value) if type(value) is tuple else value) else None
    except Exception:  # unknown to msgspec, or user code raises
        return None


class Content:
    """Reads values. `opaque` lists the objects without content, such as a socket or a lock. `is_data` says that the
    content is complete: no functions and no objects of a class with its own behavior."""

    __slots__ = ("_left", "_objects", "_open", "is_data", "opaque")

    def __init__(self) -> None:
        self.opaque: list[object] = []
        self.is_data = True
        self._open: set[int] = set()
        self._objects = 0
        self._left = _VALUES_IN_OBJECT

    def read(self, value: Any) -> bytes:
        kind: type = type(value)
        if kind in _PLAIN:
            return repr(value).encode()
        if type(value) is str:
            return b"'" + value.encode("utf-8", "surrogatepass")
        if kind is bytes or kind is bytearray:
            return b"b" + bytes(value)
        if id(value) in self._open:
            return b"^"  # a cycle
        if self._objects:
            self._left -= 1
            if self._left < 0:
                return self._leave_out(value)
        self._open.add(id(value))
        try:
            return self._compound(value, kind)
        except Exception:  # it cannot be copied, or user code raises
            return self._leave_out(value)
        finally:
            self._open.discard(id(value))

    def _leave_out(self, value: object) -> bytes:
        self.opaque.append(value)
        return b"?"

    def _compound(self, value: Any, kind: type) -> bytes:
        if kind in _LARGE and len(value) > _SMALL and (data := to_plain(value)) is not None:
            return pack(kind.__name__, [data])
        if kind is list or kind is tuple:
            return pack(kind.__name__, map(self.read, value))
        if isinstance(value, set | frozenset):
            self.is_data = self.is_data and kind.__module__ in _DATA
            return pack(_name(kind), sorted(map(self.read, value)))
        if kind is dict:
            return pack("dict", sorted(pack("", (self.read(key), self.read(one))) for key, one in value.items()))
        if isinstance(value, Enum):
            return pack(_name(kind), [self.read(value._value_)])
        if isinstance(value, os.PathLike):
            return pack(_name(kind), [self.read(os.fspath(value))])
        if isinstance(value, decimal.Context):  # its flags and traps come and go
            return pack("decimal", [self.read((value.prec, value.rounding))])
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return pack("method", [self.read(value.__func__), self.read(value.__self__)])
        if isinstance(value, functools.partial):
            return pack("partial", map(self.read, (value.func, value.args, value.keywords)))
        if isinstance(value, types.CellType):
            return self.read(value.cell_contents)
        if isinstance(value, types.CodeType):
            return pack("code", map(self.read, (value.co_code, value.co_names, value.co_consts)))
        if isinstance(value, _NAMED) and isinstance(getattr(value, "__self__", sys), types.ModuleType):
            return _name(value).encode()
        if kind.__module__ == "perdure.sdk.workflows.context":
            return b"ctx"  # an execution has one
        if hasattr(value, "__next__"):
            return self._leave_out(value)
        return self._object(value, kind)

    def _object(self, value: Any, kind: type) -> bytes:
        is_data = kind.__module__ in _DATA or any(hasattr(kind, mark) for mark in _DATA_MARKS)
        if not is_data:
            self.is_data = False
            if self._objects == _OBJECTS_DEEP:
                return self._leave_out(value)
            self._objects += 1
        try:
            copied = copyreg.dispatch_table.get(kind)
            reduced = value.__reduce_ex__(4) if copied is None else copied(value)  # the parts of a copy
            if isinstance(reduced, str):
                return pack(_name(kind), [reduced.encode()])
            make, args, *rest = reduced
            items = [None if one is None else list(one) for one in rest[1:3]]
            pairs = dict(items[1]) if len(items) == 2 and items[1] else None
            return pack(_name(kind), map(self.read, (make, args, *rest[:1], *items[:1], pairs)))
        finally:
            self._objects -= not is_data

    def _function(self, function: types.FunctionType) -> bytes:
        if is_named(function):
            return _name(function).encode()
        self.is_data = False
        captured = (function.__defaults__, function.__kwdefaults__, function.__closure__)
        return pack(_name(function), map(self.read, (function.__code__, *captured)))


def is_named(function: types.FunctionType) -> bool:
    """Whether the name is unique: neither a lambda's nor of a function made in a function."""
    return "<" not in function.__qualname__


def pack(name: str, parts: Iterable[bytes]) -> bytes:
    return name.encode("utf-8", "surrogatepass") + b"".join(b"(%d:%b" % (len(part), part) for part in parts)


def _name(what: Any) -> str:
    module = f"{getattr(what, '__module__', '')}"
    if module.startswith("perdure."):  # a module that moves to another room changes no fingerprint
        parts = module.split(".")
        module = ".".join(parts[:2] + parts[2:][-1:])
    return f"{module}.{getattr(what, '__qualname__', None) or what.__name__}"
