"""Work wakes the waiting claims in order, as many as can take work, and no wake is lost. The tests count looks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.serving import LASTING, Hand, Served, serving
from uuid_utils import uuid7

from perdure.engine.runs import recalls
from perdure.engine.runs.waiting_claims import ClaimKind, ClaimPoll, WaitingClaims
from perdure.store.verbs.runs import claims, starts
from perdure.store.verbs.runs.starts import New
from perdure.wire.runs.requests import ClaimRequest, StartItem

Reply = asyncio.Task[Any]


@pytest.fixture
async def served(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A server whose claims look only on hints, and that leaves an unconfirmed claim's work alone during a test."""
    monkeypatch.setattr(recalls, "CONFIRM_SECONDS", 3_600.0)
    async with serving(database, poll_seconds=600.0, **LASTING) as served:
        yield served


async def waiting(served: Served, amount: int, deployment_id: str = "default") -> tuple[list[Hand], list[Reply]]:
    """Register `amount` workers, each with a waiting claim, in order."""
    hands: list[Hand] = []
    replies: list[Reply] = []
    for _ in range(amount):
        hand = Hand(served.client)
        hand.deployment_id = deployment_id
        await hand.register()
        replies.append(asyncio.create_task(hand.claim(60)))
        await served.until_waiting(hand.id)
        hands.append(hand)
    return hands, replies


async def start_undispatched(served: Served, amount: int = 1) -> list[str]:
    """Start executions together that no transaction hands to a waiting claim."""
    news = [New(str(uuid7()), StartItem("w")) for _ in range(amount)]
    now_us = served.engine.clock.now_us()
    await served.engine.store.write(starts.start(project_id=served.project_id, news=news, now_us=now_us))
    return [new.id for new in news]


async def ids(replies: list[Reply]) -> list[str]:
    async with asyncio.timeout(60):
        return [item["id"] for item in await asyncio.gather(*replies)]


async def give_up(replies: list[Reply]) -> None:
    for reply in replies:
        reply.cancel()
    await asyncio.gather(*replies, return_exceptions=True)


async def test_a_start_finds_its_worker_behind_claims_of_another_deployment(served: Served) -> None:
    _, others = await waiting(served, 3, "other")
    [hand], replies = await waiting(served, 1)
    looks = served.engine.claims._turn
    for _ in range(3):
        id = await served.start()
        assert await ids(replies) == [id]
        replies = [asyncio.create_task(hand.claim(60))]
        await served.until_waiting(hand.id)
    assert served.engine.claims._turn - looks <= 6  # one for each new claim, and one for the first start at most
    assert not any(one.done() for one in others)
    await give_up([*others, *replies])


async def test_one_execution_wakes_one_claim_the_longest_waiting(served: Served) -> None:
    _, replies = await waiting(served, 4)
    looks = served.engine.claims._turn
    [id] = await start_undispatched(served)
    assert await ids(replies[:1]) == [id]
    await until(lambda: served.engine.claims._turn - looks >= 2)  # it was full, so the next one looked, too
    assert not any(one.done() for one in replies[1:])
    await give_up(replies[1:])


async def test_executions_started_together_reach_all_that_can_take_them(served: Served) -> None:
    _, replies = await waiting(served, 4)
    started = await start_undispatched(served, 3)
    # The first that has looked wakes the fourth, which may look before the others do.
    await until(lambda: sum(one.done() for one in replies) == 3)
    assert sorted(await ids([one for one in replies if one.done()])) == sorted(started)
    await give_up(replies)


async def test_a_woken_claim_without_a_registration_wakes_the_next(served: Served) -> None:
    hands, replies = await waiting(served, 3)
    for hand in hands[:2]:  # another server may end a registration whose claim waits here
        now_us = served.engine.clock.now_us()
        await served.engine.store.write(claims.drain(project_id=served.project_id, worker_id=hand.id, now_us=now_us))
    [id] = await start_undispatched(served)
    assert await ids(replies[2:]) == [id]
    await asyncio.gather(*replies, return_exceptions=True)


async def test_a_woken_claim_whose_client_leaves_wakes_the_next(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, replies = await waiting(served, 2)
    service = served.engine.claims
    notify, polls = service.notify, list(service._latest.values())

    def leave(project_id: str, deployment_id: str | None = None, amount: int = 1) -> None:
        notify(project_id, deployment_id, amount)
        assert polls[0].woken
        polls[0].superseded = True  # the client has sent another request, and reads no answer to this one

    monkeypatch.setattr(service, "notify", leave)
    [id] = await start_undispatched(served)
    monkeypatch.undo()
    assert await ids(replies[1:]) == [id]
    await give_up(replies)


async def test_a_wake_that_nobody_waits_for_is_seen_by_the_claim_that_a_start_had_taken(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, replies = await waiting(served, 2)
    service = served.engine.claims
    notify, [_, second] = service.notify, list(service._latest.values())
    taken = service.take_waiting(served.project_id, "default")
    assert taken is not None and taken is not second

    def leave(project_id: str, deployment_id: str | None = None, amount: int = 1) -> None:
        notify(project_id, deployment_id, amount)
        assert second.woken
        second.superseded = True  # its client has gone

    monkeypatch.setattr(service, "notify", leave)
    [id] = await start_undispatched(served)
    monkeypatch.undo()
    await replies[1]
    service.settle(taken, [])  # the start was refused
    assert await ids(replies[:1]) == [id]


async def test_one_claim_of_each_kind_looks_without_a_hint_however_many_waited_before(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database, poll_seconds=0.2) as served:
        hands, replies = await waiting(served, 40)
        service = served.engine.claims
        for hand in hands[:-1]:
            service._latest[hand.id].superseded = True  # its client has gone
            service._latest[hand.id].stir()
        await asyncio.gather(*replies[:-1])
        await served.until_waiting(hands[-1].id)
        if served.engine.store.alone:
            assert service._next_turn is not None
            assert service._next_turn.when() <= asyncio.get_running_loop().time() + 0.3
        monkeypatch.setattr(service, "notify", lambda *_: None)
        [id] = await start_undispatched(served)
        if not served.engine.store.alone:  # there the fallback poller looks
            monkeypatch.undo()
        looks = service._turn
        assert await ids(replies[-1:]) == [id]
        assert service._turn - looks <= 10


async def test_a_claim_after_a_repeated_one_looks_for_what_came_meanwhile(served: Served) -> None:
    hand = Hand(served.client)
    await hand.register()
    first = await served.start()
    body = {**hand.claiming(), "capacity": 5}
    assert [one["id"] for one in (await hand.say("claim", body))["items"]] == [first]
    [id] = await start_undispatched(served)
    assert [one["id"] for one in (await hand.say("claim", body))["items"]] == [first]
    assert await ids([asyncio.create_task(hand.claim(60))]) == [id]


@pytest.mark.parametrize("ends", ["retry", "raise"])
async def test_a_free_slot_wakes_the_claims_of_any_deployment(served: Served, ends: str) -> None:
    """A limit of a queue counts for all deployments."""
    hands = []
    for deployment_id in ("old", "new"):
        hand = Hand(served.client)
        hand.deployment_id = deployment_id
        await register_limited(hand, 1)
        hands.append(hand)
    held, waits = [await served.start(deployment_id=one.deployment_id) for one in hands]
    item = await hands[0].claim()
    assert item["id"] == held
    reply = asyncio.create_task(hands[1].claim(60))
    await served.until_waiting(hands[1].id)
    if ends == "retry":
        end = {"type": "fail", "error": "no", "detail": {"message": "no"}, "retry_delay_us": 3_600_000_000}
        await hands[0].report(item, end=end)
    else:
        await register_limited(hands[0], 2)
    assert await ids([reply]) == [waits]


async def register_limited(hand: Hand, limit: int) -> None:
    body = {
        "worker_id": hand.id,
        "deployment_id": hand.deployment_id,
        "python": "3.11",
        "workflows": [{"id": "w", "queue_name": "q"}],
        "queues": [{"name": "q", "concurrency_limit": limit}],
    }
    hand.epoch = (await hand.say("register", body))["epoch"]


# --- the list itself -------------------------------------------------------------------------------------------------


def poll(kind: ClaimKind, capacity: int = 1) -> ClaimPoll:
    one = ClaimPoll(kind.project_id, ClaimRequest(str(uuid7()), "e", "1", capacity), capacity)
    one.offer(kind)
    return one


NEW, OLD = ClaimKind("p", "d", "3.13", 2), ClaimKind("p", "d", "3.11", 2)


def test_a_hint_wakes_enough_claims_of_each_kind_in_their_order() -> None:
    waiting = WaitingClaims()
    some = [poll(NEW, 1), poll(NEW, 5), poll(NEW, 5), poll(OLD, 1)]
    foreign = [poll(ClaimKind("p", "e", "3.13", 2)), poll(ClaimKind("q", "d", "3.13", 2))]
    for one in (*some, *foreign):
        waiting.enter(one)
    waiting.wake("p", "d", 3)
    assert [one.woken for one in (*some, *foreign)] == [True, True, False, True, False, False]
    assert waiting.missed(NEW) == 0  # so a claim that looks meanwhile need not look again
    assert waiting.missed(OLD) == 1  # room for one of three
    waiting.wake("p", None)
    assert [one.woken for one in (*some, *foreign)] == [True, True, True, True, True, False]


def test_a_hint_that_wakes_no_claim_is_missed() -> None:
    waiting = WaitingClaims()
    waiting.wake("p", "d")
    waiting.wake("p", None)
    waiting.wake("p", "e")
    assert waiting.missed(NEW) == 2


def test_a_wake_that_nobody_waits_for_is_missed_too() -> None:
    waiting = WaitingClaims()
    one, other = poll(NEW), poll(OLD)
    waiting.enter(one)
    waiting.enter(other)
    waiting.wake("p", "d")
    waiting.wake_next(one)
    assert waiting.missed(NEW) == 1 and waiting.missed(OLD) == 0


def test_a_claim_is_taken_once_and_returns_to_its_place() -> None:
    waiting = WaitingClaims()
    first, second = poll(NEW), poll(NEW)
    waiting.enter(first)
    waiting.enter(second)
    assert waiting.take("p", "e") is None and waiting.take("q", None) is None
    assert waiting.take("p", "d") is first
    waiting.enter(first, first=True)
    assert waiting.take("p", None) is first and waiting.take("p", "d") is second
    assert waiting.take("p", None) is None and waiting.deployments() == {}


def test_a_claim_that_looks_for_work_could_take_it_as_well() -> None:
    waiting = WaitingClaims()
    mine, other, newer = poll(NEW), poll(NEW), poll(ClaimKind("p", "d", "3.13", 3))
    for one in (mine, other):
        waiting.enter(one)
    assert waiting.take("p", "d") is mine and waiting.take("p", "d") is other
    assert waiting.any_like(mine)
    waiting.close(other)
    assert not waiting.any_like(mine), "its own claim does not count"
    waiting.open(newer)
    assert waiting.any_like(mine) and not waiting.any_like(newer)
    waiting.close(newer)
    waiting.close(mine)
    assert not waiting.any_like(mine) and waiting._open == {}


def test_counts_that_grow_too_many_are_forgotten_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.engine.runs.waiting_claims.NAMES_MAX", 3)
    waiting = WaitingClaims()
    assert all(waiting.wake("p", str(n)) for n in range(4))
    assert not waiting.wake("p", "new")  # each worker looks once
