"""Lists by name."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.connect import PAGE, call, fetch, with_client
from perdure.cli.base.options import JsonFlag, UrlOption
from perdure.cli.base.output import Cell, note, print_list

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.wire.base.operation import Listed, Operation
    from perdure.wire.clock.schedules import StoredSchedule
    from perdure.wire.runs.workers import ListedWorker
    from perdure.wire.runs.workflows import RegisteredWorkflow

T = TypeVar("T")

SCHEDULES_SHOWN: Final = 2
DEFINITIONS_PAGE: Final = 25
"""The server refuses a page above 8 MiB, and a definition may have 256 KiB."""

LimitOption = Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=100_000)]


def add_to(app: typer.Typer) -> None:
    lists = (workflows, agents, tools, workers, topics)
    add_commands(app, "Look", *lists)


def workflows(limit: LimitOption = PAGE, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List workflows by name and deployment."""
    from perdure.cli.base.render import date_time
    from perdure.cli.runs.queues import note_pauses
    from perdure.wire.clock.schedules import ListSchedules
    from perdure.wire.runs.queues import PauseKind
    from perdure.wire.runs.workflows import GetWorkflows

    schedules: dict[str, list[StoredSchedule]] = {}
    for one in () if as_json else call(url, ListSchedules(limit=PAGE)).items:
        schedules.setdefault(one.workflow_id, []).append(one)
    _show(
        _fetch(url, limit, lambda cursor, amount: GetWorkflows(amount, cursor=cursor)),
        as_json,
        ("WORKFLOW", "DEPLOYMENT", "QUEUE", "STARTED BY", "REGISTERED"),
        lambda one: (
            one.id,
            one.deployment_id,
            one.queue_name,
            _started_by(one, schedules.get(one.id, [])),
            date_time(one.created_at_us),
        ),
        empty="No workflows; a worker registers its own: `perdure work APP`.",
        whole=("REGISTERED",),
    )
    if not as_json:
        note_pauses(url, {PauseKind.WORKFLOW})


def agents(limit: LimitOption = PAGE, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List agents by name and deployment."""
    from perdure.cli.base.render import cut, date_time
    from perdure.wire.agents.definitions import GetAgents

    def ask(cursor: str | None, amount: int) -> GetAgents:
        return GetAgents(min(amount, DEFINITIONS_PAGE), cursor=cursor)

    _show(
        _fetch(url, limit, ask),
        as_json,
        ("AGENT", "DEPLOYMENT", "MODEL", "TOOLS", "UPDATED"),
        lambda one: (
            one.id,
            one.deployment_id,
            f"{one.provider}:{one.model}",
            cut(tool_names(one.tools), 80),
            date_time(one.updated_at_us),
        ),
        empty="No agents; a worker registers its own: `perdure work APP`.",
        whole=("UPDATED",),
    )


def tools(limit: LimitOption = PAGE, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List tools of push workers by name and deployment."""
    from perdure.cli.base.render import cut, date_time
    from perdure.wire.agents.definitions import GetTools

    def ask(cursor: str | None, amount: int) -> GetTools:
        return GetTools(min(amount, DEFINITIONS_PAGE), cursor=cursor)

    _show(
        _fetch(url, limit, ask),
        as_json,
        ("TOOL", "DEPLOYMENT", "TYPE", "DESCRIPTION", "UPDATED"),
        lambda one: (
            one.id,
            one.deployment_id,
            one.tool_type,
            cut(" ".join((one.description or "").split()), 80),
            date_time(one.updated_at_us),
        ),
        empty="No tools; only push workers register tools. `perdure agents` shows the tools of each agent.",
        whole=("UPDATED",),
    )


def _place_of(one: "ListedWorker") -> str:
    if one.url is not None:
        return one.url
    where = "" if one.host is None else f", {one.host}"
    return f"Python {one.python}{where}{'' if one.pid is None else f', process {one.pid}'}"


def workers(limit: LimitOption = PAGE, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List workers by deployment: state, load, last beat."""
    from perdure.cli.base.render import date_time
    from perdure.wire.base.times import duration
    from perdure.wire.runs.workers import ListWorkers, WorkerState

    styles = {WorkerState.ONLINE: "green", WorkerState.REGISTERED: "yellow", WorkerState.LAPSED: "red"}
    now_us = time.time_ns() // 1_000

    def row(one: "ListedWorker") -> tuple[Cell, ...]:
        beat_us = one.last_beat_at_us
        return (
            one.id,
            one.deployment_id,
            one.kind.value,
            (one.state.value, styles[one.state]),
            f"{one.running}/{one.capacity}",
            "" if beat_us is None else f"{duration(max(0, now_us - beat_us))} ago",
            date_time(one.registered_at_us),
            _place_of(one),
        )

    found, more = _fetch(url, limit, lambda cursor, amount: ListWorkers(cursor, amount))
    _show(
        (sorted(found, key=lambda one: (one.deployment_id, one.registered_at_us, one.id)), more),
        as_json,
        ("ID", "DEPLOYMENT", "KIND", "STATE", "RUNS", "LAST BEAT", "REGISTERED", "RUNS ON"),
        row,
        empty="No workers; start one with `perdure work APP`.",
        whole=("ID", "STATE", "RUNS", "LAST BEAT"),
    )


def topics(
    prefix: Annotated[str, typer.Option("--prefix", help="Only names that begin with this.")] = "",
    limit: LimitOption = 100,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List topics with the number of their events."""
    from perdure.cli.base.render import date_time
    from perdure.wire.runs.events import ListTopics

    _show(
        _fetch(url, limit, lambda cursor, amount: ListTopics(prefix, cursor, amount)),
        as_json,
        ("TOPIC", "EVENTS", "LAST NUMBER", "LAST EVENT", "ITS TYPE"),
        lambda one: (
            one.topic,
            "0" if one.first_sequence_id is None else str(one.last_sequence_id - one.first_sequence_id + 1),
            str(one.last_sequence_id),
            date_time(one.last_event_at_us),
            one.last_event_type or "",
        ),
        empty="No topic has this prefix." if prefix else "No topics; the first event makes one.",
        whole=("EVENTS", "LAST NUMBER", "LAST EVENT"),
    )


def _fetch(
    url: str | None, limit: int, ask: "Callable[[str | None, int], Operation[Listed[T]]]"
) -> tuple[list[T], bool]:
    return with_client(url, lambda client: fetch(client, limit, ask))


def _show(
    listed: tuple[Sequence[T], bool],
    as_json: bool,
    columns: Sequence[str],
    row: Callable[[T], Sequence[Cell]],
    *,
    empty: str,
    whole: Sequence[str],
) -> None:
    found, more = listed
    print_list(as_json, found, columns, row, empty=empty, whole=whole)
    if more and not as_json:
        note(f"The first {len(found)}; --limit shows more.")


def _started_by(workflow: "RegisteredWorkflow", schedules: "Sequence[StoredSchedule]") -> str:
    crons = [
        f"{one.cron} {one.timezone}" + (" (paused)" if one.status.value == "paused" else "")
        for one in schedules[:SCHEDULES_SHOWN]
    ]
    if len(schedules) > len(crons):
        crons.append(f"{len(schedules) - len(crons)} more")
    if workflow.scheduled and not schedules:  # not among the newest
        crons.append("a schedule")
    return "; ".join([*crons, *(["events"] if workflow.trigger_on_event else [])])


def tool_names(tools: "Raw | None") -> str:
    """
    >>> tool_names(b'[{"name": "search"}, {"id": "mail"}, "pay", 3]')
    'search, mail, pay'
    """
    import msgspec

    found = None if tools is None else msgspec.json.decode(tools)
    listed = found if isinstance(found, list) else []
    names = (one.get("name") or one.get("id") if isinstance(one, dict) else one for one in listed)
    return ", ".join(name for name in names if isinstance(name, str))
