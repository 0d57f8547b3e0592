"""Starts made during a request share the next request. One caller's mistake must not fail another caller's start, so
each value is checked first, and a refused request is sent again item by item."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from msgspec import Raw

from perdure.sdk.base.checks import checked_name
from perdure.sdk.transports.transport import REFUSALS
from perdure.sdk.workflows.start_options import StartOptions, start_fields
from perdure.sdk.workflows.workflow import Workflow, encode_input, named
from perdure.wire.base.codec import NAME_BYTES_MAX
from perdure.wire.base.errors import PerdureError, Unavailable
from perdure.wire.base.limits import GATHERED_BYTES_MAX
from perdure.wire.base.records import Problem
from perdure.wire.runs.requests import Started, StartItem

if TYPE_CHECKING:
    from perdure.sdk.transports.transport import Transport

logger = logging.getLogger("perdure.client")

_Start: TypeAlias = "tuple[StartItem, asyncio.Future[Started | Problem], str | None]"

START_ITEMS_MAX = 500
"""A single item is sent at any size."""
STARTS_IN_FLIGHT = 2


class GatheredStarts:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: list[_Start] = []
        self._scheduled = False
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self, item: StartItem, input_check: str | None) -> Started | Problem:
        """`input_check` belongs to the workflow whose type read the input."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Started | Problem] = loop.create_future()
        self._waiting.append((item, future, input_check))
        if not self._scheduled and len(self._sending) < STARTS_IN_FLIGHT:
            self._scheduled = True
            loop.call_soon(self._flush)
        return await future

    async def close(self) -> None:
        waiting, self._waiting = self._waiting, []
        _refuse(waiting)
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._sending) < STARTS_IN_FLIGHT:
            group, self._waiting = _cut(self._waiting)
            task = asyncio.get_running_loop().create_task(self._send_group(group))
            self._sending.add(task)
            task.add_done_callback(partial(self._sent, group))

    def _sent(self, group: Sequence[_Start], task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        _refuse(group)  # here, because a task that is cancelled before it begins runs no code
        if self._waiting and not self._scheduled:
            self._flush()

    async def _send_group(self, group: Sequence[_Start]) -> None:
        try:
            await self._send(group)
        except Exception as error:
            for _, future, _ in group:
                if not future.done():
                    future.set_exception(error)

    async def _send(self, group: Sequence[_Start]) -> None:
        """Raises an error that concerns all futures still open."""
        checks = {check for _, _, check in group}
        input_check = checks.pop() if len(checks) == 1 else None
        try:
            answers = await self._transport.start([item for item, _, _ in group], input_check)
        except REFUSALS as error:
            if len(group) == 1:
                raise
            logger.debug("%d starts were refused as one request; they are sent one by one: %s", len(group), error)
        else:
            for (_, future, _), answer in zip(group, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            return
        for one in group:
            try:
                await self._send([one])
            except Exception as error:
                if isinstance(error, PerdureError) and error.retryable:
                    raise  # the other starts would wait as long for the same error
                if not one[1].done():
                    one[1].set_exception(error)


def _refuse(starts: Sequence[_Start]) -> None:
    for _, future, _ in starts:
        if not future.done():
            future.set_exception(Unavailable("The client was closed while this start was under way."))


def _cut(starts: list[_Start]) -> tuple[list[_Start], list[_Start]]:
    room = GATHERED_BYTES_MAX
    for n, (item, _, _) in enumerate(starts[:START_ITEMS_MAX]):
        room -= 400 + memoryview(item.payload).nbytes
        if room < 0 and n:
            return starts[:n], starts[n:]
    return starts[:START_ITEMS_MAX], starts[START_ITEMS_MAX:]


def start_item(workflow: Workflow[Any, Any] | str, input: object, **options: Unpack[StartOptions]) -> StartItem:
    name, _ = named(workflow)
    return StartItem(
        workflow_id=checked_name(name, "workflow", NAME_BYTES_MAX),
        payload=Raw(encode_input(workflow, input)),
        accept_early=True,
        **start_fields(options, StartOptions),
    )
