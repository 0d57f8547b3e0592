"""Drives verbs on PostgreSQL, with any number of servers on one database.

Each kind of work has connections of its own, so that none blocks another:

- *writes* commit in groups (store/drivers/postgres_writer.py)
- *sweeps* pick rows by a predicate, each in a transaction of its own
- writes and sweeps that wait for another transaction are in the lock queue (store/drivers/postgres_lock_queue.py)
- *reads* are grouped like writes, without locks
- *scans* may take long, see one moment, and take turns by project (store/drivers/scans.py)
- *hints* travel between servers (store/drivers/postgres_hints.py)

Only the listener's connection keeps state between transactions, so PgBouncer may carry all other connections.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from uuid_utils import uuid4

from perdure.store.base.interface import Hint, Item, Verb, answer_to
from perdure.store.base.statements import load
from perdure.store.drivers.postgres_connection import PostgresConnection, parse_url, prepare
from perdure.store.drivers.postgres_hints import Exchange
from perdure.store.drivers.postgres_lock_queue import LockQueue
from perdure.store.drivers.postgres_writer import Writer
from perdure.store.drivers.scans import LANES, Scans
from perdure.wire.base.errors import BadRequest, Unavailable

T = TypeVar("T")
logger = logging.getLogger("perdure.store")

READERS = 2


class PostgresStore:
    alone = False

    def __init__(self, url: str) -> None:
        self.url = url
        self._life = ""
        self._timeline = ""
        self._address = parse_url(url)
        self._listener: Callable[[Sequence[Hint]], None] = lambda hints: None
        self._closed = False
        self.server_id = str(uuid4())
        queries = load("postgres")
        self._lock_queue = LockQueue(self._postgres("aside"), queries, self._committed, self._moved)
        self._write = Writer(
            self._postgres("write"), "write", queries, self._committed, moved=self._moved, lock_queue=self._lock_queue
        )
        self._sweep = Writer(
            self._postgres("sweep"), "sweep", queries, self._committed, moved=self._moved, lock_queue=self._lock_queue
        )
        self._reads = [Writer(self._postgres("read"), "read", queries, self._looked) for _ in range(READERS)]
        self._scans = Scans(*[Writer(self._postgres("scan"), "scan", queries, self._looked) for _ in range(LANES)])
        self._next_read = itertools.cycle(self._reads)
        self._exchange = Exchange(self._address, self.server_id, self._give_out)
        self.groups = 0
        self.group_verbs = 0
        self.group_seconds = 0.0

    def _postgres(self, name: str) -> PostgresConnection:
        return PostgresConnection(self._address, f"{name} {self.server_id[:8]}")

    @classmethod
    async def open(cls, url: str) -> "PostgresStore":
        store = cls(url)
        postgres = store._postgres("open")
        try:
            store._life = await prepare(postgres)
            store._write.timeline = store._sweep.timeline = store._lock_queue.timeline = store._timeline = (
                postgres.timeline
            )
        finally:
            await postgres.close()
        return store

    @property
    def epoch(self) -> str:
        """A failover or a restore begins another life of the store, where acknowledged writes may be missing."""
        return f"{self._life} {self._timeline}"

    def _moved(self, timeline: str) -> None:
        if timeline != self._timeline:
            self._timeline = timeline
            logger.warning(
                "Another server has taken over the database (timeline %s); workers register again.", timeline
            )

    async def write(self, verb: Verb[T]) -> T:
        return await self._one(self._sweep if verb.is_sweep() else self._write, verb)

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        """Keeps the order of verbs with the same named row only."""
        if not verbs:
            return ()
        self._check_open()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: list[Any] = [None] * len(verbs)
        left = len(verbs)

        def taker(n: int) -> Callable[[Any, Exception | None], None]:
            def answer(result: Any, error: Exception | None) -> None:
                nonlocal left
                answers[n] = result if error is None else error
                left -= 1
                if not left and not future.done():
                    future.set_result(None)

            return answer

        items: list[Item] = [(verb, taker(n)) for n, verb in enumerate(verbs)]
        sweeps = [item for item in items if item[0].is_sweep()]
        if sweeps:
            self._sweep.submit(sweeps)
            items = [item for item in items if not item[0].is_sweep()]
        if items:
            self._write.submit(items)
        await future
        return answers

    async def read(self, verb: Verb[T]) -> T:
        return await self._one(next(self._next_read), verb)

    async def scan(self, verb: Verb[T]) -> T:
        self._check_open()
        return await self._scans.run(verb, self._read_on)

    async def _read_on(self, lane: Writer, verb: Verb[T]) -> T:
        self._check_open()  # again: the verb may have waited for its turn
        return await lane.look(verb)

    async def _one(self, writer: Writer, verb: Verb[T]) -> T:
        self._check_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        writer.submit([(verb, answer_to(future))])
        return await future

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store is closed; start the server again.")

    def listen(self, listener: Callable[[Sequence[Hint]], None]) -> None:
        self._listener = listener

    @property
    def hints_up(self) -> bool:
        return self._exchange.up

    def exchange_hints(self) -> None:
        self._exchange.start()

    def _committed(self, verbs: int, seconds: float, hints: Sequence[Hint]) -> None:
        if verbs:
            self.groups += 1
            self.group_verbs += verbs
            self.group_seconds += seconds
        if hints:
            self._give_out(hints)
            self._exchange.tell(hints)

    def _give_out(self, hints: Sequence[Hint]) -> None:
        try:
            self._listener(hints)
        except Exception as error:  # a failing listener must not stop a writer
            context = {"message": "The listener of a store failed.", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _looked(self, verbs: int, seconds: float, hints: Sequence[Hint]) -> None:
        """Reads have no hints."""

    async def backup(self, target: str) -> None:
        raise BadRequest("A store in PostgreSQL is backed up with PostgreSQL's own tools, `pg_dump` or base backups.")

    async def vacuum(self) -> None:
        """PostgreSQL vacuums alone, as configured by the migrations."""

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(
            *[
                writer.close()
                for writer in (self._write, self._sweep, self._lock_queue, *self._reads, *self._scans.lanes)
            ]
        )
        await self._exchange.close()
