import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from perdure.sdk.payloads.values import encode

CAPTURED: Final = "~"
"""Marks captured values."""
LATEST: Final = "!"
"""Marks a wait for the latest event."""
_CAPTURED_LEN_MAX: Final = 64


def fingerprint(data: bytes) -> str:
    """Stable across processes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


_encode_arguments = msgspec.json.Encoder(order="deterministic").encode  # sets of strings differ between processes


def fingerprint_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """None if the input cannot be encoded: then a change goes unnoticed."""
    try:
        return fingerprint(_encode_arguments((args, kwargs) if kwargs else args))
    except Exception:  # unknown to msgspec, or user code raises
        pass
    try:
        return fingerprint(encode([*args, *kwargs.items()]))
    except Exception:  # as above
        return None


def fingerprint_of_captured(fn: Callable[..., Any]) -> str | None:
    """A hash of the values that a function captures (`lambda: charge(order)`), as far as they can be encoded.

    It tells calls without arguments apart. A replay may capture another path or time, so a change alone proves nothing.

    >>> order = 7
    >>> fingerprint_of_captured(lambda: order) == fingerprint_of_captured(lambda: order)
    True
    """
    parts = []
    for value in _captured(fn):
        if hasattr(value, "__len__") and not isinstance(value, str) and len(value) > _CAPTURED_LEN_MAX:
            continue
        try:
            parts.append(_encode_arguments(value))
        except Exception:  # a client, the Context, a function
            continue
    return CAPTURED + fingerprint(b",".join(parts)) if parts else None


def _captured(fn: Callable[..., Any]) -> Iterator[Any]:
    while isinstance(fn, functools.partial):
        yield from fn.args
        yield from fn.keywords.values()
        fn = fn.func
    yield from getattr(fn, "__defaults__", None) or ()
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue
