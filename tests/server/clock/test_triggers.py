"""Event triggers over HTTP."""

from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

PATH = "/api/v1/event-triggers"
NOBODY = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


async def make(served: Served, status: int = 200, headers: Any = None, **fields: Any) -> Any:
    body = {"workflow_id": "w", "deployment_id": "default", "event_topic": "orders", "batch_size": 1, **fields}
    reply = await served.client.post(f"{PATH}/register", json=body, headers=headers)
    assert reply.status_code == status, reply.text
    return reply.json()


async def publish(served: Served, *data: Any) -> None:
    body = {"topic": "orders", "events": [{"data": one, "event_type": "made"} for one in data]}
    assert (await served.client.post("/api/v1/events/publish", json=body)).status_code == 200


async def test_an_event_starts_the_workflow(served: Served, hand: Hand) -> None:
    await publish(served, "before")
    assert await make(served, queue_name=None, batch_timeout_seconds=None, unknown="is ignored") == {}
    await publish(served, {"order": 7})
    item = await hand.claim()
    event = (await served.client.get("/api/v1/events?topic=orders")).json()["events"][1]
    assert item["payload"] == event
    assert (event["sequence_id"], event["data"], event["event_type"]) == (2, {"order": 7}, "made")
    [shown] = (await served.client.get(PATH)).json()["triggers"]
    assert shown == {
        "id": shown["id"],
        "workflow_id": "w",
        "event_topic": "orders",
        "batch_size": 1,
        "last_sequence_id": 2,
        "waiting": 0,
        "created_at": shown["created_at"],
        "updated_at": shown["created_at"],
        "batch_timeout_seconds": None,
        "queue_name": None,
        "declared": False,
    }


async def test_a_batch_is_a_list_of_events(served: Served, hand: Hand) -> None:
    await make(served, batch_size=2, queue_name="slow")
    await publish(served, 1)
    await publish(served, 2, 3)
    item = await hand.claim()
    assert [event["data"] for event in item["payload"]["events"]] == [1, 2] and item["queue_name"] == "slow"
    [shown] = (await served.client.get(PATH)).json()["triggers"]
    assert (shown["last_sequence_id"], shown["waiting"]) == (2, 1)


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"batch_size": 0}, 422, "batch_size: must be 1 to 10,000, got 0"),
        ({"batch_size": 10_001}, 422, "batch_size: must be"),
        ({"batch_timeout_seconds": 0}, 422, "batch_timeout_seconds: must be"),
        ({"event_topic": ""}, 422, "event_topic: is empty"),
        ({"workflow_id": "a\0"}, 422, "workflow_id: holds"),
        ({"queue_name": ""}, 422, "queue_name: is empty"),
        ({"batch_size": None}, 422, "batch_size"),
        ({"workflow_id": "unknown"}, 404, "'unknown' is not registered"),
        ({"deployment_id": "unknown"}, 404, "'unknown' does not exist"),
    ],
)
async def test_what_is_wrong_is_named(served: Served, hand: Hand, fields: Any, status: int, says: str) -> None:
    assert says in (await make(served, status, **fields))["error"]
    assert (await served.client.get(PATH)).json()["triggers"] == []


async def test_the_list_has_pages_and_what_is_deleted_is_gone(served: Served, hand: Hand) -> None:
    for n in range(3):
        await make(served, event_topic=f"t{n}")
    first = (await served.client.get(f"{PATH}?limit=2")).json()
    second = (await served.client.get(f"{PATH}?limit=2&cursor={first['next_cursor']}")).json()
    listed = [*first["triggers"], *second["triggers"]]
    assert [one["event_topic"] for one in listed] == ["t2", "t1", "t0"] and second["next_cursor"] is None
    assert (await served.client.get(f"{PATH}?cursor=x")).status_code == 400
    id = listed[0]["id"]
    assert (await served.client.delete(f"{PATH}/{id}")).status_code == 204
    for gone, status in ((id, 404), (NOBODY, 404), ("x", 400)):
        assert (await served.client.delete(f"{PATH}/{gone}")).status_code == status
    assert len((await served.client.get(PATH)).json()["triggers"]) == 2


async def test_other_projects_and_readers(served: Served, hand: Hand) -> None:
    await make(served)
    [shown] = (await served.client.get(PATH)).json()["triggers"]
    _, headers = await served.other_project()
    assert (await served.client.get(PATH, headers=headers)).json()["triggers"] == []
    assert (await served.client.delete(f"{PATH}/{shown['id']}", headers=headers)).status_code == 404
    await make(served, 404, headers)
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.get(PATH, headers=reader)).status_code == 200
    await make(served, 403, reader)
    assert (await served.client.delete(f"{PATH}/{shown['id']}", headers=reader)).status_code == 403
