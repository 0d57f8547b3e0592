"""A union takes its first member that gives the same JSON back."""

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeVar, Union

import msgspec

from perdure.sdk.payloads.faults import Fault, below, not_readable, to_fault, type_name
from perdure.sdk.payloads.native import native_reader
from perdure.sdk.payloads.writing import field_names, read_plain, write, write_plain


def convert(value: Any, type_: Any, path: str) -> Any:
    native = native_reader(type_)
    if native is not None:
        try:
            return native(write_plain(value))
        except (msgspec.MsgspecError, ValueError) as error:
            fault = to_fault(error)
            raise Fault(path + fault.path, str(fault)) from None
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Annotated or hasattr(type_, "__supertype__") or hasattr(type_, "__value__"):
        return convert(value, _unwrapped(type_), path)
    if origin in (Union, types.UnionType):
        return _convert_union(value, type_, args, path)
    if origin is Literal:
        return _pick(value, args, type_, path)
    cls = origin or type_
    if not isinstance(cls, type):
        raise Fault(path, not_readable(type_))
    if issubclass(cls, enum.Enum):
        return _pick(value, cls, type_, path)
    if issubclass(cls, tuple):
        return _convert_tuple(value, cls, args, path)
    if dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct) or typing.is_typeddict(cls):
        return _convert_record(value, cls, type_, path)
    if issubclass(cls, collections.abc.Mapping):
        key_type, value_type = args or (str, Any)
        return {
            _convert_key(key, key_type, path): convert(item, value_type, below(path, key))
            for key, item in _expect(value, dict, "object", path).items()
        }
    if issubclass(cls, collections.abc.Collection):
        items = _convert_items(_expect(value, list, "array", path), args[0] if args else Any, path)
        if issubclass(cls, collections.abc.Set):
            return frozenset(items) if cls is frozenset else set(items)
        return list(items)
    raise Fault(path, not_readable(type_))


def _convert_union(value: Any, type_: Any, members: tuple[Any, ...], path: str) -> Any:
    fits: list[Any] = []
    faults: list[Fault] = []
    for member in members:
        try:
            candidate = convert(value, member, path)
        except Fault as fault:
            faults.append(fault)
            continue
        if read_plain(write(candidate)) == value:
            return candidate
        fits.append(candidate)
    if fits:
        return fits[0]
    furthest = max(faults, key=lambda fault: len(fault.path))
    raise Fault(furthest.path, f"fits no member of `{type_name(type_)}` ({furthest})")


def _pick(value: Any, members: Any, type_: Any, path: str) -> Any:
    data = write_plain(value)
    for member in members:
        if write(member) == data:
            return member
    raise Fault(path, f"Invalid value {value!r} for `{type_name(type_)}`")


def _convert_key(key: str, type_: Any, path: str) -> Any:
    for member in typing.get_args(type_) if typing.get_origin(type_) in (Union, types.UnionType) else (type_,):
        native = native_reader(types.GenericAlias(dict, (member, None)))
        if native is not None:
            try:
                (converted,) = native(write_plain({key: None}))
            except msgspec.ValidationError:
                continue
            return converted
    raise Fault(below(path, key), f"the key is not `{type_name(type_)}`")


def _convert_items(items: list[Any], type_: Any, path: str) -> Iterator[Any]:
    return (convert(item, type_, below(path, index)) for index, item in enumerate(items))


def _convert_tuple(value: Any, cls: type, args: tuple[Any, ...], path: str) -> Any:
    items = _expect(value, list, "array", path)
    if hasattr(cls, "_fields"):
        hints = typing.get_type_hints(cls, include_extras=True)
        item_types: list[Any] = [hints.get(name, Any) for name in cls._fields][: len(items)]
    elif len(args) == 2 and args[1] is ...:
        item_types = [args[0]] * len(items)
    else:
        item_types = list(args)
    if len(item_types) != len(items):
        raise Fault(path, f"Expected an `array` of length {len(item_types)}, got {len(items)}")
    pairs = zip(items, item_types, strict=True)
    converted = [convert(item, hint, below(path, index)) for index, (item, hint) in enumerate(pairs)]
    return _build(lambda: cls(*converted) if hasattr(cls, "_fields") else tuple(converted), path)


def _convert_record(value: Any, cls: Any, type_: Any, path: str) -> Any:
    """Unknown names are ignored, as in msgspec."""
    given = _expect(value, dict, "object", path)
    hints = _field_hints(cls, type_)
    names = {name: name for name in field_names(cls) or hints}
    if issubclass(cls, msgspec.Struct):
        names = {field.name: field.encode_name for field in msgspec.structs.fields(cls)}
    found = {
        name: convert(given[written], hints[name], below(path, name))
        for name, written in names.items()
        if written in given
    }
    if typing.is_typeddict(cls):
        missing = sorted(cls.__required_keys__ - found.keys())
        if missing:
            raise Fault(path, f"Object missing required field `{missing[0]}`")
        return found
    late = {
        field.name: found.pop(field.name)
        for field in (dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ())
        if not field.init and field.name in found
    }
    record = _build(lambda: cls(**found), path)
    for name, item in late.items():
        object.__setattr__(record, name, item)
    return record


def _field_hints(cls: Any, type_: Any) -> dict[str, Any]:
    """The field hints of Box[int] have int in place of T."""
    hints = typing.get_type_hints(cls, include_extras=True)
    filled = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(type_), strict=False))

    def fill(hint: Any) -> Any:
        if isinstance(hint, TypeVar):
            return filled.get(hint, Any)
        parameters = getattr(hint, "__parameters__", ())
        return hint[tuple(filled.get(parameter, Any) for parameter in parameters)] if parameters else hint

    return {name: fill(_unwrapped(hint)) for name, hint in hints.items()}


def _unwrapped(type_: Any) -> Any:
    if hasattr(type_, "__supertype__"):
        return type_.__supertype__
    if hasattr(type_, "__value__"):
        return type_.__value__
    if typing.get_origin(type_) in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return typing.get_args(type_)[0]
    return type_


def _expect(value: Any, type_: type, name: str, path: str) -> Any:
    if not isinstance(value, type_):
        raise Fault(path, f"Expected `{name}`, got `{_JSON_NAMES.get(type(value), 'null')}`")
    return value


_JSON_NAMES: Final = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}


def _build(make: Callable[[], Any], path: str) -> Any:
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise Fault(path, str(error)) from error
