"""User values ↔ JSON by type hints; data never names code.

A value is written without tags: what it becomes on the way back is decided by the type hint of whoever reads it, so
bytes are base64, tuples and sets are arrays, a dataclass is an object. Without a hint (or with `Any`) values come back
as plain JSON: a tuple or a set as a list, a dataclass or a pydantic model as a dict, a datetime, UUID, Decimal or bytes
as a string, an enum as its value. Dictionaries keep their int, enum, UUID or date keys where the hint says so, and are
refused elsewhere, because `{1: "a"}` would silently come back as `{"1": "a"}`.

msgspec does the work, pydantic its own models. `encode` reads back what it wrote and compares: equal means that nothing
was lost, which costs less than walking the value (msgspec writes NaN as null without a word). Only when they differ is
the value walked, to find out whether that matters and where. Reading back also shows at once a result that does not fit
its own hint, which a replay would stumble over much later.

A hint that msgspec declines, such as a union of two dataclasses, is read by `_convert`, member by member: the first
that gives the same JSON back is taken.
"""

import collections.abc
import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import math
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeVar, Union
from uuid import UUID

import msgspec

from perdure.wire.codec import (
    DEPTH_MAX,
    ERROR_BYTES_MAX,
    INTEGER_DIGITS_MAX,
    NAME_BYTES_MAX,
    check_json,
    check_limits,
    scrub_text,
    split_path,
)
from perdure.wire.errors import BadValue

DETAIL_BYTES_MAX: Final = 16 << 10

_T = TypeVar("_T")


def encode(value: object, type_: Any = Any, *, where: str = "value") -> bytes:
    """`value` as JSON that `decode` with the same `type_` reads back; `BadValue` with the path if there is none.

    >>> encode({"id": 7, "tags": ["new"]}, where="input")
    b'{"id":7,"tags":["new"]}'
    >>> encode({"items": [{"price": float("nan")}]}, where="input")
    Traceback (most recent call last):
    perdure.wire.errors.BadValue: input.items[0].price: nan is not JSON; only finite numbers are
    """
    reader = _reader(type_, where)
    try:
        data = _encode(value)
    except Exception as error:  # A model's serializers are user code and may raise anything.
        _refuse(value, value, where)
        raise BadValue(f"{where}: {error}") from error
    if len(data) > 2 * DEPTH_MAX:
        try:
            check_limits(data, where=where)
        except BadValue:
            _refuse(value, value, where)
            raise
    try:
        twin = reader.read(data)
    except Exception as error:  # A type's __post_init__ and validators are user code and may raise anything.
        _refuse(value, value, where)
        raise BadValue(_complaint(where, error)) from error
    same = _equal(twin, value)
    if same and (reader.is_plain or _is_finite(value, data)):
        return data
    _refuse(value, value if same else twin, where)
    if reader.guesses and not same:
        raise BadValue(f"{where}: would come back as another member of `{_name(type_)}`, which JSON cannot tell apart")
    return data


def decode(data: bytes, type_: Any = Any, *, where: str = "value") -> Any:
    """The value that `data` holds for a reader whose type hint is `type_`; `BadValue` with the path if it does not fit.

    >>> decode(b'{"2026-11-25":["YQ=="]}', dict[date, list[bytes]], where="result")
    {datetime.date(2026, 11, 25): [b'a']}
    """
    reader = _reader(type_, where)
    try:
        return reader.read(data)
    except Exception as error:  # As above: user code may raise anything.
        raise BadValue(_complaint(where, error)) from error


def fingerprint(data: bytes) -> str:
    """A short stable hash: tells whether a step was called with the same input as in the journal."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


class ErrorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as it is recorded: words only, so reading it can never run code."""

    type: str
    message: str
    detail: str | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def error_to_json(error: BaseException, *, with_detail: bool = True) -> bytes:
    """`error` as recordable JSON, whatever it is: never raises. `detail` is its traceback, cut to 16 KiB."""
    message = _guarded(lambda: str(error), "(the error's text could not be read)")
    detail = _guarded(lambda: "".join(traceback.format_exception(error, limit=-20)), None) if with_detail else None
    record = ErrorRecord(
        type=scrub_text(type(error).__name__, NAME_BYTES_MAX),
        message=scrub_text(message, ERROR_BYTES_MAX),
        detail=None if detail is None else scrub_text(detail, DETAIL_BYTES_MAX),
    )
    return msgspec.json.encode(record)


def error_from_json(data: bytes) -> ErrorRecord:
    """The reverse of `error_to_json`; what another client recorded in a shape of its own is shown as its message."""
    try:
        return msgspec.json.decode(data, type=ErrorRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ErrorRecord(type="Error", message=scrub_text(data.decode("utf-8", "replace"), ERROR_BYTES_MAX))


class Hints(NamedTuple):
    """What a function takes and gives; `Any` where it does not say."""

    input: Any
    result: Any
    takes_input: bool


def hints_of(fn: Callable[..., Any], *, context: bool = True) -> Hints:
    """The type hints of the input and the result of a workflow, `async def f(ctx, input)`.

    The input is the second parameter, or the first with `context=False`. Only these two annotations are resolved, so a
    Context that is imported under TYPE_CHECKING does no harm. `TypeError` names an annotation that cannot be resolved.
    """
    signature = inspect.signature(fn)
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    inputs = positional[1 if context else 0 :]
    hint = _resolve(fn, f"parameter {inputs[0].name!r}", inputs[0].annotation) if inputs else Any
    result = _resolve(fn, "the result", signature.return_annotation)
    if not inspect.iscoroutinefunction(fn) and typing.get_origin(result) in _AWAITABLES:
        result = typing.get_args(result)[-1]
    return Hints(input=hint, result=result, takes_input=bool(inputs))


class _Fault(ValueError):
    """What is wrong with a value, and where in it. A ValueError, so that msgspec adds the path of a hook to it."""

    def __init__(self, path: str, complaint: str) -> None:
        super().__init__(complaint)
        self.path = path


class _Reader(NamedTuple):
    read: Callable[[bytes], Any]
    is_plain: bool = False
    # More than one type of the hint may fit the same JSON.
    guesses: bool = False


def _encode_foreign(value: Any) -> object:
    """What msgspec asks for when it does not know the type of `value`."""
    if _is_model_type(type(value)):
        return msgspec.Raw(value.model_dump_json(by_alias=False, round_trip=True).encode())
    return _dump_foreign(value)


def _dump_foreign(value: Any) -> object:
    if _is_model_type(type(value)):
        return value.model_dump(mode="json", by_alias=False, round_trip=True)
    # Subclasses: the methods of the base give the bare value, whatever the class makes of them.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(_not_json(value))


def _decode_foreign(type_: Any, value: object) -> object:
    """What msgspec asks for when a hint names a type that it does not know."""
    if type_ is object:  # as good as Any, and what strict type checkers ask people to write
        return value
    if _is_model_type(type_):
        return _validate(type_, _encode_plain(value))
    if isinstance(type_, type) and any(issubclass(type_, base) and isinstance(value, base) for base in _BASES):
        return type_(value)
    raise _Fault("", _not_readable(type_))


_BASES: Final = (str, int, float, list, dict)
_encode = msgspec.json.Encoder(enc_hook=_encode_foreign).encode
_encode_plain = msgspec.json.Encoder().encode
_decode_plain = msgspec.json.Decoder().decode
_PLAIN: Final = _Reader(_decode_plain, is_plain=True)


def _reader(type_: Any, where: str) -> _Reader:
    if type_ is Any:
        return _PLAIN
    try:
        return _make_reader(type_)
    except _Fault as fault:
        raise BadValue(f"{where}: {fault}") from None


def _remembered(make: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """`make`, asked once for each type hint."""
    # Hints come from code, so they are few; the bound is for programs that make types as they go.
    cached = functools.lru_cache(maxsize=4_096)(make)

    def get(type_: Any) -> _T:
        try:
            return cached(type_)
        except TypeError:  # An unhashable hint, such as Annotated with a list in it.
            return make(type_)

    return get


@_remembered
def _make_reader(type_: Any) -> _Reader:
    if type_ in (object, inspect.Parameter.empty):
        return _PLAIN
    if _is_model_type(type_):
        return _Reader(functools.partial(_validate, type_))
    native = _native(type_)
    if native is not None:
        return _Reader(native)
    return _Reader(lambda data: _convert(_decode_plain(data), type_, ""), guesses=True)


@_remembered
def _native(type_: Any) -> Callable[[bytes], Any] | None:
    """msgspec's decoder for `type_`, or None if it declines the hint."""
    try:
        return msgspec.json.Decoder(type_, dec_hook=_decode_foreign).decode
    except TypeError:
        return None
    except NameError as error:
        raise _Fault("", f"the type hint {_name(type_)!r} cannot be resolved: {error}") from None


def _is_finite(value: object, data: bytes) -> bool:
    """Whether `value`, which was written as `data`, surely holds no NaN or infinity.

    Its type has called it equal to what was read back, but a type may leave a field out of that comparison.
    """
    if b"NaN" in data or b"Infinity" in data:  # As a string, by Decimal and pydantic.
        return False
    if b"null" not in data:
        return True
    try:
        return bool(msgspec.to_builtins(value, str_keys=True, enc_hook=_dump_foreign) == _decode_plain(data))
    except Exception:  # As in `encode`; look closely.
        return False


def _equal(twin: object, value: object) -> bool:
    try:
        return bool(twin == value)
    except Exception:  # A user's __eq__, or Decimal's sNaN: cannot tell, so look closely.
        return False


def _complaint(where: str, error: Exception) -> str:
    fault = _fault(error)
    return f"{where}{fault.path}: {fault}"


def _fault(error: Exception) -> _Fault:
    """What a reader raised, as a path below the value and words."""
    if isinstance(error, _Fault):
        return error
    if isinstance(error, RecursionError):
        return _Fault("", f"nested deeper than {DEPTH_MAX} levels")
    if isinstance(error, msgspec.MsgspecError | ValueError):
        path, complaint = split_path(str(error))
        inner = error.__cause__.path if isinstance(error.__cause__, _Fault) else ""
        return _Fault(path + inner, complaint)
    return _Fault("", f"{type(error).__name__}: {error}")


# --- pydantic, if the user has it ------------------------------------------------------------------------------------


def _is_model_type(type_: object) -> bool:
    # Whoever has a model has imported pydantic; nobody else should pay for that import.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)


def _validate(model: Any, data: bytes) -> Any:
    """Our own JSON has field names; another client's may have aliases, so both are read."""
    try:
        return model.model_validate_json(data, by_alias=True, by_name=True)
    except TypeError:
        version: str = sys.modules["pydantic"].VERSION
        if tuple(map(int, version.split(".")[:2])) < (2, 11):
            raise _Fault("", f"models need pydantic 2.11 or later; this is {version}") from None
        raise
    except ValueError as error:
        list_errors = getattr(error, "errors", None)
        if list_errors is None:
            raise
        first = list_errors(include_url=False, include_context=False, include_input=False)[0]
        raise _Fault(functools.reduce(_below, first["loc"], ""), first["msg"]) from None


# --- the slow way in: hints that msgspec declines --------------------------------------------------------------------


def _convert(value: Any, type_: Any, path: str) -> Any:
    """Plain JSON `value` as `type_`; `_Fault` if it does not fit."""
    native = _native(type_)
    if native is not None:
        try:
            return native(_encode_plain(value))
        except (msgspec.MsgspecError, ValueError) as error:
            fault = _fault(error)
            raise _Fault(path + fault.path, str(fault)) from None
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Annotated or hasattr(type_, "__supertype__") or hasattr(type_, "__value__"):
        return _convert(value, _unwrapped(type_), path)
    if origin in (Union, types.UnionType):
        return _convert_union(value, type_, args, path)
    if origin is Literal:
        return _pick(value, args, type_, path)
    cls = origin or type_
    if not isinstance(cls, type):
        raise _Fault(path, _not_readable(type_))
    if issubclass(cls, enum.Enum):
        return _pick(value, cls, type_, path)
    if issubclass(cls, tuple):
        return _convert_tuple(value, cls, args, type_, path)
    if dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct) or typing.is_typeddict(cls):
        return _convert_record(value, cls, type_, path)
    if issubclass(cls, collections.abc.Mapping):
        key_type, value_type = args or (str, Any)
        return {
            _convert_key(key, key_type, path): _convert(item, value_type, _below(path, key))
            for key, item in _expect(value, dict, "object", path).items()
        }
    if issubclass(cls, collections.abc.Collection):
        items = _convert_items(_expect(value, list, "array", path), args[0] if args else Any, path)
        if issubclass(cls, collections.abc.Set):
            return frozenset(items) if cls is frozenset else set(items)
        return list(items)
    raise _Fault(path, _not_readable(type_))


def _convert_union(value: Any, type_: Any, members: tuple[Any, ...], path: str) -> Any:
    fits: list[Any] = []
    faults: list[_Fault] = []
    for member in members:
        try:
            candidate = _convert(value, member, path)
        except _Fault as fault:
            faults.append(fault)
            continue
        if _decode_plain(_encode(candidate)) == value:
            return candidate
        fits.append(candidate)
    if fits:
        return fits[0]
    # Whoever got furthest knows best what is wrong.
    furthest = max(faults, key=lambda fault: len(fault.path))
    raise _Fault(furthest.path, f"fits no member of `{_name(type_)}` ({furthest})")


def _pick(value: Any, members: Any, type_: Any, path: str) -> Any:
    """The member of an enum or a Literal that is written as `value`."""
    data = _encode_plain(value)
    for member in members:
        if _encode(member) == data:
            return member
    raise _Fault(path, f"Invalid value {value!r} for `{_name(type_)}`")


def _convert_key(key: str, type_: Any, path: str) -> Any:
    for member in typing.get_args(type_) if typing.get_origin(type_) in (Union, types.UnionType) else (type_,):
        native = _native(types.GenericAlias(dict, (member, None)))
        if native is not None:
            try:
                (converted,) = native(_encode_plain({key: None}))
            except msgspec.ValidationError:
                continue
            return converted
    raise _Fault(_below(path, key), f"the key is not `{_name(type_)}`")


def _convert_items(items: list[Any], type_: Any, path: str) -> Iterator[Any]:
    return (_convert(item, type_, _below(path, index)) for index, item in enumerate(items))


def _convert_tuple(value: Any, cls: type, args: tuple[Any, ...], type_: Any, path: str) -> Any:
    items = _expect(value, list, "array", path)
    if hasattr(cls, "_fields"):
        hints = typing.get_type_hints(cls, include_extras=True)
        item_types: list[Any] = [hints.get(name, Any) for name in cls._fields][: len(items)]
    elif len(args) == 2 and args[1] is ...:
        item_types = [args[0]] * len(items)
    else:
        item_types = list(args)
    if len(item_types) != len(items):
        raise _Fault(path, f"Expected an `array` of length {len(item_types)}, got {len(items)}")
    pairs = zip(items, item_types, strict=True)
    converted = [_convert(item, hint, _below(path, index)) for index, (item, hint) in enumerate(pairs)]
    return _build(lambda: cls(*converted) if hasattr(cls, "_fields") else tuple(converted), path)


def _convert_record(value: Any, cls: Any, type_: Any, path: str) -> Any:
    """A dataclass, Struct or TypedDict from an object; unknown names are ignored, as msgspec does."""
    given = _expect(value, dict, "object", path)
    hints = _field_hints(cls, type_)
    names = {name: name for name in _field_names(cls) or hints}
    if issubclass(cls, msgspec.Struct):
        names = {field.name: field.encode_name for field in msgspec.structs.fields(cls)}
    found = {
        name: _convert(given[written], hints[name], _below(path, name))
        for name, written in names.items()
        if written in given
    }
    if typing.is_typeddict(cls):
        missing = sorted(cls.__required_keys__ - found.keys())
        if missing:
            raise _Fault(path, f"Object missing required field `{missing[0]}`")
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
    """The hints of a class, with the parameters of a generic filled in: T of Box[T] is int for Box[int]."""
    hints = typing.get_type_hints(cls, include_extras=True)
    filled = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(type_), strict=False))

    def fill(hint: Any) -> Any:
        if isinstance(hint, TypeVar):
            return filled.get(hint, Any)
        parameters = getattr(hint, "__parameters__", ())
        return hint[tuple(filled.get(parameter, Any) for parameter in parameters)] if parameters else hint

    return {name: fill(_unwrapped(hint)) for name, hint in hints.items()}


def _unwrapped(type_: Any) -> Any:
    """`type_` without NewType, `type X = …` and Annotated, Required, NotRequired, Final around it."""
    if hasattr(type_, "__supertype__"):
        return type_.__supertype__
    if hasattr(type_, "__value__"):
        return type_.__value__
    if typing.get_origin(type_) in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return typing.get_args(type_)[0]
    return type_


def _expect(value: Any, type_: type, name: str, path: str) -> Any:
    if not isinstance(value, type_):
        raise _Fault(path, f"Expected `{name}`, got `{_JSON_NAMES.get(type(value), 'null')}`")
    return value


def _build(make: Callable[[], Any], path: str) -> Any:
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise _Fault(path, str(error)) from error


# --- the slow way out: where in a value is the fault? ----------------------------------------------------------------


def _refuse(value: object, twin: object, where: str) -> None:
    """Raise `BadValue` with the path of the first part of `value` that JSON cannot hold; return if there is none."""
    try:
        _inspect(value, twin, ())
    except _Fault as fault:
        raise BadValue(f"{where}{fault.path}: {fault}") from None


def _inspect(value: Any, twin: Any, around: tuple[int, ...]) -> None:
    """Walk `value` beside its `twin`, what a reader gets; `around` are the ids of the containers it lies in."""
    if value is None or isinstance(value, bool | bytes | bytearray | memoryview):
        return
    if isinstance(value, enum.Enum):
        _inspect(value.value, None, around)
    elif isinstance(value, str):
        _inspect_text(value)
    elif isinstance(value, int):
        if abs(value) >= _INTEGER_LIMIT:
            raise _Fault("", f"an integer of more than {INTEGER_DIGITS_MAX:,} digits; send it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Fault("", f"{float(value)!r} is not JSON; only finite numbers are")
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise _Fault("", f"Decimal {value} is not JSON; only finite numbers are")
    elif isinstance(value, datetime | time):
        offset = value.utcoffset()
        if offset is not None and offset.total_seconds() % 60:
            raise _Fault("", f"the UTC offset {offset} is not in whole minutes, and would be written as if it were")
    elif id(value) in around:
        raise _Fault("", f"this `{type(value).__name__}` contains itself")
    elif len(around) == DEPTH_MAX and not isinstance(value, date | timedelta | UUID):
        raise _Fault("", f"nested deeper than {DEPTH_MAX} levels")
    elif _is_model_type(type(value)):
        _inspect_model(value, around)
    elif isinstance(value, msgspec.Raw):
        _inspect_raw(value, around)
    else:
        _inspect_parts(value, twin, (*around, id(value)))


def _inspect_parts(value: Any, twin: Any, around: tuple[int, ...]) -> None:
    for name, part, part_twin in _parts(value, twin):
        if type(part) is str and part.isprintable():  # The usual case, for speed.
            continue
        try:
            _inspect(part, part_twin, around)
        except _Fault as fault:
            # The path grows on the way out, so that a value without a fault pays nothing for it.
            fault.path = _below("", name) + fault.path
            raise


def _parts(value: Any, twin: Any) -> Iterator[tuple[object, Any, Any]]:
    """What lies directly in `value`: name or index, part, and the part's twin where there is one."""
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
        names = _field_names(cls)
        if names is None and not isinstance(value, date | timedelta | UUID):
            raise _Fault("", _not_json(value))
        for name in names or ():
            part = getattr(value, name, msgspec.UNSET)
            if part is not msgspec.UNSET:
                yield name, part, getattr(twin, name, None)


@functools.lru_cache(maxsize=4_096)
def _field_names(cls: Any) -> tuple[str, ...] | None:
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    attributes = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else tuple(attribute.name for attribute in attributes)


def _inspect_key(key: object, twins: dict[Any, Any]) -> None:
    if isinstance(key, str):
        _inspect_text(key)
    elif isinstance(key, float) and not math.isfinite(key):
        raise _Fault("", f"the key {key!r} is not JSON; only finite numbers are")
    elif key not in twins or not isinstance(key, _KEYS):
        name = type(key).__name__
        raise _Fault(
            "",
            f"the key {key!r} is `{name}`, but JSON keys are strings; "
            f"use strings, or give the dict a type hint that says so, such as dict[{name}, …]",
        )


def _inspect_text(value: str) -> None:
    if not value.isprintable():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _Fault("", f"holds a lone surrogate {value[error.start]!r} (at position {error.start})") from None


def _inspect_raw(value: msgspec.Raw, around: tuple[int, ...]) -> None:
    try:
        check_json(memoryview(value), where="raw JSON", max_depth=DEPTH_MAX - len(around))
    except BadValue as error:
        raise _Fault("", error.message) from None


def _inspect_model(value: Any, around: tuple[int, ...]) -> None:
    for path in _secrets(value, ""):
        raise _Fault(path, "a secret is recorded as asterisks; pass a reference to it, such as its name")
    try:
        dumped = value.model_dump(mode="json", by_alias=False, round_trip=True)
    except Exception as error:  # Serializers are user code and may raise anything.
        for name in type(value).model_fields:
            try:
                value.model_dump(mode="json", by_alias=False, round_trip=True, include={name})
            except Exception as field_error:
                raise _Fault(_below("", name), str(field_error)) from None
        raise _Fault("", str(error)) from None
    _inspect(dumped, dumped, around)


def _secrets(value: Any, path: str) -> Iterator[str]:
    """Where pydantic's SecretStr and the like lie in a model."""
    if hasattr(value, "get_secret_value"):
        yield path
    elif _is_model_type(type(value)):
        for name, part in value.__dict__.items():
            yield from _secrets(part, _below(path, name))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _secrets(part, _below(path, index))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _secrets(part, _below(path, key))


def _below(path: str, name: object) -> str:
    if isinstance(name, str) and name.isidentifier():
        return f"{path}.{name}"
    shown = repr(name)
    return f"{path}[{shown if len(shown) <= 64 else shown[:64] + '…'}]"


def _not_json(value: object) -> str:
    return (
        f"a `{type(value).__name__}` is not JSON; use plain values, a dataclass, a msgspec Struct or a pydantic model"
    )


def _not_readable(type_: Any) -> str:
    return f"the type hint `{_name(type_)}` is not one that JSON can be read into"


def _name(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) and not typing.get_args(type_) else str(type_)


# --- errors and hints ------------------------------------------------------------------------------------------------


def _guarded(read: Callable[[], str], otherwise: _T) -> str | _T:
    try:
        return read()
    except Exception:  # A user's __str__ may raise anything; the error must be recorded all the same.
        return otherwise


def _function(fn: Any) -> Any:
    """The function behind decorators, partials, methods and objects with __call__: it knows its names."""
    fn = inspect.unwrap(fn)
    if isinstance(fn, functools.partial):
        return _function(fn.func)
    if inspect.ismethod(fn):
        return _function(fn.__func__)
    return fn if hasattr(fn, "__qualname__") else _function(type(fn).__call__)


def _resolve(fn: Callable[..., Any], place: str, annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    function = _function(fn)
    names = {parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
        with contextlib.suppress(ValueError):  # Not assigned yet.
            names[name] = cell.cell_contents

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), names, include_extras=True)["it"]
    except Exception as error:  # Evaluating an annotation may raise anything.
        raise TypeError(
            f"The type hint {annotation!r} of {place} of {function.__qualname__}() cannot be resolved: {error}. "
            "Values are read by their type hints, so the types must be there at run time, in the function's own module "
            "(not only under TYPE_CHECKING, nor inside another function)."
        ) from None


# What msgspec can write as a key of an object, beside strings.
_KEYS: Final = (int, float, Decimal, enum.Enum, UUID, date, time, timedelta, bytes)
_AWAITABLES: Final = (collections.abc.Coroutine, collections.abc.Awaitable)
_INTEGER_LIMIT: Final = 10**INTEGER_DIGITS_MAX
_JSON_NAMES: Final = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}
