"""Queues over HTTP and in process: the list, and pauses obeyed by claims."""

import asyncio

from tests.server.serving import Hand, Served, serving

from perdure import Client, Context, Registry
from perdure.embedded import LocalTransport
from perdure.sdk.transports.http import HttpTransport
from perdure.testing import embedded
from perdure.wire.base.access import Role
from perdure.wire.runs.queues import QueueState

PATH = "/api/v1/queues"
app = Registry()


@app.workflow
async def plain(ctx: Context) -> str:
    return "done"


async def test_a_queue_is_paused_and_resumed(served: Served, hand: Hand) -> None:
    id = await served.start()
    paused = (await served.client.post(f"{PATH}/w/pause")).json()
    assert paused == {
        "name": "w",
        "concurrency_limit": None,
        "total_limit": None,
        "pause": {
            "kind": "queue",
            "name": "w",
            "paused_at": paused["pause"]["paused_at"],
            "paused_by": paused["pause"]["paused_by"],
            "concurrency_key": None,
            "note": None,
            "until": None,
            "held": paused["pause"]["held"],  # 1 as soon as the loop has marked it
        },
        "queued": 1,
        "running": 0,
    }
    again = (await served.client.post(f"{PATH}/w/pause")).json()
    assert again["pause"]["paused_at"] == paused["pause"]["paused_at"], "the first pause counts"
    assert await hand.claim(0.1) is None
    waits = (await served.client.get(f"/api/v1/executions/{id}/waits")).json()
    assert (waits["queued_behind"]["what"], waits["queued_behind"]["pause"]["name"]) == ("pause", "w")
    resumed = (await served.client.post(f"{PATH}/w/resume")).json()
    assert (resumed["pause"], resumed["queued"]) == (None, 1)
    assert (await hand.claim())["id"] == id
    assert (await served.client.get(PATH)).json()["queues"][0]["running"] == 1


async def test_a_waiting_claim_gets_work_when_a_queue_is_resumed(served: Served, hand: Hand) -> None:
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        await client.queues.pause("w")
        id = await served.start()
        assert [(one.name, one.queued) for one in await client.queues.list()] == [("w", 1)]
        assert (await client.queues.resume("w")).pause is None
        assert (await hand.claim())["id"] == id


async def test_only_admins_pause(served: Served, hand: Hand) -> None:
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    for what in ("pause", "resume"):
        assert (await served.client.post(f"{PATH}/w/{what}", headers=writer)).status_code == 403
    assert (await served.client.get(PATH, headers=writer)).status_code == 200
    reply = await served.client.post(f"{PATH}/%0A/pause")
    assert (reply.status_code, "name: holds" in reply.json()["error"]) == (422, True)


async def test_another_project_has_its_own_queues(served: Served, hand: Hand) -> None:
    _, headers = await served.other_project()
    await served.client.post(f"{PATH}/w/pause")
    assert (await served.client.get(PATH, headers=headers)).json() == {"queues": []}


async def test_an_embedded_worker_keeps_to_a_pause() -> None:
    async with embedded(app) as bench:
        await bench.queues.pause("plain")
        handle = await bench.start(plain)
        [queue] = await bench.queues.list()
        assert (queue.name, queue.queued, queue.running) == ("plain", 1, 0)
        assert (await bench.queues.get("plain")).pause is not None
        assert await bench.queues.get("other") == QueueState("other")
        await bench.queues.resume("plain")
        assert await handle.result(timeout=30) == "done"


async def test_both_transports_and_the_client_without_a_loop_answer_alike(database: str) -> None:
    async with serving(database) as served, Client(HttpTransport(served.server.url, served.key)) as client:
        inside = Client(LocalTransport(served.engine, served.project_id))
        await client.queues.pause("q")
        assert await client.queues.list() == await inside.queues.list()
        assert (await inside.queues.pause("q")).pause is not None

        def manage() -> list[QueueState]:
            with Client.sync(served.server.url, served.key) as sync:
                return [*sync.queues.list(), sync.queues.pause("q"), sync.queues.resume("q")]

        listed, paused, resumed = await asyncio.to_thread(manage)
        assert listed.pause is not None
        assert paused.pause is not None
        assert resumed == QueueState("q")


async def test_the_next_in_line_come_in_order_with_their_reasons(served: Served, hand: Hand) -> None:
    first = await served.start(queue_name="narrow", queue_concurrency_limit=1)
    assert (await hand.claim())["id"] == first
    later = await served.start(queue_name="narrow")
    sooner = await served.start(queue_name="narrow", priority=5, key="k")
    found = (await served.client.get(f"{PATH}/narrow/next")).json()
    assert found["exact"]
    assert [one["id"] for one in found["executions"]] == [sooner, later]
    next_one = found["executions"][0]
    assert (next_one["key"], next_one["workflow_id"], next_one["why"]["execution_id"]) == ("k", "w", sooner)
    asked = (await served.client.get(f"/api/v1/executions/{sooner}/why")).json()
    assert next_one["why"]["rule"] == asked["rule"]
    assert (await served.client.get(f"{PATH}/none/next")).json() == {"executions": [], "exact": True}
    assert (await served.client.get(f"{PATH}/none/next?limit=51")).status_code == 400


async def test_the_next_in_line_of_a_paused_queue_wait_for_the_end_of_the_pause(served: Served, hand: Hand) -> None:
    id = await served.start()
    await served.client.post(f"{PATH}/w/pause")
    [found] = (await served.client.get(f"{PATH}/w/next")).json()["executions"]
    assert (found["id"], found["why"]["rule"]) == (id, "queue_pause")
