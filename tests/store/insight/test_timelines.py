"""The journal as spans: any cut into pages gives the same whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.store.world import (
    HOLD,
    LEASE_US,
    PROJECT,
    SECOND,
    START_US,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
    try_of,
)

from perdure.store.verbs.insight.timelines import timeline
from perdure.store.verbs.runs.transitions import LOSSES_MAX
from perdure.wire.base.errors import NotFound
from perdure.wire.base.record import to_json
from perdure.wire.base.times import rfc3339
from perdure.wire.insight.timeline_fold import fold
from perdure.wire.runs.requests import EventItem, OpenWait, Publish, StepDone, Suspend
from perdure.wire.steering.acts import Action

Json = Any
APPENDED = ("tries", "runs", "seqs")
FIRST = ("name", "label", "queued_at", "started_at")


async def page(world: World, id: str, after: int = 0, limit: int = 10_000) -> Json:
    facts = await world.store.scan(timeline(project_id=PROJECT, execution_id=id, after=after, limit=limit))
    return msgspec.json.decode(msgspec.json.encode(to_json(fold(facts))))


def merged(pages: list[Json]) -> Json:
    """Merge pages as the documentation tells readers to."""
    spans: dict[tuple[str, str], Json] = {}
    claims: dict[int, Json] = {}
    whole = {**pages[-1], "marks": [mark for one in pages for mark in one["marks"]]}
    for one in pages:
        for span in one["spans"]:
            known = spans.setdefault((span["kind"], span["key"]), span)
            if known is not span:
                lists = {name: known.get(name, []) + span[name] for name in APPENDED if name in span}
                first = {name: known[name] for name in FIRST if name in known}
                known.update({**span, **lists, **first})
        for claim in one["claims"]:
            known = claims.setdefault(claim["attempt"], claim)
            known.update({**claim, **known})
    for name in ("counts", "proof"):
        added = Counter[str]()
        for one in pages:
            added.update(one[name])
        whole[name] = dict(added)
    return {**whole, "spans": [*spans.values()], "claims": [*claims.values()]}


async def shown(world: World, id: str) -> Json:
    """The whole timeline, after a look that every cut into pages gives the same."""
    whole = await page(world, id)
    assert not whole["has_more"]
    for limit in (1, 2, 3, 5):
        pages = [await page(world, id, 0, limit)]
        while pages[-1]["has_more"]:
            pages.append(await page(world, id, pages[-1]["last_seq"], limit))
        assert by_name(merged(pages)) == by_name(whole), f"pages of {limit}"
    return whole


def by_name(found: Json) -> Json:
    return {**found, "spans": {(span["kind"], span["key"]): span for span in found["spans"]}}


def spans(found: Json) -> dict[str, Json]:
    return {span["key"]: span for span in found["spans"]}


def at(seconds: float) -> str:
    return rfc3339(START_US + int(seconds * SECOND))


async def test_tries_of_a_step_and_the_claims(world: World) -> None:
    await world.register()
    id = await world.running()
    world.advance(1)
    await world.report(id, [try_of("pay", retry_at_us=world.now_us + 5 * SECOND)])
    assert spans(await shown(world, id))["pay"]["state"] == "paused"
    world.advance(5)
    await world.report(id, [step("pay", {"paid": 1}, tries=2)])
    await world.finish(id)
    found = await shown(world, id)
    (pay,) = found["spans"]
    assert pay == {
        "key": "pay",
        "kind": "step",
        "name": "pay",
        "state": "completed",
        "started_at": at(0),
        "ended_at": at(6),
        "tries": [
            {
                "n": 1,
                "seq": 2,
                "attempt": 1,
                "started_at": at(0),
                "ended_at": at(1),
                "ok": False,
                "error": {"type": "Down", "message": "down"},
                "retry_at": at(6),
            },
            {"n": 2, "seq": 3, "attempt": 1, "started_at": at(0), "ended_at": at(6), "ok": True},
        ],
        "bytes": 10,
        "seqs": [2, 3],
    }
    (claim,) = found["claims"]
    assert claim == {
        "attempt": 1,
        "worker": "w",
        "from": at(0),
        "seq": 1,
        "to": at(6),
        "to_seq": 4,
        "how": "completed",
    }
    assert found["marks"] == [{"seq": 4, "at": at(6), "kind": "completed"}]
    assert found["counts"] == {"claimed": 1, "step_failed": 1, "step": 1, "completed": 1}
    assert found["proof"] == {"lost": 0, "steps_rerun": 0}
    assert found["last_seq"] == 4


async def test_waits_say_what_for_until_when_and_by_whom(world: World) -> None:
    await world.register()
    id = await world.running()
    until_us = world.now_us + 3_600 * SECOND
    asked = OpenWait("approve", None, data=raw({"amount": 3}), expires_at_us=until_us)
    paid = event_wait("paid", "payments", match={"order": raw(7)})
    await world.wait_for(id, asked, paid, due_us=world.now_us + 60 * SECOND)
    found = spans(await shown(world, id))
    assert found["approve"] == {
        "key": "approve",
        "kind": "answer",
        "state": "waiting",
        "started_at": at(0),
        "wait": {"for": "answer", "until": at(3_600)},
    }
    assert found["paid"]["wait"] == {"for": "event", "topic": "payments", "match": {"order": 7}}
    assert found["timer"] == {
        "key": "timer",
        "kind": "timer",
        "state": "waiting",
        "started_at": at(0),
        "wait": {"for": "timer", "until": at(60)},
    }
    world.advance(5)
    await world.resume(id, "approve", "yes")
    await world.publish("payments", {"order": 7})
    (claimed,) = await world.claim()
    await world.acknowledge(id, seen=len(claimed.rows))
    await world.finish(id)
    found = spans(await shown(world, id))
    assert found["approve"]["state"] == "completed"
    assert (found["approve"]["started_at"], found["approve"]["ended_at"]) == (at(0), at(5))
    assert found["paid"]["seqs"] == [4]
    assert found["paid"]["wait"]["match"] == {"order": 7}
    assert "timer" not in found, "it ended with the execution and left no row"
    ends = [(claim["attempt"], claim["how"]) for claim in (await page(world, id))["claims"]]
    assert ends == [(1, "waiting"), (2, "completed")]


async def test_a_timer_that_fired(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.wait_for(id, due_us=world.now_us + 60 * SECOND)
    world.advance(61)
    assert await world.wake_due() == 1
    (timer,) = (await shown(world, id))["spans"]
    assert timer == {
        "key": "timer",
        "kind": "timer",
        "state": "completed",
        "started_at": at(0),
        "ended_at": at(61),
        "wait": {"for": "timer", "until": at(60)},
        "seqs": [3],
    }


async def test_children_with_their_phases(world: World) -> None:
    await world.register(workflows=("wf", "ship"))
    id = await world.running()
    await world.report(id, [child("ship", "ship"), child("nothing", "ship")], Suspend([]))
    found = spans(await shown(world, id))
    assert (found["ship"]["state"], found["ship"]["child"]["phase"]) == ("waiting", "queued")
    world.advance(2)
    (first,) = await world.claim()
    await world.acknowledge(first.id)
    found = spans(await shown(world, id))
    running = next(span for span in found.values() if span["child"]["execution_id"] == first.id)
    assert running["state"] == "running"
    assert (running["queued_at"], running["started_at"]) == (at(0), at(2))
    world.advance(3)
    await world.report(first.id, [], failure("out of stock"))
    found = spans(await shown(world, id))
    over = next(span for span in found.values() if span["child"]["execution_id"] == first.id)
    assert (over["state"], over["ended_at"], over["name"]) == ("failed", at(5), "ship")
    assert over["error"] == {"type": "ValueError", "message": "out of stock"}
    assert over["child"] == {"execution_id": first.id, "workflow_id": "ship", "phase": "failed"}


async def test_a_lost_worker_an_act_and_a_held_step(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("first", 1)])
    await world.lose()
    await world.register("v")
    (claimed,) = await world.claim("v")
    await world.acknowledge(id, worker="v", seen=len(claimed.rows))
    await world.report(id, [try_of("pay")], worker="v")
    await world.report(id, [], HOLD, worker="v")
    assert spans(await shown(world, id))["pay"]["state"] == "held"
    await world.act(id, Action.COMPLETE, "pay", value=raw(5))
    found = await shown(world, id)
    assert spans(found)["pay"]["state"] == "completed"
    assert spans(found)["pay"]["edited"] == "complete"
    assert [(claim["attempt"], claim["worker"], claim["how"]) for claim in found["claims"]] == [
        (1, "w", "lost"),
        (2, "v", "held"),
    ]
    assert found["proof"] == {"lost": 1, "steps_rerun": 0}
    assert [mark["kind"] for mark in found["marks"]] == ["held"]


async def test_published_events_are_moments(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [Publish("tell", None, "orders", [EventItem(raw(1))])])
    (tell,) = (await shown(world, id))["spans"]
    assert (tell["kind"], tell["name"], tell["started_at"], tell["ended_at"]) == ("publish", "orders", at(0), at(0))


async def test_a_wait_that_the_code_gave_up(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [answer_wait("approve")])
    await world.finish(id)
    (asked,) = (await shown(world, id))["spans"]
    assert (asked["kind"], asked["state"]) == ("answer", "closed")


async def test_a_fork_says_what_it_copied(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("a"), step("b")])
    await world.report(id, [], failure())
    made = await world.fork(id, from_step="b")
    found = await shown(world, made.execution_id)
    assert [(span["key"], span.get("copied", False)) for span in found["spans"]] == [("a", True)]
    assert found["marks"][0]["kind"] == "forked"
    assert found["claims"][0]["copied"]


async def test_large_errors_cut_a_page_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.store.verbs.insight.timelines.PAGE_BYTES_MAX", 100)
    monkeypatch.setattr("perdure.store.verbs.insight.timelines.CHUNK_ROWS", 2)
    await world.register()
    id = await world.running()
    for n in range(6):
        error = raw({"type": "E", "message": "x" * 600, "detail": "…"})
        await world.report(id, [StepDone("pay", "pay", None, False, error, START_US, n + 1, last=False)])
    first = await page(world, id)
    assert first["has_more"] and first["last_seq"] == 2
    assert len(first["spans"][0]["tries"][0]["error"]["message"]) == 500
    assert len((await shown_pages(world, id))["spans"][0]["tries"]) == 6


async def shown_pages(world: World, id: str) -> Json:
    pages = [await page(world, id)]
    while pages[-1]["has_more"]:
        pages.append(await page(world, id, pages[-1]["last_seq"]))
    return merged(pages)


async def test_an_unknown_execution(world: World) -> None:
    with pytest.raises(NotFound):
        await page(world, world.new_id())


async def test_steps_in_flight_run_and_are_lost(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("a", 1), try_of("pay", retry_at_us=world.now_us)])
    begun_us = world.now_us + SECOND
    world.advance(2)
    await world.beat("w", (id, "a", 1, START_US), (id, "pay", 2, begun_us), (id, "ship", 1, begun_us))
    found = spans(await shown(world, id))
    assert found["a"]["state"] == "completed", "its outcome came after the beat"
    assert (found["pay"]["state"], found["ship"]["state"]) == ("running", "running")
    assert found["ship"] == {
        "key": "ship",
        "kind": "step",
        "state": "running",
        "started_at": at(1),
        "runs": [{"attempt": 1, "worker": "w", "n": 1, "started_at": at(1)}],
    }
    await world.lose()
    found = spans(await shown(world, id))
    lost_at = at(2 + LEASE_US / SECOND + 1)
    assert [found[key]["state"] for key in ("a", "pay", "ship")] == ["completed", "lost", "lost"]
    assert found["pay"]["runs"] == [{"attempt": 1, "worker": "w", "n": 2, "started_at": at(1), "lost_at": lost_at}]
    await world.register("v")
    await world.claim("v")
    await world.report(id, [step("pay", 1, tries=2)], worker="v")
    found = spans(await shown(world, id))
    assert (found["pay"]["state"], found["ship"]["state"]) == ("completed", "lost")
    assert len(found["pay"]["runs"]) == 1, "the torn bar stays"


async def test_the_fifth_loss_says_what_was_in_flight(world: World) -> None:
    id = ""
    for _ in range(LOSSES_MAX):
        await world.register()
        id = id or await world.start()
        world.advance(300)
        await world.wake_due()
        await world.register()
        (claimed,) = await world.claim()
        await world.acknowledge(id, seen=len(claimed.rows))
        await world.beat("w", (id, "crash", 1, world.now_us))
        await world.lose()
    found = await shown(world, id)
    (crash,) = found["spans"]
    assert [run["attempt"] for run in crash["runs"]] == [1, 2, 3, 4, 5]
    assert [claim["how"] for claim in found["claims"]] == ["lost"] * 4 + ["failed"]


async def test_a_worker_that_hands_back_loses_nothing(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.beat("w", (id, "pay", 1, world.now_us))
    await world.beat("w")
    await world.lose()
    assert (await page(world, id))["spans"] == [], "the newest beat counts"


async def test_labels_and_quiet_steps(world: World) -> None:
    await world.register()
    id = await world.running()
    done = structs.replace(step("fetch"), label="SKU 7712", quiet=True)
    await world.report(id, [structs.replace(try_of("fetch", retry_at_us=1), label="SKU 7712", quiet=True)])
    await world.report(id, [done, step("next")])
    await world.report(id, [], failure())
    made = await world.fork(id, from_step="next")
    for one in (id, made.execution_id):
        fetch = spans(await shown(world, one))["fetch"]
        assert (fetch["label"], fetch["quiet"]) == ("SKU 7712", True)
