"""Callers waiting for results share a few long polls.

A poll names all awaited ids, and is repeated as results arrive. New ids get a separate poll at once; three polls are
merged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from perdure.wire.base.errors import NotFound, PerdureError, Unavailable, from_code
from perdure.wire.runs.executions import Finished, WaitForExecutions, WaitReply

POLL_SECONDS: Final = 30.0
POLLS: Final = 3
POLL_IDS_MAX: Final = 5_000
MERGE_SECONDS: Final = 0.005


class Results:
    def __init__(self, ask: Callable[[WaitForExecutions], Awaitable[WaitReply]]) -> None:
        self._ask = ask
        self._waiting: dict[str, list[asyncio.Future[Finished]]] = {}
        self._unnamed: dict[str, None] = {}
        self._polls: dict[asyncio.Task[None], list[str]] = {}
        self._scheduled = False
        self._merging = False

    async def of(self, execution_id: str) -> Finished:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Finished] = loop.create_future()
        futures = self._waiting.get(execution_id)
        if futures is None:
            self._waiting[execution_id] = [future]
            self._unnamed[execution_id] = None
            self._schedule(loop)
        else:
            futures.append(future)
        try:
            return await future
        finally:
            futures = self._waiting.get(execution_id)
            if futures is not None and future in futures:
                futures.remove(future)
                if not futures:
                    del self._waiting[execution_id]
                    self._unnamed.pop(execution_id, None)

    async def close(self) -> None:
        for id in list(self._waiting):
            self._resolve(id, Unavailable("The client was closed while this result was awaited."))
        polls = list(self._polls)
        for task in polls:
            task.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Calls of the same turn share a poll.
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._pump, loop)

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        while self._unnamed:
            if len(self._polls) >= POLLS and not self._is_full():
                if not self._merging:
                    self._merging = True
                    loop.call_later(MERGE_SECONDS, self._merge, loop)
                return
            ids = list(islice(self._unnamed, POLL_IDS_MAX))
            for id in ids:
                del self._unnamed[id]
            task = loop.create_task(self._poll(ids), name="perdure-results")
            self._polls[task] = ids
            task.add_done_callback(self._polled)

    def _is_full(self) -> bool:
        return all(len(ids) >= POLL_IDS_MAX // 2 for ids in self._polls.values())

    def _merge(self, loop: asyncio.AbstractEventLoop) -> None:
        """Repeat the smallest poll with more ids."""
        self._merging = False
        if self._unnamed and len(self._polls) >= POLLS:
            smallest = min(self._polls, key=lambda task: len(self._polls[task]))
            smallest.cancel()
        else:
            self._pump(loop)

    def _polled(self, task: asyncio.Task[None]) -> None:
        for id in self._polls.pop(task):
            if id in self._waiting:
                self._unnamed[id] = None
        if self._unnamed:
            self._pump(task.get_loop())

    async def _poll(self, ids: list[str]) -> None:
        try:
            reply = await self._ask(WaitForExecutions(ids, POLL_SECONDS))
        except Exception as error:
            for id in ids:
                self._resolve(id, error)
            return
        for finished in reply.finished:
            self._resolve(finished.id, finished)
        for id in reply.missing:
            self._resolve(id, NotFound(f"Execution {id!r} does not exist."))

    def _resolve(self, id: str, outcome: Finished | Exception) -> None:
        self._unnamed.pop(id, None)
        for future in self._waiting.pop(id, ()):
            if future.done():
                continue
            if isinstance(outcome, Finished):
                future.set_result(outcome)
            elif isinstance(outcome, PerdureError):
                # One exception for each caller, since a traceback grows with each raise.
                future.set_exception(from_code(outcome.code, outcome.message, outcome.details))
            else:
                future.set_exception(outcome)
