"""The list of workers over HTTP."""

from tests.server.serving import Hand, Served

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.wire.base.access import Role

PATH = "/api/v1/workers"


async def test_workers_are_listed_in_pages(served: Served, hand: Hand) -> None:
    second = Hand(served.client)
    await second.register()
    await served.start()
    await hand.claim()
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    whole = (await served.client.get(PATH, headers=reader)).json()
    assert [(one["id"], one["running"]) for one in whole["workers"]] == sorted([(hand.id, 1), (second.id, 0)])
    assert whole["next_cursor"] is None
    first = (await served.client.get(f"{PATH}?limit=1")).json()
    rest = (await served.client.get(f"{PATH}?limit=1&cursor={first['next_cursor']}")).json()
    assert [one["id"] for one in first["workers"] + rest["workers"]] == sorted([hand.id, second.id])
    assert rest["next_cursor"] is None
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        page = await client.workers(limit=1)
        assert [one.id for one in page.items] == [first["workers"][0]["id"]]
        assert (await client.workers(cursor=page.next_cursor)).next_cursor is None
    (one,) = [one for one in whole["workers"] if one["id"] == hand.id]
    assert one == {
        "id": hand.id,
        "deployment_id": "default",
        "kind": "native",
        "state": "online",
        "capacity": one["capacity"],
        "running": 1,
        "registered_at": one["registered_at"],
        "last_beat_at": one["last_beat_at"],
        "lease_until": one["lease_until"],
        "python": "3.11",
        "url": None,
        "host": None,
        "pid": None,
    }
    assert one["registered_at"] <= one["last_beat_at"] < one["lease_until"]
    _, other_project = await served.other_project()
    assert (await served.client.get(PATH, headers=other_project)).json()["workers"] == []
    for wrong in ("cursor=x", "limit=0", "limit=1001"):
        assert (await served.client.get(f"{PATH}?{wrong}")).status_code == 400, wrong


async def test_a_worker_says_where_it_runs(served: Served, hand: Hand) -> None:
    body = {
        "worker_id": hand.id,
        "deployment_id": "default",
        "python": "3.11",
        "workflows": [],
        "host": "web-3",
        "pid": 7,
    }
    await hand.say("register", body)
    (one,) = (await served.client.get(PATH)).json()["workers"]
    assert (one["host"], one["pid"]) == ("web-3", 7)
    refused = await served.client.post(
        "/worker/v1/register", json=body | {"host": "a\x00b"}, headers={"perdure-protocol": "1"}
    )
    assert refused.status_code == 422 and "host" in refused.json()["error"]
