"""Several engines on one PostgreSQL, like several servers."""

import contextlib
import itertools
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest
from msgspec import Raw
from tests import postgres
from tests.databases import migrated
from tests.kit.polling import until

from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.drivers.postgres_hints import Exchange
from perdure.wire.runs.requests import (
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    End,
    Entry,
    ItemReply,
    RegisterRequest,
    ReportItem,
    ReportRequest,
    Started,
    StartItem,
    WorkflowSpec,
)

if sys.platform == "win32":
    collect_ignore_glob = ["*"]

NEVER = 3_600.0
"""An interval of looks beyond any test, so that only hints act."""


class Hand:
    """A worker at one engine, moved by hand."""

    _numbers = itertools.count(1)

    def __init__(self, engine: Engine, project_id: str) -> None:
        self.engine = engine
        self.project_id = project_id
        self.id = str(uuid4())
        self.epoch = engine.store.epoch

    async def register(self, deployment_id: str = "default") -> None:
        request = RegisterRequest(self.id, deployment_id, "3.11", [WorkflowSpec("w")], [])
        await self.engine.serve(Scope(self.project_id), request)

    async def claim(
        self, wait_seconds: float = 60.0, *, at: Engine | None = None, claim_id: str = "", arrived: str | None = None
    ) -> ClaimReply:
        claim_id = claim_id or f"{next(self._numbers):012d}"
        request = ClaimRequest(self.id, self.epoch, claim_id, 1, wait_seconds, arrived)
        return await (at or self.engine).serve(Scope(self.project_id), request)

    def waits(self) -> bool:
        """Whether the worker's claim waits for work."""
        return self.engine.claims._waiting.is_waiting(self.id)

    async def report(
        self, claimed: Claimed, number: int, entries: tuple[Entry, ...] = (), end: End | None = None
    ) -> ItemReply:
        item = ReportItem(claimed.id, claimed.attempt, number, 1, list(entries), end)
        reply = await self.engine.serve(Scope(self.project_id), ReportRequest(self.id, self.epoch, [item]))
        return reply.items[0]

    async def complete(self, claimed: Claimed, result: object = "done") -> None:
        assert (await self.report(claimed, 1, end=Complete(raw(result)))).ended


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


class Pair:
    """Two engines A and B of one database, with their project."""

    def __init__(self, a: Engine, b: Engine, project_id: str) -> None:
        self.a, self.b, self.project_id = a, b, project_id

    async def hand(self, engine: Engine) -> Hand:
        hand = Hand(engine, self.project_id)
        await hand.register()
        return hand

    async def start(self, engine: Engine) -> str:
        (started,) = await engine.executions.start(self.project_id, [StartItem("w")])
        assert isinstance(started, Started), started
        return started.execution_id


def exchange(engine: Engine) -> Exchange:
    assert isinstance(engine.store, PostgresStore)
    return engine.store._exchange


@contextlib.asynccontextmanager
async def engine_on(url: str, *, poll_seconds: float, deaf: bool = False) -> AsyncIterator[Engine]:
    """A running engine. `deaf`: no NOTIFY reaches it."""
    store = await PostgresStore.open(url)
    if deaf:
        store._exchange._receive = lambda *_: None  # type: ignore[method-assign]  # as if the network ate them
    settings = EngineSettings(poll_seconds=poll_seconds, lease_seconds=60.0)  # hands do not beat
    engine = Engine(store, settings=settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def pair_on(
    url: str, *, poll_seconds: float = NEVER, deaf: bool = False, hearing: bool = True
) -> AsyncIterator[Pair]:
    """Two running engines, which hear each other unless `deaf`. Without `hearing` nothing waits for the hints."""
    async with (
        engine_on(url, poll_seconds=poll_seconds, deaf=deaf) as a,
        engine_on(url, poll_seconds=poll_seconds, deaf=deaf) as b,
    ):
        if hearing and not deaf:
            await until(lambda: a.store.hints_up and b.store.hints_up)
        yield Pair(a, b, await a.projects.default())


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """An empty store's address."""
    async with postgres.fresh(migrated) as url:
        yield url


@pytest.fixture(params=["told", "deaf"])
async def pair(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Pair]:
    """Everything has to work twice: by hints alone, and without any."""
    deaf = request.param == "deaf"
    async with pair_on(url, poll_seconds=1.0 if deaf else NEVER, deaf=deaf) as pair:
        yield pair
