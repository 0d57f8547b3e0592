"""Cursors of lists: the place of a page's last entry as an opaque text."""

import base64
import binascii
from typing import TypeVar

import msgspec

from perdure.wire.base.errors import BadRequest

Place = TypeVar("Place", bound=tuple[int | str, ...])


def write_cursor(place: tuple[int | str, ...]) -> str:
    """A cursor has only letters, digits, `-` and `_`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def read_cursor(cursor: str, type: type[Place], first: str) -> Place:
    """Raises BadRequest for an invalid cursor; `first` says how to get the first page."""
    try:
        said = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(said, type=type)
    except (binascii.Error, ValueError):
        raise none_of_ours(first) from None
    if not all("\0" not in part if isinstance(part, str) else 0 <= part <= 1 << 62 for part in place):
        raise none_of_ours(first)
    return place


def none_of_ours(first: str) -> BadRequest:
    return BadRequest(f"`cursor` is not one that a list gave; leave it out to start with the {first}.")
