"""Pauses of queues, concurrency keys, workflows and deployments."""

import shlex
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import JsonFlag, UrlOption, parse_coming
from perdure.cli.base.output import capital, note, print_list, print_result
from perdure.cli.runs.queues import paused_words

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.sdk.clients.client import Client

Kind = Literal["deployment", "workflow", "queue", "key"]
KindArgument = Annotated[
    Kind, typer.Argument(metavar="KIND", help="queue, workflow, deployment, or key: one concurrency key.")
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name. A workflow's own queue has the workflow's name.")
]
QueueOption = Annotated[str | None, typer.Option("--queue", help="With `key`: the queue of the concurrency key.")]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Run", pause, unpause, pauses)


def pause(
    kind: KindArgument,
    name: NameArgument,
    queue: QueueOption = None,
    until: Annotated[
        str | None, typer.Option("--until", help="When it ends by itself: 14:00, 2h, 2026-01-31T14:00.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--note", help="The reason, shown where executions wait.")] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pause a queue, workflow, deployment or key.

    Running executions end; queued ones wait.
    """
    from perdure.wire.runs.queues import PauseKind, unpause_command

    where, key = _place(kind, name, queue)
    moment = None if until is None else _moment(parse_coming(until, "--until"))
    now = with_client(
        url, lambda client: client.pause(PauseKind(kind), where, concurrency_key=key, until=moment, note=reason)
    )
    print_result(as_json, now, f"{capital(now.what)} is {paused_words(now)}. End it with `{unpause_command(now)}`.")
    if now.kind in (PauseKind.QUEUE, PauseKind.KEY):
        with_client(url, lambda client: _note_unknown(client, where))


async def _note_unknown(client: "Client", queue: str) -> None:
    """A pause takes any name, because a queue exists only from its first limit or execution on."""
    from perdure.wire.base.wording import did_you_mean
    from perdure.wire.runs.workflows import GetWorkflows

    state, listed = await client.queues.get(queue), await client.queues.list()
    names = {one.id for one in (await client._transport.call(GetWorkflows())).items}
    if state.queued or state.running or state.total_limit or state.concurrency_limit or queue in names:
        return
    known = names | {one.name for one in listed if one.pause is None}
    note(f"Queue {queue!r} has no limit and no execution yet.{did_you_mean(queue, sorted(known))}")


def unpause(
    kind: KindArgument, name: NameArgument, queue: QueueOption = None, url: UrlOption = None, as_json: JsonFlag = False
) -> None:
    """End a pause."""
    from perdure.wire.runs.queues import PauseKind, in_words

    where, key = _place(kind, name, queue)
    ended = with_client(url, lambda client: client.unpause(PauseKind(kind), where, concurrency_key=key))
    what = capital(in_words(PauseKind(kind), where, key))
    held = "1 execution" if ended.held == 1 else f"{ended.held:,} executions"
    goes_on = f"{what} goes on, with {held} that it held."
    print_result(as_json, ended, goes_on if ended.was_paused else f"{what} was not paused.")


def pauses(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List pauses, and how many executions each holds."""
    from perdure.cli.base.render import date_time

    print_list(
        as_json,
        with_client(url, lambda client: client.pauses()),
        ("KIND", "NAME", "KEY", "SINCE", "BY", "UNTIL", "HELD", "NOTE"),
        lambda one: (
            one.kind.value,
            one.name,
            one.concurrency_key or "",
            date_time(one.paused_at_us),
            one.paused_by,
            date_time(one.until_us),
            f"{one.held:,}",
            one.note or "",
        ),
        empty="Nothing is paused.",
        whole=("KIND", "SINCE", "UNTIL", "HELD"),
    )


def _place(kind: Kind, name: str, queue: str | None) -> tuple[str, str | None]:
    """The name and concurrency key that the server takes. Raises `Refused`."""
    if kind == "key":
        if queue is None:
            raise Refused(
                f"A concurrency key belongs to a queue. Name it: perdure pause key {shlex.quote(name)} --queue Q"
            )
        return queue, name
    if queue is not None:
        raise Refused("--queue goes with `key`, such as perdure pause key ann --queue emails.")
    return name, None


def _moment(at_us: int) -> "datetime":
    from datetime import UTC, datetime, timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
