from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.sdk.clients.sync_methods import Blocking, blocking
from perdure.wire.insight.why import GetNextInQueue, NextInQueue
from perdure.wire.runs.queues import GetQueue, ListQueues, PauseQueue, QueueState, ResumeQueue

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client


class Queues:
    """The queues of the project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> list[QueueState]:
        """List queues by name. A queue without limits and pause is listed while executions are ready or running."""
        return (await self._client._transport.call(ListQueues())).items

    async def get(self, name: str) -> QueueState:
        """One queue's limits and pause, and the numbers of ready and running executions."""
        return await self._client._transport.call(GetQueue(name))

    async def next(self, name: str, *, limit: int = 20) -> NextInQueue:
        """Ready executions in the order of claims, at most 50, with the rule that holds each back."""
        return await self._client._transport.call(GetNextInQueue(name, limit))

    async def pause(self, name: str) -> QueueState:
        """Pause a queue: its executions no longer start, running executions end as usual. Needs the role `admin`.

        Raises `BadValue` for an impossible name, and `Forbidden`.

            >>> state = await client.queues.pause("mail")                                   # doctest: +SKIP
            >>> state.paused_at_us is not None                                              # doctest: +SKIP
            True
        """
        return await self._client._transport.call(PauseQueue(name))

    async def resume(self, name: str) -> QueueState:
        """Needs the role `admin`. Raises as `pause`."""
        return await self._client._transport.call(ResumeQueue(name))


class SyncQueues(Blocking[Queues]):
    list = blocking(Queues.list)
    get = blocking(Queues.get)
    next = blocking(Queues.next)
    pause = blocking(Queues.pause)
    resume = blocking(Queues.resume)
