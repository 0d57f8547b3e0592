"""The client for code without an event loop.

An ordinary `Client` runs in the event loop of a thread. Any number of threads may share one `SyncClient`; their
concurrent starts share requests. After a fork, the child's first call makes a new thread and new connections.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, overload

from perdure.sdk.client import BudgetRaise, Client, Handle, StartOptions
from perdure.sdk.credentials import find
from perdure.sdk.http import HttpTransport
from perdure.sdk.queues import SyncQueues
from perdure.sdk.schedules import SyncSchedules
from perdure.sdk.streams import StreamItem
from perdure.sdk.workflow import Workflow
from perdure.wire.approvals import Became
from perdure.wire.budgets import BudgetState
from perdure.wire.errors import Unavailable
from perdure.wire.executions import Execution
from perdure.wire.transcripts import Transcript

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  # as in client.py
R = TypeVar("R")


class SyncHandle(Generic[R]):
    """One execution of a `SyncClient`."""

    __slots__ = ("_client", "_handle", "existing", "id")

    def __init__(self, client: SyncClient, handle: Handle[R]) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id
        self.existing = handle.existing

    def result(self, *, timeout: float | None = None) -> R:
        """As `Handle.result`."""
        return self._client._call(self._handle.result(timeout=timeout))

    def get(self) -> Execution:
        return self._client.get(self.id)

    def stream(self, *, after: str | None = None) -> Iterator[StreamItem]:
        """As `Handle.stream`."""
        items = self._handle.stream(after=after)
        try:
            while (item := self._client._call(_next(items))) is not None:
                yield item
        finally:
            self._client._call(items.aclose())

    def cancel(self) -> Execution:
        """As `Client.cancel`."""
        return self._client.cancel(self.id)

    def resume(self, key: str, data: object = None, *, question: str | None = None) -> Became:
        """As `Client.resume`."""
        return self._client.resume(self.id, key, data, question=question)

    def __repr__(self) -> str:
        return f"<SyncHandle {self.id}>"


class SyncClient:
    """`Client` with blocking calls. `Client.sync()` makes one.

    >>> with Client.sync() as client:                                           # doctest: +SKIP
    ...     print(client.start(order, {"id": 7}).result())
    """

    def __init__(self, url: str | Sequence[str] | None = None, api_key: str | None = None) -> None:
        access = find(url, api_key)
        self._client = Client(HttpTransport(access.urls, access.api_key))
        self._access = access
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._is_forked = False
        self.schedules = SyncSchedules(self, self._client.schedules)
        self.queues = SyncQueues(self, self._client.queues)
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
        """As `Client.start`."""
        started: Coroutine[Any, Any, Handle[Any]] = self._client.start(workflow, input, **options)
        return SyncHandle(self, self._call(started))

    @overload
    def handle(self, execution_id: str) -> SyncHandle[object]: ...
    @overload
    def handle(self, execution_id: str, workflow: Workflow[Any, R]) -> SyncHandle[R]: ...
    def handle(self, execution_id: str, workflow: Workflow[Any, Any] | None = None) -> SyncHandle[Any]:
        """As `Client.handle`."""
        client = self._client
        return SyncHandle(self, client.handle(execution_id, workflow) if workflow else client.handle(execution_id))

    def find(self, workflow: Workflow[Any, R], key: str) -> SyncHandle[R]:
        """As `Client.find`."""
        return SyncHandle(self, self._call(self._client.find(workflow, key)))

    def get(self, execution_id: str) -> Execution:
        """An execution's current state. Raises `NotFound`."""
        return self._call(self._client.get(execution_id))

    def result(self, execution_id: str, *, timeout: float | None = None) -> object:
        """As `Handle.result`."""
        handle: Handle[object] = self._client.handle(execution_id)
        return self._call(handle.result(timeout=timeout))

    def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution and its descendants. Raises `NotCancellable` if it is final."""
        return self._call(self._client.cancel(execution_id))

    def resume(self, execution_id: str, key: str, data: object = None, *, question: str | None = None) -> Became:
        """Answer a suspended step, as `Client.resume`. Raises `Conflict` if it has another answer."""
        return self._call(self._client.resume(execution_id, key, data, question=question))

    def publish(self, topic: str, data: object, *, event_type: str | None = None, dedup_key: str | None = None) -> int:
        """Publish an event. Returns its number in the topic."""
        return self._call(self._client.publish(topic, data, event_type=event_type, dedup_key=dedup_key))

    def transcript(self, session_id: str, *, version: int | None = None) -> Transcript:
        """The messages that a session's model sees, in a version or the newest one. Version 0 is empty."""
        return self._call(self._client.transcript(session_id, version=version))

    def append_messages(self, session_id: str, messages: Sequence[object], *, version: int | None = None) -> int:
        """Append to a session's transcript, as `Client.append_messages`. Returns its new version."""
        return self._call(self._client.append_messages(session_id, messages, version=version))

    def budget(self, execution_id: str) -> BudgetState:
        """The budget that an execution spends from. Raises `NotFound`."""
        return self._call(self._client.budget(execution_id))

    def raise_budget(self, execution_id: str, **amounts: Unpack[BudgetRaise]) -> BudgetState:
        """Add to the limits of that budget, as `Client.raise_budget`. Executions that wait for it continue."""
        return self._call(self._client.raise_budget(execution_id, **amounts))

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
            self._is_forked = False
            self._client._begin(HttpTransport(self._access.urls, self._access.api_key))
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="perdure-client", daemon=True)
            self._thread.start()
        return self._loop

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
        asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(items: AsyncGenerator[StreamItem, None]) -> StreamItem | None:
    return await anext(items, None)


def _run(loop: asyncio.AbstractEventLoop) -> None:
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
    """For a program that does not close its clients."""
    for client in list(_open_clients):
        client.close()


def _after_fork() -> None:
    for client in list(_open_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
