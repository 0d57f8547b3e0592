"""JSON Schemas of type hints, for people who fill in an input or an answer."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec
from msgspec import Raw, inspect

from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.payloads.models import holds_validated, is_model_type
from perdure.wire.agents.approvals import ANSWER_CHECK, ANSWER_SCHEMA_BYTES_MAX
from perdure.wire.base.codec import check_json
from perdure.wire.runs.workflows import SCHEMA_BYTES_MAX, InputCheck

_REFERENCE: Final = "#/$defs/{model}"


def schema_of(type_: Any, bytes_max: int = SCHEMA_BYTES_MAX) -> bytes | None:
    """None if the hint says nothing, or if the type has no schema of at most `bytes_max` bytes that servers take.

    >>> schema_of(list[int])
    b'{"type":"array","items":{"type":"integer"}}'
    """
    if type_ is Any or type_ is object or type_ is None or isinstance(type_, Unannotated):
        return None
    try:
        schema = msgspec.json.encode(_schema(type_))
        check_json(schema, where="schema", max_bytes=bytes_max)
    except Exception:  # a hint may be anything, and a model's hooks may raise anything
        return None
    return schema


def answer_schema_of(type_: Any) -> bytes | None:
    """A question's schema says whether the code reads more than the schema shows."""
    schema = schema_of(type_, ANSWER_SCHEMA_BYTES_MAX - 40)  # with room for the keyword
    how = InputCheck.EXACT if schema is None else input_check(type_)
    if schema is None or how is InputCheck.EXACT:
        return schema
    return msgspec.json.encode({**msgspec.json.decode(schema, type=dict[str, Raw]), ANSWER_CHECK: how or "none"})


def input_check(type_: Any) -> InputCheck | None:
    """None if a model may read more than its schema shows: by its own functions, or under other names."""
    models: list[type] = []

    def note(inner: type) -> dict[str, Any]:
        models.append(inner)
        return {"type": "object"}

    msgspec.json.schema_components([type_], schema_hook=note)
    if not models and not holds_validated(type_):
        return InputCheck.EXACT
    if any(_reads_more(one.__pydantic_core_schema__) for one in models):  # type: ignore[attr-defined]  # pydantic sets it
        return None
    return InputCheck.WIDE


def _reads_more(part: Any) -> bool:
    if isinstance(part, list | tuple):
        return any(map(_reads_more, part))
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    if (isinstance(kind, str) and kind in _FUNCTIONS) or part.get("validation_alias") is not None:
        return True
    return any(map(_reads_more, part.values()))


_FUNCTIONS: Final = frozenset(
    f"function-{when}"
    for when in ("before", "wrap", "plain")  # as validators and as serializers
)


def _schema(type_: Any) -> dict[str, Any]:
    shared: dict[str, Any] = {}

    def of_foreign(inner: type) -> dict[str, Any]:
        if not is_model_type(inner):
            raise NotImplementedError
        return _inline(sys.modules["pydantic"].TypeAdapter(inner).json_schema(ref_template=_REFERENCE, by_alias=False))

    def _inline(schema: dict[str, Any]) -> dict[str, Any]:
        for name, part in schema.pop("$defs", {}).items():
            if shared.setdefault(name, part) != part:
                raise ValueError(f"Two types are called {name!r}.")
        return schema

    (schema,), named = msgspec.json.schema_components([type_], schema_hook=of_foreign, ref_template="#/$defs/{name}")
    _sharpen(schema, inspect.type_info(type_), named, set())
    for name, part in named.items():
        if shared.setdefault(name, part) != part:
            raise ValueError(f"Two types are called {name!r}.")
    return {**schema, "$defs": shared} if shared else dict(schema)


def _sharpen(schema: Any, info: inspect.Type, named: dict[str, Any], seen: set[str]) -> None:
    """Say what msgspec leaves out: the format of times, and of a dict's names."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in seen or name not in named:
            return
        seen.add(name)
        schema = named[name]
    parts: list[tuple[Any, inspect.Type]] = []
    match info:
        case inspect.DateTimeType():
            schema.setdefault("format", "date-time")
        case inspect.TimeType():
            schema.setdefault("format", "time")
        case inspect.DictType(key_type=key):
            if not isinstance(key, inspect.StrType | inspect.AnyType) and (names := _dict_names(key)):
                schema["propertyNames"] = names
            parts = [(schema.get("additionalProperties"), info.value_type)]
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            parts = [(schema.get("items"), info.item_type)]
        case inspect.TupleType():
            parts = [*zip(schema.get("prefixItems", ()), info.item_types, strict=False)]
        case inspect.UnionType():
            alternatives = schema.get("anyOf", ())
            parts = [*zip(alternatives, info.types, strict=True)] if len(alternatives) == len(info.types) else []
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            members = schema.get("properties", {})
            parts = [(members.get(one.encode_name), one.type) for one in info.fields]
        case inspect.Metadata():
            parts = [(schema, info.type)]
    for part, inner in parts:
        _sharpen(part, inner, named, seen)


def _dict_names(key: inspect.Type) -> dict[str, Any] | None:
    """The names of an object in JSON are texts."""
    match key:
        case inspect.IntType():
            return {"pattern": "^-?(0|[1-9][0-9]*)$"}
        case inspect.DateTimeType():
            return {"format": "date-time"}
        case inspect.DateType():
            return {"format": "date"}
        case inspect.UUIDType():
            return {"format": "uuid"}
        case inspect.EnumType():
            return {"enum": [str(one.value) for one in key.cls]}
        case inspect.LiteralType():
            return {"enum": [*map(str, key.values)]}
    return None
