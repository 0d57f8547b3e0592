"""JSON Schemas of type hints, for people who fill in an input or an answer."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from perdure.sdk.payloads.hints import Unannotated
from perdure.sdk.payloads.models import is_model_type
from perdure.wire.codec import check_json
from perdure.wire.workflows import SCHEMA_BYTES_MAX

_REFERENCE: Final = "#/$defs/{model}"


def schema_of(type_: Any, bytes_max: int = SCHEMA_BYTES_MAX) -> bytes | None:
    """None if the hint says nothing, if its schema is larger than `bytes_max` or no server takes it, or if the type has
    none.

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
    for name, part in named.items():
        if shared.setdefault(name, part) != part:
            raise ValueError(f"Two types are called {name!r}.")
    return {**schema, "$defs": shared} if shared else dict(schema)
