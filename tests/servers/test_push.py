"""Push workers of several servers on one database: any server brings work, and no worker gets too much."""

from __future__ import annotations

import asyncio
from typing import Any

from tests import postgres
from tests.databases import migrated
from tests.server.push_worker import LOOPBACK, push_worker
from tests.server.serving import serving


async def test_any_server_brings_the_work_and_none_too_much() -> None:
    async with (
        postgres.fresh(migrated) as url,
        serving(url, outbound_hosts=LOOPBACK) as one,
        serving(url, outbound_hosts=LOOPBACK) as other,
        push_worker(one, capacity=3) as worker,
    ):

        async def run(n: int) -> str:
            client = (one, other)[n % 2].client
            reply = await client.post(
                "/api/v1/workflows/w/run", json={"payload": n, "deployment_id": "push"}, headers=headers
            )
            assert reply.status_code == 200, reply.text
            id: str = reply.json()["execution_id"]
            return id

        headers = {"authorization": f"Bearer {one.key}"}
        ids = await asyncio.gather(*[run(n) for n in range(30)])
        done = 0
        while done < 30:
            await worker.until(lambda done=done: len(worker.pushed()) > done)  # type: ignore[misc]  # bound now
            held = worker.pushed()[done:]
            assert len(held) <= 3, "the claims of both servers count what it holds"
            body: Any = {"result": 1, "worker_id": worker.id}
            path = f"/internal/executions/{held[0]['execution_id']}/complete"
            reply = await (one, other)[done % 2].client.post(path, json=body, headers=headers)
            assert reply.status_code == 200, reply.text
            done += 1
        assert sorted(one["execution_id"] for one in worker.pushed()) == sorted(ids), "each once"


async def test_the_work_of_a_server_that_is_gone_is_brought_by_another() -> None:
    async with (
        postgres.fresh(migrated) as url,
        serving(url, outbound_hosts=LOOPBACK) as one,
        serving(url, outbound_hosts=LOOPBACK) as other,
        push_worker(other) as worker,
    ):
        id = await other.start("w", deployment_id="push", accept_early=False)
        await worker.until_pushed(id)
        other.server.stop()
        worker.client = one.client
        worker.client.headers["authorization"] = f"Bearer {one.key}"
        body = {"step_key": "e", "wait_type": "event", "wait_topic": "t"}
        assert (await worker.say(id, "wait", body)).status_code == 200
        event = {"topic": "t", "events": [{"data": 1}]}
        assert (await one.client.post("/api/v1/events/publish", json=event)).status_code == 200
        await worker.until_pushed(id, 2)
        assert (await worker.complete(id)).status_code == 200
