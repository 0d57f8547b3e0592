"""Picks the store by the scheme of its address."""

from perdure.store.sqlite import SQLiteStore
from perdure.wire.errors import BadRequest


def open_store(url: str) -> SQLiteStore:
    """Open `sqlite:<path>` or a plain path. Raises `BadRequest` for an address of another kind."""
    scheme, colon, rest = url.partition(":")
    if not url or url == "sqlite:":
        raise BadRequest("A store needs a path; give `sqlite:<path>` or a plain path.")
    if scheme == "sqlite" and colon:
        return SQLiteStore(rest.removeprefix("//"))
    if colon and len(scheme) > 1 and not url.startswith(":memory:"):
        raise BadRequest(f"Store address {url!r} is not understood; give `sqlite:<path>` or a plain path.")
    return SQLiteStore(url)
