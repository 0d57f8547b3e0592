"""Schedules of workflows."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_group
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import JsonFlag, UrlOption, parse_json, parse_seconds
from perdure.cli.base.output import Cell, emit, print_facts, print_list, print_result, print_table, say

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.sdk.clients.client import Client
    from perdure.wire.clock.schedules import Fire, StoredSchedule

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The schedule, as `perdure schedules ls` shows it.")]


def add_to(app: typer.Typer) -> None:
    help = "Start workflows by the clock."
    functions = (create, ls, show, next_, run, pause, resume, delete)
    add_group(app, "Run", "schedules", help, *functions, others={"list": ls, "rm": delete})


def create(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow to start.")],
    cron: Annotated[str, typer.Argument(metavar="CRON", help='Five fields in quotes: "30 9 * * MON-FRI".')],
    timezone: Annotated[str, typer.Option("--timezone", "-z", help="An IANA name, such as Europe/Berlin.")] = "UTC",
    key: Annotated[str, typer.Option("--key", help="Its name within the workflow.")] = "default",
    overlap: Annotated[
        str | None,
        typer.Option("--overlap", help="While one is open: skip, queue (one after the other; the default) or allow."),
    ] = None,
    missed: Annotated[
        str | None,
        typer.Option("--missed", help="Due times that passed in an outage: skip, latest (the default) or all."),
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", help="How far back --missed all reaches: 15m, 6h, 7d. Default: 1d.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", help="The input of each execution: JSON, @FILE, or -. Default: the due time."),
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create or replace the schedule of a workflow and key."""
    from msgspec import Raw

    from perdure.wire.clock.schedules import CreateSchedule, Missed, Overlap

    for option, word, kind in (("--overlap", overlap, Overlap), ("--missed", missed, Missed)):
        if word is not None and word not in [*kind]:
            raise Refused(f"{option} is {', '.join(kind)}; got {word!r}.")
    spec = CreateSchedule(
        workflow,
        cron,
        timezone,
        key,
        overlap=None if overlap is None else Overlap(overlap),
        missed=None if missed is None else Missed(missed),
        missed_window_seconds=None if window is None else parse_seconds(window, "--window"),
        payload=None if input is None else Raw(parse_json(input, "--input")),
    )

    async def work(client: "Client") -> "StoredSchedule":
        return await client.schedules.get((await client._transport.call(spec)).schedule_id)

    made = with_client(url, work)
    coming = f"Next: {_when(made.next_at_us, made.timezone)}. `perdure schedules next {made.id}` shows more."
    print_result(as_json, made, made.id, coming)


def ls(
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Of this workflow.")] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List schedules, newest first."""
    print_list(
        as_json,
        with_client(url, lambda client: client.schedules.list(workflow)),
        ("ID", "WORKFLOW", "KEY", "CRON", "ZONE", "NEXT", "LAST"),
        lambda one: (
            one.id,
            one.workflow_id,
            one.key,
            one.cron,
            one.timezone,
            ("paused", "yellow") if one.status.value == "paused" else _when(one.next_at_us, one.timezone),
            "" if one.last_slot_us is None else _when(one.last_slot_us, one.timezone),
        ),
        empty="No schedules; make one with `perdure schedules create WORKFLOW CRON`.",
        whole=("ID", "NEXT", "LAST"),
    )


def show(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Show the policies and due times of a schedule."""

    async def work(client: "Client") -> "tuple[StoredSchedule, list[datetime], list[Fire]]":
        one = await client.schedules.get(id)
        return one, list(await client.schedules.next(id, 3)), list(await client.schedules.fires(id, limit=20))

    one, coming, fires = with_client(url, work)
    if as_json:
        emit({"schedule": one, "next": [moment.isoformat() for moment in coming], "fires": fires})
        return
    _print_schedule(one, coming)
    if fires:
        say()
        _print_fires(one, fires)


def next_(
    id: IdArgument,
    count: Annotated[int, typer.Option("--count", "-n", help="How many.", min=1, max=100)] = 10,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the next due times."""
    coming = with_client(url, lambda client: client.schedules.next(id, count))
    for moment in coming:
        if as_json:
            emit(moment.isoformat())
        else:
            say(_text(moment))


def run(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Start an execution of a schedule now.

    Due times do not change.
    """
    started = with_client(url, lambda client: client.schedules.run(id))
    print_result(as_json, {"execution_id": started.id}, started.id)


def pause(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Pause a schedule.

    Due times in a pause do not count as missed.
    """
    changed = with_client(url, lambda client: client.schedules.pause(id))
    print_result(as_json, changed, f"{id} is paused; `perdure schedules resume {id}` resumes it.")


def resume(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Resume a schedule."""
    changed = with_client(url, lambda client: client.schedules.resume(id))
    print_result(as_json, changed, f"{id} goes on; next: {_when(changed.next_at_us, changed.timezone)}.")


def delete(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Delete a schedule. Its executions stay."""
    with_client(url, lambda client: client.schedules.delete(id))
    print_result(as_json, {"id": id}, f"{id} is deleted.")


def _print_schedule(one: "StoredSchedule", coming: "list[datetime]") -> None:
    from perdure.cli.base.render import date_time, value
    from perdure.wire.base.times import duration

    paused = one.status.value == "paused"
    missed = one.missed.value
    if missed == "all":
        missed += f", {duration(one.missed_window_seconds * 1_000_000)} back"
    facts: list[tuple[str, Cell | None]] = [
        ("id", one.id),
        ("workflow", one.workflow_id),
        ("key", one.key),
        ("cron", one.cron),
        ("zone", one.timezone),
        ("status", (one.status.value, "yellow" if paused else "green")),
        ("overlap", one.overlap.value),
        ("missed", missed),
        ("input", "the due time" if one.payload is None else value(one.payload, 400)),
        ("declared", "in code" if one.declared else None),
        ("made", date_time(one.created_at_us)),
        ("last", None if one.last_slot_us is None else _when(one.last_slot_us, one.timezone)),
        ("next, resumed" if paused else "next", "\n".join(_text(moment) for moment in coming)),
    ]
    print_facts(facts)


def _print_fires(one: "StoredSchedule", fires: "list[Fire]") -> None:
    from perdure.wire.base.times import duration

    styles = {"started": "blue", "done": "green", "waiting": "magenta", "skipped": "yellow"}
    rows = [
        (
            "by hand" if fire.by_hand else _when(fire.slot_us, one.timezone),
            "" if fire.by_hand or fire.state.value == "waiting" else duration(fire.fired_at_us - fire.slot_us),
            (fire.state.value, styles[fire.state.value]),
            fire.execution_id or fire.reason or "",
        )
        for fire in fires
    ]
    print_table(("DUE", "LATE", "WHAT", "EXECUTION"), rows, whole=("DUE", "LATE", "WHAT"))


def _when(at_us: int, timezone: str) -> str:
    """Falls back to UTC if this machine does not know the zone."""
    from datetime import UTC, datetime, timedelta
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    try:
        return _text(moment.astimezone(ZoneInfo(timezone)))
    except (ZoneInfoNotFoundError, OSError, ValueError):
        return _text(moment)


def _text(moment: "datetime") -> str:
    """
    >>> from datetime import UTC, datetime
    >>> _text(datetime(2026, 6, 1, 9, 30, tzinfo=UTC))
    'Mon 2026-06-01 09:30 +00:00'
    """
    return f"{moment:%a %Y-%m-%d %H:%M} {moment.isoformat()[-6:]}"
