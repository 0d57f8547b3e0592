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
S_co = TypeVar("S_co", covariant=True)


class ClientThread(Protocol):
    def _call(self, work: Coroutine[Any, Any, R]) -> R: ...
    def handle(self, execution_id: str) -> Any: ...


class HasTwin(Protocol[S_co]):
    @property
    def _twin(self) -> S_co: ...
    def _call(self, work: Coroutine[Any, Any, R]) -> R: ...


class Blocking(Generic[S]):
    """The blocking twin of a part of `Client`."""

    __slots__ = ("_client", "_twin")

    def __init__(self, client: ClientThread, twin: S) -> None:
        self._client = client
        self._twin = twin

    def _call(self, work: Coroutine[Any, Any, R]) -> R:
        return self._client._call(work)


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[HasTwin[S], P], R]:
    """The blocking method has the same parameters, docstring, result and errors."""

    @wraps(method)
    def call(self: HasTwin[S], /, *args: P.args, **values: P.kwargs) -> R:
        return self._call(method(self._twin, *args, **values))

    return call
