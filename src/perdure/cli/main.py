"""The `perdure` command."""

from importlib import import_module
from typing import Annotated, Final

import typer

from perdure.cli.base.commands import make_group

COMMANDS: Final = (
    "processes.new",
    "processes.dev",
    "processes.check",
    "processes.docs",
    "runs.run",
    "agents.chat",
    "runs.look",
    "processes.open_file",
    "insight.why",
    "runs.listings",
    "insight.spend",
    "agents.approvals",
    "agents.budgets",
    "runs.send",
    "steering.forks",
    "steering.acts",
    "clock.schedules",
    "runs.queues",
    "steering.pauses",
    "steering.bulk",
    "outside.webhooks",
    "processes.serve",
    "processes.mcp",
    "runs.deployments",
    "operators.store",
    "people.keys",
    "people.members",
    "operators.database",
)
"""The modules of commands, in the order of the help."""

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


for name in COMMANDS:
    import_module(f"perdure.cli.{name}").add_to(app)

if __name__ == "__main__":
    app()
