"""The interface between verbs and databases.

A *verb* is one durable change or one read: a coroutine that awaits only queries and hints. A verb is pure: no clock, no
randomness, no change of arguments, no foreign await. Verbs refuse (raise a `PerdureError`) before their first write, so
a refusal needs no rollback.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, Generic, Never, ParamSpec, Protocol, TypeVar

import msgspec

from perdure.store.base.locks import Arguments, Row, read_locks
from perdure.store.base.records import to_values
from perdure.wire.base.operation import Operation

A = TypeVar("A")
O = TypeVar("O")  # noqa: E741  # an operation
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

Rows = list[tuple[Any, ...]]

WEIGHED_BYTES = 1 << 10


class Query(msgspec.Struct, gc=False):
    """A verb awaits the query, and the driver sends the rows in."""

    name: str
    values: Any
    many: bool = False
    record: type | None = None
    """The type of the rows; None: tuples."""
    first: bool = False
    """True: the verb gets a row or None."""

    def __await__(self) -> "Generator[Query, list[Any], Any]":
        rows = yield self
        if self.first:
            return rows[0] if rows else None
        return rows


def query(name: str, /, *given: msgspec.Struct, **values: object) -> Awaitable[Rows]:
    """The fields of `given` are values as well. If two structs have a field of one name, the first counts."""
    return Query(name, _joined(given, values) if given else values)


def records(cls: type[T], name: str, /, *given: msgspec.Struct, **values: object) -> Awaitable[list[T]]:
    """Make a record from each row by the names of columns."""
    return Query(name, _joined(given, values) if given else values, False, cls)


def record(cls: type[T], name: str, /, *given: msgspec.Struct, **values: object) -> Awaitable[T | None]:
    return Query(name, _joined(given, values) if given else values, False, cls, True)


def _joined(given: Sequence[msgspec.Struct], values: dict[str, object]) -> dict[str, object]:
    return {name: one for part in (*map(to_values, reversed(given)), values) for name, one in part.items()}


async def value(name: str, /, *given: msgspec.Struct, **values: object) -> Any:
    """The first column of the first row, or None."""
    for first, *_ in await query(name, *given, **values):
        return first
    return None


def query_many(name: str, rows: Sequence[object], /) -> Awaitable[Rows]:
    """Run the query once per row of values: records, dicts, or tuples in the order in which the SQL first names
    them."""
    return Query(name, rows, True)


class Ready(msgspec.Struct, frozen=True, gc=False):
    """A deployment may have claimable work."""

    project_id: str
    deployment_id: str | None
    of_current: bool = False
    """Started without a deployment, so the current deployment is meant."""


class EndNotice(msgspec.Struct, frozen=True, gc=False):
    project_id: str
    execution_id: str
    workflow_id: str
    phase: str
    result: bytes | None
    error: str | None
    detail: bytes | None


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A row that another process wrote into a held execution's journal."""

    worker_id: str
    execution_id: str


class Written(msgspec.Struct, frozen=True, gc=False):
    """An execution's journal or log grew."""

    execution_id: str


class Streamed(msgspec.Struct, frozen=True, gc=False):
    """A root execution or a descendant emitted items."""

    project_id: str
    root_id: str


class Published(msgspec.Struct, frozen=True, gc=False):
    project_id: str
    topic: str


class Due(msgspec.Struct, frozen=True, gc=False):
    at_us: int
    ends: bool = False
    """True: an execution ends at `at_us`. False: an execution continues."""


class Metric(msgspec.Struct, frozen=True, gc=False):
    what: str
    amount: int = 1


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """A webhook delivery is pending."""


class KeyDeleted(msgspec.Struct, frozen=True, gc=False):
    key_id: str


class UserChanged(msgspec.Struct, frozen=True, gc=False):
    """A user's sessions or memberships changed."""

    user_id: str


class EndedElsewhere(msgspec.Struct, frozen=True, gc=False):
    """An execution ended through another server; the database knows how."""

    project_id: str
    execution_id: str


class Everything(msgspec.Struct, frozen=True, gc=False):
    """Hints of other servers were lost or too many."""


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """The database itself failed: a full disk, no connection."""

    why: str


Hint = (
    Ready
    | EndNotice
    | Changed
    | Written
    | Streamed
    | Published
    | Due
    | Metric
    | KeyDeleted
    | UserChanged
    | EndedElsewhere
    | Everything
    | Trouble
    | Enqueued
)


class Notify:
    """The hints go out after the commit; a rollback drops all hints."""

    __slots__ = ("hints",)

    def __init__(self, *hints: Hint) -> None:
        self.hints = hints

    def __await__(self) -> "Generator[Notify, None, None]":
        yield self


class Declaration(msgspec.Struct, Generic[T_co], frozen=True):
    function: Callable[..., Coroutine[Any, Any, T_co]]
    locks: Callable[[Arguments], Sequence[Row]] | None
    sweep: bool | Callable[[Arguments], bool]
    reads: bool
    weight: Callable[[Arguments], int] | None
    operation: type[Operation[Any]] | None = None
    scans: bool = False
    wakes: str | None = None


class Verb(msgspec.Struct, Generic[T_co]):
    """A change before it is made. A verb can be started any number of times."""

    declaration: Declaration[T_co]
    values: Arguments

    @property
    def name(self) -> str:
        return self.declaration.function.__name__

    @property
    def project_id(self) -> str:
        at = self.values.get("at")
        found: str = self.values.get("project_id", "") if at is None else at.project_id
        return found

    def start(self) -> Coroutine[Any, Any, T_co]:
        return self.declaration.function(**self.values)

    def locks(self) -> Sequence[Row]:
        locks = self.declaration.locks
        return () if locks is None else locks(self.values)

    def is_sweep(self) -> bool:
        sweep = self.declaration.sweep
        return sweep if isinstance(sweep, bool) else sweep(self.values)

    def weight(self) -> int:
        weight = self.declaration.weight
        return 1 if weight is None else weight(self.values)

    def __repr__(self) -> str:
        return f"<verb {self.name}>"


Answer = Callable[[Any, Exception | None], None]


def answer_to(future: "asyncio.Future[Any]") -> Answer:
    """A cancelled caller gets no answer."""

    def answer(result: Any, error: Exception | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    return answer


Item = tuple[Verb[Any], Answer]
Done = tuple[list[tuple[Any, Exception | None]], list[Hint]]
"""The outcomes of a group's verbs, and their hints."""


def verb(
    *bare: Never,
    locks: str | Callable[[Arguments], Iterable[Row]] | None = None,
    sweep: bool | Callable[[Arguments], bool] = False,
    reads: bool = False,
    weight: Callable[[Arguments], int] | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Verb[T]]]:
    """Make a coroutine function of keyword arguments a verb: calling it does nothing until a store drives the verb.

    Each verb declares one of three:

    - `locks`: the rows named by arguments (notation: `store/base/locks.py`), "" for no rows.
    - `sweep=True`: a predicate picks the rows, or a verb is rare or long. PostgreSQL runs it on a separate connection:
      SKIP LOCKED works only between connections, and the verbs of a group wait for the longest.
    - `reads=True`: the verb changes nothing.

    With `locks`, `sweep` may be a function of the arguments. `weight` is also a function of the arguments: about how
    many rows the verb writes, plus 1 per `WEIGHED_BYTES` of values. The weight bounds a driver's groups.
    """
    if bare or (locks is not None) + (sweep is True) + reads != 1:
        raise TypeError("A verb declares one of locks=…, sweep=True and reads=True: @verb(locks=…).")

    def declare(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Verb[T]]:
        rows = None if locks is None else read_locks(locks, function)
        declaration = Declaration(function, rows, sweep, reads, weight)
        names = tuple(inspect.signature(function).parameters)

        def prepare(*args: P.args, **values: P.kwargs) -> Verb[T]:
            return Verb(declaration, dict(zip(names, args, strict=False)) | values if args else values)

        prepare.__name__ = function.__name__
        prepare.__doc__ = function.__doc__
        prepare.__wrapped__ = function  # type: ignore[attr-defined]  # functools.wraps would lose the ParamSpec
        prepare.declaration = declaration  # type: ignore[attr-defined]  # for tests
        return prepare

    return declare


def serves(
    operation: type[Operation[T]],
    *,
    locks: str | None = None,
    sweep: bool = False,
    reads: bool = False,
    scans: bool = False,
    wakes: str | None = None,
) -> Callable[[Callable[[A, O], Coroutine[Any, Any, T]]], Callable[[A, O], Verb[T]]]:
    """Make `async def act(at: At, op: Operation)` a verb that serves the operation, without a service in between.

    `scans=True` is a read that may take long. `wakes` names the loop that has work afterwards.
    """
    declare_verb = verb(locks=locks, sweep=sweep, reads=reads or scans)

    def declare(function: Callable[[A, O], Coroutine[Any, Any, T]]) -> Callable[[A, O], Verb[T]]:
        prepare: Any = declare_verb(function)
        prepare.declaration = msgspec.structs.replace(
            prepare.declaration, operation=operation, scans=scans, wakes=wakes
        )
        made: Callable[[A, O], Verb[T]] = prepare
        return made

    return declare


class Store(Protocol):
    @property
    def epoch(self) -> str:
        """Changes when the store is restored; earlier messages no longer count."""
        ...

    @property
    def alone(self) -> bool:
        """True if no other process can have the store open."""
        ...

    groups: int
    group_verbs: int
    group_seconds: float

    async def write(self, verb: Verb[T]) -> T:
        """The change is durable when the call returns. If the call raises, nothing happened."""
        ...

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        """Run verbs in order in one group, each as if alone. An exception takes the place of a result."""
        ...

    async def read(self, verb: Verb[T]) -> T:
        """Run a read-only verb against committed data."""
        ...

    async def scan(self, verb: Verb[T]) -> T:
        """A long `read`: never on the event loop's thread."""
        ...

    def listen(self, listener: Callable[[Sequence[Hint]], None]) -> None: ...

    @property
    def hints_up(self) -> bool:
        """True while hints of other servers arrive, or if no other server is possible."""
        ...

    def exchange_hints(self) -> None: ...

    async def vacuum(self) -> None:
        """Release deleted space, if the database does not do so itself."""
        ...

    async def close(self) -> None:
        """Finish accepted work first."""
        ...
