"""The command `perdure open`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.options import JsonFlag, PortOption

if TYPE_CHECKING:
    from perdure.server.embedded_server import AttachedServer


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", open_)


def open_(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="The store: a path. Default: PERDURE_STORE, else perdure.db."),
    ] = None,
    port: PortOption = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link, and open no browser.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the executions of a file in the browser, read-only.

    Another process may have the file open.
    """
    import asyncio

    from perdure.cli.base.server_or_file import existing_path
    from perdure.server.telemetry import logs

    logs.set_up("WARNING", "text")
    asyncio.run(_show(existing_path(file), port or 0, browser=not no_browser, as_json=as_json))


async def _show(path: str, port: int, *, browser: bool, as_json: bool) -> None:
    import asyncio

    from perdure.engine.engine import ReadingEngine
    from perdure.server.access.auth import ProcessKey
    from perdure.server.embedded_server import AttachedServer, attached_settings
    from perdure.server.process.signals import when_asked_to_stop
    from perdure.store.sqlite_reader import SQLiteReader, read_only
    from perdure.store.verbs.base.access import oldest_project
    from perdure.wire.base.access import Role

    store = SQLiteReader(path)
    engine = ReadingEngine(store)
    try:
        project_id = await store.read(oldest_project())
        await engine.start()
        own_key = ProcessKey("readonly", project_id, Role.READ)
        server = AttachedServer(engine, attached_settings(None, path, port), own_key, read_only(path))
        await server.begin()
        stop = asyncio.Event()
        when_asked_to_stop(asyncio.get_running_loop(), stop.set)
        try:
            await asyncio.to_thread(_tell, server, path, browser=browser, as_json=as_json)
            await stop.wait()
        finally:
            await server.end()
    finally:
        await engine.stop()


def _tell(server: "AttachedServer", path: str, *, browser: bool, as_json: bool) -> None:
    from perdure.cli.base.output import emit, say

    link, key = server.sign_in_link(), server.key.text
    if as_json:
        emit({"url": server.url, "page": link, "api_key": key, "store": os.path.abspath(path)})
    else:
        say(f"{path} is shown at {server.url}, read-only. Ctrl-C ends this.")
        say(f"  Page  {link}   (signs in once)")
        say(f"  Key   {key}   (role read, until this ends)")
    if browser and not as_json:
        open_page(link)


def open_page(address: str) -> bool:
    """False if this session has no browser."""
    import webbrowser

    has_screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if sys.platform.startswith("linux") and not has_screen:
        return False  # a browser in the terminal would cover the output
    try:
        return webbrowser.open(address)
    except (OSError, webbrowser.Error):
        return False
