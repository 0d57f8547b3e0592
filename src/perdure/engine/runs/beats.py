"""The service of beats: renews leases with few commits.

**SQLite.** The file has one server, so a renewed lease may live in the server's memory: a starting server grants every
registration a full lease before taking anything back. One commit writes all renewed leases to the file, before half of
a lease has passed there and before the reaper would examine a lease that seems to end.

**PostgreSQL.** Other servers read leases, so each beat is on disk before its answer. The first beat leaves at once;
beats of the next moment leave together.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.runs.claims import Claims
from perdure.store.base.interface import Verb
from perdure.store.verbs.runs import claims, workers
from perdure.store.verbs.runs.claims import Beat, Held
from perdure.wire.base.errors import StoreAway
from perdure.wire.runs.requests import BeatReply, BeatRequest

logger = logging.getLogger("perdure.engine")

CUT_SECONDS = 1.0
"""A lost connection cuts the worker's lease to this many seconds."""
GATHER_SECONDS: Final = 0.5
"""Seconds between two writes of gathered beats. At most an eighth of a beat's interval."""


class Renewed(NamedTuple):
    """A renewed lease that the file does not have yet."""

    until_us: int
    written_us: int
    """When the lease ends in the file."""


class Beats(Service):
    def __init__(self, core: Core, claims: Claims) -> None:
        super().__init__(core)
        self._claims = claims
        self._renewed: dict[str, Renewed] = {}
        self._gathered: list[tuple[Beat, asyncio.Future[Held | None]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._sent_at = 0.0

    @serves(BeatRequest)
    async def beat(self, scope: Scope, op: BeatRequest) -> BeatReply:
        """Renew a lease. The reply names held executions, or says that all are lost."""
        core = self._core
        if op.epoch != core.store.epoch:
            return BeatReply(lost=True)
        now_us = self.now_us()
        beat = Beat(scope.project_id, op.worker_id, now_us, op.in_flight)
        held = await core.absence.answered(self._note(beat) if core.store.alone else self._gather(beat))
        if held is None and core.absence.in_doubt:
            raise StoreAway("Leases are about to be granted anew; keep what runs, and beat again.")
        if held is not None and scope.leases is not None:
            scope.leases[op.worker_id] = now_us + core.lease_us
        return BeatReply(lost=held is None, holding=held or [], others_wait=self._claims.others_wait(op.worker_id))

    async def _note(self, beat: Beat) -> Held | None:
        """Keep the beat in memory, unless the file needs the beat. Only the file's writer may say that a lease has
        ended, because the writer may be about to grant a new lease."""
        core = self._core
        worker_id, now_us = beat.worker_id, beat.now_us
        found = await core.store.read(claims.read_lease(project_id=beat.project_id, worker_id=worker_id))
        if found is None:
            return None
        lease_until_us, in_flight, held = found
        if lease_until_us - now_us <= core.lease_us // 2 or in_flight != workers.write_steps(beat.steps):
            return await self._write(now_us, beat)
        self._renewed[worker_id] = Renewed(now_us + core.lease_us, lease_until_us)
        return held

    async def write_due(self, now_us: int) -> None:
        """Write the renewed leases if one seems to end soon. Raises what the store raises.

        The file is checked as well: while another connection's beat came, a lease may have been cut there.
        """
        soon_us, renewed, store = now_us + self._core.lease_us // 4, self._renewed, self._core.store
        if any(one.written_us <= soon_us for one in renewed.values()) or (
            renewed and await store.read(claims.any_lease_until(until_us=soon_us))
        ):
            await self._write(now_us)

    def limit(self, until_us: int) -> None:
        """End the file's leases at `until_us` at the latest, because the clock went back."""
        for worker_id, one in self._renewed.items():
            self._renewed[worker_id] = Renewed(min(one.until_us, until_us), min(one.written_us, until_us))

    async def _write(self, now_us: int, beat: Beat | None = None) -> Held | None:
        """Write all renewed leases, and a beat. No lease may end later than a lease that begins now: the clock may have
        gone back."""
        some, latest_us = list(self._renewed.items()), now_us + self._core.lease_us
        leases = [(min(one.until_us, latest_us), worker_id) for worker_id, one in some]
        verbs: list[Verb[Any]] = [claims.renew_leases(leases=leases)]
        if beat is not None:
            verbs.append(self._alone(beat))
        held: Held | None = None
        for answer in await self._core.absence.written(self._all(verbs)):
            held = answer
        for worker_id, one in some:
            if self._renewed.get(worker_id) is one:
                del self._renewed[worker_id]
        return held

    async def _all(self, verbs: Sequence[Verb[Any]]) -> Sequence[Any]:
        answers = await self._core.store.write_all(verbs)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _alone(self, beat: Beat) -> Verb[Held | None]:
        project_id, worker_id, now_us, steps = beat
        lease_us = self._core.lease_us
        return claims.beat(project_id=project_id, worker_id=worker_id, now_us=now_us, lease_us=lease_us, steps=steps)

    def lease_until_us(self, worker_id: str) -> int:
        known = self._renewed.get(worker_id)
        return 0 if known is None else known.until_us

    async def disconnected(self, worker_id: str, granted_us: int | None = None) -> None:
        """Cut the lease to `CUT_SECONDS`.

        `granted_us` is the lease's end from this connection's last beat. A later beat over another connection, perhaps
        to another server, keeps the lease. While the store is away, workers leave for another server.
        """
        core = self._core
        if core.absence.away_since_us:
            return
        until_us = core.clock.now_us() + int(CUT_SECONDS * 1e6)
        ends = {granted_us}
        known = self._renewed.get(worker_id)
        if known is not None:
            if granted_us not in (None, known.until_us):
                return
            del self._renewed[worker_id]
            if granted_us is not None:
                ends.add(known.written_us)  # the other one if it is being written now
        cuts = [claims.cut_lease(worker_id=worker_id, until_us=until_us, granted_us=end) for end in ends]
        await self._all(cuts)
        asyncio.get_running_loop().call_later(CUT_SECONDS, core.notifier.notify, ("loop", "reap"))

    async def _gather(self, beat: Beat) -> Held | None:
        """A beat that the batch leaves out is written alone, which tells a locked row from an ended lease.
        So no beat waits for another beat's lock."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Held | None] = loop.create_future()
        self._gathered.append((beat, future))
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send(), name="perdure-beats")
        held = await future
        return await self._core.store.write(self._alone(beat)) if held is None else held

    async def _send(self) -> None:
        loop, pause = asyncio.get_running_loop(), min(GATHER_SECONDS, self._core.beat_us / 8e6)
        while self._gathered:
            await asyncio.sleep(max(0.0, self._sent_at + pause - loop.time()))
            self._sent_at = loop.time()
            gathered, self._gathered = self._gathered, []
            # One beat of each id: another project may name a worker that is not its own.
            beats = {beat.worker_id: beat for beat, future in gathered if not future.done()}
            held: Mapping[str, Held] = {}
            try:
                held = await self._write_together(list(beats.values()))
            finally:
                for beat, future in gathered:
                    if not future.done():
                        future.set_result(held.get(beat.worker_id) if beats[beat.worker_id] is beat else None)

    async def _write_together(self, beats: Sequence[Beat]) -> Mapping[str, Held]:
        if len(beats) < 2:
            return {}
        try:
            return await self._core.store.write(claims.beat_together(beats=beats, lease_us=self._core.lease_us))
        except Exception as error:
            logger.warning("%d beats could not be written together; each is written alone: %s", len(beats), error)
            return {}
