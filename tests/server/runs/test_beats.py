"""Few commits renew leases, and no lease is lost or lengthened. The tests count commits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.serving import Hand, Served, serving
from tests.store.locks import held

from perdure.engine.base.clock import boottime_us
from perdure.store.base.interface import Verb, query, verb
from perdure.store.open import is_postgres
from perdure.store.verbs.runs import claims
from perdure.store.verbs.runs.claims import Beat, Held
from perdure.wire.base.errors import Unavailable

LEASE_US = 1_000_000_000
"""A lease too long to end except by a test's own clock."""


class StoodClock:
    """A clock of the store, moved only by a test."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self._us = served.engine.clock.now_us()
        monkeypatch.setattr(served.engine.clock, "now_us", lambda: self._us)

    def advance(self, share: float) -> None:
        """Move the clock by a share of a lease."""
        self._us += int(share * LEASE_US)


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    """The server's own reaper has gone round and stands still: a test grants and reaps itself."""
    async with serving(database, lease_seconds=LEASE_US / 1e6, poll_seconds=600.0) as served:
        absence = served.engine.absence
        await until(lambda: boottime_us() - absence.reaped_at_us < LEASE_US // 2)
        [task] = [task for task in served.engine._tasks if task.get_name() == "perdure-reap"]
        task.cancel()
        await asyncio.wait([task])
        served.engine.beat_us = 8_000  # beats on PostgreSQL wait for 1 ms at most
        yield served


@pytest.fixture
def clock(served: Served, monkeypatch: pytest.MonkeyPatch) -> StoodClock:
    return StoodClock(served, monkeypatch)


async def crew(served: Served, amount: int) -> list[Hand]:
    hands = [Hand(served.client) for _ in range(amount)]
    for hand in hands:
        await hand.register()
    return hands


async def left(served: Served, hand: Hand) -> float:
    """The shares of leases left in the store."""
    return (await served.lease_until_us(hand.id) - served.engine.clock.now_us()) / LEASE_US


async def reap(served: Served) -> int:
    now_us = served.engine.clock.now_us()
    await served.engine.beats.write_due(now_us)
    return await served.engine.store.write(claims.reap(now_us=now_us, limit=100))


def sqlite_only(database: str) -> None:
    if is_postgres(database):
        pytest.skip("on PostgreSQL each beat is written")


async def test_beats_on_a_file_are_written_together_before_half_a_lease_has_passed(
    served: Served, database: str, clock: StoodClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_only(database)
    hands = await crew(served, 10)
    writes: list[int] = []
    write = served.engine.beats._write

    async def counted(now_us: int, beat: Beat | None = None) -> Held | None:
        writes.append(now_us)
        return await write(now_us, beat)

    monkeypatch.setattr(served.engine.beats, "_write", counted)
    for _ in range(3):
        clock.advance(0.125)
        assert not any([(await hand.beat())["lost"] for hand in hands])
    assert not writes
    assert {await left(served, hand) for hand in hands} == {0.625}
    clock.advance(0.125)
    assert not any([(await hand.beat())["lost"] for hand in hands])
    assert len(writes) == 1  # the first wrote all, as of their beats before
    clock.advance(0.125)
    assert not any([(await hand.beat())["lost"] for hand in hands])
    assert len(writes) == 1
    assert min([await left(served, hand) for hand in hands]) >= 0.75


async def test_a_lease_in_memory_is_neither_lost_nor_longer(served: Served, clock: StoodClock) -> None:
    [hand, silent] = await crew(served, 2)
    clock.advance(0.25)
    await hand.beat()
    clock.advance(0.74)
    assert await reap(served) == 0
    clock.advance(0.02)  # the lease of the registration is over
    assert await reap(served) == 1 and (await silent.beat())["lost"]
    assert not (await hand.beat())["lost"]
    clock.advance(0.99)
    assert await reap(served) == 0
    clock.advance(0.02)
    assert (await hand.beat())["lost"]
    assert await reap(served) == 1


async def test_a_beat_that_comes_too_late_is_lost_however_the_lease_was_renewed(
    served: Served, clock: StoodClock
) -> None:
    [hand] = await crew(served, 1)
    clock.advance(0.25)
    await hand.beat()
    clock.advance(1.0)
    assert (await hand.beat())["lost"]


async def test_a_lease_that_seems_to_end_is_written_before_a_reader_sees_it_end(
    served: Served, clock: StoodClock
) -> None:
    [hand] = await crew(served, 1)
    clock.advance(0.25)
    await hand.beat()
    clock.advance(0.51)  # a quarter of the first lease is left
    assert await reap(served) == 0
    assert 0.48 < await left(served, hand) < 0.5


async def test_steps_in_flight_are_written_when_they_change(served: Served, clock: StoodClock) -> None:
    [hand] = await crew(served, 1)
    clock.advance(0.125)
    steps = [["id", "key", 1, 2]]
    for said in (steps, steps, []):
        await hand.say("beat", {"worker_id": hand.id, "epoch": hand.epoch, "in_flight": said})
        assert await served.engine.store.read(_any_steps(worker_id=hand.id)) == bool(said)


async def test_the_list_of_workers_shows_the_newest_beat(served: Served, clock: StoodClock) -> None:
    [hand] = await crew(served, 1)
    before = (await served.client.get("/api/v1/workers")).json()["workers"][0]
    clock.advance(0.25)
    await hand.beat()
    after = (await served.client.get("/api/v1/workers")).json()["workers"][0]
    assert after["state"] == "online"
    assert after["last_beat_at"] > before["last_beat_at"] and after["lease_until"] > before["lease_until"]


async def test_a_closed_connection_cuts_a_lease_in_memory_unless_a_later_beat_went_elsewhere(
    served: Served, clock: StoodClock
) -> None:
    beats, now_us = served.engine.beats, served.engine.clock.now_us
    stays, goes = await crew(served, 2)
    clock.advance(0.125)
    for hand in (stays, goes):
        await hand.beat()
    granted_us = now_us() + LEASE_US
    clock.advance(0.125)
    await stays.beat()
    for hand in (stays, goes):
        await beats.disconnected(hand.id, granted_us)
    assert await left(served, goes) * LEASE_US == 1_000_000
    assert await left(served, stays) >= 0.75
    clock.advance(0.01)
    assert (await goes.beat())["lost"] and not (await stays.beat())["lost"]


class LateRead:
    """Holds back what the next look at a lease has found."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found, self._goes_on = asyncio.Event(), asyncio.Event()
        read = served.engine.store.read

        async def late(verb: Verb[Any]) -> Any:
            answer = await read(verb)
            if verb.name == "read_lease" and not self.found.is_set():
                self.found.set()
                await self._goes_on.wait()
            return answer

        monkeypatch.setattr(served.engine.store, "read", late)

    def go_on(self) -> None:
        self._goes_on.set()


async def test_a_beat_that_comes_while_its_lease_is_cut_keeps_it(
    served: Served, database: str, clock: StoodClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's new connection opens before the server sees the old one's end."""
    sqlite_only(database)
    [hand] = await crew(served, 1)
    clock.advance(0.125)
    await hand.beat()
    granted_us = served.engine.clock.now_us() + LEASE_US
    clock.advance(0.125)
    late = LateRead(served, monkeypatch)
    beat = asyncio.create_task(hand.beat())
    await late.found.wait()
    await served.engine.beats.disconnected(hand.id, granted_us)
    late.go_on()
    assert not (await beat)["lost"]
    clock.advance(0.01)
    assert await reap(served) == 0
    assert not (await hand.beat())["lost"]


async def test_a_lease_that_is_being_written_can_be_cut(served: Served, database: str, clock: StoodClock) -> None:
    sqlite_only(database)
    [hand] = await crew(served, 1)
    clock.advance(0.25)
    await hand.beat()
    beats, now_us = served.engine.beats, served.engine.clock.now_us()
    await asyncio.gather(beats._write(now_us), beats.disconnected(hand.id, now_us + LEASE_US))
    assert await left(served, hand) * LEASE_US == 1_000_000


async def test_a_beat_is_not_lost_while_its_lease_is_granted(
    served: Served, database: str, clock: StoodClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_only(database)
    [hand] = await crew(served, 1)
    clock.advance(2.0)  # a jump: the reaper grants
    late = LateRead(served, monkeypatch)
    beat = asyncio.create_task(hand.beat())
    await late.found.wait()
    await served.engine.store.write(claims.grant_leases(until_us=served.engine.clock.now_us() + LEASE_US))
    late.go_on()
    assert not (await beat)["lost"]


async def test_a_lease_in_memory_does_not_last_longer_because_the_clock_went_back(
    served: Served, clock: StoodClock
) -> None:
    [silent, hand] = await crew(served, 2)
    clock.advance(0.25)
    await silent.beat()
    clock.advance(-3.0)
    served.engine.reaper._granting_until_us = 1  # the time to grant is over: now leases are limited
    await served.engine.reaper._round(away=False)
    clock.advance(0.75)
    assert not (await hand.beat())["lost"]
    assert await left(served, hand) == 1.0 and await left(served, silent) <= 0.25


async def test_a_beat_of_another_project_is_lost(served: Served) -> None:
    [hand] = await crew(served, 1)
    await served.start()
    item = await hand.claim()
    _, key = await served.other_project()

    async def foreign() -> Any:
        body = {"worker_id": hand.id, "epoch": hand.epoch}
        return (await served.client.post("/worker/v1/beat", json=body, headers={**key, "perdure-protocol": "1"})).json()

    served.engine.beat_us = 800_000
    replies = await asyncio.gather(foreign(), hand.beat(), foreign(), hand.beat(), foreign())
    assert [reply["lost"] for reply in replies] == [True, False, True, False, True]
    assert [reply["holding"] != [] for reply in replies] == [False, True, False, True, False]
    assert replies[1]["holding"][0][0] == item["id"]


async def test_a_worker_that_drained_is_lost(served: Served, clock: StoodClock) -> None:
    [hand] = await crew(served, 1)
    clock.advance(0.125)
    await hand.beat()
    await hand.say("drain", {"worker_id": hand.id, "epoch": hand.epoch})
    assert (await hand.beat())["lost"]
    clock.advance(0.74)
    assert await reap(served) == 0
    assert (await hand.beat())["lost"]


async def test_a_beat_lists_what_its_worker_holds(served: Served) -> None:
    hands = await crew(served, 3)
    items = []
    for hand in hands:
        await served.start()
        items.append(await hand.claim())
    for replies in (await asyncio.gather(*[hand.beat() for hand in hands]), [await hand.beat() for hand in hands]):
        assert [[one[0] for one in reply["holding"]] for reply in replies] == [[item["id"]] for item in items]


async def test_a_server_that_starts_grants_what_was_renewed_in_memory(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed server has not written its last beats."""
    sqlite_only(database)
    async with serving(database, lease_seconds=10.0) as served:
        clock = served.engine.clock
        [hand] = await crew(served, 1)
        at_us = clock.now_us() + 3_000_000
        monkeypatch.setattr(clock, "now_us", lambda: at_us)
        assert not (await hand.beat())["lost"]
        served.engine.beats._renewed.clear()
    async with serving(database, lease_seconds=10.0) as served:
        began = served.engine.absence.reaped_at_us
        await until(lambda: served.engine.absence.reaped_at_us > began)
        assert await served.lease_until_us(hand.id) > served.engine.clock.now_us() + 8_000_000


async def test_beats_on_postgresql_that_come_together_are_one_commit(
    served: Served, database: str, clock: StoodClock
) -> None:
    if not is_postgres(database):
        pytest.skip("a file has no commit for a beat")
    hands = await crew(served, 10)
    strangers = [Hand(served.client) for _ in range(2)]
    for stranger in strangers:
        stranger.epoch = hands[0].epoch
    clock.advance(0.25)
    served.engine.beat_us = 8_000_000
    groups = served.engine.store.groups
    replies = await asyncio.gather(*[hand.beat() for hand in [*hands, *strangers]])
    assert [reply["lost"] for reply in replies] == [False] * 10 + [True] * 2
    assert {await left(served, hand) for hand in hands} == {1.0}
    assert served.engine.store.groups - groups <= 6  # and not 12


async def test_a_locked_worker_does_not_delay_the_beats_of_others(served: Served, database: str) -> None:
    if not is_postgres(database):
        pytest.skip("a file has no locks of rows")
    hands = await crew(served, 3)
    now_us = served.engine.clock.now_us()
    beats = [Beat(served.project_id, hand.id, now_us) for hand in hands]
    async with held(database, "workers", hands[0].id):
        found = await served.engine.store.write(claims.beat_together(beats=beats, lease_us=LEASE_US))
    assert found == {hand.id: [] for hand in hands[1:]}


async def test_the_beats_after_a_locked_one_do_not_wait(served: Served, database: str) -> None:
    if not is_postgres(database):
        pytest.skip("a file has no locks of rows")
    hands = await crew(served, 3)
    async with held(database, "workers", hands[0].id):
        locked = asyncio.create_task(hands[0].beat())
        for _ in range(3):
            async with asyncio.timeout(10):
                replies = await asyncio.gather(*[hand.beat() for hand in hands[1:]])
            assert not any(reply["lost"] for reply in replies)
        assert not locked.done()
    assert not (await locked)["lost"]


async def test_a_beat_whose_request_has_ended_is_not_renewed_and_others_are(
    served: Served, database: str, clock: StoodClock
) -> None:
    if not is_postgres(database):
        pytest.skip("on a file no beat waits for others")
    hands = await crew(served, 3)
    clock.advance(0.25)
    served.engine.beat_us = 2_000_000
    beats, now_us = served.engine.beats, served.engine.clock.now_us()
    await hands[0].beat()
    tasks = [asyncio.create_task(beats._gather(Beat(served.project_id, hand.id, now_us))) for hand in hands]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [await left(served, hand) for hand in hands] == [1.0, 0.75, 1.0]


@verb(reads=True)
async def _any_steps(*, worker_id: str) -> bool:
    return bool(await query("worker_in_flight", worker_id=worker_id))


# --- the store is away ------------------------------------------------------------------------------------------------


class Outage:
    """The store takes no writes, and the reaper notices, until `end`, which is half a lease later."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self._engine = served.engine
        self._monkeypatch = monkeypatch

    async def begin(self) -> None:
        async def refuse(_: object) -> Any:
            raise Unavailable("The disk is full.")

        for name in ("write", "write_all"):
            self._monkeypatch.setattr(self._engine.store, name, refuse)

    def end(self) -> None:
        for name in ("write", "write_all"):
            self._monkeypatch.delattr(self._engine.store, name)
        absence = self._engine.absence
        assert absence.away_since_us
        absence.away_since_us -= LEASE_US // 2
        absence.reaped_at_us -= LEASE_US // 2


@pytest.fixture
def outage(served: Served, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(served, monkeypatch)


async def beat_status(served: Served, hand: Hand) -> str:
    body = {"worker_id": hand.id, "epoch": hand.epoch}
    reply = await served.client.post("/worker/v1/beat", json=body, headers={"perdure-protocol": "1"})
    told = reply.json()
    return f"{reply.status_code} {told['error_type']}" if "error_type" in told else f"lost: {told['lost']}"


async def test_after_an_outage_no_lease_is_lost_before_leases_count_anew(
    served: Served, clock: StoodClock, outage: Outage
) -> None:
    [hand] = await crew(served, 1)
    await served.start()
    item = await hand.claim()
    clock.advance(0.6)  # a file must be written, too
    await outage.begin()
    assert await beat_status(served, hand) == "503 STORE_AWAY"
    with pytest.raises(Unavailable):
        await served.engine.reaper.reap()
    clock.advance(0.6)
    outage.end()
    assert await beat_status(served, hand) == "503 STORE_AWAY"  # and not lost
    await served.engine.reaper.reap()
    assert await left(served, hand) == 1.0
    assert await beat_status(served, hand) == "lost: False"
    await served.engine.reaper.reap()
    assert (await hand.complete(item, 1))["ended"]
    clock.advance(1.01)
    assert await beat_status(served, hand) == "lost: True"


async def test_no_mark_hides_that_the_store_was_away(served: Served, clock: StoodClock, outage: Outage) -> None:
    """A fresh mark claims that a server could reap. No server could, so leases are granted first."""
    [hand] = await crew(served, 1)
    clock.advance(0.6)
    await outage.begin()
    assert await beat_status(served, hand) == "503 STORE_AWAY"
    with pytest.raises(Unavailable):
        await served.engine.reaper.reap()
    clock.advance(0.6)
    outage.end()
    assert not await served.engine.reaper._mark()
    await served.engine.reaper.reap()
    assert await left(served, hand) == 1.0


async def test_a_server_that_was_cut_off_alone_grants_nothing(
    served: Served, database: str, clock: StoodClock, outage: Outage
) -> None:
    if not is_postgres(database):
        pytest.skip("a file has one server")
    [hand] = await crew(served, 1)
    await outage.begin()
    with pytest.raises(Unavailable):
        await served.engine.reaper.reap()
    clock.advance(1.01)
    outage.end()
    assert await left(served, hand) < 0
    mark = claims.mark_reaper(now_us=served.engine.clock.now_us(), every_us=1, locked_us=1)
    assert await served.engine.store.write(mark)  # by another server
    await served.engine.reaper.reap()
    assert await beat_status(served, hand) == "lost: True"


async def test_the_connection_that_a_worker_leaves_in_an_outage_cuts_no_lease(
    served: Served, clock: StoodClock, outage: Outage
) -> None:
    [hand] = await crew(served, 1)
    clock.advance(0.6)
    await outage.begin()
    assert await beat_status(served, hand) == "503 STORE_AWAY"
    with pytest.raises(Unavailable):
        await served.engine.reaper.reap()
    await served.engine.beats.disconnected(hand.id)
    outage.end()
    assert await left(served, hand) == pytest.approx(0.4)


async def test_a_store_that_hangs_is_away(served: Served, clock: StoodClock, monkeypatch: pytest.MonkeyPatch) -> None:
    [hand] = await crew(served, 1)
    clock.advance(0.6)
    monkeypatch.setattr(served.engine.absence, "_lease_us", 4_000)  # a write of a millisecond hangs
    never = asyncio.Event()

    async def hang(_: object) -> Any:
        await never.wait()

    for name in ("write", "write_all"):
        monkeypatch.setattr(served.engine.store, name, hang)
    assert await beat_status(served, hand) == "503 STORE_AWAY"
