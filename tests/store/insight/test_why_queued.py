"""Why a queued execution has not been claimed: each rule of admission alone is named, with the way to start it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.insight.test_why import NOW, ask, texts
from tests.store.pausing import ALL, COVERED, pause, unpause, work_all
from tests.store.world import LEASE_US, RELEASE, SECOND, START_US, World, failure

from perdure.store.verbs.insight import why_queued
from perdure.store.verbs.runs.admission import first_hold
from perdure.store.verbs.steering.pauses import PauseTarget
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.wording import moment
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.requests import QueueSpec, StartItem, WorkflowSpec


async def rule(world: World, id: str) -> str | None:
    return (await ask(world, id)).rule


async def test_nothing_holds_it_back(world: World) -> None:
    await world.register()
    id = await world.start()
    found = await ask(world, id)
    assert (found.rule, found.remedy) == (None, None)
    assert found.sentence == f"Nothing has held it back since {NOW}; a worker takes it with its next claim."
    assert texts(found)["worker"] == "w (native, online, Python 3.12), runs 0 of 100"
    world.advance(LEASE_US / SECOND + 1)
    silent = await ask(world, id)
    assert silent.sentence.endswith(f", but the last lease of its workers ended at {moment(START_US + LEASE_US)}.")
    assert silent.remedy == "a worker of deployment 'd' that beats"
    assert await world.claim_ids() == [id], "until it is reaped, the worker may claim"


async def test_its_turn(world: World) -> None:
    await world.register()
    first, second, third = await world.start_all(
        [StartItem("wf", session_id="s", on_conflict=OnConflict.QUEUE) for _ in range(3)]
    )
    assert await rule(world, first) is None
    found = await ask(world, second)
    assert found.rule == Rule.TURN
    assert found.sentence == f"It waits for its turn in session 's', after execution {first}."
    assert (found.remedy, found.until_us) == (f"the end of execution {first}", None)
    assert found.commands == [f"perdure why {first}"]
    await world.claim()
    await world.finish(first)
    assert await rule(world, second) is None
    assert (await ask(world, third)).commands == [f"perdure why {second}"]


async def test_its_start_time(world: World) -> None:
    await world.register()
    id = await world.start(delay_seconds=60)
    found = await ask(world, id)
    assert found.rule == Rule.START_TIME
    at_us = START_US + 60 * SECOND
    assert found.sentence == f"It starts at {moment(at_us)}, as its caller asked."
    assert (found.until_us, found.remedy) == (at_us, "its start time")
    world.advance(60)
    await world.wake_due()
    assert await rule(world, id) is None


async def test_the_pause_after_a_failure_and_after_losses(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, end=failure(retry_delay_us=9 * SECOND))
    assert (await ask(world, id)).sentence.endswith(", after the pause of its retry policy; it failed once.")
    lost = await world.running()
    for _ in range(2):
        await world.lose()
        await world.register()
        if lost in await world.claim_ids():
            await world.acknowledge(lost)
    found = await ask(world, lost)
    assert found.rule == Rule.START_TIME
    assert "its worker was lost twice without a new outcome" in found.sentence
    await world.check()


async def test_no_deployment_has_its_workflow(world: World) -> None:
    id = await world.start("early", accept_early=True)
    found = await ask(world, id)
    assert (found.rule, found.remedy) == (Rule.DEPLOYMENT, "a worker that registers workflow 'early'")
    assert found.sentence == "No deployment has registered workflow 'early' yet."
    await world.register(workflows=["early"])
    assert await rule(world, id) is None


async def test_no_worker_serves_its_deployment(world: World) -> None:
    await world.register()
    id = await world.start()
    await world.lose()
    found = await ask(world, id)
    assert found.rule == Rule.WORKER
    assert found.sentence == f"No worker serves deployment 'd'. It has been ready since {NOW}."
    assert found.commands[0] == "perdure work APP --deployment d"
    await world.register("v")
    assert await rule(world, id) is None


async def test_another_python(world: World) -> None:
    await world.register(python="3.11")
    first, id = await world.running(), await world.running()
    for one in (first, id):
        await world.report(one, end=RELEASE)
    await world.lose()
    for n, python in enumerate(("3.12", "3.13")):
        await world.register(f"v{n}", python=python)
    found = await ask(world, id)
    assert found.rule == Rule.PYTHON
    assert found.sentence == ("It began on Python 3.11, and the workers of deployment 'd' run Python 3.12 and 3.13.")
    assert await world.claim_ids("v0") == []
    await world.register("w", python="3.11", capacity=1)
    assert await rule(world, id) == Rule.ORDER
    assert await world.claim_ids(capacity=1) == [first]
    assert (await ask(world, id)).sentence == "The worker of deployment 'd' is full (1 of 1)."
    await world.finish(first)
    assert await rule(world, id) is None
    assert await world.claim_ids() == [id]


@pytest.mark.parametrize("what", ALL, ids=[what.kind.value for what in ALL])
@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
async def test_it_is_paused(world: World, what: PauseTarget, marked: bool) -> None:
    await world.register()
    id = await world.start(**COVERED)
    world.advance(3)
    until_us = START_US + 60 * SECOND
    await pause(world, what, work=marked, until_us=until_us, note="the provider is down")
    found = await ask(world, id)
    assert found.rule == f"{what.kind.value}_pause"
    name = found.pause.what if found.pause is not None else ""
    assert found.sentence == (
        f"{name[0].upper()}{name[1:]} has been paused since {moment(world.now_us)} by ann: the provider is down. "
        f"It goes on at {moment(until_us)}."
    )
    assert (found.remedy, found.until_us) == ("the end of the pause", until_us)
    assert found.commands[0].startswith(f"perdure unpause {what.kind.value} ")
    assert await world.claim_ids() == []
    await unpause(world, what, work=False)
    assert await rule(world, id) == (Rule.RELEASING if marked else None)
    await work_all(world)
    assert await rule(world, id) is None
    assert await world.claim_ids() == [id]


async def test_of_two_pauses_the_first_rule_is_named_with_its_pause(world: World) -> None:
    await world.register()
    id = await world.start(**COVERED)
    for what in ALL[::-1]:
        await pause(world, what)
        found = await ask(world, id)
        assert found.pause is not None
        assert (found.rule, found.pause.kind) == (f"{what.kind.value}_pause", what.kind)
    for what in ALL:
        await unpause(world, what)


async def test_a_full_queue_and_a_full_key(world: World) -> None:
    await world.register(queues=[QueueSpec("q", concurrency_limit=1, total_limit=2)])
    a, b, c = await world.start_all([StartItem("wf", queue_name="q", concurrency_key=key) for key in ("a", "a", "c")])
    assert await rule(world, a) == Rule.ORDER, "the other key may take a turn first, and then there is no room"
    claimed = await world.claim_ids()
    assert sorted(claimed) == sorted([a, c])
    found = await ask(world, b)
    assert found.rule == Rule.QUEUE_LIMIT
    assert found.sentence == f"Queue 'q' runs 2 at a time, and 2 are running since {NOW}; it is the next one."
    assert [one.execution_id for one in found.holders] == sorted([a, c])
    assert (found.holders[0].worker_id, found.holders[0].since_us) == ("w", START_US)
    assert found.held_by_count == 2
    assert found.commands == [f"perdure why {id}" for id in sorted([a, c])]
    later = await world.start(queue_name="q", concurrency_key="a")
    await world.finish(c)
    found = await ask(world, later)
    assert found.rule == Rule.KEY_LIMIT
    assert found.sentence == (
        f"Queue 'q' runs 1 of each concurrency key at a time, and 1 of key 'a' is running since {NOW}; 1 is before it."
    )
    assert [one.execution_id for one in found.holders] == [a]
    await world.finish(a)
    assert await rule(world, b) is None
    assert await rule(world, later) == Rule.ORDER
    assert await world.claim_ids() == [b]


async def test_all_workers_are_full(world: World) -> None:
    for name in ("w", "v"):
        await world.register(name, capacity=2)
    started = await world.start_all([StartItem("wf") for _ in range(6)])
    found = await ask(world, started[4])
    assert found.rule == Rule.ORDER
    assert found.sentence == "4 ready executions go before it, and the workers have room for these only."
    assert await rule(world, started[3]) is None
    for name in ("w", "v"):
        assert len(await world.claim_ids(name, 2)) == 2
    found = await ask(world, started[4])
    assert found.rule == Rule.CAPACITY
    assert found.sentence == "All 2 workers of deployment 'd' are full (4 of 4)."
    assert sorted(one.execution_id for one in found.holders) == sorted(started[:4])
    assert found.held_by_count == 4
    await world.finish(started[0], worker="w")
    assert await rule(world, started[4]) is None
    assert (await ask(world, started[5])).sentence.startswith("1 ready execution goes before it")


async def test_a_cancelled_execution_waits_to_clean_up(world: World) -> None:
    await world.register(workflows=[WorkflowSpec("wf", wake_on_cancel=True)])
    id = await world.running()
    await world.report(id, end=RELEASE)
    await world.cancel(id)
    found = await ask(world, id)
    assert found.rule is None
    assert found.sentence.endswith(f" It was cancelled at {NOW}, and cleans up when it starts.")


async def test_its_place_is_counted_up_to_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why_queued, "BEFORE_MAX", 3)
    await world.register(capacity=2)
    started = await world.start_all([StartItem("wf") for _ in range(6)])
    facts: Any = await ask(world, started[5])
    assert texts(facts)["ready"] == "3 before it"


def test_the_first_rule_in_their_order_is_named() -> None:
    assert [first_hold({rule, Rule.ORDER}) for rule in Rule] == [*Rule]
    assert first_hold(()) is None
