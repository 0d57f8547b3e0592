"""The `perdure` command."""

from typing import Annotated

import typer

from perdure.cli.agents import approvals, budgets, chat
from perdure.cli.base.commands import make_group
from perdure.cli.clock import schedules
from perdure.cli.insight import spend, why
from perdure.cli.operators import database, store
from perdure.cli.outside import webhooks
from perdure.cli.people import keys, members
from perdure.cli.processes import check, dev, docs, mcp, new, open_file, serve
from perdure.cli.runs import deployments, listings, look, queues, run, send
from perdure.cli.steering import bulk, forks, hands, pauses

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
