"""The routes of webhooks and deliveries."""

import asyncio

from tests.engine.outside.test_outbound import Receiver, receiving
from tests.kit.polling import until
from tests.server.serving import Hand, Served, serving

from perdure.wire.base.access import Role

UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


async def test_a_webhook_from_its_first_day_to_its_last(database: str) -> None:
    async with serving(database, outbound_hosts=["127.0.0.1"]) as served, receiving(Receiver()) as receiver:
        hand = Hand(served.client)
        await hand.register()
        client = served.client
        made = await client.post("/api/v1/webhooks", json={"url": receiver.url, "description": "mine"})
        assert made.status_code == 200, made.text
        hook = made.json()
        assert (await client.get("/api/v1/webhooks")).json() == {"webhooks": [hook]}

        batch = {"workflows": [{"workflow_id": "w", "payload": 1, "webhook_url": receiver.url}]}
        id = (await client.post("/api/v1/workflows/batch_run", json=batch)).json()["executions"][0]["execution_id"]
        await hand.complete(await hand.claim(), {"done": True})
        await until(lambda: len(receiver.bodies) == 2)
        path = f"/api/v1/webhooks/deliveries?execution_id={id}"

        async def states() -> list[str]:
            return [one["state"] for one in (await client.get(path)).json()["deliveries"]]

        while await states() != ["delivered", "delivered"]:
            pass
        own, mine = sorted((await client.get(path)).json()["deliveries"], key=lambda one: one["webhook_id"] or "")
        assert (own["id"], own["webhook_id"], own["status"], own["answer"]) == (id, None, 200, "ok")
        assert (mine["id"], mine["webhook_id"]) == (f"{id}.{hook['id']}", hook["id"])
        again = await client.post(f"/api/v1/webhooks/deliveries/{mine['id']}/redeliver")
        assert again.status_code == 200 and again.json()["state"] == "pending"
        await until(lambda: len(receiver.bodies) == 3)

        page = (await client.get("/api/v1/webhooks/deliveries?limit=1")).json()
        rest = (await client.get(f"/api/v1/webhooks/deliveries?limit=1&cursor={page['next_cursor']}")).json()
        ids = [one["id"] for one in (*page["deliveries"], *rest["deliveries"])]
        assert sorted(ids) == sorted([own["id"], mine["id"]]) and rest["next_cursor"] is None
        found = (await client.get(f"/api/v1/webhooks/deliveries?webhook_id={hook['id']}")).json()["deliveries"]
        assert [one["id"] for one in found] == [mine["id"]]

        _, headers = await served.other_project()
        assert (await client.get(path, headers=headers)).json()["deliveries"] == []
        assert (await client.get("/api/v1/webhooks", headers=headers)).json()["webhooks"] == []
        for wrong in (
            await client.delete(f"/api/v1/webhooks/{hook['id']}", headers=headers),
            await client.post(f"/api/v1/webhooks/deliveries/{id}/redeliver", headers=headers),
            await client.post(f"/api/v1/webhooks/deliveries/{UNKNOWN}/redeliver"),
        ):
            assert wrong.status_code == 404
        assert (await client.delete(f"/api/v1/webhooks/{hook['id']}")).status_code == 204
        assert (await client.get("/api/v1/webhooks")).json() == {"webhooks": []}


async def test_secrets_of_urls_are_for_those_who_could_have_given_them(database: str) -> None:
    async with serving(database, outbound_hosts=["127.0.0.1"]) as served, receiving(Receiver()) as receiver:
        hand = Hand(served.client)
        await hand.register()
        secret = receiver.url + "T0/S3CRET?token=S3CRET"
        hook = (await served.client.post("/api/v1/webhooks", json={"url": secret})).json()
        assert hook["url"] == secret
        run = {"payload": 1, "webhook_url": secret}
        own = (await served.client.post("/api/v1/workflows/w/run", json=run)).json()["execution_id"]
        await hand.complete(await hand.claim(), {"done": True})
        await until(lambda: len(receiver.bodies) == 2)
        deliveries = "/api/v1/webhooks/deliveries"

        async def seen(role: Role) -> tuple[list[str], dict[str | None, tuple[str, str | None]]]:
            key = {"authorization": f"Bearer {await served.key_of(role)}"}
            hooks = (await served.client.get("/api/v1/webhooks", headers=key)).json()["webhooks"]
            found = (await served.client.get(deliveries, headers=key)).json()["deliveries"]
            return [one["url"] for one in hooks], {one["webhook_id"]: (one["url"], one["answer"]) for one in found}

        async with asyncio.timeout(60):
            while [answer for _, answer in (await seen(Role.ADMIN))[1].values()] != ["ok", "ok"]:
                pass
        origin = f"http://127.0.0.1:{receiver.port}/…"
        assert await seen(Role.READ) == ([origin], {None: (origin, None), hook["id"]: (origin, None)})
        assert await seen(Role.WRITE) == ([origin], {None: (secret, "ok"), hook["id"]: (origin, None)})
        assert await seen(Role.ADMIN) == ([secret], {None: (secret, "ok"), hook["id"]: (secret, "ok")})
        for role, url in ((Role.WRITE, origin), (Role.ADMIN, secret)):
            key = {"authorization": f"Bearer {await served.key_of(role)}"}
            again = await served.client.post(f"{deliveries}/{own}.{hook['id']}/redeliver", headers=key)
            assert again.json()["url"] == url


async def test_what_is_wrong_is_told(served: Served) -> None:
    client = served.client
    for body in ({"url": "http://127.0.0.1/"}, {"url": "https://10.0.0.1/"}, {"url": "x"}):
        reply = await client.post("/api/v1/webhooks", json=body)
        assert reply.status_code == 422 and reply.json()["details"] == {"path": "url"}
    run = await client.post(
        "/api/v1/workflows/w/run", json={"payload": 1, "accept_early": True, "webhook_url": "https://localhost/"}
    )
    assert run.status_code == 422 and run.json()["details"] == {"path": "webhook_url"}
    for query in ("cursor=x", "cursor=1.x", "limit=0", "state=maybe", "execution_id=x", "webhook_id=x"):
        assert (await client.get(f"/api/v1/webhooks/deliveries?{query}")).status_code == 400, query
    assert (await client.post("/api/v1/webhooks/deliveries/x/redeliver")).status_code == 400
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    refused = await client.post("/api/v1/webhooks", json={"url": "https://example.com/"}, headers=writer)
    assert refused.status_code == 403
