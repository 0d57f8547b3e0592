"""A service is a class whose methods serve the operations of one noun.

    class Schedules(Service):
        @serves(GetSchedule)
        async def get(self, scope: Scope, op: GetSchedule) -> StoredSchedule: ...

HTTP requests and calls in the same process both end in `Engine.serve`, which runs the checks.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import cache, wraps
from types import FunctionType
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from uuid_utils import uuid7

from perdure.engine.base.core import Core
from perdure.store import verbs
from perdure.store.base.interface import Declaration, Verb
from perdure.store.verbs.base.idempotency import At, Idempotency
from perdure.wire.base.access import Principal, Role, check_role
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.operation import Operation, client_form, is_checked, named, validated

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
O = TypeVar("O")  # noqa: E741  # an operation


class Scope(Struct, frozen=True):
    project_id: str
    """The caller's project. Empty for a user without a named project, where no project is needed."""
    idempotency: Idempotency | None = None
    principal: Principal | None = None
    """None: the embedding program, which may do all in its project."""
    poll: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
    """A block for a long wait. The wait ends early, without an error, when the server stops."""
    leases: dict[str, int] | None = None
    """Ends of leases (µs) by worker, for beats over the caller's connection."""

    encoded: bool = False
    """The SDK of this process has made and checked the request's payloads and results."""

    def has_role(self, role: Role) -> bool:
        return self.principal is None or self.principal.role.includes(role)

    def check_role(self, needed: Role) -> None:
        """Raises Forbidden."""
        if self.principal is not None:
            check_role(self.principal, needed)

    @property
    def user_id(self) -> str | None:
        """None for a key and for the embedding program."""
        return None if self.principal is None else self.principal.user_id


def once(op: Operation[Any], key: str) -> Idempotency:
    """The idempotency of an operation repeated under `key` by a caller in this process."""
    body = client_form(type(op)).body
    sent = b"" if body is None else msgspec.json.encode(body(op))
    options = op.endpoint.options
    return Idempotency(options.get("recorded_as", options["name"]), key, hashlib.sha256(sent).hexdigest())


Serve = Callable[[Scope, Any], Awaitable[Any]]


def serves(
    operation: type[Operation[R]],
) -> Callable[[Callable[[S, Scope, O], Coroutine[Any, Any, R]]], Callable[[S, Scope, O], Coroutine[Any, Any, R]]]:
    """mypy checks the reply, a test the parameter."""

    def mark(
        method: Callable[[S, Scope, O], Coroutine[Any, Any, R]],
    ) -> Callable[[S, Scope, O], Coroutine[Any, Any, R]]:
        method.operation = operation  # type: ignore[attr-defined]  # read below
        return method

    return mark


class Service:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def write(self, verb: Verb[T]) -> T:
        return await self._core.store.write(verb)

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        return await self._core.store.write_all(verbs)

    async def read(self, verb: Verb[T]) -> T:
        return await self._core.store.read(verb)

    @property
    def epoch(self) -> str:
        return self._core.store.epoch

    async def scan(self, verb: Verb[T]) -> T:
        return await self._core.store.scan(verb)

    def at(self, scope: Scope) -> At:
        return at_of(self._core, scope)

    def now_us(self) -> int:
        return self._core.clock.now_us()

    def new_id(self) -> str:
        return str(uuid7())


def at_of(core: Core, scope: Scope) -> At:
    return At(scope.project_id, core.clock.now_us(), str(uuid7()), scope.idempotency, scope.principal)


class Services:
    def __init__(self, core: Core, services: Sequence[Service]) -> None:
        self.methods: dict[type, Serve] = {
            operation: _serve(core, *verb) for operation, verb in _operations_of_verbs().items()
        }
        for service in services:
            for operation, name in _served(type(service)):  # type: ignore[arg-type]  # mypy asks for an instance's __hash__
                self.methods[operation] = getattr(service, name)

    def serve(self, scope: Scope, op: Operation[R]) -> Awaitable[R]:
        method = self.methods.get(type(op))
        if method is None:
            raise BadRequest(f"Nothing serves {type(op).__name__} here.")
        return method(scope, validated(op) if is_checked(type(op)) else op)


def _serve(core: Core, prepare: Callable[[At, Any], Verb[R]], declaration: Declaration[R]) -> Serve:
    store = core.store

    @wraps(declaration.function)
    async def serve(scope: Scope, op: Any) -> R:
        run = store.scan if declaration.scans else store.read if declaration.reads else store.write
        result = await run(prepare(at_of(core, scope), op))
        if declaration.wakes is not None:
            core.notifier.notify(("loop", declaration.wakes))
        return result

    return serve


@cache
def _operations_of_verbs() -> dict[type, tuple[Callable[[At, Any], Verb[Any]], Declaration[Any]]]:
    marked = [each for each in named(verbs, FunctionType) if hasattr(each, "declaration")]
    return {each.declaration.operation: (each, each.declaration) for each in marked if each.declaration.operation}


@cache
def _served(kind: type) -> list[tuple[type, str]]:
    methods = inspect.getmembers(kind, inspect.iscoroutinefunction)
    return [(method.operation, name) for name, method in methods if hasattr(method, "operation")]
