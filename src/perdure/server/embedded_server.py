"""A server inside a process with an engine: an embedded application, or a reader of its file.

The server listens on the loopback address, and shares the engine and the event loop.
"""

import asyncio
import logging
from contextvars import ContextVar, copy_context
from typing import Any, Final

from msgspec.structs import asdict, replace

from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.server.access.auth import ProcessKey, is_loopback
from perdure.server.app import App, Server
from perdure.server.process.settings import Settings
from perdure.server.telemetry.health import Health
from perdure.wire.base.errors import BadRequest

DRAIN_SECONDS: Final = 2.0
"""Seconds for requests to finish when the process closes."""


_inside: ContextVar[bool] = ContextVar("perdure-attached", default=False)


def _hides_uvicorn(record: logging.LogRecord) -> bool:
    """uvicorn's lines on starts and ends say nothing in an application's log. The logger's level stays, since the
    application may itself run in uvicorn."""
    return record.levelno >= logging.WARNING or not _inside.get()


async def _no_write() -> None:
    """A reading server is well without the check of writes."""


class _AttachedApp(App):
    def __init__(self, engine: Engine, settings: Settings, own_key: ProcessKey, read_only: str | None) -> None:
        super().__init__(engine, settings, own_key)
        self.services.default_project_id = own_key.principal.project_id
        self.services.read_only = read_only
        if read_only is not None:
            self.services.health = Health(_no_write)

    async def start(self) -> None:
        """The engine already runs, and nothing watches this server's health."""

    def drain(self) -> None:
        self.services.drain.begin()
        self.engine.notifier.notify_all()

    async def stop(self) -> None:
        self.drain()


class AttachedServer(Server):
    """`read_only` is the refusal of each change."""

    def __init__(self, engine: Engine, settings: Settings, own_key: ProcessKey, read_only: str | None = None) -> None:
        super().__init__(engine, settings, _AttachedApp(engine, settings, own_key, read_only))
        self.key = own_key
        self._serving: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Raises BadRequest if the port is taken."""
        logging.getLogger("uvicorn.error").addFilter(_hides_uvicorn)
        context = copy_context()
        context.run(_inside.set, True)
        self._serving = asyncio.create_task(self.run_until_stopped(), name="perdure-server", context=context)
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not self.ready.is_set():
                await self._serving
        finally:
            ready.cancel()

    async def end(self) -> None:
        self.stop()
        if self._serving is not None:
            await self._serving

    def sign_in_link(self) -> str:
        """An address for signing a browser in once, within ten minutes."""
        return f"{self.url}/sign-in?token={self.application.services.sign_ins.make_link(self.key.principal)}"


def attached_settings(settings: EngineSettings | None, store: str, port: int) -> Settings:
    """The engine's settings on a loopback address. Raises BadRequest."""
    if isinstance(settings, Settings):
        if not is_loopback(settings.host):
            raise BadRequest(
                f"An embedded application serves this machine alone, and {settings.host!r} can be reached by others. "
                "Leave `host` out, or use `perdure serve`."
            )
        return replace(settings, store=store, port=port)
    values: dict[str, Any] = {} if settings is None else asdict(settings)
    return Settings(**values, store=store, port=port, drain_seconds=DRAIN_SECONDS)
