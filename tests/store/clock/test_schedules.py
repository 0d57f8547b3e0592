"""Schedules in the store: each due time once, whoever fires it, whatever the clock and the outages do."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from tests.store.locks import held, without_waiting
from tests.store.world import PROJECT, World, raw

from perdure.store.base.interface import Verb
from perdure.store.verbs import retention
from perdure.store.verbs.base.idempotency import At, Idempotency
from perdure.store.verbs.clock import schedules
from perdure.store.verbs.runs import find
from perdure.wire.base.errors import BadRequest, BadValue, KeyReused, NotFound, TooManySchedules, WorkflowNotFound
from perdure.wire.base.status import Phase
from perdure.wire.base.times import microseconds
from perdure.wire.clock.schedules import (
    WAITING_MAX,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    Fire,
    FireState,
    GetFires,
    GetSchedule,
    GetScheduledWorkflows,
    ListSchedules,
    Missed,
    Overlap,
    RunSchedule,
    ScheduleMade,
    ScheduleSpec,
    ScheduleStatus,
    StoredSchedule,
)
from perdure.wire.runs.executions import Execution, ListFilters
from perdure.wire.runs.requests import Complete

MINUTE = 60
HOUR = 3_600
NOON_US = microseconds(datetime(2026, 6, 1, 12, tzinfo=UTC))


def at(hour: int, minute: int = 0, day: int = 1) -> int:
    return microseconds(datetime(2026, 6, day, hour, minute, tzinfo=UTC))


class Planner:
    """Short words for schedules of a world; its time is noon of 1 June 2026."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.now_us = NOON_US

    async def make(self, cron: str = "*/15 * * * *", **fields: Any) -> str:
        spec = CreateSchedule(**{"workflow_id": "wf", "timezone": "UTC", "key": "k", "cron": cron, **fields})
        return (await self.world.store.write(schedules.make_schedule(self.world.at(), spec))).schedule_id

    async def get(self, id: str) -> StoredSchedule:
        return await self.world.store.read(schedules.get_schedule(self.world.at(), GetSchedule(id)))

    async def change(self, id: str, **fields: Any) -> StoredSchedule:
        return await self.world.store.write(schedules.change_schedule(self.world.at(), ChangeSchedule(id, **fields)))

    def firing(self, id: str, ids: int = 100) -> Verb[int | None]:
        fresh = [self.world.new_id() for _ in range(ids)]
        return schedules.fire_schedule(project_id=PROJECT, schedule_id=id, ids=fresh, now_us=self.world.now_us)

    async def fire(self, id: str, ids: int = 100) -> int:
        """Fire until nothing is left to fire, as the loop does; answers how many executions were started."""
        started = 0
        while id in [one for _, one, _ in (await self.due()).schedules]:
            fired = await self.world.store.write(self.firing(id, ids))
            started += fired or 0
        return started

    async def due(self) -> schedules.DueSchedule:
        return await self.world.store.read(schedules.due_schedules(now_us=self.world.now_us, limit=100))

    async def fires(self, id: str) -> list[Fire]:
        """Oldest first."""
        found = await self.world.store.read(schedules.list_fires(self.world.at(), GetFires(id, limit=1_000)))
        return found.fires[::-1]

    async def slots(self, id: str, *states: FireState) -> list[int]:
        wanted = states or (FireState.STARTED, FireState.DONE)
        return [fire.slot_us for fire in await self.fires(id) if fire.state in wanted]

    async def executions(self) -> list[Execution]:
        """Oldest first."""
        filters = ListFilters(workflow_id="wf")
        found, _ = await self.world.store.read(
            find.list_executions(project_id=PROJECT, filters=filters, before="~", limit=1_000)
        )
        return found[::-1]

    async def finish(self, id: str) -> None:
        """A worker completes an execution."""
        assert id in await self.world.claim_ids()
        await self.world.report(id, end=Complete(raw("done")))


@pytest.fixture
async def planner(world: World) -> Planner:
    planner = Planner(world)
    await world.register()
    return planner


# --- make, change, delete --------------------------------------------------------------------------------------------


async def test_a_schedule_starts_with_the_next_due_time(planner: Planner) -> None:
    id = await planner.make("0 9 * * *", timezone="Europe/Berlin")
    made = await planner.get(id)
    assert (made.next_at_us, made.last_slot_us) == (at(7, day=2), None)
    assert (made.status, made.overlap, made.missed) == (ScheduleStatus.ACTIVE, Overlap.QUEUE, Missed.LATEST)
    assert await planner.fire(id) == 0


async def test_the_same_definition_again_changes_nothing(planner: Planner) -> None:
    id = await planner.make()
    before = await planner.get(id)
    planner.world.advance(5 * MINUTE)
    assert await planner.make() == id
    assert await planner.get(id) == before


async def test_another_definition_replaces_it_and_keeps_what_it_does_not_name(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.SKIP, missed=Missed.ALL, missed_window_seconds=120, payload=raw({"a": 1}))
    assert await planner.make("0 * * * *") == id
    found = await planner.get(id)
    assert (found.cron, found.next_at_us) == ("0 * * * *", at(13))
    assert (found.overlap, found.missed, found.missed_window_seconds) == (Overlap.SKIP, Missed.ALL, 120)
    assert found.payload == raw({"a": 1})
    assert await planner.make("0 * * * *", payload=Raw(b"null")) == id
    assert (await planner.get(id)).payload is None


async def test_each_workflow_has_keys_of_its_own(planner: Planner) -> None:
    await planner.world.register("w", ("wf", "other"))
    ids = [await planner.make(), await planner.make(key="l"), await planner.make(workflow_id="other")]
    assert len(set(ids)) == 3
    listed = schedules.list_schedules(planner.world.at(), ListSchedules("wf"))
    assert [one.id for one in (await planner.world.store.read(listed)).items] == [ids[1], ids[0]]
    named = schedules.scheduled_workflows(planner.world.at(), GetScheduledWorkflows())
    assert (await planner.world.store.read(named)).items == ["other", "wf"]
    await planner.change(ids[2], status=ScheduleStatus.PAUSED)
    assert (await planner.world.store.read(named)).items == ["wf"]


async def test_a_workflow_that_nobody_has_is_refused(planner: Planner) -> None:
    with pytest.raises(BadRequest, match="'nothing' cannot be scheduled"):
        await planner.make(workflow_id="nothing")
    with pytest.raises(BadRequest, match=r"has it\. Did you mean 'wf'\?$"):
        await planner.make(workflow_id="wff")


async def test_before_the_first_deployment_any_workflow_may_be_scheduled(world: World) -> None:
    planner = Planner(world)
    id = await planner.make()
    world.advance(15 * MINUTE)
    assert await planner.fire(id) == 1
    [waits] = await planner.executions()
    assert (waits.phase, waits.deployment_id) == (Phase.QUEUED, None)
    await world.register()
    assert await world.claim_ids() == [waits.id]


async def test_a_project_has_so_many_schedules_and_no_more(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "SCHEDULES_MAX", 1)
    await planner.make()
    with pytest.raises(TooManySchedules):
        await planner.make(key="l")
    await planner.make("0 * * * *")  # no new one


async def test_a_repeated_request_gets_the_first_answer(planner: Planner) -> None:
    store, world = planner.world.store, planner.world

    def made(body: str) -> Verb[ScheduleMade]:
        spec = CreateSchedule("wf", "0 * * * *", "UTC", "k")
        same = Idempotency("POST", "again", body)
        return schedules.make_schedule(world.at(same), spec)

    id = (await store.write(made("body"))).schedule_id
    await store.write(schedules.delete_schedule(world.at(), DeleteSchedule(id)))
    assert await store.write(made("body")) == ScheduleMade(id), "the answer, not another schedule"
    with pytest.raises(KeyReused):
        await store.write(made("other body"))
    with pytest.raises(NotFound):
        await planner.get(id)


async def test_what_is_deleted_fires_no_more_and_leaves_its_executions(planner: Planner) -> None:
    id = await planner.make()
    planner.world.advance(15 * MINUTE)
    assert await planner.fire(id) == 1
    await planner.world.store.write(schedules.delete_schedule(planner.world.at(), DeleteSchedule(id)))
    planner.world.advance(15 * MINUTE)
    assert await planner.world.store.write(planner.firing(id)) is None
    assert (await planner.due()).schedules == []
    assert len(await planner.executions()) == 1
    for verb in (
        schedules.delete_schedule(planner.world.at(), DeleteSchedule(id)),
        schedules.change_schedule(planner.world.at(), ChangeSchedule(id)),
        schedules.run_schedule(planner.world.at(), RunSchedule(id)),
    ):
        with pytest.raises(NotFound):
            await planner.world.store.write(verb)


async def test_a_change_to_what_makes_no_sense_is_refused_whole(planner: Planner) -> None:
    id = await planner.make()
    before = await planner.get(id)
    with pytest.raises(BadValue, match="timezone"):
        await planner.change(id, timezone="Mars/Olympus", overlap=Overlap.SKIP)
    assert await planner.get(id) == before


# --- fire ------------------------------------------------------------------------------------------------------------


async def test_a_due_time_starts_an_execution_that_says_where_it_comes_from(planner: Planner) -> None:
    id = await planner.make("30 14 * * *", timezone="Europe/Berlin", key="daily")
    planner.world.now_us = at(12, 30)
    assert await planner.fire(id) == 1
    [execution] = await planner.executions()
    assert json.loads(bytes(execution.payload)) == {
        "timestamp": "2026-06-01T14:30:00+02:00",
        "last_timestamp": None,
        "timezone": "Europe/Berlin",
        "schedule_id": id,
        "key": "daily",
        "upcoming": "2026-06-02T14:30:00+02:00",
    }
    assert (execution.queue_name, execution.concurrency_key) == ("wf", "daily")
    assert (execution.key, execution.deployment_id) == ("daily@2026-06-01T12:30Z", "d")
    [fire] = await planner.fires(id)
    assert (fire.slot_us, fire.state, fire.execution_id) == (at(12, 30), FireState.STARTED, execution.id)
    assert ((await planner.get(id)).next_at_us, (await planner.get(id)).last_slot_us) == (at(12, 30, 2), at(12, 30))
    planner.world.now_us = at(12, 30, 2)
    await planner.finish(execution.id)
    await planner.fire(id)
    assert json.loads(bytes((await planner.executions())[1].payload))["last_timestamp"] == "2026-06-01T14:30:00+02:00"


async def test_an_input_of_its_own_goes_before_that(planner: Planner) -> None:
    id = await planner.make(payload=raw({"region": "eu"}))
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    assert (await planner.executions())[0].payload == raw({"region": "eu"})


async def test_the_current_deployment_runs_what_is_due(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.ALLOW)
    await planner.world.register("v", deployment="newer")
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    assert (await planner.executions())[0].deployment_id == "newer"


async def test_a_due_time_that_nobody_can_run_is_skipped_and_says_why(planner: Planner) -> None:
    id = await planner.make()
    await planner.world.register("w", ("other",))
    planner.world.advance(15 * MINUTE)
    assert await planner.fire(id) == 0
    [fire] = await planner.fires(id)
    assert fire.state is FireState.SKIPPED and fire.reason is not None
    assert "'wf' is not registered in deployment 'd'" in fire.reason
    await planner.world.register()
    planner.world.advance(15 * MINUTE)
    assert await planner.fire(id) == 1


async def test_what_waits_for_its_turn_is_skipped_when_nobody_can_run_it_any_more(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.QUEUE)
    for _ in range(5):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    await planner.finish((await planner.executions())[0].id)
    await planner.world.register("w", ("other",))
    assert await planner.fire(id, 2) == 0
    assert await planner.slots(id, FireState.WAITING) == []
    assert await planner.slots(id, FireState.SKIPPED) == [at(12, 30), at(12, 45), at(13), at(13, 15)]


async def test_many_fire_at_once_and_each_due_time_is_fired_once(planner: Planner) -> None:
    ids = [await planner.make(key=f"k{n}", overlap=Overlap.ALLOW) for n in range(10)]
    for _ in range(8):
        planner.world.advance(15 * MINUTE)
        verbs = [planner.firing(id, 2) for _ in range(5) for id in ids]
        answers = await planner.world.store.write_all(verbs)
        assert sum(answer for answer in answers if isinstance(answer, int)) == 10
    expected = [at(12 + minute // 60, minute % 60) for minute in range(15, 121, 15)]
    for id in ids:
        assert await planner.slots(id) == expected
    assert len(await planner.executions()) == 80


# --- pause -----------------------------------------------------------------------------------------------------------


async def test_what_passes_in_a_pause_is_not_missed(planner: Planner) -> None:
    id = await planner.make(missed=Missed.ALL)
    assert (await planner.change(id, status=ScheduleStatus.PAUSED)).status is ScheduleStatus.PAUSED
    planner.world.advance(3 * HOUR)
    assert await planner.fire(id) == 0
    assert await planner.world.store.write(planner.firing(id)) is None
    assert (await planner.change(id, status=ScheduleStatus.ACTIVE)).next_at_us == at(15, 15)
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    assert await planner.slots(id) == [at(15, 15)]


async def test_a_pause_outlives_a_new_definition(planner: Planner) -> None:
    id = await planner.make()
    await planner.change(id, status=ScheduleStatus.PAUSED)
    assert await planner.make("0 * * * *") == id
    assert (await planner.get(id)).status is ScheduleStatus.PAUSED


# --- overlap ---------------------------------------------------------------------------------------------------------


async def test_queue_starts_one_after_the_other_in_order(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.QUEUE)
    for _ in range(3):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    assert await planner.slots(id, FireState.WAITING) == [at(12, 30), at(12, 45)]
    assert (await planner.due()).waiting_workflows == {"wf"}
    for minute in (15, 30, 45):
        [execution] = await planner.world.store.read(_open_of(planner))
        assert json.loads(bytes(execution.payload))["timestamp"] == f"2026-06-01T12:{minute}:00Z"
        await planner.finish(execution.id)
        await planner.fire(id)
    assert await planner.slots(id) == [at(12, 15), at(12, 30), at(12, 45)]
    assert len(await planner.executions()) == 3


def _open_of(planner: Planner) -> Verb[Any]:
    from perdure.store.base.interface import verb

    @verb(reads=True)
    async def open_executions() -> list[Execution]:
        filters = ListFilters(workflow_id="wf", phases=["queued", "running", "waiting"])
        found, _ = await find.list_executions(project_id=PROJECT, filters=filters, before="~", limit=10).start()
        return list(found)

    return open_executions()


async def test_what_comes_later_does_not_overtake_what_waits(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.QUEUE)
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    await planner.finish((await planner.executions())[0].id)
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    assert await planner.slots(id, FireState.STARTED) == [at(12, 30)]
    assert await planner.slots(id, FireState.WAITING) == [at(12, 45)]


async def test_skip_starts_nothing_beside_an_open_one(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.SKIP)
    for _ in range(3):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    assert await planner.slots(id) == [at(12, 15)]
    assert await planner.slots(id, FireState.SKIPPED) == [at(12, 30), at(12, 45)]
    await planner.finish((await planner.executions())[0].id)
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    assert await planner.slots(id) == [at(12, 15), at(13)]


async def test_allow_starts_them_side_by_side(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.ALLOW)
    for _ in range(3):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    assert await planner.slots(id, FireState.STARTED) == [at(12, 15), at(12, 30), at(12, 45)]


async def test_a_cancelled_execution_lets_the_next_go(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.QUEUE)
    for _ in range(2):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    await planner.world.cancel((await planner.executions())[0].id)
    assert await planner.fire(id) == 1
    assert await planner.slots(id, FireState.STARTED) == [at(12, 30)]


async def test_so_many_wait_and_no_more(planner: Planner) -> None:
    id = await planner.make("* * * * *", overlap=Overlap.QUEUE)
    for _ in range(WAITING_MAX + 3):
        planner.world.advance(MINUTE)
        await planner.world.store.write(planner.firing(id, 2))
    assert len(await planner.slots(id, FireState.WAITING)) == WAITING_MAX
    last = (await planner.fires(id))[-1]
    assert last.state is FireState.SKIPPED and last.reason == "100 fires were waiting already"


async def test_a_pause_holds_back_what_waits(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.QUEUE)
    for _ in range(2):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    await planner.change(id, status=ScheduleStatus.PAUSED)
    await planner.finish((await planner.executions())[0].id)
    assert await planner.fire(id) == 0
    await planner.change(id, status=ScheduleStatus.ACTIVE)
    assert await planner.fire(id) == 1


# --- run now ---------------------------------------------------------------------------------------------------------


async def test_run_now_starts_one_at_once_and_moves_no_due_time(planner: Planner) -> None:
    id = await planner.make()
    planner.world.now_us = at(12, 15)
    await planner.fire(id)
    before = await planner.get(id)
    for _ in range(2):  # at the very moment of a slot, twice, beside an open one
        started = await planner.world.store.write(schedules.run_schedule(planner.world.at(), RunSchedule(id)))
        assert started.created_at_us == planner.world.now_us
    assert await planner.get(id) == before
    assert len(await planner.executions()) == 3
    assert {fire.state for fire in await planner.fires(id)} == {FireState.STARTED}
    assert [fire.by_hand for fire in await planner.fires(id)] == [False, True, True]
    planner.world.advance(15 * MINUTE)
    await planner.fire(id)
    assert await planner.slots(id, FireState.WAITING) == [at(12, 30)]


async def test_run_now_is_answered_again_when_it_is_sent_again(planner: Planner) -> None:
    id = await planner.make()

    async def run() -> str:
        verb = schedules.run_schedule(planner.world.at(Idempotency("run", "key", "hash")), RunSchedule(id))
        return (await planner.world.store.write(verb)).execution_id

    first = await run()
    planner.world.advance(1)
    assert await run() == first
    assert len(await planner.executions()) == 1


async def test_run_now_of_what_nobody_has_is_refused(planner: Planner) -> None:
    id = await planner.make()
    await planner.world.register("w", ("other",))
    run = schedules.run_schedule(planner.world.at(), RunSchedule(id))
    with pytest.raises(WorkflowNotFound):
        await planner.world.store.write(run)
    assert await planner.fires(id) == []


# --- outages ---------------------------------------------------------------------------------------------------------

DOWN_OVER_FIVE = [
    # At 13:20 nobody has looked since noon: 12:15 to 13:15 have passed, the last one five minutes ago.
    (Missed.SKIP, None, []),
    (Missed.LATEST, None, [at(13, 15)]),
    (Missed.ALL, None, [at(12, 15), at(12, 30), at(12, 45), at(13), at(13, 15)]),
    (Missed.ALL, 40 * MINUTE, [at(12, 45), at(13), at(13, 15)]),
    (Missed.ALL, MINUTE, []),
]


@pytest.mark.parametrize(("missed", "window", "expected"), DOWN_OVER_FIVE)
async def test_what_passed_in_an_outage(
    planner: Planner, missed: Missed, window: int | None, expected: list[int]
) -> None:
    id = await planner.make(missed=missed, missed_window_seconds=window, overlap=Overlap.ALLOW)
    planner.world.now_us = at(13, 20)
    assert await planner.fire(id) == len(expected)
    assert await planner.slots(id) == expected
    assert (await planner.get(id)).next_at_us == at(13, 30)


@pytest.mark.parametrize("missed", Missed)
async def test_what_is_less_than_a_minute_late_is_not_missed(planner: Planner, missed: Missed) -> None:
    id = await planner.make(missed=missed)
    planner.world.now_us = at(12, 15) + 59_999_999
    await planner.fire(id)
    assert await planner.slots(id) == [at(12, 15)]


@pytest.mark.parametrize("missed", Missed)
async def test_the_one_that_is_on_time_is_fired_whatever_was_missed_before(planner: Planner, missed: Missed) -> None:
    id = await planner.make(missed=missed, overlap=Overlap.ALLOW)
    planner.world.now_us = at(13) + 1
    await planner.fire(id)
    found = await planner.slots(id)
    assert found[-1] == at(13)
    assert len(found) == (4 if missed is Missed.ALL else 1)


async def test_a_long_outage_is_made_up_for_in_parts(planner: Planner) -> None:
    id = await planner.make("* * * * *", missed=Missed.ALL, overlap=Overlap.ALLOW)
    planner.world.advance(2 * HOUR)
    first = await planner.world.store.write(planner.firing(id, 51))
    assert first == 50
    assert (await planner.get(id)).next_at_us == at(12, 51)
    assert await planner.fire(id, 51) == 70
    assert await planner.slots(id) == [NOON_US + n * 60_000_000 for n in range(1, 121)]


async def test_years_of_missed_minutes_cost_no_more_than_one(planner: Planner) -> None:
    id = await planner.make("* * * * *")
    planner.world.advance(3 * 366 * 24 * HOUR + 30)
    assert await planner.fire(id) == 1
    assert await planner.slots(id) == [planner.world.now_us - 30_000_000]


# --- clocks ----------------------------------------------------------------------------------------------------------


async def walk(planner: Planner, id: str, clock: Sequence[int]) -> None:
    for now_us in clock:
        planner.world.now_us = now_us
        await planner.fire(id)


@pytest.mark.parametrize("missed", Missed)
@pytest.mark.parametrize("step_us", [HOUR * 1_000_000, -HOUR * 1_000_000])
async def test_a_clock_that_steps_an_hour_around_a_slot_fires_it_once(
    planner: Planner, missed: Missed, step_us: int
) -> None:
    """A step of the clock covers one slot or none, so nothing is missed."""
    id = await planner.make("10 * * * *", missed=missed, overlap=Overlap.ALLOW)
    second = 1_000_000
    before = range(at(12, 9) + 50 * second, at(12, 10) + 10 * second, 5 * second)
    stepped = [now_us + step_us for now_us in range(at(12, 10) + 10 * second, at(12, 10) + 30 * second, 5 * second)]
    after = range(at(12, 10) + 30 * second, at(15, 11), 20 * second)
    await walk(planner, id, [*before, *stepped, *after])
    assert await planner.slots(id) == [at(12, 10), at(13, 10), at(14, 10), at(15, 10)]
    assert len(await planner.executions()) == 4


async def test_a_clock_that_went_back_fires_nothing_twice_even_when_the_definition_changes(planner: Planner) -> None:
    id = await planner.make("*/15 * * * *", overlap=Overlap.SKIP)
    await walk(planner, id, [at(12, 15), at(12, 30), at(12, 45)])
    planner.world.now_us = at(12, 1)
    await planner.make("*/5 * * * *")
    await walk(planner, id, [at(12, minute) for minute in range(1, 60)])
    found = await planner.fires(id)
    assert len({fire.slot_us for fire in found}) == len(found)
    [only] = await planner.executions()
    # What was skipped stays so, though nothing is in its way when its time comes again.
    await planner.world.cancel(only.id)
    planner.world.now_us = at(12, 16)
    await planner.make("*/15 * * * *")
    planner.world.now_us = at(12, 45)
    await planner.fire(id)
    assert await planner.slots(id, FireState.SKIPPED) == [at(12, minute) for minute in range(20, 60, 5)]


# --- declared in code ------------------------------------------------------------------------------------------------


def spec(key: str = "default", cron: str = "0 * * * *", **fields: Any) -> ScheduleSpec:
    return ScheduleSpec("wf", cron, "UTC", key, **fields)


async def keys(planner: Planner) -> dict[str, str]:
    listed = schedules.list_schedules(planner.world.at(), ListSchedules())
    return {one.key: one.cron for one in (await planner.world.store.read(listed)).items}


async def test_a_registration_brings_its_schedules_and_takes_back_what_it_no_longer_declares(planner: Planner) -> None:
    await planner.make(key="by hand")
    await planner.world.register(schedules=[spec("a"), spec("b", "5 * * * *")])
    assert await keys(planner) == {"by hand": "*/15 * * * *", "a": "0 * * * *", "b": "5 * * * *"}
    await planner.world.register("second", schedules=[spec("a", "1 * * * *")])
    assert await keys(planner) == {"by hand": "*/15 * * * *", "a": "1 * * * *"}
    await planner.world.register("third")
    assert await keys(planner) == {"by hand": "*/15 * * * *"}


async def test_a_registration_that_declares_the_same_changes_nothing(planner: Planner) -> None:
    await planner.world.register(schedules=[spec()])
    [before] = (await planner.world.store.read(schedules.list_schedules(planner.world.at(), ListSchedules()))).items
    await planner.change(before.id, status=ScheduleStatus.PAUSED, overlap=Overlap.SKIP)
    paused = await planner.get(before.id)
    planner.world.advance(2 * HOUR)
    await planner.world.register("second", schedules=[spec()])
    after = await planner.get(before.id)
    assert replace(after, next_at_us=paused.next_at_us) == paused


async def test_older_deployments_have_no_say_in_schedules(planner: Planner) -> None:
    planner.world.advance(1)
    await planner.world.register("new", deployment="newer", schedules=[spec("a")])
    planner.world.advance(1)
    await planner.world.register("w", schedules=[spec("b")])
    assert await keys(planner) == {"a": "0 * * * *"}


# --- somebody has locked a row --------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
async def test_a_locked_fire_keeps_no_other_schedule_waiting(
    planner: Planner, overlap: Overlap, database: str, on_postgresql: None
) -> None:
    """The fire waits until its lock is free. No slot is lost, skipped, or fired out of turn."""
    locked, free = [await planner.make(key=key, overlap=overlap) for key in ("a", "b")]
    for _ in range(2):  # with QUEUE one waits then
        planner.world.advance(15 * MINUTE)
        for id in (locked, free):
            await planner.fire(id)
    for execution in await planner.executions():
        await planner.world.cancel(execution.id)
    planner.world.advance(15 * MINUTE)
    before = await planner.fires(locked)
    async with held(database, "schedule_fires", locked):
        async with without_waiting():
            fired, other = await planner.world.store.write_all([planner.firing(id) for id in (locked, free)])
        assert (fired, other) == (None, 1)
        assert [one.slot_us for one in await planner.fires(locked)] == [one.slot_us for one in before]
    assert await planner.fire(locked) == 1
    assert [(one.slot_us, one.state) for one in await planner.fires(locked)] == [
        (one.slot_us, one.state) for one in await planner.fires(free)
    ]


# --- keeping ---------------------------------------------------------------------------------------------------------


async def prune(planner: Planner) -> None:
    """Delete all that is over."""
    before_us = planner.world.now_us + 1
    await planner.world.store.write(
        retention.prune(
            after=("", ""),
            finished_before_us=before_us,
            idempotency_before_us=before_us,
            now_us=planner.world.now_us,
            limit=100,
        )
    )


async def test_fires_of_long_ago_are_deleted_and_open_ones_stay(planner: Planner) -> None:
    id = await planner.make(overlap=Overlap.QUEUE)
    for _ in range(3):
        planner.world.advance(15 * MINUTE)
        await planner.fire(id)
    await planner.finish((await planner.executions())[0].id)
    await planner.fire(id)
    assert [fire.state for fire in await planner.fires(id)] == ["done", "started", "waiting"]
    await prune(planner)
    assert [fire.state for fire in await planner.fires(id)] == ["started", "waiting"]


async def test_a_locked_fire_keeps_no_other_from_being_deleted(
    planner: Planner, database: str, on_postgresql: None
) -> None:
    locked, free = [await planner.make(key=key) for key in ("a", "b")]
    planner.world.advance(15 * MINUTE)
    for id in (locked, free):
        await planner.fire(id)
    for execution in await planner.executions():
        await planner.world.cancel(execution.id)
    for id in (locked, free):
        await planner.world.store.write(planner.firing(id))
    async with held(database, "schedule_fires", locked):
        async with without_waiting():
            await prune(planner)
        assert [len(await planner.fires(id)) for id in (locked, free)] == [1, 0]
    await prune(planner)
    assert await planner.fires(locked) == []


async def test_other_projects_schedules_do_not_exist(planner: Planner) -> None:
    id, elsewhere = await planner.make(), At("other", 1, "x")
    for verb in (
        schedules.get_schedule(elsewhere, GetSchedule(id)),
        schedules.list_fires(elsewhere, GetFires(id)),
        schedules.change_schedule(elsewhere, ChangeSchedule(id)),
        schedules.delete_schedule(elsewhere, DeleteSchedule(id)),
        schedules.run_schedule(elsewhere, RunSchedule(id)),
    ):
        with pytest.raises(NotFound):
            await planner.world.store.write(verb)


# --- lives at random -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_each_due_time_is_fired_at_most_once_and_in_turn(
    planner: Planner, seed: int, overlap: Overlap
) -> None:
    """The clock goes on and back, servers race, people pause, change and run by hand, executions end when they like."""
    dice = random.Random(f"{seed} {overlap}")
    world = planner.world
    id = await planner.make("*/5 * * * *", overlap=overlap, missed=Missed.ALL)
    by_hand: set[str] = set()
    for _ in range(150):
        match dice.choice(["on"] * 6 + ["fire"] * 5 + ["end"] * 3 + ["back", "race", "pause", "change", "run"]):
            case "on":
                world.advance(dice.choice([7, 300, 900, 3_000]))
            case "back":
                world.now_us = max(NOON_US, world.now_us - dice.choice([60, 3_600]) * 1_000_000)
            case "fire":
                await world.store.write(planner.firing(id, dice.choice([2, 3, 100])))
            case "race":
                await world.store.write_all([planner.firing(id, 3) for _ in range(4)])
            case "pause":
                await planner.change(id, status=dice.choice([ScheduleStatus.PAUSED] + [ScheduleStatus.ACTIVE] * 2))
            case "change":
                await planner.make(dice.choice(["*/5 * * * *", "*/15 * * * *", "3 * * * *"]), overlap=overlap)
            case "run":
                fresh = world.new_id()
                by_hand.add(fresh)
                run = schedules.run_schedule(At(PROJECT, world.now_us, fresh), RunSchedule(id))
                await world.store.write(run)
            case "end":
                still_open = [one for one in await planner.executions() if one.completed_at_us is None]
                if still_open:
                    await world.cancel(dice.choice(still_open).id)
        executions = await planner.executions()
        open_ones = [one for one in executions if one.completed_at_us is None and one.id not in by_hand]
        assert overlap is Overlap.ALLOW or len(open_ones) <= 1
        fires = [fire for fire in await planner.fires(id) if not fire.by_hand]
        slots = [fire.slot_us for fire in fires]
        assert len(set(slots)) == len(slots)
        assert sorted(fire.execution_id for fire in fires if fire.execution_id) == sorted(
            one.id for one in executions if one.id not in by_hand
        )
        keys = [one.key for one in executions if one.key is not None]
        assert len(set(keys)) == len(keys) == len(executions) - len(by_hand)
        next_at_us = (await planner.get(id)).next_at_us
        assert all(fire.slot_us < next_at_us for fire in fires if fire.execution_id)
    assert by_hand and any(fire.execution_id for fire in fires), "it proves something"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_load_no_due_time_is_lost(planner: Planner, seed: int) -> None:
    """Nobody pauses or changes anything and the clock never goes back: all slots of the window are fired, in order."""
    dice = random.Random(seed)
    id = await planner.make("*/5 * * * *", overlap=Overlap.ALLOW, missed=Missed.ALL)
    for _ in range(60):
        planner.world.advance(dice.choice([1, 30, 299, 300, 301, 4_000]))
        if dice.random() < 0.6:
            verbs = [planner.firing(id, dice.choice([2, 3, 100])) for _ in range(dice.choice([1, 1, 3]))]
            await planner.world.store.write_all(verbs)
    await planner.fire(id)
    expected = list(range(NOON_US + 300_000_000, planner.world.now_us + 1, 300_000_000))
    assert await planner.slots(id) == expected
    assert len(expected) > 100
