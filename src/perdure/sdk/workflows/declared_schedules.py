"""Schedules declared by a workflow.

@workflow(schedule=Schedule("0 9 * * MON-FRI", timezone="Europe/Berlin")) async def report(ctx: Context, due:
ScheduledFor) -> None: ...
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

from perdure.wire.base.errors import BadValue
from perdure.wire.clock.cron import cron as read_cron
from perdure.wire.clock.schedules import Missed, Overlap, ScheduleSpec

if TYPE_CHECKING:
    from msgspec import Raw


class _NoInput:
    def __repr__(self) -> str:
        return "<the due time>"


NO_INPUT: Final = _NoInput()


class ScheduleOptions(TypedDict, total=False):
    """Options left out have their default, or keep the stored value.

    While an execution of the schedule is open, the next execution is skipped (`overlap="skip"`), waits ("queue", the
    default) or runs in parallel ("allow"). If due times passed while no server ran, the schedule fires none
    (`missed="skip"`), the last ("latest", the default), or all within `missed_window` ("all"; seconds, default: a day).
    """

    overlap: Literal["skip", "queue", "allow"]
    missed: Literal["skip", "latest", "all"]
    missed_window: float | timedelta


class Schedule:
    """Starts a workflow by the clock: five cron fields in a time zone.

    `key` tells the schedules of one workflow apart. Without `input`, a workflow that takes an input gets a
    `ScheduledFor`. Raises `BadValue` for an unreadable expression or zone, and for an expression without any due time.

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

    def spec(self, workflow_id: str, payload: Raw | None) -> ScheduleSpec:
        return ScheduleSpec(
            workflow_id=workflow_id,
            cron=self.cron,
            timezone=self.timezone,
            key=self.key,
            payload=payload,
            **option_fields(self.options),
        )

    def __repr__(self) -> str:
        return f"Schedule({self.cron!r}, timezone={self.timezone!r})"


def option_fields(options: ScheduleOptions) -> dict[str, Any]:
    """Raises `BadValue` for a value outside the API's limits."""
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
