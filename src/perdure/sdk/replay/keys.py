"""Keys name the calls of an execution: `fetch`, `fetch#2`; in the third child task `3/fetch`."""

import hashlib
import re
from functools import lru_cache
from typing import Final

KEY_PART_MAX: Final = 120
"""A hash replaces longer parts, so keys stay below KEY_BYTES_MAX in any alphabet."""
GENERATED: Final = re.compile(r"^(?:\d+|~\w*)/|#\d+$|%")

_NO_WORD: Final = re.compile(r"\W")


class KeyScope:
    """Calls of bare callbacks share the scope `~/`."""

    __slots__ = ("children", "counts", "drawn", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.counts: dict[str, int] = {}
        self.children = 0
        self.drawn: str | None = None
        """Names the random numbers drawn by the scope's task (see `Machine.drawn`)."""


@lru_cache(1024)
def quoted(name: str) -> str:
    """The name with limited length, distinct from scopes, numbers and other names."""
    if len(name) > KEY_PART_MAX:
        return f"{name[: KEY_PART_MAX // 2].replace('%', '')}%{_hash(name)}"
    if not GENERATED.search(name):
        return name
    return name.replace("%", "%25").replace("#", "%23").replace("/", "%2F")


def next_path(above: KeyScope) -> str:
    above.children += 1
    path = f"{above.prefix}{above.children}"
    return path if len(path) <= KEY_PART_MAX else f"~{_hash(path)}"


def named_path(name: str) -> str:
    """
    >>> named_path("model:3")
    '~model_3'
    """
    path = f"~{_NO_WORD.sub('_', name)}"
    return path if len(path) <= KEY_PART_MAX else f"~{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
