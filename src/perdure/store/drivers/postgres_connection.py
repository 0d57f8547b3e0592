"""A PostgreSQL connection with reconnects; migrations."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import asyncpg
from uuid_utils import uuid4

from perdure.store.base.interface import Rows
from perdure.store.drivers.migrate import Migration, Schema, migrations, postgres_settings, split_statements
from perdure.wire.base.errors import BadRequest, PerdureError, Unavailable

logger = logging.getLogger("perdure.store")

if TYPE_CHECKING:
    AsyncpgConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    AsyncpgConnection = asyncpg.Connection  # generic in stubs only

CONNECT_SECONDS_MAX = 5.0
RECONNECT_SECONDS_MAX = 10.0
COMMAND_SECONDS_MAX = 15.0
"""Longer than the server's own limit of 10 s: beyond, the connection is dead."""
MIGRATE_SECONDS_MAX = 60.0
MIGRATE_LOCK_SECONDS = 3.0
"""Seconds that each try waits for a table, with later transactions behind it."""
GONE_SECONDS_MAX = 3.0
"""Seconds that sessions stay visible after a server's end."""
LOOK_SECONDS_MAX = 86_400.0
TIMELINE: Final = "CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END"
"""A promoted standby begins a new timeline, as does a restored base backup."""
LOCK: Final = 0x50455244  # "PERD"
_MIGRATES: Final = f"pg_try_advisory_xact_lock({LOCK})"
_STERN_LOCK: Final = 0x50455253  # "PERS"
_CHANGES: Final = f"pg_try_advisory_xact_lock({_STERN_LOCK})"
"""Held by migrations that the previous release cannot work with."""
_STARTS: Final = f"pg_try_advisory_xact_lock_shared({_STERN_LOCK})"
_SERVERS: Final = (
    # A pooler keeps idle connections under their last user's name. A running server uses one every second, and has a
    # direct one to listen.
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND (application_name ~ '^perdure (write|sweep|read|scan|listen) ' "
    "OR application_name ~ '^perdure pooled (write|sweep|read|scan) ' "
    "AND (state <> 'idle' OR state_change > clock_timestamp() - $1 * INTERVAL '1 second'))"
)
_ON: Final = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


class NotOurDatabase(PerdureError):
    """The database belongs to another program, is a standby, or has a newer schema."""

    code = "NOT_OUR_DATABASE"


class Address(NamedTuple):
    dsns: tuple[str, ...]
    """An address per host. The host that takes writes is used."""
    prepared_statements: bool = True
    """Off for a pooler in transaction mode without prepared statements."""
    allow_data_loss: bool = False
    """Accept synchronous_commit=off."""
    listen_dsn: str | None = None
    """A direct address for LISTEN, if `dsns` leads to a pooler."""

    def direct(self) -> "Address":
        return self if self.listen_dsn is None else self._replace(dsns=parse_url(self.listen_dsn).dsns)


def parse_url(url: str) -> Address:
    """Split `postgresql://host,host/…?prepared_statements=off&allow_data_loss=on&listen_dsn=…`. Raises BadRequest."""
    parts = urlsplit(url)
    rest: list[tuple[str, str]] = []
    found: dict[str, bool] = {}
    listen_dsn = None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("prepared_statements", "allow_data_loss"):
            if value not in _ON:
                raise BadRequest(f"{name}={value!r} in the store's address: use on or off.")
            found[name] = _ON[value]
        elif name == "listen_dsn":
            listen_dsn = value
        else:
            rest.append((name, value))
    return Address(tuple(_one_each(parts, rest)), listen_dsn=listen_dsn, **found)


def _one_each(parts: SplitResult, query: list[tuple[str, str]]) -> Iterator[str]:
    """The driver's time-out is for all hosts: a silent host would hide the next."""
    user, at, hosts = parts.netloc.rpartition("@")
    if hosts:
        for host in hosts.split(","):
            yield _joined(parts, f"{user}{at}{host}", query)
        return
    values = dict(query)
    ports = values.get("port", "").split(",")
    for n, host in enumerate(values.get("host", "").split(",")):
        one = values | ({"host": host} if host else {})
        if len(ports) > 1:
            one["port"] = ports[min(n, len(ports) - 1)]
        yield _joined(parts, parts.netloc, list(one.items()))


def _joined(parts: SplitResult, place: str, query: list[tuple[str, str]]) -> str:
    # urlunsplit would drop the slashes if the host is empty.
    given = urlencode(query, safe="/")
    return f"{parts.scheme}://{place}{parts.path}{'?' if given else ''}{given}"


class Lost(Exception):
    """The connection ended, or the server no longer takes writes."""


def is_lost(error: BaseException, connection: AsyncpgConnection | None = None) -> bool:
    """False if the error concerns the statement, or if the caller was cancelled."""
    if isinstance(error, asyncio.CancelledError):
        return False  # also if the connection is closed: another try would swallow it
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05", "25P03", "25006")
    if isinstance(error, (OSError, TimeoutError, asyncio.TimeoutError, Lost)):
        return True
    return connection is not None and connection.is_closed()


BROKEN: Final = (Lost, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PostgresConnection:
    def __init__(self, address: Address, name: str) -> None:
        self.address = address
        self._name = name if address.listen_dsn is None else f"pooled {name}"
        self._connection: AsyncpgConnection | None = None
        self._closed = False
        self._host = 0
        self.timeline = ""
        """A new timeline means a failover, and the new server may lack our last commits."""

    async def get(self) -> AsyncpgConnection:
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = await self._open()
            if self._closed:  # meanwhile
                connection.terminate()
                raise Lost("the store is closed")
            self._connection = connection
        return connection

    async def _open(self) -> AsyncpgConnection:
        dsns = self.address.dsns
        failures: list[str] = []
        for n in range(len(dsns)):
            host = (self._host + n) % len(dsns)
            try:
                connection = await self._open_one(dsns[host])
            except Lost as error:
                failures.append(str(error))
            else:
                self._host = host
                return connection
        raise Lost("; ".join(failures))

    async def _open_one(self, dsn: str) -> AsyncpgConnection:
        try:
            connection = await asyncpg.connect(
                dsn,
                timeout=CONNECT_SECONDS_MAX,
                command_timeout=COMMAND_SECONDS_MAX,
                statement_cache_size=512 if self.address.prepared_statements else 0,
                max_cached_statement_lifetime=0,
                server_settings={"application_name": f"perdure {self._name}"},
            )
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise Lost("it does not match target_session_attrs") from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        try:
            await self._check(connection)
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, NotOurDatabase) and is_lost(error, connection):
                raise Lost(str(error)) from error
            raise
        return connection

    async def _check(self, connection: AsyncpgConnection) -> None:
        row = await connection.fetchrow(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), "
            "current_setting('synchronous_commit'), current_setting('server_version_num')::INTEGER, "
            f"{TIMELINE}"
        )
        assert row is not None
        standby, read_only, synchronous, version, self.timeline = row
        if standby or read_only == "on":
            raise Lost("it is a standby, or read-only")
        if version < 150000:
            raise NotOurDatabase(f"The server is PostgreSQL {version // 10000}; Perdure needs 15 or newer.")
        if synchronous == "off" and not self.address.allow_data_loss:
            raise NotOurDatabase(
                "The server has synchronous_commit=off: a crash of it would lose acknowledged writes. Set it to on "
                "for this database or role, or add allow_data_loss=on to the store's address."
            )
        # Again: a newer release may have changed it meanwhile.
        if problem := (await schema_in(connection)).refusal(migrations("postgres")):
            raise NotOurDatabase(f"The database {problem}")

    async def again(self, until: float) -> AsyncpgConnection:
        """Retry `get` until a time of the loop's clock. Raises Lost."""
        loop = asyncio.get_running_loop()
        pause = 0.02
        while True:
            try:
                return await self.get()
            except Lost:
                left = until - loop.time()
                if left <= 0:
                    raise
                await asyncio.sleep(min(left, pause * random.uniform(0.5, 1.5)))
                pause = min(pause * 2, 0.5)

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()

    async def close(self) -> None:
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(Exception):  # it ends either way
                # Its own time-out does not cover the wait for a cancelled statement.
                async with asyncio.timeout(1.0):
                    await connection.close()
            connection.terminate()


async def end(task: "asyncio.Task[None]") -> None:
    """A connection loss at the same moment may hide a cancellation from the task."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)
    if not task.cancelled():
        task.exception()  # marks the exception as retrieved


async def prepare(postgres: PostgresConnection) -> str:
    """Migrate and check, one server at a time. Returns the store's epoch. Raises NotOurDatabase."""
    try:
        connection = await postgres.get()
        if (await _known_schema(connection)).pending(migrations("postgres")):
            await _holding(_MIGRATES, connection, lambda: _migrate(connection))
        else:  # a newer release may be about to change it
            await _holding(_STARTS, connection, lambda: _known_schema(connection))
        # Marks of killed servers.
        await connection.execute("DELETE FROM commits WHERE made_at < now() - INTERVAL '1 day'")
        epoch = await connection.fetchval("SELECT value FROM meta WHERE name = 'epoch'")
        if not await connection.fetchval("SELECT pg_has_role('pg_read_all_stats', 'USAGE')"):
            user = await connection.fetchval("SELECT current_user")
            logger.warning(
                "The role %r cannot see other users' sessions, so Perdure cannot warn of old snapshots that slow "
                "claims down: GRANT pg_monitor TO %s.",
                user,
                user,
            )
        return str(epoch)
    except (Lost, OSError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"The database cannot be used: {error}.") from error
    except asyncpg.PostgresError as error:
        if is_lost(error):
            raise Unavailable(f"The database cannot be used: {error}.") from error
        raise NotOurDatabase(f"The database cannot be opened as a Perdure store: {error}.") from error


async def schema_at(url: str) -> Schema:
    """Changes nothing. Raises NotOurDatabase, Unavailable."""
    postgres = PostgresConnection(parse_url(url), "look")
    try:
        return await _known_schema(await postgres.get())
    except BROKEN as error:
        raise Unavailable(f"The database cannot be used: {error}.") from error
    finally:
        await postgres.close()


async def look(url: str, texts: Mapping[str, str]) -> dict[str, Rows]:
    """Each query has a transaction of its own, to delay vacuums less. Raises Unavailable."""
    postgres = PostgresConnection(parse_url(url), "look")
    found: dict[str, Rows] = {}
    try:
        connection = await postgres.get()
        for name, text in texts.items():
            async with connection.transaction(readonly=True):
                await connection.execute("SET LOCAL statement_timeout = 0")
                found[name] = [tuple(row) for row in await connection.fetch(text, timeout=LOOK_SECONDS_MAX)]
    except BROKEN as error:
        raise Unavailable(f"The database cannot be used: {error}.") from error
    finally:
        await postgres.close()
    return found


async def schema_in(connection: AsyncpgConnection) -> Schema:
    if await connection.fetchval("SELECT to_regclass('meta') IS NULL AND to_regclass('executions') IS NULL"):
        return Schema(0, 0)
    try:
        rows = await connection.fetch("SELECT name, value FROM meta WHERE name IN ('schema', 'schema_least')")
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError):  # a missing column, another type, or no permission
        rows = []
    found = {name: int(value) for name, value in rows}
    if "schema" not in found:
        raise NotOurDatabase("The database holds tables of another program; give Perdure a database of its own.")
    return Schema(found["schema"], found.get("schema_least", found["schema"]))


async def _known_schema(connection: AsyncpgConnection) -> Schema:
    schema, known = await schema_in(connection), migrations("postgres")
    if problem := schema.refusal(known):
        raise NotOurDatabase(f"The database {problem}")
    if schema.number > (newest := known[-1].number):
        logger.info("The database has schema %d, which this release (%d) can work with.", schema.number, newest)
    return schema


async def _holding(lock: str, connection: AsyncpgConnection, work: Callable[[], Awaitable[object]]) -> None:
    """Polls the lock: a waiting transaction would delay concurrent index builds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + MIGRATE_SECONDS_MAX
    while True:
        why = "another server starts or migrates it"
        try:
            async with connection.transaction(isolation="read_committed"):
                if await connection.fetchval(f"SELECT {lock}"):
                    await work()
                    return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            why = f"another session holds a lock that it needs ({error}), perhaps a dump or a long report"
        if loop.time() > until:
            raise Unavailable(f"The database could not be migrated within {MIGRATE_SECONDS_MAX:.0f} s: {why}.")
        await asyncio.sleep(random.uniform(0.05, 0.15))


async def _no_servers(connection: AsyncpgConnection, pending: Sequence[Migration]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + GONE_SECONDS_MAX + 1.0
    while True:
        await connection.execute("SELECT pg_stat_clear_snapshot()")  # or the first result would be repeated
        sessions = await connection.fetchval(_SERVERS, GONE_SECONDS_MAX)
        if not sessions:
            return
        if loop.time() > until:
            names = ", ".join(f"{one.number:04}_{one.name}" for one in pending if not one.compatible)
            raise NotOurDatabase(
                f"Servers have {sessions} sessions in the database and cannot go on after {names}: stop all of them "
                "first. (pg_terminate_backend ends sessions of lost servers; see pg_stat_activity.)"
            )
        await asyncio.sleep(0.1)


async def _migrate(connection: AsyncpgConnection) -> None:
    schema = await _known_schema(connection)  # again: another server may have been faster
    pending = schema.pending(migrations("postgres"))
    stern = bool(schema.number) and not all(migration.compatible for migration in pending)
    if stern:
        if not await connection.fetchval(f"SELECT {_CHANGES}"):
            raise asyncpg.LockNotAvailableError("a server is starting")
        await _no_servers(connection, pending)
    # An index may take long to build, but must not make other sessions wait long for its start.
    waits = f"{MIGRATE_LOCK_SECONDS * 1_000:.0f}ms"
    await connection.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{waits}'")
    for migration in pending:
        for statement in split_statements(migration.sql):
            await connection.execute(statement, timeout=LOOK_SECONDS_MAX)
        logger.info("The database has schema %d now (%s).", migration.number, migration.name)
    if stern:  # servers that just started have a session by now
        await _no_servers(connection, pending)
    if pending:
        schema = schema.after(pending)
        for statement in split_statements(postgres_settings()):
            await connection.execute(statement, timeout=LOOK_SECONDS_MAX)
        await connection.execute(
            "INSERT INTO meta (name, value) VALUES ('schema', $1), ('schema_least', $2) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            str(schema.number),
            str(schema.least),
        )
        await connection.execute(
            "INSERT INTO meta (name, value) VALUES ('epoch', $1) ON CONFLICT (name) DO NOTHING", str(uuid4())
        )
