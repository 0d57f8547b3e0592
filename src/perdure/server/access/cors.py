"""Cross-origin requests: which origins may read answers."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from perdure.wire.base.errors import BadRequest

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SENT: Final = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "Perdure-Input-Check",
    "Perdure-Protocol",
    "Project-ID",
    "X-Project-ID",
    "traceparent",
    "tracestate",
)
READ: Final = ("Allow", "ETag", "Next-Cursor", "Retry-After", "WWW-Authenticate")
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def checked_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """The origins as browsers send them. Raises `BadRequest`."""
    return tuple(map(_checked, origins))


def _checked(origin: str) -> str:
    written = origin.lower().rstrip("/")
    if written == "*":
        raise BadRequest(
            "Setting origins: '*' would let every page act with what a browser knows of this server; name each origin."
        )
    if not _ORIGIN.fullmatch(written):
        raise BadRequest(
            f"Setting origins: {origin!r} is not an origin; write scheme, host and port, like 'https://app.example.com'."
        )
    return written


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=SENT,
        allow_credentials=True,
        expose_headers=READ,
    )
