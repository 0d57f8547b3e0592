"""Queues."""

from typing import TYPE_CHECKING

import typer

from perdure.cli.base.commands import add_group
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import JsonFlag, UrlOption
from perdure.cli.base.output import capital, note, print_list

if TYPE_CHECKING:
    from collections.abc import Collection

    from perdure.wire.runs.queues import Pause, PauseKind


def add_to(app: typer.Typer) -> None:
    help = "Queues: their limits, their pauses, and what waits in them."
    add_group(app, "Run", "queues", help, ls, others={"list": ls})


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List queues with limits, pauses and numbers."""

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


def note_pauses(url: str | None, kinds: "Collection[PauseKind] | None" = None) -> None:
    from perdure.wire.runs.queues import unpause_command

    for one in with_client(url, lambda client: client.pauses()):
        if kinds is None or one.kind in kinds:
            note(
                f"{capital(one.what)} is {paused_words(one)}. It holds {one.held:,}; `{unpause_command(one)}` ends it."
            )


def paused_words(one: "Pause") -> str:
    """
    >>> from perdure.wire.runs.queues import Pause, PauseKind
    >>> paused_words(Pause(PauseKind.QUEUE, "mail", 0, "key 'ci'", note="moving")).partition(" by ")[2]
    "key 'ci': moving"
    """
    from perdure.cli.base.render import date_time
    from perdure.wire.base.wording import plain

    until = "" if one.until_us is None else f" until {date_time(one.until_us)}"
    why = "" if one.note is None else f": {one.note}"
    return plain(f"paused since {date_time(one.paused_at_us)} by {one.paused_by}{until}{why}")
