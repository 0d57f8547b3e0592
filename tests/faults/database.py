"""The database of a fault run: an SQLite file, or a separate PostgreSQL that can be stopped hard."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import apsw
import asyncpg
import psutil
from tests import postgres


class Database(Protocol):
    """Where a cluster keeps everything, and how the checker looks into it."""

    name: str
    url: str
    servers_max: int

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement answers, asked beside the servers."""
        ...

    async def close(self) -> None: ...


class SQLiteFile:
    """A file in the run's folder; one server at a time."""

    name = "sqlite"
    servers_max = 1

    def __init__(self, folder: Path) -> None:
        self.path = folder / "perdure.db"
        self.url = str(self.path)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = apsw.Connection(self.url, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(10_000)
            return list(connection.execute(sql))
        finally:
            connection.close()

    async def close(self) -> None:
        """The file stays in the run's folder."""


class Postgres:
    """A PostgreSQL server of our own with a database. Its crashes lose no committed rows; a power cut might."""

    name = "postgres"
    servers_max = 8

    def __init__(self, server: postgres.Server, url: str) -> None:
        self.server = server
        self.url = url

    @classmethod
    async def make(cls) -> Postgres:
        server = await asyncio.to_thread(postgres.start)
        name = await postgres.make(server=server)
        return cls(server, server.database_url(name))

    @property
    def socket(self) -> str:
        """The path of the server's socket, for a proxy."""
        return f"{self.url.partition('host=')[2]}/.s.PGSQL.5432"

    def through(self, port: int) -> str:
        """The address of the same database through a proxy on a loopback port."""
        return f"{self.url.partition('@')[0]}@127.0.0.1:{port}/{self.url.partition('@/')[2].partition('?')[0]}"

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def stop_hard(self) -> None:
        """An immediate stop: every session ends in the middle of what it did."""
        await asyncio.to_thread(self.server.kill)

    async def crash(self) -> None:
        """SIGKILL of the postmaster; its children notice and end."""
        children = psutil.Process(self.server.pid).children()
        await asyncio.to_thread(self.server.kill, signal.SIGKILL)
        # Not before the last is gone would another one start: they share its memory.
        await asyncio.to_thread(psutil.wait_procs, children, 30)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """No process of it runs."""
        postmaster = psutil.Process(self.server.pid)
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    async def start(self) -> None:
        """Start the server again. Returns when the server answers."""
        await asyncio.to_thread(self.server.start)

    async def terminate_sessions(self) -> int:
        """End every session of the servers; how many there were."""
        ended = await self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'perdure %' AND pid <> pg_backend_pid()"
        )
        return len(ended)

    async def close(self) -> None:
        await asyncio.to_thread(self.server.stop)


class Pair(Postgres):
    """A primary, and a standby that has every commit before the client's acknowledgement. The address names both."""

    name = "pair"
    standby: postgres.Server

    @classmethod
    async def make(cls) -> Pair:
        primary = await asyncio.to_thread(postgres.start)
        name = await postgres.make(server=primary)
        standby = await asyncio.to_thread(postgres.start_standby, primary)
        hosts = f"{primary.folder}/socket,{standby.folder}/socket"
        pair = cls(primary, f"postgresql://perdure@/{name}?host={hosts}&target_session_attrs=read-write")
        pair.standby = standby
        # Not before there is one: commits wait for it. The copy was made earlier, so it does not wait for another.
        for statement in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
            await postgres.admin(statement, primary)
        async with asyncio.timeout(60):
            # Another process: nothing but looking tells.
            while await pair.rows("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'") == []:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return pair

    async def fail_over(self) -> None:
        """The primary is gone for good; the standby takes its place."""
        await self.crash()
        await postgres.admin("SELECT pg_promote()", self.standby)

    async def close(self) -> None:
        await asyncio.to_thread(self.standby.stop)
        await super().close()


async def make(name: str, folder: Path) -> Database:
    """The database of that name for a run in `folder`."""
    if name == "sqlite":
        return SQLiteFile(folder)
    return await (Pair if name == "pair" else Postgres).make()
