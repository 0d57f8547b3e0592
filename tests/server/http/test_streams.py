"""Server-sent events and long polls: beginnings, ends, and remains."""

import asyncio
import gc
import json
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from starlette.types import Message
from tests.kit.polling import until
from tests.server.people.test_keys import make
from tests.server.serving import Hand, Served, serving
from tests.server.users import member

from perdure.server.http import streams
from perdure.server.http.streams import ClientGone, Slots, StreamDrain, StreamPoll, frame
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import TooManyRequests


class Event(NamedTuple):
    id: str | None
    event: str | None
    data: Any


class Stream:
    """A stream as a client reads."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments: list[str] = []
        self.retries: list[int] = []

    async def next(self) -> Event | None:
        """The next event; None when the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments.append(line)
                elif line.startswith("retry: "):
                    self.retries.append(int(line[7:]))
                elif line:
                    name, _, value = line.partition(": ")
                    assert name not in fields, "one data line for each event"
                    fields[name] = value
                elif fields:
                    return Event(fields.get("id"), fields.get("event"), json.loads(fields["data"]))
        return None

    async def rest(self) -> list[Event]:
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


@asynccontextmanager
async def following(served: Served, path: str, **headers: str) -> AsyncIterator[Stream]:
    async with served.client.stream("GET", path, headers=headers) as reply:
        assert reply.status_code == 200, await reply.aread()
        assert reply.headers["content-type"].startswith("text/event-stream")
        yield Stream(reply.aiter_lines())


# --- an execution --------------------------------------------------------------------------------------------------


async def test_an_executions_stream_follows_it_to_its_end(served: Served, hand: Hand) -> None:
    id = await served.start()
    async with following(served, f"/api/v1/executions/{id}/events") as stream:
        item = await hand.claim()
        first = await stream.next()
        assert first is not None and (first.id, first.event, first.data["kind"]) == ("1-0", "row", "claimed")
        await hand.report(
            item,
            logs=[{"at_us": item["created_at_us"], "level": 30, "text": "two\nlines"}],
            end={"type": "complete", "result": 1},
        )
        rest = await stream.rest()
        assert [(event.event, event.id) for event in rest] == [("log", "1-1"), ("row", "2-1"), ("end", "2-1")]
        assert rest[0].data["text"] == "two\nlines"
        assert rest[-1].data == {"id": id, "status": "completed", "phase": "completed", "error": None}
        assert stream.retries
    async with following(served, f"/api/v1/executions/{id}/events") as stream:
        again = await stream.rest()
    assert sorted(str(event.event) for event in again) == ["end", "log", "row", "row"]
    assert [event.data for event in again if event.event == "row"] == [first.data, rest[1].data]


@pytest.mark.parametrize(("seen", "left"), [("0-0", 4), ("1-0", 3), ("1-1", 2), ("2-1", 1)])
async def test_a_stream_goes_on_where_it_was(served: Served, hand: Hand, seen: str, left: int) -> None:
    id = await served.start()
    item = await hand.claim()
    await hand.report(
        item, logs=[{"at_us": item["created_at_us"], "level": 30, "text": "x"}], end={"type": "complete", "result": 1}
    )
    async with following(served, f"/api/v1/executions/{id}/events", **{"Last-Event-ID": seen}) as stream:
        assert len(await stream.rest()) == left
    async with following(served, f"/api/v1/executions/{id}/events?last_event_id={seen}") as stream:
        assert len(await stream.rest()) == left


@pytest.mark.parametrize(
    "seen", ["x", "1", "-", "1-", "-1", "1-x", "1--1", "\u0661-\u0661", f"{1 << 63}-1", f"1-{1 << 63}"]
)
async def test_a_cursor_that_is_none_is_refused(served: Served, seen: str) -> None:
    id = await served.start()
    headers = {b"last-event-id": seen.encode()}
    reply = await served.client.get(f"/api/v1/executions/{id}/events", headers=headers)
    assert reply.status_code == 400 and "Last-Event-ID" in reply.json()["error"]


async def test_a_long_journal_is_streamed_in_pages(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    entries = [
        {"type": "step", "key": f"s{n}", "name": "s", "fingerprint": None, "ok": True, "value": n, "started_at_us": 1}
        for n in range(450)
    ]
    await hand.report(item, entries=entries, end={"type": "complete", "result": None})
    async with following(served, f"/api/v1/executions/{id}/events") as stream:
        events = await stream.rest()
    assert [event.data["seq"] for event in events[:-1]] == list(range(1, 453))


async def test_line_breaks_between_tokens_do_not_break_a_stream(served: Served) -> None:
    body = b'{"topic": "t", "events": [{"data": {"a":\r\n1,\n\n"id: 7": "x\\ny"}}]}'
    await served.client.post("/api/v1/events/publish", content=body)
    async with following(served, "/api/v1/events/stream?topic=t") as stream:
        event = await stream.next()
    assert event is not None and event.data["data"] == {"a": 1, "id: 7": "x\ny"} and event.id == "1"
    assert frame(b'{"a":\n1}') == b'data: {"a": 1}\n\n'


async def test_a_silent_stream_sends_comments(database: str) -> None:
    async with serving(database, stream_comment_seconds=0.1) as served:

        async def follow(path: str) -> None:
            began = time.monotonic()
            async with following(served, path) as stream:
                reading = asyncio.create_task(stream.rest())
                await until(lambda: len(stream.comments) >= 3)
                assert len(stream.comments) <= 11 * (time.monotonic() - began) + 1
                reading.cancel()
                await asyncio.wait([reading])

        await follow(f"/api/v1/executions/{await served.start()}/events")
        await follow("/api/v1/events/stream?topic=t")


async def test_a_silent_stream_ends_so_that_its_client_comes_back(database: str) -> None:
    async with serving(database, stream_seconds_max=0.1) as served:
        id = await served.start()
        for path, seen in ((f"/api/v1/executions/{id}/events", "0-0"), ("/api/v1/events/stream?topic=t", "0")):
            async with following(served, path, **{"Last-Event-ID": seen}) as stream:
                assert await stream.rest() == []


class Looks:
    """Counts the server's looks at the caller's identity."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.amount = 0
        gate = served.app.services.gate
        principal = gate.principal

        async def counted(*values: Any, **named: Any) -> Principal:
            self.amount += 1
            return await principal(*values, **named)

        monkeypatch.setattr(gate, "principal", counted)


async def test_a_client_that_never_came_back_is_not_sent_away(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Existing clients read `data:` lines up to the end, which is the run's."""
    async with serving(database, stream_seconds_max=0.02) as served:
        hand = Hand(served.client)
        await hand.register()
        id = await served.start()
        item = await hand.claim()
        run = f"/api/v1/events/stream?workflow_id=w&workflow_run_id={id}"
        looks = Looks(served, monkeypatch)
        async with following(served, run) as stream, following(served, "/api/v1/events/stream?topic=t") as topic:
            await until(lambda: looks.amount > 8)
            await _publish(served, f"workflow/w/{id}", "late")
            await _publish(served, "t", "late")
            for one in (stream, topic):
                event = await one.next()
                assert event is not None and event.data["data"] == "late"
            await hand.complete(item)
            assert await stream.rest() == []
        async with following(served, run.replace(id, await served.start()), **{"Last-Event-ID": "0"}) as stream:
            assert await stream.rest() == [], "who came back once does so again"
        await _settle(served)


async def test_a_key_that_was_deleted_follows_no_longer(database: str) -> None:
    async with serving(database, stream_seconds_max=0.02) as served:
        key = await served.key_of(Role.READ)
        headers = {"authorization": f"Bearer {key}"}
        async with following(served, "/api/v1/events/stream?topic=t", **headers) as stream:
            keys = (await served.client.get("/api/v1/api-keys")).json()["keys"]
            [id] = [one["id"] for one in keys if one["name"].startswith(f"{Role.READ}-")]
            assert (await served.client.delete(f"/api/v1/api-keys/{id}")).status_code < 300
            assert await stream.rest() == []
        await _settle(served)


async def test_a_stream_ends_when_its_key_is_deleted(served: Served) -> None:
    made = (await make(served, "n" * 200, role="read")).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    async with (
        following(served, "/api/v1/events/stream?topic=t", **headers) as stream,
        following(served, "/api/v1/events/stream?topic=t") as mine,
    ):
        await served.until_held(2)
        assert (await served.client.delete(f"/api/v1/api-keys/{made['id']}")).status_code < 300
        await _publish(served, "t", "secret")
        assert await stream.rest() == []
        event = await mine.next()
        assert event is not None, "another key goes on"
        assert (await served.client.get("/api/v1/executions", headers=headers)).status_code == 401
    await _settle(served)


async def test_a_waiting_read_and_a_claim_end_when_their_key_is_deleted(served: Served) -> None:
    id = await served.start()
    made = (await make(served, "reader", role="work")).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    worker = Hand(served.client, ("other",))
    await worker.register()
    callers = served.app.services.drain.callers
    claim = asyncio.create_task(
        served.client.post("/worker/v1/claim", json=worker.claiming(50), headers={**headers, "perdure-protocol": "1"})
    )
    await served.until_waiting(worker.id)
    held = len(callers)
    read = asyncio.create_task(served.client.get(f"/api/v1/executions/{id}", params={"wait": 50}, headers=headers))
    await until(lambda: len(callers) > held)
    assert (await served.client.delete(f"/api/v1/api-keys/{made['id']}")).status_code < 300
    async with asyncio.timeout(30):
        replies = await asyncio.gather(claim, read)
    assert [reply.status_code in (200, 204, 408) for reply in replies] == [True, True], [one.text for one in replies]
    assert not callers


async def test_a_members_stream_ends_with_the_membership(served: Served) -> None:
    async with member(served, "Read") as ann, member(served, "Read") as bob:
        streams = [
            following(served, "/api/v1/events/stream?topic=t", **one.within(served.project_id)) for one in (ann, bob)
        ]
        async with streams[0] as hers, streams[1] as his:
            await served.until_held(2)
            path = f"/api/v1/projects/{served.project_id}/members/{ann.id}"
            assert (await served.client.delete(path)).status_code < 300
            assert await hers.rest() == []
            await _publish(served, "t", 1)
            assert await his.next() is not None
    await _settle(served)


async def test_a_stream_looks_again_though_no_notification_came(database: str) -> None:
    async with serving(database, auth_cache_seconds=0) as served:
        made = (await make(served, "reader", role="read")).json()
        served.engine.key_deleted = lambda id: None
        headers = {"authorization": f"Bearer {made['key']}"}
        async with following(served, "/api/v1/events/stream?topic=t", **headers) as stream:
            assert (await served.client.delete(f"/api/v1/api-keys/{made['id']}")).status_code < 300
            assert await stream.rest() == []


async def test_who_only_waits_is_not_looked_at(served: Served) -> None:
    """The look once a second is for callers with a deadline or untaken data."""
    watched = served.server._protocol.watched
    async with following(served, "/api/v1/events/stream?topic=t") as stream:
        await _publish(served, "t", 1)
        assert await stream.next() is not None
        for connection in list(watched):
            connection.look(connection.loop.time())
        assert not watched and served.server.server_state.connections


async def test_a_deleted_execution_ends_its_stream(served: Served) -> None:
    id = await served.start()
    await served.client.post(f"/api/v1/executions/{id}/cancel")
    async with following(served, f"/api/v1/executions/{id}/events") as stream:
        assert [event.event for event in await stream.rest()] == ["row", "end"]
    await served.client.delete(f"/api/v1/executions/{id}")
    assert (await served.client.get(f"/api/v1/executions/{id}/events")).status_code == 404


# --- a topic -------------------------------------------------------------------------------------------------------


async def _publish(served: Served, topic: str, *data: Any) -> list[int]:
    events = [{"event_type": "e", "data": one} for one in data]
    reply = await served.client.post("/api/v1/events/publish", json={"topic": topic, "events": events})
    assert reply.status_code == 200, reply.text
    numbers: list[int] = reply.json()["sequence_ids"]
    return numbers


async def test_a_topics_stream_begins_at_its_beginning_and_misses_nothing(served: Served) -> None:
    await _publish(served, "t", 1, 2)
    async with following(served, "/api/v1/events/stream?topic=t") as stream:
        got = [await stream.next(), await stream.next()]
        publishing = asyncio.create_task(_publish(served, "t", *range(3, 300)))
        while len(got) < 299:
            got.append(await stream.next())
        await publishing
    assert [event and event.data["data"] for event in got] == list(range(1, 300))
    assert [event and event.id for event in got] == [str(n) for n in range(1, 300)]
    assert {event and event.event for event in got} == {None}
    assert got[0] is not None
    assert set(got[0].data) == {"id", "sequence_id", "topic", "event_type", "data", "created_at"}


async def test_a_topics_stream_goes_on_where_it_was(served: Served) -> None:
    await _publish(served, "t", 1, 2, 3)
    for path, headers in (
        ("/api/v1/events/stream?topic=t&last_sequence_id=2", {}),
        ("/api/v1/events/stream?topic=t", {"Last-Event-ID": "2"}),
        ("/api/v1/events/stream?topic=t&last_sequence_id=0", {"Last-Event-ID": "2"}),
    ):
        async with following(served, path, **headers) as stream:
            event = await stream.next()
            assert event is not None and event.data["data"] == 3
    bad = await served.client.get("/api/v1/events/stream?topic=t", headers={"last-event-id": "x"})
    assert bad.status_code == 400


async def test_a_runs_stream_ends_with_the_run(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    await _publish(served, f"workflow/w/{id}", "a")
    path = f"/api/v1/events/stream?workflow_id=w&workflow_run_id={id}"
    async with following(served, path) as stream:
        event = await stream.next()
        assert event is not None and event.data["data"] == "a"
        await _publish(served, f"workflow/w/{id}", "b")
        await hand.complete(item)
        assert [event.data["data"] for event in await stream.rest()] == ["b"]


async def test_a_failed_runs_stream_says_why(served: Served, hand: Hand) -> None:
    id = await served.start()
    await hand.fail(await hand.claim(), "no luck")
    async with following(served, f"/api/v1/events/stream?workflow_id=w&workflow_run_id={id}") as stream:
        (event,) = await stream.rest()
    assert event == Event(None, None, {"type": "error", "message": "no luck"})


async def test_a_run_that_is_not_there_has_no_stream(served: Served, hand: Hand) -> None:
    id = await served.start()
    _, other = await served.other_project()
    unknown = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
    for run, headers in ((unknown, {}), (id, other)):
        path = f"/api/v1/events/stream?workflow_id=w&workflow_run_id={run}"
        reply = await served.client.get(path, headers=headers)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND") and run in reply.text
    await hand.complete(await hand.claim())
    await served.client.delete(f"/api/v1/executions/{id}")
    reply = await served.client.get(f"/api/v1/events/stream?workflow_id=w&workflow_run_id={id}")
    assert reply.status_code == 404
    assert served.app.services.slots.total == 0


async def test_a_run_that_is_deleted_ends_its_streams(
    served: Served, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's end was never seen before."""
    executions = served.engine.executions
    how_ended, id = executions.how_ended, await served.start()
    gone = asyncio.Event()

    async def once_deleted(project_id: str, execution_id: str) -> Any:
        if served.app.services.slots.total:
            await gone.wait()
        return await how_ended(project_id, execution_id)

    monkeypatch.setattr(executions, "how_ended", once_deleted)
    async with following(served, f"/api/v1/events/stream?workflow_id=w&workflow_run_id={id}") as stream:
        await served.until_held()
        await hand.complete(await hand.claim())
        assert (await served.client.delete(f"/api/v1/executions/{id}")).status_code == 204
        gone.set()
        assert await stream.rest() == []
    await _settle(served)


@pytest.mark.parametrize(
    "query", ["", "topic=", "workflow_run_id=0190a5f2-7c1e-7b3a-9d55-0242ac120002", "workflow_id=w"]
)
async def test_a_topic_has_to_be_named(served: Served, query: str) -> None:
    assert (await served.client.get(f"/api/v1/events/stream?{query}")).status_code == 400


# --- bounds and ends -----------------------------------------------------------------------------------------------


async def test_streams_of_a_key_are_bounded_and_freed(database: str) -> None:
    async with serving(database, streams_per_key_max=2) as served:
        for _ in range(5):
            async with (
                following(served, "/api/v1/events/stream?topic=t"),
                following(served, "/api/v1/events/stream?topic=t"),
            ):
                refused = await served.client.get("/api/v1/events/stream?topic=t")
                assert refused.status_code == 429 and "retry-after" in refused.headers
            await _settle(served)


async def _settle(served: Served) -> None:
    """The server notices closed streams, and frees their share."""
    await until(lambda: not served.app.services.slots.total)


async def test_clients_that_leave_leave_nothing_behind(served: Served) -> None:
    id = await served.start()
    await served.client.get("/health")
    tasks = len(asyncio.all_tasks())
    paths = [
        f"/api/v1/executions/{id}/events",
        "/api/v1/events/stream?topic=t",
        f"/api/v1/executions/{id}?wait=50",
        f"/api/v1/executions/{id}/steps?wait=50",
    ]

    async def leave(path: str) -> None:
        _, writer = await asyncio.open_connection(*served.address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\n\r\n".encode())
        await held.wait()
        writer.close()
        await writer.wait_closed()

    held = asyncio.Event()
    leaving = asyncio.gather(*(leave(path) for path in paths * 10))
    await served.until_held(len(paths) * 10)
    held.set()
    await leaving
    notifier = served.engine.notifier
    await until(lambda: len(asyncio.all_tasks()) <= tasks + 1)
    await until(lambda: not notifier.waited_at("written") and not notifier.waited_at("topic"))
    assert served.app.services.slots.total == 0
    assert served.engine.end_listeners._listeners == {}


async def test_a_claim_whose_client_left_takes_no_work(served: Served, hand: Hand) -> None:
    body = json.dumps(hand.claiming(30)).encode()
    _, writer = await asyncio.open_connection(*served.address)
    writer.write(
        b"POST /worker/v1/claim HTTP/1.1\r\nHost: localhost\r\nPerdure-Protocol: 1\r\n"
        + f"Authorization: Bearer {served.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await served.until_waiting(hand.id)
    writer.close()
    await writer.wait_closed()
    claim = served.engine.claims._latest[hand.id]
    await until(lambda: claim.ended_at is not None)  # a claim that looks does not wait, either
    id = await served.start()
    assert (await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] == "queued"
    assert (await hand.claim())["attempt"] == 1


async def test_polls_and_streams_end_cleanly_when_the_server_goes(database: str) -> None:
    async with serving(database) as served:
        hand = Hand(served.client)
        id = await served.start("nobody")
        await hand.register()

        async def stream(path: str) -> tuple[list[Event], Stream]:
            async with following(served, path) as stream:
                return await stream.rest(), stream

        waiting = [
            asyncio.create_task(served.client.get(f"/api/v1/executions/{id}?wait=50")),
            asyncio.create_task(served.client.post("/api/v1/executions/wait", json={"ids": [id], "wait_seconds": 50})),
            asyncio.create_task(served.client.get(f"/api/v1/executions/{id}/steps?wait=50")),
            asyncio.create_task(hand.claim(50)),
        ]
        streams = [
            asyncio.create_task(stream(path))
            for path in (f"/api/v1/executions/{id}/events", "/api/v1/events/stream?topic=t")
        ]
        await served.until_held(len(waiting) - 1 + len(streams))
        await served.until_waiting(hand.id)
        served.server.stop()
        async with asyncio.timeout(60):
            get, wait, steps, claimed = await asyncio.gather(*waiting)
        assert get.json()["status"] == "pending"
        assert wait.json() == {"finished": [], "missing": []}
        assert steps.json()["steps"] == []
        assert claimed is None
        for events, stream_ in await asyncio.gather(*streams):
            assert events == []
            assert len(stream_.retries) == 2 and stream_.comments


# --- the parts -----------------------------------------------------------------------------------------------------


async def _never() -> Any:
    await asyncio.Event().wait()


async def test_a_poll_tells_why_it_ended() -> None:
    drain = StreamDrain()

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        async with StreamPoll(gone, drain):
            await _never()

    asyncio.get_running_loop().call_later(0.01, drain.begin)
    async with StreamPoll(_never, drain):
        await _never()
    assert drain.closing
    async with StreamPoll(_never, drain):
        await _never()
    async with StreamPoll(_never, drain, until_closing=False):
        await asyncio.sleep(0.02)

    with pytest.raises(ValueError, match="mine"):
        async with StreamPoll(_never, StreamDrain()):
            raise ValueError("mine")


async def test_a_poll_does_not_swallow_anothers_cancellation() -> None:
    drain = StreamDrain()

    async def poll() -> None:
        async with StreamPoll(_never, drain):
            await _never()

    task = asyncio.create_task(poll())
    await asyncio.sleep(0.01)
    drain.begin()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with StreamPoll(_never, StreamDrain()):
                await _never()


def test_slots() -> None:
    slots = Slots(3, 2)
    slots.take("a")
    slots.take("a")
    with pytest.raises(TooManyRequests, match="key"):
        slots.take("a")
    slots.take("b")
    with pytest.raises(TooManyRequests, match="server"):
        slots.take("c")
    for key in ("a", "a", "b"):
        slots.give_back(key)
    assert slots.total == 0 and slots._by_key == {}


async def test_a_poll_that_is_over_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The poll goes without the collector: a server holds thousands of polls, each for a minute."""
    monkeypatch.setattr(streams, "_WATCH_AFTER_SECONDS", 0.0)
    asked = asyncio.Event()

    async def receive() -> Message:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody leaves")

    gc.disable()
    try:
        poll = StreamPoll(receive, StreamDrain())
        gone = weakref.ref(poll)
        async with poll:
            await asked.wait()
        del poll
        await asyncio.sleep(0)  # the watcher ends
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
