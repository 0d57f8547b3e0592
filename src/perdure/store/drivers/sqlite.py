"""Drives verbs on SQLite: one writer with group commit, and several readers.

Verbs run on the event loop's thread (docs/decisions/0001), the COMMIT and checkpoints in a thread of their own. If a
verb fails after a write, the group is rolled back and run again with a savepoint around each verb.
"""

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw
from uuid_utils import uuid4

from perdure.store.base.interface import Done, Hint, Item, Metric, Trouble, Verb, answer_to
from perdure.store.base.statements import load
from perdure.store.drivers.disk import Refusals, is_read_only, network_file_system, sync
from perdure.store.drivers.file_lock import FileLock, make_private, readable_by_others, several_names
from perdure.store.drivers.migrate import Schema, migrations, planner_statistics, split_statements
from perdure.store.drivers.scans import LANES, Scans
from perdure.store.drivers.sqlite_numbers import Numbers
from perdure.store.drivers.sqlite_run import ScanLane, SQLiteRun, incremental_vacuum
from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome

T = TypeVar("T")
logger = logging.getLogger("perdure.store")

SETTINGS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=0",
    "journal_size_limit=67108864",
    "cache_size=-65536",
    "temp_store=MEMORY",
)
GROUP_MAX = 1_000
GROUP_ROWS_MAX = 2_000
BUSY_MS = 1_000
CHECKPOINT_PAGES = 2_000
WAL_PAGES_TRUNCATE = 16_000
SPACE_MIN = 1 << 20
RETRY_SECONDS_MAX = 30.0
"""The longest pause after a failed checkpoint."""
WAL_PAGES_ALARM = 65_536
"""256 MiB: another program must have read for long."""
APPLICATION_ID = 0x50455244  # "PERD"
_OF_THE_DATABASE = (
    apsw.FullError,
    apsw.IOError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ReadOnlyError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.NoMemError,
    apsw.InterruptError,
    apsw.ProtocolError,
)
"""Errors that do not depend on the verb."""


class NotOurFile(PerdureError):
    """The file is not a Perdure store, damaged, has hard links, or an unknown version."""

    code = "NOT_OUR_FILE"


def schema_in(connection: apsw.Connection) -> Schema:
    number = connection.pragma("user_version")
    least = connection.execute("SELECT value FROM meta WHERE name = 'schema_least'").get if number else 0
    return Schema(number, number if least is None else int(least))


class SQLiteStore:
    """`:memory:` keeps the store in memory."""

    alone = True
    hints_up = True
    puts_off = True

    def __init__(self, path: str) -> None:
        """Never creates an empty store over unreadable data. Raises `StoreInUse`, `NotOurFile`, or `Unavailable` if the
        disk is full."""
        self.path = path
        self._memory = path == ":memory:"
        self._lock: FileLock | None = None
        if not self._memory:
            folder = Path(path).parent
            if not folder.exists():
                raise NotOurFile(
                    f"The folder {str(folder)!r} of the store {path!r} does not exist; create it, or correct the path."
                )
            self._check_path()
            try:
                # With less SQLite may fail to open the file, or refuse the first change.
                if shutil.disk_usage(os.path.dirname(os.path.realpath(path))).free < SPACE_MIN:
                    raise _full(path)
                self._lock = FileLock(path, make=True)
            except OSError as error:
                raise NotOurFile(f"{path!r} cannot be opened: {error}.") from error
            if mode := readable_by_others(path):
                logger.warning(
                    "%s can be read by other users of this machine (mode %o). It holds payloads, password hashes and "
                    "signing secrets; `chmod go= %s*` makes it private.",
                    path,
                    mode,
                    path,
                )
            if kind := network_file_system(path):
                logger.warning(
                    "%s is on another machine's disk (%s), where SQLite cannot rely on locks and syncs: acknowledged "
                    "writes may be lost. Move it to a disk of this machine, or use PostgreSQL.",
                    path,
                    kind,
                )
        try:
            self._open()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._queries = load("sqlite")
        self._inbox: list[Item] = []
        self._busy = False
        self._scheduled = False
        self._closed = False
        self._idle: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._scanner: ThreadPoolExecutor | None = None
        self._scans: Scans[ScanLane] = Scans()
        self._listener: Callable[[Sequence[Hint]], None] = lambda hints: None
        self._wal_pages = 0
        self._wal_told = False
        self._checkpoint_at = CHECKPOINT_PAGES
        self._retry_at = 0.0
        self._retry_pause = 0.0
        """Seconds. 0: the last checkpoint succeeded."""
        self._refusals = Refusals(logger, f"The store at {path}")
        self._writer.set_wal_hook(self._note_wal)
        self.groups = 0
        self.group_verbs = 0
        self.group_seconds = 0.0

    def _check_path(self) -> None:
        if os.path.isdir(self.path):
            raise NotOurFile(f"{self.path!r} is a folder; name a file in it.")
        if not os.path.exists(self.path) or os.path.getsize(self.path) == 0:
            if os.path.exists(self.path + "-wal") and os.path.getsize(self.path + "-wal"):
                raise NotOurFile(f"{self.path!r} is empty but has a write-ahead log; restore it from a backup.")
        elif is_read_only(self.path):
            raise NotOurFile(
                f"{self.path!r} cannot be opened: its file system is read-only. Mount it writable, or name a file on "
                "another one."
            )
        elif not os.access(self.path, os.R_OK | os.W_OK):
            raise NotOurFile(f"{self.path!r} cannot be opened: this user may not read and write it.")

    def _open(self) -> None:
        if not self._memory and (problem := several_names(self.path)):
            raise NotOurFile(problem)
        new = self._memory or os.path.getsize(self.path) == 0
        try:
            self._writer = self._connect(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            execute = self._writer.execute
            if new:
                # Both or neither: an unmarked file may be another program's. IMMEDIATE would write the first page
                # before auto_vacuum is set.
                execute(f"BEGIN; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA application_id={APPLICATION_ID}; COMMIT")
            else:
                self._check()
            # A text of several stops at the first that returns a row.
            for setting in SETTINGS:
                list(execute(f"PRAGMA {setting}"))
            self._migrate()
            self._reader = self._writer if self._memory else self._connect(apsw.SQLITE_OPEN_READONLY)
            self._files = () if self._memory else _files(self.path)
        except NotOurFile:
            self._writer.close()
            raise
        except apsw.FullError as error:
            raise _full(self.path) from error
        except apsw.Error as error:
            raise NotOurFile(
                f"{self.path!r} cannot be opened as a Perdure store: {error}. If it was one, restore it from a backup."
            ) from error

    def _connect(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(self.path, flags=flags, statementcachesize=256)
        connection.set_busy_timeout(BUSY_MS)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA fullfsync=ON")  # for macOS, whose fsync does not flush the disk's own cache
        # A plan for given values would make SQLite prepare the statement again for each.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        if flags & apsw.SQLITE_OPEN_READONLY:
            connection.execute("PRAGMA query_only=ON")
        return connection

    def _check(self) -> None:
        marked = self._writer.pragma("application_id")
        if marked != APPLICATION_ID:
            raise NotOurFile(f"{self.path!r} is an SQLite file, but not a Perdure store; choose another path.")
        found = self._writer.pragma("quick_check", 1)
        if found != "ok":
            raise NotOurFile(f"{self.path!r} is damaged ({found}); restore it from a backup.")
        if problem := schema_in(self._writer).refusal(migrations("sqlite")):
            raise NotOurFile(f"{self.path!r} {problem}")

    def _migrate(self) -> None:
        known = migrations("sqlite")
        schema = schema_in(self._writer)
        pending = schema.pending(known)
        # An upgrade is complete or undone, and the disk syncs once.
        with self._writer:
            for migration in pending:
                for statement in split_statements(migration.sql):
                    self._writer.execute(statement)
            if pending:
                schema = schema.after(pending)
                self._writer.execute(f"PRAGMA user_version={schema.number}")
                self._writer.execute(
                    "INSERT INTO meta VALUES ('schema_least', ?1) ON CONFLICT DO UPDATE SET value = ?1",
                    (str(schema.least),),
                )
                self._writer.execute(planner_statistics())
            self._writer.execute("INSERT INTO meta VALUES ('epoch', ?) ON CONFLICT DO NOTHING", (str(uuid4()),))
            self.numbers = Numbers(self._writer)
            self.numbers.reserve()
        self.epoch: str = self._writer.execute("SELECT value FROM meta WHERE name = 'epoch'").get

    async def write(self, verb: Verb[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._submit(loop, [(verb, answer_to(future))])
        return await future

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        if not verbs:
            return ()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        answers: list[T | Exception] = []

        def answer(result: T, error: Exception | None) -> None:
            answers.append(result if error is None else error)
            if len(answers) == len(verbs) and not future.done():
                future.set_result(None)

        self._submit(loop, [(verb, answer) for verb in verbs])
        await future
        return answers

    def _submit(self, loop: asyncio.AbstractEventLoop, items: list[Item]) -> None:
        self._check_open()
        self._loop = loop
        self._inbox.extend(items)
        if not self._busy and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._busy or not self._inbox:
            return
        self._busy = True
        amount = self._group_size()
        group, self._inbox = self._inbox[:amount], self._inbox[amount:]
        started = time.perf_counter()
        try:
            self.numbers.reserve()
            self._writer.execute("BEGIN IMMEDIATE")
            done = self._run_group(group)
        except Exception as error:
            self._give_up(group, error)
            return
        if self._memory:
            self._commit(group, done, started)
            return
        self._in_thread(lambda: self._commit(group, done, started))

    def _in_thread(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="perdure-commit", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _group_size(self) -> int:
        """Few enough verbs for the loop, which a group blocks."""
        rows = 0
        for amount, (verb, _) in enumerate(self._inbox[:GROUP_MAX]):
            if rows >= GROUP_ROWS_MAX:
                return amount
            rows += verb.weight()
        return GROUP_MAX

    def _run_group(self, group: Sequence[Item]) -> Done:
        run = SQLiteRun(self._writer, self._queries, puts_off=self.puts_off)
        try:
            hints: list[Hint] = []
            outcomes: list[tuple[Any, Exception | None]] = []
            for verb, _ in group:
                run.begin()
                try:
                    outcomes.append((run.drive(verb.start()), None))
                    hints.extend(run.hints)
                except PerdureError as error:
                    if run.wrote:
                        raise _WroteFirst from error
                    outcomes.append((None, error))
            run.write_late()
            return outcomes, hints
        except _OF_THE_DATABASE:
            raise
        except Exception:  # a verb is broken, or refused after a write
            self._writer.execute("ROLLBACK")
            self._writer.execute("BEGIN IMMEDIATE")
            run = SQLiteRun(self._writer, self._queries)
        hints = []
        outcomes = []
        for verb, _ in group:
            run.begin()
            self._writer.execute("SAVEPOINT one")
            try:
                outcomes.append((run.drive(verb.start()), None))
                hints.extend(run.hints)
            except _OF_THE_DATABASE:
                raise
            except Exception as error:
                self._writer.execute("ROLLBACK TO one")
                if not isinstance(error, PerdureError):
                    logger.error("Verb %s failed; nothing of it was kept.", verb.name, exc_info=error)
                outcomes.append((None, error))
            self._writer.execute("RELEASE one")
        return outcomes, hints

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _commit(self, group: Sequence[Item], done: Done, started: float) -> None:
        """Runs in the committing thread."""
        try:
            # SQLite would write to a file without a name, lost with this process.
            if self._files and _files(self.path) != self._files:
                raise apsw.CantOpenError(
                    f"{self.path!r} or its log was moved, deleted or replaced while it was open; put it back, or stop "
                    "this server and restore a backup"
                )
            self._writer.execute("COMMIT")
        except Exception as error:
            self._on_loop(self._give_up, group, error)
            return
        if self._wal_pages < self._checkpoint_at or time.monotonic() < self._retry_at:
            self._on_loop(self._answer_group, group, done, started, True)
            return
        self._on_loop(self._answer_group, group, done, started, False)
        self._checkpoint_and_next()

    def _checkpoint_and_next(self) -> None:
        self._checkpoint()
        self._on_loop(self._next)

    def _checkpoint(self) -> None:
        """Checkpoint without waiting for readers, since commits wait for the checkpoint."""
        mode = (
            apsw.SQLITE_CHECKPOINT_TRUNCATE if self._wal_pages > WAL_PAGES_TRUNCATE else apsw.SQLITE_CHECKPOINT_PASSIVE
        )
        # After a long read, not before as much growth again.
        self._checkpoint_at = self._wal_pages + CHECKPOINT_PAGES
        self._writer.set_busy_timeout(0)
        try:
            self._writer.wal_checkpoint(mode=mode)
            if self._retry_pause:
                logger.warning("Checkpoint of %s: the log is in the file now.", self.path)
                self._retry_pause = 0.0
        except apsw.BusyError:
            pass
        except apsw.Error as error:  # a full disk: the log stays, nothing is lost
            if not self._retry_pause:
                logger.warning("Checkpoint of %s postponed: %s", self.path, error)
            self._checkpoint_at = 0
            self._retry_pause = min(2 * self._retry_pause or 1.0, RETRY_SECONDS_MAX)
            self._retry_at = time.monotonic() + self._retry_pause
        finally:
            self._writer.set_busy_timeout(BUSY_MS)
        if self._wal_pages > WAL_PAGES_ALARM and not self._wal_told:
            self._wal_told = True
            logger.warning(
                "The log of %s grows, and is %d MiB: another program reads the store in a transaction that does not "
                "end. `fuser -v %s` finds it; end it, and the log is moved into the file.",
                self.path,
                os.path.getsize(self.path + "-wal") >> 20,
                self.path,
            )

    def _note_wal(self, connection: apsw.Connection, name: str, pages: int) -> int:
        if pages < self._wal_pages:  # the log was emptied and begins anew
            self._checkpoint_at = CHECKPOINT_PAGES
            self._wal_told = False
        self._wal_pages = pages
        self._refusals.end()
        return apsw.SQLITE_OK

    def _on_loop(self, function: Callable[..., None], *values: object) -> None:
        assert self._loop is not None
        if self._memory:
            function(*values)
            return
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # the loop is closed
            self._busy = False

    def _answer_group(self, group: Sequence[Item], done: Done, started: float, free: bool) -> None:
        outcomes, hints = done
        self.groups += 1
        self.group_verbs += len(group)
        self.group_seconds += time.perf_counter() - started
        try:
            for (_, answer), (result, error) in zip(group, outcomes, strict=True):
                answer(result, error)
            if hints:
                self._listener(hints)
        finally:
            if free:
                self._next()

    def _next(self) -> None:
        """Begins the next group one turn of the loop later, so that answered callers can join."""
        self._busy = False
        if self._inbox:
            if not self._scheduled:
                assert self._loop is not None
                self._scheduled = True
                self._loop.call_soon(self._flush)
        elif self._idle is not None:
            self._idle.set()

    def _give_up(self, group: Sequence[Item], error: Exception) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except apsw.Error:  # SQLite has rolled back by itself
            logger.exception("Rolling back failed.")
        if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC:
            logger.error("The store at %s cannot sync: %s", self.path, error)
            told: Exception = UnknownOutcome(
                f"The disk failed during the commit ({error}); repeat the request with the same key."
            )
        elif isinstance(error, apsw.Error):
            self._refusals.add(error)
            told = Unavailable(f"The store cannot write at the moment ({error}); nothing happened, try again.")
        else:
            logger.error("A group of %d verbs failed.", len(group), exc_info=error)
            told = error
        try:
            for _, answer in group:
                answer(None, told)
            self._listener([Metric("failed_groups"), *([Trouble(str(error))] if isinstance(error, apsw.Error) else [])])
        finally:
            if isinstance(error, apsw.FullError) and not self._memory and time.monotonic() >= self._retry_at:
                self._in_thread(self._checkpoint_and_next)  # the log may begin anew, in the room that it has
            else:
                self._next()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store is closed; start the server again.")

    async def read(self, verb: Verb[T]) -> T:
        self._check_open()
        # Between groups the writer sees the same and has recent writes in its cache.
        return SQLiteRun(self._reader if self._busy else self._writer, self._queries, reads=True).drive(verb.start())

    async def scan(self, verb: Verb[T]) -> T:
        self._check_open()
        if self._memory:
            return await self.read(verb)
        if self._scanner is None:
            self._scanner = ThreadPoolExecutor(LANES, thread_name_prefix="perdure-scan")
            self._scans = Scans(*[ScanLane(self._connect(apsw.SQLITE_OPEN_READONLY)) for _ in range(LANES)])
        return await self._scans.run(verb, self._scan)

    async def _scan(self, lane: ScanLane, verb: Verb[T]) -> T:
        self._check_open()
        assert self._scanner is not None
        return await lane.run(
            self._scanner, lambda: SQLiteRun(lane.connection, self._queries, reads=True).drive(verb.start())
        )

    def listen(self, listener: Callable[[Sequence[Hint]], None]) -> None:
        self._listener = listener

    def exchange_hints(self) -> None:
        """Does nothing: no other process can have the file open."""

    async def backup(self, target: str) -> None:
        def copy() -> None:
            # Not by `_connect`: a query-only connection refuses VACUUM INTO.
            source = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
            try:
                make_private(target)
                source.set_busy_timeout(BUSY_MS)
                source.execute("VACUUM INTO ?", (target,))
            finally:
                source.close()
            sync(target)  # the copy must survive a power cut

        await asyncio.get_running_loop().run_in_executor(None, copy)

    async def vacuum(self) -> None:
        if not self._memory and self._reader.pragma("freelist_count"):
            await self.write(incremental_vacuum())

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._busy or self._inbox:
            self._idle = asyncio.Event()
            await self._idle.wait()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()
        if self._scanner is not None:
            for lane in self._scans.lanes:
                lane.stop()
            self._scanner.shutdown()
            for lane in self._scans.lanes:
                lane.connection.close()
        if not self._memory:
            self._reader.close()
        self._writer.close()
        if self._lock is not None:
            self._lock.release()


class _WroteFirst(Exception):
    """A verb refused after a write."""


def _full(path: str) -> Unavailable:
    return Unavailable(f"The disk of {path!r} is full; make room on it.")


def _files(path: str) -> tuple[tuple[int, int] | None, ...]:
    found: list[tuple[int, int] | None] = []
    for name in (path, path + "-wal"):
        try:
            status = os.stat(name)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)
