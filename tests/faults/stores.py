"""Several stores on a database, like those of several servers, driven from a single process: the volume that real
servers do not reach in the time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from tests.faults.database import Postgres
from tests.faults.run import Run
from tests.store.world import START_US, World
from uuid_utils import uuid7

from perdure.store.base.interface import Store
from perdure.store.open import open_store
from perdure.store.verbs.base import access
from perdure.store.verbs.runs import queries
from perdure.wire.runs.requests import QueueSpec

T = TypeVar("T")


class Time:
    """The time of all peers. Only a scenario moves the time."""

    def __init__(self) -> None:
        self.now_us = START_US


class Peer(World):
    """A server's store, with a worker, in a world shared with other peers."""

    def __init__(self, store: Store, time: Time, number: int) -> None:
        self.time = time
        self.number = number
        self.worker = f"w{number}"
        super().__init__(store)
        store.listen(lambda hints: None)  # a World keeps them all

    @property
    def now_us(self) -> int:
        return self.time.now_us

    @now_us.setter
    def now_us(self, value: int) -> None:
        self.time.now_us = value

    def new_id(self) -> str:
        return str(uuid7())


class Peers:
    """Use the peers as a block: the end of the block closes the stores."""

    def __init__(self, run: Run, amount: int, queues: Sequence[QueueSpec] = ()) -> None:
        self.run = run
        self.time = Time()
        self.all: list[Peer] = []
        self._amount = min(amount, run.database.servers_max)
        self._queues = queues

    async def __aenter__(self) -> list[Peer]:
        for n in range(self._amount):
            peer = Peer(await open_store(self.run.database.url), self.time, n)
            self.all.append(peer)
            await peer.store.write(access.default_project(id="project", now_us=peer.now_us))
            # Registrations do not end: these scenarios are not about leases.
            await peer.register(peer.worker, queues=self._queues, embedded=True)
        return self.all

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                found = await self.all[0].store.scan(queries.doctor())
                assert {name: rows for name, rows in found.items() if rows} == {}
        finally:
            for peer in self.all:
                await peer.store.close()


async def restart(run: Run, **settings: str) -> None:
    """Start the run's PostgreSQL again with other settings."""
    assert isinstance(run.database, Postgres)
    for name, value in settings.items():
        await run.database.rows(f"ALTER SYSTEM SET {name} = '{value}'")
    await run.database.stop_hard()
    await run.database.start()


async def yields(chance: Random, most: int = 6) -> None:
    """Let other tasks go first, a few times."""
    for _ in range(chance.randrange(most)):
        await asyncio.sleep(0)


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all coroutines at once. The first failure is raised when all have ended."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]
