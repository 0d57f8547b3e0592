"""Sessions: the conversations of agents, as the store knows them."""

from typing import Final

from msgspec import Raw, Struct

SUMMARY_BYTES_MAX: Final = 1 << 20


class Memory(Struct, frozen=True):
    """What an agent remembers of a session. `version` counts the writes; 0: there was none."""

    summary: str | None
    messages: Raw
    version: int
