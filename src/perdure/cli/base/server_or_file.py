"""A running server, or a store."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from perdure.cli.base.commands import Refused
from perdure.cli.base.connect import PATIENCE_SECONDS, with_client

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.sdk.clients.client import Client
    from perdure.sdk.transports.transport import Transport

R = TypeVar("R")

GLANCE_SECONDS: Final = 0.2
"""How long to look for a server that the user did not name."""


def store_address(given: str | None) -> str:
    if given:
        return given
    from perdure.server.process.settings import load

    return load().store


def store_path(given: str | None) -> str:
    """Raises `Refused` for addresses of other databases."""
    address = store_address(given)
    if "://" in address and not address.startswith("sqlite://"):
        raise Refused(f"{place(address)!r} is not a file; this command works on SQLite stores.")
    return address.removeprefix("sqlite:").removeprefix("//")


def existing_path(given: str | None) -> str:
    """If the default file is missing, takes the store of this folder's `perdure dev`. Raises `Refused` if no file
    exists."""
    from perdure.server.process.settings import Settings

    path, of_dev = store_path(given), ".perdure/perdure.db"
    if os.path.exists(path):
        return path
    if os.path.exists(of_dev):
        if not given and path == Settings().store:
            return of_dev
        raise Refused(f"The store {path!r} does not exist; the store of `perdure dev` is --database {of_dev}")
    raise Refused(f"The store {path!r} does not exist; name it with --database or PERDURE_STORE.")


def place(address: str) -> str:
    """Strip a store's address of password and parameters.

    >>> place("postgresql://perdure:secret@db/perdure?password=secret")
    'postgresql://perdure@db/perdure'
    >>> place("sqlite:perdure.db")
    'sqlite:perdure.db'
    """
    scheme, colon, rest = address.partition("://")
    if not colon:
        return address
    authority, slash, path = rest.partition("?")[0].partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}"


def offline(database: str | None, work: "Callable[[Engine, str], Awaitable[R]]", *, make: bool = False) -> R:
    """The store is a database, or a file that no server has open."""
    import asyncio

    from perdure.engine.engine import Engine
    from perdure.store.open import is_postgres, open_store

    address = store_address(database)
    if not is_postgres(address):
        address = store_path(address) if make else existing_path(address)

    async def main() -> R:
        engine = Engine(await open_store(address))
        try:
            return await work(engine, await engine.projects.default())
        finally:
            await engine.store.close()

    return asyncio.run(main())


def on_server_or_in_file(
    url: str | None, database: str | None, work: "Callable[[Transport], Awaitable[R]]", *, make: bool = False
) -> tuple[R, str]:
    """--database names a file, --url or PERDURE_URL a server. Without both, takes a running server whose key is known,
    or else the file. Also returns the place in words."""
    from perdure.sdk.clients.credentials import URL_VARIABLE, find
    from perdure.wire.base.errors import Unavailable

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
