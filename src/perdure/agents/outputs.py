from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union

from pydantic import BaseModel, TypeAdapter
from pydantic_ai.output import NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.tools import DeferredToolRequests

from perdure.agents.names import described
from perdure.sdk.payloads.hints import Unannotated, read_hints


def output_hint(spec: Any) -> Any:
    members = list(dict.fromkeys(_members(spec)))
    if not members:
        return Any
    return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007  # made of a list


def schema_name(hint: Any) -> str:
    """A union has the names of all its types.

    >>> schema_name(str), schema_name(int | str)
    ('str', 'int | str')
    """
    if typing.get_origin(hint) in (Union, UnionType):
        return " | ".join(schema_name(member) for member in typing.get_args(hint))
    if getattr(hint, "__is_model_like__", False):  # the library's StructuredDict: its schema has the name
        return str(TypeAdapter(hint).json_schema().get("title") or "dict")
    return described(hint)


def check_apart(hint: Any) -> None:
    """Raises `ValueError` for two output types with the same fields, because their JSON looks the same."""
    seen: list[tuple[Any, dict[str, Any]]] = []
    for member in typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else ():
        own = _fields(member)
        for other, known in seen:
            if own == known:
                raise ValueError(
                    f"The output types {described(other)} and {described(member)} have the same fields, so their JSON "
                    f"is the same: give each a field that says which it is, as `kind: Literal[{described(member)!r}]`, "
                    "with that as its default."
                )
        if own is not None:
            seen.append((member, own))


def _fields(member: Any) -> dict[str, Any] | None:
    if isinstance(member, type) and issubclass(member, BaseModel):
        return {name: field.annotation for name, field in member.model_fields.items()}
    if isinstance(member, type) and is_dataclass(member):
        hints = typing.get_type_hints(member)
        return {field.name: hints[field.name] for field in fields(member)}
    return None


def _members(spec: Any) -> Iterator[Any]:
    if spec is None:
        yield NoneType
    elif spec is DeferredToolRequests:
        return  # questions are answered during the run, so they are never its output
    elif isinstance(spec, ToolOutput):
        yield from _members(spec.output)
    elif isinstance(spec, NativeOutput | PromptedOutput):
        yield from _members(spec.outputs)
    elif isinstance(spec, TextOutput):
        yield _declared_result(spec.output_function)
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        for member in spec:
            yield from _members(member)
    elif typing.get_origin(spec) in (Union, UnionType):
        for member in typing.get_args(spec):
            yield from _members(member)
    elif isinstance(spec, type) or typing.get_origin(spec) is not None or not hasattr(spec, "__code__"):
        yield spec
    else:
        yield _declared_result(spec)


def _declared_result(function: Any) -> Any:
    try:
        result = read_hints(function, context=False).result
        return Any if isinstance(result, Unannotated) else result
    except TypeError:  # an unresolvable annotation: the result is read as plain JSON
        return Any
