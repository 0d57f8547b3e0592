"""Pauses over HTTP, in process and in the bench: what is answered, who may, and what is refused."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.server.serving import Hand, Served, serving

from perdure import BadValue, Client, Context, Registry
from perdure.sdk.transports.http import HttpTransport
from perdure.testing import embedded
from perdure.wire.base.access import Role
from perdure.wire.runs.queues import Pause, PauseKind
from perdure.wire.steering.pauses import EndedPause

PATH = "/api/v1/pauses"
QUEUE = {"kind": "queue", "name": "w"}
app = Registry()


@app.workflow
async def plain(ctx: Context) -> str:
    return "done"


async def test_a_pause_says_who_made_it_when_and_why(served: Served, hand: Hand) -> None:
    id = await served.start()
    paused = (await served.client.post(PATH, json={**QUEUE, "note": "down", "until": "2999-01-01T00:00:00Z"})).json()
    assert paused == {
        **QUEUE,
        "concurrency_key": None,
        "paused_at": paused["paused_at"],
        "paused_by": paused["paused_by"],
        "note": "down",
        "until": "2999-01-01T00:00:00.000000+00:00",
        "held": paused["held"],
    }
    assert paused["held"] in (0, 1), "a loop counts what a pause holds, before or after this answer"
    assert paused["paused_by"].startswith("key ")
    assert await hand.claim(0.1) is None
    why = (await served.client.get(f"/api/v1/executions/{id}/why")).json()
    assert (why["rule"], why["pause"]["note"], why["commands"][0]) == ("queue_pause", "down", "perdure unpause queue w")
    assert why["sentence"].startswith("Queue 'w' has been paused since ")
    assert why["sentence"].endswith(": down. It goes on at 2999-01-01 00:00:00 UTC.")
    [listed] = (await served.client.get(PATH)).json()["pauses"]
    assert listed == {**paused, "held": listed["held"]}
    metrics = (await served.client.get("/metrics")).text
    assert 'perdure_paused_executions{kind="queue",name="w"}' in metrics
    ended = await served.client.delete(PATH, params=QUEUE)
    assert ended.json()["was_paused"] is True
    assert (await hand.claim())["id"] == id
    assert (await served.client.delete(PATH, params=QUEUE)).json() == {"was_paused": False, "held": 0}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({**QUEUE, "until": "2020-01-01T00:00:00Z"}, 422, "until: 2020-01-01T00:00:00.000000+00:00 is past"),
        ({"kind": "key", "name": "w"}, 422, "A pause of kind `key` needs its `concurrency_key`"),
        ({**QUEUE, "concurrency_key": "k"}, 422, "other kinds have none"),
        ({"kind": "worker", "name": "w"}, 422, "kind"),
        ({**QUEUE, "note": "n" * 3_000}, 422, "note"),
        ({"kind": "workflow", "name": "none"}, 404, "Workflow 'none' is in no active deployment; `perdure workflows`"),
        ({"kind": "deployment", "name": "none"}, 404, "Deployment 'none' does not exist, or is retired"),
    ],
)
async def test_what_cannot_be_paused_is_refused(
    served: Served, hand: Hand, body: dict[str, Any], status: int, error: str
) -> None:
    reply = await served.client.post(PATH, json=body)
    assert reply.status_code == status, reply.text
    assert error in reply.json()["error"]
    assert (await served.client.get(PATH)).json() == {"pauses": []}


async def test_only_admins_pause_and_all_may_look(served: Served, hand: Hand) -> None:
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await served.client.post(PATH, json=QUEUE, headers=writer)).status_code == 403
    assert (await served.client.delete(PATH, params=QUEUE, headers=writer)).status_code == 403
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.get(PATH, headers=reader)).json() == {"pauses": []}


async def test_the_bench_ends_a_pause_when_its_time_has_come() -> None:
    async with embedded(app) as bench:
        until = datetime.fromtimestamp(bench.clock.now_us() / 1e6, UTC) + timedelta(minutes=5)
        paused = await bench.pause("workflow", "plain", until=until)
        assert paused.paused_by == "the embedding program"
        handle = await bench.start(plain)
        await bench.settle()
        [held] = await bench.pauses()
        assert (held.kind, held.held) == (PauseKind.WORKFLOW, 1)
        await bench.advance(300)
        assert await handle.result(timeout=30) == "done"
        assert await bench.pauses() == []


async def test_the_client_without_a_loop_pauses(database: str) -> None:
    async with serving(database) as served, Client(HttpTransport(served.server.url, served.key)) as client:
        with pytest.raises(BadValue, match="needs its `concurrency_key`"):
            await client.pause("key", "q")

        def manage() -> tuple[Pause, Sequence[Pause], EndedPause]:
            with Client.sync(served.server.url, served.key) as sync:
                paused = sync.pause("key", "q", concurrency_key="k", until=timedelta(hours=1))
                return paused, sync.pauses(), sync.unpause("key", "q", concurrency_key="k")

        paused, listed, ended = await asyncio.to_thread(manage)
        assert listed == [paused]
        assert paused.concurrency_key == "k"
        assert ended == EndedPause(was_paused=True)
        assert await client.pauses() == []
