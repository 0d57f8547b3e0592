import inspect
import typing
from typing import Any

import msgspec

from perdure.wire.base.codec import split_path
from perdure.wire.base.limits import DEPTH_MAX


class Fault(ValueError):
    """A ValueError, so msgspec adds the path of a hook to the text."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def to_fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, RecursionError):
        return Fault("", f"nested deeper than {DEPTH_MAX} levels")
    if isinstance(error, msgspec.MsgspecError | ValueError):
        path, reason = split_path(str(error))
        inner = error.__cause__.path if isinstance(error.__cause__, Fault) else ""
        return Fault(path + inner, reason)
    return Fault("", f"{type(error).__name__}: {error}")


def below(path: str, name: object) -> str:
    if isinstance(name, str) and name.isidentifier():
        return f"{path}.{name}"
    shown = repr(name)
    return f"{path}[{shown if len(shown) <= 64 else shown[:64] + '…'}]"


def type_name(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) and not typing.get_args(type_) else str(type_)


def not_json(value: object) -> str:
    if inspect.isawaitable(value):
        return f"a `{type(value).__name__}` is not JSON; did you forget `await`?"
    hint = getattr(type(value), "_perdure_hint", None)  # names the alternative to a type of ours
    if hint is not None:
        return f"a `{type(value).__name__}` is not JSON; {hint}"
    return (
        f"a `{type(value).__name__}` is not JSON; use plain values, a dataclass, a msgspec Struct or a pydantic model"
    )


def not_readable(type_: Any) -> str:
    return f"JSON cannot be read into the type hint `{type_name(type_)}`"
