"""Versions of workers' code."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import add_group
from perdure.cli.base.connect import call, fetch, with_client
from perdure.cli.base.options import JsonFlag, UrlOption
from perdure.cli.base.output import note, print_list, print_result

if TYPE_CHECKING:
    from perdure.cli.base.output import Cell
    from perdure.wire.runs.deployments import ListedDeployment

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The deployment, as `perdure deployments ls` shows it.")]


def add_to(app: typer.Typer) -> None:
    help = "Versions of workers' code: what runs on which, and where new executions go."
    add_group(app, "Operate", "deployments", help, ls, show, use, retire, others={"list": ls})


def ls(
    retired: Annotated[bool, typer.Option("--all", "-a", help="Include retired deployments.")] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List deployments, newest first, with their open executions."""
    from rich.text import Text

    from perdure.cli.base.render import PHASE_STYLE, date_time
    from perdure.cli.runs.queues import note_pauses
    from perdure.wire.base.status import Phase
    from perdure.wire.runs.deployments import DeploymentStatus, ListDeployments
    from perdure.wire.runs.queues import PauseKind

    def row(one: "ListedDeployment") -> "tuple[Cell, ...]":
        where = "current" if one.current else "retired" if one.status is DeploymentStatus.RETIRED else ""
        parts = [
            Text(f"{amount:,} {phase}", style=PHASE_STYLE[Phase(phase)]) for phase, amount in one.open.items() if amount
        ]
        return (
            one.id,
            (where, "green" if one.current else "dim"),
            one.served_by,
            (str(one.workers), "yellow" if parts and not one.workers else ""),
            Text(", ").join(parts) if parts else ("nothing", "dim"),
            date_time(one.created_at_us),
        )

    def ask(cursor: str | None, amount: int) -> ListDeployments:
        return ListDeployments(retired, cursor, amount)

    found, _ = with_client(url, lambda client: fetch(client, sys.maxsize, ask))
    print_list(
        as_json,
        found,
        ("ID", "", "SERVED BY", "WORKERS", "OPEN", "MADE"),
        row,
        empty="No deployments yet; the first worker that registers makes one.",
        whole=("WORKERS", "MADE"),
    )
    for one in found:
        if not (as_json or one.workers) and any(one.open.values()):
            note(f"No worker serves {one.id!r}: its open executions wait for one.")
    if not as_json:
        note_pauses(url, {PauseKind.DEPLOYMENT})


def show(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Say what is open on a deployment."""
    from perdure.cli.base.render import date_time
    from perdure.wire.runs.drains import GetDrain

    found = call(url, GetDrain(id))
    lines = [found.sentence]
    if found.draining_since_us is not None:
        lines.append(f"New executions have gone elsewhere since {date_time(found.draining_since_us)}.")
    if found.last is not None:
        lines.append(f"The last timed wait is of execution {found.last.execution_id}.")
    print_result(as_json, found, "\n".join(lines))


def use(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Send new executions to a deployment.

    Open executions stay where they are.
    """
    from perdure.wire.runs.deployments import UseDeployment

    print_result(as_json, call(url, UseDeployment(id)), f"New executions go to {id!r} from now on.")


def retire(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Retire an empty deployment.

    A new registration puts the deployment back into use.
    """
    from perdure.wire.runs.deployments import RetireDeployment

    print_result(as_json, call(url, RetireDeployment(id)), f"{id!r} is retired.")
