"""Queues and their pauses."""

from typing import Annotated

import typer

from perdure.cli.common import JsonFlag, UrlOption, command, console, emit, group, say, with_client

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The queue. A workflow's own queue has its name.")]


def add_to(app: typer.Typer) -> None:
    queues = group("Queues: their limits, their pauses, and what waits in them.")
    for name, function in (("ls", ls), ("pause", pause), ("resume", resume)):
        command(queues, name)(function)
    command(queues, "list", hidden=True)(ls)
    app.add_typer(queues, name="queues", rich_help_panel="Run")


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List queues with their limits, pauses and numbers."""
    from rich.table import Table
    from rich.text import Text

    from perdure.cli.render import date_time

    found = with_client(url, lambda client: client.queues.list())
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        say("All queues are empty, and none has a limit or a pause.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("QUEUE", "QUEUED", "RUNNING", "LIMIT", "PER KEY", "PAUSED"):
        table.add_column(name, no_wrap=name != "QUEUE", overflow="fold")
    for one in found:
        table.add_row(
            Text(one.name),
            str(one.queued),
            str(one.running),
            "" if one.total_limit is None else str(one.total_limit),
            "" if one.concurrency_limit is None else str(one.concurrency_limit),
            "" if one.paused_at_us is None else Text(date_time(one.paused_at_us), style="yellow"),
        )
    console().print(table)


def pause(name: NameArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Pause a queue. Running executions end as usual; new ones wait."""
    paused = with_client(url, lambda client: client.queues.pause(name))
    if as_json:
        emit(paused)
    else:
        say(f"Queue {name} is paused, with {paused.queued} queued and {paused.running} running.")


def resume(name: NameArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Resume a paused queue."""
    resumed = with_client(url, lambda client: client.queues.resume(name))
    if as_json:
        emit(resumed)
    else:
        say(f"Queue {name} is open, with {resumed.queued} queued and {resumed.running} running.")
