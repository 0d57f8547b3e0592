"""The seam between what is durably true and everything above it.

A *verb* is one durable change or one look: a coroutine that awaits queries and hints and nothing else. It therefore
exists once for every database, can be run again after a roll-back, and can be tested without one. A *store* drives
verbs:

- `write` returns when the change is on disk. If it raises, nothing happened. Verbs that wait at the same moment are
  committed together; each is a transaction of its own in effect, and one that refuses does not disturb the others.
- `read` runs a verb against what is committed, beside the writer.
- hints tell, after a commit, where a look may be worth while. They are never the truth: a lost one costs latency. Where
  several servers share a database, hints reach the others too, `exchange_hints` provided.

Verbs are pure: no clock, no randomness, no change of their arguments, no await of anything foreign. They refuse
(raise a `PerdureError`) before their first write, so that a refusal needs no roll-back.
"""

from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, Generic, Never, ParamSpec, Protocol, TypeVar

import msgspec

from perdure.store.locks import Arguments, Row, read_locks
from perdure.store.records import to_values

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

Rows = list[tuple[Any, ...]]


class Query(msgspec.Struct, gc=False):
    """A named query with its values, awaited by a verb; the driver sends the rows in."""

    name: str
    values: Any
    many: bool
    record: type | None = None
    """The class of its rows. None: tuples."""

    def __await__(self) -> "Generator[Query, Rows, Rows]":
        rows = yield self
        return rows


class Records(Generic[T]):
    """A named query whose rows are records."""

    __slots__ = ("_query",)

    def __init__(self, query: Query) -> None:
        self._query = query

    def __await__(self) -> Generator[Query, Any, list[T]]:
        found: list[T] = yield self._query
        return found


def query(name: str, record: msgspec.Struct | None = None, /, **values: object) -> Query:
    """Run the named query once. The fields of `record` are values, too."""
    return Query(name, values if record is None else to_values(record) | values, False)


def records(cls: type[T], name: str, /, **values: object) -> Records[T]:
    """Run the named query once, and make a record from each row by the names of its columns."""
    return Records(Query(name, values, False, cls))


async def record(cls: type[T], name: str, /, **values: object) -> T | None:
    """The first of `records`, or None."""
    found = await records(cls, name, **values)
    return found[0] if found else None


def query_many(name: str, rows: Sequence[object], /) -> Query:
    """Run the named query once for each row of values: records, or dicts. Older code has tuples, in the order in which
    the SQL first names the values."""
    return Query(name, rows, True)


class Ready(msgspec.Struct, frozen=True, gc=False):
    """Work may be claimable for this deployment."""

    project_id: str
    deployment_id: str | None


class Ended(msgspec.Struct, frozen=True, gc=False):
    """An execution reached a final phase."""

    project_id: str
    execution_id: str
    workflow_id: str
    phase: str
    result: bytes | None
    error: str | None
    detail: bytes | None


class News(msgspec.Struct, frozen=True, gc=False):
    """A held execution's journal has a row that its worker did not write."""

    worker_id: str
    execution_id: str


class Written(msgspec.Struct, frozen=True, gc=False):
    """An execution's journal or log grew."""

    execution_id: str


class Streamed(msgspec.Struct, frozen=True, gc=False):
    """A root execution, or one below it, has emitted something."""

    project_id: str
    root_id: str


class Published(msgspec.Struct, frozen=True, gc=False):
    """A topic has new events."""

    project_id: str
    topic: str


class Due(msgspec.Struct, frozen=True, gc=False):
    """Something is due at this time."""

    at_us: int
    ends: bool = False
    """An execution ends then; otherwise one goes on."""


class Counted(msgspec.Struct, frozen=True, gc=False):
    """Something worth a metric happened."""

    what: str
    amount: int = 1


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """Something is to be delivered to a webhook."""


class KeyDeleted(msgspec.Struct, frozen=True, gc=False):
    """An API key is good no more."""

    key_id: str


class UserChanged(msgspec.Struct, frozen=True, gc=False):
    """A user's sessions, or places in projects, are not what they were."""

    user_id: str


class EndedElsewhere(msgspec.Struct, frozen=True, gc=False):
    """An execution reached a final phase through another server; the database knows how."""

    project_id: str
    execution_id: str


class Everything(msgspec.Struct, frozen=True, gc=False):
    """Hints of other servers were lost, or were too many to be told: look for everything that is waited for."""


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """The database refused changes for a reason of its own: a full disk, nobody there. Callers may try again."""

    why: str


Hint = (
    Ready
    | Ended
    | News
    | Written
    | Streamed
    | Published
    | Due
    | Counted
    | KeyDeleted
    | UserChanged
    | EndedElsewhere
    | Everything
    | Trouble
    | Enqueued
)


class Tell:
    """Awaited by a verb to leave hints; they are given out after the commit, and dropped with a roll-back."""

    __slots__ = ("hints",)

    def __init__(self, *hints: Hint) -> None:
        self.hints = hints

    def __await__(self) -> "Generator[Tell, None, None]":
        yield self


class Declaration(msgspec.Struct, Generic[T_co], frozen=True):
    """A verb's function, and what a driver must know before the first query. `verb` describes the fields."""

    function: Callable[..., Coroutine[Any, Any, T_co]]
    locks: Callable[[Arguments], Sequence[Row]] | None
    sweep: bool | Callable[[Arguments], bool]
    looks: bool
    weight: Callable[[Arguments], int] | None


class Verb(msgspec.Struct, Generic[T_co]):
    """A function and its arguments: a change that has not been made yet and can be started as often as needed."""

    declaration: Declaration[T_co]
    values: Arguments

    @property
    def name(self) -> str:
        return self.declaration.function.__name__

    def start(self) -> Coroutine[Any, Any, T_co]:
        return self.declaration.function(**self.values)

    def locks(self) -> Sequence[Row]:
        """The rows that the arguments name, each once."""
        locks = self.declaration.locks
        return () if locks is None else locks(self.values)

    def is_sweep(self) -> bool:
        """Whether the verb belongs on the connection for predicates and large work."""
        sweep = self.declaration.sweep
        return sweep if isinstance(sweep, bool) else sweep(self.values)

    def weight(self) -> int:
        """About how many rows the verb writes. Drivers bound their groups by it, too."""
        weight = self.declaration.weight
        return 1 if weight is None else weight(self.values)

    def __repr__(self) -> str:
        return f"<verb {self.name}>"


def verb(
    *bare: Never,
    locks: str | Callable[[Arguments], Iterable[Row]] | None = None,
    sweep: bool | Callable[[Arguments], bool] = False,
    looks: bool = False,
    weight: Callable[[Arguments], int] | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Verb[T]]]:
    """Make a coroutine function of keyword arguments a verb: calling it does nothing until a store drives it.

    Each verb declares one of three; otherwise `verb` raises TypeError.

    - `locks`: the rows that its arguments name (`store/locks.py` describes the notation), "" if they name none. The
      lockstep driver takes these rows before the first query. Verbs that name the same row therefore keep their order.
    - `sweep=True`: a predicate picks its rows, or it is rare or long. The PostgreSQL driver runs it on a connection of
      its own: SKIP LOCKED keeps only connections apart, and all verbs of a group wait for its longest.
    - `looks=True`: it changes nothing.

    A verb with `locks` may have a function of its arguments as `sweep`. `weight` is another such function: it tells
    about how many rows the verb writes. Without it that is one row.
    """
    if bare or (locks is not None) + (sweep is True) + looks != 1:
        raise TypeError("A verb declares one of locks=…, sweep=True and looks=True: @verb(locks=…).")

    def declare(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Verb[T]]:
        rows = None if locks is None else read_locks(locks, function)
        declaration = Declaration(function, rows, sweep, looks, weight)

        def prepare(*args: P.args, **values: P.kwargs) -> Verb[T]:
            return Verb(declaration, values)

        prepare.__name__ = function.__name__
        prepare.__doc__ = function.__doc__
        prepare.__wrapped__ = function  # type: ignore[attr-defined]  # functools.wraps would lose the ParamSpec
        prepare.declaration = declaration  # type: ignore[attr-defined]  # for tests
        return prepare

    return declare


class Store(Protocol):
    """Drives verbs on one database. `open_store` opens one."""

    @property
    def epoch(self) -> str:
        """Changes when the store is restored: what workers were told before counts no more."""
        ...

    @property
    def alone(self) -> bool:
        """Whether no other process can have this store open."""
        ...

    groups: int
    group_verbs: int
    group_seconds: float
    """How many groups were committed, the verbs in them, and the time that took (for the metrics)."""

    async def write(self, verb: Verb[T]) -> T:
        """Run a verb; durable when it returns, nothing happened if it raises."""
        ...

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        """Run many verbs, each as if alone, in order, in one group; what one raises stands in its place."""
        ...

    async def read(self, verb: Verb[T]) -> T:
        """Run a verb that only looks, against what is committed."""
        ...

    async def scan(self, verb: Verb[T]) -> T:
        """As `read`, for looks that may take long: never on the event loop's thread."""
        ...

    def listen(self, listener: Callable[[Sequence[Hint]], None]) -> None:
        """Have hints given out, after each commit, to this one listener."""
        ...

    @property
    def hints_up(self) -> bool:
        """Whether hints of other servers arrive here; always, where there can be none."""
        ...

    def exchange_hints(self) -> None:
        """From now on tell other servers of the database what is committed here, and hear what they commit."""
        ...

    async def vacuum(self) -> None:
        """Give space that deletions freed back, a little at a time, where the database does not do so by itself."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then release the database."""
        ...
