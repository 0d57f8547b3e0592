"""One struct per operation of the API. The route, its documentation and both transports follow from the struct.

    schedules = Noun("Schedules")

    @schedules.get("/api/v1/schedules/{schedule_id}/next")
    class GetNextRuns(Operation[NextRuns], frozen=True):
        '''The coming due times of a schedule.'''

        schedule_id: ScheduleId
        count: Annotated[int, between(1, 100)] = 10

Fields named in the path travel in the path. Other fields travel in the query of a GET or DELETE, and in the body of
other methods.
"""

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import cache
from importlib import import_module
from operator import attrgetter
from pkgutil import walk_packages
from types import FunctionType, ModuleType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    TypedDict,
    TypeVar,
    Unpack,
    get_args,
    get_origin,
)
from urllib.parse import quote, urlencode

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from perdure.wire.base.access import Caller, Role
from perdure.wire.base.fields import PAGE_MAX, Header, Int64, NextCursor, PageCursor, between
from perdure.wire.base.record import Record, Twin, choices, expression, function, make_twin, schema_name

R_co = TypeVar("R_co", covariant=True)
O = TypeVar("O", bound="Operation[Any]")  # noqa: E741  # an operation

S = TypeVar("S", bound=Struct)
M = TypeVar("M")
T = TypeVar("T")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Options(TypedDict, total=False):
    name: str
    """`operationId`, if not the name of the class."""
    caller: Caller
    """The default is a caller with a project or, without a role, a user."""
    contract: bool
    """The server skips unknown fields, because clients of other versions may send new fields."""
    idempotent: bool
    """The server takes an Idempotency-Key. Our client always sends a key."""
    repeated: str
    """The effect of repeating a POST that is not `idempotent`, for docs/http-api.md."""
    recorded_as: str
    """The name under which the store keeps the first answer, if not `name`."""
    protocol: bool
    """Workers send the version of their protocol with the request, and pause between tries without the transport."""
    rest: bool
    """The path's last name matches slashes as well, up to a literal last segment."""
    body: str
    """The body's name in the API's document."""
    bodiless: bool
    """The body may be left out."""
    reply: str
    """The reply's name in the API's document, if not the record's."""
    under: str
    """JSON shows a list as an object with this field, and `next_cursor` if the operation has a cursor."""
    order: str
    """The object's description in the API's document."""
    cursor_required: bool
    """The document promises `next_cursor` in each answer."""
    body_bytes_max: int
    """A body with a user's JSON is limited only by the server's setting for requests, unless given."""
    held: str
    """The field with the seconds for which the server may hold the request."""


class Endpoint(NamedTuple):
    method: Method
    path: str
    tag: str
    role: Role | None
    options: Options

    @property
    def name(self) -> str:
        return self.options["name"]

    @property
    def idempotent(self) -> bool:
        return self.options.get("idempotent", False)

    @property
    def path_names(self) -> tuple[str, ...]:
        return tuple(_NAMED.findall(self.path))


class Operation(Struct, Generic[R_co], frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Fields at their default are not sent. A method `check` holds the rules between fields, and raises BadValue or
    BadRequest."""

    endpoint: ClassVar[Endpoint]
    shown_as: ClassVar[str] = ""
    """The body's name in the API's document."""


class Request(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Perdure's own requests refuse unknown fields."""


class Listed(NamedTuple, Generic[T]):
    """A page of a list. JSON shows it as `Options.under` says, or as an array with the cursor in a header."""

    items: list[T]
    next_cursor: str | None = None

    @classmethod
    def of(cls, found: list[T], limit: int, cursor: Callable[[T], str] = attrgetter("id")) -> "Listed[T]":
        """The first `limit` items. One more in `found` means that a page follows."""
        items = found[:limit]
        return cls(items, cursor(items[-1]) if len(found) > limit else None)


class Stream(NamedTuple, Generic[T]):
    """A reply of server-sent events. The operation has a field `last_event_id`, which is also a header.

    Each record comes with the cursor behind it. A `StreamEnd` comes last. A stream without `StreamEnd` was cut.
    """

    pages: AsyncGenerator[list[tuple[str, T]], None]


OFFSET_MAX: Final = 100_000


Offset = Annotated[Int64, between(0, OFFSET_MAX)]


class RegistryPage(Struct, frozen=True):
    limit: Annotated[Int64, between(1, PAGE_MAX)] = PAGE_MAX
    """1 to 1,000."""
    offset: Offset = 0
    """How many to leave out; 0 to 100,000."""
    cursor: PageCursor | None = None


class Noun:
    """The documented operations of one noun."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[type[Operation[Any]]] = []

    def operation(self, method: Method, path: str, role: Role | None, options: Options) -> Callable[[type[O]], type[O]]:
        def add(cls: type[O]) -> type[O]:
            named: Options = {"name": _WORD.sub(r"_\1", cls.__name__).lower(), **options}
            cls.endpoint = Endpoint(method, path, self.tag, role, named)
            cls.shown_as = options.get("body") or f"{cls.__name__}Request"
            self.all.append(cls)
            return cls

        return add

    def get(
        self, path: str, *, role: Role | None = Role.READ, **options: Unpack[Options]
    ) -> Callable[[type[O]], type[O]]:
        return self.operation("GET", path, role, options)

    def post(
        self, path: str, *, role: Role | None = Role.WRITE, **options: Unpack[Options]
    ) -> Callable[[type[O]], type[O]]:
        return self.operation("POST", path, role, options)

    def put(
        self, path: str, *, role: Role | None = Role.WRITE, **options: Unpack[Options]
    ) -> Callable[[type[O]], type[O]]:
        return self.operation("PUT", path, role, options)

    def patch(self, path: str, *, role: Role = Role.WRITE, **options: Unpack[Options]) -> Callable[[type[O]], type[O]]:
        return self.operation("PATCH", path, role, options)

    def delete(self, path: str, *, role: Role = Role.WRITE, **options: Unpack[Options]) -> Callable[[type[O]], type[O]]:
        return self.operation("DELETE", path, role, options)


def validated(given: S, where: str = "") -> S:
    """Run the checks. Returns the operation with normalized values.

    `where` is put before the names of fields in errors: `triggers[2].`.
    """
    changes = {}
    for field, check in marked(type(given), FunctionType):
        value = getattr(given, field.name)
        if value is not None and (kept := check(value, where + field.encode_name)) is not value:
            changes[field.name] = kept
    whole = getattr(given, "check", None)
    if whole is not None:
        whole()
    return msgspec.structs.replace(given, **changes) if changes else given


@cache
def is_checked(cls: type[Struct]) -> bool:
    return hasattr(cls, "check") or bool(marked(cls, FunctionType))


@cache
def marked(cls: type[Struct], mark: type[M]) -> list[tuple[FieldInfo, M]]:
    """Fields with a mark of this class in their type, and the mark."""
    return [(one, found) for one in msgspec.structs.fields(cls) for found in marks(one.type, mark)]


def named(package: ModuleType, kind: type[M]) -> list[M]:
    """Lists each value of this type once that a module of the package names."""
    paths = [found.name for found in walk_packages(package.__path__, f"{package.__name__}.") if not found.ispkg]
    values = [each for path in paths for each in vars(import_module(path)).values() if isinstance(each, kind)]
    return list({id(each): each for each in values}.values())


def marks(kind: Any, mark: type[M]) -> Iterator[M]:
    if get_origin(kind) is Annotated:
        yield from (one for one in kind.__metadata__ if isinstance(one, mark))
    for part in get_args(kind) if get_origin(kind) is not list else ():
        yield from marks(part, mark)


class Parts(NamedTuple):
    path: list[FieldInfo]
    query: list[FieldInfo]
    body: list[FieldInfo]
    headers: dict[str, FieldInfo]


def parts(cls: type[Operation[Any]]) -> Parts:
    endpoint, fields = cls.endpoint, {one.name: one for one in msgspec.structs.fields(cls)}
    path = [fields.pop(name) for name in endpoint.path_names]
    headers = {str(header): fields.pop(one.name) for one, header in marked(cls, Header)}
    rest = list(fields.values())
    in_query = endpoint.method in ("GET", "DELETE")
    return Parts(path, rest if in_query else [], [] if in_query else rest, headers)


def reply_type(cls: type[Operation[Any]]) -> Any:
    for base in cls.__mro__:
        for one in vars(base).get("__orig_bases__", ()):
            if get_origin(one) is Operation:
                return get_args(one)[0]
    raise TypeError(f"{cls.__name__} names no reply; derive it from Operation[Reply] or Operation[None]")


@cache
def list_record(cls: type[Operation[Any]]) -> type[Record] | None:
    """The object that has the items of a `Listed` under a name; None: JSON has an array."""
    options, reply = cls.endpoint.options, reply_type(cls)
    if get_origin(reply) is not Listed or "under" not in options:
        return None
    fields: list[tuple[str, Any, Any]] = [("items", list[get_args(reply)], msgspec.field(name=options["under"]))]  # type: ignore[misc]  # made here
    if "cursor" in cls.__struct_fields__:
        default = NODEFAULT if options.get("cursor_required") else None
        fields.append(("next_cursor", NextCursor | None, msgspec.field(default=default)))
    namespace = {"__doc__": options.get("order")}
    return msgspec.defstruct(options["reply"], fields, bases=(Record,), namespace=namespace, frozen=True)  # type: ignore[return-value]  # a Record


def streamed(cls: type[Operation[Any]]) -> list[type[Record]]:
    """The records of a stream; empty for other replies."""
    reply = reply_type(cls)
    return choices(get_args(reply)[0]) if get_origin(reply) is Stream else []


class ServerForm(NamedTuple):
    """The structs decoded by the server."""

    query: type[Struct] | None
    body: type[Struct] | None
    headers: tuple[str, ...]
    make: Callable[..., Any]
    """Makes the operation from the values of the path, the query, the body, and the texts of the headers."""


def server_form(cls: type[Operation[Any]]) -> ServerForm:
    found, env = parts(cls), {"Cls": cls}
    strict = not cls.endpoint.options.get("contract", False)
    query = make_twin(cls, found.query, cls.__name__, writing=False, same=False).type if found.query else None
    body = None
    if found.body:
        same = cls.__struct_config__.forbid_unknown_fields is strict
        body = make_twin(cls, found.body, schema_name(cls), writing=False, same=same, forbid_unknown_fields=strict).type
        if body is cls:
            return ServerForm(None, cls, (), lambda op: op)
    names = [f"p{n}" for n in range(len(found.path))] + ["query"] * bool(found.query) + ["body"] * bool(found.body)
    values = [f"{one.name}=p{n}" for n, one in enumerate(found.path)]
    for place, there in (("query", found.query), ("body", found.body)):
        values += [f"{one.name}={expression(one.type, f'{place}.{one.name}', env, writing=False)[1]}" for one in there]
    values += [f"{one.name}=h{n}" for n, one in enumerate(found.headers.values())]
    names += [f"h{n}" for n in range(len(found.headers))]
    make = function(", ".join(names), f"Cls({', '.join(values)})", env)
    return ServerForm(query, body, tuple(found.headers), make)


class ClientForm(NamedTuple):
    head: Callable[[Operation[Any]], str]
    body: Twin | None
    headers: tuple[tuple[str, str], ...]
    """Names of headers and fields."""


@cache
def client_form(cls: type[Operation[Any]]) -> ClientForm:
    found, endpoint = parts(cls), cls.endpoint
    pieces = _NAMED.split(endpoint.path)[::2]
    checks = {one.name: check for one, check in marked(cls, FunctionType) if one.name in endpoint.path_names}
    query = body = None
    if found.query:
        query = make_twin(cls, found.query, cls.__name__, writing=True, same=False, omit_defaults=True)
    if found.body:
        body = make_twin(cls, found.body, schema_name(cls), writing=True, omit_defaults=True)
    is_constant = not found.path and query is None

    def head(op: Operation[Any]) -> str:
        text = pieces[0]
        if is_constant:
            return text
        for one, piece in zip(found.path, pieces[1:], strict=True):
            value = getattr(op, one.name)
            if one.name in checks:  # a wrong value could name another path
                value = checks[one.name](value, one.name)
            text += quote(value, safe="") + piece
        if query is not None and (given := msgspec.to_builtins(query(op))):
            text += "?" + urlencode({name: _plain(value) for name, value in given.items()})
        return text

    return ClientForm(head, body, tuple((name, one.name) for name, one in found.headers.items()))


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else value


_NAMED: Final = re.compile(r"\{(\w+)\}")
_WORD: Final = re.compile(r"(?<!^)([A-Z])")
