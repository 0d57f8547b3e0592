"""Blocking methods, derived from coroutine methods.

class SyncSchedules(Blocking[Schedules]):
    get = blocking(Schedules.get)
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from perdure.sdk.sync import SyncClient

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Blocking(Generic[S]):
    """A part of a `SyncClient`, made from the part of `Client` whose methods are coroutines."""

    def __init__(self, client: SyncClient, twin: S) -> None:
        self._client = client
        self._twin = twin


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Blocking[S], P], R]:
    """Make the blocking twin of a coroutine method: same parameters, docstring, result and errors."""

    @wraps(method)
    def call(self: Blocking[S], /, *args: P.args, **values: P.kwargs) -> R:
        return self._client._call(method(self._twin, *args, **values))

    return call
