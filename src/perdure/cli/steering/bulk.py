"""Bulk jobs: one action on all executions that match filters."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from perdure.cli.base.commands import INTERRUPTED, STILL_RUNNING, Refused, add_group
from perdure.cli.base.connect import call, fetch, with_client
from perdure.cli.base.filters import Options, chosen, read_filters, taking
from perdure.cli.base.options import JsonFlag, NoteOption, UrlOption, check_choice, parse_json
from perdure.cli.base.output import console, emit, note, print_facts, print_list, print_result, say
from perdure.cli.steering.acts import act_options
from perdure.cli.steering.forks import fork_options, retry_options

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client
    from perdure.wire.runs.executions import ListFilters
    from perdure.wire.steering.bulk import BulkJob, BulkPreview

LOOK_SECONDS: Final = 0.5
WATCH_PATIENCE_SECONDS: Final = 60.0
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job, as `perdure bulk ls` shows it.")]


def add_to(app: typer.Typer) -> None:
    help = "Act on all executions that filters find, in the background."
    jobs = [_starting(action, help, options) for action, (_, help, options) in JOBS.items()]
    jobs += [ls, show, items, stop, continue_]
    add_group(app, "Run", "bulk", help, *jobs, others={"list": ls})


def _starting(action: str, help: str, options_of: list[Callable[..., Options]]) -> Callable[..., None]:
    def command(
        filters: "ListFilters",
        *options: Options,
        reason: NoteOption = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only count the executions and show the newest 20.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        detach: Annotated[
            bool, typer.Option("--detach", "-d", help="Print the job's id and do not wait for its end.")
        ] = False,
        url: UrlOption = None,
        as_json: JsonFlag = False,
    ) -> None:
        from perdure.wire.steering.bulk import BulkAction, BulkOptions, PreviewBulkJob, StartBulkJob

        if as_json and not (dry_run or yes):
            raise Refused("--json asks nothing: add --dry-run to look, or --yes to act.")
        given = {name: value for one in options for name, value in one.items()}
        selection = (BulkAction(action), filters, BulkOptions(**given))
        found = call(url, PreviewBulkJob(*selection))
        if dry_run and as_json:
            emit(found)
        elif dry_run or not yes:
            _print(action, found)
        if dry_run:
            return
        amount = _amount_text(found.count, found.at_least)
        if not yes and not sys.stdin.isatty():
            raise Refused("Confirm with --yes, because no terminal can ask.")
        if not (yes or typer.confirm(f"{action.capitalize()} {amount}?")):
            raise Refused("Nothing was done.")
        expect = None if found.at_least else found.count
        job = call(url, StartBulkJob(*selection, newest=found.newest, expect=expect, note=reason))
        if detach:
            print_result(as_json, job, job.id)
            return
        if not as_json:
            note(f"Bulk job {job.id}: {action} {_amount_text(job.total, job.at_least)}.")
        _watch_to_end(url, job, as_json=as_json)

    command.__name__, command.__doc__ = action, help
    return taking(read_filters, *options_of)(command)


def _placed(
    on: Annotated[
        str | None, typer.Option("--on", help="Run the new executions in this deployment. Default: the current one.")
    ] = None,
) -> Options:
    return chosen(deployment_id=on)


def _answer_options(
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step that waits for an answer.")],
    data: Annotated[str | None, typer.Option("--data", help="The answer: JSON, @FILE, or -. Default: null.")] = None,
) -> Options:
    from msgspec import Raw

    return {"key": step, "data": Raw(parse_json(data or "null", "--data"))}


def _pending(
    pending: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="The pending call of each. Without it: held executions.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", help="With --fail: another error.")] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="With --try: held executions go on in this deployment.")
    ] = None,
) -> Options:
    return chosen(key=pending, error=message, deployment_id=on)


JOBS: Final[dict[str, tuple[str, str, list[Callable[..., Options]]]]] = {
    "cancel": ("cancelled", "Cancel open executions, with everything below them.", []),
    "retry": (
        "retried",
        "Retry failed executions that have no retry yet.\n\nName a --status to retry others.",
        [retry_options, _placed],
    ),
    "fork": ("forked", "Fork executions, with the same edits.", [fork_options, _placed]),
    "resume": ("answered", "Give the same answer to executions that wait under STEP.", [_answer_options]),
    "act": (
        "decided",
        "Decide the same pending call, or how held executions continue.",
        [act_options, _pending],
    ),
    "delete": ("deleted", "Delete final executions, with everything below them.", []),
}
"""Actions with the word for a taken execution, the command's help, and the options."""


def _print(action: str, found: "BulkPreview") -> None:
    from perdure.cli.runs.execution import print_executions

    print_executions(found.sample, empty="")
    if found.count > len(found.sample):
        say(f"… and {_amount_text(found.count - len(found.sample), found.at_least)} more")
    say(f"{_amount_text(found.count, found.at_least)} would be {JOBS[action][0]}.")
    if found.later:
        say(
            f"{found.later:,} of them called further steps after the failure, such as refunds, and would be "
            "refused. --keep-later keeps these outcomes, --redo-later drops them."
        )


def _amount_text(amount: int, at_least: bool) -> str:
    return f"{'at least ' if at_least else ''}{amount:,}"


def _watch_to_end(url: str | None, job: "BulkJob", *, as_json: bool) -> None:
    from perdure.wire.base.errors import Unavailable
    from perdure.wire.steering.bulk import JobState

    try:
        job = with_client(url, lambda client: _watch(client, job, shown=not as_json), patience=WATCH_PATIENCE_SECONDS)
    except KeyboardInterrupt:
        note(f"\nThe job goes on. `perdure bulk show {job.id}` looks at it, `perdure bulk stop {job.id}` stops it.")
        raise typer.Exit(INTERRUPTED) from None
    except Unavailable as error:
        note(f"{error.message}\nThe job goes on with the server; `perdure bulk show {job.id}` looks at it.")
        raise typer.Exit(STILL_RUNNING) from None
    if as_json:
        emit(job)
    elif job.state is JobState.COMPLETED:
        say(_end_words(job))
    else:
        say(f"The job was stopped with {job.left:,} left; `perdure bulk continue {job.id}` continues it.")
    if job.state is not JobState.COMPLETED:
        raise typer.Exit(STILL_RUNNING)


async def _watch(client: "Client", job: "BulkJob", *, shown: bool) -> "BulkJob":
    import asyncio

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from perdure.wire.steering.bulk import JobState

    columns, screen = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()), console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not (shown and screen.is_terminal)) as bar:
        task = bar.add_task("", total=job.total)
        while job.state is JobState.RUNNING:
            await asyncio.sleep(LOOK_SECONDS)
            job = await client.bulk.get(job.id)
            taken = job.done + job.refused
            bar.update(task, completed=taken, total=max(job.total, taken))
    return job


def _end_words(job: "BulkJob") -> str:
    text = f"{job.done:,} of {job.done + job.refused:,} {JOBS[job.action][0]}."
    if job.refused:
        text += f" {job.refused:,} refused: `perdure bulk items {job.id} --state refused`."
    return text


def ls(
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=1_000)] = 20,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List bulk jobs, newest first."""
    from perdure.cli.base.render import cut, date_time

    page = with_client(url, lambda client: client.bulk.list(limit=limit))
    print_list(
        as_json,
        page.items,
        ("ID", "ACTION", "STATE", "TOTAL", "DONE", "REFUSED", "STARTED", "BY", "NOTE"),
        lambda job: (
            job.id,
            job.action.value,
            _state(job),
            _amount_text(job.total, job.at_least),
            f"{job.done:,}",
            f"{job.refused:,}",
            date_time(job.created_at_us),
            job.started_by,
            cut(job.note or "", 60),
        ),
        empty="No bulk jobs; `perdure bulk cancel --workflow NAME --dry-run` looks at what one would do.",
        whole=("ID", "ACTION", "STATE", "STARTED"),
    )


STATE_STYLE: Final = {"held": "yellow", "running": "blue", "stopped": "yellow", "completed": "green"}


def _state(job: "BulkJob") -> tuple[str, str]:
    word = "held" if _is_held(job) else job.state.value
    return word, STATE_STYLE[word]


def _is_held(job: "BulkJob") -> bool:
    return job.state.value == "running" and (job.starts_at_us or 0) > time.time() * 1e6


def show(id: JobArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Show the filters, progress and author of a bulk job."""
    from perdure.cli.base.render import date_time, value

    job = with_client(url, lambda client: client.bulk.get(id))
    if as_json:
        emit(job)
        return
    rate = None if job.per_second is None else f"{job.per_second:,.0f} a second"
    print_facts(
        [
            ("id", job.id),
            ("action", job.action.value),
            ("state", _state(job)),
            ("filters", value(job.filters, 400)),
            ("options", None if job.options is None or bytes(job.options) == b"{}" else value(job.options, 400)),
            ("newest", job.newest),
            ("total", _amount_text(job.total, job.at_least)),
            ("done", f"{job.done:,}"),
            ("refused", f"{job.refused:,}" if job.refused else None),
            ("for later", f"{job.later:,}" if job.later else None),
            ("left", f"{job.left:,}" if job.left else None),
            ("rate", rate),
            ("started", f"{date_time(job.created_at_us)} by {job.started_by}"),
            ("starts" if _is_held(job) else "held until", date_time(job.starts_at_us) or None),
            ("ended", None if job.ended_at_us is None else date_time(job.ended_at_us)),
            ("note", job.note),
        ]
    )
    if _is_held(job):
        note(f"`perdure bulk continue {job.id}` starts it now, `perdure bulk stop {job.id}` undoes it.")
    if job.state.value == "stopped":
        note(f"`perdure bulk continue {job.id}` continues it.")


def items(
    id: JobArgument,
    state: Annotated[str | None, typer.Option("--state", help="done, refused or later.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=100_000)] = 100,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the executions of a bulk job, with reasons of refusals."""
    from perdure.cli.base.render import date_time
    from perdure.wire.steering.bulk import ItemState, ListBulkItems

    check_choice("--state", state, [*ItemState])
    kind = None if state is None else ItemState(state)

    def ask(cursor: str | None, amount: int) -> ListBulkItems:
        return ListBulkItems(id, kind, cursor, amount)

    found, _ = with_client(url, lambda client: fetch(client, limit, ask))
    print_list(
        as_json,
        found,
        ("EXECUTION", "STATE", "AT", "STARTED", "REASON"),
        lambda item: (
            item.execution_id,
            (item.state.value, ITEM_STYLE[item.state]),
            date_time(item.at_us),
            item.made_id or "",
            item.reason or "",
        ),
        empty="No executions yet." if state is None else f"No executions are {state}.",
        whole=("EXECUTION", "STATE", "AT", "STARTED"),
    )


ITEM_STYLE: Final = {"done": "green", "refused": "red", "later": "yellow"}


def stop(id: JobArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Stop a bulk job, which can be continued.

    A held job has changed nothing.
    """
    job = with_client(url, lambda client: client.bulk.stop(id))
    text = f"{id} is stopped with {job.left:,} left; `perdure bulk continue {id}` continues it."
    print_result(as_json, job, text)


def continue_(id: JobArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Continue a stopped bulk job, or start a held one."""
    job = with_client(url, lambda client: client.bulk.continue_job(id))
    _watch_to_end(url, job, as_json=as_json)
