"""Schedules: declared beside a workflow, or made and managed by a client.

@workflow(schedule=Schedule("0 9 * * MON-FRI", timezone="Europe/Berlin"))
async def report(ctx: Context, due: ScheduledFor) -> None: ...

await client.schedules.create(report, "0 9 * * *", key="customer-7", input={"customer": 7})
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar, Unpack

from msgspec import Raw

from perdure.sdk.payloads.values import encode
from perdure.sdk.sync_methods import Blocking, blocking
from perdure.wire.cron import cron as read_cron
from perdure.wire.errors import BadValue
from perdure.wire.fields import PAGE_MAX
from perdure.wire.schedules import (
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    Fire,
    GetFires,
    GetNextRuns,
    GetSchedule,
    ListSchedules,
    Missed,
    Overlap,
    RunSchedule,
    ScheduleSpec,
    ScheduleStatus,
    StoredSchedule,
)

if TYPE_CHECKING:
    from perdure.sdk.client import Client, Handle
    from perdure.sdk.sync import SyncHandle
    from perdure.sdk.workflow import Workflow

S = TypeVar("S", bound=ScheduleSpec)

OverlapWord = Literal["skip", "queue", "allow"]
MissedWord = Literal["skip", "latest", "all"]


class _NoInput:
    def __repr__(self) -> str:
        return "<the due time>"


NO_INPUT: Final = _NoInput()


class ScheduleOptions(TypedDict, total=False):
    """How a schedule fires; what is left out is the default, or stays as it is.

    `overlap`: a due time while an execution of the schedule is open is skipped, waits its turn ("queue", the default)
    or starts beside it ("allow"). `missed`: of the due times that passed while no server ran none is fired ("skip"),
    the last one ("latest", the default), or each within `missed_window` ("all"; a day unless it is given).
    """

    overlap: OverlapWord
    missed: MissedWord
    missed_window: float | timedelta


class Schedule:
    """When a workflow is started by itself: five fields of cron in a time zone, as an option of `@workflow`.

    `key` tells the schedules of one workflow apart. Without `input` executions get a `ScheduledFor`, provided that the
    workflow takes an input. Raises `BadValue` for an expression or zone that cannot be read, or is never due.

    >>> Schedule("30 2 * * *", timezone="America/New_York")
    Schedule('30 2 * * *', timezone='America/New_York')
    """

    def __init__(
        self,
        cron: str,
        *,
        timezone: str = "UTC",
        key: str = "default",
        input: object = NO_INPUT,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        read_cron(cron, timezone)
        self.cron = cron
        self.timezone = timezone
        self.key = key
        self.input = input
        self.options = options

    def spec(self, workflow: Workflow[Any, Any]) -> ScheduleSpec:
        """What a worker's registration says of it."""
        return schedule_spec(ScheduleSpec, workflow, self.cron, self.timezone, self.key, self.input, self.options)

    def __repr__(self) -> str:
        return f"Schedule({self.cron!r}, timezone={self.timezone!r})"


def schedule_spec(
    kind: type[S],
    workflow: Workflow[Any, Any] | str,
    cron: str,
    timezone: str,
    key: str,
    input: object,
    options: ScheduleOptions,
) -> S:
    """The request for a schedule, or what a registration says of one. Raises `BadValue` for what cannot be sent."""
    from perdure.sdk.workflow import named, payload_of  # which imports this module

    name, _ = named(workflow)
    return kind(
        workflow_id=name,
        cron=cron,
        timezone=timezone,
        key=key,
        payload=None if input is NO_INPUT else Raw(payload_of(workflow, input)),
        **_words(options),
    )


def _words(options: ScheduleOptions) -> dict[str, Any]:
    """The options as the wire has them."""
    said: dict[str, Any] = {}
    for name, kind in (("overlap", Overlap), ("missed", Missed)):
        word = options.get(name)
        if word is not None:
            if word not in [*kind]:
                raise BadValue(f"{name} is one of {', '.join(kind)}; got {word!r}.")
            said[name] = kind(str(word))
    window = options.get("missed_window")
    if window is not None:
        said["missed_window_seconds"] = int(window.total_seconds() if isinstance(window, timedelta) else window)
    return said


class Schedules:
    """`client.schedules`: make, look at and manage schedules."""

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
        """Make a schedule, or replace the definition of the one with that workflow and key.

        The same definition again changes nothing. Raises `BadValue` with the field that is wrong.
        """
        spec = schedule_spec(CreateSchedule, workflow, cron, timezone, key, input, options)
        return await self.get((await self._client._transport.call(spec)).schedule_id)

    async def list(self, workflow: Workflow[Any, Any] | str | None = None) -> list[StoredSchedule]:
        """The project's schedules, or one workflow's, newest first."""
        name = workflow if workflow is None or isinstance(workflow, str) else workflow.name
        found: list[StoredSchedule] = []
        cursor: str | None = None
        while True:
            page = await self._client._transport.call(ListSchedules(name, cursor, PAGE_MAX))
            found.extend(page.schedules)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def get(self, schedule_id: str) -> StoredSchedule:
        """One schedule. Raises `NotFound`."""
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
        """Change a schedule; what is left out stays."""
        payload = None if input is NO_INPUT else Raw(encode(input, where="input"))
        change = ChangeSchedule(schedule_id, cron=cron, timezone=timezone, payload=payload, **_words(options))
        return await self._client._transport.call(change)

    async def pause(self, schedule_id: str) -> StoredSchedule:
        """Fire no more until `resume`. What passes meanwhile is not missed."""
        return await self._client._transport.call(ChangeSchedule(schedule_id, ScheduleStatus.PAUSED))

    async def resume(self, schedule_id: str) -> StoredSchedule:
        """Go on with the next due time from now."""
        return await self._client._transport.call(ChangeSchedule(schedule_id, ScheduleStatus.ACTIVE))

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule; executions that it started stay. Raises `NotFound`."""
        await self._client._transport.call(DeleteSchedule(schedule_id))

    async def run(self, schedule_id: str) -> Handle[object]:
        """Start an execution of it now, whatever its overlap policy; its due times stay as they are."""
        return self._client.handle((await self._client._transport.call(RunSchedule(schedule_id))).execution_id)

    async def next(self, schedule_id: str, count: int = 10) -> Sequence[datetime]:
        """The coming due times, in the schedule's zone; at most 100."""
        return (await self._client._transport.call(GetNextRuns(schedule_id, count))).next

    async def fires(self, schedule_id: str, *, limit: int = 50) -> Sequence[Fire]:
        """What became of its latest due times, newest first."""
        return (await self._client._transport.call(GetFires(schedule_id, limit=limit))).fires


class SyncSchedules(Blocking[Schedules]):
    """`client.schedules` of a `SyncClient`: the same with plain calls."""

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
        """As `Schedules.run`."""
        handle: SyncHandle[object] = self._client.handle(self._client._call(self._twin.run(schedule_id)).id)
        return handle
