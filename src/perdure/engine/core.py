"""The parts that services and loops share."""

import random
from typing import Final

from perdure.engine.addresses import Policy
from perdure.engine.clock import Clock, SystemClock, TimeBounds, boottime_us
from perdure.engine.end_listeners import EndListeners
from perdure.engine.notifier import Notifier
from perdure.engine.outbound import Outbound
from perdure.engine.settings import EngineSettings
from perdure.engine.stats import Stats
from perdure.store.interface import Store
from perdure.store.verbs import queries

OWN_LOOKS: Final = 300.0


class Core:
    def __init__(self, store: Store, *, clock: Clock | None = None, settings: EngineSettings | None = None) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.settings = settings or EngineSettings()
        self.lease_us = int(self.settings.lease_seconds * 1_000_000)
        beat_seconds = self.settings.beat_seconds
        self.beat_us = self.lease_us // 4 if beat_seconds is None else int(beat_seconds * 1_000_000)
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
        """Grows when this server commits, or hears of a commit of another one."""
        return self.store.groups + self.hints_received

    async def read_time(self) -> TimeBounds | None:
        """None if the database has no clock of its own. Raises Unavailable."""
        sent_us = boottime_us()
        told_us = await self.store.read(queries.database_time())
        return None if told_us is None else TimeBounds(told_us - boottime_us(), told_us - sent_us)

    def own_look(self, seconds: float) -> float:
        """Rare, because this process loses no hints of its own, and the fallback poller covers other servers."""
        return seconds * OWN_LOOKS * random.uniform(0.8, 1.2)

    def spread(self, seconds: float) -> float:
        """Different on each server of a store."""
        return seconds if self.store.alone else seconds * random.uniform(0.7, 1.0)
