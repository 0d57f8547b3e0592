"""Blocking methods, derived from coroutine methods.

class SyncSchedules(Blocking[Schedules]):
    get = blocking(Schedules.get)
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class ClientThread(Protocol):
    def _call(self, coroutine: Coroutine[Any, Any, R]) -> R: ...
    def handle(self, execution_id: str) -> Any: ...


class Blocking(Generic[S]):
    """The blocking twin of a part of `Client`."""

    def __init__(self, client: ClientThread, twin: S) -> None:
        self._client = client
        self._twin = twin


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Blocking[S], P], R]:
    """Same parameters, docstring, result and errors."""

    @wraps(method)
    def call(self: Blocking[S], /, *args: P.args, **values: P.kwargs) -> R:
        return self._client._call(method(self._twin, *args, **values))

    return call
