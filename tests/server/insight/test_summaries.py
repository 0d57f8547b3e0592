"""Lists for people over HTTP."""

from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role


async def test_a_page_of_summaries(served: Served, hand: Hand) -> None:
    ids = [await served.start(key=f"order-{n}", payload={"large": 1}, tags={"shop": "1"}) for n in range(3)]
    item = await hand.claim()
    await hand.complete(item, {"b": [2]})
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    path = "/api/v1/executions/summaries"
    first = (await served.client.get(f"{path}?limit=2", headers=reader)).json()
    assert [one["id"] for one in first["executions"]] == [ids[2], ids[1]]
    rest = (await served.client.get(f"{path}?cursor={first['next_cursor']}")).json()
    [done] = rest["executions"]
    assert (done["id"], done["status"], done["details"], done["key"]) == (ids[0], "completed", None, "order-0")
    assert (
        isinstance(done["took_ms"], int) and (done["losses"], done["tries"]) == (0, 1) and done["tags"] == {"shop": "1"}
    )
    assert not {"payload", "result"} & {*done}
    assert first["executions"][0]["details"] == "Ready for a worker"

    async def found(query: str) -> list[str]:
        reply = await served.client.get(f"{path}?{query}")
        assert reply.status_code == 200, reply.text
        return [one["id"] for one in reply.json()["executions"]]

    assert await found("q=order-1") == await found(f"q={ids[1]}") == [ids[1]]
    assert await found("workflow_id=none,w&phase=completed") == [ids[0]]
    assert await found(f"forked_from={ids[0]}") == []
    assert len((await served.client.get("/api/v1/executions?q=order")).json()["executions"]) == 3
    assert await found("not_phase=completed,running") == [ids[2], ids[1]]
    assert await found("not_tag=shop=2&not_workflow_id=none") == ids[::-1]
    assert await found("not_workflow_id=w") == []
    _, other = await served.other_project()
    assert (await served.client.get(path, headers=other)).json()["executions"] == []
    cursor = first["next_cursor"]
    wrong = ("q=x", "unknown=1", "limit=501", "not_phase=faild", f"sort=ended&cursor={cursor}", f"cursor=17-{cursor}")
    for query in wrong:
        assert (await served.client.get(f"{path}?{query}")).status_code in (400, 422), query


async def test_a_list_by_end(served: Served, hand: Hand) -> None:
    ids = [await served.start() for _ in range(4)]
    items = {item["id"]: item for item in [await hand.claim() for _ in range(3)]}
    for id in (ids[1], ids[0], ids[2]):
        await hand.complete(items[id], None)
    path, found, cursor = "/api/v1/executions/summaries?sort=ended&limit=2", [], ""
    while cursor is not None:
        page = (await served.client.get(path + cursor)).json()
        found += [one["id"] for one in page["executions"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert found == [ids[2], ids[0], ids[1]]
