"""Lost workers: work goes on elsewhere, lost messages are no crashes, poison is contained (I9)."""

import asyncpg
import pytest
from msgspec import json
from tests.store.locks import held, without_waiting
from tests.store.world import (
    LEASE_US,
    PROJECT,
    RELEASE,
    SECOND,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    step,
)

from perdure.store.base.interface import Metric
from perdure.store.verbs.runs import claims
from perdure.store.verbs.runs.transitions import BACKOFF_MAX_US, LOSSES_MAX, UNDELIVERED_MAX
from perdure.wire.base.errors import LeaseLost
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Suspend


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register()


async def again(world: World, id: str, *, acknowledge: bool = True) -> None:
    """Lose the execution's worker and have the execution handed out again."""
    await world.lose()
    world.advance(BACKOFF_MAX_US / SECOND)
    await world.wake_due()
    await world.register()
    assert await world.claim_ids() == [id]
    if acknowledge:
        await world.acknowledge(id)


async def test_the_journal_survives_the_worker(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("s", 1)])
    await world.lose()
    assert (await world.journal(id))[-1].kind is Kind.LOST
    assert (await world.journal(id))[-1].name == "w"
    await world.register("w2")
    [claimed] = await world.claim("w2")
    assert (claimed.attempt, claimed.ack_first) == (2, True)
    assert [row.kind.value for row in claimed.rows] == ["claimed", "step", "lost", "claimed"]


async def test_the_first_loss_is_handed_out_at_once_and_later_ones_wait_longer(world: World) -> None:
    id = await world.running()
    waits: list[float] = []
    for _ in range(4):
        await world.lose()
        due_us = (await world.get(id)).due_at_us
        waits.append(0 if due_us is None else (due_us - world.now_us) / SECOND)
        if due_us is not None:
            world.now_us = due_us - 1
            await world.register()
            assert await world.claim_ids() == []
            world.now_us = due_us
            await world.wake_due()
        await world.register()
        assert await world.claim_ids() == [id]
        await world.acknowledge(id)
    assert waits[0] == 0 and all(most / 2 <= wait <= most for wait, most in zip(waits[1:], (1, 2, 4), strict=True))


async def test_those_that_were_lost_together_come_back_apart(world: World) -> None:
    """A poisonous execution would otherwise take its companions down each time, until all are given up."""
    ids = [await world.running() for _ in range(5)]
    await world.lose()
    await world.register()
    assert sorted(await world.claim_ids(capacity=5)) == sorted(ids), "the first time at once"
    for id in ids:
        await world.acknowledge(id)
    await world.lose()
    due = sorted([(await world.get(id)).due_at_us or 0 for id in ids])
    assert due[-1] - due[0] > SECOND // 20 and len(set(due)) == 5


async def test_five_losses_without_an_outcome_are_poison(world: World) -> None:
    id = await world.running()
    other = await world.running()
    await world.finish(other)
    for _ in range(LOSSES_MAX - 1):
        await again(world, id)
    await world.lose()
    execution = await world.get(id)
    assert execution.phase is Phase.FAILED
    assert (execution.error or "").startswith("POISONED: 5 workers were lost")
    detail = json.decode((await world.journal(id))[-1].value)
    assert (detail["code"], detail["worker"]) == ("POISONED", "w")
    assert Metric("poisoned") in world.hints
    await world.register()
    assert await world.claim_ids() == []


async def _recall(world: World, claim_id: str) -> int:
    return await world.store.write(
        claims.recall(project_id=PROJECT, worker_id="w", claim_id=claim_id, now_us=world.now_us)
    )


async def test_nothing_is_taken_back_from_a_worker_that_has_asked_on(world: World) -> None:
    """Another server may have heard the worker: the store holds the evidence."""
    ids = [await world.start() for _ in range(3)]
    assert len(await world.claim(capacity=1, claim_id="01")) == 1
    await world.store.write(claims.note_arrival(project_id=PROJECT, worker_id="w", claim_id="01"))
    assert await _recall(world, "01") == 0
    assert await world.claim(capacity=1, claim_id="01") == [], "a late copy"
    assert len(await world.claim(capacity=1, claim_id="02")) == 1
    await world.store.write(claims.note_arrival(project_id=PROJECT, worker_id="w", claim_id="01"))
    assert await _recall(world, "01") == 0
    assert len(await world.claim(capacity=1, claim_id="03")) == 1
    assert [await world.phase(id) for id in ids] == [Phase.RUNNING] * 3
    with pytest.raises(LeaseLost):
        await world.store.write(claims.note_arrival(project_id="other", worker_id="w", claim_id="03"))


async def test_only_what_was_never_acknowledged_is_taken_back_from_a_worker_that_is_silent(world: World) -> None:
    ids = [await world.start() for _ in range(2)]
    assert await world.claim(capacity=2, claim_id="1")
    await world.acknowledge(ids[0])
    assert [await _recall(world, claim) for claim in ("0", "1", "1")] == [0, 1, 0]
    assert [await world.phase(id) for id in ids] == [Phase.RUNNING, Phase.QUEUED]
    assert (await world.get(ids[1])).started_at_us is None, "it has not begun"
    await world.register("w2")
    [again] = await world.claim("w2")
    assert (again.id, again.attempt, again.ack_first) == (ids[1], 2, True)
    assert (await world.report(ids[1], [step("s", 1)], attempt=1)).lost
    await world.check()


# --- workers that were given up and are alive ------------------------------------------------------------------------


async def _is_alive(world: World, project: str = PROJECT) -> None:
    """The lost worker itself ends its registration."""
    await world.store.write(claims.drain(project_id=project, worker_id="w", now_us=world.now_us))


async def test_a_loss_does_not_count_once_its_worker_says_that_it_is_alive(world: World) -> None:
    """A starved machine lets leases of live workers run out."""
    id = await world.running()
    for _ in range(LOSSES_MAX + 3):
        await world.lose()
        assert [row.kind for row in await world.journal(id)][-1] is Kind.LOST
        await _is_alive(world)
        await _is_alive(world)  # it counts once, however often it speaks
        world.advance(BACKOFF_MAX_US / SECOND)
        await world.wake_due()
        await world.register()
        assert await world.claim_ids() == [id]
        await world.acknowledge(id)
    assert await world.phase(id) is Phase.RUNNING
    for _ in range(LOSSES_MAX - 1):
        await again(world, id)
    await world.lose()
    assert (await world.get(id)).error is not None, "workers that stay away count"
    await world.check()


async def test_an_execution_whose_workers_always_come_back_too_late_is_given_up(world: World) -> None:
    """The execution's code may keep its process from beating."""
    id = await world.running()
    for _ in range(UNDELIVERED_MAX - 1):
        await world.lose()
        await _is_alive(world)
        world.advance(BACKOFF_MAX_US / SECOND)
        await world.wake_due()
        await world.register()
        assert await world.claim_ids() == [id]
        await world.acknowledge(id)
    assert await world.phase(id) is Phase.RUNNING
    await world.beat("nobody")
    for _ in range(LOSSES_MAX):
        await world.lose()
        world.advance(BACKOFF_MAX_US / SECOND)
        await world.wake_due()
        await world.register()
        if not await world.claim_ids():
            break
        await world.acknowledge(id)
    assert (await world.get(id)).error is not None
    await world.check()


async def test_the_loss_that_poisons_waits_for_its_worker(world: World) -> None:
    id = await world.running()
    for _ in range(LOSSES_MAX - 1):
        await again(world, id)
    beside = await world.running()
    world.advance(LEASE_US / SECOND)
    assert await world.reap(patience_us=LEASE_US) == 0
    assert [await world.phase(one) for one in (id, beside)] == [Phase.RUNNING, Phase.QUEUED]
    await _is_alive(world)
    assert await world.phase(id) is Phase.QUEUED
    assert await world.reap(patience_us=LEASE_US) == 0
    for silent in (2 * LEASE_US,):
        world.advance(BACKOFF_MAX_US / SECOND)
        await world.wake_due()
        await world.register()
        assert id in await world.claim_ids(capacity=5)
        await world.acknowledge(id)
        assert (await world.get(id)).error is None
        world.advance(silent / SECOND)
        assert await world.reap(patience_us=LEASE_US) == 1
    assert ((await world.get(id)).error or "").startswith("POISONED: 5 workers")
    await world.check()


async def test_another_project_takes_no_loss_back(world: World) -> None:
    id = await world.running()
    for _ in range(LOSSES_MAX - 1):
        await again(world, id)
        await _is_alive(world, "another")
    assert await world.phase(id) is Phase.RUNNING, "nor does it end the registration"
    await world.lose()
    await _is_alive(world, "another")
    assert (await world.get(id)).error is not None


async def test_what_has_ended_stays_as_it_is_when_its_worker_says_that_it_is_alive(world: World) -> None:
    id = await world.running()
    await world.lose()
    await world.register("w2")
    assert await world.claim_ids("w2") == [id]
    await world.finish(id, "w2")
    before = await world.get(id)
    await _is_alive(world)
    assert await world.get(id) == before
    await world.check()


@pytest.mark.parametrize("what", ["step", "child", "event", "answer", "early event", "child's end", "timer"])
async def test_every_recorded_outcome_starts_the_count_anew(world: World, what: str) -> None:
    id = await world.running()
    if what == "child's end":
        [row] = (await world.report(id, [child("c")])).rows
    for _ in range(LOSSES_MAX - 1):
        await world.lose()
        world.advance(BACKOFF_MAX_US / SECOND)
        await world.wake_due()
        await world.register()
        assert id in await world.claim_ids(capacity=1)
        await world.acknowledge(id)
    if what == "step":
        await world.report(id, [step("s", 1)])
    elif what == "child":
        await world.report(id, [child("x")])
    elif what == "event":
        await world.report(id, [event_wait("k", "topic")])
        await world.publish("topic", 1)
    elif what == "early event":
        await world.publish("topic", 1)
        await world.report(id, [event_wait("k", "topic")])
    elif what == "answer":
        await world.report(id, [answer_wait("k")])
        await world.resume(id, "k")
    elif what == "child's end":
        await world.cancel(json.decode(row.value))
    else:
        await world.wait_for(id, due_us=world.now_us + 1)
        world.advance(1)
        await world.wake_due()
        await world.claim()
        await world.acknowledge(id)
    await world.lose()
    assert await world.phase(id) is Phase.QUEUED


@pytest.mark.parametrize("what", ["failed try", "end of a pause", "wait opened", "retry"])
async def test_what_is_no_outcome_does_not(world: World, what: str) -> None:
    id = await world.running()
    for _ in range(LOSSES_MAX - 1):
        await again(world, id)
    if what == "failed try":
        await world.report(id, [step("s", ok=False, last=False)])
    elif what == "wait opened":
        await world.report(id, [event_wait("k", "topic")])
    elif what == "retry":
        await world.report(id, end=failure(retry_delay_us=0))
        await world.claim()
        await world.acknowledge(id)
    else:
        await world.report(id, end=Suspend([], (None, world.now_us)))
        await world.wake_due()
        await world.claim()
        await world.acknowledge(id)
    await world.lose()
    assert await world.phase(id) is Phase.FAILED


async def test_a_delivery_that_was_never_acknowledged_is_no_crash(world: World) -> None:
    id = await world.start()
    await world.claim()
    for _ in range(3 * LOSSES_MAX):
        await again(world, id, acknowledge=False)
    assert Metric("deliveries_lost") in world.hints
    assert Metric("executions_lost") not in world.hints
    await world.acknowledge(id)
    await world.lose()
    assert await world.phase(id) is Phase.QUEUED


async def test_a_lost_delivery_is_forgiven_with_the_next_outcome_only(world: World) -> None:
    """A worker acknowledges each delivery before code runs until a step has an outcome. Releases change nothing."""
    id = await world.start()
    await world.claim()
    await again(world, id)
    for _ in range(2):
        await world.report(id, end=RELEASE)
        [claimed] = await world.claim()
        assert claimed.ack_first
    await world.report(id, [step("s", 1)])
    await world.report(id, end=RELEASE)
    assert not (await world.claim())[0].ack_first


async def test_even_lost_deliveries_have_a_bound(world: World) -> None:
    id = await world.start()
    await world.claim()
    for _ in range(UNDELIVERED_MAX - 1):
        await again(world, id, acknowledge=False)
    await world.lose()
    execution = await world.get(id)
    assert execution.phase is Phase.FAILED
    assert "100 deliveries in a row were never acknowledged" in (execution.error or "")


async def test_a_report_acknowledges_too(world: World) -> None:
    id = await world.start()
    await world.claim()
    await world.report(id, [step("s", ok=False, last=False)])
    await world.lose()
    assert Metric("executions_lost") in world.hints


async def test_a_drained_worker_hands_back_what_it_holds_and_counts_no_loss(world: World) -> None:
    held = [await world.running() for _ in range(3)]
    await world.cancel(held[2])
    await world.store.write(claims.drain(project_id="another", worker_id="w", now_us=world.now_us))
    assert await world.phase(held[0]) is Phase.RUNNING
    for _ in range(2):  # asking twice is harmless
        await world.store.write(claims.drain(project_id=PROJECT, worker_id="w", now_us=world.now_us))
    assert [await world.phase(id) for id in held] == [Phase.QUEUED, Phase.QUEUED, Phase.CANCELLED]
    assert (await world.journal(held[0]))[-1].kind is Kind.RELEASED
    with pytest.raises(LeaseLost):
        await world.claim()
    await world.register("w2")
    assert not any(claimed.ack_first for claimed in await world.claim("w2", 10))


async def test_what_a_worker_held_whose_process_died_is_lost_at_once(world: World) -> None:
    held = [await world.running() for _ in range(2)]
    await world.store.write(claims.drain(project_id="another", worker_id="w", now_us=world.now_us, died=True))
    assert await world.phase(held[0]) is Phase.RUNNING
    for _ in range(2):  # told twice, it counts once
        await world.store.write(claims.drain(project_id=PROJECT, worker_id="w", now_us=world.now_us, died=True))
    assert [await world.phase(id) for id in held] == [Phase.QUEUED, Phase.QUEUED]
    assert [(await world.journal(id))[-1].kind for id in held] == [Kind.LOST, Kind.LOST]
    assert world.hints.count(Metric("workers_lost")) == 1
    await world.register("w2")
    assert all(claimed.ack_first for claimed in await world.claim("w2", 10))


async def test_a_beat_keeps_the_lease_and_a_late_one_does_not(world: World) -> None:
    id = await world.running()
    world.advance(LEASE_US / SECOND - 1)
    assert await world.beat() == [(id, 1, 1)]
    world.advance(LEASE_US / SECOND - 1)
    assert await world.reap() == 0
    world.advance(1)
    assert await world.beat() is None
    assert await world.reap() == 1
    assert await world.beat() is None
    assert await world.beat("never registered") is None


async def test_a_cut_connection_shortens_the_lease_unless_a_beat_follows(world: World) -> None:
    await world.register("w2")
    for worker in ("w", "w2", "unknown"):
        await world.store.write(claims.cut_lease(worker_id=worker, until_us=world.now_us + SECOND))
    assert await world.beat("w2") == []
    world.advance(1)
    assert await world.reap() == 1
    assert await world.beat("w") is None
    assert await world.beat("w2") == []


async def test_a_cut_connection_leaves_a_lease_alone_that_was_renewed_over_another_one(world: World) -> None:
    """The beat reached another server before this server saw the old connection close."""
    granted_us = world.now_us + LEASE_US
    world.advance(3)
    assert await world.beat() == []
    until_us = world.now_us + SECOND
    await world.store.write(claims.cut_lease(worker_id="w", until_us=until_us, granted_us=granted_us))
    world.advance(2)
    assert await world.beat() == []
    granted_us = world.now_us + LEASE_US
    until_us = world.now_us + SECOND
    await world.store.write(claims.cut_lease(worker_id="w", until_us=until_us, granted_us=granted_us))
    world.advance(2)
    assert await world.beat() is None


async def test_after_an_absence_every_registration_gets_a_full_lease(world: World) -> None:
    id = await world.running()
    world.advance(3_600)
    await world.store.write(claims.grant_leases(until_us=world.now_us + LEASE_US))
    assert await world.reap() == 0
    assert await world.phase(id) is Phase.RUNNING
    await world.store.write(claims.grant_leases(until_us=1))  # never shortens one
    assert await world.beat() == [(id, 1, 1)]


async def test_whoever_was_absent_alone_grants_nothing(world: World) -> None:
    """A recent mark of the reaper's last round proves that a server was there."""
    half_us = LEASE_US // 2

    async def grants() -> bool:
        granted = claims.grant_leases(until_us=world.now_us + LEASE_US, unless_from_us=world.now_us - half_us)
        return await world.store.write(granted) is not None

    async def mark() -> None:
        await world.store.write(claims.mark_reaper(now_us=world.now_us, every_us=SECOND, locked_us=LEASE_US))

    assert await grants()  # nobody has reaped yet
    await mark()
    world.advance(half_us / SECOND)
    assert not await grants()
    world.advance(1)
    assert await grants()
    await mark()
    world.advance(-3_600)
    assert await grants()  # the clock went back
    await mark()
    assert not await grants()
    await mark()
    world.advance(7_200)
    assert await world.reap() == 1
    await mark()  # for nobody
    assert await grants()


async def test_when_the_clock_goes_back_no_lease_is_left_an_hour_long(world: World) -> None:
    await world.running()
    world.advance(-3_600)
    await world.store.write(claims.grant_leases(until_us=world.now_us + LEASE_US))
    await world.store.write(claims.limit_leases(until_us=world.now_us + LEASE_US))
    world.advance(LEASE_US / SECOND - 1)
    assert await world.reap() == 0
    world.advance(2)
    assert await world.reap() == 1


@pytest.mark.parametrize("step", [3_600, -3_600])
async def test_a_beat_to_a_server_that_has_not_seen_the_clock_step_shortens_no_lease(world: World, step: int) -> None:
    await world.running()
    for seconds in (step, -step, step, -step):  # the worker goes from one to the other
        assert await world.beat() is not None
        world.advance(seconds)
        await world.store.write(claims.grant_leases(until_us=world.now_us + LEASE_US))
        assert await world.beat() is not None
        world.advance(-seconds)
        assert await world.beat() is not None
        world.advance(seconds)


async def test_one_locked_registration_keeps_no_other_from_its_lease(
    world: World, database: str, on_postgresql: None
) -> None:
    """The verb counts a locked registration, so the engine repeats the grant or the cut before reaping."""
    await world.register("free")

    async def grant() -> int | None:
        return await world.store.write(claims.grant_leases(until_us=world.now_us + LEASE_US))

    async def limit() -> int:
        return await world.store.write(claims.limit_leases(until_us=world.now_us + LEASE_US))

    world.advance(3_600)
    async with held(database, "workers", "w"):
        async with without_waiting():
            assert await grant() == 1
        assert await world.beat("free") == []
    assert await grant() == 0
    assert await world.beat("w") == []
    world.advance(-3_600)
    async with held(database, "workers", "w"), without_waiting():
        assert await limit() == 1
    assert await limit() == 0
    world.advance(LEASE_US / SECOND)
    assert await world.reap() == 2


async def test_a_claim_under_way_keeps_no_registration_from_its_lease(
    world: World, database: str, on_postgresql: None
) -> None:
    """A claim locks the worker's row only to keep the registration from ending."""
    async with held(database, "workers", "w", "KEY SHARE"):
        assert await world.store.write(claims.grant_leases(until_us=world.now_us + 2 * LEASE_US)) == 0


async def test_a_locked_mark_is_another_server_s_and_after_a_while_somebody_s_lock(
    world: World, database: str, on_postgresql: None
) -> None:
    """If one server waits for a slow disk, the other must not reap; a lock by hand stops no reaper for long."""

    async def may_reap() -> bool:
        marks = claims.mark_reaper(now_us=world.now_us, every_us=SECOND, locked_us=LEASE_US)
        async with without_waiting():
            return await world.store.write(marks)

    assert await may_reap()
    async with held(database, "meta", claims.REAPED):
        assert await may_reap()  # the mark is fresh
        world.advance(1)
        assert not await may_reap()
        world.advance(LEASE_US / SECOND - 1.5)
        assert not await may_reap()
        world.advance(0.5)
        assert await may_reap()
        world.advance(-3_600)  # a mark from further ahead says nothing
        assert await may_reap()
    assert await may_reap()


async def test_embedded_workers_end_with_their_process_and_not_with_a_lease(world: World) -> None:
    await world.register("in process", embedded=True)
    id = await world.start()
    await world.claim("in process")
    await world.acknowledge(id, worker="in process")
    kept = await world.running()
    for _ in range(5):
        await world.live(10, "w")
        assert await world.reap() == 0
    await world.store.write(claims.end_embedded(now_us=world.now_us))
    assert await world.phase(id) is Phase.QUEUED
    assert await world.phase(kept) is Phase.RUNNING


async def test_the_reaper_does_not_touch_what_was_handed_on(world: World) -> None:
    """The execution may change hands while the reaper decides."""
    id = await world.running()
    await world.report(id, end=failure(retry_delay_us=0))
    await world.register("w2")
    await world.claim("w2")
    world.advance(1)
    await world.beat("w2")
    world.advance(LEASE_US / SECOND - 1)
    assert await world.reap() == 1
    assert (await world.get(id)).assigned_to_worker == "w2"
    assert await world.phase(id) is Phase.RUNNING


# --- what others have locked -----------------------------------------------------------------------------------------


async def test_one_locked_execution_keeps_no_other_from_being_taken_back(
    world: World, database: str, on_postgresql: None
) -> None:
    locked, free = await world.running(), await world.running()
    await world.register("w2")
    other = await world.running("w2")
    world.advance(LEASE_US / SECOND)
    async with held(database, "executions", locked):
        async with without_waiting():
            assert await world.reap() == 1  # "w" is not done yet
        assert [await world.phase(id) for id in (free, other)] == [Phase.QUEUED, Phase.QUEUED]
        assert await world.phase(locked) is Phase.RUNNING
        assert await world.beat() is None  # it is lost all the same
        async with without_waiting():
            assert await world.reap() == 0
    assert await world.reap() == 1
    assert await world.phase(locked) is Phase.QUEUED
    assert [row.kind for row in await world.journal(free)].count(Kind.LOST) == 1
    assert await world.reap() == 0
    await world.check()


@pytest.mark.parametrize("how", ["cancelling", "poisoned"])
async def test_an_end_that_a_locked_parent_would_hear_of_is_for_another_round(
    world: World, database: str, how: str, on_postgresql: None
) -> None:
    parent = await world.running()
    await world.report(parent, [child("c")])
    [kid] = await world.claim_ids()
    await world.acknowledge(kid)
    if how == "cancelling":
        await world.cancel(kid)
    else:
        connection = await asyncpg.connect(database)
        await connection.execute("UPDATE executions SET losses = $1 WHERE id = $2", LOSSES_MAX - 1, kid)
        await connection.close()
    world.advance(LEASE_US / SECOND)
    async with held(database, "executions", parent):
        async with without_waiting():
            assert await world.reap() == 0
        assert await world.phase(kid) in (Phase.RUNNING, Phase.CANCELLING)
    assert await world.reap() == 1
    assert await world.phase(kid) is (Phase.CANCELLED if how == "cancelling" else Phase.FAILED)
    await world.check()


async def test_a_loss_does_not_wait_for_a_parent_that_hears_nothing_of_it(
    world: World, database: str, on_postgresql: None
) -> None:
    parent = await world.running()
    await world.report(parent, [child("c")])
    [kid] = await world.claim_ids()
    await world.acknowledge(kid)
    world.advance(LEASE_US / SECOND)
    async with held(database, "executions", parent):
        async with without_waiting():
            assert await world.reap() == 0
        assert await world.phase(kid) is Phase.QUEUED
    assert await world.reap() == 1
