"""The ASGI application and its server.

On SIGTERM the server closes its listener, ends claims, polls and streams, and lets other requests finish within
`drain_seconds`.
"""

import asyncio
import gc
import logging
import math
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from functools import cache

import msgspec
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from perdure import wire
from perdure.engine.engine import Engine
from perdure.server import routes
from perdure.server.access.auth import Gate, ProcessKey, is_loopback
from perdure.server.access.cookies import Cookies
from perdure.server.access.cors import checked_origins, with_cors
from perdure.server.http import docs, openapi
from perdure.server.http.cached_document import CachedDocument
from perdure.server.http.connections import protocol_class
from perdure.server.http.mount import mount
from perdure.server.http.router import Router, lifespan
from perdure.server.http.routing import Route, Routes, ServerServices
from perdure.server.process.settings import Settings
from perdure.server.process.signals import raise_file_limit, when_asked_to_stop
from perdure.server.routes.tool_server import ToolServer
from perdure.server.telemetry import logs
from perdure.store.base.interface import Store
from perdure.store.open import open_store
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import BadRequest, PerdureError, Unavailable
from perdure.wire.base.operation import Noun, named

logger = logging.getLogger("perdure.server")

API_VERSION = "1.0.0"
STORE_SECONDS_MAX = 60.0


@cache
def all_routes() -> Sequence[Route]:
    """Lists the routes by tag and path; executions come first."""
    tables = (*map(mount, named(wire, Noun)), *named(routes, Routes))
    listed = [route for table in tables for route in table.all]
    return sorted(listed, key=lambda route: (route.tag != "Executions", route.tag, route.path))


class App:
    def __init__(self, engine: Engine, settings: Settings, own_key: ProcessKey | None = None) -> None:
        self.engine = engine
        self.settings = settings
        authenticate = engine.projects.authenticate
        gate = Gate(
            authenticate if own_key is None else own_key.before(authenticate),
            engine.accounts.session,
            loopback=is_loopback(settings.host),
            hosts=settings.hosts,
            origins=settings.origins,
            cache_seconds=settings.auth_cache_seconds,
            failures_max=settings.auth_failures_max,
            proxies=bool(settings.proxies),
            cookies=Cookies(settings.cookie_secure, loopback=is_loopback(settings.host)),
        )
        self.failure: Exception | None = None
        self._partings: set[asyncio.Future[None]] = set()
        engine.outbound.policy.loopback = settings.insecure_local
        self.services = ServerServices(engine, settings, gate, None if own_key is None else own_key.principal)
        engine.key_deleted = self.services.forget_key
        engine.projects.admit = self.services.added_members.check
        engine.user_changed = self.services.forget_user
        self.router = Router(self.services, all_routes())
        self.tools = ToolServer()
        self.services.answer_mcp = self.tools.answer
        # Built on first use.
        document = cache(lambda: openapi.document(self.router.routes, version=API_VERSION))
        self.services.openapi_json = cache(lambda: CachedDocument(msgspec.json.encode(document()), "application/json"))
        self.services.docs_html = cache(
            lambda: CachedDocument(docs.page(document()).encode(), "text/html; charset=utf-8")
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.router(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(receive, send, self.start, self.stop)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def start(self) -> None:
        """Raises like `check_exposure`."""
        try:
            await self.engine.start()
            self.services.default_project_id = project_id = await self.engine.projects.default()
            made = await self.engine.projects.keys(project_id)
            check_exposure(self.settings, [(key.id, key.development) for key in made])
        except Exception as error:
            self.failure = error
            await self.engine.stop()
            raise
        self.services.health.start()
        if self.settings.insecure_local:
            self.services.gate.anyone = Principal(project_id, Role.ADMIN, "local")

    def drain(self) -> None:
        """End waiting requests; other requests run on."""
        self.services.drain.begin()
        self.engine.closing = True
        self.engine.notifier.notify_all()

    async def stop(self) -> None:
        self.drain()
        await self.services.health.stop()
        await self.tools.stop()
        await self.engine.stop()

    def worker_gone(self, worker_id: str, granted_us: int) -> None:
        if self.services.drain.closing:
            return
        task = asyncio.ensure_future(self.engine.beats.disconnected(worker_id, granted_us))
        self._partings.add(task)
        task.add_done_callback(self._parted)

    def _parted(self, task: "asyncio.Future[None]") -> None:
        self._partings.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, PerdureError):
            logger.warning("A lost worker's lease was not cut, it runs out by itself: %s", error)
        elif error is not None:
            logger.warning("A lost worker's lease was not cut; it runs out by itself.", exc_info=error)


def check_exposure(settings: Settings, keys: list[tuple[str, bool]]) -> None:
    """Raises `BadRequest` if other machines could reach the server without proper keys. `keys`: ids, and whether each
    is for development."""
    if is_loopback(settings.host):
        return
    if settings.insecure_local:
        raise BadRequest(f"`insecure_local` needs a loopback address; {settings.host!r} can be reached by others.")
    for id, development in keys:
        if development:
            raise BadRequest(
                f"Address {settings.host!r} can be reached by others, and key {id!r} was made for development; delete "
                "that key first, or listen on 127.0.0.1."
            )
    if not keys:
        raise BadRequest(
            f"Address {settings.host!r} can be reached by others, and the server has no API key; make one first."
        )


class Server(uvicorn.Server):
    """uvicorn with an idle loop that sleeps."""

    def __init__(self, engine: Engine, settings: Settings, application: App | None = None) -> None:
        self.application = application or App(engine, settings)
        self.settings = settings
        app: ASGIApp = self.application
        if settings.origins:
            app = with_cors(app, checked_origins(settings.origins))
        self._protocol = protocol_class(settings, self.application.worker_gone)
        if settings.proxies:
            proxied = ProxyHeadersMiddleware(app, trusted_hosts=list(settings.proxies))  # type: ignore[arg-type]  # uvicorn's types
            self._protocol = protocol_class(settings, self.application.worker_gone, proxied.trusted_hosts.__contains__)
            app = proxied  # type: ignore[assignment]  # as above
        config = uvicorn.Config(
            app,
            http=self._protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        )
        super().__init__(config)
        self.socket: socket.socket | None = None
        self.ready = asyncio.Event()
        self._exit = asyncio.Event()
        self.application.services.connections = lambda: len(self.server_state.connections)

    @property
    def url(self) -> str:
        assert self.socket is not None
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run_until_stopped(self) -> None:
        self.socket = bind(self.settings.host, self.settings.port)
        try:
            await self.serve([self.socket])
        except SystemExit:  # uvicorn's signal for a failed start
            raise self.application.failure or Unavailable("The server could not start.") from None
        finally:
            self.socket.close()

    def stop(self) -> None:
        self.should_exit = True
        self._exit.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._look_at_connections()
        self.ready.set()

    async def main_loop(self) -> None:
        await self._exit.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.application.drain()
        await super().shutdown(sockets)
        self._next_look.cancel()

    def _look_at_connections(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        date = [(b"date", formatdate(usegmt=True).encode())]
        self.server_state.default_headers = date + self.config.encoded_headers
        self._protocol.look_at_all(now)
        if self._exit.is_set():
            for connection in list(self.server_state.connections):
                # Again: some may have been accepted after the others were told.
                connection.shutdown()
        self._next_look = loop.call_later(1.0, self._look_at_connections)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The caller handles signals, see `serve`."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Raises `BadRequest`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as error:
        raise BadRequest(f"Address {host!r} is not one to listen on: {error}") from error
    try:
        if sys.platform != "win32":  # there a second server could take the same address
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise BadRequest(
            f"Cannot listen on {host}:{port}: {error.strerror}; choose another port. `--port 0` takes a free one, "
            "in an embedded application `serve=0`."
        ) from error
    bound.setblocking(False)
    return bound


async def _open_store(url: str) -> Store:
    """The database often starts together with the server. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    until = loop.time() + STORE_SECONDS_MAX
    told = False
    while True:
        try:
            store = await open_store(url)
        except Unavailable as error:
            if loop.time() > until:
                raise
            if not told:
                logger.warning("%s It is tried for %.0f seconds.", error.message, STORE_SECONDS_MAX)
                told = True
            await asyncio.sleep(random.uniform(0.5, 1.5))
        else:
            if told:
                logger.warning("The database answers.")
            return store


async def serve(settings: Settings, *, on_ready: Callable[[Server], Awaitable[None] | None] | None = None) -> None:
    """SIGTERM or SIGINT drains; a second signal skips the drain."""
    server = Server(Engine(await _open_store(settings.store), settings=settings), settings)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if server.should_exit:
            logger.warning("A second signal: the server ends at once. Open requests get no answer.")
            server.force_exit = True
        else:
            logger.info(
                "Stopping: open requests have up to %.4g s to finish. A second signal ends the server at once.",
                settings.drain_seconds,
            )
        server.stop()

    forget = when_asked_to_stop(loop, stop)
    serving = asyncio.create_task(server.run_until_stopped())
    try:
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if server.ready.is_set():
            logger.info("Listening on %s.", server.url)
            try:
                if on_ready is not None and (result := on_ready(server)) is not None:
                    await result
            except BaseException:
                server.stop()
                await serving  # an ordered stop: an aborted server would log a traceback
                raise
        ready.cancel()
        await serving
    finally:
        forget()


def run(settings: Settings) -> None:
    logs.set_up(settings.log_level, settings.log_format)
    raise_file_limit()
    _collect_less()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings))


def _collect_less() -> None:
    """Requests seldom make cycles. Thresholds set by the user stay."""
    if gc.get_threshold()[0] in (700, 2_000):
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # not on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
