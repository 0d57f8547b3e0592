"""The client for code without an event loop.

An ordinary `Client` runs in the event loop of a thread. Any number of threads may share one `SyncClient`. After a fork,
the child's first call makes a new thread and new connections.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from perdure.sdk.clients.bulk import SyncBulk
from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.clients.credentials import find
from perdure.sdk.clients.executions import ExecutionInfo, ExecutionInfoPage
from perdure.sdk.clients.filters import FindOptions
from perdure.sdk.clients.forks import ForkOptions, RetryOptions
from perdure.sdk.clients.project_stats import SyncProjectStats
from perdure.sdk.clients.queues import SyncQueues
from perdure.sdk.clients.schedules import SyncSchedules
from perdure.sdk.clients.shared_budgets import SyncSharedBudgets
from perdure.sdk.clients.sync_methods import Blocking, ClientThread, blocking
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workflows.start_options import StartOptions
from perdure.sdk.workflows.streams import StreamItem
from perdure.sdk.workflows.workflow import Workflow
from perdure.wire.base.errors import Unavailable
from perdure.wire.runs.executions import ListFilters

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  # as in client.py
R = TypeVar("R")


class SyncHandle(Blocking[Handle[R]]):
    """An execution of a `SyncClient`."""

    __slots__ = ("existing", "id")

    def __init__(self, client: ClientThread, handle: Handle[R]) -> None:
        super().__init__(client, handle)
        self.id = handle.id
        self.existing = handle.existing

    get = blocking(Handle.get)
    cancel = blocking(Handle.cancel)
    resume = blocking(Handle.resume)

    def result(self, *, timeout: float | None = None) -> R:
        """See `Handle.result`."""
        return self._call(self._twin.result(timeout=timeout))

    def fork(self, **options: Unpack[ForkOptions]) -> SyncHandle[R]:
        """See `Client.fork`."""
        return SyncHandle(self._client, self._call(self._twin.fork(**options)))

    def retry(self, **options: Unpack[RetryOptions]) -> SyncHandle[R]:
        """See `Client.retry`."""
        return SyncHandle(self._client, self._call(self._twin.retry(**options)))

    def stream(self, *, after: str | None = None) -> Iterator[StreamItem]:
        """See `Handle.stream`."""
        items = self._twin.stream(after=after)
        try:
            while (item := self._call(_next(items))) is not None:
                yield item
        finally:
            self._call(items.aclose())

    def __repr__(self) -> str:
        return f"<SyncHandle {self.id}>"


class SyncExecutionInfoPage:
    """See `ExecutionInfoPage`."""

    def __init__(self, client: ClientThread, twin: ExecutionInfoPage) -> None:
        self._client = client
        self._twin = twin
        self.executions = twin.executions
        self.next_cursor = twin.next_cursor
        self.searched_to = twin.searched_to
        self.searchable_from = twin.searchable_from

    def next(self) -> SyncExecutionInfoPage | None:
        """The next page, or None."""
        page = self._client._call(self._twin.next())
        return None if page is None else SyncExecutionInfoPage(self._client, page)

    def __iter__(self) -> Iterator[ExecutionInfo[Any]]:
        page: SyncExecutionInfoPage | None = self
        while page is not None:
            yield from page.executions
            page = page.next()


class SyncClient:
    """`Client` with blocking calls. `Client.sync()` makes one.

    >>> with Client.sync() as client:                                           # doctest: +SKIP
    ...     print(client.start(order, {"id": 7}).result())
    """

    def __init__(
        self, url: str | Sequence[str] | None = None, api_key: str | None = None, *, timeout: float | None = None
    ) -> None:
        self._access = find(url, api_key)[:2]
        self._timeout = timeout
        self._begin_thread()
        self._wrap(Client(self._transport()))

    def _transport(self) -> HttpTransport:
        return HttpTransport(*self._access, timeout=self._timeout)

    def _begin_thread(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._is_forked = False

    def _wrap(self, twin: Client) -> None:
        self._twin = twin
        self.schedules = SyncSchedules(self, self._twin.schedules)
        self.queues = SyncQueues(self, self._twin.queues)
        self.budgets = SyncSharedBudgets(self, self._twin.budgets)
        self.stats = SyncProjectStats(self, self._twin.stats)
        self.bulk = SyncBulk(self, self._twin.bulk)
        _open_clients.add(self)

    @overload
    def start(
        self, workflow: Workflow[None, R], input: None = ..., **options: Unpack[StartOptions]
    ) -> SyncHandle[R]: ...

    @overload
    def start(self, workflow: Workflow[I, R], input: I, **options: Unpack[StartOptions]) -> SyncHandle[R]: ...

    @overload
    def start(self, workflow: str, input: object = ..., **options: Unpack[StartOptions]) -> SyncHandle[object]: ...

    def start(
        self, workflow: Workflow[Any, Any] | str, input: object = None, **options: Unpack[StartOptions]
    ) -> SyncHandle[Any]:
        """See `Client.start`."""
        started: Coroutine[Any, Any, Handle[Any]] = self._twin.start(workflow, input, **options)
        return SyncHandle(self, self._call(started))

    @overload
    def handle(self, execution_id: str) -> SyncHandle[object]: ...
    @overload
    def handle(self, execution_id: str, workflow: Workflow[Any, R]) -> SyncHandle[R]: ...
    def handle(self, execution_id: str, workflow: Workflow[Any, Any] | None = None) -> SyncHandle[Any]:
        """See `Client.handle`."""
        twin = self._twin
        return SyncHandle(self, twin.handle(execution_id, workflow) if workflow else twin.handle(execution_id))

    def find(self, workflow: Workflow[Any, R], key: str) -> SyncHandle[R]:
        """See `Client.find`."""
        return SyncHandle(self, self._call(self._twin.find(workflow, key)))

    def fork(self, execution_id: str, **options: Unpack[ForkOptions]) -> SyncHandle[object]:
        """See `Client.fork`."""
        return SyncHandle(self, self._call(self._twin.fork(execution_id, **options)))

    def retry(self, execution_id: str, **options: Unpack[RetryOptions]) -> SyncHandle[object]:
        """See `Client.retry`."""
        return SyncHandle(self, self._call(self._twin.retry(execution_id, **options)))

    def result(self, execution_id: str, *, timeout: float | None = None) -> object:
        """See `Handle.result`."""
        handle: Handle[object] = self._twin.handle(execution_id)
        return self._call(handle.result(timeout=timeout))

    def list(
        self,
        filters: ListFilters | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        **options: Unpack[FindOptions],
    ) -> SyncExecutionInfoPage:
        """See `Client.list`. The first page is loaded; a `for` continues with the following pages.

        >>> [one.id for one in client.list(status="failed")]                    # doctest: +SKIP
        """
        search = self._twin.list(filters, cursor=cursor, limit=limit, **options)
        return SyncExecutionInfoPage(self, self._call(search.page()))

    get = blocking(Client.get)
    why = blocking(Client.why)
    timeline = blocking(Client.timeline)
    usage = blocking(Client.usage)
    approvals = blocking(Client.approvals)
    approval_links = blocking(Client.approval_links)
    revoke_approval_link = blocking(Client.revoke_approval_link)
    cancel = blocking(Client.cancel)
    resume = blocking(Client.resume)
    pending = blocking(Client.pending)
    act = blocking(Client.act)
    publish = blocking(Client.publish)
    topics = blocking(Client.topics)
    workers = blocking(Client.workers)
    pause = blocking(Client.pause)
    unpause = blocking(Client.unpause)
    pauses = blocking(Client.pauses)
    transcript = blocking(Client.transcript)
    append_messages = blocking(Client.append_messages)
    budget = blocking(Client.budget)
    raise_budget = blocking(Client.raise_budget)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            with self._lock:
                loop = self._running_loop()
                future = asyncio.run_coroutine_threadsafe(work, loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()  # After KeyboardInterrupt no caller waits. After an outcome this does nothing.
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise Unavailable("This client is closed; make a new one.")
        if self._is_forked:  # not at the fork: a TLS context takes 20 ms to make
            self._begin_after_fork()
            self._is_forked = False
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="perdure-client", daemon=True)
            self._thread.start()
        return self._loop

    def _begin_after_fork(self) -> None:
        self._twin._begin(self._transport())

    def _after_fork(self) -> None:
        """The thread, its connections and perhaps the lock's holder stay with the parent."""
        self._lock = threading.Lock()
        self._loop = self._thread = None
        self._is_forked = True

    def close(self) -> None:
        """Executions continue. Waiting calls raise `Unavailable`."""
        with self._lock:
            _open_clients.discard(self)
            if self._closed:
                return
            self._closed = True
            loop, thread = self._loop, self._thread
            if loop is None or thread is None or not thread.is_alive():
                return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join()

    async def _end(self) -> None:
        await self._twin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(items: AsyncGenerator[StreamItem, None]) -> StreamItem | None:
    return await anext(items, None)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


_open_clients: weakref.WeakSet[SyncClient] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Closes the clients that a program left open."""
    for client in list(_open_clients):
        client.close()


def _after_fork() -> None:
    for client in list(_open_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
