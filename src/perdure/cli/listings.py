"""Lists by name of what the server knows."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from perdure.cli.commands import add_commands
from perdure.cli.connect import with_client
from perdure.cli.options import JsonFlag, UrlOption
from perdure.cli.output import Cell, note, print_list

if TYPE_CHECKING:
    from perdure.sdk.client import Client
    from perdure.wire.operation import Operation
    from perdure.wire.workers import ListedWorker


class Page(Protocol):
    @property
    def next_cursor(self) -> str | None: ...


P = TypeVar("P", bound=Page)
T = TypeVar("T")

LimitOption = Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=100_000)]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", workers, topics)


def workers(limit: LimitOption = 1_000, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List workers by deployment: their state, how many executions each runs, and their last beat."""
    from perdure.cli.render import date_time, duration
    from perdure.wire.workers import ListWorkers, WorkerState

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
            f"Python {one.python}" if one.url is None else one.url,
        )

    found, more = with_client(url, _pages(limit, lambda *place: ListWorkers(*place), lambda page: page.workers))
    found.sort(key=lambda one: (one.deployment_id, one.registered_at_us, one.id))
    print_list(
        as_json,
        found,
        ("ID", "DEPLOYMENT", "KIND", "STATE", "RUNS", "LAST BEAT", "REGISTERED", "RUNS ON"),
        row,
        empty="No workers; start one with `perdure work APP`.",
        whole=("ID", "STATE", "RUNS", "LAST BEAT"),
    )
    _note_more(found, more, as_json)


def topics(
    prefix: Annotated[str, typer.Option("--prefix", help="Only names that begin with this.")] = "",
    limit: LimitOption = 100,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List topics by name: how many events each keeps, and the last one."""
    from perdure.cli.render import date_time
    from perdure.wire.events import ListTopics

    asked = _pages(limit, lambda *place: ListTopics(prefix, *place), lambda page: page.topics)
    found, more = with_client(url, asked)
    print_list(
        as_json,
        found,
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
    _note_more(found, more, as_json)


def _pages(
    limit: int, ask: "Callable[[str | None, int], Operation[P]]", entries: Callable[[P], Sequence[T]]
) -> "Callable[[Client], Awaitable[tuple[list[T], bool]]]":
    """The first entries, and whether there are more."""
    from perdure.wire.fields import PAGE_MAX

    async def work(client: "Client") -> tuple[list[T], bool]:
        found: list[T] = []
        cursor: str | None = None
        while True:
            page = await client._transport.call(ask(cursor, min(limit - len(found), PAGE_MAX)))
            found.extend(entries(page))
            cursor = page.next_cursor
            if cursor is None or len(found) >= limit:
                return found, cursor is not None

    return work


def _note_more(found: Sequence[object], more: bool, as_json: bool) -> None:
    if more and not as_json:
        note(f"The first {len(found)}; --limit shows more.")
