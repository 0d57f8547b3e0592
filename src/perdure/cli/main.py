"""The `perdure` command."""

from typing import Annotated

import typer

from perdure.cli import (
    approvals,
    budgets,
    bulk,
    chat,
    check,
    database,
    deployments,
    dev,
    docs,
    forks,
    hands,
    keys,
    listings,
    look,
    mcp,
    members,
    new,
    open_file,
    pauses,
    queues,
    run,
    schedules,
    send,
    serve,
    spend,
    store,
    webhooks,
    why,
)
from perdure.cli.commands import make_group

app = make_group(
    "Durable execution for Python: workflows that never lose their place.",
    name="perdure",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"perdure {version('perdure')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for commands in (
    new,
    dev,
    check,
    docs,
    run,
    chat,
    look,
    open_file,
    why,
    listings,
    spend,
    approvals,
    budgets,
    send,
    forks,
    hands,
    schedules,
    queues,
    pauses,
    bulk,
    webhooks,
    serve,
    mcp,
    deployments,
    store,
    keys,
    members,
    database,
):
    commands.add_to(app)

if __name__ == "__main__":
    app()
