"""Deployments side by side: the current deployment, running work, and a deployment's end."""

from typing import Any

from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

PATH = "/api/v1/deployments"


async def worker(served: Served, deployment_id: str) -> Hand:
    hand = Hand(served.client)
    body = {"worker_id": hand.id, "deployment_id": deployment_id, "python": "3.11", "workflows": [{"id": "w"}]}
    hand.epoch = (await hand.say("register", body))["epoch"]
    return hand


async def leave(hand: Hand) -> None:
    await hand.say("drain", {"worker_id": hand.id, "epoch": hand.epoch})


async def listed(served: Served, **params: Any) -> Any:
    reply = await served.client.get(PATH, params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()["deployments"]


async def act(served: Served, id: str, what: str, status: int = 200) -> Any:
    reply = await served.client.post(f"{PATH}/{id}/{what}")
    assert reply.status_code == status, reply.text
    return reply.json()


async def test_an_old_deployment_drains_and_is_retired(served: Served) -> None:
    old = await worker(served, "v1")
    ids = [await served.start() for _ in range(3)]
    item = await old.claim()
    new = await worker(served, "v2")
    on_new = await served.start()
    v2, v1 = await listed(served)
    assert [(one["id"], one["current"], one["workers"]) for one in (v2, v1)] == [("v2", True, 1), ("v1", False, 1)]
    assert (v2["open"], v1["open"]) == ({"queued": 1}, {"queued": 2, "running": 1})
    assert (await new.claim())["id"] == on_new, "what was started for v1 stays there"
    assert "is the current one" in (await act(served, "v2", "retire", 409))["error"]
    assert "'v1' is not empty: execution " in (await act(served, "v1", "retire", 409))["error"]
    await old.complete(item)
    for _ in range(2):
        await old.complete(await old.claim())
    assert (await listed(served))[1]["open"] == {}
    assert "'v1' still has workers" in (await act(served, "v1", "retire", 409))["error"]
    await leave(old)
    assert (await act(served, "v1", "retire"))["status"] == "retired"
    assert (await act(served, "v1", "retire"))["status"] == "retired"
    assert [one["id"] for one in await listed(served)] == ["v2"]
    assert [one["id"] for one in await listed(served, retired="true")] == ["v2", "v1"]
    assert (await served.client.get(f"{PATH}/v1")).json()["status"] == "retired"
    assert (await served.client.get(f"/api/v1/executions/{ids[0]}")).json()["deployment_id"] == "v1"
    workflows = (await served.client.get("/api/v1/workflows")).json()
    assert [one["deployment_id"] for one in workflows] == ["v2"]


async def test_only_an_admin_says_which_deployment_is_current_but_workers_register(served: Served) -> None:
    await worker(served, "v1")
    await worker(served, "v2")
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await served.client.post(f"{PATH}/v1/use", headers=writer)).status_code == 403
    assert (await served.client.get(f"{PATH}/v2")).json()["current"] is True
    assert (await served.client.post(f"{PATH}/v1/use")).json()["current"] is True


async def test_a_retired_deployment_takes_nothing_until_a_worker_comes(served: Served) -> None:
    await leave(await worker(served, "v1"))
    await worker(served, "v2")
    await act(served, "v1", "retire")
    body = {"payload": 1, "deployment_id": "v1"}
    for path, sent in (("/api/v1/workflows/w/run", body), (f"{PATH}/v1/use", None)):
        reply = await served.client.post(path, json=sent)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "DEPLOYMENT_NOT_FOUND")
    await worker(served, "v1")
    shown = (await served.client.get(f"{PATH}/v1")).json()
    assert (shown["status"], shown["current"]) == ("active", True)


async def test_new_executions_go_where_they_are_told_to(served: Served) -> None:
    await worker(served, "v1")
    await worker(served, "v2")
    assert (await act(served, "v1", "use"))["current"] is True
    id = await served.start()
    assert (await served.client.get(f"/api/v1/executions/{id}")).json()["deployment_id"] == "v1"
    assert [one["id"] for one in await listed(served) if one["current"]] == ["v1"]
    await worker(served, "v2")
    assert [one["id"] for one in await listed(served) if one["current"]] == ["v1"], "a known one changes nothing"
    for what in ("use", "retire"):
        assert (await act(served, "v3", what, 404))["error_type"] == "DEPLOYMENT_NOT_FOUND"


async def test_the_list_has_pages(served: Served) -> None:
    for n in range(5):
        await worker(served, f"v{n}")
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await served.client.get(PATH, params={"limit": "2", **cursor})).json()
        found += [one["id"] for one in page["deployments"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == ["v4", "v3", "v2", "v1", "v0"]
    for wrong in ({"cursor": "x"}, {"cursor": "1-"}, {"limit": "0"}):
        assert (await served.client.get(PATH, params=wrong)).status_code == 400


async def test_waiting_ones_keep_a_deployment_open(served: Served) -> None:
    hand = await worker(served, "v1")
    await served.start()
    item = await hand.claim()
    await hand.report(
        item,
        entries=[{"type": "wait", "key": "k", "fingerprint": None, "topic": "t"}],
        end={"type": "suspend", "waits": ["k"]},
    )
    await served.start(delay_seconds=3_600)
    await worker(served, "v2")
    await leave(hand)
    v1 = (await listed(served))[1]
    assert (v1["id"], v1["open"], v1["workers"]) == ("v1", {"queued": 1, "waiting": 1}, 0)
    await act(served, "v1", "retire", 409)


async def test_other_projects_and_readers(served: Served) -> None:
    await worker(served, "v1")
    _, headers = await served.other_project()
    assert (await served.client.get(PATH, headers=headers)).json()["deployments"] == []
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.get(PATH, headers=reader)).status_code == 200
    for what in ("use", "retire"):
        assert (await served.client.post(f"{PATH}/v1/{what}", headers=headers)).status_code == 404
        assert (await served.client.post(f"{PATH}/v1/{what}", headers=reader)).status_code == 403


async def drain(served: Served, id: str, status: int = 200) -> Any:
    reply = await served.client.get(f"{PATH}/{id}/drain")
    assert reply.status_code == status, reply.text
    return reply.json()


async def suspend(hand: Hand, key: str | None = None, timer: Any = None, **wait: Any) -> str:
    item = await hand.claim()
    entries = [] if key is None else [{"type": "wait", "key": key, "fingerprint": None, **wait}]
    await hand.report(
        item, entries=entries, end={"type": "suspend", "waits": [key] if key is not None else [], "timer": timer}
    )
    return str(item["id"])


async def test_a_drain_says_what_is_open_and_what_its_end_waits_for(served: Served) -> None:
    old = await worker(served, "v1")
    found = await drain(served, "v1")
    assert (found["current"], found["sentence"]) == (True, "Nothing is open. New executions go there.")
    for _ in range(5):
        await served.start()
    due_us = 4_102_444_800_000_000
    timed = await suspend(old, timer=["nap", due_us])
    await suspend(old, "ok?", data={"title": "Go on?"})
    await suspend(old, "paid", topic="payments")
    running = await old.claim()
    await worker(served, "v2")
    found = await drain(served, "v1")
    assert found["draining_since"] is not None and found["current"] is False
    assert (found["open"], found["total"], found["workers"]) == ({"queued": 1, "running": 1, "waiting": 3}, 5, 1)
    assert found["untimed"] == {"answer": 1, "event": 1, "child": 0}
    assert (found["last"]["execution_id"], found["last"]["due_at"]) == (timed, "2100-01-01T00:00:00.000000+00:00")
    assert found["sentence"] == (
        "5 open: 1 queued, 1 running, 3 waiting. 1 waits for an answer without a time limit. "
        "1 waits for an event without a time limit. The last timed wait ends at 2100-01-01 00:00:00 UTC."
    )
    await old.complete(running)
    await old.complete(await old.claim())
    for id in [
        one["id"] for one in (await served.client.get("/api/v1/executions?deployment_id=v1")).json()["executions"]
    ]:
        await served.client.post(f"/api/v1/executions/{id}/cancel")
    assert (await drain(served, "v1"))["sentence"] == "Nothing is open. Stop its worker, then retire it."
    await leave(old)
    assert (await drain(served, "v1"))["sentence"] == "Nothing is open. It can be retired."
    await act(served, "v1", "use")
    assert (await drain(served, "v1"))["draining_since"] is None
    assert (await drain(served, "v2"))["draining_since"] is not None
    await drain(served, "v3", 404)
