"""Executions."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.filters import read_filters, taking
from perdure.cli.base.options import ExecutionArgument, JsonFlag, NoteOption, UrlOption
from perdure.cli.base.output import console, emit, note, print_commands, print_result

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client
    from perdure.wire.insight.why import Why
    from perdure.wire.runs.executions import Act, Execution, ListFilters, LogLine, Row

ROWS_SHOWN: Final = 200
COUNTED_MAX: Final = 50
"""Most roots whose descendants are counted."""


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", ls, show, logs)
    add_commands(app, "Run", cancel)


@taking(read_filters)
def ls(
    filters: "ListFilters",
    every: Annotated[bool, typer.Option("--all", help="Children, too. Without filters only roots are listed.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=100_000)] = 20,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List executions, newest first."""
    import asyncio

    from perdure.cli.base.render import date_time
    from perdure.cli.runs.execution import print_executions
    from perdure.cli.runs.queues import note_pauses
    from perdure.wire.base.status import Phase
    from perdure.wire.base.times import microseconds
    from perdure.wire.runs.executions import ListFilters

    is_unfiltered = filters == ListFilters()
    folds = is_unfiltered and not every
    below: dict[str, str] = {}
    if folds:
        filters = ListFilters(roots=True)

    async def work(client: "Client") -> "tuple[list[Execution], bool]":
        found: list[Execution] = []
        cursor: str | None = None
        while True:
            page = await client.list(filters, cursor=cursor, limit=min(limit - len(found), 500))
            found.extend(one.raw for one in page.executions)
            cursor = page.next_cursor
            if page.searched_to is not None:
                note(f"No match back to {date_time(microseconds(page.searched_to))}; searching on.")
            if cursor is None or len(found) >= limit:
                break
        if folds and not as_json and len(found) <= COUNTED_MAX:
            counts = (client.stats.count(ListFilters(root_execution_id=one.id)) for one in found)
            for one, count in zip(found, await asyncio.gather(*counts), strict=True):
                below[one.id] = f"{count.count:,}{'' if count.exact else '+'}" if count.count else ""
        return found, cursor is not None

    found, more = with_client(url, work)
    empty = "No executions." if is_unfiltered else "No executions match."
    print_executions(found, below, empty=empty, as_json=as_json)
    if more and not as_json:
        note(f"The newest {len(found)}; --limit shows more.")
    if not as_json and any(one.phase is Phase.QUEUED for one in found):
        note_pauses(url)


def show(
    id: ExecutionArgument,
    journal: Annotated[
        bool, typer.Option("--journal", help="For an agent's run, show the journal instead of the conversation.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="At most this many rows of the journal, the newest.", min=1)
    ] = ROWS_SHOWN,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show an execution: fields, journal or conversation, waits."""
    from perdure.cli.runs.conversation import is_agent_run
    from perdure.cli.runs.execution import (
        print_acts,
        print_conversation,
        print_execution,
        print_journal,
        print_warnings,
    )
    from perdure.cli.runs.waits import page_link, print_waits
    from perdure.wire.base.records import Kind
    from perdure.wire.base.status import FINAL
    from perdure.wire.runs.executions import GetSteps
    from perdure.wire.runs.waits import GetWaits, PendingWaits

    links: dict[str, str] = {}
    logged: list[LogLine] = []
    acts: list[Act] = []
    rows: list[Row] = []
    waiting = PendingWaits([])

    async def work(client: "Client") -> "tuple[Execution, Why | None, bool | None]":
        nonlocal waiting
        execution = (await client.get(id)).raw
        while (page := await client._transport.call(GetSteps(id, rows[-1].seq if rows else 0, 1_000))).steps:
            rows.extend(page.steps)
            acts.extend(page.acts or ())
        if execution.completed_at_us is None:
            waiting = await client._transport.call(GetWaits(id))
        if as_json:
            return execution, None, await _is_served(client, execution)
        after = 0
        while lines := await client.logs(id, after=after, limit=1_000):
            logged.extend(line for _, line in lines)
            after = lines[-1][0]
        for wait in waiting.waits:
            if wait.data is not None:
                links[wait.key] = await page_link(client, id, wait.key)
        return execution, None if execution.phase in FINAL else await client.why(id), None

    execution, why, served = with_client(url, work)
    if as_json:
        emit(
            {
                "execution": execution,
                "steps": rows,
                "acts": acts,
                "waits": waiting.waits,
                "queued_behind": waiting.queued_behind,
                "served": served,
            }
        )
        return
    losses = sum(row.kind is Kind.LOST for row in rows)
    print_execution(execution, "" if why is None else why.sentence, losses=losses)
    if not journal and is_agent_run(rows):
        print_conversation(execution, rows, logged)
    else:
        print_journal(rows, execution, limit)
        if len(rows) > limit:
            note(f"The newest {limit:,} of {len(rows):,} rows; --limit shows more.")
    print_acts(acts)
    print_warnings(logged)
    print_waits(id, waiting.waits, links)
    if why is not None and not waiting.waits:
        print_commands(why.commands)


async def _is_served(client: "Client", execution: "Execution") -> bool | None:
    """None for final executions."""
    from perdure.wire.base.status import FINAL
    from perdure.wire.runs.waits import GetWorkerStatus

    if execution.phase in FINAL:
        return None
    if execution.deployment_id is None:
        return False
    return (await client._transport.call(GetWorkerStatus(execution.deployment_id))).has_workers


def logs(
    id: ExecutionArgument,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show an execution's log, with its transitions and steps."""
    from perdure.cli.base.render import day_of
    from perdure.cli.runs.execution import json_line, text_line
    from perdure.cli.runs.watching import follow
    from perdure.wire.runs.executions import LogLine, Row

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


def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The executions.")],
    reason: NoteOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Cancel executions and everything below them.

    A refusal does not stop the command.
    """
    from perdure.wire.base.errors import BadRequest, NotFound
    from perdure.wire.base.status import Phase

    refused: list[str] = []

    async def work(client: "Client") -> None:
        for id in ids:
            try:
                execution = (await client.cancel(id, note=reason)).raw
            except (BadRequest, NotFound) as error:
                refused.append(error.message)
                continue
            ended = execution.phase is Phase.CANCELLED
            text = f"{id} is cancelled." if ended else f"{id} is being cancelled; its worker has been told."
            print_result(as_json, execution, text)

    with_client(url, work)
    if refused:
        raise Refused("\n".join(refused))
