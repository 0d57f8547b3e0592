"""Work on a running server, or in the file of a stopped store."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from perdure.cli.common import PATIENCE_SECONDS, Refused, place, store_address, with_client

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.sdk.client import Client
    from perdure.sdk.transport import Transport

R = TypeVar("R")

GLANCE_SECONDS: Final = 0.2
"""How long to look for a server that the user did not name."""


def on_server_or_in_file(
    url: str | None, database: str | None, work: "Callable[[Transport], Awaitable[R]]", *, make: bool = False
) -> tuple[R, str]:
    """--database names a file, --url or PERDURE_URL a server. Without them a running server whose key is known is used,
    or else the file, which `make` creates. Also returns the place in words."""
    from perdure.cli.store import offline
    from perdure.sdk.credentials import URL_VARIABLE, find
    from perdure.wire.errors import Unavailable

    async def online(client: "Client") -> R:
        return await work(client._transport)

    async def in_file(engine: "Engine", project_id: str) -> R:
        from perdure.embedded import LocalTransport

        return await work(LocalTransport(engine, project_id))

    if database is not None and url is not None:
        raise Refused("Name either a server (--url) or the file of a stopped store (--database).")
    if database is None:
        named = url or os.environ.get(URL_VARIABLE)
        access = find(url)
        if named or access.api_key is not None:
            try:
                done = with_client(url, online, patience=PATIENCE_SECONDS if named else GLANCE_SECONDS)
                return done, f"on {', '.join(access.urls)}"
            except Unavailable as error:
                if named:
                    raise Refused(f"{error.message} For a stopped store name its file with --database.") from None
    return offline(database, in_file, make=make), f"in {place(store_address(database))}"
