"""Answers to Idempotency-Keys: how long they stay."""

from collections.abc import Awaitable, Callable

import pytest
from tests.store.pushing import PushWorld
from tests.store.world import PROJECT, World, raw

from perdure.store.base.interface import query, verb
from perdure.store.verbs import retention
from perdure.store.verbs.base import idempotency
from perdure.store.verbs.base.idempotency import Idempotency
from perdure.store.verbs.clock import schedules
from perdure.store.verbs.outside import push_reports
from perdure.store.verbs.people import accounts
from perdure.store.verbs.runs import events
from perdure.store.verbs.runs.starts import New
from perdure.wire.clock.schedules import CreateSchedule, RunSchedule
from perdure.wire.people.projects import Project
from perdure.wire.runs.requests import EventItem, Started, StartItem

DAY_US = 86_400_000_000
HOUR = 3_600
Ask = Callable[[], Awaitable[str]]
KEY = Idempotency("route", "key", "hash")


async def sweep(world: World, limit: int = 500, retention_days: float = 30) -> int:
    """Walk the whole retention; returns the count of rounds."""
    after, rounds = ("", ""), 0
    while True:
        _, after, more = await world.store.write(
            retention.prune(
                after=after,
                finished_before_us=world.now_us - int(retention_days * DAY_US),
                idempotency_before_us=world.now_us - DAY_US,
                now_us=world.now_us,
                limit=limit,
            )
        )
        rounds += 1
        if not more:
            return rounds


async def hours(world: World, amount: int) -> None:
    """Let hours pass, with a sweep in each."""
    for _ in range(amount):
        world.advance(HOUR)
        await sweep(world)


async def end(world: World, *ids: str) -> None:
    for id in ids:
        await world.cancel(id)


def one(world: World, name: str = "key") -> Ask:
    async def ask() -> str:
        [answer] = await world.answers([StartItem("wf")], Idempotency("start", name, "hash"))
        assert isinstance(answer, Started)
        return answer.execution_id

    return ask


async def of_a_start(world: World) -> Ask:
    await world.register()
    return one(world)


async def of_a_batch(world: World) -> Ask:
    await world.register()

    async def ask() -> str:
        return (await world.batch([StartItem("wf")], KEY))[0].execution_id

    return ask


async def of_a_schedule(world: World) -> Ask:
    await world.register()
    spec = CreateSchedule("wf", "0 * * * *", "UTC", "k")
    id = (await world.store.write(schedules.make_schedule(world.at(), spec))).schedule_id

    async def ask() -> str:
        run = schedules.run_schedule(world.at(KEY), RunSchedule(id))
        return (await world.store.write(run)).execution_id

    return ask


async def of_a_step(world: World) -> Ask:
    await PushWorld(world).register()
    parent = await world.start()

    async def ask() -> str:
        item = StartItem("wf", parent_execution_id=parent, step_key="step")
        children = push_reports.start_children(
            project_id=PROJECT,
            parent_id=parent,
            step_key="step",
            news=[New(world.new_id(), item)],
            batch_id=None,
            wait=False,
            now_us=world.now_us,
            idempotency=KEY,
        )
        return (await world.store.write(children))[0].execution_id

    return ask


STARTS = [of_a_start, of_a_batch, of_a_schedule, of_a_step]


async def kept(world: World) -> bool:
    """Whether the only answer is still there."""
    return bool(await answers_before(world, 1 << 60))


async def answers_before(world: World, before_us: int) -> int:
    """Count the answers older than `before_us`."""
    return len(await world.store.write(_rows(before_us=before_us)))


@verb(reads=True)
async def _rows(*, before_us: int) -> list[tuple[object, ...]]:
    return await query("oldest_answers", before_us=before_us, limit=100)


@pytest.mark.parametrize("prepare", STARTS, ids=lambda one: one.__name__)
async def test_an_answer_stands_until_a_day_after_the_end_of_what_it_started(
    world: World, prepare: Callable[[World], Awaitable[Ask]]
) -> None:
    ask = await prepare(world)
    id = await ask()
    await hours(world, 30)
    assert await ask() == id, "still open after more than a day"
    await hours(world, 30)
    await end(world, id)
    await hours(world, 24)
    assert await ask() == id, "a day after the end, it just stands"
    await hours(world, 1)
    assert not await kept(world)


async def test_the_day_after_the_end_is_exact_whenever_the_sweep_has_looked(world: World) -> None:
    await world.register()
    for open_hours in (0, 23, 24, 25, 49):
        id = await one(world)()
        await hours(world, open_hours)
        await end(world, id)
        await hours(world, 24)
        assert await kept(world), open_hours
        await hours(world, 1)
        assert not await kept(world), open_hours


async def test_an_answer_for_many_stands_until_a_day_after_the_last_end(world: World) -> None:
    await world.register()
    items = [StartItem("wf"), StartItem("wf"), StartItem("nope"), StartItem("wf")]
    first = await world.answers(items, KEY)
    a, b, c = [answer.execution_id for answer in first if isinstance(answer, Started)]
    await end(world, a, c)
    await hours(world, 26)
    assert await world.answers(items, KEY) == first, "one of three is open"
    await end(world, b)
    await hours(world, 24)
    assert await world.answers(items, KEY) == first
    await hours(world, 1)
    assert await world.answers(items, KEY) != first


async def test_an_answer_outlives_a_deleted_execution_by_a_day_or_two(world: World) -> None:
    """A deletion forgets when the execution ended, but not the answer to its key."""
    await world.register()
    ask = one(world)
    id = await ask()
    await hours(world, 26)
    await end(world, id)
    await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    await hours(world, 24)
    assert await ask() == id
    await hours(world, 26)
    assert not await kept(world)


async def test_an_answer_outlives_an_execution_that_is_kept_for_less_than_a_day(world: World) -> None:
    await world.register()
    ask = one(world)
    id = await ask()
    world.advance(20 * HOUR)
    await end(world, id)
    world.advance(6 * HOUR)
    await sweep(world, retention_days=0.1)
    assert await ask() == id, "six hours after the end"


async def test_what_started_nothing_is_kept_for_a_day(world: World) -> None:
    publish = events.publish(
        project_id=PROJECT, topic="t", events=[EventItem(raw(1))], ids=["e"], now_us=world.now_us, idempotency=KEY
    )
    await world.store.write(publish)
    await hours(world, 24)
    assert await kept(world)
    await hours(world, 1)
    assert not await kept(world)


async def test_open_ones_do_not_hold_up_those_behind_them(world: World) -> None:
    await world.register()
    still_open = [await one(world, f"open{n}")() for n in range(5)]
    world.advance(1)
    await end(world, *[await one(world, f"ended{n}")() for n in range(5)])
    world.advance(25 * HOUR)
    await sweep(world, limit=2)
    assert await answers_before(world, 1 << 60) == 5
    assert await answers_before(world, world.now_us) == 0, "they are not looked at again before a day is over"
    assert [await one(world, f"open{n}")() for n in range(5)] == still_open


async def test_a_round_reads_so_many_executions_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.register()
    monkeypatch.setattr(idempotency, "LISTED_BYTES_MAX", 100)
    for n in range(6):
        answers = await world.answers([StartItem("wf")] * 2, Idempotency("start", f"key{n}", "hash"))
        await end(world, *[answer.execution_id for answer in answers if isinstance(answer, Started)])
    world.advance(25 * HOUR)
    assert await sweep(world) == 3, "two lists fill a round"
    assert not await kept(world)


@verb(locks="")
async def _keep(*, owner: str, answer: str, now_us: int) -> None:
    await idempotency.remember(owner, KEY, answer.encode(), now_us)


async def test_answers_of_older_servers_are_read(world: World) -> None:
    """Records of older servers had the fields below."""
    times = '"created_at_us":1,"updated_at_us":2'
    project = f'{{"id":"p","name":"Shop","description":null,{times}}}'
    await world.store.write(_keep(owner="ann", answer=project, now_us=world.now_us))
    other = Project(id="q", name="Other", created_at_us=3, updated_at_us=3)
    made = accounts.make_project(project=other, user_id="ann", member_id="n", idempotency=KEY)
    assert await world.store.write(made) == Project(id="p", name="Shop", created_at_us=1, updated_at_us=2)
