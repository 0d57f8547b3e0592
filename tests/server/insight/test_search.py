"""The search of all named things."""

from typing import Any

from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

NAMES = ("workflows", "agents", "queues", "topics", "sessions", "deployments")


async def test_a_beginning_finds_names_and_executions(served: Served) -> None:
    hand = Hand(served.client, ("order", "other"))
    await hand.register()
    ids = [await served.start("order", key=f"o-{n}-ship", session_id=f"or-{n}", queue_name="oq") for n in range(7)]
    event = {"topic": "orders", "events": [{"event_type": "made", "data": 1}]}
    assert (await served.client.post("/api/v1/events/publish", json=event)).status_code == 200
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}

    async def found(q: str, **more: int) -> dict[str, Any]:
        reply = await served.client.get("/api/v1/search", params={"q": q, **more}, headers=reader)
        assert reply.status_code == 200, reply.text
        given: dict[str, Any] = reply.json()
        return {**given, "executions": [one["id"] for one in given["executions"]]}

    some = await found("o")
    assert [len(some[name]) for name in NAMES] == [2, 0, 1, 1, 5, 0]
    assert (some["workflows"], some["queues"], some["topics"]) == (["order", "other"], ["oq"], ["orders"])
    assert some["sessions"] == [f"or-{n}" for n in range(5)]
    assert len(some["executions"]) == 5 and {*some["executions"]} <= {*ids}
    assert (await found("or", limit=1))["sessions"] == ["or-0"]
    assert (await found("O"))["workflows"] == []
    assert (await found(ids[3]))["executions"] == [ids[3]]
    assert (await found(ids[3].upper()))["executions"] == [ids[3]]
    assert (await found("o-3"))["executions"] == [ids[3]]
    assert len((await found("ship"))["executions"]) == 5
    assert (await found("default"))["deployments"] == ["default"]
    assert set(map(len, (await found("none")).values())) == {0}
    _, other = await served.other_project()
    reply = await served.client.get("/api/v1/search?q=o", headers=other)
    assert set(map(len, reply.json().values())) == {0}
    for query in ("", "?q=", "?q=o&limit=6", f"?q={'x' * 513}"):
        assert (await served.client.get(f"/api/v1/search{query}")).status_code == 400, query
