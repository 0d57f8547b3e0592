"""The typed route table. A handler's signature gives its decoding and documentation.

    routes = Routes("Executions")

    @routes.post("/api/v1/executions/{execution_id}/cancel", contract=True)
    async def cancel_execution(call: RouteCall, execution_id: str) -> CancelExecutionResponse:
        '''Ask for cancellation.'''

Parameters are the call, the path's names, `query` and `body`. The reply is a struct, a list of structs, `None` (204),
`Reply` or `EventStream`.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict, TypeVar, Unpack, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope

from perdure.engine.engine import Engine
from perdure.server.access.auth import Failures, Gate
from perdure.server.access.cookies import COOKIE
from perdure.server.access.signin import SignIns
from perdure.server.http.bodies import USUAL, BodyCount, judge_values, read_body, read_bytes
from perdure.server.http.cached_document import CachedDocument
from perdure.server.http.connections import EXTENSION, ServerConnection
from perdure.server.http.in_flight import RequestsInFlight, Share
from perdure.server.http.problems import Header, Reply, shape_problem, undecodable
from perdure.server.http.streams import Comments, Slots, StreamDrain, StreamPoll
from perdure.server.http.topic_followers import Tails
from perdure.server.process.dev import Dev
from perdure.server.process.settings import Settings
from perdure.server.telemetry.health import Health
from perdure.wire.base.access import Caller, Principal, Role, check_role
from perdure.wire.base.codec import forget_judged
from perdure.wire.base.errors import BadRequest, NotFound, ReadOnly
from perdure.wire.base.fields import checked_id
from perdure.wire.base.record import expression, function

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Handler = Callable[..., Awaitable[object]]
S = TypeVar("S", bound=Struct)

QUERY_FIELDS_MAX: Final = 100


async def _no_mcp(call: "RouteCall", body: bytes) -> Reply:
    raise NotFound("This server does not serve MCP.")


class ServerServices:
    def __init__(self, engine: Engine, settings: Settings, gate: Gate, own: Principal | None = None) -> None:
        self.engine = engine
        self.own = own
        """The caller of the process's own key."""
        self.dev: Dev | None = None
        """The server's session of `perdure dev`."""
        self.read_only: str | None = None
        """The refusal of each change, if the server only reads."""
        self.settings = settings
        self.gate = gate
        self.health = Health(lambda: engine.health())
        self.drain = StreamDrain()
        self.sign_ins = SignIns(gate.cookies)
        gate.page_session = self.page_session
        self.tails = Tails(engine)
        self.default_project_id = ""
        """The project of operators, who see the whole server."""
        self.wrong_passwords = Failures(settings.auth_failures_max, time.monotonic, "wrong passwords")
        self.added_members = Failures(settings.auth_failures_max, time.monotonic, "people added to this project")
        self.comments = Comments(settings.stream_comment_seconds)
        self.slots = Slots(settings.streams_max, settings.streams_per_key_max)
        self.in_flight = RequestsInFlight(settings.in_flight_bytes_max, settings.in_flight_per_address_bytes_max)
        self.connections: Callable[[], int] = lambda: 0
        self.openapi_json: Callable[[], CachedDocument] = lambda: CachedDocument(b"", "application/json")
        self.answer_mcp: Callable[[RouteCall, bytes], Awaitable[Reply]] = _no_mcp
        self.docs_html: Callable[[], CachedDocument] = lambda: CachedDocument(b"", "text/html; charset=utf-8")

    def forget_key(self, key_id: str | None) -> None:
        """None: notifications may be lost, so all keys are looked up again."""
        self.gate.forget(key_id)
        if key_id is None:  # open streams look again by themselves
            self.sign_ins.look_again()
        else:
            self.sign_ins.forget(key_id)
            self.drain.end_of(lambda caller: caller.key_id == key_id)

    def forget_user(self, user_id: str) -> None:
        self.gate.forget_user(user_id)
        self.sign_ins.forget_user(user_id)
        self.drain.end_of(lambda caller: caller.user_id == user_id)

    async def signed_in(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """The caller on a page, from a link, a key or `--insecure-local`. None for users' sessions."""
        if self.gate.anyone is not None:
            return self.gate.anyone
        return await self.page_session(headers)

    async def page_session(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """The caller whose key or sign-in link began the session of the cookie."""
        return await self.sign_ins.checked(headers, self._still, self.settings.auth_cache_seconds)

    async def _still(self, principal: Principal, session_hash: str | None) -> bool:
        if principal is self.own:
            return True
        if principal.user_id is None:
            return await self.engine.projects.is_key_of(principal)
        return await self.engine.accounts.is_session_of(session_hash or "", principal)


class RouteCall:
    __slots__ = (
        "_receive",
        "_scope",
        "body",
        "extra",
        "headers",
        "held",
        "judged",
        "known",
        "principal",
        "project_id",
        "route",
        "services",
    )

    def __init__(
        self, services: ServerServices, route: "Route", scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]
    ) -> None:
        self.services = services
        self.route = route
        self.headers = headers
        self.body = b""
        self.extra: tuple[Header, ...] = ()
        self.principal: Principal | None = None
        self.known = False
        """The caller has shown a key, a session or a signed link."""
        self.held: Share | None = None
        self.judged: Sequence[bytes] = ()
        """Values checked while other requests got turns."""
        self.project_id = ""
        self._scope = scope
        self._receive = receive

    def goes_on(self, cursor: str | None) -> None:
        """Send the next page's cursor as a header, because the body is a bare array."""
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
        client = self._scope.get("client")
        return client[0] if client else ""

    def session_cookie(self, token: str, seconds: float, *, name: str = COOKIE) -> Header:
        """Zero seconds delete the cookie."""
        tls = self._scope.get("scheme") == "https"
        return self.services.gate.cookies.header(self.headers, token, seconds, tls=tls, name=name)

    @property
    def user_id(self) -> str | None:
        """Returns None for a key."""
        return None if self.principal is None else self.principal.user_id

    @property
    def asgi_scope(self) -> Scope:
        return self._scope

    @property
    def raw_path(self) -> bytes:
        found: bytes = self._scope["raw_path"]
        return found

    @property
    def raw_query(self) -> bytes:
        found: bytes = self._scope["query_string"]
        return found

    @property
    def connection(self) -> ServerConnection | None:
        """None if the server is called in the same process."""
        found: ServerConnection | None = self._scope.get("extensions", {}).get(EXTENSION)
        return found

    def header(self, name: bytes) -> str | None:
        """Raises `BadRequest`."""
        value = self.headers.get(name)
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"The header {name.decode()} is not UTF-8.") from None

    async def read_body(self, content_type: bytes, bytes_max: int) -> bytes:
        """Raises `UnsupportedMediaType` and `TooLarge`."""
        return await read_body(self._receive, self.headers, bytes_max, self._hold(), content_type)

    async def read(self, kind: type[S]) -> S:
        body = await self.route.read(self)
        assert isinstance(body, kind)
        return body

    def _hold(self) -> Callable[[int], None]:
        self.held = held = Share(self.services.in_flight, self.address, known=self.known)
        return held.add

    async def identify(self, role: Role, path_values: tuple[str, ...] = (), *, alone: bool = False) -> Principal:
        """Raises like `Gate.principal`, `Forbidden` for the role, and `NotFound` for another project."""
        gate = self.services.gate
        named = self._projects_named(path_values)
        principal = await gate.principal(
            self.headers, self.address, named[0] if named else None, safe=self.route.safe, alone=alone
        )
        self.check_role(principal, role)
        if principal.project_id:
            for project_id in named:
                gate.check_project(principal, project_id)
        self.principal = principal
        self.recognize()
        self.project_id = principal.project_id
        return principal

    def check_role(self, principal: Principal, role: Role) -> None:
        """Raises `ReadOnly` and `Forbidden`."""
        if self.services.read_only is not None and not principal.role.includes(role):
            raise ReadOnly(self.services.read_only)
        check_role(principal, role)

    async def identify_user(self) -> None:
        """Raises like `Gate.user`."""
        self.principal = await self.services.gate.user(self.headers, self.address, safe=self.route.safe)
        self.recognize()

    def recognize(self) -> None:
        self.known = True
        if self.connection is not None:
            self.connection.recognize()

    def _projects_named(self, path_values: tuple[str, ...]) -> list[str]:
        """The projects named in the path and headers; without these and a key, in the query."""
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
            # An EventSource cannot send headers. Decoding the query refuses unreadable text later.
            for field, value in parse_qsl(self._scope["query_string"].decode("latin-1"), errors="replace"):
                if field == "project_id":
                    if "\0" in value:
                        raise _holds_nul(field)
                    named.append(value)
        return named

    def poll(self, *, until_closing: bool = True) -> StreamPoll:
        return StreamPoll(self._receive, self.services.drain, until_closing=until_closing, caller=self.principal)

    def poll_of_worker(self) -> StreamPoll:
        """The engine ends a worker's poll on a drain, to send work already handed out."""
        return self.poll(until_closing=False)

    @property
    def leases(self) -> dict[str, int] | None:
        connection = self.connection
        return None if connection is None else connection.workers

    async def raw_body(self) -> bytes:
        """Raises `TooLarge`."""
        return await read_bytes(self._receive, self.headers, self.route.bytes_max(self.settings), self._hold())

    @property
    def has_body(self) -> bool:
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"

    def has_role(self, role: Role) -> bool:
        return self.principal is not None and self.principal.role.includes(role)

    def check_project(self, project_id: str | None) -> None:
        """Raises `NotFound` if the request names another project."""
        if project_id is not None and self.principal is not None:
            self.services.gate.check_project(self.principal, project_id)


class RouteOptions(TypedDict, total=False):
    role: Role | None
    caller: Caller
    contract: bool
    bodiless: bool
    idempotent: bool
    repeated: str | None
    """See operations."""
    headers: tuple[str, ...]
    media_type: str
    raw_body: tuple[str, ...]
    """Media types, if the handler reads the body."""
    body: type[Struct] | None
    """The body's type, if the handler uses `RouteCall.read`."""
    body_bytes_max: int
    asks: bool
    """The handler authenticates the caller."""
    rest: bool
    """The last name matches slashes, up to a literal last segment."""
    paged: bool
    acts: bool
    """A GET with an effect, so HEAD is not served."""
    also: tuple[str, ...]
    """First segments of further paths, which the route answers if no other route does."""


class Route:
    def __init__(self, method: Method, path: str, handler: Handler, tag: str, **options: Unpack[RouteOptions]) -> None:
        self.method = method
        self.path = path
        self.handler = handler
        self.tag = tag
        self.role = role = options.get("role")
        self.caller = caller = options.get("caller") or (Caller.ANYONE if role is None else Caller.PROJECT)
        if (role is None) == (caller in (Caller.PROJECT, Caller.EITHER)):
            raise TypeError(f"{method} {path}: a role belongs to routes for keys and members, and to no others")
        self.safe = method == "GET" and role in (None, Role.READ)
        self.contract = options.get("contract", False)
        self.bodiless = options.get("bodiless", False)
        self.idempotent = options.get("idempotent", False)
        self.repeated = options.get("repeated")
        self.headers = options.get("headers", ())
        self.media_type = options.get("media_type", "application/json")
        self.raw_body = options.get("raw_body", ())
        self.body_bytes_max = options.get("body_bytes_max", USUAL)
        self.asks = options.get("asks", False)
        self.rest = options.get("rest", False)
        self.paged = options.get("paged", False)
        self.acts = options.get("acts", False)
        self.also = options.get("also", ())
        self.name = handler.__name__
        self.doc = inspect.cleandoc(handler.__doc__ or "")
        types = get_type_hints(handler, include_extras=True)
        self.path_names = tuple(part[1:-1] for part in path.split("/") if part.startswith("{"))
        self.project_at = self.path_names.index("project_id") if "project_id" in self.path_names else None
        self.body_type: type[Struct] | None = options.get("body") or types.get("body")
        self._reads = "body" in types
        """False: the handler calls `RouteCall.read`."""
        parameters = inspect.signature(handler).parameters
        own = [(one.name, types[one.name], one.default) for one in parameters.values() if one.kind is one.KEYWORD_ONLY]
        self.query_type: type[Struct] | None = types.get("query") or (
            msgspec.defstruct(self.name, own) if own else None
        )
        self._keywords = [name for name, *_ in own]
        env: dict[str, Any] = {}
        self.reply_type, text = expression(types["return"], "reply", env, writing=True)
        self._show = None if text == "reply" else function("reply", text, env)
        taken = list(parameters)[1:]
        wanted = [*self.path_names, *(name for name in ("query", "body") if name in types), *self._keywords]
        if taken != wanted:
            raise TypeError(f"{self.name} takes {taken}, but {method} {path} gives {wanted}")
        self._decode = None if self.body_type is None else msgspec.json.Decoder(self.body_type).decode
        self._count = None if self.body_type is None else BodyCount(self.body_type)
        self._fields = {} if self.query_type is None else _query_fields(self.query_type)

    async def answer(self, call: RouteCall, path_values: tuple[str, ...]) -> object:
        values: tuple[object, ...] = path_values
        keywords: dict[str, object] = {}
        if self.query_type is not None:
            query = self.decode_query(call._scope["query_string"])
            if self._keywords:
                keywords = {name: getattr(query, name) for name in self._keywords}
            else:
                values = (*values, query)
        try:
            if self._reads:
                values = (*values, await self.read(call))
            reply = await self.handler(call, *values, **keywords)
        finally:
            forget_judged(call.judged)
        return reply if self._show is None else self._show(reply)

    def bytes_max(self, settings: Settings) -> int:
        return min(self.body_bytes_max, settings.request_bytes_max)

    async def read(self, call: RouteCall) -> Struct:
        assert self._decode is not None and self._count is not None
        if self.bodiless and not call.has_body:
            default: Struct = self._decode(b"{}")
            return default
        call.body = body = await read_body(call._receive, call.headers, self.bytes_max(call.settings), call._hold())
        try:
            if self._count.check(body):
                await asyncio.sleep(0)
            if not body.isascii():
                body.decode()  # msgspec skips unknown fields without checking that they are UTF-8
            decoded: Struct = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise undecodable(body, error, self.body_type) from None
        call.judged = await judge_values(body, decoded)
        return decoded

    def decode_query(self, query_string: bytes) -> Struct:
        assert self.query_type is not None
        values: dict[str, object] = {}
        try:
            pairs = parse_qsl(
                query_string.decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict"
            )
        except ValueError as error:
            raise BadRequest(f"The query cannot be read: {error}") from None
        for name, value in pairs:
            if "\0" in value:
                raise _holds_nul(name)
            many = self._fields.get(name)
            if many is None:
                if self.contract:
                    continue
                known = ", ".join(self._fields)
                raise BadRequest(f"query.{name}: is not a parameter; known are: {known}", {"path": name})
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
            problem = shape_problem(error, "query", self.query_type)
            raise BadRequest(problem.message, problem.details) from None


class Routes:
    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[Route] = []

    def route(self, method: Method, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.all.append(Route(method, path, handler, self.tag, **options))
            return handler

        return add

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        options.setdefault("role", Role.READ)
        return self.route("GET", path, **options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        options.setdefault("role", Role.WRITE)
        return self.route("POST", path, **options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        options.setdefault("role", Role.WRITE)
        return self.route("DELETE", path, **options)


def _holds_nul(name: str) -> BadRequest:
    return BadRequest(f"query.{name}: holds a NUL character, which no name does", {"path": name})


def _query_fields(query_type: type[Struct]) -> dict[str, bool]:
    """The parameters, and whether each may be repeated."""
    return {field.encode_name: "list[" in str(field.type) for field in msgspec.structs.fields(query_type)}


_PROJECT_HEADERS: Final = (b"x-project-id", b"project-id")
