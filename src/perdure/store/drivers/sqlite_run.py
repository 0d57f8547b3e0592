"""Runs verbs on one SQLite connection."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

import apsw

from perdure.store.base.interface import Hint, Notify, Query, query, verb
from perdure.store.base.statements import Statement

T = TypeVar("T")

LOOK_STEPS: Final = 100_000
"""SQLite steps between two checks for the end of a scan: some milliseconds. Each check needs the interpreter's lock."""


@verb(locks="")
async def incremental_vacuum() -> None:
    await query("incremental_vacuum")


class ScanLane:
    """A connection for scans. A scan ends when the caller leaves, at `until`, or when the store closes."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.until = math.inf
        """A time of `time.monotonic`."""
        self._stopped = False
        connection.set_progress_handler(lambda: self._stopped or time.monotonic() > self.until, LOOK_STEPS)

    async def run(self, executor: Executor, drive: Callable[[], T]) -> T:
        """A cancellation returns after the thread ended the scan."""
        self._stopped = False
        scan = asyncio.get_running_loop().run_in_executor(executor, drive)
        try:
            return await asyncio.shield(scan)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait([scan])
            if not scan.cancelled():
                scan.exception()  # marks the exception as retrieved
            raise

    def stop(self) -> None:
        self._stopped = True


class SQLiteRun:
    """Drives verbs. `puts_off` collects late rows of several verbs until a statement reads the table, or until
    `write_late`."""

    __slots__ = (
        "_changes",
        "_execute",
        "_executemany",
        "_late",
        "_late_tables",
        "_puts_off",
        "_queries",
        "_reads",
        "hints",
        "wrote",
    )

    def __init__(
        self, connection: apsw.Connection, queries: dict[str, Statement], *, reads: bool = False, puts_off: bool = False
    ) -> None:
        cursor = connection.cursor()  # one cursor is enough: each query is read to its end before the next
        self._execute = cursor.execute
        self._executemany = cursor.executemany
        self._changes = connection.changes
        self._queries = queries
        self._reads = reads
        self._puts_off = puts_off
        self._late: dict[str, list[tuple[Any, ...]]] = {}
        self._late_tables: set[str] = set()
        self.begin()

    def begin(self) -> None:
        self.hints: list[Hint] = []
        self.wrote = False

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        send: Any = None
        queries = self._queries
        try:
            while True:
                asked = coroutine.send(send)
                if type(asked) is Query:
                    statement = queries[asked.name]
                    if self._reads and statement.writes:
                        raise TypeError(f"A read-only verb must not run {asked.name!r}, which writes.")
                    if asked.many:
                        values = statement.many(asked.values)
                        if statement.late is not None and self._puts_off:
                            self._late.setdefault(asked.name, []).extend(values)
                            self._late_tables.add(statement.late)
                            self.wrote = self.wrote or bool(values)
                            send = []
                            continue
                    if self._late and not self._late_tables.isdisjoint(statement.looks_at):
                        self.write_late()
                    if not asked.many:
                        send = self._execute(statement.sql, statement.values(asked.values)).fetchall()
                        if statement.counted:
                            send = [()] * self._changes()
                        # A statement without a result must be assumed to have written.
                        if statement.writes and (send or not (statement.returns or statement.counted)):
                            self.wrote = True
                    elif statement.counted:
                        send = self._moved(statement, values)
                        self.wrote = self.wrote or bool(send)
                    elif values:
                        self.wrote = True
                        send = self._executemany(statement.sql, values).fetchall()
                    else:
                        send = []
                    if send and asked.record is not None:
                        send = (statement.readers.get(asked.record) or statement.reader(asked.record))(send)
                elif type(asked) is Notify:
                    self.hints.extend(asked.hints)
                    send = None
                else:
                    raise TypeError(f"A verb may await queries and hints only, not {asked!r}.")
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            coroutine.close()

    def _moved(self, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        execute, changes, sql = self._execute, self._changes, statement.sql
        assert statement.holds is not None
        place = statement.holds[1]
        found: list[tuple[Any, ...]] = []
        for row in rows:
            execute(sql, row)
            if changes():
                found.append((row[place],))
        return found

    def write_late(self) -> None:
        late, self._late = self._late, {}
        self._late_tables.clear()
        for name, rows in late.items():
            self._executemany(self._queries[name].sql, rows).fetchall()
