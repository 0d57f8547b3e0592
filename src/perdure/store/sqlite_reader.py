"""Reads an SQLite store, even while another process has it open, and changes nothing.

Each verb sees one snapshot; no hint tells of new commits.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NoReturn, TypeVar

import apsw

from perdure.store.base.interface import Hint, Verb
from perdure.store.base.statements import load
from perdure.store.drivers.migrate import migrations
from perdure.store.drivers.scans import LANES, SCAN_SECONDS_MAX, Scans
from perdure.store.drivers.sqlite import NotOurFile, schema_in
from perdure.store.drivers.sqlite_run import ScanLane, SQLiteRun
from perdure.store.inspection import file_at, has_own_tables
from perdure.store.open import file_of
from perdure.wire.base.errors import ReadOnly, Unavailable

T = TypeVar("T")


class SQLiteReader:
    """Raises NotFound for a missing file, and NotOurFile for another program's file, another schema, or a folder in
    which this user may not write."""

    alone = False
    hints_up = True
    groups = 0
    group_verbs = 0
    group_seconds = 0.0

    def __init__(self, address: str) -> None:
        self.path = file_of(address)
        self._connections = ExitStack()
        try:
            self._reader = ScanLane(self._open())
            self._reader.until = time.monotonic() + SCAN_SECONDS_MAX
            self._check(self._reader.connection)
            self._scans = Scans(*[ScanLane(self._open()) for _ in range(LANES)])
        except apsw.Error as error:
            self._connections.close()
            raise NotOurFile(f"{self.path!r} cannot be read: {error}.") from error
        except BaseException:
            self._connections.close()
            raise
        self._queries = load("sqlite")
        self._scanner = ThreadPoolExecutor(LANES, thread_name_prefix="perdure-scan")
        self._closed = False

    def _open(self) -> apsw.Connection:
        connection = self._connections.enter_context(file_at(self.path))
        connection.execute("PRAGMA query_only=ON")
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        return connection

    def _check(self, connection: apsw.Connection) -> None:
        known, schema = migrations("sqlite"), schema_in(connection)
        if problem := schema.refusal(known):
            raise NotOurFile(f"{self.path!r} {problem}")
        if schema.number != (newest := known[-1].number):
            raise NotOurFile(
                f"{self.path!r} has schema {schema.number}, this release reads {newest} alone. Look at it with the "
                "release of the process that runs it, or start that process with this release."
            )
        if not has_own_tables(connection):
            raise NotOurFile(f"{self.path!r} has other tables or views than a store of this release; do not trust it.")
        self.epoch: str = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").get

    async def read(self, verb: Verb[T]) -> T:
        if self._closed:
            raise Unavailable("The store is closed; open it again.")
        self._reader.until = time.monotonic() + SCAN_SECONDS_MAX
        return self._read_snapshot(self._reader.connection, verb)

    async def scan(self, verb: Verb[T]) -> T:
        if self._closed:
            raise Unavailable("The store is closed; open it again.")
        return await self._scans.run(verb, self._scan)

    async def _scan(self, lane: ScanLane, verb: Verb[T]) -> T:
        return await lane.run(self._scanner, lambda: self._read_snapshot(lane.connection, verb))

    def _read_snapshot(self, connection: apsw.Connection, verb: Verb[T]) -> T:
        try:
            with connection:  # a savepoint: all queries see one snapshot
                found = SQLiteRun(connection, self._queries, reads=True).drive(verb.start())
        except apsw.Error as error:
            raise Unavailable(f"{self.path!r} cannot be read at the moment ({error}); try again.") from error
        return found

    async def write(self, verb: Verb[T]) -> T:
        self.refuse()

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        self.refuse()

    def refuse(self) -> NoReturn:
        raise ReadOnly(read_only(self.path))

    def listen(self, listener: Callable[[Sequence[Hint]], None]) -> None:
        """Nothing is written here."""

    def exchange_hints(self) -> None:
        """Other processes send no hints."""

    async def vacuum(self) -> None:
        """A reader releases no space."""

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for lane in self._scans.lanes:
            lane.stop()
        self._scanner.shutdown()
        self._connections.close()


def read_only(path: str) -> str:
    return (
        f"This server only reads {path!r}. To change something, use the program that has the file open: it may serve "
        "it with `embedded(…, serve=8080)`, or `perdure serve` may."
    )
