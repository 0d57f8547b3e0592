"""Requests to the named or discovered server."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from perdure.sdk.client import Client
    from perdure.wire.operation import Operation

T = TypeVar("T")

PATIENCE_SECONDS: Final = 3.0


def with_client(url: str | None, work: "Callable[[Client], Awaitable[T]]", *, patience: float = PATIENCE_SECONDS) -> T:
    import asyncio

    from perdure.sdk.client import Client
    from perdure.sdk.credentials import find
    from perdure.sdk.http import HttpTransport

    async def main() -> T:
        access = find(url)
        async with Client(HttpTransport(access.urls, access.api_key, patience_seconds=patience)) as client:
            return await work(client)

    return asyncio.run(main())


def call(url: str | None, op: "Operation[T]") -> T:
    return with_client(url, lambda client: client._transport.call(op))


async def ask(client: "Client", method: str, path: str, body: bytes | None = None) -> bytes:
    """All tries of a POST have the same Idempotency-Key."""
    from perdure.sdk.http import HttpTransport, fresh_key

    assert isinstance(client._transport, HttpTransport)
    headers = fresh_key() if method == "POST" else b""
    return (await client._transport.request(method, path, body, headers=headers)).body
