"""A store that a test opens and closes at will, and helpers that wait for the store's events."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from msgspec import structs
from tests.kit.polling import until

from perdure.embedded import Embedded, embedded
from perdure.engine.base.clock import Clock, ManualClock
from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import ReportReply, ReportRequest
from perdure.wire.steering.acts import PendingCall


class House:
    """A store. `parks` says whether suspended executions stay in memory or are replayed each time."""

    def __init__(self, address: str, *, parks: bool) -> None:
        self.address = address
        self.parks = parks

    @contextlib.asynccontextmanager
    async def open(
        self,
        registry: Registry | None = None,
        *,
        capacity: int = 500,
        clock: Clock | None = None,
        settings: EngineSettings | None = None,
        grace_seconds: float = 25.0,
        parks: bool | None = None,
    ) -> AsyncIterator[Embedded]:
        if clock is not None:  # as long as it may be: a beat right after a jump of the clock would come too late
            settings = structs.replace(settings or EngineSettings(), lease_seconds=86_400.0)
        async with embedded(
            self.address,
            registry,
            capacity=capacity,
            clock=clock,
            settings=settings,
            grace_seconds=grace_seconds,
            parks=self.parks if parks is None else parks,
        ) as p:
            yield p


async def rows_of(handle: Handle[Any]) -> list[Row]:
    """The whole journal of an execution."""
    rows: list[Row] = []
    while page := await handle._client.journal(handle.id, after=rows[-1].seq if rows else 0):
        rows.extend(page)
    return rows


async def keys_of(handle: Handle[Any], *kinds: Kind) -> list[str | None]:
    """The keys of the journal's rows of some kinds, in order."""
    return [row.key for row in await rows_of(handle) if row.kind in kinds]


async def reaches(handle: Handle[Any], phase: Phase) -> None:
    """Wait until the execution is in a phase; an end of another kind is a failure."""

    async def is_there() -> bool:
        now = (await handle.get()).phase
        assert now is phase or now not in FINAL, f"the execution is {now}, and was to become {phase}"
        return now is phase

    await until(is_there)


async def listed(p: Embedded, handle: Handle[Any], kind: str) -> PendingCall:
    """Wait until a call of a kind is pending."""
    found: list[PendingCall] = []

    async def is_there() -> bool:
        found[:] = [call for call in await p.pending(handle.id) if call.kind == kind]
        return len(found) == 1

    await until(is_there)
    return found[0]


Report = Callable[[ReportRequest], Awaitable[ReportReply]]


def on_reports(p: Embedded, answer: Callable[[Report, ReportRequest], Awaitable[ReportReply]]) -> None:
    """Let `answer` answer the worker's reports. The first parameter of `answer` is the service's own method."""
    methods = p.engine.services.methods
    serve = methods[ReportRequest]

    async def answered(scope: Scope, request: ReportRequest) -> ReportReply:
        return await answer(lambda changed: serve(scope, changed), request)

    methods[ReportRequest] = answered


async def answer_when_asked(handle: Handle[Any], key: str, data: object) -> None:
    """Answer a question as soon as the execution asks."""
    async with contextlib.aclosing(handle.stream()) as items:
        async for item in items:
            if item.kind == "question" and item.data["step_key"] == key:
                await handle.resume(key, data)
                return
    raise AssertionError(f"the execution has ended and asked nothing under {key!r}")


async def ends(handle: Handle[Any]) -> Phase:
    """Wait for the end, of whatever kind."""

    async def is_over() -> bool:
        return (await handle.get()).phase in FINAL

    await until(is_over)
    return (await handle.get()).phase


async def pass_time(p: Embedded, clock: ManualClock, seconds: float) -> None:
    """Move the engine's clock, and let the engine look for due work."""
    clock.advance(seconds)
    p.engine.wake_loops()


class Counter:
    """How often each body ran, by name."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        self.runs[name] = self.runs.get(name, 0) + 1
        return self.runs[name]

    def __getitem__(self, name: str) -> int:
        return self.runs.get(name, 0)
