"""Hands store, clock and doorbell to the desks, and gives out the store's hints."""

import asyncio
from collections.abc import Sequence

from perdure.engine.claims import Claims
from perdure.engine.clock import Clock, Span, SystemClock, boottime_us
from perdure.engine.doorbell import Doorbell
from perdure.engine.endings import Endings
from perdure.engine.events import Events
from perdure.engine.executions import Executions
from perdure.engine.loops import LOOPS, run_loop
from perdure.engine.projects import Projects
from perdure.engine.settings import EngineSettings
from perdure.engine.stats import Stats
from perdure.store.interface import Counted, Due, Ended, Hint, News, Published, Ready, Store, Written
from perdure.store.verbs import access, claims, looks
from perdure.wire.errors import Unavailable

TIME_QUESTIONS = 3
"""How often the database is asked at the start what time it is; the quickest answer counts."""


def _width(span: Span) -> int:
    return span.most_us - span.least_us


class Engine:
    """One store, one clock, the desks, and (between `start` and `stop`) the background loops."""

    def __init__(self, store: Store, *, clock: Clock | None = None, settings: EngineSettings | None = None) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.settings = settings or EngineSettings()
        self.lease_us = int(self.settings.lease_seconds * 1_000_000)
        beat_seconds = self.settings.beat_seconds
        self.beat_us = self.lease_us // 4 if beat_seconds is None else int(beat_seconds * 1_000_000)
        self.grace_us = int(self.settings.grace_seconds * 1_000_000)
        self.doorbell = Doorbell()
        self.endings = Endings()
        self.stats = Stats()
        self.executions = Executions(self)
        self.claims = Claims(self)
        self.events = Events(self)
        self.projects = Projects(self)
        self.reaped_at_us = 0
        self.granting_until_us = 0
        """Since boot: until then every round of the reaper grants, because the clock jumped."""
        self.prune_after = ("", "")
        self.alarmed: set[tuple[str, str]] = set()
        self._news: dict[str, set[str]] = {}
        self.closing = False
        self._tasks: list[asyncio.Task[None]] = []
        store.listen(self._hear)

    async def start(self) -> None:
        """Take the store's time, take back what embedded workers of earlier processes held, then run the loops."""
        spans = [await self._ask_time() for _ in range(TIME_QUESTIONS)]
        self.clock.adjust(min((span for span in spans if span is not None), key=_width, default=None))
        if self.store.alone:  # elsewhere they may belong to a process that runs
            await self.store.write(claims.end_embedded(now_us=self.clock.now_us()))
        self.reaped_at_us = boottime_us() - self.lease_us  # its first round grants every registration a full lease
        self._tasks = [asyncio.create_task(run_loop(self, loop), name=f"perdure-{loop.name}") for loop in LOOPS]

    async def stop(self) -> None:
        """End polls and loops, then finish what the store has accepted and close it."""
        self.closing = True
        self.doorbell.ring_all()
        self.executions.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()

    async def health(self) -> None:
        """Write to the database. Raises Unavailable when it does not within a second."""
        try:
            async with asyncio.timeout(1.0):
                await self.store.write(access.touch(now_us=self.clock.now_us()))
        except TimeoutError as error:
            raise Unavailable("The store did not commit within a second.") from error

    async def follow_clock(self) -> bool:
        """Keep with the clock that the store goes by; True when it jumped. Raises Unavailable."""
        return self.clock.adjust(await self._ask_time())

    async def _ask_time(self) -> Span | None:
        sent_us = boottime_us()
        told_us = await self.store.read(looks.database_time())
        return None if told_us is None else Span(told_us - boottime_us(), told_us - sent_us)

    def wake_loops(self) -> None:
        """Something is due sooner than the loops know."""
        self.doorbell.ring(("loop", "wake"))
        self.doorbell.ring(("loop", "reap"))

    def take_news(self, worker_id: str) -> list[str]:
        """The executions that this worker holds and whose journals others have written to."""
        news = self._news.pop(worker_id, None)
        return list(news) if news else []

    def _hear(self, hints: Sequence[Hint]) -> None:
        """Ring for what a commit changed. Each bell once per commit."""
        ready: set[str] = set()
        doorbell = self.doorbell
        for hint in hints:
            kind = type(hint)
            if kind is Written:
                doorbell.ring(("written", hint.execution_id))  # type: ignore[union-attr]  # `type() is` does not narrow
            elif kind is Ready:
                ready.add(hint.project_id)  # type: ignore[union-attr]
            elif kind is Ended:
                self.endings.tell(hint)  # type: ignore[arg-type]
                self.stats.end(hint.project_id, hint.workflow_id, hint.phase)  # type: ignore[union-attr]
            elif isinstance(hint, News):
                self._news.setdefault(hint.worker_id, set()).add(hint.execution_id)
                doorbell.ring(("worker", hint.worker_id))
            elif isinstance(hint, Due):
                doorbell.ring(("loop", "wake"))
            elif isinstance(hint, Published):
                doorbell.ring(("topic", hint.project_id, hint.topic))
            elif isinstance(hint, Counted):
                self.stats.count(hint.what, hint.amount)
        for project_id in ready:
            self.claims.stir(project_id)
            doorbell.ring_one(("ready", project_id))
