"""Hints between the servers of one PostgreSQL database, by LISTEN and NOTIFY.

Hints leave after the commit, on a connection of their own. They arrive on another, which must be direct (`listen_dsn`
in the address): a pooled connection receives nothing.

Failures are silent, so a heartbeat travels the same way. While no heartbeat arrives, `up` is false, waiting code polls
more often, and the listener reconnects. The heartbeat also announces its server. A server alone for a while sends no
hints.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg

from perdure.store.base.interface import Everything, Hint
from perdure.store.drivers.hints import Gathered, decode
from perdure.store.drivers.postgres_connection import Address, Lost, NotOurDatabase, PostgresConnection, end

logger = logging.getLogger("perdure.store")

CHANNEL: Final = "perdure"
BEAT_SECONDS = 10.0
BEAT_DOWN_SECONDS = 1.0
ARRIVE_SECONDS_MAX = 3.0
FORGET_BEATS: Final = 3.5
"""Beats missed before a server counts as gone."""

_FAILURES: Final = (Lost, NotOurDatabase, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Exchange:
    def __init__(self, address: Address, server_id: str, give: Callable[[Sequence[Hint]], None]) -> None:
        self._server_id = server_id
        self._give = give
        self._out = PostgresConnection(address, f"notify {server_id[:8]}")
        self._in = PostgresConnection(address.direct(), f"listen {server_id[:8]}")
        self._gathered = Gathered()
        self._something = asyncio.Event()
        self._number = 0
        self._arrived = asyncio.Event()
        self._listening = asyncio.Event()
        self._anew = asyncio.Event()
        self._others: dict[str, float] = {}
        """Servers with the loop's time of their last heartbeat."""
        self._alone_from = 0.0
        """Silence from then on (loop's time) means: no other server runs."""
        self._tasks: list[asyncio.Task[None]] = []
        self._said_down = False
        self.up = False
        self.sent = 0
        """Hints sent, without heartbeats."""

    def start(self) -> None:
        """Starts even if the database cannot be reached yet."""
        if self._tasks:
            return
        self._wait_for_others()
        loop = asyncio.get_running_loop()
        for work in (self._listen, self._send, self._beat):
            self._tasks.append(loop.create_task(work(), name=f"perdure-hints{work.__name__}"))

    async def close(self) -> None:
        await asyncio.gather(*[end(task) for task in self._tasks])
        self.up = False
        await self._out.close()
        await self._in.close()

    def tell(self, hints: Sequence[Hint]) -> None:
        if self._tasks and self._somebody_listens() and self._gathered.add(hints):
            self._something.set()

    def _wait_for_others(self) -> None:
        """Assume other servers until their first heartbeats are due."""
        self._alone_from = asyncio.get_running_loop().time() + FORGET_BEATS * BEAT_SECONDS

    def _somebody_listens(self) -> bool:
        return bool(self._others) or not self.up or asyncio.get_running_loop().time() < self._alone_from

    def _forget_silent(self) -> None:
        long_ago = asyncio.get_running_loop().time() - FORGET_BEATS * BEAT_SECONDS
        for server_id in [id for id, heard in self._others.items() if heard < long_ago]:
            del self._others[server_id]

    async def _send(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            gathered, self._gathered = self._gathered, Gathered()
            if not gathered:
                continue
            # Without parameters: a prepared statement does not work through every pooler.
            text = gathered.encode(self._server_id).replace("\\", "\\\\").replace("'", "''")
            try:
                connection = await self._out.get()
                # A hint may be lost, so neither it nor a commit behind it waits for the disk.
                await connection.execute(
                    f"BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}, E'{text}'; COMMIT"
                )
                self.sent += gathered.beat is None
            except _FAILURES as error:  # lost; the next heartbeat shows whether more will be
                logger.debug("Hints were not sent: %s", error)
                self._out.drop()

    async def _listen(self) -> None:
        pause = 0.05
        while True:
            ended = asyncio.Event()
            try:
                connection = await self._in.get()
                connection.add_termination_listener(lambda _, ended=ended: ended.set())
                await connection.add_listener(CHANNEL, self._receive)
            except _FAILURES as error:
                logger.debug("The listener is not connected: %s", error)
                self._in.drop()
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, 1.0)
                continue
            pause = 0.05
            self._wait_for_others()
            self._listening.set()
            self._anew.set()
            self._give([Everything()])
            if not connection.is_closed():
                await ended.wait()
            self.up = False
            self._listening.clear()
            self._in.drop()

    def _receive(self, connection: object, pid: int, channel: str, payload: object) -> None:
        message = decode(str(payload))
        if message is None:
            return
        if message.server == self._server_id:
            if message.beat == self._number:
                self._arrived.set()
            return
        self._others[message.server] = asyncio.get_running_loop().time()
        hints = message.hints()
        if hints:
            self._give(hints)

    async def _beat(self) -> None:
        while True:
            self._number += 1
            self._arrived.clear()
            try:
                async with asyncio.timeout(ARRIVE_SECONDS_MAX):
                    await self._listening.wait()
                    self._anew.clear()
                    self._gathered.beat = self._number
                    self._something.set()
                    await self._arrived.wait()
            except TimeoutError:
                self._is_down()
                pause = BEAT_DOWN_SECONDS
            else:
                self._is_up()
                pause = BEAT_SECONDS
            self._forget_silent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):
                    await self._anew.wait()

    def _is_down(self) -> None:
        self.up = False
        if not self._said_down:
            self._said_down = True
            logger.warning(
                "Hints of other servers do not arrive: a NOTIFY was not heard within %.0f s. Servers poll "
                "once a second instead. If the database's address leads through a pooler in transaction mode, add "
                "`listen_dsn=` with a direct address to it.",
                ARRIVE_SECONDS_MAX,
            )
        self._in.drop()
        self._out.drop()

    def _is_up(self) -> None:
        self.up = True
        if self._said_down:
            self._said_down = False
            logger.warning("Hints of other servers arrive again.")
