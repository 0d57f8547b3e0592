"""The server process of `perdure dev`."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from perdure.cli.processes.dev_link import DevLink
from perdure.cli.processes.serve import end_with_parent, loop_factory
from perdure.engine.base.service import Scope
from perdure.sdk.clients import credentials, dev_note
from perdure.server import app
from perdure.server.process.settings import Settings, load
from perdure.server.process.signals import raise_file_limit
from perdure.server.telemetry import logs
from perdure.store.drivers.file_lock import StoreInUse
from perdure.wire.base.access import Role
from perdure.wire.base.errors import PerdureError, Unauthorized
from perdure.wire.people.keys import DeleteApiKey

_WORKER = "worker of perdure dev"
KILL = "taskkill /F /PID" if sys.platform == "win32" else "kill"


async def _keep_key(server: app.Server, url: str) -> tuple[str, str]:
    """If the kept key belongs to another store, makes a new key."""
    projects = server.application.engine.projects
    project_id = await projects.default()
    known = credentials.read().get(url, {}).get("api_key")
    if known is not None:
        try:
            await projects.authenticate(known)
        except Unauthorized:
            known = None
    if known is None:
        known = await projects.create_key(project_id, "perdure dev", Role.ADMIN, development=True)
    credentials.write(url, api_key=known, project_id=project_id)
    return project_id, known


async def _worker_key(server: app.Server, project_id: str) -> str:
    """Makes a key at each start and ends the former key."""
    projects = server.application.engine.projects
    for key in await projects.keys(project_id):
        if key.name == _WORKER:
            await projects.delete_key(Scope(project_id), DeleteApiKey(key.id))
    return await projects.create_key(project_id, _WORKER, Role.WORK, development=True)


async def _serve(settings: Settings) -> None:
    note, parent, loop = _note(settings.store), os.getppid(), asyncio.get_running_loop()
    link: DevLink | None = None
    early: list[bytes] = []

    def hear(line: bytes) -> None:
        if link is None:
            early.append(line)
        else:
            link.hear(line)

    def pass_on(line: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(hear, line)

    end_with_parent(heard=pass_on)

    async def tell(server: app.Server) -> None:
        nonlocal link
        link = DevLink(server.application.engine.store, _say)
        for line in early:
            link.hear(line)
        server.application.services.dev = link
        if settings.insecure_local:
            project_id, key = await server.application.engine.projects.default(), None
            worker_key = None
        else:
            project_id, key = await _keep_key(server, server.url)
            worker_key = await _worker_key(server, project_id)
        dev_note.write(note, dev_note.RunningDev(server.url, parent, key))
        _say({"url": server.url, "project_id": project_id, "api_key": key, "worker_key": worker_key})

    try:
        await app.serve(settings, on_ready=tell)
    except StoreInUse as error:
        raise _explained(error, note) from error
    finally:
        dev_note.remove(note, parent)


def _note(store: str) -> Path:
    """The file with the process id and address of `perdure dev`."""
    return Path(store).with_name(dev_note.NOTE.name)


def _explained(error: StoreInUse, note: Path) -> PerdureError:
    running = dev_note.read(note)
    if running is None:
        return error
    return StoreInUse(
        f"`perdure dev` runs in this folder already, as process {running.pid} at {running.url}; it reloads changed "
        f"code by itself. End it (q in its terminal, or `{KILL} {running.pid}`), or start this one in another folder."
    )


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--insecure-local", action="store_true")
    given = parser.parse_args()
    logs.set_up("WARNING", "text")
    raise_file_limit()
    try:
        Path(given.store).parent.mkdir(exist_ok=True)
        settings = load({"store": given.store, "port": given.port, "insecure_local": given.insecure_local or None})
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(settings))
    except PerdureError as error:
        _say({"error": error.message})
        raise SystemExit(2) from None
    except OSError as error:
        _say({"error": f"{error.filename}: {error.strerror}"})
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
