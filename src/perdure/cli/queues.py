"""Queues."""

import typer

from perdure.cli.commands import add_group
from perdure.cli.connect import with_client
from perdure.cli.options import JsonFlag, UrlOption
from perdure.cli.output import print_list


def add_to(app: typer.Typer) -> None:
    help = "Queues: their limits, their pauses, and what waits in them."
    add_group(app, "Run", "queues", help, ls, others={"list": ls})


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List queues with limits, pauses and numbers."""
    from perdure.cli.pauses import paused_words

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
            ("" if one.pause is None else paused_words(one.pause), "yellow"),
        ),
        empty="All queues are empty, and none has a limit or a pause.",
        whole=("QUEUED", "RUNNING", "LIMIT", "PER KEY"),
    )
