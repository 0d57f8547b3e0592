"""Budgets of executions."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.commands import Refused, add_group
from perdure.cli.connect import with_client
from perdure.cli.options import JsonFlag, UrlOption, check_choice
from perdure.cli.output import emit, print_table, say

if TYPE_CHECKING:
    from perdure.wire.budgets import BudgetState

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The execution that holds the budget, or one that spends from it.")
]


def add_to(app: typer.Typer) -> None:
    add_group(app, "Run", "budget", "Show and raise the budgets of executions.", show, raise_)


def show(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Show the budget that an execution spends from."""
    budget = with_client(url, lambda client: client.budget(id))
    if as_json:
        emit(budget)
    else:
        _print(budget)


def raise_(
    id: IdArgument,
    usd: Annotated[float, typer.Option("--usd", help="US dollars to add.", min=0)] = 0,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens to add.", min=0)] = 0,
    calls: Annotated[int, typer.Option("--calls", help="Calls to add.", min=0)] = 0,
    seconds: Annotated[int, typer.Option("--seconds", help="Seconds to add.", min=0)] = 0,
    on_exceed: Annotated[
        str | None, typer.Option("--on-exceed", help="ask, finish or fail, once it is used up.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add to the limits of a budget.

    Executions that wait for it continue.
    """
    check_choice("--on-exceed", on_exceed, ["ask", "finish", "fail"])
    if not (usd or tokens or calls or seconds or on_exceed):
        raise Refused("Say what to add: --usd, --tokens, --calls or --seconds.")
    budget = with_client(
        url,
        lambda client: client.raise_budget(
            id,
            usd=usd,
            tokens=tokens,
            calls=calls,
            seconds=seconds,
            on_exceed=on_exceed,  # type: ignore[arg-type]  # checked above
        ),
    )
    if as_json:
        emit(budget)
        return
    say(f"The budget of {budget.execution_id} is raised. Executions that waited for it continue.")
    _print(budget)


def _print(budget: "BudgetState") -> None:
    from perdure.cli.render import local

    columns = ("", "SPENT", "RESERVED", "LIMIT")
    rows = []
    for name, amount in (
        ("US dollars", budget.usd_micros),
        ("tokens", budget.tokens),
        ("calls", budget.calls),
        ("seconds", budget.seconds),
    ):
        shown = [
            "" if value is None else f"{value / 1e6:,.4f}" if name == "US dollars" else f"{value:,}"
            for value in (amount.spent, amount.reserved, amount.limit)
        ]
        rows.append((name, *shown))
    print_table(columns, rows, whole=columns, right=columns[1:])
    say(f"Held by {budget.execution_id}; used up, it will {budget.on_exceed}.")
    if budget.paused_at is not None:
        say(
            f"Paused since {local(budget.paused_at)}: answer what {budget.asking_execution_id} asks "
            f"(`perdure approvals`), or `perdure budget raise {budget.execution_id}`."
        )
