"""Picks the store for an address by scheme."""

from perdure.store.base.interface import Store
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.wire.base.errors import BadRequest


async def open_store(url: str) -> Store:
    """Open `postgresql://…`, `sqlite:<path>` or a plain path. Raises `BadRequest` for another address."""
    scheme, colon, rest = url.partition(":")
    if not url or url == "sqlite:":
        raise BadRequest("A store needs a path; give `sqlite:<path>` or a plain path.")
    if scheme == "sqlite" and colon:
        return SQLiteStore(rest.removeprefix("//"))
    if is_postgres(url):
        try:
            from perdure.store.drivers.postgres import PostgresStore  # an extra: asyncpg may be missing
        except ImportError as error:
            raise no_driver(error) from error
        return await PostgresStore.open(url)
    if colon and len(scheme) > 1 and not url.startswith(":memory:"):
        raise BadRequest(
            f"Store address {url!r} is not understood; give `postgresql://…`, `sqlite:<path>` or a plain path."
        )
    return SQLiteStore(url)


def is_postgres(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def file_of(url: str) -> str:
    return url.removeprefix("sqlite:").removeprefix("//")


def no_driver(error: ImportError) -> BadRequest:
    return BadRequest(
        f"A store in PostgreSQL needs a driver ({error}); install it with `pip install 'perdure[postgres]'`."
    )
