"""Rows of journals, as people look at them."""

from typing import Final

import msgspec
from msgspec import Struct

from perdure.wire.base.records import Kind


class JournalEntry(Struct, frozen=True, gc=False):
    """A row with the columns that its statement selects. `value` is None if it is larger than asked for."""

    seq: int
    at_us: int
    kind: Kind
    key: str | None = None
    name: str | None = None
    ok: bool = True
    value: bytes | None = None
    started_at_us: int | None = None
    tries: int = 0
    attempt: int = 0
    fingerprint: str | None = None
    size: int = 0
    label: str | None = None
    quiet: bool = False
    execution_id: str = ""

    @property
    def child_id(self) -> str | None:
        try:
            return _text(self.value or b"null")
        except msgspec.MsgspecError:
            return None


_text: Final = msgspec.json.Decoder(str).decode
