"""The command `perdure dev`."""

import os
from typing import Annotated

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.options import JsonFlag, PortOption


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Start", dev)


def dev(
    target: Annotated[
        str, typer.Argument(metavar="APP[:REGISTRY]", help="Workflows: app.py, app.py:registry, shop.app:registry.")
    ] = "app.py",
    port: PortOption = None,
    insecure_local: Annotated[
        bool, typer.Option("--insecure-local", help="No keys: every client of the loopback address may do everything.")
    ] = False,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Kill the worker with SIGKILL at random, about every 20 seconds.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a server and a worker that reloads on change. Key ? shows the keys."""
    import asyncio

    from perdure.cli.processes.app_loader import folder_of
    from perdure.cli.processes.dev_session import DevSession

    name = target.partition(":")[0]
    if name.endswith(".py") and not os.path.isfile(name):
        raise Refused(f"File {name!r} does not exist; `perdure new DIR` writes one to start with.")
    session = DevSession(
        target, str(folder_of(target)), port, insecure_local=insecure_local, chaos=chaos, as_json=as_json
    )
    asyncio.run(session.run())
