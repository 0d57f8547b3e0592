"""The typed route table: one signature per route, from which its handler and its documentation are made.

    routes = Routes("Executions")

    @routes.post("/api/v1/executions/{execution_id}/cancel", contract=True)
    async def cancel_execution(call: Call, execution_id: str) -> CancelExecutionResponse:
        '''Ask for cancellation.'''

The first parameter is the call; then come the path's parameters by their names; `query` and `body`, if they are there,
are structs that the query string and the body are decoded into. The return type is the reply: a struct or a list of
them, `None` (204), `Text`, or an `EventStream`.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeVar, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope

from perdure.engine.engine import Engine
from perdure.engine.executions import checked_id
from perdure.server.auth import Failures, Gate, check_role, has_role
from perdure.server.bodies import COUNTED_BYTES_MIN, USUAL, Most, check_lists, read_body, read_bytes
from perdure.server.connections import EXTENSION, Connection
from perdure.server.in_flight import InFlight, Share
from perdure.server.problems import (
    Header,
    shape_problem,
    undecodable,
)
from perdure.server.pulse import Pulse
from perdure.server.settings import Settings
from perdure.server.signin import SignIns
from perdure.server.streams import Comments, Drain, Poll, Slots
from perdure.server.tails import Tails
from perdure.server.written import Written
from perdure.wire.access import Principal, Role
from perdure.wire.errors import (
    BadRequest,
)

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Handler = Callable[..., Awaitable[object]]
S = TypeVar("S", bound=Struct)

QUERY_FIELDS_MAX: Final = 100


class Caller(Enum):
    """Who may call a route."""

    ANYONE = "anyone"
    """Without a key."""
    PROJECT = "project"
    """A key, or a user who names a project of theirs, of the route's role."""
    EITHER = "either"
    """The same, but a user need not name a project."""
    USER = "user"
    """A user; no key."""
    SESSION = "session"
    """A session, whether a user, a key or a link began it; the handler looks for it."""


class Text(Struct, frozen=True):
    """An answer that is not JSON."""

    body: str
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Services:
    """What handlers work with."""

    def __init__(self, engine: Engine, settings: Settings, gate: Gate) -> None:
        self.engine = engine
        self.settings = settings
        self.gate = gate
        self.pulse = Pulse(lambda: engine.health())
        self.drain = Drain()
        self.sign_ins = SignIns(gate.cookies)
        self.tails = Tails(engine)
        self.default_project_id = ""
        """The operators' project: its keys and members see the server as a whole."""
        self.key_names: dict[str, str] = {}
        """How keys are named in what is kept, by their ids; names do not change."""
        self.wrong_passwords = Failures(settings.auth_failures_max, time.monotonic, "wrong passwords")
        self.added_members = Failures(settings.auth_failures_max, time.monotonic, "people added to this project")
        self.comments = Comments(settings.stream_comment_seconds)
        self.slots = Slots(settings.streams_max, settings.streams_per_key_max)
        self.in_flight = InFlight(settings.in_flight_bytes_max, settings.in_flight_per_address_bytes_max)
        self.connections: Callable[[], int] = lambda: 0
        self.openapi_json: Callable[[], Written] = lambda: Written("", "application/json")
        self.docs_html: Callable[[], Written] = lambda: Written("", "text/html; charset=utf-8")

    def forget_key(self, key_id: str | None) -> None:
        """A key was deleted, here or through another server: look it up again from now on, and end its sign-ins. None:
        look all of them up again, for word of some may have been lost."""
        self.gate.forget(key_id)
        if key_id is None:
            self.sign_ins.look_again()
        else:
            self.sign_ins.forget(key_id)

    def forget_user(self, user_id: str) -> None:
        """A user has signed out, or may do other things than before: look them up again from now on."""
        self.gate.forget_user(user_id)
        self.sign_ins.forget_user(user_id)

    async def signed_in(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """Who is signed in on a page by a link or a key, or may look without; None: nobody, or a user in a session."""
        if self.gate.anyone is not None:
            return self.gate.anyone
        return await self.sign_ins.checked(headers, self._still, self.settings.auth_cache_seconds)

    async def _still(self, principal: Principal, session_hash: str | None) -> bool:
        if principal.user_id is None:
            return await self.engine.projects.is_key_of(principal)
        return await self.engine.accounts.is_session_of(session_hash or "", principal)


class Call:
    """One request, as its handler sees it."""

    __slots__ = (
        "_receive",
        "_scope",
        "body",
        "extra",
        "headers",
        "held",
        "known",
        "principal",
        "project_id",
        "route",
        "services",
    )

    def __init__(
        self, services: Services, route: "Route", scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]
    ) -> None:
        self.services = services
        self.route = route
        self.headers = headers
        self.body = b""
        self.extra: tuple[Header, ...] = ()
        """Headers that the answer has besides those of every answer."""
        self.principal: Principal | None = None
        self.known = False
        """Whether the caller has shown a key, a session or a signed link."""
        self.held: Share | None = None
        """What of its body the server holds."""
        self.project_id = ""
        self._scope = scope
        self._receive = receive

    def goes_on(self, cursor: str | None) -> None:
        """Say where a list goes on whose answer, being an array, has no place for it."""
        if cursor is not None:
            self.extra = ((b"next-cursor", cursor.encode()),)

    @property
    def engine(self) -> Engine:
        return self.services.engine

    @property
    def settings(self) -> Settings:
        return self.services.settings

    @property
    def address(self) -> str:
        """Where it came from."""
        client = self._scope.get("client")
        return client[0] if client else ""

    def session_cookie(self, token: str, seconds: float) -> Header:
        """The header that gives the caller's browser a session, or (with no seconds) takes it away."""
        tls = self._scope.get("scheme") == "https"
        return self.services.gate.cookies.header(self.headers, token, seconds, tls=tls)

    @property
    def user_id(self) -> str | None:
        """Which user calls; None for a key."""
        return None if self.principal is None else self.principal.user_id

    @property
    def raw_path(self) -> bytes:
        """The path as it was sent."""
        found: bytes = self._scope["raw_path"]
        return found

    @property
    def raw_query(self) -> bytes:
        """The query as it was sent."""
        found: bytes = self._scope["query_string"]
        return found

    @property
    def connection(self) -> Connection | None:
        """The connection it came over; None where there is none (a server that is called in the same process)."""
        found: Connection | None = self._scope.get("extensions", {}).get(EXTENSION)
        return found

    def header(self, name: bytes) -> str | None:
        """A header as text. Raises `BadRequest` when it is not UTF-8."""
        value = self.headers.get(name)
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"The header {name.decode()} is not UTF-8.") from None

    async def read_body(self, content_type: bytes, bytes_max: int) -> bytes:
        """The body of a route that takes no JSON: of this type, and at most so long."""
        return await read_body(self._receive, self.headers, bytes_max, self._hold(), content_type)

    async def read(self, kind: type[S]) -> S:
        """The body of a route whose handler finds out first who calls. Raises what is wrong with the body."""
        body = await self.route.read(self)
        assert isinstance(body, kind)
        return body

    def _hold(self) -> Callable[[int], None]:
        self.held = held = Share(self.services.in_flight, self.address, known=self.known)
        return held.add

    async def identify(self, role: Role, path_values: tuple[str, ...] = (), *, alone: bool = False) -> Principal:
        """Who calls: a key, or a user in the project that they name, of this role; `alone` needs no project of a user.
        Raises what `Gate.principal` does, `Forbidden` for the role, `NotFound` for another project."""
        gate = self.services.gate
        named = self._projects_named(path_values)
        principal = await gate.principal(
            self.headers, self.address, named[0] if named else None, safe=self.route.safe, alone=alone
        )
        check_role(principal, role)
        if principal.project_id:
            for project_id in named:
                gate.check_project(principal, project_id)
        self.principal = principal
        self.recognize()
        self.project_id = principal.project_id
        return principal

    async def identify_user(self) -> None:
        """Which user calls, without a project. Raises what `Gate.user` does."""
        self.principal = await self.services.gate.user(self.headers, self.address, safe=self.route.safe)
        self.recognize()

    def recognize(self) -> None:
        """The caller has shown a key, a session or a signed link."""
        self.known = True
        if self.connection is not None:
            self.connection.recognize()

    def _projects_named(self, path_values: tuple[str, ...]) -> list[str]:
        """The projects that a request names, in its path and its headers, and in the query where no key tells it."""
        named: list[str] = []
        at = self.route.project_at
        if at is not None:
            named.append(checked_id(path_values[at], "project"))
        for name in _PROJECT_HEADERS:
            if name in self.headers:
                value = self.header(name)
                if value:
                    named.append(value)
        if not named and b"authorization" not in self.headers:
            # A page's EventSource can send no headers. What cannot be read is refused when the query is decoded.
            for field, value in parse_qsl(self._scope["query_string"].decode("latin-1"), errors="replace"):
                if field == "project_id":
                    if "\0" in value:
                        raise _holds_nul(field)
                    named.append(value)
        return named

    def poll(self, *, until_closing: bool = True) -> Poll:
        """A block that may take long: it notices when the client leaves or the server goes away."""
        return Poll(self._receive, self.services.drain, until_closing=until_closing)

    async def raw_body(self) -> bytes:
        """The body of a route that has none in the table, whatever it is. Raises `TooLarge`."""
        return await read_bytes(self._receive, self.headers, self.route.bytes_max(self.settings), self._hold())

    def has_role(self, role: Role) -> bool:
        """Whether the caller may do what needs this role."""
        return self.principal is not None and has_role(self.principal, role)

    def check_project(self, project_id: str | None) -> None:
        """A request may repeat its project, in the query or the body. Raises `NotFound` for another."""
        if project_id is not None and self.principal is not None:
            self.services.gate.check_project(self.principal, project_id)


class Route:
    """One row of the table."""

    def __init__(
        self,
        method: Method,
        path: str,
        handler: Handler,
        *,
        tag: str,
        role: Role | None,
        caller: Caller,
        contract: bool,
        idempotent: bool,
        headers: tuple[str, ...],
        media_type: str,
        raw_body: tuple[str, ...] = (),
        body: type[Struct] | None = None,
        body_bytes_max: int = USUAL,
        lists: Mapping[str, Most] | None = None,
        asks: bool = False,
        rest: bool = False,
        paged: bool = False,
        acts: bool = False,
    ) -> None:
        self.acts = acts
        """Whether a GET takes something: HEAD, whose answer nobody gets, is not served then."""
        self.rest = rest
        self.paged = paged
        """Whether its answers say in a header where the list goes on."""
        if (role is None) == (caller in (Caller.PROJECT, Caller.EITHER)):
            raise TypeError(f"{method} {path}: a role belongs to routes for keys and members, and to no others")
        self.method = method
        self.path = path
        self.handler = handler
        self.tag = tag
        self.role = role
        self.caller = caller
        self.safe = method == "GET" and role in (None, Role.READ)
        self.contract = contract
        self.idempotent = idempotent
        self.headers = headers
        self.media_type = media_type
        self.raw_body = raw_body
        """The forms of a body that the handler reads for itself."""
        self.body_bytes_max = body_bytes_max
        self.lists = lists or {}
        """Lists of the body that have a limit: they are counted before a large body is decoded."""
        self.asks = asks
        """Whether its handler finds out itself who calls: a key, or something that stands in for one."""
        self.name = handler.__name__
        self.doc = inspect.cleandoc(handler.__doc__ or "")
        types = get_type_hints(handler, include_extras=True)
        self.path_names = tuple(part[1:-1] for part in path.split("/") if part.startswith("{"))
        self.project_at = self.path_names.index("project_id") if "project_id" in self.path_names else None
        self.body_type: type[Struct] | None = body or types.get("body")
        self._reads = "body" in types
        """Whether the body is read before the handler is called; otherwise the handler does it (`Call.read`)."""
        self.query_type: type[Struct] | None = types.get("query")
        self.reply_type: Any = types["return"]
        parameters = list(inspect.signature(handler).parameters)[1:]
        wanted = [*self.path_names, *(name for name in ("query", "body") if name in types)]
        if parameters != wanted:
            raise TypeError(f"{self.name} takes {parameters}, but {method} {path} gives {wanted}")
        self._decode = None if self.body_type is None else msgspec.json.Decoder(self.body_type).decode
        self._fields = {} if self.query_type is None else _query_fields(self.query_type)

    async def answer(self, call: Call, path_values: tuple[str, ...]) -> object:
        """Decode what belongs to the request and ask the handler."""
        values: tuple[object, ...] = path_values
        if self.query_type is not None:
            values = (*values, self.decode_query(call._scope["query_string"]))
        if self._reads:
            values = (*values, await self.read(call))
        return await self.handler(call, *values)

    def bytes_max(self, settings: Settings) -> int:
        """The largest body it takes."""
        return min(self.body_bytes_max, settings.request_bytes_max)

    async def read(self, call: Call) -> Struct:
        """The body as its struct. Raises what is wrong with it."""
        assert self._decode is not None
        call.body = body = await read_body(call._receive, call.headers, self.bytes_max(call.settings), call._hold())
        if len(body) >= COUNTED_BYTES_MIN and self.lists:
            check_lists(body, self.lists)
        try:
            if not body.isascii():
                body.decode()  # fields that nobody knows are skipped unread
            decoded: Struct = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise undecodable(body, error, self.body_type) from None
        return decoded

    def decode_query(self, query_string: bytes) -> Struct:
        """The query as its struct. Raises `BadRequest` with the name of the parameter."""
        assert self.query_type is not None
        values: dict[str, object] = {}
        try:
            pairs = parse_qsl(
                query_string.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=QUERY_FIELDS_MAX,
                errors="strict",
            )
        except ValueError as error:
            raise BadRequest(f"The query is not one that can be read: {error}") from None
        for name, value in pairs:
            if "\0" in value:
                raise _holds_nul(name)
            many = self._fields.get(name)
            if many is None:
                if self.contract:
                    continue
                known = ", ".join(self._fields)
                raise BadRequest(f"query.{name}: there is no such parameter; known are: {known}", {"path": name})
            if many:
                known_values = values.setdefault(name, [])
                assert isinstance(known_values, list)
                known_values.extend(part for part in value.split(",") if part)
            elif name in values:
                raise BadRequest(f"query.{name}: is given twice", {"path": name})
            else:
                values[name] = value
        try:
            return msgspec.convert(values, self.query_type, strict=False)
        except msgspec.ValidationError as error:
            problem = shape_problem(error, "query")
            raise BadRequest(problem.message, problem.details) from None


class Routes:
    """The routes of one noun, in the order in which they are documented."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[Route] = []

    def route(
        self,
        method: Method,
        path: str,
        *,
        role: Role | None,
        caller: Caller | None = None,
        contract: bool = False,
        idempotent: bool = False,
        headers: tuple[str, ...] = (),
        media_type: str = "application/json",
        raw_body: tuple[str, ...] = (),
        body: type[Struct] | None = None,
        body_bytes_max: int = USUAL,
        lists: Mapping[str, Most] | None = None,
        asks: bool = False,
        rest: bool = False,
        paged: bool = False,
        acts: bool = False,
    ) -> Callable[[Handler], Handler]:
        """A row of the table. Who may call it follows from its role, where `caller` does not say otherwise. `rest`: the
        last name in the path takes slashes, too: all that is left, or all before one part that is spelled out. `body`:
        what the handler reads by `Call.read`, once it knows who calls."""

        def add(handler: Handler) -> Handler:
            self.all.append(
                Route(
                    method,
                    path,
                    handler,
                    tag=self.tag,
                    role=role,
                    caller=caller or (Caller.ANYONE if role is None else Caller.PROJECT),
                    contract=contract,
                    idempotent=idempotent,
                    headers=headers,
                    media_type=media_type,
                    raw_body=raw_body,
                    body=body,
                    body_bytes_max=body_bytes_max,
                    lists=lists,
                    asks=asks,
                    rest=rest,
                    paged=paged,
                    acts=acts,
                )
            )
            return handler

        return add

    def get(
        self,
        path: str,
        *,
        role: Role | None = Role.READ,
        caller: Caller | None = None,
        contract: bool = False,
        headers: tuple[str, ...] = (),
        media_type: str = "application/json",
        asks: bool = False,
        rest: bool = False,
        paged: bool = False,
        acts: bool = False,
    ) -> Callable[[Handler], Handler]:
        return self.route(
            "GET",
            path,
            role=role,
            caller=caller,
            contract=contract,
            headers=headers,
            media_type=media_type,
            asks=asks,
            rest=rest,
            paged=paged,
            acts=acts,
        )

    def post(
        self,
        path: str,
        *,
        role: Role | None = Role.WRITE,
        caller: Caller | None = None,
        contract: bool = False,
        idempotent: bool = False,
        headers: tuple[str, ...] = (),
        body: type[Struct] | None = None,
        body_bytes_max: int = USUAL,
        lists: Mapping[str, Most] | None = None,
        asks: bool = False,
        rest: bool = False,
    ) -> Callable[[Handler], Handler]:
        return self.route(
            "POST",
            path,
            role=role,
            caller=caller,
            contract=contract,
            idempotent=idempotent,
            headers=headers,
            body=body,
            body_bytes_max=body_bytes_max,
            lists=lists,
            asks=asks,
            rest=rest,
        )

    def delete(
        self, path: str, *, role: Role | None = Role.WRITE, contract: bool = False
    ) -> Callable[[Handler], Handler]:
        return self.route("DELETE", path, role=role, contract=contract)


def _holds_nul(name: str) -> BadRequest:
    return BadRequest(f"query.{name}: holds a NUL character, which no name does", {"path": name})


def _query_fields(query_type: type[Struct]) -> dict[str, bool]:
    """The parameters, and whether each may come many times."""
    return {field.encode_name: "list[" in str(field.type) for field in msgspec.structs.fields(query_type)}


_PROJECT_HEADERS: Final = (b"x-project-id", b"project-id")
