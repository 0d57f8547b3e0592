"""Two real servers on one PostgreSQL: requests at one server, acts at the other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.serving import LASTING, Hand, Served, serving
from tests.server.users import Person, member
from tests.servers.conftest import NEVER

from perdure.wire.base.access import Role


@pytest.fixture
async def both(url: str) -> AsyncIterator[tuple[Served, Served]]:
    """Servers that rarely look unprompted, so that only hints act."""
    values: dict[str, Any] = {"poll_seconds": NEVER, "stream_comment_seconds": 600.0, **LASTING}
    async with serving(url, **values) as a, serving(url, **values) as b:
        await until(lambda: a.engine.store.hints_up and b.engine.store.hints_up)
        yield a, b


async def test_a_stream_at_a_shows_what_is_written_through_b(both: tuple[Served, Served]) -> None:
    a, b = both
    hand = Hand(b.client)
    await hand.register()
    id = await a.start()
    item = await hand.claim()
    async with a.client.stream("GET", f"/api/v1/executions/{id}/events", timeout=60) as reply:
        lines = reply.aiter_lines()
        async for line in lines:
            if line.startswith("event: row"):
                break
        ending = asyncio.ensure_future(hand.complete(item, {"n": 1}))
        seen = [line async for line in lines]
    await ending
    assert "event: end" in seen


async def test_a_topics_stream_at_a_shows_what_is_published_at_b(both: tuple[Served, Served]) -> None:
    a, b = both
    async with a.client.stream("GET", "/api/v1/events/stream", params={"topic": "t"}, timeout=60) as reply:
        lines = reply.aiter_lines()
        await anext(lines)
        await until(lambda: bool(a.engine.notifier.waited_at("topic")))
        body = {"topic": "t", "events": [{"data": {"n": 7}}]}
        assert (await b.client.post("/api/v1/events/publish", json=body)).status_code == 200
        async for line in lines:
            if line.startswith("data: "):
                assert '"n":7' in line
                break


async def test_a_long_poll_at_a_is_answered_when_the_execution_ends_through_b(both: tuple[Served, Served]) -> None:
    a, b = both
    hand = Hand(b.client)
    await hand.register()
    id = await a.start()
    polls = [
        asyncio.ensure_future(a.client.get(f"/api/v1/executions/{id}", params={"wait": 50}, timeout=60)),
        asyncio.ensure_future(
            a.client.get(f"/api/v1/executions/{id}/steps", params={"wait": 50, "after": 1}, timeout=60)
        ),
    ]
    item = await hand.claim()
    await a.until_held(2)
    await hand.complete(item, 7)
    found, steps = await asyncio.gather(*polls)
    assert (found.json()["status"], found.json()["result"]) == ("completed", 7)
    assert [step["kind"] for step in steps.json()["steps"]] == ["completed"]


async def test_a_key_deleted_at_a_is_refused_at_b(both: tuple[Served, Served]) -> None:
    a, b = both
    key = await a.key_of(Role.READ)
    headers = {"authorization": f"Bearer {key}"}
    assert (await b.client.get("/api/v1/executions", headers=headers)).status_code == 200
    assert (await a.client.delete(f"/api/v1/api-keys/{key.split('_')[1]}")).status_code == 200

    async def refused() -> bool:
        return (await b.client.get("/api/v1/executions", headers=headers)).status_code == 401

    await until(refused)


async def test_a_user_who_signs_out_or_is_removed_at_a_is_refused_at_b(both: tuple[Served, Served]) -> None:
    a, b = both
    async with member(a) as ann, member(a) as bob:

        async def status(somebody: Person) -> int:
            reply = await b.client.get("/api/v1/executions", headers=headers[somebody.id])
            return reply.status_code

        headers = {somebody.id: somebody.within(a.project_id) for somebody in (ann, bob)}
        assert [await status(ann), await status(bob)] == [200, 200]
        path = f"/api/v1/projects/{a.project_id}/members/{bob.id}"
        assert (await a.client.delete(path)).status_code == 204
        assert (await ann.client.post("/api/v1/auth/signout")).status_code == 200

        async def refused() -> bool:
            return [await status(ann), await status(bob)] == [401, 404]

        await until(refused)


async def test_a_worker_that_beats_at_b_keeps_its_lease_when_its_connection_to_a_closes(
    both: tuple[Served, Served],
) -> None:
    a, b = both
    hand = Hand(a.client)
    await hand.register()
    await hand.beat()
    hand.client = b.client
    assert not (await hand.beat())["lost"]
    until_us = await b.lease_until_us(hand.id)
    gone = asyncio.Event()
    real = a.engine.beats.disconnected

    async def disconnected(worker_id: str, granted_us: int | None = None) -> None:
        await real(worker_id, granted_us)
        gone.set()

    a.engine.beats.disconnected = disconnected  # type: ignore[method-assign]  # to know when it is over
    await a.client.aclose()
    await gone.wait()
    assert await b.lease_until_us(hand.id) == until_us
    assert not (await hand.beat())["lost"]


async def test_the_metrics_tell_whether_hints_arrive(both: tuple[Served, Served]) -> None:
    a, _ = both
    assert "perdure_hints_up 1.0" in (await a.client.get("/metrics")).text
