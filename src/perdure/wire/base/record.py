"""One struct per noun: the row of the store, the JSON of the API, and the record of the SDK.

    class Fire(Record, frozen=True):
        slot_us: Time = field(name="due_at")

A field has the name of its column; `field(name=…)` gives the API's word. A time is a number of microseconds in memory
and RFC 3339 in JSON, where its name has no unit: `made_at_us` is `made_at`. msgspec converts by type and not by field,
so a record with other JSON than fields has a twin: a struct that `writer` or `reader` derives once, with a compiled
copy function.
"""

from collections.abc import Callable, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta, Raw, Struct
from msgspec.structs import FieldInfo

from perdure.wire.base.access import Role
from perdure.wire.base.fields import Conversion, Moment
from perdure.wire.base.records import MaybeRaw
from perdure.wire.base.times import clamped, microseconds, rfc3339

AS_IT_IS = "{}"


def not_null(value: Raw | None) -> Raw | None:
    """Rows hold None where JSON has null."""
    return None if value is None or bytes(value) == b"null" else value


class Record(Struct, frozen=True):
    """A field with a default may be missing in the answer of an older server."""

    shown_as: ClassVar[str] = ""
    """The name in the API's document, if not the class's."""
    sent_as: ClassVar[str] = ""
    """The type of the server-sent event for the record."""
    answers_in_full: ClassVar[bool] = False
    """Answers have all fields, although workers exchange the record with `omit_defaults`."""


class Done(Record, frozen=True):
    """Done; there is nothing to tell."""


DONE: Final = Done()


class Message(Record, frozen=True):
    """Confirms the request."""

    shown_as: ClassVar[str] = "MessageResponse"

    message: str


class derived(property):
    """A property in JSON, behind the fields or before the field `before`."""

    before: str | None = None


def shown_before(field: str) -> Callable[[Callable[[Any], Any]], derived]:
    def make(method: Callable[[Any], Any]) -> derived:
        made = derived(method)
        made.before = field
        return made

    return make


class Twin(NamedTuple):
    """The struct that msgspec encodes or decodes in place of a record, and the copy between both."""

    type: type[Struct]
    convert: Callable[[Any], Any] | None

    def __call__(self, value: Any) -> Any:
        return value if self.convert is None else self.convert(value)


RoleName = Literal["Admin", "Write", "Read"]
_MOMENT = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_WRITTEN = {
    Conversion.TIME: (_MOMENT, "rfc3339({})"),
    Conversion.ZONED_TIME: (_MOMENT, "{}.isoformat(timespec='microseconds')"),
    Conversion.VALUE: (MaybeRaw, AS_IT_IS),
    Conversion.ROLE: (RoleName, "{}.capitalize()"),
}
"""A field's JSON type, and an expression to convert `{}`."""
_READ = {
    Conversion.TIME: (Moment, "clamped(microseconds({}))"),
    Conversion.ZONED_TIME: (Moment, AS_IT_IS),
    Conversion.VALUE: (MaybeRaw, "not_null({})"),
    Conversion.ROLE: (RoleName, "Role({}.lower())"),
}
_TOOLS = {"rfc3339": rfc3339, "microseconds": microseconds, "clamped": clamped, "not_null": not_null, "Role": Role}


@cache
def writer(cls: type[Record]) -> Twin:
    """The twin for encoding in the server."""
    # Defaults are for answers of older servers; only a default of null is documented.
    omit = cls.__struct_config__.omit_defaults and not cls.answers_in_full
    fields = [
        FieldInfo(
            one.name,
            one.encode_name,
            one.type,
            one.default if omit or one.default is None else NODEFAULT,
            one.default_factory if omit else NODEFAULT,
        )
        for one in msgspec.structs.fields(cls)
    ]
    for name, one in vars(cls).items():
        if isinstance(one, derived):
            at = next((n for n, field in enumerate(fields) if field.name == one.before), len(fields))
            kind = get_type_hints(one.fget, include_extras=True)["return"]
            fields.insert(at, FieldInfo(name, name, kind, None if NoneType in choices(kind) else NODEFAULT))
    return make_twin(cls, fields, schema_name(cls), writing=True, omit_defaults=omit)


@cache
def reader(cls: type[Record]) -> Twin:
    """The twin for decoding in a client, or of a request in the server."""
    fields = msgspec.structs.fields(cls)
    # Answers of a newer server may have further fields.
    strict = cls.__struct_config__.forbid_unknown_fields and not cls.answers_in_full
    made = make_twin(cls, fields, schema_name(cls), writing=False, forbid_unknown_fields=strict)
    if made.type is cls:
        return made
    env: dict[str, Any] = {"Cls": cls}
    values = [f"{one.name}={expression(one.type, f'x.{one.name}', env, writing=False)[1]}" for one in fields]
    return Twin(made.type, function("x", f"Cls({', '.join(values)})", env))


def to_json(value: Any) -> Any:
    """Replace the records in `value` by twins."""
    if isinstance(value, Record):
        return writer(type(value))(value)
    if isinstance(value, dict):
        return {name: to_json(one) for name, one in value.items()}
    return [to_json(one) for one in value] if isinstance(value, list) else value


def make_twin(
    cls: type[Struct], fields: Sequence[FieldInfo], name: str, *, writing: bool, same: bool = True, **config: Any
) -> Twin:
    """Derive the JSON struct of the fields. With `same` the result may be `cls` itself."""
    env: dict[str, Any] = {}
    kinds, values = [], []
    for one in fields:
        kind, value = expression(one.type, f"x.{one.name}", env, writing=writing)
        kinds.append(kind)
        values.append(f"{one.name}={value}")
    if same and kinds == [one.type for one in fields] and len(fields) == len(cls.__struct_fields__):
        return Twin(cls, None)
    made = msgspec.defstruct(
        name,
        [(one.name, kind, _field(one, kind)) for one, kind in zip(fields, kinds, strict=True)],
        namespace={"__doc__": cls.__doc__, "shows": cls},
        frozen=True,
        kw_only=True,
        **config,
    )
    env["Twin"] = made
    return Twin(made, function("x", f"Twin({', '.join(values)})", env) if writing else None)


def expression(kind: Any, value: str, env: dict[str, Any], *, writing: bool) -> tuple[Any, str]:
    """The JSON type of a field, and code to convert `value` to or from the type."""
    found, text = _edge(kind, env, writing)
    return found, text.format(value)


def function(parameters: str, text: str, env: dict[str, Any]) -> Callable[..., Any]:
    """Compile a lambda, which copies as fast as code written by hand."""
    code = compile(f"lambda {parameters}: {text}", f"<made of {', '.join(env)}>", "eval")
    made: Callable[..., Any] = eval(code, _TOOLS | env)
    return made


def schema_name(cls: type[Struct]) -> str:
    shown: str = getattr(cls, "shown_as", "")
    return shown or cls.__name__


def choices(kind: Any) -> list[Any]:
    """The members of a union.

    >>> choices(Annotated[int, "unit"] | None)
    [<class 'int'>, <class 'NoneType'>]
    """
    if get_origin(kind) is Annotated:
        return choices(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [part for one in get_args(kind) for part in choices(one)]
    return [kind]


def _field(one: FieldInfo, kind: Any) -> Any:
    name = None if one.encode_name == one.name else one.encode_name
    if name is None and kind != one.type:  # a time
        name = one.name.removesuffix("_us")
    if one.default_factory is not NODEFAULT:
        return msgspec.field(default_factory=one.default_factory, name=name)
    return msgspec.field(name=name) if one.default is NODEFAULT else msgspec.field(default=one.default, name=name)


def _edge(kind: Any, env: dict[str, Any], writing: bool) -> tuple[Any, str]:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        conversion = next((one for one in args[1:] if isinstance(one, Conversion)), None)
        if conversion is not None:
            found, text = (_WRITTEN if writing else _READ)[conversion]
            return (kind if text == AS_IT_IS else found), text
        inner, text = _edge(args[0], env, writing)
        return (kind, text) if text == AS_IT_IS else (Annotated[(inner, *args[1:])], text)
    if origin is list:
        inner, text = _edge(args[0], env, writing)
        return (kind, text) if inner is args[0] else (list[inner], f"[{text.format('one')} for one in {{}}]")  # type: ignore[valid-type]  # made here
    if origin in (Union, UnionType):
        edges = [_edge(one, env, writing) for one in args]
        if [one for one, _ in edges] == list(args):
            return kind, AS_IT_IS
        (text,) = (text for _, text in edges if text != AS_IT_IS)  # only `X | None` can be converted
        if set(args) - {NoneType} == set(args) or len(args) > 2:
            raise TypeError(f"{kind} cannot be told apart in JSON")
        return Union[tuple(one for one, _ in edges)], f"(None if (it := {{}}) is None else {text.format('it')})"  # noqa: UP007  # made here
    if isinstance(kind, type) and issubclass(kind, Record):
        made = writer(kind) if writing else reader(kind)
        if made.convert is None:
            return made.type, AS_IT_IS
        env[f"to_{kind.__name__}"] = made.convert
        return made.type, f"to_{kind.__name__}({{}})"
    return kind, AS_IT_IS
