"""The worker protocol over HTTP. What the verbs do is tried in tests/store."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
import pytest
from tests.kit.polling import until
from tests.server.serving import Hand, Served, serving
from tests.work import counted
from uuid_utils import uuid7

from perdure.store.verbs.base import access
from perdure.store.verbs.runs import starts
from perdure.store.verbs.runs.starts import New
from perdure.wire.base.limits import REGISTERED_MAX
from perdure.wire.runs.requests import StartItem


async def test_another_protocol_is_refused(served: Served) -> None:
    bodies = {
        "register": {"worker_id": "x", "deployment_id": "d", "python": "3.11", "workflows": []},
        "claim": {"worker_id": "x", "epoch": "e", "claim_id": "c", "capacity": 1},
        "report": {"worker_id": "x", "epoch": "e", "items": []},
        "beat": {"worker_id": "x", "epoch": "e"},
        "drain": {"worker_id": "x", "epoch": "e"},
    }
    for what, body in bodies.items():
        for version in (None, "0", "2", "1.0", ""):
            headers = {} if version is None else {"perdure-protocol": version}
            reply = await served.client.post(f"/worker/v1/{what}", json=body, headers=headers)
            assert reply.status_code == 400 and "Perdure-Protocol" in reply.json()["error"], (what, version)


async def test_a_claim_is_answered_as_soon_as_there_is_work(database: str) -> None:
    async with serving(database, poll_seconds=60.0) as served:  # so nobody looks without having been told
        hand = Hand(served.client)
        await hand.register()
        claiming = asyncio.create_task(hand.claim(60))
        await served.until_waiting(hand.id)
        async with asyncio.timeout(25):
            id = await served.start(payload={"n": 1}, tags={"a": "b"}, user_id="u")
            item = await claiming
        assert item["id"] == id and item["attempt"] == 1 and item["user_id"] == "u" and item["tags"] == {"a": "b"}


async def test_a_claim_without_work_comes_back_empty(served: Served, hand: Hand) -> None:
    assert await hand.claim(0.1) is None


async def test_payloads_follow_the_json_of_a_claim_that_asks_for_them_apart(served: Served, hand: Hand) -> None:
    given = [{"text": "é"}, 7, None]
    ids = [await served.start(payload=payload) for payload in given]
    headers = {"perdure-protocol": "1", "perdure-payloads": "apart"}
    reply = await served.client.post("/worker/v1/claim", json={**hand.claiming(), "capacity": 10}, headers=headers)
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/octet-stream"
    size, _, rest = reply.content.partition(b"\n")
    items = msgspec.json.decode(rest[: int(size)])["items"]
    assert {item["id"]: item["payload"] for item in items} == dict(zip(ids, [13, 1, 4], strict=True))
    payloads = {id: msgspec.json.encode(payload) for id, payload in zip(ids, given, strict=True)}
    assert rest[int(size) :] == b"".join(payloads[item["id"]] for item in items)


# --- work that a worker does not take up -----------------------------------------------------------------------------


async def _takes_all(hand: Hand, wait_seconds: float = 20.0) -> list[Any]:
    reply = await hand.say("claim", {**hand.claiming(wait_seconds), "capacity": 10})
    items: list[Any] = reply["items"]
    return items


async def test_work_that_a_worker_does_not_take_up_goes_to_one_that_waits(database: str) -> None:
    """The worker's event loop stands still, so its lease would keep the work."""
    async with serving(database, lease_seconds=60) as served:
        stuck, idle = Hand(served.client), Hand(served.client)
        await stuck.register()
        await idle.register()
        taking = asyncio.create_task(_takes_all(stuck))
        await served.until_waiting(stuck.id)
        waiting = asyncio.create_task(_takes_all(idle))
        await served.until_waiting(idle.id)
        ids = [await served.start()]
        done, _ = await asyncio.wait({taking, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:  # whose claim is the first to be offered work is not said
            stuck, idle, taking, waiting = idle, stuck, waiting, taking
        assert [item["id"] for item in await taking] == ids
        taken = await waiting
        assert sorted(item["id"] for item in taken) == ids
        assert all(item["attempt"] == 2 and item["ack_first"] for item in taken)
        late = await stuck.say(
            "report",
            {
                "worker_id": stuck.id,
                "epoch": stuck.epoch,
                "items": [{"execution_id": ids[0], "attempt": 1, "number": 1, "seen": 1}],
            },
        )
        assert late["items"][0]["lost"]
        steps = (await served.client.get(f"/api/v1/executions/{ids[0]}/steps")).json()["steps"]
        assert [row["kind"] for row in steps] == ["claimed", "released", "claimed"]


async def test_work_stays_with_a_worker_that_asks_on(served: Served) -> None:
    busy, idle = Hand(served.client), Hand(served.client)
    await busy.register()
    await idle.register()
    await served.start()
    assert len(await _takes_all(busy)) == 1
    asking = asyncio.create_task(_takes_all(busy))
    await served.until_waiting(busy.id)
    assert await idle.claim(2.0) is None
    await served.start()
    assert [item["attempt"] for item in await asking] == [1]


@pytest.mark.parametrize("what", ["workflows", "queues", "schedules", "triggers"])
async def test_a_registration_with_too_many_items_is_refused_before_anything_is_done(served: Served, what: str) -> None:
    items: dict[str, list[object]] = {
        "workflows": [{"id": f"w{n}"} for n in range(REGISTERED_MAX + 1)],
        "queues": [{"name": f"q{n}"} for n in range(REGISTERED_MAX + 1)],
        "schedules": [
            {"workflow_id": "w", "key": "k", "cron": "no cron", "timezone": "UTC"} for n in range(REGISTERED_MAX + 1)
        ],
        "triggers": [{"workflow_id": "w", "topic": f"t{n}"} for n in range(REGISTERED_MAX + 1)],
    }
    body = {"worker_id": "x", "deployment_id": "d", "python": "3.11", "workflows": [], what: items[what]}
    reply = await served.client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
    assert (reply.status_code, reply.json()["details"]) == (422, {"path": what})
    assert f"{what}: holds 1,001 entries; a registration may have 1,000" in reply.json()["error"]
    assert "PERDURE_REGISTERED_MAX" in reply.json()["error"]


async def test_a_thousand_rare_schedules_of_one_registration_take_little_work(served: Served) -> None:
    schedules = [
        {"workflow_id": "w", "key": f"k{n}", "cron": f"{n % 60} {n // 60} 29 2 */7", "timezone": "America/New_York"}
        for n in range(1_000)
    ]
    body = {
        "worker_id": "x",
        "deployment_id": "d",
        "python": "3.11",
        "workflows": [{"id": "w"}],
        "schedules": schedules,
    }
    with counted() as work:
        reply = await served.client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
    assert reply.status_code == 200, reply.text
    assert work.lines < 4_000_000  # with a walk by days it is 22 million


async def test_a_remote_worker_is_never_embedded(served: Served) -> None:
    body = {"worker_id": "x", "deployment_id": "d", "python": "3.11", "workflows": [], "embedded": True}
    reply = await served.client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
    assert reply.status_code == 400


async def test_a_worker_tells_of_its_agents(served: Served) -> None:
    agent = {"id": "support", "provider": "openai", "model": "gpt", "metadata": {"output_schema": {"type": "string"}}}
    body = {"worker_id": str(uuid4()), "deployment_id": "d", "python": "3.11"}
    headers = {"perdure-protocol": "1"}
    for workflow in ({"id": "other", "type": "agent"}, {"id": "support"}):
        wrong = {**body, "workflows": [{**workflow, "agent": agent}]}
        reply = await served.client.post("/worker/v1/register", json=wrong, headers=headers)
        assert reply.status_code == 422 and "definition of that agent" in reply.json()["error"]
    right = {**body, "workflows": [{"id": "support", "type": "agent", "agent": agent}]}
    assert (await served.client.post("/worker/v1/register", json=right, headers=headers)).status_code == 200
    [kept] = (await served.client.get("/api/v1/agents")).json()
    assert (kept["id"], kept["deployment_id"], kept["model"]) == ("support", "d", "gpt")
    assert kept["metadata"] == agent["metadata"]


async def test_beats_tell_whether_another_worker_waits(served: Served, hand: Hand) -> None:
    await served.start()
    await hand.claim()
    assert not (await hand.beat())["others_wait"]
    other = Hand(served.client)
    await other.register()
    claim = asyncio.create_task(other.claim(60))
    await served.until_waiting(other.id)
    assert (await hand.beat())["others_wait"]
    assert not (await other.beat())["others_wait"]
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)


async def test_beats_tell_what_is_held_and_draining_hands_it_back(served: Served, hand: Hand) -> None:
    id = await served.start()
    await hand.claim()
    assert [held[:2] for held in (await hand.beat())["holding"]] == [[id, 1]]
    await hand.say("drain", {"worker_id": hand.id, "epoch": hand.epoch})
    assert (await hand.beat())["lost"] is True
    other = Hand(served.client)
    await other.register()
    assert (await other.claim())["attempt"] == 2


async def test_a_worker_of_another_project_gets_nothing(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    _, headers = await served.other_project()
    async with httpx2.AsyncClient(base_url=served.server.url, headers=headers) as client:
        spy = Hand(client)
        await spy.register()
        assert await spy.claim(0.1) is None
        assert (await spy.complete(item, "stolen"))["lost"]
        spy.id = hand.id
        assert (await spy.complete(item, "stolen"))["lost"]
        assert (await spy.beat())["lost"]
        refused = await client.post("/worker/v1/claim", json=spy.claiming(), headers={"perdure-protocol": "1"})
        assert (refused.status_code, refused.json()["error_type"]) == (409, "LEASE_LOST")
        await spy.say("drain", {"worker_id": spy.id, "epoch": spy.epoch})
    assert (await served.client.get(f"/api/v1/executions/{id}")).json()["status"] == "running"
    assert not (await hand.beat())["lost"]


async def test_another_epoch_is_refused(served: Served, hand: Hand) -> None:
    hand.epoch = "another"
    reply = await served.client.post("/worker/v1/claim", json=hand.claiming(), headers={"perdure-protocol": "1"})
    assert (reply.status_code, reply.json()["error_type"]) == (409, "LEASE_LOST")
    assert (await hand.beat())["lost"]


async def test_a_closed_connection_cuts_the_lease_only_of_its_workers(served: Served, hand: Hand) -> None:
    """A worker with several connections, or drained in order, survives a closing connection."""
    await served.start()
    await hand.claim()
    until_us = await served.lease_until_us(hand.id)
    async with httpx2.AsyncClient(base_url=served.server.url, headers=served.client.headers) as client:
        assert (await client.get("/health")).status_code == 200
    await served.until_parted(1)
    assert await served.lease_until_us(hand.id) == until_us
    assert not (await hand.beat())["lost"]


async def test_a_claim_that_is_asked_again_lets_the_earlier_one_go_and_gets_its_batch(
    served: Served, hand: Hand
) -> None:
    asked = hand.claiming(60)
    first = asyncio.create_task(hand.say("claim", asked))
    await served.until_waiting(hand.id)
    second = asyncio.create_task(hand.say("claim", asked))
    assert (await first)["items"] == []
    id = await served.start()
    handed = await second
    assert [item["id"] for item in handed["items"]] == [id]
    again = await hand.say("claim", asked)
    assert again["items"] == [{**handed["items"][0], "ack_first": True}]


async def test_what_is_handed_over_while_its_claim_looks_comes_once(served: Served, hand: Hand) -> None:
    claims = served.engine.claims
    claiming = asyncio.create_task(hand.say("claim", hand.claiming(60)))
    await served.until_waiting(hand.id)
    poll = claims.take_waiting(served.project_id)
    assert poll is not None
    new = New(str(uuid7()), StartItem("w", accept_early=True))
    start = starts.start(
        project_id=served.project_id, news=[new], now_us=served.engine.clock.now_us(), waiting_claim=poll.waiting_claim
    )
    _, handed = await served.engine.store.write(start)
    looked = claims._turn
    claims.notify(served.project_id)
    poll.stir()  # a hint, before the start has said what it handed over
    await until(lambda: claims._turn > looked)
    await served.engine.store.write(access.touch(now_us=0))  # behind the look
    claims.settle(poll, handed)
    assert [item["id"] for item in (await claiming)["items"]] == [new.id]


@pytest.mark.parametrize("url", ["http://[", "file:///etc/passwd"])
async def test_where_a_reported_child_sends_its_end_is_a_url(served: Served, hand: Hand, url: str) -> None:
    await served.start()
    item = await hand.claim()
    child = {"workflow_id": "w", "payload": None, "webhook_url": url}
    reply = await hand.report(item, entries=[{"type": "child", "key": "c", "fingerprint": None, "item": child}])
    assert reply["problem"]["details"] == {"path": "webhook_url"}
