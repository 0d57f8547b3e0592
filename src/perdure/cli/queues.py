"""Queues and their pauses."""

from typing import Annotated

import typer

from perdure.cli.commands import add_group
from perdure.cli.connect import with_client
from perdure.cli.options import JsonFlag, UrlOption
from perdure.cli.output import print_list, print_result

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The queue. A workflow's own queue has its name.")]


def add_to(app: typer.Typer) -> None:
    help = "Queues: their limits, their pauses, and what waits in them."
    add_group(app, "Run", "queues", help, ls, pause, resume, others={"list": ls})


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List queues with their limits, pauses and numbers."""
    from perdure.cli.render import date_time

    print_list(
        as_json,
        with_client(url, lambda client: client.queues.list()),
        ("QUEUE", "QUEUED", "RUNNING", "LIMIT", "PER KEY", "PAUSED"),
        lambda one: (
            one.name,
            str(one.queued),
            str(one.running),
            "" if one.total_limit is None else str(one.total_limit),
            "" if one.concurrency_limit is None else str(one.concurrency_limit),
            (date_time(one.paused_at_us), "yellow"),
        ),
        empty="All queues are empty, and none has a limit or a pause.",
        whole=("QUEUED", "RUNNING", "LIMIT", "PER KEY", "PAUSED"),
    )


def pause(name: NameArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Pause a queue. Running executions end as usual; new ones wait."""
    now = with_client(url, lambda client: client.queues.pause(name))
    print_result(as_json, now, f"Queue {name} is paused, with {now.queued} queued and {now.running} running.")


def resume(name: NameArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Resume a paused queue."""
    now = with_client(url, lambda client: client.queues.resume(name))
    print_result(as_json, now, f"Queue {name} is open, with {now.queued} queued and {now.running} running.")
