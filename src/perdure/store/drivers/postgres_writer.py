"""One connection's work: verbs wait, are taken in groups, and each group is one transaction.

How a group can fail:

- A verb fails after a write: the verb runs alone, after the others.
- The database refuses a statement without naming the verb: the group is halved, down to the guilty verb.
- Deadlock, serialisation failure, or another transaction's row under the same key: the group runs again after a random
  pause, with its rows locked in order first.
- A time-out, because another transaction holds a row: the group is halved, with short time-outs, down to the blocked
  verb, which moves to the lock queue. Later verbs for the same row move there at once.
- The connection is lost before COMMIT: the group runs again.
- The connection is lost during COMMIT: ask the server for the outcome. If it stays unknown until the deadline, callers
  get `UnknownOutcome`.

A cancelled caller gets no answer, but the verb still runs.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from perdure.store.base.interface import Done, Hint, Item, Metric, Trouble, Verb
from perdure.store.base.locks import Row
from perdure.store.base.statements import Statement
from perdure.store.drivers.lockstep import Alone, Barred, Guilty, Lockstep, LockstepStuck, QueryBatch
from perdure.store.drivers.postgres_connection import (
    COMMAND_SECONDS_MAX,
    RECONNECT_SECONDS_MAX,
    TIMELINE,
    AsyncpgConnection,
    Lost,
    NotOurDatabase,
    PostgresConnection,
    end,
    is_lost,
)
from perdure.store.drivers.postgres_send import send, send_late
from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome

if TYPE_CHECKING:
    from perdure.store.drivers.postgres_lock_queue import LockQueue

T = TypeVar("T")
logger = logging.getLogger("perdure.store")

GROUP_VERBS_MAX = 256
GROUP_WEIGHT_MAX = 1_000
RETRIES_MAX: Final = 5
CLOSE_SECONDS_MAX = 5.0

# Queries must see all commits from before their locks.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN: Final = {
    "write": _BEGIN,
    "sweep": _BEGIN,
    "aside": _BEGIN,
    "read": f"{_BEGIN} READ ONLY",
    "scan": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}
_SETTINGS: Final = {
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
    # Without statistics the planner would scan tables that look small, and keep that plan.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


def _set(settings: dict[str, str]) -> str:
    """The settings as a query, which PostgreSQL parses once per connection, unlike SET."""
    return ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


# In each transaction, since a pooler may switch connections. Writers leave a mark and ask for the transaction's id, in
# case its outcome gets lost.
_DURABLE: Final = (  # it may have become off since the connection was checked
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
    "ELSE current_setting('synchronous_commit') END, true)"
)
# Transactions read and use a queue's limits under this shared lock. A verb that gives a first limit (`-- alone:`) takes
# it exclusively: it counts earlier transactions, and later ones see the limit.
_LIMITS_LOCK: Final = 0x50455251  # "PERQ"
SHARED: Final = f"pg_advisory_xact_lock_shared({_LIMITS_LOCK})"
EXCLUSIVE: Final = f"pg_advisory_xact_lock({_LIMITS_LOCK})"
_MARK = "WITH mark AS (INSERT INTO commits (token) VALUES ($1)) SELECT pg_current_xact_id()::TEXT"
PREPARE: Final = {
    "write": f"{_MARK}, {TIMELINE}, {_set(_SETTINGS)}, {_DURABLE}, {SHARED}",
    "sweep": f"SELECT NULL, {TIMELINE}, {_set(_SETTINGS)}, {_DURABLE}, {SHARED}",
    "aside": f"{_MARK}, {TIMELINE}, {_set(_SETTINGS)}, {_DURABLE}",
    "read": f"SELECT NULL, NULL, {_set(_SETTINGS)}",
    "scan": f"SELECT NULL, NULL, {_set({'statement_timeout': f'{COMMAND_SECONDS_MAX - 3:.0f}s'})}",
}
# With the project, else servers before PostgreSQL 18 would scan the index.
_LOCK = (
    "SELECT 1 FROM {0} WHERE project_id = ANY(ARRAY(SELECT id FROM projects)) AND {1} = ANY($1) ORDER BY {1} FOR UPDATE"
)
LOCKS: Final = {
    "topic": _LOCK.format("topics", "topic"),
    "execution": _LOCK.format("executions", "id"),
    "budget": _LOCK.format("budgets", "execution_id"),
}
MARKS_KEPT: Final = 256
_FORGET = "DELETE FROM commits WHERE token >= $1 AND token < $2"
_LOCKED: Final = "55P03"
_TIMED_OUT: Final = {_LOCKED, "57014"}
CONFIRM: Final = "SELECT pg_logical_emit_message(true, 'perdure', '')"
"""An empty commit. Returns when a synchronous standby has all earlier commits, too."""
_AGAIN: Final = {"40001", "40P01", *_TIMED_OUT}
_WARY: Final = "SET LOCAL lock_timeout = 500"
_HURRY: Final = "SET LOCAL lock_timeout = 200; SET LOCAL statement_timeout = 1000"
_UNREACHABLE: Final = (Lost, NotOurDatabase, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_TROUBLE: Final = ("53", "58", "XX")
"""The server's own errors, such as a full disk."""


class _Retry(Exception):
    @property
    def timed_out(self) -> bool:
        return getattr(self.__cause__, "sqlstate", None) in _TIMED_OUT


class _Moved(Exception):
    def __init__(self, timeline: str) -> None:
        super().__init__(f"the database is on timeline {timeline} now")
        self.timeline = timeline


class _Committing(Exception):
    def __init__(self, xid: str, token: int, timeline: str, done: Done) -> None:
        super().__init__("lost during COMMIT")
        self.xid = xid
        self.token = token
        self.timeline = timeline
        self.done = done


class Writer:
    def __init__(
        self,
        postgres: PostgresConnection,
        kind: str,
        queries: dict[str, Statement],
        committed: Callable[[int, float, Sequence[Hint]], None],
        moved: Callable[[str], None] = lambda timeline: None,
        lock_queue: "LockQueue | None" = None,
    ) -> None:
        """`committed` gets each group's size, seconds and hints, `moved` a new `timeline` before the first commit
        there. Without `lock_queue`, a verb is tried three times after time-outs."""
        self.inbox: deque[Item] = deque()
        self._postgres = postgres
        self._kind = kind
        self._queries = queries
        self._committed = committed
        self._moved = moved
        self._lock_queue = lock_queue
        self.timeline = ""
        """The timeline of the waiting verbs. Empty until the next transaction reads it."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._token = self._oldest_token = random.getrandbits(62)
        """The marks of the next transaction and of the oldest mark in the table. The first is random, because each
        writer deletes a range of its own."""
        self._taken: list[Item] = []
        self._closing = False
        self._away = False
        """Verbs were refused without a connection."""
        self._hold = kind in ("write", "aside")
        self._alone = False
        self._one_by_one = kind == "sweep"
        self._writes = kind in ("write", "sweep", "aside")

    def submit(self, items: Sequence[Item]) -> None:
        self.inbox.extend(items)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name=f"perdure-{self._kind}")

    async def look(self, verb: Verb[T]) -> T:
        """Run a verb in the caller's task. A cancellation of the task ends the verb on the server."""
        answers: list[tuple[Any, Exception | None]] = []
        await self._flush([(verb, lambda *answer: answers.append(answer))])
        [(result, error)] = answers
        if error is not None:
            raise error
        found: T = result
        return found

    async def close(self) -> None:
        """Gives accepted verbs up if the database does not answer in time."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS_MAX)
            await end(self._task)
            _give(
                [*self._taken, *self.inbox],
                UnknownOutcome(
                    "The server stopped before its database answered; repeat the request with the same key."
                ),
            )
        await self._postgres.close()

    async def _work(self) -> None:
        while True:
            while not self.inbox:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
            group = self._taken = await self._next()
            try:
                await self._flush(group)
            except Exception as error:  # the writer must survive any error of a group
                logger.exception("A group of %d verbs failed.", len(group))
                _give(group, error)
            self._taken = []

    async def _next(self) -> list[Item]:
        await asyncio.sleep(0)  # answered callers can join
        group: list[Item] = []
        room = GROUP_WEIGHT_MAX
        while self.inbox and len(group) < GROUP_VERBS_MAX:
            room -= self.inbox[0][0].weight()
            if room < 0 and group:
                break
            group.append(self.inbox.popleft())
        return group

    def _limits(self) -> str:
        return _WARY if self._lock_queue is not None and self._lock_queue.busy else ""

    def _late(self, item: Item, rows: Sequence[Row], why: str) -> bool:
        """A verb timed out on one of the rows. False: try again."""
        if self._lock_queue is None:
            return False
        self._lock_queue.take(item, rows)
        return True

    def _run_alone(self, item: Item) -> None:
        assert self._lock_queue is not None
        self._lock_queue.take_alone(item)

    async def _flush(self, group: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        parts: deque[list[Item]] = deque([group])
        attempts = 0
        until = 0.0
        locks: dict[str, list[Any]] = {}
        limits = self._limits()
        while parts:
            part = parts[0] = parts[0] if self._lock_queue is None else self._lock_queue.sift(parts[0])
            if not part:
                parts.popleft()
                continue
            started = time.perf_counter()
            stepper: list[Lockstep] = []
            try:
                patient = limits == _HURRY and len(part) == 1 and self._lock_queue is None
                outcomes, hints = await self._transaction(part, locks, stepper, until, "" if patient else limits)
            except (Barred, Alone) as apart_from_all:
                item = part.pop(_index(part, apart_from_all.run.verb))
                if isinstance(apart_from_all, Alone):
                    self._run_alone(item)
                else:
                    assert self._lock_queue is not None
                    self._lock_queue.take(item, apart_from_all.rows, barred=True)
                continue
            except Guilty as guilty:
                parts.popleft()
                if len(part) == 1:
                    self._fail(part, guilty.error)
                else:
                    apart = part.pop(_index(part, guilty.run.verb))
                    parts.extendleft([[apart], part])
                continue
            except LockstepStuck as stuck:
                parts.popleft()
                verbs = {id(run.verb) for run in stuck.runs}
                rest = [item for item in part if id(item[0]) not in verbs]
                apart_ones = [[item] for item in part if id(item[0]) in verbs]
                parts.extendleft(reversed([*([rest] if rest else []), *apart_ones]))
                continue
            except _Retry as error:
                if error.timed_out and len(part) > 1:
                    limits, locks = _HURRY, {}
                    parts.popleft()
                    _halve(parts, part)
                    continue
                if error.timed_out and self._late(part[0], _waited_for(stepper, error), str(error.__cause__)):
                    parts.popleft()
                    attempts, locks = 0, {}
                    continue
                attempts += RETRIES_MAX // 2 if error.timed_out else 1
                if attempts > RETRIES_MAX or self._kind == "scan":
                    parts.popleft()
                    attempts = 0
                    cause = error.__cause__
                    if len(part) > 1:
                        _halve(parts, part)
                    elif isinstance(cause, asyncpg.UniqueViolationError):
                        self._fail(part, cause)
                    else:
                        self._refuse(part, f"another transaction holds what it needs ({cause})", trouble=False)
                    continue
                locks = _locks(stepper)
                await asyncio.sleep(random.uniform(0, 0.005 * 2**attempts))
                continue
            except Lost as lost:
                self._postgres.drop()
                until = until or loop.time() + RECONNECT_SECONDS_MAX
                if loop.time() >= until or (self._closing and self._kind == "scan"):
                    self._refuse([*(item for one in parts for item in one), *self.inbox], str(lost), said=self._away)
                    self._away = True
                    self.inbox.clear()
                    return
                await asyncio.sleep(random.uniform(0.01, 0.05))
                continue
            except _Moved as moved:
                # The verbs come from workers that may know more than this server. They must register again.
                self.timeline = moved.timeline
                self._moved(moved.timeline)
                self._refuse([*(item for one in parts for item in one), *self.inbox], str(moved), trouble=False)
                self.inbox.clear()
                return
            except _Committing as committing:
                self._postgres.drop()
                known = await self._was_committed(committing)
                if known is False:
                    continue
                parts.popleft()
                if known is None:
                    self._unknown(part)
                    continue
                outcomes, hints = committing.done
            except NotOurDatabase as error:
                self._postgres.drop()
                parts.popleft()
                _give(part, Unavailable(error.message))
                continue
            except Exception as error:  # the database refuses a statement, or a value cannot be sent
                parts.popleft()
                if (getattr(error, "sqlstate", None) or "").startswith(_TROUBLE):
                    self._refuse(part, str(error))
                elif len(part) > 1:
                    _halve(parts, part)
                else:
                    self._fail(part, error)
                continue
            else:
                parts.popleft()
            attempts, until, locks = 0, 0.0, {}
            self._away = False
            for (_, answer), (result, error_) in zip(part, outcomes, strict=True):
                answer(result, error_)
            self._committed(len(part), time.perf_counter() - started, hints)

    async def _transaction(
        self, part: list[Item], locks: dict[str, list[Any]], stepper: list[Lockstep], until: float, limits: str
    ) -> Done:
        connection = await (self._postgres.again(until) if until else self._postgres.get())
        verbs = [verb for verb, _ in part]
        one_each = self._one_by_one or len(verbs) == 1
        groups = [[verb] for verb in verbs] if one_each else [verbs]
        wrote = False
        token, self._token = self._token, self._token + 1
        outcomes: list[tuple[Any, Exception | None]] = []
        hints: list[Hint] = []
        try:
            await connection.execute(BEGIN[self._kind])
            marks = (token,) if self._hold else ()
            prepare = PREPARE[self._kind]
            if self._postgres.address.allow_data_loss:
                prepare = prepare.replace(_DURABLE, "NULL")
            xid, timeline, *_ = await connection.fetchrow(prepare, *marks) or (None, None)
            if timeline != self.timeline and timeline is not None:
                if not timeline:
                    raise Lost("it is a standby")
                if self.timeline:
                    raise _Moved(timeline)
                self.timeline = timeline
            if limits:
                await connection.execute(limits)
            for kind, names in locks.items():
                await connection.execute(LOCKS[kind], names)
            for group in groups:
                bars = self._lock_queue.bars if self._lock_queue is not None and self._lock_queue.busy else None
                holds = self._hold or self._writes
                steps = Lockstep(group, self._queries, bars, holds=holds, alone=self._alone)
                stepper.append(steps)
                try:
                    batches = steps.round()
                    topics = [name for _, name in steps.named("topic")]
                    if topics and batches and not _locks_all(batches[0], topics):
                        # Topics before executions on every connection, or two of them deadlock.
                        await connection.execute(LOCKS["topic"], topics)
                    while batches:
                        if len(batches) > 1 and not batches[1].runs:
                            batches = await send_late(connection, batches)
                        for batch in batches:
                            steps.answer(batch, await send(connection, batch))
                        batches = steps.round()
                finally:
                    steps.close()
                wrote = wrote or steps.wrote
                for run in steps.runs:
                    outcomes.append((run.result, run.error))
                    hints.extend(run.hints)
            if wrote and xid is None:
                xid = await connection.fetchval(_MARK, token)
            if wrote and token - self._oldest_token >= MARKS_KEPT:
                await connection.execute(_FORGET, self._oldest_token, token)
                self._oldest_token = token  # after a roll-back they stay until a server starts
        except BaseException as error:
            await self._roll_back(connection, error)
            if isinstance(error, asyncpg.PostgresError) and (
                error.sqlstate in _AGAIN or isinstance(error, asyncpg.UniqueViolationError)
            ):
                raise _Retry from error
            if self._is_lost(error, connection):
                raise Lost(f"{type(error).__name__}: {error}") from error
            raise
        done = (outcomes, hints)
        try:
            await connection.execute("ROLLBACK" if self._hold and not wrote else "COMMIT")
        except BaseException as error:
            if wrote and is_lost(error, connection):
                raise _Committing(str(xid), token, timeline or "", done) from error
            await self._roll_back(connection, error)
            if getattr(error, "sqlstate", None) in _AGAIN:
                raise _Retry from error
            if self._is_lost(error, connection):
                raise Lost(f"{type(error).__name__}: {error}") from error
            raise
        return done

    def _is_lost(self, error: BaseException, connection: AsyncpgConnection) -> bool:
        if not self._writes and isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            return False
        if isinstance(error, (ValueError, TypeError)) and not isinstance(error, OSError):
            return False  # a value cannot be sent; asyncpg closes the connection over it
        return is_lost(error, connection)

    async def _roll_back(self, connection: AsyncpgConnection, error: BaseException) -> None:
        if not connection.is_closed() and not is_lost(error, connection):
            try:
                await connection.execute("ROLLBACK", timeout=2.0)
                return
            except Exception:
                pass
            except BaseException:
                self._postgres.drop()
                raise
        self._postgres.drop()

    async def _was_committed(self, committing: _Committing) -> bool | None:
        """None if the outcome stays unknown."""
        loop = asyncio.get_running_loop()
        until = loop.time() + RECONNECT_SECONDS_MAX
        while loop.time() < until:
            try:
                connection = await self._postgres.again(until)
                if self._postgres.timeline != committing.timeline:
                    return None  # another server has taken over, perhaps without our last commits
                status = await connection.fetchval("SELECT pg_xact_status($1::TEXT::XID8)", committing.xid)
                if status == "in progress":
                    await asyncio.sleep(0.02)
                    continue
                # The mark exists only if our transaction committed, even if its id was given again.
                if not await connection.fetchval("SELECT 1 FROM commits WHERE token = $1", committing.token):
                    return False
                await connection.execute(CONFIRM)
                return True
            except asyncpg.InvalidParameterValueError:
                return False  # a crash rolled it back, and its id was not given again yet
            except _UNREACHABLE:
                self._postgres.drop()
                await asyncio.sleep(0.05)
        return None

    def _fail(self, part: Sequence[Item], error: Exception) -> None:
        for verb, answer in part:
            if not isinstance(error, PerdureError) and self._writes:
                logger.error("Verb %s failed; nothing of it was kept.", verb.name, exc_info=error)
            answer(None, error)

    def _refuse(self, part: Sequence[Item], why: str, *, trouble: bool = True, said: bool = False) -> None:
        if not part:
            return
        if not said:
            logger.error("The database cannot be used: %s", why)
        _give(part, Unavailable(f"The store cannot be used at the moment ({why}); nothing happened, try again."))
        self._committed(0, 0.0, [Metric("failed_groups"), *([Trouble(why)] if trouble else [])])

    def _unknown(self, part: Sequence[Item]) -> None:
        logger.error("The connection was lost during a commit of %d verbs; its outcome is unknown.", len(part))
        _give(
            part,
            UnknownOutcome(
                "The connection to the database was lost during the commit; repeat the request with the same key."
            ),
        )
        self._committed(0, 0.0, [Metric("failed_groups")])


def _locks(steppers: Sequence[Lockstep]) -> dict[str, list[Any]]:
    """Rows by kind, in lock order."""
    locks: dict[str, list[Any]] = {}
    for steps in steppers:
        for kind, name in steps.touched():
            locks.setdefault(kind, []).append(name)
    return {kind: sorted(set(locks[kind])) for kind in LOCKS if kind in locks}


def _locks_all(batch: QueryBatch, topics: Sequence[str]) -> bool:
    """True if a group's first statement locks all of its topics, in lock order."""
    statement, runs, _ = batch
    if not statement.writes or statement.holds is None or statement.holds[0] != "topic":
        return False
    return {name for run in runs for _, name in run.rows} == set(topics)


def _waited_for(steppers: Sequence[Lockstep], error: _Retry) -> Sequence[Row]:
    if not steppers or getattr(error.__cause__, "sqlstate", None) != _LOCKED:
        return ()
    steps = steppers[-1]
    [run] = steps.runs
    if run.coroutine is None:
        return steps.named("topic")
    return run.rows


def _halve(parts: deque[list[Item]], part: list[Item]) -> None:
    middle = len(part) // 2
    parts.extendleft([part[middle:], part[:middle]])


def _index(part: Sequence[Item], verb: Verb[Any]) -> int:
    return next(n for n, (one, _) in enumerate(part) if one is verb)


def _give(part: Sequence[Item], error: Exception) -> None:
    for _, answer in part:
        answer(None, error)
