"""The shared parts of services and loops."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable
from typing import Final, TypeVar

from perdure.engine.base.addresses import Policy
from perdure.engine.base.clock import Clock, SystemClock, TimeBounds, boottime_us
from perdure.engine.base.end_listeners import EndListeners
from perdure.engine.base.notifier import Notifier
from perdure.engine.base.outbound import Outbound
from perdure.engine.base.settings import EngineSettings
from perdure.store.base.interface import Store
from perdure.store.verbs.runs import queries
from perdure.wire.base.errors import StoreAway, Unavailable, UnknownOutcome

T = TypeVar("T")

OWN_LOOKS: Final = 300.0


class Absence:
    """The time in which this server ran no loops, or the store took no writes: workers could not renew leases."""

    def __init__(self, lease_us: int) -> None:
        self._lease_us = lease_us
        self.reaped_at_us = 0
        """The end of the reaper's last round, in time since boot, if this server ran all the time."""
        self.away_since_us = 0
        """The first write refused by the store, in time since boot. 0: the store takes writes."""

    def is_long(self, now_us: int) -> bool:
        """True if leases may have ended in the absence."""
        return self.is_store_away(now_us) or now_us - self.reaped_at_us > self._lease_us // 2

    def is_store_away(self, now_us: int) -> bool:
        return self.away_since_us != 0 and now_us - self.away_since_us > self._lease_us // 4

    @property
    def in_doubt(self) -> bool:
        """True until the reaper has found out who was there. No lease has ended for sure."""
        return self.away_since_us != 0 or self.is_long(boottime_us())

    async def answered(self, work: Awaitable[T]) -> T:
        """Raises `StoreAway` after a quarter of a lease, which is before a worker gives a beat up."""
        try:
            async with asyncio.timeout(self._lease_us / 4e6):
                return await work
        except StoreAway:
            raise
        except (Unavailable, UnknownOutcome, TimeoutError) as error:
            why = "it does not answer" if isinstance(error, TimeoutError) else error
            raise StoreAway(
                f"The store takes no writes at the moment; keep what runs, and beat again: {why}"
            ) from error

    async def written(self, write: Awaitable[T]) -> T:
        """Note whether the store takes a write without waits for locks. Raises what `answered` raises."""
        began = boottime_us()
        try:
            result = await self.answered(write)
        except StoreAway:
            self.away_since_us = self.away_since_us or began
            raise
        if not self.is_long(boottime_us()):
            self.away_since_us = 0
        return result


class Core:
    def __init__(self, store: Store, *, clock: Clock | None = None, settings: EngineSettings | None = None) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.settings = settings or EngineSettings()
        self.lease_us = int(self.settings.lease_seconds * 1_000_000)
        beat_seconds = self.settings.beat_seconds
        self.beat_us = self.lease_us // 4 if beat_seconds is None else int(beat_seconds * 1_000_000)
        self.absence = Absence(self.lease_us)
        self.grace_us = int(self.settings.grace_seconds * 1_000_000)
        self.notifier = Notifier()
        self.end_listeners = EndListeners()
        self.stats = Stats()
        self.outbound = Outbound(Policy(self.settings.outbound_hosts))
        self.closing = False
        self.hints_received = 0
        self.crowded = False
        """Sessions hold old snapshots, so many old row versions remain."""

    @property
    def changes(self) -> int:
        """Grows when this server commits, or hears of another server's commit."""
        return self.store.groups + self.hints_received

    async def read_time(self) -> TimeBounds | None:
        """None if the database has no clock. Raises Unavailable."""
        sent_us = boottime_us()
        told_us = await self.store.read(queries.database_time())
        return None if told_us is None else TimeBounds(told_us - boottime_us(), told_us - sent_us)

    def own_look(self, seconds: float) -> float:
        """A rare look: this process loses no hints, and the fallback poller covers other servers."""
        return seconds * OWN_LOOKS * random.uniform(0.8, 1.2)

    def spread(self, seconds: float) -> float:
        """Different on each server of a store."""
        return seconds if self.store.alone else seconds * random.uniform(0.7, 1.0)


class Stats:
    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        self.ended: dict[tuple[str, str, str], int] = {}
        """Final executions by (project, workflow, phase)."""
        self.claim_latency_seconds: deque[float] = deque(maxlen=1_000)
        """Seconds from creation to the first claim, for the latest claims."""
        self.timer_lag_seconds = 0.0
        self.old_snapshots = 0
        self.schedule_lag_seconds = 0.0

    def end(self, project_id: str, workflow_id: str, phase: str) -> None:
        key = (project_id, workflow_id, phase)
        self.ended[key] = self.ended.get(key, 0) + 1

    def count(self, what: str, amount: int = 1) -> None:
        self.counted[what] = self.counted.get(what, 0) + amount
