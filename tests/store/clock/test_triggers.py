"""Event triggers in the store: each event of a topic is taken once, in order, in batches."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Generator
from typing import Any

import pytest
from tests.store.locks import held, without_waiting
from tests.store.world import PROJECT, World

from perdure.store.base.interface import Query, Store, Verb, query, verb
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs.clock import triggers
from perdure.store.verbs.clock.triggers import TakenEvents
from perdure.store.verbs.runs import deployments, find
from perdure.wire.base.errors import DeploymentNotFound, NotFound, TooManyTriggers, WorkflowNotFound
from perdure.wire.clock.triggers import (
    DeleteEventTrigger,
    ListedTrigger,
    ListEventTriggers,
    RegisterEventTrigger,
    TriggerSpec,
)
from perdure.wire.runs.deployments import RegisterWorkerDeployment
from perdure.wire.runs.executions import Execution, ListFilters


class Puller:
    """Short words for the triggers of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def make(self, batch_size: int = 1, timeout: int | None = None, **fields: Any) -> str:
        said = {"workflow_id": "wf", "topic": "t", "deployment_id": "d", **fields}
        op = RegisterEventTrigger(batch_size=batch_size, batch_timeout_seconds=timeout, **said)
        await self.world.store.write(triggers.register_trigger(self.world.at(), op))
        return (await self.find(op.topic, op.workflow_id)).id

    async def all(self) -> list[ListedTrigger]:
        return (await self.world.store.read(triggers.list_triggers(self.world.at(), ListEventTriggers()))).items

    async def find(self, topic: str = "t", workflow_id: str = "wf") -> ListedTrigger:
        [one] = [one for one in await self.all() if (one.topic, one.workflow_id) == (topic, workflow_id)]
        return one

    def taking(self, id: str, ids: int = 10, **options: Any) -> Verb[TakenEvents]:
        fresh = [self.world.new_id() for _ in range(ids)]
        return triggers.take_for_trigger(
            project_id=PROJECT, trigger_id=id, ids=fresh, now_us=self.world.now_us, **options
        )

    async def take(self, id: str, ids: int = 10, **options: Any) -> TakenEvents:
        return await self.world.store.write(self.taking(id, ids, **options))

    async def due(self, id: str) -> int | None:
        [one] = [one for one in await self.world.store.read(triggers.watched_topics()) if one.trigger_id == id]
        return one.due_at_us

    async def executions(self) -> list[Execution]:
        """Oldest first."""
        filters = ListFilters(workflow_id="wf")
        found, _ = await self.world.store.read(
            find.list_executions(project_id=PROJECT, filters=filters, before="~", limit=1_000)
        )
        return sorted(found, key=lambda one: one.id)

    async def payloads(self) -> list[Any]:
        return [json.loads(bytes(one.payload)) for one in await self.executions()]

    async def batches(self) -> list[list[int]]:
        """The numbers of the events of each execution."""
        found = await self.payloads()
        return [[event["sequence_id"] for event in one.get("events", [one])] for one in found]


@pytest.fixture
async def puller(world: World) -> Puller:
    await world.register()
    return Puller(world)


# --- make ------------------------------------------------------------------------------------------------------------


async def test_a_new_trigger_starts_at_the_topics_end(puller: Puller) -> None:
    await puller.world.publish("t", "before", "before too")
    id = await puller.make()
    assert (await puller.find()).taken_seq == 2
    assert await puller.take(id) == TakenEvents()
    await puller.world.publish("t", "after")
    assert (await puller.take(id)).started == 1
    assert await puller.batches() == [[3]]


async def test_a_topic_that_nobody_has_published_to_may_have_one(puller: Puller) -> None:
    id = await puller.make()
    await puller.world.publish("t", "first")
    assert (await puller.take(id)).started == 1


async def test_registering_again_keeps_the_cursor_and_takes_the_new_definition(puller: Puller) -> None:
    id = await puller.make()
    await puller.world.publish("t", 1, 2)
    before = await puller.find()
    puller.world.advance(1)
    assert await puller.make() == id and await puller.find() == before, "the same changes nothing"
    assert await puller.make(2, 60, queue_name="q") == id
    after = await puller.find()
    assert (after.batch_size, after.batch_timeout_seconds, after.queue_name, after.taken_seq) == (2, 60, "q", 0)
    assert after.updated_at_us > after.created_at_us == before.created_at_us
    assert (await puller.take(id)).started == 1
    assert await puller.batches() == [[1, 2]]
    assert (await puller.executions())[0].queue_name == "q"


async def test_a_deployment_of_yesterday_changes_nothing_that_is_there(puller: Puller) -> None:
    await puller.make(5)
    await puller.world.register("v", deployment="newer")
    await puller.make(7)
    assert (await puller.find()).batch_size == 5
    await puller.make(9, deployment_id="newer")
    assert (await puller.find()).batch_size == 9
    await puller.make(3, topic="other")
    assert (await puller.find("other")).batch_size == 3, "but may make one"


async def test_what_nobody_could_run_is_refused(puller: Puller) -> None:
    with pytest.raises(WorkflowNotFound, match=r"in deployment 'd'\.$"):
        await puller.make(workflow_id="unknown")
    with pytest.raises(WorkflowNotFound, match=r"in deployment 'd'\. Did you mean 'wf'\?$"):
        await puller.make(workflow_id="wff")
    with pytest.raises(DeploymentNotFound):
        await puller.make(deployment_id="unknown")
    world = puller.world
    await world.store.write(deployments.register_push_deployment(world.at(), RegisterWorkerDeployment("push")))
    await puller.make(workflow_id="unknown", deployment_id="push")


async def test_a_project_has_so_many_triggers_and_no_more(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "TRIGGERS_MAX", 1)
    await puller.make()
    with pytest.raises(TooManyTriggers):
        await puller.make(topic="other")
    await puller.make(2)  # no new one


async def test_what_is_deleted_takes_nothing_any_more(puller: Puller) -> None:
    id = await puller.make()
    await puller.world.publish("t", 1)
    await puller.world.store.write(triggers.delete_trigger(puller.world.at(), DeleteEventTrigger(id)))
    assert await puller.take(id) == TakenEvents() and await puller.all() == []
    with pytest.raises(NotFound):
        await puller.world.store.write(triggers.delete_trigger(puller.world.at(), DeleteEventTrigger(id)))


async def test_code_declares_triggers_and_takes_them_back(world: World) -> None:
    puller = Puller(world)
    spec = TriggerSpec("wf", "t", 3, 10)
    await world.register(triggers=[spec, TriggerSpec("wf", "u")])
    await puller.make(topic="by hand")
    declared = {one.topic: one.declared for one in await puller.all()}
    assert declared == {"t": True, "u": True, "by hand": False}
    before = await puller.find()
    await world.register(triggers=[spec])
    assert {one.topic for one in await puller.all()} == {"t", "by hand"}
    assert await puller.find() == before
    await world.register("v", deployment="newer")
    assert {one.topic for one in await puller.all()} == {"by hand"}
    await world.register(triggers=[spec])
    assert {one.topic for one in await puller.all()} == {"by hand"}, "it is not the current one"


# --- take ------------------------------------------------------------------------------------------------------------


async def test_one_event_without_a_time_out_is_the_input_itself(puller: Puller) -> None:
    id = await puller.make()
    await puller.world.publish("t", {"order": 1})
    assert await puller.due(id) == 0
    assert await puller.take(id) == TakenEvents(1)
    [payload] = await puller.payloads()
    [event] = await puller.world.read_topic("t")
    assert payload == {
        "id": event.id,
        "sequence_id": 1,
        "topic": "t",
        "event_type": None,
        "data": {"order": 1},
        "created_at": payload["created_at"],
    }
    [execution] = await puller.executions()
    assert (execution.queue_name, execution.deployment_id) == ("wf", "d")
    assert await puller.due(id) is None and await puller.take(id) == TakenEvents()


async def test_a_batch_waits_until_it_is_full(puller: Puller) -> None:
    id = await puller.make(3)
    await puller.world.publish("t", 1, 2)
    assert await puller.due(id) is None and await puller.take(id) == TakenEvents()
    puller.world.advance(1_000_000)
    assert await puller.take(id) == TakenEvents(), "without a time-out it waits for ever"
    await puller.world.publish("t", 3, 4, 5, 6, 7)
    assert await puller.due(id) == 0
    assert await puller.take(id) == TakenEvents(2)
    assert await puller.batches() == [[1, 2, 3], [4, 5, 6]]
    assert [one.waiting for one in await puller.all()] == [1]
    assert list((await puller.payloads())[0]) == ["events"]


async def test_the_first_event_of_a_batch_waits_no_longer_than_the_time_out(puller: Puller) -> None:
    world, id = puller.world, await puller.make(3, 10)
    await world.publish("t", 1)
    since_us = world.now_us
    world.advance(9)
    await world.publish("t", 2)
    assert await puller.due(id) == since_us + 10_000_000
    assert await puller.take(id) == TakenEvents()
    world.advance(0.999999)
    assert await puller.take(id) == TakenEvents()
    world.advance(0.000001)
    assert await puller.take(id) == TakenEvents(1)
    assert await puller.batches() == [[1, 2]]
    await world.publish("t", 3, 4, 5, 6)
    assert await puller.take(id) == TakenEvents(1), "a full one waits for nothing"
    assert await puller.due(id) == world.now_us + 10_000_000
    world.advance(10)
    assert await puller.take(id) == TakenEvents(1)
    assert await puller.batches() == [[1, 2], [3, 4, 5], [6]]


async def test_a_batch_of_one_with_a_time_out_is_a_list_all_the_same(puller: Puller) -> None:
    id = await puller.make(1, 10)
    await puller.world.publish("t", 1)
    assert await puller.take(id) == TakenEvents(1)
    assert [len(one["events"]) for one in await puller.payloads()] == [1]


async def test_more_than_one_verb_starts_is_left_to_the_next(puller: Puller) -> None:
    id = await puller.make()
    await puller.world.publish("t", *range(5))
    assert await puller.take(id, 2) == TakenEvents(2, more=True)
    assert await puller.take(id, 2) == TakenEvents(2, more=True)
    assert await puller.take(id, 2) == TakenEvents(1)
    assert await puller.batches() == [[1], [2], [3], [4], [5]]


async def test_a_batch_is_no_larger_than_an_input_may_be(puller: Puller) -> None:
    id = await puller.make(4)
    await puller.world.publish("t", "x" * 5_000, "x" * 5_000, "x" * 20_000, "x", "x")
    assert await puller.take(id, bytes_max=15_000) == TakenEvents(2, more=True)
    assert await puller.take(id, bytes_max=15_000) == TakenEvents()
    assert await puller.batches() == [[1, 2], [3]]
    assert [one.waiting for one in await puller.all()] == [2]


async def test_each_workflow_and_topic_has_a_cursor_of_its_own(puller: Puller) -> None:
    await puller.world.register("w", ("wf", "other"))
    ids = [await puller.make(), await puller.make(2)]
    ids += [await puller.make(workflow_id="other"), await puller.make(topic="u")]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    await puller.world.publish("t", 1, 2)
    await puller.world.publish("u", 1)
    assert [(await puller.take(id)).started for id in ids[1:]] == [1, 2, 1]


async def test_the_current_deployment_takes_over_the_cursor(puller: Puller) -> None:
    world, id = puller.world, await puller.make()
    await world.publish("t", 1)
    await puller.take(id)
    await world.register("v", deployment="newer")
    await world.publish("t", 2)
    await puller.take(id)
    assert [one.deployment_id for one in await puller.executions()] == ["d", "newer"]
    assert await puller.batches() == [[1], [2]]


async def test_events_wait_while_the_current_deployment_cannot_run_them(puller: Puller) -> None:
    world, id = puller.world, await puller.make()
    await world.register("v", ("other",), deployment="newer")
    await world.publish("t", 1, 2)
    taken = await puller.take(id)
    assert taken.started == 0 and taken.refused is not None and "'wf' is not registered" in taken.refused
    assert await puller.executions() == [] and (await puller.find()).taken_seq == 0
    await world.register("v", deployment="newer")
    assert await puller.take(id) == TakenEvents(2)


@verb(locks="")
async def _delete_events(*, upto: int) -> None:
    await query("prune_events", before_us=upto, limit=100)


async def test_what_was_deleted_with_age_is_passed_over(puller: Puller) -> None:
    world, id = puller.world, await puller.make(2)
    await world.publish("t", 1)
    world.advance(60)
    await world.publish("t", 2)
    await world.store.write(_delete_events(upto=world.now_us))
    assert await puller.due(id) == 0, "the numbers say that two wait"
    assert await puller.take(id) == TakenEvents()
    assert (await puller.find()).taken_seq == 1 and await puller.due(id) is None
    world.advance(60)
    await world.store.write(_delete_events(upto=world.now_us))
    assert await puller.take(id) == TakenEvents()
    assert (await puller.find()).taken_seq == 2 and await puller.due(id) is None
    await world.publish("t", 3, 4)
    assert await puller.take(id) == TakenEvents(1)
    assert await puller.batches() == [[3, 4]]


@types.coroutine
def _deleting_before_events_are_read(inner: Verb[TakenEvents], upto: int) -> Generator[Any, Any, TakenEvents]:
    taking, rows = inner.start(), None
    while True:
        try:
            asked = taking.send(rows)
        except StopIteration as end:
            taken: TakenEvents = end.value
            return taken
        if isinstance(asked, Query) and asked.name == "read_events":
            yield query("prune_events", before_us=upto, limit=100)
        rows = yield asked


@verb(locks="")
async def _take_while_events_are_deleted(*, inner: Verb[TakenEvents], upto: int) -> TakenEvents:
    return await _deleting_before_events_are_read(inner, upto)


async def test_what_is_deleted_with_age_meanwhile_leaves_no_empty_batch(puller: Puller) -> None:
    world, id = puller.world, await puller.make(2)
    await world.publish("t", 1, 2, 3)
    world.advance(60)
    await world.publish("t", 4, 5)
    taking = _take_while_events_are_deleted(inner=puller.taking(id), upto=world.now_us)
    assert (await world.store.write(taking)).started == 0
    assert await puller.take(id) == TakenEvents(1)
    assert await puller.batches() == [[4, 5]]


@verb(locks="")
async def _dies_after(*, inner: Verb[Any]) -> None:
    await inner.start()
    raise RuntimeError("after the last write")


async def test_events_and_executions_are_one_change(puller: Puller) -> None:
    id = await puller.make()
    await puller.world.publish("t", 1)
    with pytest.raises(RuntimeError):
        await puller.world.store.write(_dies_after(inner=puller.taking(id)))
    assert await puller.executions() == [] and (await puller.find()).taken_seq == 0
    assert await puller.take(id) == TakenEvents(1)


@pytest.mark.parametrize("table", ["event_triggers", "topics", "events"])
async def test_nobody_takes_events_later_since_somebody_has_locked_a_row(
    puller: Puller, table: str, database: str, on_postgresql: None
) -> None:
    """A trigger waits only for its own row: topics and events are read, not locked."""
    locked, free = [await puller.make(topic=topic) for topic in ("a", "b")]
    for topic in ("a", "b"):
        await puller.world.publish(topic, 1)
    async with held(database, table, locked if table == "event_triggers" else "a"):
        async with without_waiting():
            taken = await puller.world.store.write_all([puller.taking(id) for id in (locked, free)])
        assert taken == [TakenEvents(int(table != "event_triggers")), TakenEvents(1)]
    assert await puller.take(locked) == TakenEvents(int(table == "event_triggers"))


async def test_many_take_while_many_publish_and_each_event_is_taken_once(world: World, database: str) -> None:
    """Two stores on PostgreSQL; a file has one."""
    await world.register()
    puller = Puller(world)
    id = await puller.make(3, 5)
    stores: list[Store] = [world.store]
    if is_postgres(database):
        stores.append(await open_store(database))
    try:

        async def publish() -> None:
            for n in range(10):
                await world.publish("t", n, n)

        async def take(store: Store) -> int:
            started = 0
            while not done.is_set() or await puller.due(id) == 0:
                started += (await store.write(puller.taking(id, 2))).started
            return started

        done = asyncio.Event()
        takers = [asyncio.create_task(take(stores[n % len(stores)])) for n in range(4)]
        await asyncio.gather(*[publish() for _ in range(3)])
        done.set()
        assert sum(await asyncio.gather(*takers)) == 20
        batches = sorted(await puller.batches())
        assert all(len(batch) == 3 for batch in batches)
        assert [seq for batch in batches for seq in batch] == list(range(1, 61))
    finally:
        for store in stores[1:]:
            await store.close()
