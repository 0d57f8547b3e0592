"""Fingerprints: was a call made with the same input as in the journal?"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.sdk.payloads.values import encode


def fingerprint(data: bytes) -> str:
    """A short stable hash: tells whether a step was called with the same input as in the journal."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


_encode_arguments = msgspec.json.Encoder(order="deterministic").encode  # sets of strings differ between processes


def fingerprint_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """A hash of a call's input, or None if it cannot be encoded: then a change goes unnoticed, nothing worse."""
    try:
        return fingerprint(_encode_arguments((args, kwargs) if kwargs else args))
    except Exception:  # Something that msgspec does not know, or user code that raises.
        pass
    try:
        return fingerprint(encode([*args, *kwargs.items()]))
    except Exception:  # As above.
        return None
