"""Finds a request's route and sends the answer."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct
from starlette.types import Message, Receive, Scope, Send

from perdure.server.http.connections import EXTENSION, ServerConnection
from perdure.server.http.problems import Reply, internal_problem, json_headers, problem_reply
from perdure.server.http.routing import Route, RouteCall, ServerServices
from perdure.server.http.streams import ClientGone, EventStream
from perdure.wire.base.access import Caller
from perdure.wire.base.errors import BadRequest, Forbidden, MethodNotAllowed, NotFound, PerdureError, Unauthorized

# A proxy may have read the other one of two.
_ONCE: Final = (
    b"host",
    b"authorization",
    b"cookie",
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"origin",
    b"sec-fetch-site",
    b"idempotency-key",
    b"x-project-id",
    b"project-id",
    b"last-event-id",
    b"perdure-protocol",
)
_API: Final = (b"/api/", b"/worker/", b"/v1/", b"/mcp", b"/assets/")
"""Addresses of programs."""


class _Node:
    """`named` holds literals, `any` a parameter, `rest` a parameter for all remaining segments."""

    __slots__ = ("any", "methods", "named", "rest")

    def __init__(self) -> None:
        self.named: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.rest: _Node | None = None
        self.methods: dict[str, Route] = {}

    def find(self, parts: Sequence[str], at: int, values: list[str], method: str) -> "_Node | None":
        """Appends parameters to `values`. Literals take precedence."""
        if at == len(parts):
            return self if self.methods else None
        part = parts[at]
        named = self.named.get(part)
        if named is not None:
            found = named.find(parts, at + 1, values, method)
            if found is not None:
                return found
        if self.any is not None and part:
            values.append(part)
            found = self.any.find(parts, at + 1, values, method)
            if found is not None:
                return found
            values.pop()
        if self.rest is None or not any(parts[at:]):
            return None
        return self.rest._end(parts, at, values, method)

    def _end(self, parts: Sequence[str], at: int, values: list[str], method: str) -> "_Node | None":
        """The parameter takes all remaining segments, or all before a literal last segment. If a value itself ends with
        the literal, the method decides."""
        tail = self.named.get(parts[-1]) if any(parts[at:-1]) else None
        if tail is not None and (method in tail.methods or method not in self.methods):
            values.append("/".join(parts[at:-1]))
            return tail
        if not self.methods:
            return None
        values.append("/".join(parts[at:]))
        return self


class Router:
    def __init__(self, services: ServerServices, routes: Iterable[Route]) -> None:
        self.services = services
        self.routes = list(routes)
        self._static: dict[bytes, dict[str, Route]] = {}
        self._root = _Node()
        self._also: dict[str, dict[str, Route]] = {
            segment: {route.method: route} for route in self.routes for segment in route.also
        }
        for route in self.routes:
            node = self._root
            parts = route.path.split("/")[1:]
            last = max((at for at, part in enumerate(parts) if part.startswith("{")), default=None)
            for at, part in enumerate(parts):
                if route.rest and at == last:
                    node.rest = node = node.rest or _Node()
                elif part.startswith("{"):
                    node.any = node = node.any or _Node()
                else:
                    node = node.named.setdefault(part, _Node())
            node.methods[route.method] = route
            if not route.path_names:
                self._static[route.path.encode()] = node.methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            answer = await self._respond(scope, receive, headers)
        except PerdureError as error:
            answer = problem_reply(error)
        except ClientGone:
            return
        except Exception as error:  # a handler's bug must not stop the server
            answer = problem_reply(internal_problem(error, f"{scope['method']} {scope['path']}"))
        connection: ServerConnection | None = scope.get("extensions", {}).get(EXTENSION)
        if type(answer) is Reply:
            if connection is not None and connection.sends_by(send):
                await connection.answer(answer.status, answer.headers, answer.body)
                return
            start: Message = {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
            await send(start)
            await send({"type": "http.response.body", "body": answer.body})
        else:
            assert isinstance(answer, _Streaming)
            await answer.send(scope, receive, send, connection)

    async def _respond(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> "Reply | _Streaming":
        services = self.services
        if len(headers) != len(scope["headers"]):
            _refuse_doubled(scope["headers"])
        services.gate.check_source(headers)
        try:
            route, path_values = self._find(scope)
        except NotFound:
            if (page := self._page(scope, headers)) is None:
                raise
            route, path_values = page, ()
        call = RouteCall(services, route, scope, receive, headers)
        if route.role is not None:
            await call.identify(route.role, path_values, alone=route.caller is Caller.EITHER)
        elif route.caller is Caller.USER:
            await call.identify_user()
        try:
            result = await route.answer(call, path_values)
        finally:
            if call.held is not None:
                call.held.release()
        if (isinstance(result, Struct) and type(result) is not Reply) or isinstance(result, list):
            body = _encode(result)
            return Reply(200, body, json_headers(len(body), call.extra))
        if result is None:
            return _NO_CONTENT
        if isinstance(result, Reply):
            return result
        assert isinstance(result, EventStream)
        return _Streaming(call, path_values, result)

    def _find(self, scope: Scope) -> tuple[Route, tuple[str, ...]]:
        method: str = scope["method"]
        raw: bytes = scope["raw_path"]
        values: tuple[str, ...] = ()
        methods = self._static.get(raw)
        if methods is None:
            methods, values = self._walk(raw, "GET" if method == "HEAD" else method)
        route = methods.get(method)
        if route is None:
            get = methods.get("GET")
            head = get if get is not None and not get.acts else None
            if head is None or method != "HEAD":
                allowed = [*methods, *(["HEAD"] if head is not None else [])]
                raise MethodNotAllowed(f"{method} is not served here; use {' or '.join(allowed)}.", {"allow": allowed})
            route = head
        return route, values

    def _page(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Route | None:
        """An unknown address outside the API: a person in a browser gets a page in place of JSON."""
        asked: bytes = scope["raw_path"]
        if b"text/html" not in headers.get(b"accept", b"") or asked.startswith(_API):
            return None
        return self._static.get(b"/", {}).get("GET") if scope["method"] in ("GET", "HEAD") else None

    def _walk(self, raw: bytes, method: str) -> tuple[dict[str, Route], tuple[str, ...]]:
        # Split before decoding: a name may hold a slash as %2F.
        try:
            parts = [(unquote_to_bytes(part) if b"%" in part else part).decode() for part in raw.split(b"/")[1:]]
        except UnicodeDecodeError:
            raise BadRequest("The path is not UTF-8.") from None
        if b"%00" in raw:  # PostgreSQL refuses such a name even in a query
            raise BadRequest("The path holds a NUL character, which no name does.")
        values: list[str] = []
        node = self._root.find(parts, 0, values, method)
        if node is None and parts and parts[0] in self._also:
            return self._also[parts[0]], ()
        if node is None:
            raise NotFound(f"There is nothing at {raw.decode('latin-1')!r}; /docs shows what there is.")
        return node.methods, tuple(values)


class _Streaming:
    def __init__(self, call: RouteCall, path_values: tuple[str, ...], stream: EventStream) -> None:
        self._call = call
        self._path_values = path_values
        self._stream = stream

    async def send(self, scope: Scope, receive: Receive, send: Send, connection: ServerConnection | None) -> None:
        services = self._call.services
        caller = self._call.principal
        assert caller is not None
        key_id = caller.key_id
        if scope["method"] == "HEAD":
            await self._stream.send_head(send)
            return
        try:
            services.slots.take(key_id)
        except PerdureError as error:
            await self._stream.drop()
            reply = problem_reply(error)
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})
            return
        try:
            seconds = services.settings.stream_seconds_max
            await self._stream.send(
                receive,
                send,
                services.drain,
                seconds,
                may_go_on=self._may_go_on,
                comments=services.comments,
                connection=connection,
                caller=caller,
                look_seconds=min(seconds, services.settings.auth_cache_seconds or LOOK_SECONDS),
            )
        except ClientGone:
            pass
        finally:
            services.slots.give_back(key_id)

    async def _may_go_on(self) -> bool:
        route = self._call.route
        assert route.role is not None
        try:
            await self._call.identify(route.role, self._path_values, alone=route.caller is Caller.EITHER)
        except (Unauthorized, Forbidden, NotFound):
            return False
        except PerdureError:
            pass  # unknown for now; the next check may tell
        return True


def _refuse_doubled(headers: Iterable[tuple[bytes, bytes]]) -> None:
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and name in _ONCE:
            raise BadRequest(f"The header {name.decode()} appears twice.")
        seen.add(name)


async def lifespan(
    receive: Receive, send: Send, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> None:
    while True:
        message = await receive()
        what = message["type"].rpartition(".")[2]
        try:
            await (start if what == "startup" else stop)()
        except Exception as error:  # uvicorn must learn of it; it ends the process
            await send({"type": f"lifespan.{what}.failed", "message": str(error)})
            raise
        await send({"type": f"lifespan.{what}.complete"})
        if what == "shutdown":
            return


LOOK_SECONDS: Final = 1.0
"""Seconds between look-ups of a stream's key if keys are not cached."""
_encode: Final = msgspec.json.Encoder().encode
_NO_CONTENT: Final = Reply(204, b"", ((b"cache-control", b"no-store"),))
