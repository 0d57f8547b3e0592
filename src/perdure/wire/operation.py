"""One struct per operation of the API. The route, its documentation and both transports follow from it.

    schedules = Noun("Schedules")

    @schedules.get("/api/v1/schedules/{schedule_id}/next")
    class GetNextRuns(Operation[NextRuns], frozen=True):
        '''The coming due times of a schedule.'''

        schedule_id: ScheduleId
        count: Annotated[int, between(1, 100)] = 10

`server/mount.py` makes a route from it: path, role, decoding, documentation. A transport's `call` sends one and returns
its reply. `engine.serve` passes it to the method marked `@serves(GetNextRuns)`. Fields that the path names travel in
the path. The others travel in the query of a GET or DELETE, and in the body of other methods.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, NamedTuple, TypeVar, get_args, get_origin
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from perdure.wire.access import Role
from perdure.wire.fields import Check
from perdure.wire.record import Twin, expression, function, make_twin, schema_name

R_co = TypeVar("R_co", covariant=True)
O = TypeVar("O", bound="Operation[Any]")  # noqa: E741  # an operation

S = TypeVar("S", bound=Struct)

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Endpoint(NamedTuple):
    """Where the server serves an operation, and for which role."""

    method: Method
    path: str
    role: Role
    tag: str
    name: str
    """`operationId`."""
    contract: bool
    """The server skips unknown fields, because clients of other versions send them. Otherwise it refuses them."""
    idempotent: bool
    """The server takes an Idempotency-Key. Our client always sends one."""
    project_in_query: bool
    """The query may name the project, instead of a header."""

    @property
    def path_names(self) -> tuple[str, ...]:
        return tuple(_NAMED.findall(self.path))


class Operation(Struct, Generic[R_co], frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A request; `R_co` is the reply: a record, or None. Fields at their default are not sent. A method `check` holds
    the rules that span several fields. It raises BadValue or BadRequest."""

    endpoint: ClassVar[Endpoint]
    shown_as: ClassVar[str] = ""
    """The name of its body in the API's document."""


class Noun:
    """The operations of one noun, in the order in which they are documented."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[type[Operation[Any]]] = []

    def operation(
        self,
        method: Method,
        path: str,
        *,
        role: Role,
        contract: bool = False,
        idempotent: bool = False,
        project_in_query: bool = False,
        body: str = "",
    ) -> Callable[[type[O]], type[O]]:
        """Serve an operation there."""

        def add(cls: type[O]) -> type[O]:
            name = _WORD.sub(r"_\1", cls.__name__).lower()
            cls.endpoint = Endpoint(
                method,
                path,
                role,
                self.tag,
                name,
                contract,
                idempotent,
                project_in_query,
            )
            cls.shown_as = body or f"{cls.__name__}Request"
            self.all.append(cls)
            return cls

        return add

    def get(
        self, path: str, *, role: Role = Role.READ, contract: bool = False, project_in_query: bool = False
    ) -> Callable[[type[O]], type[O]]:
        return self.operation("GET", path, role=role, contract=contract, project_in_query=project_in_query)

    def post(
        self, path: str, *, role: Role = Role.WRITE, contract: bool = False, idempotent: bool = False, body: str = ""
    ) -> Callable[[type[O]], type[O]]:
        return self.operation("POST", path, role=role, contract=contract, idempotent=idempotent, body=body)

    def patch(self, path: str, *, role: Role = Role.WRITE, body: str = "") -> Callable[[type[O]], type[O]]:
        return self.operation("PATCH", path, role=role, body=body)

    def delete(self, path: str, *, role: Role = Role.WRITE) -> Callable[[type[O]], type[O]]:
        return self.operation("DELETE", path, role=role)


# --- checks ----------------------------------------------------------------------------------------------------------


def validated(given: S, where: str = "") -> S:
    """Run the checks of an operation's fields and its own. Returns it with the values that the checks normalized.

    `where` stands before the names of fields in errors: `triggers[2].`.
    """
    changes = {}
    for field, check in _checks(type(given)):
        value = getattr(given, field.name)
        if value is not None and (kept := check.run(value, where + field.encode_name)) is not value:
            changes[field.name] = kept
    whole = getattr(given, "check", None)
    if whole is not None:
        whole()
    return msgspec.structs.replace(given, **changes) if changes else given


@cache
def _checks(cls: type[Struct]) -> list[tuple[FieldInfo, Check]]:
    return [(one, check) for one in msgspec.structs.fields(cls) for check in _checks_in(one.type)]


def _checks_in(kind: Any) -> Iterator[Check]:
    if get_origin(kind) is Annotated:
        yield from (one for one in kind.__metadata__ if isinstance(one, Check))
    for part in get_args(kind) if get_origin(kind) is not list else ():
        yield from _checks_in(part)


# --- as a request ----------------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The fields of an operation by the part of a request that carries them."""

    path: list[FieldInfo]
    query: list[FieldInfo]
    body: list[FieldInfo]


def parts(cls: type[Operation[Any]]) -> Parts:
    endpoint, fields = cls.endpoint, {one.name: one for one in msgspec.structs.fields(cls)}
    path = [fields.pop(name) for name in endpoint.path_names]
    rest = list(fields.values())
    return Parts(path, rest, []) if endpoint.method in ("GET", "DELETE") else Parts(path, [], rest)


def reply_type(cls: type[Operation[Any]]) -> Any:
    for base in cls.__mro__:
        for one in vars(base).get("__orig_bases__", ()):
            if get_origin(one) is Operation:
                return get_args(one)[0]
    raise TypeError(f"{cls.__name__} names no reply; derive it from Operation[Reply] or Operation[None]")


class OfProject(Struct, frozen=True):
    """A field of the query beside the operation's own."""

    project_id: str | None = None
    """Instead of the header."""


class ServerForm(NamedTuple):
    """The structs that the server decodes, and the function that makes the operation from them."""

    query: type[Struct] | None
    body: type[Struct] | None
    make: Callable[..., Any]
    """Takes the values of the path, then the query and the body if the operation has them."""


def server_form(cls: type[Operation[Any]]) -> ServerForm:
    found, env = parts(cls), {"Cls": cls}
    strict = not cls.endpoint.contract
    fields = [*(msgspec.structs.fields(OfProject) if cls.endpoint.project_in_query else ()), *found.query]
    query = make_twin(cls, fields, cls.__name__, writing=False, same=False, also=OfProject).type if fields else None
    body = None
    if found.body:
        same = cls.__struct_config__.forbid_unknown_fields is strict
        body = make_twin(cls, found.body, schema_name(cls), writing=False, same=same, forbid_unknown_fields=strict).type
        if body is cls:
            return ServerForm(None, cls, lambda op: op)
    names = [f"p{n}" for n in range(len(found.path))] + ["query"] * bool(fields) + ["body"] * bool(found.body)
    values = [f"{one.name}=p{n}" for n, one in enumerate(found.path)]
    for place, there in (("query", found.query), ("body", found.body)):
        values += [f"{one.name}={expression(one.type, f'{place}.{one.name}', env, writing=False)[1]}" for one in there]
    return ServerForm(query, body, function(", ".join(names), f"Cls({', '.join(values)})", env))


class ClientForm(NamedTuple):
    """The parts of the request that the client sends."""

    head: Callable[[Operation[Any]], str]
    """The path with its values, and the query."""
    body: Twin | None


@cache
def client_form(cls: type[Operation[Any]]) -> ClientForm:
    found, endpoint = parts(cls), cls.endpoint
    pieces = _NAMED.split(endpoint.path)[::2]
    checks = {one.name: check for one, check in _checks(cls) if one.name in endpoint.path_names}
    query = body = None
    if found.query:
        query = make_twin(cls, found.query, cls.__name__, writing=True, same=False, omit_defaults=True)
    if found.body:
        body = make_twin(cls, found.body, schema_name(cls), writing=True, omit_defaults=True)

    def head(op: Operation[Any]) -> str:
        text = pieces[0]
        for one, piece in zip(found.path, pieces[1:], strict=True):
            value = getattr(op, one.name)
            if one.name in checks:  # a wrong value could name another path
                value = checks[one.name].run(value, one.name)
            text += quote(value, safe="") + piece
        if query is not None and (given := msgspec.to_builtins(query(op))):
            text += "?" + urlencode({name: _plain(value) for name, value in given.items()})
        return text

    return ClientForm(head, body)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else value


_NAMED: Final = re.compile(r"\{(\w+)\}")
_WORD: Final = re.compile(r"(?<!^)([A-Z])")
