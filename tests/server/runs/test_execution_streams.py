"""What executions emit, over HTTP: the server's side by hand, and the clients that come back."""

import asyncio
import json
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.http.test_streams import following
from tests.server.serving import Hand, Served, serving

from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.clients.client import Client
from perdure.sdk.clients.sync import SyncClient
from perdure.sdk.transports.http import HttpTransport
from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest


def token(data: Any, key: str = "model", **more: Any) -> dict[str, Any]:
    return {"kind": "token", "key": key, "data": data, **more}


async def test_a_stream_carries_what_is_emitted_to_the_end(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    async with following(served, f"/api/v1/executions/{id}/stream") as stream:
        await hand.report(item, stream=[token("Hel")])
        first = await stream.next()
        assert first is not None and (first.id, first.event) == ("1", "item")
        at = first.data.pop("at")
        assert at.endswith("Z") or "+" in at
        assert first.data == {
            **{"execution_id": id, "n": 1, "path": [], "attempt": 1, "tries": 1},
            **{"key": "model", "kind": "token", "data": "Hel"},
        }
        await hand.report(item, number=2, stream=[token("lo", tries=2)], end={"type": "complete", "result": 1})
        rest = await stream.rest()
    assert [(event.event, event.id) for event in rest] == [("item", "2"), ("end", "2")]
    assert rest[-1].data == {"id": id, "status": "completed", "phase": "completed", "error": None}
    for seen, left in (("0", 3), ("1", 2), ("2", 1)):
        async with following(served, f"/api/v1/executions/{id}/stream", **{"Last-Event-ID": seen}) as stream:
            assert len(await stream.rest()) == left
        async with following(served, f"/api/v1/executions/{id}/stream?last_event_id={seen}") as stream:
            assert len(await stream.rest()) == left


async def test_what_a_stream_does_not_take(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    for bad in (
        {"stream": [token("x" * 70_000)]},
        {"stream": [token(1, key="")]},
        {"stream": [{**token(1), "kind": "a\u2028b"}]},
        {"stream": [token(1)], "number": 0},
        {"stream": [token(1)], "stream_of": "x"},
    ):
        assert (await hand.report(item, **bad))["problem"]["error_type"] in ("BAD_VALUE", "BAD_REQUEST"), bad
    for cursor in ("x", "-1", "1,", "1,zz:1", "1-0", "9" * 40):
        reply = await served.client.get(f"/api/v1/executions/{id}/stream", headers={"Last-Event-ID": cursor})
        assert reply.status_code == 400 and "place in this stream" in reply.json()["error"]
    assert (await served.client.get(f"/api/v1/executions/{id[:-1]}/stream")).status_code == 400
    _, headers = await served.other_project()
    assert (await served.client.get(f"/api/v1/executions/{id}/stream", headers=headers)).status_code == 404
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    async with served.client.stream("GET", f"/api/v1/executions/{id}/stream", headers=reader) as reply:
        assert reply.status_code == 200


async def test_a_client_goes_on_where_it_was_when_its_stream_ends(database: str) -> None:
    async with serving(database, stream_seconds_max=0.05, stream_comment_seconds=0.02) as served:
        hand = Hand(served.client)
        await hand.register()
        id = await served.start()
        item = await hand.claim()
        client = Client(HttpTransport(served.server.url, served.key, outage_seconds=0))
        stream = client.stream(id)
        try:
            for number in range(1, 4):
                await hand.report(item, number=number, stream=[token(number)])
                got = await anext(stream)
                assert (got.data, got.n) == (number, number)
                await until(lambda: not served.app.services.slots.total)  # the server has had enough
            await hand.report(item, number=4, end={"type": "complete", "result": 1})
            assert [one async for one in stream] == []
        finally:
            await client.close()


async def test_a_stream_survives_a_server_that_is_replaced(database: str, unused_tcp_port: int) -> None:
    async with serving(database, port=unused_tcp_port) as served:
        hand = Hand(served.client)
        await hand.register()
        id = await served.start()
        item = await hand.claim()
        await hand.report(item, stream=[token("one")])
        client = Client(HttpTransport(served.server.url, served.key))
        stream = client.stream(id)
        assert (await anext(stream)).data == "one"
    following_one = asyncio.ensure_future(anext(stream))
    async with serving(database, port=unused_tcp_port) as served:
        hand.client = served.client
        await hand.report(item, number=2, stream=[token("two")])
        assert (await following_one).data == "two"
        await stream.aclose()
        await client.close()


async def test_a_thread_follows_without_a_loop(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    with SyncClient(served.server.url, served.key) as client:
        heard = asyncio.Queue[Any]()
        loop = asyncio.get_running_loop()

        def follow() -> list[Any]:
            found = []
            for one in client.handle(id).stream():
                found.append(one.data)
                loop.call_soon_threadsafe(heard.put_nowait, one.data)
            return found

        all_of_it = asyncio.create_task(asyncio.to_thread(follow))
        await hand.report(item, stream=[token(1)])
        assert await heard.get() == 1
        await hand.report(item, number=2, stream=[token(2)], end={"type": "complete", "result": None})
        assert await all_of_it == [1, 2]

        def only_one() -> Any:
            return next(client.handle(id).stream()).data

        assert await asyncio.to_thread(only_one) == 1


async def test_a_failure_ends_the_stream_of_each_client(served: Served, hand: Hand) -> None:
    """The failure's text has 200 characters and is read from the right."""
    said = "\u05d0\u05d9\u05df " * 50
    id = await served.start()
    item = await hand.claim()
    detail = {"type": "ValueError", "message": said}
    end = {"type": "fail", "error": f"ValueError: {said}", "detail": detail}
    await hand.report(item, stream=[token(1)], end=end)
    async with following(served, f"/api/v1/executions/{id}/stream") as stream:
        last = (await stream.rest())[-1]
    assert (last.event, last.data["id"], last.data["phase"]) == ("end", id, "failed")
    with SyncClient(served.server.url, served.key) as client:

        def follow() -> tuple[list[Any], ExecutionFailed]:
            found: list[Any] = []
            with pytest.raises(ExecutionFailed) as failed:
                found.extend(one.data for one in client.handle(id).stream())
            return found, failed.value

        found, failed = await asyncio.to_thread(follow)
    assert (found, failed.execution_id, failed.type, failed.message) == ([1], id, "ValueError", said)
    assert str(failed) == last.data["error"]


async def test_a_place_that_somebody_made_up_is_refused_whatever_is_in_it(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    await hand.report(item, stream=[token(1)], end={"type": "complete", "result": None})
    client = Client(HttpTransport(served.server.url, served.key))
    try:
        for place in ("0\r\nPerdure-Project: other", "0\r\n\r\nGET / HTTP/1.1", "é", "0 0"):
            with pytest.raises(BadRequest, match="place in this stream"):
                await anext(client.stream(id, after=place))
        assert [one.data async for one in client.stream(id, after="0")] == [1]
        assert [one.data async for one in client.stream(id, after="1")] == []
    finally:
        await client.close()


async def test_a_large_stream_is_read_at_the_readers_pace(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    for number in range(1, 9):
        await hand.report(item, number=number, stream=[token("x" * 60_000) for _ in range(10)])
    await hand.report(item, number=9, end={"type": "complete", "result": 1})
    client = Client(HttpTransport(served.server.url, served.key))
    numbers = [one.n async for one in client.stream(id)]
    assert numbers == list(range(1, 81))
    await client.close()


@pytest.mark.parametrize("path", ["stream", "events"])
async def test_a_key_that_may_not_stream_more_is_told(served: Served, path: str) -> None:
    id = await served.start()
    reply = await served.client.head(f"/api/v1/executions/{id}/{path}")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    assert json.loads((await served.client.get(f"/api/v1/executions/{id}/{path}?x=1&last_event_id=q")).content)
