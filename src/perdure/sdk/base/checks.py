"""One bad argument would fail a request shared with other calls, so each call checks its arguments.

Each check returns the value to send, or raises `BadValue` with `where` in front.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import overload

from perdure.wire.base.codec import KEY_BYTES_MAX, check_name, check_text
from perdure.wire.base.errors import BadValue
from perdure.wire.base.wording import did_you_mean


@overload
def checked_name(value: str, where: str, max_bytes: int = ...) -> str: ...
@overload
def checked_name(value: str | None, where: str, max_bytes: int = ...) -> str | None: ...
def checked_name(value: str | None, where: str, max_bytes: int = KEY_BYTES_MAX) -> str | None:
    """Returns one line of text."""
    if value is None:
        return None
    value = checked_text(value, where)
    check_name(value, where=where, max_bytes=max_bytes)
    return value


def checked_tags(given: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise BadValue(f"tags: must be a dict of texts, got a `{type(given).__name__}`")
    tags = {checked_text(name, "tags"): checked_text(text, f"tags.{name}") for name, text in given.items()}
    for name, text in tags.items():
        check_name(name, where="tags")
        check_text(text, where=f"tags.{name}", max_bytes=KEY_BYTES_MAX)
    return tags


def checked_text(value: str, where: str) -> str:
    """Returns plain `str`, even for a subclass."""
    if not isinstance(value, str):
        raise BadValue(f"{where}: must be text, got a `{type(value).__name__}`")
    return value if type(value) is str else str.__str__(value)


def checked_seconds(value: float, where: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise BadValue(f"`{where}` must be a finite number of seconds, not negative; got {value!r}.")
    return float(value)


def checked_int(value: int, where: str) -> int:
    """Returns 1 for `True`."""
    if not isinstance(value, int):
        raise BadValue(f"{where}: must be a whole number, got a `{type(value).__name__}`")
    return int(value)


def checked_options(given: Mapping[str, object], of: Callable[..., object], what: str) -> None:
    """Raises TypeError for an option missing from the keywords of `of`."""
    known = [name for name, one in inspect.signature(of).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for name in given:
        if name not in known:
            raise TypeError(f"{what} has no option {name!r}.{did_you_mean(name, known)} It takes {', '.join(known)}.")


def checked_timeout(value: float | timedelta | None) -> float | None:
    """Returns the seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds is None:
        return None
    if not isinstance(seconds, int | float):
        raise TypeError(f"timeout wants seconds or a timedelta, got {value!r}.")
    if not seconds > 0:
        raise ValueError(f"timeout must be more than 0 seconds, got {value!r}.")
    return seconds
