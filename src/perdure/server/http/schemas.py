"""JSON schemas of structs: null beside a type; fields with defaults are optional."""

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct
from msgspec import inspect as types

from perdure.wire.base.record import Record, schema_name, writer

Json = dict[str, Any]

REF: Final = "#/components/schemas/"

_PLAIN: Final[dict[type[types.Type], str]] = {
    types.NoneType: "null",
    types.BoolType: "boolean",
    types.IntType: "integer",
    types.FloatType: "number",
    types.StrType: "string",
}


class Schemas:
    """Adding a type also adds the types inside."""

    def __init__(self) -> None:
        self.named: dict[str, Json] = {}
        self._open: list[types.StructType] = []

    def add(self, struct: Any) -> Json:
        schema = self._schema(types.type_info(struct))
        while self._open:
            one = self._open.pop()
            self.named[_name(one.cls)] = self._struct(one)
        return schema

    def parameters(self, struct: type[Struct]) -> list[tuple[str, bool, Json]]:
        """Name, whether required, schema without null."""
        info = types.type_info(struct)
        assert isinstance(info, types.StructType)
        schema = self._struct(info)
        required = schema.get("required", ())
        return [(name, name in required, _not_null(field)) for name, field in schema["properties"].items()]

    def _struct(self, info: types.StructType) -> Json:
        notes = field_notes(info.cls)
        properties: Json = {}
        if info.tag_field is not None:
            properties[info.tag_field] = {"enum": [info.tag]}
        required = [] if info.tag_field is None else [info.tag_field]
        for field in info.fields:
            schema = self._schema(field.type)
            if field.name in notes and "$ref" not in schema:
                schema = {**schema, "description": notes[field.name]}
            if isinstance(field.default, bool | int | float | str):
                schema = {**schema, "default": field.default}
            properties[field.encode_name] = schema
            if field.required:
                required.append(field.encode_name)
        schema = {"type": "object", "properties": properties}
        if info.cls.__doc__:
            schema["description"] = " ".join(inspect.cleandoc(info.cls.__doc__).split())
        if required:
            schema["required"] = required
        if info.forbid_unknown_fields:
            schema["additionalProperties"] = False
        return schema

    def _schema(self, info: types.Type) -> Json:
        match info:
            case types.Metadata():
                return {**self._schema(info.type), **(info.extra_json_schema or {})}
            case types.StructType():
                name = _name(info.cls)
                if name not in self.named:
                    self.named[name] = {}
                    self._open.append(info)
                return {"$ref": REF + name}
            case types.UnionType():
                return self._union(info)
            case types.ListType() | types.VarTupleType():
                return {"type": "array", "items": self._schema(info.item_type)}
            case types.TupleType():
                size = len(info.item_types)
                # Not `prefixItems`, which many tools do not support yet.
                kinds = [self._schema(item) for item in info.item_types]
                items = {"anyOf": [kind for n, kind in enumerate(kinds) if kind not in kinds[:n]]}
                return {"type": "array", "items": items, "minItems": size, "maxItems": size}
            case types.DictType():
                return {"type": "object", "additionalProperties": self._schema(info.value_type)}
            case types.LiteralType():
                return {"enum": list(info.values)}
            case types.EnumType():
                return {"enum": [member.value for member in info.cls]}
            case types.DateTimeType():
                return {"type": "string", "format": "date-time"}
            case types.RawType() | types.AnyType() | types.CustomType():
                return {}
        schema: Json = {"type": _PLAIN[type(info)]}
        if isinstance(info, types.IntType | types.FloatType):
            bounds = {"minimum": info.ge, "maximum": info.le, "exclusiveMinimum": info.gt, "exclusiveMaximum": info.lt}
            schema.update({name: bound for name, bound in bounds.items() if bound is not None})
        return schema

    def _union(self, info: types.UnionType) -> Json:
        choices = [self._schema(choice) for choice in info.types]
        if {} in choices:
            return {}  # any value, also null
        others = [choice for choice in choices if choice != {"type": "null"}]
        if len(others) == 1 and len(choices) == 2 and "type" in others[0]:
            return {**others[0], "type": [others[0]["type"], "null"]}
        return {"anyOf": choices}


def _name(cls: type[Struct]) -> str:
    """A record with a twin keeps its class's name where workers exchange the record itself."""
    return cls.__name__ if issubclass(cls, Record) and writer(cls).type is not cls else schema_name(cls)


def _not_null(schema: Json) -> Json:
    if isinstance(schema.get("type"), list):
        return {**schema, "type": schema["type"][0]}
    if "anyOf" in schema:
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        (choice,) = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
        return {**choice, **rest}
    return schema


def _written_by_hand(struct: type[Struct]) -> list[type[Struct]]:
    """The structs written by hand; for a twin, the shown record's."""
    found = [*struct.__mro__, *(struct.shows.__mro__ if hasattr(struct, "shows") else ())]
    return [cls for cls in found if issubclass(cls, Struct) and cls is not Struct and "shows" not in vars(cls)]


@cache
def field_notes(struct: type[Struct]) -> dict[str, str]:
    """Empty if the source is not installed."""
    notes: dict[str, str] = {}
    for cls in reversed(_written_by_hand(struct)):
        body = _bodies(cls.__module__).get(cls.__qualname__, [])
        for field, note in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(note, ast.Expr):
                assert isinstance(note.value, ast.Constant)
                notes[field.target.id] = " ".join(str(note.value.value).split())
    return notes


@cache
def _bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's top classes. `inspect.getsource` would parse the module anew for each class."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, KeyError):
        return {}
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
