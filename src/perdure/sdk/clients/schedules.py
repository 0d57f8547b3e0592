"""Schedules managed by a client.

await client.schedules.create(report, "0 9 * * *", key="customer-7", input={"customer": 7})
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from msgspec import Raw

from perdure.sdk.clients.sync_methods import Blocking, blocking
from perdure.sdk.payloads.values import encode
from perdure.sdk.workflows.declared_schedules import NO_INPUT, ScheduleOptions, option_fields
from perdure.sdk.workflows.workflow import Workflow, encode_scheduled, named
from perdure.wire.base.fields import PAGE_MAX
from perdure.wire.clock.schedules import (
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    Fire,
    GetFires,
    GetNextRuns,
    GetSchedule,
    ListSchedules,
    RunSchedule,
    ScheduleStatus,
    StoredSchedule,
)

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client, Handle
    from perdure.sdk.clients.sync import SyncHandle


class Schedules:
    """`client.schedules`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self,
        workflow: Workflow[Any, Any] | str,
        cron: str,
        *,
        timezone: str = "UTC",
        key: str = "default",
        input: object = NO_INPUT,
        **options: Unpack[ScheduleOptions],
    ) -> StoredSchedule:
        """Create a schedule, or replace the schedule with the same workflow and key. Repeating a definition has no
        effect. Raises `BadValue` with the invalid field."""
        spec = CreateSchedule(
            workflow_id=named(workflow)[0],
            cron=cron,
            timezone=timezone,
            key=key,
            payload=encode_scheduled(workflow, input),
            **option_fields(options),
        )
        return await self.get((await self._client._transport.call(spec)).schedule_id)

    async def list(self, workflow: Workflow[Any, Any] | str | None = None) -> list[StoredSchedule]:
        """Lists schedules, newest first."""
        name = workflow if workflow is None or isinstance(workflow, str) else workflow.name
        found: list[StoredSchedule] = []
        cursor: str | None = None
        while True:
            page = await self._client._transport.call(ListSchedules(name, cursor, PAGE_MAX))
            found.extend(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def get(self, schedule_id: str) -> StoredSchedule:
        """Raises `NotFound`."""
        return await self._client._transport.call(GetSchedule(schedule_id))

    async def change(
        self,
        schedule_id: str,
        *,
        cron: str | None = None,
        timezone: str | None = None,
        input: object = NO_INPUT,
        **options: Unpack[ScheduleOptions],
    ) -> StoredSchedule:
        payload = None if input is NO_INPUT else Raw(encode(input, where="input"))
        change = ChangeSchedule(schedule_id, cron=cron, timezone=timezone, payload=payload, **option_fields(options))
        return await self._client._transport.call(change)

    async def pause(self, schedule_id: str) -> StoredSchedule:
        """Do not fire until `resume`. Due times during the pause do not count as missed."""
        return await self._client._transport.call(ChangeSchedule(schedule_id, ScheduleStatus.PAUSED))

    async def resume(self, schedule_id: str) -> StoredSchedule:
        """Continue with the next due time from now."""
        return await self._client._transport.call(ChangeSchedule(schedule_id, ScheduleStatus.ACTIVE))

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule. Existing executions stay. Raises `NotFound`."""
        await self._client._transport.call(DeleteSchedule(schedule_id))

    async def run(self, schedule_id: str) -> Handle[object]:
        """Start an execution now, under any overlap policy. The due times do not change."""
        return self._client.handle((await self._client._transport.call(RunSchedule(schedule_id))).execution_id)

    async def next(self, schedule_id: str, count: int = 10) -> Sequence[datetime]:
        """The next due times, in the schedule's zone; at most 100."""
        return (await self._client._transport.call(GetNextRuns(schedule_id, count))).items

    async def fires(self, schedule_id: str, *, limit: int = 50) -> Sequence[Fire]:
        """The outcomes of the latest due times, newest first."""
        return (await self._client._transport.call(GetFires(schedule_id, limit=limit))).fires


class SyncSchedules(Blocking[Schedules]):
    create = blocking(Schedules.create)
    list = blocking(Schedules.list)
    get = blocking(Schedules.get)
    change = blocking(Schedules.change)
    pause = blocking(Schedules.pause)
    resume = blocking(Schedules.resume)
    delete = blocking(Schedules.delete)
    next = blocking(Schedules.next)
    fires = blocking(Schedules.fires)

    def run(self, schedule_id: str) -> SyncHandle[object]:
        handle: SyncHandle[object] = self._client.handle(self._client._call(self._twin.run(schedule_id)).id)
        return handle
