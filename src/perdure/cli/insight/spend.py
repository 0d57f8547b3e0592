"""Costs, tokens and model calls of agents."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.connect import call
from perdure.cli.base.options import JsonFlag, UrlOption
from perdure.cli.base.output import emit, note, print_list

if TYPE_CHECKING:
    from perdure.wire.agents.usage import Spent


class Since(StrEnum):
    """The values of `wire.stats.Range`, which other commands need not load."""

    HOUR = "1h"
    QUARTER_DAY = "6h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", spend)


def spend(
    range: Annotated[Since, typer.Option("--range", help="The time that ends now.")] = Since.DAY,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent.")] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what agents spent, by agent and model."""
    from perdure.wire.insight.spend import GetSpend
    from perdure.wire.insight.stats import Range

    found = call(url, GetSpend(Range(range), agent))
    if as_json:
        emit(found)
        return

    def figures(one: "Spent") -> tuple[str, ...]:
        if one.calls and one.unpriced == one.calls:
            return f"{one.calls:,}", f"{one.input_tokens:,}", f"{one.output_tokens:,}", "price unknown"
        cost = f"{'' if found.exact and not one.unpriced else 'at least '}${one.usd:,.4f}"
        return f"{one.calls:,}", f"{one.input_tokens:,}", f"{one.output_tokens:,}", cost

    columns = ("CALLS", "INPUT", "OUTPUT", "COST")
    print_list(
        False,
        found.agents,
        ("AGENT", "EXECUTIONS", *columns),
        lambda one: (one.agent_id, f"{one.executions:,}", *figures(one)),
        empty=f"No execution of an agent began in the last {range}.",
        whole=columns,
    )
    if found.models:
        typer.echo()
        print_list(
            False, found.models, ("MODEL", *columns), lambda one: (one.model or "unknown", *figures(one)), empty=""
        )
    if not found.exact:
        note("Only the newest executions were read.")
