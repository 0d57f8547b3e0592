"""Explain an execution."""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import ExecutionArgument, JsonFlag, UrlOption
from perdure.cli.base.output import emit, print_commands, print_rows, print_table, say

if TYPE_CHECKING:
    from perdure.wire.insight.why import Holder, PathPart, Why

SAID: Final = frozenset({"turn", "start_time"})
"""Rules whose sentence names the remedy."""
BAR: Final = 10
"""Characters of a bar of 100 per cent."""


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", why)


def why(
    id: ExecutionArgument,
    slow: Annotated[bool, typer.Option("--slow", help="Also show the critical path: where its time went.")] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Explain the state of an execution, and what lets it continue."""
    found = with_client(url, lambda client: client.why(id, slow=slow))
    if as_json:
        emit(found)
        return
    _print(found, time.time_ns() // 1_000)


def _print(found: "Why", now_us: int) -> None:
    from rich.text import Text

    from perdure.cli.base.output import console
    from perdure.cli.base.render import PHASE_STYLE, in_local_time
    from perdure.wire.base.status import Phase
    from perdure.wire.base.wording import plain

    line = Text(f"{found.phase.value}  ", style=PHASE_STYLE[found.phase])
    line.append(plain(in_local_time(found.sentence, now_us)), style="default")
    console().print(line)
    shown = found.phase in (Phase.QUEUED, Phase.BLOCKED, Phase.HELD) and found.rule not in SAID
    if found.remedy is not None and shown:
        what = "Starts" if found.phase is Phase.QUEUED else "Goes on"
        say(f"\n{what} with: {plain(in_local_time(found.remedy, now_us))}.")
    if found.holders:
        say(f"\nHeld by{_amount(found)}")
        print_table(
            ("ID", "WORKFLOW", "FOR", "WORKER"),
            (
                (one.execution_id, one.workflow_id, _for(one, now_us), (one.worker_id or "")[:8])
                for one in found.holders
            ),
            whole=("ID", "FOR", "WORKER"),
        )
    if found.facts:
        say()
        print_rows([(one.name, _age(one.at_us, now_us), in_local_time(one.text, now_us)) for one in found.facts])
    if found.differences:
        say("\nDifferent from the last run that completed")
        print_table(("", "THEN", "NOW"), ((one.what, one.then, one.now) for one in found.differences))
    if found.path is not None:
        _print_path(found.execution_id, found.path)
    print_commands(found.commands)


def _amount(found: "Why") -> str:
    return "" if found.held_by_count is None else f" {found.held_by_count:,}"


def _print_path(id: str, parts: "list[PathPart]") -> None:
    """Parts of the execution itself omit its id."""
    from perdure.wire.base.times import duration

    say("\nCritical path")
    print_table(
        ("SHARE", "", "TOOK", "WHAT", "IN"),
        (
            (
                f"{part.percent:.1f} %",
                ("█" * round(part.percent * BAR / 100), "cyan"),
                duration(round(part.seconds * 1e6)),
                f"{part.kind.value} {part.name}".rstrip() + (f" ({part.times} times)" if part.times > 1 else ""),
                "" if part.execution_id == id else part.execution_id,
            )
            for part in parts
        ),
        whole=("SHARE", "", "TOOK", "IN"),
        right=("SHARE", "TOOK"),
    )


def _for(holder: "Holder", now_us: int) -> str:
    from perdure.wire.base.times import duration

    return "" if holder.since_us is None else duration(max(0, now_us - holder.since_us))


def _age(at_us: int | None, now_us: int) -> str:
    from perdure.cli.base.render import short_moment
    from perdure.wire.base.times import duration

    if at_us is None:
        return ""
    ago_us = now_us - at_us
    age = f"{duration(ago_us)} ago" if ago_us >= 0 else f"in {duration(-ago_us)}"
    return f"{short_moment(at_us, now_us)} ({age})"
