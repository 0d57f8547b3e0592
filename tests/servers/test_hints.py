"""An act at one server ends waits at another, at once by a hint, or within the poll interval without a hint."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

import asyncpg
import pytest
from msgspec import json
from tests import postgres
from tests.databases import migrated
from tests.kit.polling import until
from tests.servers.conftest import NEVER, Hand, Pair, engine_on, exchange, pair_on, raw
from tests.store.world import step

from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.engine.insight import live
from perdure.store.base.interface import (
    Changed,
    Due,
    EndedElsewhere,
    EndNotice,
    Everything,
    Hint,
    KeyDeleted,
    Metric,
    Published,
    Ready,
    Streamed,
    UserChanged,
    Written,
)
from perdure.store.drivers import postgres_hints
from perdure.store.drivers.hints import GATHERED_MAX, PAYLOAD_BYTES_MAX, Gathered, decode
from perdure.store.drivers.postgres import PostgresStore
from perdure.wire.base.access import Role
from perdure.wire.insight.live import ChangedRows, FollowLive, LiveEvent, NewRows
from perdure.wire.insight.summaries import SummaryPage
from perdure.wire.people.keys import DeleteApiKey
from perdure.wire.runs.events import Event, EventData, GetEvents, PublishEvent
from perdure.wire.runs.executions import CancelExecution, DeleteExecution, StreamItems, WaitForExecutions
from perdure.wire.runs.requests import Emitted, OpenWait, ReportItem, ReportRequest, Suspend
from perdure.wire.runs.streams import StreamItem


async def test_a_claim_at_b_gets_what_a_starts(pair: Pair) -> None:
    hand = await pair.hand(pair.b)
    claim = asyncio.ensure_future(hand.claim())
    await until(hand.waits)
    id = await pair.start(pair.a)
    assert [one.id for one in (await claim).items] == [id]


@pytest.mark.parametrize("deaf", [False, True])
async def test_claims_at_b_get_the_starts_at_a_beside_one_of_another_deployment(url: str, deaf: bool) -> None:
    """Deaf: the fallback poller wakes the first claim, and each that finds work wakes the next."""
    async with pair_on(url, poll_seconds=0.05 if deaf else NEVER, deaf=deaf) as pair:
        other = Hand(pair.b, pair.project_id)
        await other.register("other")
        claims = [asyncio.ensure_future(other.claim())]
        await until(other.waits)
        for _ in range(3):
            hand = await pair.hand(pair.b)
            claims.append(asyncio.ensure_future(hand.claim()))
            await until(hand.waits)
        ids = await asyncio.gather(*[pair.start(pair.a) for _ in range(3)])
        found = [item.id for claim in claims[1:] for item in (await claim).items]
        assert sorted(found) == sorted(ids)
        claims[0].cancel()
        await asyncio.gather(*claims, return_exceptions=True)


async def test_a_result_awaited_at_a_comes_from_b(pair: Pair) -> None:
    hand = await pair.hand(pair.b)
    id = await pair.start(pair.a)
    result = asyncio.ensure_future(pair.a.executions.result(pair.project_id, id))
    polled = asyncio.ensure_future(pair.a.serve(Scope(pair.project_id), WaitForExecutions([id], 60)))
    (claimed,) = (await hand.claim()).items
    await until(lambda: bool(pair.a.end_listeners.awaited()))
    await hand.complete(claimed, {"n": 7})
    finished = await result
    assert finished.result is not None and bytes(finished.result) == b'{"n":7}'
    assert [one.id for one in (await polled).finished] == [id]
    assert pair.a.end_listeners.awaited() == {}


async def test_what_was_started_at_a_and_ended_through_b_is_known_to_have_ended(url: str) -> None:
    """A remembers its starts and known ends, but must ask for ends at B."""
    async with pair_on(url) as pair:
        hand = await pair.hand(pair.b)
        id = await pair.start(pair.a)
        (claimed,) = (await hand.claim()).items
        await hand.complete(claimed, 1)
        await until(lambda: pair.a.end_listeners.recent(pair.project_id, id) == (False, None))
        assert (await pair.a.executions.result(pair.project_id, id)).phase == "completed"


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_wait_whose_hint_was_lost_asks_the_database_in_the_end(url: str, deleted: bool) -> None:
    async with pair_on(url, deaf=True) as pair:
        await pair.hand(pair.b)
        id = await pair.start(pair.a)
        assert pair.a.end_listeners.is_open(pair.project_id, id)
        await pair.b.serve(Scope(pair.project_id), CancelExecution(id))
        if deleted:
            await pair.b.serve(Scope(pair.project_id), DeleteExecution(id))
        reply = await pair.a.serve(Scope(pair.project_id), WaitForExecutions([id], 0.01))
        assert ([one.id for one in reply.finished], reply.missing) == (([], [id]) if deleted else ([id], []))


async def test_a_cancel_at_a_reaches_the_worker_at_b(pair: Pair) -> None:
    hand = await pair.hand(pair.b)
    id = await pair.start(pair.a)
    (claimed,) = (await hand.claim()).items
    assert not (await hand.report(claimed, 0)).lost
    claim = asyncio.ensure_future(hand.claim())
    await until(hand.waits)
    await pair.a.serve(Scope(pair.project_id), CancelExecution(id))
    assert (await claim).news == [id]
    assert [row.kind for row in (await hand.report(claimed, 0)).rows] == ["cancel_asked"]


async def test_an_event_at_a_wakes_who_waits_for_it_at_b(pair: Pair) -> None:
    hand = await pair.hand(pair.b)
    id = await pair.start(pair.a)
    (claimed,) = (await hand.claim()).items
    reply = await hand.report(claimed, 1, (OpenWait("e", None, "topic"),), Suspend(["e"], None))
    assert reply.ended
    claim = asyncio.ensure_future(hand.claim())
    await until(hand.waits)
    cursors = pair.b.events.watch_cursors(pair.project_id, "topic")
    watch = asyncio.ensure_future(pair.b.events.watch(cursors, 60))
    await asyncio.sleep(0)
    await pair.a.serve(Scope(pair.project_id), PublishEvent("topic", [EventData(raw(1))]))
    assert [one.id for one in (await claim).items] == [id]
    assert await watch


async def test_whoever_follows_a_journal_at_a_sees_what_is_written_through_b(pair: Pair) -> None:
    hand = await pair.hand(pair.b)
    id = await pair.start(pair.a)
    (claimed,) = (await hand.claim()).items
    for happens in (
        partial(hand.report, claimed, 1, (step("s", 1),)),
        partial(pair.b.serve, Scope(pair.project_id), CancelExecution(id)),
    ):
        seen = len((await pair.a.executions.journal(pair.project_id, id))[0])
        cursor = pair.a.executions.watch_cursor(id)
        watch = asyncio.ensure_future(pair.a.executions.watch(id, cursor, 60))
        await asyncio.sleep(0)
        await happens()
        assert await watch
        while (
            len((await pair.a.executions.journal(pair.project_id, id))[0]) == seen
        ):  # the fallback poller notifies at first sight
            assert await pair.a.executions.watch(id, pair.a.executions.watch_cursor(id), 60)


async def test_whoever_follows_a_stream_at_a_gets_what_is_emitted_through_b(pair: Pair) -> None:
    hand = await pair.hand(pair.b)
    id = await pair.start(pair.a)
    (claimed,) = (await hand.claim()).items
    pages = (await pair.a.serve(Scope(pair.project_id), StreamItems(id))).pages
    for number in (1, 2):
        item = ReportItem(claimed.id, claimed.attempt, number, 1, stream=[Emitted("token", "s", raw(number))])
        page = asyncio.ensure_future(anext(pages))
        await asyncio.sleep(0)
        await pair.b.serve(Scope(pair.project_id), ReportRequest(hand.id, hand.epoch, [item]))
        assert [bytes(one.data) for _, one in await page if isinstance(one, StreamItem)] == [b"%d" % number]
    await pages.aclose()


async def test_a_worker_that_moves_to_b_gets_there_what_a_gave_to_its_old_claim(pair: Pair) -> None:
    """A's poll is still open without a listener: new work at A goes into the old poll."""
    hand = await pair.hand(pair.a)
    first = asyncio.ensure_future(hand.claim(claim_id="000000000001"))
    await until(hand.waits)
    again = asyncio.ensure_future(hand.claim(claim_id="000000000001", at=pair.b))
    hand.engine = pair.b
    await until(hand.waits)
    id = await pair.start(pair.a)
    assert [one.id for one in (await first).items] == [id]
    if pair.a.settings.poll_seconds == NEVER:  # it is no hint's business
        await exchange(pair.b)._in.get()
        pair.b.notifier.notify(("loop", "look"))
    assert [one.id for one in (await again).items] == [id]


async def test_a_key_deleted_at_a_is_heard_of_at_b(url: str) -> None:
    async with pair_on(url) as pair:
        heard: list[str | None] = []
        pair.b.key_deleted = heard.append
        key = await pair.a.projects.create_key(pair.project_id, "k", Role.READ)
        id = key.split("_")[1]
        await pair.a.serve(Scope(pair.project_id), DeleteApiKey(id))
        await until(lambda: id in heard)


# --- the path itself -------------------------------------------------------------------------------------------------


async def _terminate(url: str, like: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return len(
            await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE $1 AND datname = current_database()",
                like,
            )
        )
    finally:
        await connection.close()


async def test_a_lost_listener_connects_anew_and_makes_up_for_what_it_missed(url: str) -> None:
    async with pair_on(url) as pair:
        hand = await pair.hand(pair.b)
        claim = asyncio.ensure_future(hand.claim())
        await until(hand.waits)
        pair.b.store.listen(lambda hints: None)  # nothing is heard until the connection is lost
        id = await pair.start(pair.a)
        await until(lambda: exchange(pair.a).sent > 0)
        pair.b.store.listen(pair.b._receive)

        async def is_lost() -> bool:
            return await _terminate(url, f"perdure listen {exchange(pair.b)._server_id[:8]}") == 1

        await until(is_lost)
        assert [one.id for one in (await claim).items] == [id]
        await until(lambda: pair.b.store.hints_up)


async def test_a_path_that_is_silent_counts_as_down_says_so_once_and_heals(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres_hints, "ARRIVE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(postgres_hints, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(postgres_hints, "BEAT_DOWN_SECONDS", 0.05)
    caplog.set_level(logging.WARNING, "perdure.store")
    async with pair_on(url) as pair:
        path = exchange(pair.b)
        deaf = True
        real = postgres_hints.Exchange._receive
        connections: set[object] = set()

        def hear(self: postgres_hints.Exchange, connection: object, pid: int, channel: str, payload: object) -> None:
            connections.add(connection)
            if not (deaf and self is path):
                real(self, connection, pid, channel, payload)

        said: list[str] = []
        down = postgres_hints.Exchange._is_down

        def note(self: postgres_hints.Exchange) -> None:
            before = len(caplog.records)
            down(self)
            if self is path and deaf:  # on a busy machine the other one may be late, too
                said.extend(record.getMessage() for record in caplog.records[before:])

        monkeypatch.setattr(postgres_hints.Exchange, "_receive", hear)
        monkeypatch.setattr(postgres_hints.Exchange, "_is_down", note)
        await _terminate(url, f"perdure listen {path._server_id[:8]}")
        await until(lambda: "do not arrive" in "".join(said))
        assert not pair.b.store.hints_up
        await until(lambda: pair.a.store.hints_up)
        # Meanwhile B looks by itself once a second, whatever its interval.
        hand = await pair.hand(pair.b)
        claim = asyncio.ensure_future(hand.claim())
        await until(hand.waits)
        id = await pair.start(pair.a)
        assert [one.id for one in (await claim).items] == [id]
        numbers = path._number
        await until(lambda: path._number > numbers + 2)  # it tries on, each time with a new connection
        deaf = False
        await until(lambda: pair.b.store.hints_up)
        assert len(said) == 1
        assert "arrive again" in caplog.text


async def test_a_database_that_restarts_is_listened_to_again() -> None:
    with postgres.running() as server:
        name = await postgres.make(server=server)
        url = server.database_url(name)
        await migrated(url)
        async with pair_on(url) as pair:
            server.kill()
            await until(lambda: not pair.a.store.hints_up)
            server.start()
            await until(lambda: pair.a.store.hints_up and pair.b.store.hints_up)
            hand = await pair.hand(pair.b)
            claim = asyncio.ensure_future(hand.claim())
            await until(hand.waits)
            id = await pair.start(pair.a)
            assert [one.id for one in (await claim).items] == [id]


async def test_a_server_that_is_alone_keeps_its_hints_to_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_hints, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(postgres_hints, "ARRIVE_SECONDS_MAX", 30.0)  # a path that counts as down is told everything

    async def works(engine: Engine) -> None:
        await engine.executions.start(project_id, [])
        await engine.serve(Scope(project_id), PublishEvent("t", [EventData(raw(1))]))

    async with engine_on(url, poll_seconds=NEVER) as a:
        project_id = await a.projects.default()
        path = exchange(a)
        await until(lambda: a.store.hints_up and not path._somebody_listens())
        sent = path.sent
        await works(a)
        beat = path._number
        await until(lambda: path._number > beat + 1)
        assert path.sent == sent
        async with engine_on(url, poll_seconds=NEVER):

            async def sends() -> bool:
                await works(a)  # again, if a busy machine had made the other one silent for some beats
                return path.sent > sent

            await until(sends)
        await until(lambda: a.store.hints_up and not path._somebody_listens())


async def test_what_is_committed_together_is_told_by_one_message(url: str) -> None:
    async with pair_on(url) as pair:
        path, store = exchange(pair.a), pair.a.store
        assert isinstance(store, PostgresStore)
        await pair.hand(pair.b)
        heard: list[Hint] = []
        pair.b.store.listen(heard.extend)
        sent, groups = path.sent, store.groups
        await asyncio.gather(*[pair.start(pair.a) for _ in range(100)])
        await pair.a.serve(Scope(pair.project_id), PublishEvent("last", [EventData(raw(1))]))
        await until(lambda: Published(pair.project_id, "last") in heard)
        assert Ready(pair.project_id, "default") in heard
        assert path.sent - sent <= store.groups - groups < 50, (path.sent - sent, store.groups - groups)


async def test_no_two_looks_are_equally_far_apart(url: str) -> None:
    """Servers started together drift apart in their looks, and no look comes late."""
    async with engine_on(url, poll_seconds=10.0) as engine:
        await until(lambda: engine.store.hints_up)
        for pauses in (
            [await engine.fallback_poller.look() for _ in range(3)],
            [engine.spread(10.0) for _ in range(3)],
        ):
            assert len({*pauses}) == 3 and 5.0 <= min(pauses) <= max(pauses) <= 10.0


async def test_readers_of_a_topic_that_many_publish_to_at_two_servers_miss_nothing(url: str) -> None:
    """A reader past the last seen event would never see a later event with a lower number."""
    async with pair_on(url) as pair:

        async def publish(n: int) -> None:
            for i in range(10):
                await (pair.a, pair.b)[n % 2].serve(
                    Scope(pair.project_id), PublishEvent("topic", [EventData(raw([n, i]))])
                )

        async def follow(engine: Engine) -> list[Event]:
            seen: list[Event] = []
            while len(seen) < 160:
                cursors = engine.events.watch_cursors(pair.project_id, "topic")
                after = seen[-1].sequence_id if seen else 0
                page = await engine.serve(Scope(pair.project_id), GetEvents("topic", after))
                seen += page.events
                if not page.events:
                    await engine.events.watch(cursors, 60)
            return seen

        async with asyncio.timeout(60):
            seen = await asyncio.gather(follow(pair.a), follow(pair.b), *[publish(n) for n in range(16)])
        for events in seen[:2]:
            assert events is not None and [event.sequence_id for event in events] == list(range(1, 161))
            told = [json.decode(bytes(event.data)) for event in events]
            assert all([i for m, i in told if m == n] == list(range(10)) for n in range(16))


# --- the message -----------------------------------------------------------------------------------------------------


def _told(*hints: Hint) -> list[Hint]:
    gathered = Gathered()
    gathered.add(hints)
    message = decode(gathered.encode("server"))
    assert message is not None
    return message.hints()


def test_what_others_can_use_is_told_once_each() -> None:
    ended = EndNotice("p", "x", "w", "completed", b"1" * 10_000, None, None)
    said = _told(
        Ready("p", "d"),
        Ready("p", None),
        Written("x"),
        Written("y"),
        ended,
        Changed("w", "y"),
        Published("p", "t'\\\"\n"),
        Streamed("p", "x"),
        Streamed("p", "x"),
        KeyDeleted("k"),
        UserChanged("u"),
        Due(1),
        Metric("claimed"),
    )
    assert said == [
        Ready("p", "d"),
        Ready("p", None),
        EndedElsewhere("p", "x"),
        Written("x"),
        Written("y"),
        Changed("w", "y"),
        Published("p", "t'\\\"\n"),
        Streamed("p", "x"),
        KeyDeleted("k"),
        UserChanged("u"),
    ]


@pytest.mark.parametrize("count", [300, GATHERED_MAX + 1])
def test_too_much_to_tell_is_a_look_at_everything(count: int) -> None:
    gathered = Gathered()
    gathered.add([Written(f"0190a5f2-7c1e-7b3a-9d55-{n:012x}") for n in range(count)])
    text = gathered.encode("server")
    assert len(text) < 100 < PAYLOAD_BYTES_MAX
    message = decode(text)
    assert message is not None and message.hints() == [Everything()]


def test_what_others_say_on_the_channel_is_ignored() -> None:
    assert decode("hello") is None
    assert decode('{"x": 1}') is None
    newer = decode('{"s": "a", "written": ["x"], "weather": "fine"}')
    assert newer is not None and newer.hints() == [Written("x")]
    older = decode('{"s": "a", "ready": ["p"]}')
    assert older is not None and older.hints() == [Ready("p", None)]


async def test_names_of_any_kind_reach_the_other_server(url: str) -> None:
    async with pair_on(url) as pair:
        for topic in ("it's", "back\\slash\\'", '"quoted"', "naïve ☃ 𝄞", "a;NOTIFY perdure, 'x'"):
            cursors = pair.b.events.watch_cursors(pair.project_id, topic)
            watch = asyncio.ensure_future(pair.b.events.watch(cursors, 60))
            await until(lambda: bool(pair.b.notifier.waited_at("topic")))
            await pair.a.serve(Scope(pair.project_id), PublishEvent(topic, [EventData(raw(1))]))
            assert await watch


async def test_a_live_list_at_a_shows_what_b_does(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.02)
    hand = await pair.hand(pair.b)
    first = await pair.start(pair.b)
    pages = (await pair.a.serve(Scope(pair.project_id), FollowLive(watch=["list", "counts"]))).pages
    async with aclosing(pages):

        async def shown(fits: Callable[[LiveEvent], bool]) -> None:
            async with asyncio.timeout(60):
                async for page in pages:
                    if any(fits(event) for _, event in page):
                        return

        await shown(lambda one: isinstance(one, SummaryPage) and [row.id for row in one.executions] == [first])
        (claimed,) = (await hand.claim()).items
        await shown(lambda one: isinstance(one, ChangedRows) and one.executions[0].phase == "running")
        await pair.start(pair.b)
        await shown(lambda one: isinstance(one, NewRows) and one.count == 1)
        await hand.complete(claimed)
        await shown(lambda one: isinstance(one, ChangedRows) and one.executions[0].phase == "completed")
