"""Engine and worker in one process, without HTTP or sockets, on a SQLite file or PostgreSQL.

    async with embedded("app.db") as p:
        handle = await p.start(order, {"id": 7})
        print(await handle.result())

`embedded("app.db", serve=8080)` also serves the API and the pages to this machine. `embedded_sync` is for code without
an event loop.

A composition root: only such a file may import both wings.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from perdure.engine.base.clock import Clock
from perdure.engine.base.service import Scope, once
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.sdk.clients import dev_note
from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.clients.sync import SyncClient
from perdure.sdk.workers.lease import Lease
from perdure.sdk.workers.loop_watchdog import loop_watchdog
from perdure.sdk.workers.worker import Worker
from perdure.sdk.workflows.workflow import Registry, Workflow
from perdure.store.open import open_store
from perdure.wire.base.access import Role
from perdure.wire.base.errors import PerdureError, StoreAway, Unavailable
from perdure.wire.base.operation import Operation, Stream
from perdure.wire.base.records import Problem
from perdure.wire.runs.executions import Finished
from perdure.wire.runs.requests import BeatReply, BeatRequest, Started, StartItem

if TYPE_CHECKING:
    from perdure.server.embedded_server import AttachedServer

logger = logging.getLogger("perdure")

P = ParamSpec("P")
R = TypeVar("R")


class LocalTransport:
    """The seam between the wings as plain calls."""

    def __init__(self, engine: Engine, project_id: str) -> None:
        self.engine = engine
        self.project_id = project_id

    async def call(self, op: Operation[R], key: str | None = None) -> R:
        return await self.engine.serve(Scope(self.project_id, None if key is None else once(op, key), encoded=True), op)

    async def start(self, items: Sequence[StartItem], input_check: str | None = None) -> Sequence[Started | Problem]:
        return await self.engine.executions.start(self.project_id, items, encoded=True, input_check=input_check)

    async def result(self, execution_id: str) -> Finished:
        return await self.engine.executions.result(self.project_id, execution_id)

    async def stream(self, op: Operation[Stream[R]]) -> AsyncGenerator[tuple[str, R], None]:
        stream = await self.call(op)
        async with aclosing(stream.pages) as pages:
            async for page in pages:
                for one in page:
                    yield one

    async def close(self) -> None:
        return


class SharedLease(Lease):
    """The lease of an embedded worker on a shared database.

    The event loop sends the beats. If the loop is blocked for longer than the lease, other workers take the executions
    over, and this worker starts no step until the database answers again.
    """

    def __init__(self, transport: LocalTransport) -> None:
        super().__init__()
        self._transport = transport
        self._task: asyncio.Task[None] | None = None

    def _keep(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._beat_on(), name="perdure-lease")

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _beat_on(self) -> None:
        while True:
            assert self._reply is not None and self._worker is not None
            worker_id, reply, sent = self._worker_id, self._reply, self.now()
            try:
                beat = await self._transport.call(BeatRequest(worker_id, reply.epoch, self.steps()))
            except Exception as error:  # without this task the worker would lose everything
                if not isinstance(error, PerdureError):
                    logger.error("A beat failed.", exc_info=error)
                logger.debug("Beat failed: %s", error)
                self._unreachable_since = self._unreachable_since or self.now()
                if not (isinstance(error, StoreAway) and self._is_given_up(sent)):
                    await asyncio.sleep(min(1.0, reply.beat_us / 1e6))
                    continue
                beat = BeatReply(lost=True)
            if not beat.lost:
                self._unreachable_since = self._away_since = None
                self._deadline = max(self._deadline, sent + reply.lease_us / 1e6)
                self._accepted(worker_id, beat.holding, sent)
            elif worker_id == self._worker_id:
                self._deadline = 0.0
                await self._worker.start_over()
                continue
            await asyncio.sleep(reply.beat_us / 1e6)


class Embedded(Client):
    """A client with its own engine and worker."""

    worker: Worker

    def __init__(
        self,
        engine: Engine,
        worker: Worker,
        transport: LocalTransport,
        *,
        declared: bool,
        server: "AttachedServer | None" = None,
    ) -> None:
        super().__init__(transport)
        self.engine = engine
        self.worker = worker
        self._declared = declared
        self._server = server
        self.url = None if server is None else server.url
        """The address of the API and the pages; None without `serve`."""
        self.api_key = None if server is None else server.key.text
        """The key of this process for its own server, with the role `admin`. The key ends with the process."""

    def sign_in_link(self) -> str:
        """An address for signing a browser in, once, within ten minutes. Raises RuntimeError without `serve`."""
        if self._server is None:
            raise RuntimeError("This application serves no pages; open it with `embedded(…, serve=8080)`.")
        return self._server.sign_in_link()

    async def close(self) -> None:
        """End the server of `serve`. The application itself ends with its block."""
        if self._server is not None:
            await self._server.end()
        await super().close()

    if not TYPE_CHECKING:  # type checkers see Client.start, with its overloads

        def start(self, workflow, input=None, **options):
            """Start an execution (see `Client.start`). Also adds workflows made after the worker's registration."""
            if isinstance(workflow, Workflow) and self.worker.registry.workflows.get(workflow.name) is not workflow:
                return self._start_new(workflow, input, options)
            return super().start(workflow, input, **options)

    def _start_new(self, workflow: Workflow[Any, Any], input: Any, options: Any) -> Coroutine[Any, Any, Handle[Any]]:
        start = super().start

        async def add_and_start() -> Handle[Any]:
            await self.worker.add(workflow, replace=self._declared)
            return await start(workflow, input, **options)

        return add_and_start()


@asynccontextmanager
async def embedded(
    path: str,
    registry: Registry | None = None,
    *,
    deployment: str = "default",
    capacity: int = 500,
    clock: Clock | None = None,
    settings: EngineSettings | None = None,
    grace_seconds: float = 25.0,
    parks: bool = True,
    serve: int | None = None,
) -> AsyncIterator[Embedded]:
    """Open the store at `path` and run workflows in this process until the block ends.

    `path` is a file, which only this process may have open, or `postgresql://…`. Any number of processes and servers
    may share a PostgreSQL database. If a process dies, other processes take its executions over at the end of the lease
    (12 s).

    `registry` holds the workflows (default: all `@workflow` functions). At most `capacity` executions run at once. With
    `parks`, suspended executions stay in memory and continue without a replay.

    `serve` is a port on the loopback address, 0 a free port. There the process serves the API and the pages to this
    machine, until the block ends. A terminal gets a link for signing a browser in once. The client has `url`, `api_key`
    and `sign_in_link()`. Commands in this folder find the server by themselves.

    Raises `StoreInUse` if another process has the file open, `NotOurFile` if the folder is missing or the file is not a
    store, and `BadRequest` if the port is taken.
    """
    engine = Engine(await open_store(path), clock=clock, settings=settings)
    await engine.start()
    try:
        project_id = await engine.projects.default()
        transport = LocalTransport(engine, project_id)
        worker = Worker(
            transport,
            registry if registry is not None else Registry.declared(),
            deployment=deployment,
            capacity=capacity,
            lease=None if engine.store.alone else SharedLease(transport),
            grace_seconds=grace_seconds,
            parks=parks,
        )
        async with AsyncExitStack() as stack:
            stack.enter_context(loop_watchdog(asyncio.get_running_loop()))
            server = (
                None if serve is None else await stack.enter_async_context(_served(engine, path, project_id, serve))
            )
            await worker.start()
            client = Embedded(engine, worker, transport, declared=registry is None, server=server)
            try:
                yield client
            finally:
                await client.close()
                await asyncio.shield(worker.drain())
    finally:
        await engine.stop()


class SyncEmbedded(SyncClient):
    """A `SyncClient` with its own engine and worker, which run in the event loop of a thread."""

    _twin: Embedded

    def __init__(self, application: AbstractAsyncContextManager[Embedded]) -> None:
        self._begin_thread()
        self._ending = asyncio.Event()
        self._block: asyncio.Task[None] | None = None
        try:
            self._wrap(self._call(self._open(application)))
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str | None:
        """The address of the API and the pages; None without `serve`."""
        return self._twin.url

    @property
    def api_key(self) -> str | None:
        """See `Embedded.api_key`."""
        return self._twin.api_key

    def sign_in_link(self) -> str:
        """See `Embedded.sign_in_link`."""
        return self._twin.sign_in_link()

    async def _open(self, application: AbstractAsyncContextManager[Embedded]) -> Embedded:
        """A single task enters and leaves the block."""
        opened: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._block = asyncio.create_task(self._hold(application, opened), name="perdure-embedded")
        either: list[asyncio.Future[Any]] = [opened, self._block]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            await self._block  # it raises
        return opened.result()

    async def _hold(self, application: AbstractAsyncContextManager[Embedded], opened: asyncio.Future[Embedded]) -> None:
        async with application as twin:
            opened.set_result(twin)
            await self._ending.wait()

    async def _end(self) -> None:
        self._ending.set()
        if self._block is not None and not self._block.done():
            await self._block

    def _begin_after_fork(self) -> None:
        raise Unavailable("The parent process has this application open; use a server, or open it after the fork.")


def _in_a_thread(opened: Callable[P, AbstractAsyncContextManager[Embedded]]) -> Callable[P, SyncEmbedded]:
    @wraps(opened)
    def open(*args: P.args, **options: P.kwargs) -> SyncEmbedded:
        return SyncEmbedded(opened(*args, **options))

    return open


embedded_sync = _in_a_thread(embedded)
"""`embedded` for code without an event loop: `with embedded_sync("app.db", serve=8080) as p: …`.

Calls block, from any thread. The engine, the worker and the server of `serve` share a separate thread.
"""


@asynccontextmanager
async def _served(engine: Engine, path: str, project_id: str, port: int) -> "AsyncIterator[AttachedServer]":
    from perdure.server.access.auth import ProcessKey
    from perdure.server.embedded_server import AttachedServer, attached_settings

    settings = attached_settings(engine.settings, path, port)
    server = AttachedServer(engine, settings, ProcessKey("embedded", project_id, Role.ADMIN))
    await server.begin()
    try:
        with dev_note.written(server.url, server.key.text):
            if sys.stderr.isatty():  # a log is read by more people than may sign in
                link = server.sign_in_link()
                sys.stderr.write(f"Perdure shows this application at {link} (signs a browser in once).\n")
            else:
                logger.info("Perdure shows this application at %s; sign_in_link() gives a link.", server.url)
            yield server
    finally:
        await server.end()
