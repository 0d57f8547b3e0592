"""MCP over HTTP. Each request is complete, so any server of a store answers the next request."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import structs
from starlette.types import Message, Receive

from perdure.engine.base import service
from perdure.mcp.asking import Ask, AskCaller
from perdure.server.http.problems import Reply
from perdure.server.http.routing import RouteCall, Routes
from perdure.wire.base.access import Role
from perdure.wire.base.codec import has_more_parts
from perdure.wire.base.errors import NotFound, TooLarge, Unavailable
from perdure.wire.base.limits import VALUE_BYTES_MAX
from perdure.wire.base.operation import Operation

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

R = TypeVar("R")

BODY_BYTES_MAX: Final = VALUE_BYTES_MAX + (64 << 10)
"""Most bytes of a body: a value as an argument, and the surrounding request."""
PARTS_MAX: Final = 30_000
"""Most parts of a body. The library takes a microsecond for each part, and blocks the event loop."""

CALL: Final = "perdure.call"
_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class ToolServer:
    def __init__(self) -> None:
        self._begun: asyncio.Task[StreamableHTTPSessionManager] | None = None
        self._running: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    async def answer(self, call: RouteCall, body: bytes) -> Reply:
        """Raises `TooLarge`, and `NotFound` if the library is not installed."""
        if has_more_parts(body, PARTS_MAX):
            raise TooLarge(f"body: more than {PARTS_MAX:,} entries and names; start large inputs over the HTTP API.")
        if self._begun is None:
            self._begun = asyncio.ensure_future(self._begin(call.settings.request_bytes_max))
        manager = await asyncio.shield(self._begun)
        reply = _Reply()
        await manager.handle_request({**call.asgi_scope, CALL: call}, _once(body), reply.send)
        return Reply(reply.status, bytes(reply.body), (*reply.headers, *_HEADERS))

    async def _begin(self, bytes_max: int) -> "StreamableHTTPSessionManager":
        manager = await asyncio.to_thread(_load, bytes_max)
        ready = asyncio.Event()
        self._running = asyncio.create_task(self._run_manager(manager, ready), name="perdure-mcp")
        await ready.wait()
        return manager

    async def _run_manager(self, manager: "StreamableHTTPSessionManager", ready: asyncio.Event) -> None:
        async with manager.run():
            ready.set()
            await self._ending.wait()

    async def stop(self) -> None:
        self._ending.set()
        if self._running is not None:
            await self._running


def _load(bytes_max: int) -> "StreamableHTTPSessionManager":
    try:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    except ModuleNotFoundError as error:
        raise NotFound("This server does not serve MCP; install `perdure[mcp]` where it runs.") from error
    from perdure.mcp.server import Tools

    # It says "Terminating session: None" of each request.
    logging.getLogger("mcp.server.streamable_http").setLevel(logging.WARNING)
    server = Tools(_caller_of).server()
    # The router has checked host, origin and size.
    return StreamableHTTPSessionManager(server, stateless=True, json_response=True, max_request_body_size=bytes_max)


def _caller_of(ctx: "ServerRequestContext[Any, Any]") -> AskCaller:
    assert ctx.request is not None
    call: RouteCall = ctx.request.scope[CALL]
    assert call.principal is not None
    return AskCaller(_asking(call), call.principal.role)


def _asking(call: RouteCall) -> Ask:
    """A tool call checks an operation's role like the router checks a route's."""

    async def ask(op: Operation[R], key: str | None = None) -> R:
        assert call.principal is not None and op.endpoint.role is not None
        call.check_role(call.principal, op.endpoint.role)
        held = op.endpoint.options.get("held")
        if held is not None and (getattr(op, held) or 0) > call.settings.poll_seconds_max:
            op = structs.replace(op, **{held: call.settings.poll_seconds_max})
        once = None if key is None else service.once(op, key)
        return await call.engine.serve(service.Scope(call.project_id, once, call.principal, call.poll), op)

    return ask


def _once(body: bytes) -> Receive:
    """The rest of the connection belongs to the waits of operations."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise Unavailable("The event is never set.")

    return receive


class _Reply:
    def __init__(self) -> None:
        self.status = 500
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = tuple(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


routes = Routes("MCP")


@routes.post(
    "/mcp",
    repeated="a repeated `start_execution` with its `key` starts nothing; other tool calls count again",
    role=Role.READ,
    raw_body=("application/json",),
    body_bytes_max=BODY_BYTES_MAX,
)
async def mcp(call: RouteCall) -> Reply:
    """The Model Context Protocol over streamable HTTP, without sessions.

    Each tool checks the role of its operation. Every workflow and agent is a tool, run as a task.
    """
    return await call.services.answer_mcp(call, await call.raw_body())
