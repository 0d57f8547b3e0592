"""Versions of workers' code."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.common import JsonFlag, UrlOption, command, console, emit, group, note, say, with_client

if TYPE_CHECKING:
    from perdure.sdk.client import Client
    from perdure.wire.deployments import ListedDeployment

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The deployment, as `perdure deployments ls` shows it.")]


def add_to(app: typer.Typer) -> None:
    deployments = group("Versions of workers' code: what runs on which, and where new executions go.")
    command(deployments, "ls")(ls)
    command(deployments, "use")(use)
    command(deployments, "retire")(retire)
    command(deployments, "list", hidden=True)(ls)
    app.add_typer(deployments, name="deployments", rich_help_panel="Operate")


def ls(
    retired: Annotated[bool, typer.Option("--all", "-a", help="Include retired deployments.")] = False,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List deployments, newest first, with their open executions."""
    from rich.table import Table
    from rich.text import Text

    from perdure.cli.render import PHASE_STYLE, date_time
    from perdure.wire.deployments import DeploymentStatus
    from perdure.wire.status import Phase

    found = with_client(url, lambda client: _listing(client, retired))
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        say("No deployments yet; the first worker that registers makes one.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "", "SERVED BY", "WORKERS", "OPEN", "MADE"):
        table.add_column(name, overflow="fold", no_wrap=name in ("WORKERS", "MADE"))
    for one in found:
        where = "current" if one.current else "retired" if one.status is DeploymentStatus.RETIRED else ""
        parts = [
            Text(f"{amount:,} {phase}", style=PHASE_STYLE[Phase(phase)]) for phase, amount in one.open.items() if amount
        ]
        unserved = bool(parts) and not one.workers
        table.add_row(
            Text(one.id),
            Text(where, style="green" if one.current else "dim"),
            one.served_by,
            Text(str(one.workers), style="yellow" if unserved else ""),
            Text(", ").join(parts) if parts else Text("nothing", style="dim"),
            date_time(one.created_at_us),
        )
    console().print(table)
    for one in found:
        if not one.workers and any(one.open.values()):
            note(f"No worker serves {one.id!r}: its open executions wait for one.")


async def _listing(client: "Client", retired: bool) -> list["ListedDeployment"]:
    from perdure.wire.deployments import ListDeployments
    from perdure.wire.fields import PAGE_MAX

    found: list[ListedDeployment] = []
    cursor: str | None = None
    while True:
        page = await client._transport.call(ListDeployments(retired, cursor, PAGE_MAX))
        found.extend(page.deployments)
        cursor = page.next_cursor
        if cursor is None:
            return found


def use(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Send new executions to this deployment. Open executions stay where they are."""
    from perdure.wire.deployments import UseDeployment

    changed = with_client(url, lambda client: client._transport.call(UseDeployment(id)))
    if as_json:
        emit(changed)
    else:
        say(f"New executions go to {id!r} from now on.")


def retire(id: IdArgument, url: UrlOption = None, as_json: JsonFlag = False) -> None:
    """Retire an empty deployment, until a worker registers for it again."""
    from perdure.wire.deployments import RetireDeployment

    changed = with_client(url, lambda client: client._transport.call(RetireDeployment(id)))
    if as_json:
        emit(changed)
    else:
        say(f"{id!r} is retired.")
