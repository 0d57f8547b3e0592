"""Pauses of queues, concurrency keys, workflows and deployments."""

import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.commands import Refused, add_commands
from perdure.cli.connect import with_client
from perdure.cli.options import JsonFlag, UrlOption, parse_coming
from perdure.cli.output import note, print_list, print_result

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.sdk.client import Client
    from perdure.wire.runs.queues import Pause, PauseKind

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

    Running executions end; others wait.
    """
    from perdure.wire.runs.queues import PauseKind, unpause_command

    where, key = _place(kind, name, queue)
    moment = None if until is None else _moment(parse_coming(until, "--until"))
    now = with_client(
        url, lambda client: client.pause(PauseKind(kind), where, concurrency_key=key, until=moment, note=reason)
    )
    print_result(as_json, now, f"{_capital(now.what)} is {paused_words(now)}. End it with `{unpause_command(now)}`.")
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
    what = _capital(in_words(PauseKind(kind), where, key))
    held = "1 execution" if ended.held == 1 else f"{ended.held:,} executions"
    goes_on = f"{what} goes on, with {held} that it held."
    print_result(as_json, ended, goes_on if ended.was_paused else f"{what} was not paused.")


def pauses(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List pauses, and how many executions each holds."""
    from perdure.cli.render import date_time

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
    """The name and the concurrency key that the server takes. Raises `Refused`."""
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


def note_pauses(url: str | None, kinds: "Collection[PauseKind] | None" = None) -> None:
    """Pauses of these kinds, by default of all, as notes below a list."""
    from perdure.wire.runs.queues import unpause_command

    for one in with_client(url, lambda client: client.pauses()):
        if kinds is None or one.kind in kinds:
            note(
                f"{_capital(one.what)} is {paused_words(one)}. It holds {one.held:,}; `{unpause_command(one)}` ends it."
            )


def paused_words(one: "Pause") -> str:
    """
    >>> from perdure.wire.steering.pauses import Pause, PauseKind
    >>> paused_words(Pause(PauseKind.QUEUE, "mail", 0, "key 'ci'", note="moving")).partition(" by ")[2]
    "key 'ci': moving"
    """
    from perdure.cli.render import date_time
    from perdure.wire.base.wording import plain

    until = "" if one.until_us is None else f" until {date_time(one.until_us)}"
    why = "" if one.note is None else f": {one.note}"
    return plain(f"paused since {date_time(one.paused_at_us)} by {one.paused_by}{until}{why}")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
