"""The list of queues."""

from tests.store.world import World

from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.queues import list_queues
from perdure.wire.base.operation import Listed
from perdure.wire.runs.queues import ListQueues, QueueState
from perdure.wire.runs.requests import QueueSpec, StartItem


async def test_the_list_has_limits_and_numbers_of_its_project(world: World) -> None:
    await world.register(queues=[QueueSpec("b", 1, 2)])
    await world.start_all([StartItem("wf", queue_name="a"), StartItem("wf", queue_name="a")])
    await world.claim()
    found = (await world.store.scan(list_queues(world.at(), ListQueues()))).items
    assert found == [QueueState("a", queued=1, running=1), QueueState("b", 1, 2)]
    assert await world.store.scan(list_queues(At("another"), ListQueues())) == Listed([])
