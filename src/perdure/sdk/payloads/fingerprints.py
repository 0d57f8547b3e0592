"""The fingerprint of a call stands for its arguments.

- `5d01f7ed883d98ee`: a hash of the arguments, which change only with the code or its input.
- `~Yg7/+eo~-~5d01f7ed883d98ee`: before that, *tokens* of changeable values, which tell concurrent calls apart:
  a token for each captured value, context variable, `self`, and argument other than data. `-` has no content.
- `~5d01f7ed883d98ee`: all captured values in one hash, by releases before 0.2.
"""

import functools
import hashlib
import types
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from perdure.sdk.payloads.content import Content, encode_arguments, is_named, pack, to_plain
from perdure.sdk.payloads.values import encode

CAPTURED: Final = "~"
"""Marks captured values."""
LATEST: Final = "!"
"""Marks a wait for the latest event."""
OPAQUE: Final = "-"
NUMBERS: Final = "#"
"""Marks the token for the random numbers of a call's task."""
_CAPTURED_LEN_MAX: Final = 64


def fingerprint(data: bytes) -> str:
    """The hash is stable across processes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def fingerprint_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """None if the input cannot be encoded."""
    try:
        return fingerprint(encode_arguments((args, kwargs) if kwargs else args))
    except Exception:  # unknown to msgspec, or user code raises
        pass
    try:
        return fingerprint(encode([*args, *kwargs.items()]))
    except Exception:  # as above
        return None


def identify(fn: Callable[..., Any], captures: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """The fingerprint of a call of `fn`, with tokens."""
    head = fingerprint_of_call(args, kwargs) if args or kwargs else None
    is_whole = head is not None or not (args or kwargs)
    if is_whole and not captures:
        return head
    tokens = [token(value) for value in captured_parts(fn)] if captures else []
    if is_whole:
        return with_tokens(head, tokens)
    data = []
    for place, value in (*enumerate(args), *sorted(kwargs.items())):
        content = Content()
        read = content.read(value)
        if content.is_data and not content.opaque:
            data.append(pack(str(place), [read]))
        else:
            tokens.append(_token(read, content))
    return with_tokens(fingerprint(b"".join(data)) if data else None, tokens)


def is_vague(step: Any) -> bool:
    """Whether a differing call may have the same fingerprint."""
    return captures_values(step.fn) or to_plain([[*step.args], step.kwargs]) is None


def token(value: object) -> str:
    content = Content()
    return _token(content.read(value), content)


def _token(read: bytes, content: Content) -> str:
    if read == b"?":
        return OPAQUE
    return token_of(read) + (OPAQUE if content.opaque else "")


def token_of(data: bytes) -> str:
    return b2a_base64(hashlib.blake2b(data, digest_size=5).digest()).decode()[:7]


def with_tokens(fingerprint: str | None, tokens: list[str]) -> str | None:
    """
    >>> with_tokens(with_tokens("5d01f7ed883d98ee", ["Yg7/+eo"]), ["-"])
    '~Yg7/+eo~-~5d01f7ed883d98ee'
    """
    if not tokens:
        return fingerprint
    head, before = split(fingerprint)
    return f"~{'~'.join([*before, *tokens])}~{head}"


def split(fingerprint: str | None) -> tuple[str, list[str]]:
    """The hash of the arguments, and the tokens.

    >>> split("~Yg7/+eo~-~5d01f7ed883d98ee")
    ('5d01f7ed883d98ee', ['Yg7/+eo', '-'])
    """
    if fingerprint is None or not fingerprint.startswith(CAPTURED):
        return fingerprint or "", []
    *tokens, head = fingerprint[1:].split("~")
    return head, tokens


def is_opaque(fingerprint: str | None) -> bool:
    return any(one.endswith(OPAQUE) for one in split(fingerprint)[1])


def numbers_of(tokens: Sequence[str]) -> list[str]:
    return [one for one in tokens if one.startswith(NUMBERS)]


def without_numbers(tokens: Sequence[str]) -> list[str]:
    return [one for one in tokens if not one.startswith(NUMBERS)]


def is_captured(fingerprint: str | None) -> bool:
    return fingerprint is not None and fingerprint.startswith(CAPTURED) and fingerprint.count("~") == 1


def only_tokens_differ(one: str | None, other: str | None) -> bool:
    return one == other or is_captured(one) or is_captured(other) or split(one)[0] == split(other)[0]


def fingerprint_of_captured(fn: Callable[..., Any]) -> str | None:
    """A hash of the captured values that JSON can hold, as recorded by releases before 0.2.

    >>> order = 7
    >>> fingerprint_of_captured(lambda: order) == fingerprint_of_captured(lambda: order)
    True
    """
    parts = []
    for value in _captured(fn):
        if hasattr(value, "__len__") and not isinstance(value, str) and len(value) > _CAPTURED_LEN_MAX:
            continue
        try:
            parts.append(encode_arguments(value))
        except Exception:  # a client, the Context, a function
            continue
    return CAPTURED + fingerprint(b",".join(parts)) if parts else None


def captures_values(fn: Callable[..., Any]) -> bool:
    """Whether calls of the same name may bring values beyond the arguments."""
    if isinstance(fn, types.FunctionType):
        return not is_named(fn) and bool(
            fn.__closure__ or fn.__defaults__ or fn.__kwdefaults__ or "<lambda>" in fn.__qualname__
        )
    return not (isinstance(fn, type) or isinstance(getattr(fn, "__self__", None), types.ModuleType))


def captured_parts(fn: Any) -> Iterator[Any]:
    """A method brings its object, a function its captured values; each value counts alone."""
    while isinstance(fn, functools.partial):
        yield from fn.args
        yield from (value for _, value in sorted(fn.keywords.items()))
        fn = fn.func
    if isinstance(fn, types.MethodType):
        yield fn.__self__
        fn = fn.__func__
    if isinstance(fn, types.FunctionType) and not is_named(fn):
        yield fn.__code__
        yield from fn.__defaults__ or ()
        yield from (fn.__kwdefaults__ or {}).values()
        yield from fn.__closure__ or ()
    else:
        yield fn


def changed_objects(step: Any, fingerprint: str | None, recorded: Sequence[str]) -> list[object] | None:
    """The objects without a recorded token. None if data or a context variable has changed."""
    found = []
    captured = captured_parts(step.fn) if captures_values(step.fn) else ()
    for value in (*captured, *step.args, *step.kwargs.values()):
        content = Content()
        read = content.read(value)
        if not (content.is_data and not content.opaque) and _token(read, content) not in recorded:
            found.append(value.cell_contents if isinstance(value, types.CellType) else value)
    changed = [one for one in without_numbers(split(fingerprint)[1]) if one not in recorded]
    return found if len(found) == len(changed) else None


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
