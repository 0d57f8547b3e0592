"""Topics: publish and read."""

import asyncio
from typing import Any

import pytest
from tests.server.serving import Served

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.wire.base.limits import REPLY_BYTES_MAX


async def publish(served: Served, **body: Any) -> Any:
    return await served.client.post("/api/v1/events/publish", json=body)


async def test_numbers_count_by_topic(served: Served) -> None:
    assert (await publish(served, topic="a", events=[{"data": 1}, {"data": 2}])).json()["sequence_ids"] == [1, 2]
    assert (await publish(served, topic="b", events=[{"data": 1}])).json()["sequence_ids"] == [1]
    assert (await publish(served, topic="a", events=[{"data": 3}])).json()["sequence_ids"] == [3]


async def test_the_first_of_a_dedup_key_stays(served: Served) -> None:
    events = [{"data": 1, "dedup_key": "x"}, {"data": 2}, {"data": 3, "dedup_key": "x"}]
    assert (await publish(served, topic="a", events=events)).json()["sequence_ids"] == [1, 2, 1]


async def test_a_repeated_request_is_answered_like_the_first_time(served: Served) -> None:
    async def again(body: Any, key: str) -> Any:
        return await served.client.post("/api/v1/events/publish", json=body, headers={"idempotency-key": key})

    body = {"topic": "a", "events": [{"data": 1}, {"data": 2}]}
    first = await again(body, "one")
    assert first.json()["sequence_ids"] == [1, 2]
    await publish(served, topic="a", events=[{"data": 3}])
    repeated = await again(body, "one")
    assert (repeated.status_code, repeated.json()) == (200, first.json())
    for other in ({**body, "topic": "b"}, {**body, "events": [{"data": 1}]}):
        refused = await again(other, "one")
        assert (refused.status_code, refused.json()["error_type"]) == (409, "IDEMPOTENCY_KEY_REUSED")
        assert "'one'" in refused.json()["error"]
    assert (await again(body, "two")).json()["sequence_ids"] == [4, 5]
    assert (await served.client.get("/api/v1/events?topic=b")).json()["events"] == []
    _, other_project = await served.other_project()
    headers = {"idempotency-key": "one", **other_project}
    reply = await served.client.post("/api/v1/events/publish", json={**body, "topic": "b"}, headers=headers)
    assert reply.json()["sequence_ids"] == [1, 2]


async def test_concurrent_copies_of_a_request_publish_once(served: Served) -> None:
    body = {"topic": "a", "events": [{"data": 1}]}
    replies = await asyncio.gather(
        *(served.client.post("/api/v1/events/publish", json=body, headers={"idempotency-key": "k"}) for _ in range(5))
    )
    assert [reply.json() for reply in replies] == [replies[0].json()] * 5
    assert len((await served.client.get("/api/v1/events?topic=a")).json()["events"]) == 1


async def test_reading(served: Served) -> None:
    await publish(served, topic="a", events=[{"data": n, "event_type": "e"} for n in range(1, 8)])

    async def read(query: str) -> tuple[list[int], Any]:
        reply = await served.client.get(f"/api/v1/events?topic=a&{query}")
        assert reply.status_code == 200, reply.text
        body = reply.json()
        return [event["data"] for event in body["events"]], body

    data, body = await read("")
    assert data == [1, 2, 3, 4, 5, 6, 7] and body["next_sequence_id"] == 7 and body["has_more"] is False
    data, body = await read("limit=3")
    assert data == [1, 2, 3] and body["next_sequence_id"] == 3 and body["has_more"] is True
    assert (await read("limit=3&last_sequence_id=5"))[0] == [6, 7]
    assert (await read("last_sequence_id=7")) == ([], {"events": [], "next_sequence_id": None, "has_more": False})
    assert (await read("sort=desc&limit=3"))[0] == [7, 6, 5]
    assert (await read("sort=desc&last_sequence_id=5"))[0] == [7, 6]
    assert (await read("sort=desc&last_sequence_id=9"))[0] == []
    assert (await read("last_sequence_id=9223372036854775807"))[0] == []
    assert (await read("sort=desc&last_sequence_id=9223372036854775807"))[0] == []
    none = (await served.client.get("/api/v1/events?topic=none&sort=desc")).json()
    assert none == {"events": [], "next_sequence_id": None, "has_more": False}


async def test_a_page_ends_with_the_event_that_fills_it(served: Served) -> None:
    large = "x" * (REPLY_BYTES_MAX // 2)
    for _ in range(3):
        assert (await publish(served, topic="a", events=[{"data": large}])).status_code == 200
    for query, pages in (
        ("last_sequence_id=0", [[1, 2], [3], []]),
        ("last_sequence_id=1", [[2, 3], []]),
        ("sort=desc", [[3, 2]]),  # a later page of it is asked for by numbers: they have no gaps
        ("sort=desc&last_sequence_id=2", [[3]]),
    ):
        for page in pages:
            body = (await served.client.get(f"/api/v1/events?topic=a&limit=1000&{query}")).json()
            assert [event["sequence_id"] for event in body["events"]] == page
            assert body["has_more"] is (len(page) == 2)
            query = f"last_sequence_id={body['next_sequence_id']}"


@pytest.mark.parametrize("amount", [0, 1, 2, 3, 5, 8, 13])
async def test_places_are_found_by_time(served: Served, amount: int) -> None:
    for n in range(amount):
        await publish(served, topic="a", events=[{"data": n}])
    events = (await served.client.get("/api/v1/events?topic=a")).json()["events"]
    # Compared with the store's times, not with the test's: on PostgreSQL the server follows the database's clock to
    # within the time that a question to it takes, which on a busy machine is some milliseconds.
    times = [event["created_at"] for event in events]
    assert times == sorted(times) and len(times) == amount
    for moment in times:
        params = {"topic": "a", "last_timestamp": moment}
        body = (await served.client.get("/api/v1/events", params=params)).json()
        assert body["events"] == [event for event in events if event["created_at"] > moment]
    for time, left in (("1970-01-01T00:00:00Z", amount), ("2999-01-01T00:00:00Z", 0)):
        params = {"topic": "a", "last_timestamp": time}
        assert len((await served.client.get("/api/v1/events", params=params)).json()["events"]) == left


async def test_a_bad_query_is_refused(served: Served) -> None:
    for query in (
        "",
        "topic=a&limit=0",
        "topic=a&limit=1001",
        "topic=a&sort=up",
        "topic=a&last_sequence_id=-1",
        "topic=a&last_sequence_id=9223372036854775808",
        "topic=a&last_timestamp=x",
        "topic=a&topic=b",
    ):
        assert (await served.client.get(f"/api/v1/events?{query}")).status_code == 400, query


async def test_what_cannot_be_published(served: Served) -> None:
    id = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
    one = [{"data": 1}]
    for body, status in (
        ({"topic": "a", "events": []}, 400),
        ({"topic": "", "events": one}, 422),
        ({"topic": "a\0", "events": one}, 422),
        ({"topic": "a" * 600, "events": one}, 422),
        ({"topic": "a", "events": [{}]}, 422),
        ({"topic": "a", "events": one * 1_001}, 400),
        ({"topic": "a", "events": one, "durable": True}, 400),
        ({"topic": "a", "events": one, "durable": True, "execution_id": id, "root_execution_id": "x"}, 400),
        ({"topic": "a", "events": one, "durable": True, "execution_id": id, "root_execution_id": id}, 200),
    ):
        assert (await publish(served, **body)).status_code == status, body


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"topic": "a" * 9_000}, "query.topic"),
        ({"topic": "a\nb"}, "query.topic"),
        ({"workflow_id": "w" * 9_000, "workflow_run_id": "0190a5f2-7c1e-7b3a-9d55-0242ac120002"}, "query.workflow_id"),
    ],
)
async def test_nobody_follows_what_nothing_can_be_published_to(
    served: Served, query: dict[str, str], field: str
) -> None:
    for path in ("/api/v1/events", "/api/v1/events/stream"):
        if path.endswith("events") and "topic" not in query:
            continue
        reply = await served.client.get(path, params=query)
        assert (reply.status_code, reply.json()["error_type"]) == (422, "BAD_VALUE")
        assert reply.json()["error"].startswith(f"{field}: ")
    if "topic" in query:
        refused = (await publish(served, topic=query["topic"], events=[{"data": 1}])).json()
        assert f"query.{refused['error']}" == reply.json()["error"]


async def test_topics_are_listed_with_their_last_event(served: Served) -> None:
    for topic, *types in (("orders/b", "made", "paid"), ("orders/a", None), ("other",), ("ordersX", None)):
        if types:
            await publish(served, topic=topic, events=[{"data": 1, "event_type": one} for one in types])
    last = (await served.client.get("/api/v1/events?topic=orders/b")).json()["events"][-1]
    listed = (await served.client.get("/api/v1/topics?prefix=orders/")).json()
    assert [one["topic"] for one in listed["topics"]] == ["orders/a", "orders/b"] and listed["next_cursor"] is None
    assert listed["topics"][1] == {
        "topic": "orders/b",
        "last_sequence_id": 2,
        "first_sequence_id": 1,
        "last_event_at": last["created_at"],
        "last_event_type": "paid",
    }
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        page = await client.topics("orders/", limit=1)
        assert [one.last_sequence_id for one in page.items] == [1]
        rest = await client.topics("orders/", cursor=page.next_cursor)
        assert [one.last_event_type for one in rest.items] == ["paid"]
    _, other_project = await served.other_project()
    assert (await served.client.get("/api/v1/topics", headers=other_project)).json()["topics"] == []
    for wrong, status in (("cursor=x", 400), ("limit=0", 400), (f"prefix={'a' * 600}", 422), ("prefix=%00", 400)):
        assert (await served.client.get(f"/api/v1/topics?{wrong}")).status_code == status, wrong
