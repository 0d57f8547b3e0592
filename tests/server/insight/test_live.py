"""The stream of what a page shows."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.kit.polling import until
from tests.server.http.test_streams import Event, Stream, following
from tests.server.serving import Hand, Served

from perdure.engine.base.service import Scope
from perdure.engine.insight import live
from perdure.store.verbs.insight import live as looks
from perdure.wire.base.access import Role
from perdure.wire.insight.live import FollowLive

PATH = "/api/v1/live"


@pytest.fixture(autouse=True)
def looks_are_frequent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.02)
    yield


async def named(stream: Stream, name: str) -> Event:
    """The next event of the kind."""
    while True:
        event = await stream.next()
        assert event is not None, f"the stream has ended without {name!r}"
        if event.event == name:
            return event


async def showing(stream: Stream, latest: dict[str, Any], **wanted: Any) -> None:
    """Read until the latest events of each kind have the wanted values."""
    while any(not fields.items() <= latest.get(name, {}).items() for name, fields in wanted.items()):
        event = await stream.next()
        assert event is not None and event.event is not None
        latest[event.event] = event.data


async def until_event(stream: Stream, name: str, **fields: Any) -> Event:
    """The next event of the kind with the values."""
    while True:
        event = await named(stream, name)
        if fields.items() <= event.data.items():
            return event


def ids(event: Event) -> list[str]:
    return [one["id"] for one in event.data["executions"]]


async def test_a_list_is_followed(served: Served, hand: Hand) -> None:
    first, second = [await served.start() for _ in range(2)]
    async with following(served, f"{PATH}?watch=list&limit=2") as stream:
        page = await named(stream, "page")
        assert ids(page) == [second, first]
        assert page.data["executions"][0]["phase"] == "queued" and "payload" not in page.data["executions"][0]
        item = await hand.claim()
        changed = await named(stream, "changed")
        assert [(one["id"], one["phase"]) for one in changed.data["executions"]] == [(first, "running")]
        third = await served.start()
        assert (await named(stream, "new")).data == {"count": 1, "failed": 0, "at_least": False}
        error = {"error": "it failed", "detail": {"type": "Error", "message": "it failed"}}
        await hand.report(item, end={"type": "fail", **error})
        changed = await named(stream, "changed")
        assert [(one["phase"], one["details"]) for one in changed.data["executions"]] == [("failed", "it failed")]
        assert (await served.client.delete(f"/api/v1/executions/{first}")).status_code == 204
        assert (await named(stream, "gone")).data == {"ids": [first]}
    async with following(served, f"{PATH}?watch=list&limit=2") as stream:
        assert ids(await named(stream, "page")) == [third, second]


async def test_a_row_that_fits_no_more_and_one_that_fits_now(served: Served, hand: Hand) -> None:
    first, second = [await served.start() for _ in range(2)]
    async with following(served, f"{PATH}?watch=list&phase=queued") as stream:
        assert ids(await named(stream, "page")) == [second, first]
        item = await hand.claim()
        assert (await named(stream, "gone")).data == {"ids": [first]}
        async with following(served, f"{PATH}?watch=list&status=failed") as other:
            assert ids(await named(other, "page")) == []
            error = {"error": "it failed", "detail": {"type": "Error", "message": "it failed"}}
            await hand.report(item, end={"type": "fail", **error}, number=1)
            assert (await named(other, "new")).data == {"count": 1, "failed": 1, "at_least": False}


async def test_a_stream_that_comes_back_gets_only_what_it_lacks(served: Served, hand: Hand) -> None:
    first = await served.start()
    path = f"{PATH}?watch=list,counts,queues"
    async with following(served, path) as stream:
        events = [await stream.next() for _ in range(3)]
        assert {event.event for event in events if event} == {"page", "counts", "queues"}
        seen = events[-1]
        assert seen is not None and seen.id is not None and seen.id.startswith("list=")
        assert events[0] is not None and events[0].id in ("", seen.id), "cut behind it, it would lack the others"
    async with following(served, path, **{"Last-Event-ID": seen.id}) as stream:
        await served.start()
        event = await stream.next()
        assert event is not None and event.event in ("new", "counts", "queues"), "nothing that it has already"
        found = {event.event: event.data}
        while len(found) < 3:  # the id of an event has those before it, and of some that come together the last one all
            event = await stream.next()
            assert event is not None and event.event is not None
            found[event.event] = event.data
        assert found["new"]["count"] == 1
    async with following(served, f"{PATH}?watch=list", **{"Last-Event-ID": str(event.id)}) as stream:
        item = await hand.claim()
        assert item["id"] == first
        event = await stream.next()
        assert event is not None and event.event == "changed", "the new one was told already"
        assert ids(event) == [first]
    await hand.complete(item, 1)
    async with following(served, f"{PATH}?watch=list", **{"Last-Event-ID": str(event.id)}) as stream:
        event = await stream.next()
        assert event is not None and event.event == "page", "it has missed a change"
        assert [(one["id"], one["phase"]) for one in event.data["executions"]] == [(first, "completed")]
        event = await stream.next()
        assert event is not None and event.event == "new", "a page does not have the new ones, so it begins the count"
        assert event.data["count"] == 1


async def test_counts_inbox_and_queues(served: Served, hand: Hand) -> None:
    async with following(served, f"{PATH}?watch=inbox&watch=counts,queues") as stream:
        first = [await stream.next() for _ in range(3)]
        found: dict[str, Any] = {str(event.event): event.data for event in first if event}
        empty = dict.fromkeys(("queued", "running", "waiting", "cancelling", "blocked", "held"), 0)
        assert found["counts"] == {"phases": empty, "paused": 0, "questions": 0, "at_least": False}
        assert found["inbox"] == {"questions": 0, "at_least": False, "newest_at": None}
        assert found["queues"] == {"queues": []}
        await served.start()
        item = await hand.claim()
        await served.start()
        await showing(stream, found, counts={"phases": {**empty, "queued": 1, "running": 1}})
        queues = (await served.client.get("/api/v1/queues")).json()
        await showing(stream, found, queues=queues)
        opened: dict[str, Any] = {
            "type": "wait",
            "key": "ask",
            "fingerprint": None,
            "topic": None,
            "data": {"_form": {}},
        }
        await hand.report(item, entries=[opened], end={"type": "suspend", "waits": ["ask"]})
        counts = {"phases": {**empty, "queued": 1, "waiting": 1}, "questions": 1}
        await showing(stream, found, counts=counts, inbox={"questions": 1})
        assert found["inbox"]["newest_at"] is not None
        assert (await served.client.post("/api/v1/queues/w/pause")).status_code == 200
        await showing(stream, found, counts={"paused": 1})


async def test_another_projects_changes_never_show(served: Served) -> None:
    _, other = await served.other_project()
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    async with following(served, f"{PATH}?watch=list,counts,queues,inbox", **reader) as stream:
        assert len({event.event for event in [await stream.next() for _ in range(4)] if event}) == 4
        for _ in range(3):
            body = {"payload": 1, "accept_early": True}
            reply = await served.client.post("/api/v1/workflows/w/run", json=body, headers=other)
            assert reply.status_code == 200
        id = await served.start()
        shown = [await stream.next() for _ in range(2)]
        assert all(event and "3" not in str(event.data.get("count", event.data.get("phases"))) for event in shown)
        async with following(served, f"{PATH}?watch=list", **other) as theirs:
            page = await named(theirs, "page")
            assert len(ids(page)) == 3 and id not in ids(page)


async def test_followers_share_their_watchers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    original = looks.look_at_list

    def counted(**values: Any) -> Any:
        nonlocal asked
        asked += 1
        return original(**values)

    monkeypatch.setattr(looks, "look_at_list", counted)
    await served.start()
    op = FollowLive(watch=["list"])
    streams = [(await served.engine.serve(Scope(served.project_id), op)).pages for _ in range(20)]
    for pages in streams:
        assert [event.sent_as for _, event in await anext(pages)] == ["page"]
    assert len(served.engine.live) == 1
    other = (await served.engine.serve(Scope(served.project_id), replace(op, workflow_id="other"))).pages
    await anext(other)
    assert len(served.engine.live) == 2
    await other.aclose()
    await served.start()
    before = asked
    records = [event for one in await asyncio.gather(*map(anext, streams)) for _, event in one]
    assert len(records) == 20 and asked - before < 10
    for pages in streams:
        await pages.aclose()
    assert len(served.engine.live) == 0 and not served.engine.live._tasks


async def test_a_quiet_store_is_not_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    if not served.engine.store.alone:
        pytest.skip("another server may lose a hint, so this one looks every `poll_seconds`")
    async with following(served, f"{PATH}?watch=list") as stream:
        await named(stream, "page")

        watchers, loop = served.engine.live._watchers, asyncio.get_running_loop()
        await until(lambda: not any(one.wanted for one in watchers.values()))

        def fail(**values: Any) -> Any:
            raise AssertionError("asked without a change")

        rounds = 0

        def unchanged(self: object) -> int:
            nonlocal rounds
            rounds += 1
            return 7

        monkeypatch.setattr(type(served.engine), "changes", property(unchanged))
        # The first round finds that the number is another one. After a slow look it puts the next one off.
        await until(lambda: rounds >= 2 and all(one.due_at <= loop.time() for one in watchers.values()))
        settled = rounds + 2
        await until(lambda: rounds >= settled)
        monkeypatch.setattr(looks, "look_at_list", fail)
        last = rounds + 3
        await until(lambda: rounds >= last)
        assert not any(one.broken for one in watchers.values())


async def test_many_new_executions_are_counted_up_to_a_limit(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "COUNTED_MAX", 3)
    await served.start()
    async with following(served, f"{PATH}?watch=list&limit=1") as stream:
        await named(stream, "page")
        for _ in range(6):
            await served.start()
        assert (await until_event(stream, "new", at_least=True)).data == {"count": 3, "failed": 0, "at_least": True}


async def test_wrong_requests_are_refused(served: Served) -> None:
    for query, status in (
        ("", 400),
        ("?watch=", 400),
        ("?watch=everything", 400),
        ("?watch=list&limit=0", 400),
        ("?watch=list&phase=none", 400),
        ("?watch=list&field=payload.a=1", 422),
    ):
        assert (await served.client.get(f"{PATH}{query}")).status_code == status, query
    for seen in ("x", "list", "list=\u0661", "list=;", "a=b" * 400):
        reply = await served.client.get(f"{PATH}?watch=list", headers={b"last-event-id": seen.encode()})
        assert reply.status_code == 400 and "Last-Event-ID" in reply.json()["error"], seen
    async with following(served, f"{PATH}?watch=list", **{"Last-Event-ID": "list=ab;other=1"}) as stream:
        assert ids(await named(stream, "page")) == [], "a state that it does not know begins anew"


async def test_a_slow_reader_gets_the_newest_state(served: Served, hand: Hand) -> None:
    """The stream holds no queue and skips the events in between."""
    await served.start()
    pages = (await served.engine.serve(Scope(served.project_id), FollowLive(watch=["list"]))).pages
    await anext(pages)
    for _ in range(5):
        await served.start()
    item = await hand.claim()
    await hand.complete(item, 1)
    [watcher] = served.engine.live._watchers.values()
    assert isinstance(watcher, live.ListWatcher)
    await until(lambda: [row.summary.phase for row in watcher.rows.values() if row] == ["completed"])
    await until(lambda: len(watcher.window) == 6)
    events = [event.sent_as for _, event in await anext(pages)]
    assert events == ["changed", "new"]
    await pages.aclose()
