"""Schedules, declared with a workflow or managed by a client.

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
    """How a schedule fires. An option left out has its default, or stays as it is.

    `overlap` applies to a due time while an execution of the schedule is open. The new execution is skipped ("skip"),
    waits its turn ("queue", the default) or runs in parallel ("allow"). `missed` applies to due times that passed
    while no server ran. The schedule fires none ("skip"), the last one ("latest", the default), or each one within
    `missed_window` ("all"; seconds, default: a day).
    """

    overlap: OverlapWord
    missed: MissedWord
    missed_window: float | timedelta


class Schedule:
    """Starts a workflow by the clock: five cron fields in a time zone, as an option of `@workflow`.

    `key` tells the schedules of one workflow apart. Without `input`, a workflow that takes an input gets a
    `ScheduledFor`. Raises `BadValue` for an unreadable expression or zone, and for an expression that is never due.

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
        """The form in which a worker registers it."""
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
    """A schedule, as a request or in a registration. Raises `BadValue` for an input or option that cannot be sent."""
    from perdure.sdk.workflow import encode_input, named  # it imports this module

    name, _ = named(workflow)
    return kind(
        workflow_id=name,
        cron=cron,
        timezone=timezone,
        key=key,
        payload=None if input is NO_INPUT else Raw(encode_input(workflow, input)),
        **_words(options),
    )


def _words(options: ScheduleOptions) -> dict[str, Any]:
    """The options as fields of a request."""
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
    """`client.schedules`: create, inspect and manage schedules."""

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
        """Create a schedule, or replace the definition of the one with this workflow and key.

        The same definition has no effect. Raises `BadValue` with the invalid field.
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
        """Change the given fields of a schedule."""
        payload = None if input is NO_INPUT else Raw(encode(input, where="input"))
        change = ChangeSchedule(schedule_id, cron=cron, timezone=timezone, payload=payload, **_words(options))
        return await self._client._transport.call(change)

    async def pause(self, schedule_id: str) -> StoredSchedule:
        """Do not fire until `resume`. Due times during the pause do not count as missed."""
        return await self._client._transport.call(ChangeSchedule(schedule_id, ScheduleStatus.PAUSED))

    async def resume(self, schedule_id: str) -> StoredSchedule:
        """Continue with the next due time from now."""
        return await self._client._transport.call(ChangeSchedule(schedule_id, ScheduleStatus.ACTIVE))

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule. Its executions stay. Raises `NotFound`."""
        await self._client._transport.call(DeleteSchedule(schedule_id))

    async def run(self, schedule_id: str) -> Handle[object]:
        """Start an execution now, under any overlap policy. The due times do not change."""
        return self._client.handle((await self._client._transport.call(RunSchedule(schedule_id))).execution_id)

    async def next(self, schedule_id: str, count: int = 10) -> Sequence[datetime]:
        """The next due times, in the schedule's zone; at most 100."""
        return (await self._client._transport.call(GetNextRuns(schedule_id, count))).next

    async def fires(self, schedule_id: str, *, limit: int = 50) -> Sequence[Fire]:
        """The outcomes of the latest due times, newest first."""
        return (await self._client._transport.call(GetFires(schedule_id, limit=limit))).fires


class SyncSchedules(Blocking[Schedules]):
    """`Schedules` with blocking calls, for a `SyncClient`."""

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
