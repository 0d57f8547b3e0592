"""MCP at standard input and output."""

from typing import TYPE_CHECKING, TypeVar

import typer

from perdure.cli.base.commands import Refused, add_commands
from perdure.cli.base.connect import PATIENCE_SECONDS, say_if_guessed
from perdure.cli.base.options import DatabaseOption, UrlOption
from perdure.cli.base.server_or_file import offline

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.sdk.clients.credentials import Access
    from perdure.sdk.transports.http import HttpTransport
    from perdure.wire.base.operation import Operation

R = TypeVar("R")


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Serve", mcp)


def mcp(url: UrlOption = None, database: DatabaseOption = None) -> None:
    """Give a coding agent tools (MCP) over standard input and output."""
    import asyncio

    try:
        from perdure.mcp.stdio import serve
    except ModuleNotFoundError as error:
        raise Refused("MCP needs the extra `mcp`: pip install 'perdure[mcp]'") from error
    from perdure.mcp.asking import AskCaller

    async def in_file(engine: "Engine", project_id: str) -> None:
        from perdure.embedded import LocalTransport

        await serve(AskCaller(LocalTransport(engine, project_id).call, None))

    if database is not None:
        if url is not None:
            raise Refused("Name either a server (--url) or the file of a stopped store (--database).")
        offline(database, in_file)
        return

    async def on_server() -> None:
        server = _Server(url)
        try:
            await serve(AskCaller(server.call, None))
        finally:
            await server.close()

    asyncio.run(on_server())


class _Server:
    """Each call looks up the server, because `perdure dev` may end, start or change its key between calls."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._access: Access | None = None
        self._transport: HttpTransport | None = None

    async def call(self, op: "Operation[R]", key: str | None = None) -> R:
        from perdure.sdk.clients.credentials import find
        from perdure.sdk.transports.http import HttpTransport

        access = find(self._url)
        if self._transport is None or access != self._access:
            say_if_guessed(access)
            await self.close()
            self._access = access
            self._transport = HttpTransport(access.urls, access.api_key, patience_seconds=PATIENCE_SECONDS)
        return await self._transport.call(op, key)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()
