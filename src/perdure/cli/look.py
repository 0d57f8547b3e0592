"""Executions, their journals and their logs."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perdure.cli.commands import Refused, add_commands
from perdure.cli.connect import with_client
from perdure.cli.options import JsonFlag, UrlOption, parse_seconds
from perdure.cli.output import Cell, console, emit, fields_of, note, print_list, print_pairs, print_table, say

if TYPE_CHECKING:
    from perdure.sdk.client import Client
    from perdure.wire.executions import Execution, LogLine, Row

CHILDREN_SHOWN: Final = 20

WARNINGS_SHOWN: Final = 5


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", ls, show, logs)
    add_commands(app, "Run", cancel)


def ls(
    status: Annotated[
        str | None,
        typer.Option("--status", help="pending, running, completed, failed or cancelled; several with commas."),
    ] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", help="More exact than a status: queued, waiting, blocked, …")
    ] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Of this workflow.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="With this key.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="With this tag, as NAME=VALUE.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="In this queue.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Of this session.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Of this user.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", help="The children of this execution.")] = None,
    root: Annotated[
        str | None, typer.Option("--root", help="Everything below this root, without the root itself.")
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Of this batch.")] = None,
    deployment: Annotated[str | None, typer.Option("--deployment", help="Of this deployment.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Created within this time: 90s, 15m, 2h, 7d.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=100_000)] = 20,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List executions, newest first."""
    from perdure.cli.render import PHASE_STYLE, cut, date_time, took, value
    from perdure.wire.executions import ListFilters

    if tag is not None and "=" not in tag:
        raise Refused(f"--tag needs NAME=VALUE; got {tag!r}.")
    filters = ListFilters(
        phases=_phases(status, phase),
        workflow_id=workflow,
        session_id=session,
        user_id=user,
        queue_name=queue,
        batch_id=batch,
        parent_execution_id=parent,
        root_execution_id=root,
        deployment_id=deployment,
        key=key,
        tag=tag,
        created_after_us=None if since is None else _ago_us(since),
    )

    async def work(client: "Client") -> "tuple[list[Execution], bool]":
        found: list[Execution] = []
        cursor: str | None = None
        while True:
            page = await client.list(filters, cursor=cursor, limit=min(limit - len(found), 500))
            found.extend(page.executions)
            cursor = page.next_cursor
            if cursor is None or len(found) >= limit:
                return found, cursor is not None

    found, more = with_client(url, work)
    print_list(
        as_json,
        found,
        ("ID", "WORKFLOW", "PHASE", "CREATED", "TOOK", "KEY", "OUTCOME"),
        lambda one: (
            one.id,
            one.workflow_id,
            (one.phase.value, PHASE_STYLE[one.phase]),
            date_time(one.created_at_us),
            took(one.started_at_us, one.completed_at_us),
            one.key or "",
            cut(one.error or (_progress(one) if one.result is None else value(one.result, 40)), 60),
        ),
        empty="No executions." if filters == ListFilters() else "No executions match.",
        whole=("ID", "PHASE", "CREATED", "TOOK"),
    )
    if more and not as_json:
        note(f"The newest {len(found)}; --limit shows more.")


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The execution.")],
    journal: Annotated[
        bool, typer.Option("--journal", help="For an agent's run, show the journal instead of the conversation.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one execution: its fields, its journal (for an agent, the conversation), its waits."""
    from perdure.cli.conversation import is_agent_run
    from perdure.cli.waits import behind_words, page_link, print_waits, waiting_words
    from perdure.wire.executions import ListFilters
    from perdure.wire.status import FINAL, Phase
    from perdure.wire.waits import GetWaits, PendingWaits

    links: dict[str, str] = {}
    children: list[Execution] = []
    logged: list[LogLine] = []
    pushed = False

    async def work(client: "Client") -> "tuple[Execution, list[Row], PendingWaits, bool | None]":
        nonlocal pushed
        execution = await client.get(id)
        rows: list[Row] = []
        while page := await client.journal(id, after=rows[-1].seq if rows else 0, limit=1_000):
            rows.extend(page)
        if not as_json:
            after = 0
            while lines := await client.logs(id, after=after, limit=1_000):
                logged.extend(line for _, line in lines)
                after = lines[-1][0]
        waiting = PendingWaits([])
        if execution.completed_at_us is None:
            waiting = await client._transport.call(GetWaits(id))
        if not as_json:
            for wait in waiting.waits:
                if wait.data is not None:
                    links[wait.key] = await page_link(client, id, wait.key)
            if execution.phase is Phase.WAITING:
                open_ones = [phase.value for phase in Phase if phase not in FINAL]
                found = await client.list(ListFilters(phases=open_ones, parent_execution_id=id), limit=CHILDREN_SHOWN)
                children.extend(found.executions)
        served = await is_served(client, execution)
        if served is False and execution.deployment_id is not None:
            pushed = await _is_pushed(client, execution.deployment_id)
        return execution, rows, waiting, served

    execution, rows, waiting, served = with_client(url, work)
    if as_json:
        emit(
            {
                "execution": execution,
                "steps": rows,
                "waits": waiting.waits,
                "queued_behind": waiting.queued_behind,
                "served": served,
            }
        )
        return
    _print_execution(execution, served, behind_words(waiting.queued_behind), pushed=pushed)
    if not journal and is_agent_run(rows):
        _print_conversation(execution, rows, logged)
    else:
        present = waiting_words(waiting.waits, children, _due(execution))
        _print_journal(rows, execution, present if execution.phase is Phase.WAITING else "")
    _print_warnings(logged)
    print_waits(id, waiting.waits, links, children)


async def is_served(client: "Client", execution: "Execution") -> bool | None:
    """None for final executions."""
    from perdure.wire.status import FINAL
    from perdure.wire.waits import GetWorkerStatus

    if execution.phase in FINAL:
        return None
    if execution.deployment_id is None:
        return False
    return (await client._transport.call(GetWorkerStatus(execution.deployment_id))).has_workers


async def _is_pushed(client: "Client", deployment_id: str) -> bool:
    """A native worker there would keep push workers out."""
    from perdure.wire.deployments import GetDeployment, ServedBy

    return (await client._transport.call(GetDeployment(deployment_id))).served_by is ServedBy.PUSH


def _print_execution(one: "Execution", served: bool | None, behind: str, *, pushed: bool) -> None:
    from rich.text import Text

    from perdure.cli.render import PHASE_STYLE, date_time, took, value
    from perdure.wire.status import Phase

    phase = Text(one.phase.value, style=PHASE_STYLE[one.phase])
    if served is False and one.deployment_id is None:
        phase.append("  no worker has registered yet; start one with `perdure work`", style="yellow")
    elif served is False and pushed:
        phase.append(f"  no worker serves deployment {one.deployment_id!r}; start its push worker", style="yellow")
    elif served is False:
        phase.append(
            f"  no worker serves deployment {one.deployment_id!r}; start a worker with `perdure work --deployment "
            f"{shlex.quote(one.deployment_id or '')} …`",
            style="yellow",
        )
    elif one.phase is Phase.BLOCKED:
        phase.append("  the code does not match the journal; it is tried again when a worker registers")
    facts: list[tuple[str, Cell | None]] = [
        ("id", one.id),
        ("workflow", one.workflow_id),
        ("phase", phase),
        ("key", one.key),
        ("deployment", one.deployment_id),
        ("queue", one.queue_name if one.concurrency_key is None else f"{one.queue_name} / {one.concurrency_key}"),
        ("session", None if one.session_id == one.id else one.session_id),
        ("user", one.user_id),
        ("tags", None if one.tags is None else value(one.tags)),
        ("parent", one.parent_execution_id),
        ("root", one.root_execution_id),
        ("batch", one.batch_id),
        ("created", date_time(one.created_at_us)),
        ("waits for", behind),
        ("due", "" if behind else _due(one)),
        ("took", took(one.started_at_us, one.completed_at_us)),
        ("attempt", str(one.attempt) + (f", {one.retry_count} retries" if one.retry_count else "")),
        ("worker", one.assigned_to_worker),
        ("progress", _progress(one)),
        ("input", value(one.payload, 400)),
        ("result", None if one.result is None else value(one.result, 400)),
        ("error", None if one.error is None else (one.error, "red")),
        ("cancelled by", one.cancelled_by),
    ]
    print_pairs(facts)


def _due(one: "Execution") -> str:
    import time

    from perdure.cli.render import date_time, duration
    from perdure.wire.status import Phase

    what = {Phase.WAITING: "wakes", Phase.QUEUED: "starts"}.get(one.phase)
    if what is None or one.due_at_us is None:
        return ""
    left_us = one.due_at_us - time.time_ns() // 1_000
    return f"{what} at {date_time(one.due_at_us)}" + (f" (in {duration(left_us)})" if left_us > 0 else "")


def _print_journal(rows: "list[Row]", execution: "Execution", present: str) -> None:
    """`present` describes what the execution waits for now."""
    from rich.text import Text

    from perdure.cli.render import clock_time, duration, kind_style, outcome, subject, traceback, zone
    from perdure.cli.waits import went_on_with
    from perdure.wire.records import Kind
    from perdure.wire.status import Phase

    table: list[tuple[Cell, ...]] = []
    for n, row in enumerate(rows, 1):
        said = outcome(row)
        if row.kind is Kind.WAITING:
            said = went_on_with(rows, n) or (present if n == len(rows) else "")
        table.append(
            (
                str(row.seq),
                clock_time(row.at_us),
                duration(row.at_us - execution.created_at_us),
                str(row.attempt or ""),
                (row.kind.value, kind_style(row.kind, ok=row.ok)),
                subject(row),
                "" if row.started_at_us is None else duration(max(0, row.at_us - row.started_at_us)),
                (said, "" if row.ok else "red"),
            )
        )
    at = f"AT {zone(execution.created_at_us)}"
    columns = ("SEQ", at, "AFTER", "ATT", "WHAT", "KEY", "TOOK", "OUTCOME")
    say()
    print_table(
        columns, table, whole=("SEQ", at, "AFTER", "ATT", "WHAT", "TOOK"), right=("SEQ", "AFTER", "ATT", "TOOK")
    )
    if execution.phase is Phase.COMPLETED:
        return  # its failures were handled or retried
    if told := [where for row in rows if (where := traceback(row))]:
        say()
        console().print(Text(told[-1], style="dim"), soft_wrap=True)


def _print_warnings(logged: "list[LogLine]") -> None:
    """Each once: a replay may repeat them."""
    import logging

    from rich.text import Text

    from perdure.cli.render import clock_time, plain

    grave = {line.text: line for line in logged if line.level >= logging.WARNING}
    if not grave:
        return
    say()
    for line in list(grave.values())[-WARNINGS_SHOWN:]:
        style = "red" if line.level >= logging.ERROR else "yellow"
        console().print(Text(f"{clock_time(line.at_us)}  {plain(line.text)}", style=style), soft_wrap=True)
    if len(grave) > WARNINGS_SHOWN:
        say(f"and {len(grave) - WARNINGS_SHOWN} warnings before these; `perdure logs` shows all lines.")


def _print_conversation(execution: "Execution", rows: "list[Row]", logged: "list[LogLine]") -> None:
    from rich.text import Text

    from perdure.cli.conversation import conversation, spent
    from perdure.cli.render import plain

    styles = {"user": "bold cyan", "model": "bold green", "tool": "magenta", "person": "bold yellow"}
    styles |= dict.fromkeys(("guard", "refused"), "yellow")
    pairs: list[tuple[Cell, Cell]] = []
    for line in conversation(execution, rows, logged):
        text = Text(plain(line.text), style="red" if line.failed else "")
        if line.note:
            text.append(f"  {line.note}", style="dim")
        pairs.append(((line.who, "red" if line.failed else styles.get(line.who, "")), text))
    say()
    print_pairs(pairs, style="")
    say(f"\n{spent(rows)}; --journal shows every row.")


def logs(
    id: Annotated[str, typer.Argument(metavar="ID", help="The execution.")],
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show an execution's log, with its transitions and steps."""
    from perdure.cli.follow import follow
    from perdure.cli.render import day_of
    from perdure.wire.executions import LogLine, Row

    async def work(client: "Client") -> None:
        out = console()
        day = ""
        async for item in follow(client, id, to_the_end=following):
            if not isinstance(item, Row | LogLine):
                continue
            if as_json:
                emit(json_line(item))
                continue
            if day_of(item.at_us) != day:
                day = day_of(item.at_us)
                out.print(day, style="dim")
            out.print(text_line(item), soft_wrap=True)

    with_client(url, work, patience=30.0 if following else 3.0)


def json_line(item: "Row | LogLine") -> dict[str, Any]:
    from perdure.wire.executions import Row
    from perdure.wire.times import rfc3339

    if isinstance(item, Row):
        return {"event": "row", **fields_of(item)}
    return {"event": "log", "at": rfc3339(item.at_us), "level": item.level, "text": item.text}


def text_line(item: "Row | LogLine") -> Any:
    import logging

    from rich.text import Text

    from perdure.cli.render import clock_time, kind_style, outcome, plain, subject, traceback
    from perdure.wire.executions import Row

    line = Text(clock_time(item.at_us) + "  ", style="dim")
    if isinstance(item, Row):
        line.append(f"{item.kind.value:<13} ", style=kind_style(item.kind, ok=item.ok) or "bold")
        line.append(subject(item), style="default")
        if said := outcome(item, 200):
            line.append(f"  {said}", style="default" if item.ok else "red")
        if item.kind.value == "claimed":
            line.append(f"  attempt {item.attempt}", style="default")
        if where := traceback(item):
            line.append(f"\n{where}", style="dim")
    else:
        style = "red" if item.level >= logging.ERROR else "yellow" if item.level >= logging.WARNING else "default"
        line.append(f"{'log':<13} ", style="dim")
        name = logging.getLevelName(item.level)
        line.append(plain(item.text if item.level == logging.INFO else f"{name}: {item.text}"), style=style)
    return line


def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The executions.")],
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Cancel executions and everything below them. A refusal for one does not stop the rest."""
    from perdure.wire.errors import BadRequest, NotFound
    from perdure.wire.status import Phase

    refused: list[str] = []

    async def work(client: "Client") -> None:
        for id in ids:
            try:
                execution = await client.cancel(id)
            except (BadRequest, NotFound) as error:
                refused.append(error.message)
                continue
            if as_json:
                emit(execution)
            elif execution.phase is Phase.CANCELLED:
                say(f"{id} is cancelled.")
            else:
                say(f"{id} is being cancelled; its worker has been told.")

    with_client(url, work)
    if refused:
        raise Refused("\n".join(refused))


def _phases(status: str | None, phase: str | None) -> list[str] | None:
    from perdure.wire.status import STATUS, Phase, Status

    if status is None and phase is None:
        return None
    wanted = {*Phase}
    for words, known, of in ((status, [*Status], STATUS.get), (phase, [*Phase], None)):
        if words is None:
            continue
        chosen = {word.strip() for word in words.split(",") if word.strip()} or {words}
        if unknown := chosen - {*known}:
            raise Refused(f"{sorted(unknown)[0]!r} is not one of {', '.join(known)}.")
        wanted = {one for one in wanted if (of(one) if of is not None else one) in chosen}
    return [one.value for one in wanted]


def _ago_us(text: str) -> int:
    import time

    return max(0, time.time_ns() // 1_000 - parse_seconds(text, "--since") * 1_000_000)


def _progress(one: "Execution") -> str:
    import msgspec

    if one.progress is None:
        return ""
    try:
        found = msgspec.json.decode(one.progress)
    except msgspec.MsgspecError:
        return ""
    if not isinstance(found, dict):
        return ""
    done, total, text = found.get("done"), found.get("total"), found.get("text")
    parts = [f"{done:g}" if total is None else f"{done:g}/{total:g}"] if isinstance(done, int | float) else []
    return " ".join([*parts, *([str(text)] if text else [])])
