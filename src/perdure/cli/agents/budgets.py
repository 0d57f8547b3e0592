"""Budgets of executions, and shared budgets."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.base.commands import Refused, add_group
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import JsonFlag, UrlOption, check_choice
from perdure.cli.base.output import emit, print_list, print_result, print_table, say

if TYPE_CHECKING:
    from perdure.wire.agents.budgets import BudgetAmount, BudgetState
    from perdure.wire.agents.shared_budgets import SharedBudget

IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="An execution that holds the budget or spends from it, or a shared budget's balance."
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The shared budget.")]


def add_to(app: typer.Typer) -> None:
    help = "Budgets of executions, and those that a session, a user or all share."
    add_group(app, "Run", "budget", help, ls, show, set_, raise_, delete, others={"list": ls})


def ls(url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """List shared budgets with their limits."""
    print_list(
        as_json,
        with_client(url, lambda client: client.budgets.list()),
        ("NAME", "PER", "PERIOD", "US DOLLARS", "TOKENS", "CALLS", "USED UP"),
        lambda one: (
            one.name,
            one.per,
            one.period or "",
            "" if one.usd_micros is None else _dollars(one.usd_micros),
            _number(one.tokens),
            _number(one.calls),
            one.on_exceed,
        ),
        empty="No shared budgets. `perdure budget set NAME --per user --period day --usd 5` makes one.",
    )


def set_(
    name: NameArgument,
    per: Annotated[
        str, typer.Option("--per", help="project, session, user or tag:NAME: each has a balance of its own.")
    ],
    period: Annotated[
        Literal["day"] | None, typer.Option("--period", help="day: the balances count anew each day in UTC.")
    ] = None,
    usd: Annotated[float | None, typer.Option("--usd", help="The most US dollars.", min=0)] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="The most tokens.", min=0)] = None,
    calls: Annotated[int | None, typer.Option("--calls", help="The most calls.", min=0)] = None,
    on_exceed: Annotated[
        Literal["ask", "finish", "fail"], typer.Option("--on-exceed", help="The act once it is used up.")
    ] = "ask",
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a shared budget, or change its limits."""
    put = with_client(
        url,
        lambda client: client.budgets.put(
            name,
            per=per,
            period=period,
            usd=usd,
            tokens=tokens,
            calls=calls,
            on_exceed=on_exceed,
        ),
    )
    print_result(
        as_json,
        put,
        f"Shared budget {put.name!r} counts {put.counts}: {_limits(put)}; used up, it will {put.on_exceed}.",
    )


def delete(name: NameArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Delete a shared budget and its spending."""
    with_client(url, lambda client: client.budgets.delete(name))
    print_result(as_json, {"deleted": name}, f"Shared budget {name!r} is deleted.")


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="An execution, a balance, or the name of a shared budget.")],
    key: Annotated[
        str | None, typer.Option("--key", help="Of a shared budget: only this session, user or tag value.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what an execution, or each balance of a shared budget, has spent."""
    from perdure.wire.base.fields import is_uuid

    if not is_uuid(id):
        _show_shared(id, key, url, as_json)
        return
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

    Executions that wait for the budget continue.
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


def _show_shared(name: str, key: str | None, url: str | None, as_json: bool) -> None:
    print_list(
        as_json,
        with_client(url, lambda client: client.budgets.balances(name, key=key)),
        ("KEY", "US DOLLARS", "TOKENS", "CALLS", "ID"),
        lambda one: (
            one.key or "(all)",
            _used(one.usd_micros, money=True),
            _used(one.tokens),
            _used(one.calls),
            one.execution_id,
        ),
        empty="Nothing is spent in the present period.",
        whole=("ID",),
    )


def _used(amount: "BudgetAmount", *, money: bool = False) -> str:
    words = _dollars if money else _number
    spent = words(amount.spent + amount.reserved)
    return spent if amount.limit is None else f"{spent} of {words(amount.limit)}"


def _dollars(micros: int) -> str:
    return f"{micros / 1e6:,.4f}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _limits(one: "SharedBudget") -> str:
    given = {
        "usd": None if one.usd_micros is None else f"{one.usd_micros / 1e6:g}",
        "tokens": one.tokens,
        "calls": one.calls,
    }
    return ", ".join(f"{name}={limit}" for name, limit in given.items() if limit is not None)


def _print(budget: "BudgetState") -> None:
    from perdure.cli.base.render import date_time, local

    columns = ("", "SPENT", "RESERVED", "LIMIT")
    rows = []
    for name, amount in (
        ("US dollars", budget.usd_micros),
        ("tokens", budget.tokens),
        ("calls", budget.calls),
        *(() if budget.name else (("seconds", budget.seconds),)),
    ):
        shown = [
            "" if value is None else _dollars(value) if name == "US dollars" else f"{value:,}"
            for value in (amount.spent, amount.reserved, amount.limit)
        ]
        rows.append((name, *shown))
    print_table(columns, rows, whole=columns, right=columns[1:])
    if budget.name is None:
        say(f"Held by {budget.execution_id}; used up, it will {budget.on_exceed}.")
    else:
        of = f" of {budget.key!r}" if budget.key else ""
        until = "" if budget.until_us is None else f" until {date_time(budget.until_us)}"
        say(f"Balance{of} in shared budget {budget.name!r}{until}; used up, it will {budget.on_exceed}.")
    if budget.paused_at is not None:
        say(
            f"Paused since {local(budget.paused_at)}: answer what {budget.asking_execution_id} asks "
            f"(`perdure approvals`), or `perdure budget raise {budget.execution_id}`."
        )
