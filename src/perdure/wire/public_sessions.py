"""The API's shapes of sessions, with the contract's names where it has them (see `wire/public.py`)."""

from msgspec import Raw, Struct

from perdure.wire.public import Int64, Position


class SessionMemoryResponse(Struct, frozen=True):
    """What an agent remembers of a session; of an unknown one `{null, []}` in version 0."""

    messages: Raw
    version: Int64
    """Counts the writes. Sent with a change, it keeps that from overwriting another one."""
    summary: str | None = None


class PutSessionMemoryRequest(Struct, frozen=True):
    """Replace what is remembered of a session."""

    messages: Raw
    summary: str | None = None
    version: Position | None = None
    """The version that was read; another one by now is 409. Without it the last write wins."""


class PutSessionMemoryResponse(Struct, frozen=True):
    """The version of what was written."""

    version: Int64
