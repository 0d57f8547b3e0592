import contextlib
import dataclasses
import functools
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

from perdure.sdk.payloads.faults import Fault, below

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


def is_model_type(type_: object) -> bool:
    # Only a user with models has imported pydantic, and the import is slow.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)


def validate(model: Any, data: bytes) -> Any:
    """Accepts field names, as in our JSON, and aliases, which another client may send."""
    return _validated(lambda: model.model_validate_json(data, by_alias=True, by_name=True))


def is_validated_dataclass(type_: object) -> bool:
    """msgspec treats a pydantic dataclass like any other."""
    return isinstance(type_, type) and "__is_pydantic_dataclass__" in vars(type_) and dataclasses.is_dataclass(type_)


def holds_validated(type_: Any) -> bool:
    return "pydantic" in sys.modules and holds(type_, is_validated_dataclass)


def holds(type_: Any, test: Callable[[Any], bool], seen: dict[int, Any] | None = None) -> bool:
    """Whether the test is true for a part of a hint, outside models."""
    seen = {} if seen is None else seen
    if id(type_) in seen or is_model_type(type_):
        return False
    seen[id(type_)] = type_  # hints may be made on demand, and compare in ways of their own
    if test(type_):
        return True
    within = [*typing.get_args(type_), typing.get_origin(type_), getattr(type_, "__supertype__", None)]
    with contextlib.suppress(Exception):  # may raise anything; msgspec reports it
        within.append(getattr(type_, "__value__", None))
        if isinstance(type_, type):
            within += typing.get_type_hints(type_, include_extras=True).values()
    return any(holds(one, test, seen) for one in within if one is not None)


def validate_within(value: Any, names_of: Callable[[Any], tuple[str, ...] | None], path: str = "") -> None:
    """Run the validators of pydantic dataclasses in a value made by msgspec, inner dataclasses first."""
    cls: Any = type(value)
    if isinstance(value, dict):
        for key, part in value.items():
            if type(part) not in _PLAIN:
                validate_within(part, names_of, below(path, key))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(value):
            if type(part) not in _PLAIN:
                validate_within(part, names_of, below(path, index))
    elif cls not in _PLAIN:
        for name in names_of(cls) or ():
            validate_within(getattr(value, name, None), names_of, below(path, name))
        if is_validated_dataclass(cls):
            _validate_again(value, cls, path)


def _validate_again(value: Any, cls: Any, path: str) -> None:
    from pydantic_core import ArgsKwargs

    # A field with its default was not given. Only pydantic knows the default's value; msgspec may have put the
    # declaration in its place.
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        part, declared = getattr(value, field.name, field.default), cls.__pydantic_fields__.get(field.name)
        if part is not field.default and part is not getattr(declared, "default", field.default):
            given[field.name] = part
    late = {
        field.name: given.pop(field.name) for field in dataclasses.fields(cls) if not field.init and field.name in given
    }
    check = cls.__pydantic_validator__.validate_python
    _validated(lambda: check(ArgsKwargs((), given), self_instance=value, by_alias=True, by_name=True), path)
    for name, part in late.items():
        object.__setattr__(value, name, part)


def _validated(validate: Callable[[], Any], path: str = "") -> Any:
    try:
        return validate()
    except TypeError:
        version: str = sys.modules["pydantic"].VERSION
        if tuple(map(int, version.split(".")[:2])) < (2, 11):
            raise Fault(path, f"models need pydantic 2.11 or later; this is {version}") from None
        raise
    except ValueError as error:
        list_errors = getattr(error, "errors", None)
        if list_errors is None:
            raise
        first = list_errors(include_url=False, include_context=False, include_input=False)[0]
        raise Fault(functools.reduce(below, first["loc"], path), first["msg"]) from None


def secrets_in(value: Any, path: str) -> Iterator[str]:
    if hasattr(value, "get_secret_value"):
        yield path
    elif is_model_type(type(value)):
        for name, part in value.__dict__.items():
            yield from secrets_in(part, below(path, name))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from secrets_in(part, below(path, index))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from secrets_in(part, below(path, key))
