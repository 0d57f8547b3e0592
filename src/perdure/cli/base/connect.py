"""Requests to the named or discovered server."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perdure.cli.base.commands import Refused
from perdure.cli.base.output import note

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client
    from perdure.sdk.clients.credentials import Access
    from perdure.sdk.transports.connection import Response
    from perdure.sdk.transports.http import HttpTransport
    from perdure.wire.base.operation import Listed, Operation

T = TypeVar("T")

PAGE: Final = 1_000
PATIENCE_SECONDS: Final = 3.0
SILENCE_SECONDS: Final = 2.0
"""Seconds without an answer until a command says what it waits for."""
NAME_A_SERVER: Final = "Or start `perdure dev` in this folder, or name a server with --url or PERDURE_URL."


def with_client(url: str | None, work: "Callable[[Client], Awaitable[T]]", *, patience: float = PATIENCE_SECONDS) -> T:
    import asyncio

    from perdure.sdk.clients.client import Client
    from perdure.sdk.clients.credentials import find
    from perdure.wire.base.errors import Unauthorized

    async def main() -> T:
        access = find(url)
        say_if_guessed(access)
        async with Client(_transport(access, patience)) as client:
            try:
                return await work(client)
            except Unauthorized as error:
                if access.guessed and access.api_key is None:
                    raise Refused(f"{error.message} {NAME_A_SERVER}") from None
                raise

    return asyncio.run(main())


def _transport(access: "Access", patience: float) -> "HttpTransport":
    import asyncio

    from perdure.sdk.transports.http import HttpTransport

    class Telling(HttpTransport):
        is_told = False

        async def request(self, method: str, path: str, body: bytes | None = None, **options: Any) -> "Response":
            if options.get("held_seconds"):
                return await super().request(method, path, body, **options)
            timer = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self.tell)
            try:
                return await super().request(method, path, body, **options)
            finally:
                timer.cancel()

        def tell(self) -> None:
            if not self.is_told:
                self.is_told = True
                url = self.urls[0]
                note(f"Waiting for an answer of {url}. If its database is down, {url}/health says so.")

    return Telling(access.urls, access.api_key, patience_seconds=patience)


def say_if_guessed(access: "Access") -> None:
    if access.guessed:
        note(f"Server: {access.urls[0]} (no server runs in this folder; --url or PERDURE_URL names another)")


def call(url: str | None, op: "Operation[T]") -> T:
    return with_client(url, lambda client: client._transport.call(op))


async def fetch(
    client: "Client", limit: int, ask: "Callable[[str | None, int], Operation[Listed[T]]]"
) -> tuple[list[T], bool]:
    """The first entries, and whether more exist. `ask` gets a cursor and the size of a page."""
    found: list[T] = []
    cursor: str | None = None
    while True:
        page = await client._transport.call(ask(cursor, min(limit - len(found), PAGE)))
        found.extend(page.items)
        cursor = page.next_cursor
        if cursor is None or len(found) >= limit:
            return found, cursor is not None


async def ask(client: "Client", method: str, path: str, body: bytes | None = None) -> bytes:
    """All tries of a POST have the same Idempotency-Key."""
    from perdure.sdk.transports.http import HttpTransport, fresh_key

    assert isinstance(client._transport, HttpTransport)
    headers = fresh_key() if method == "POST" else b""
    return (await client._transport.request(method, path, body, headers=headers)).body
