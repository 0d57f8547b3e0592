"""The table is the oracle: a move is made exactly from its sources. Otherwise a clear refusal, and nothing changed."""

import contextlib
from collections.abc import Awaitable, Callable

import pytest
from tests.store.world import (
    BLOCK,
    CANCELLED,
    GRACE_US,
    HOLD,
    LEASE_US,
    RELEASE,
    SECOND,
    START_US,
    World,
    answer_wait,
    failure,
    raw,
    step,
    try_of,
)

from perdure.wire.errors import Conflict, NotCancellable
from perdure.wire.hands import Action
from perdure.wire.records import Kind
from perdure.wire.requests import Complete, End, ItemReply, Suspend, WorkflowSpec
from perdure.wire.status import FINAL, TRANSITIONS, Phase

TIMER_US = START_US + 3_600 * SECOND


async def _queued(world: World) -> str:
    return await world.start()


async def _running(world: World) -> str:
    return await world.running()


async def _waiting(world: World) -> str:
    id = await world.running()
    assert (await world.wait_for(id, answer_wait("k"), due_us=TIMER_US)).ended
    return id


async def _cancelling(world: World) -> str:
    id = await world.running()
    assert await world.cancel(id) is Phase.CANCELLING
    return id


async def _blocked(world: World) -> str:
    id = await world.running()
    assert (await world.report(id, end=BLOCK)).ended
    return id


async def _held(world: World) -> str:
    id = await world.running()
    assert (await world.report(id, [try_of("pay")], HOLD)).ended
    return id


async def _completed(world: World) -> str:
    id = await world.running()
    await world.finish(id)
    return id


async def _failed(world: World) -> str:
    id = await world.running()
    assert (await world.report(id, end=failure())).ended
    return id


async def _cancelled(world: World) -> str:
    id = await world.start()
    assert await world.cancel(id) is Phase.CANCELLED
    return id


BRING: dict[Phase, Callable[[World], Awaitable[str]]] = {
    Phase.QUEUED: _queued,
    Phase.RUNNING: _running,
    Phase.WAITING: _waiting,
    Phase.CANCELLING: _cancelling,
    Phase.BLOCKED: _blocked,
    Phase.HELD: _held,
    Phase.COMPLETED: _completed,
    Phase.FAILED: _failed,
    Phase.CANCELLED: _cancelled,
}


def _say(end: End) -> Callable[[World, str], Awaitable[object]]:
    async def report(world: World, id: str) -> ItemReply:
        return await world.report(id, end=end)

    return report


async def _claim(world: World, id: str) -> None:
    await world.claim("w2", 10)


async def _wake(world: World, id: str) -> None:
    world.now_us = TIMER_US
    await world.wake_due()


async def _lose(world: World, id: str) -> None:
    await world.lose()


async def _poison(world: World, id: str) -> None:
    """Lose it until it is not handed out again; whatever else happens to it stops the series."""
    for _ in range(6):
        before = await world.phase(id)
        await world.lose()
        if await world.phase(id) is not Phase.QUEUED or before is not Phase.RUNNING:
            return
        world.advance(400)  # past the pause before it is handed out again
        await world.register()
        await world.wake_due()
        assert [claimed.id for claimed in await world.claim()] == [id]
        await world.acknowledge(id)


async def _unblock(world: World, id: str) -> None:
    await world.register()


def _act(action: Action) -> Callable[[World, str], Awaitable[object]]:
    async def act(world: World, id: str) -> None:
        with contextlib.suppress(Conflict):
            await world.act(id, action)

    return act


async def _cancel(world: World, id: str) -> None:
    await world.cancel(id)


async def _overrule(world: World, id: str) -> None:
    world.advance(GRACE_US / SECOND)
    await world.wake_due()


DO: dict[str, Callable[[World, str], Awaitable[object]]] = {
    "claim": _claim,
    "claim_cancelling": _claim,
    "suspend": _say(Suspend(["k"], ("timer", TIMER_US))),
    "wake": _wake,
    "complete": _say(Complete(raw("done"))),
    "fail": _say(failure()),
    "retry": _say(failure(retry_delay_us=0)),
    "release": _say(RELEASE),
    "lose": _lose,
    "poison": _poison,
    "block": _say(BLOCK),
    "unblock": _unblock,
    "hold": _say(HOLD),
    "release_hold": _act(Action.TRY),
    "give_up": _act(Action.FAIL),
    "cancel": _cancel,
    "ask_cancel": _cancel,
    "confirm_cancel": _say(CANCELLED),
    "overrule": _overrule,
}

# What the same request means in another phase: the table has a move of its own for it.
MEANS: dict[tuple[str, Phase], str] = {
    ("claim_cancelling", Phase.QUEUED): "claim",  # nobody asked to cancel it
    ("wake", Phase.CANCELLING): "overrule",  # an hour is longer than the grace
    ("lose", Phase.CANCELLING): "overrule",
    ("poison", Phase.CANCELLING): "overrule",
    ("cancel", Phase.RUNNING): "ask_cancel",
    ("ask_cancel", Phase.QUEUED): "cancel",
    ("ask_cancel", Phase.WAITING): "cancel",
    ("ask_cancel", Phase.BLOCKED): "cancel",
    ("ask_cancel", Phase.HELD): "cancel",
}


def test_every_move_and_every_phase_is_tried() -> None:
    assert set(DO) == set(TRANSITIONS)
    assert set(BRING) == set(Phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", TRANSITIONS)
async def test_a_move_is_made_from_its_sources_and_refused_elsewhere(world: World, name: str, phase: Phase) -> None:
    await world.register()
    await world.register("w2")
    id = await BRING[phase](world)
    assert await world.phase(id) is phase
    before = await world.everything(id)
    move = TRANSITIONS[MEANS.get((name, phase), name)]

    if name in ("cancel", "ask_cancel") and phase in FINAL:
        with pytest.raises(NotCancellable, match=f"{phase} already"):
            await DO[name](world, id)
        answer: object = None
    else:
        answer = await DO[name](world, id)

    if phase in move.sources:
        assert await world.phase(id) is move.target
        assert len(await world.journal(id)) > len(before[1])
        if isinstance(answer, ItemReply):
            assert answer.ended
        return
    assert await world.everything(id) == before
    if isinstance(answer, ItemReply):
        assert not answer.ended
        assert answer.lost or answer.problem is not None or phase is Phase.CANCELLING


@pytest.mark.parametrize("name", [name for name, move in TRANSITIONS.items() if move.fenced])
@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.CANCELLING])
@pytest.mark.parametrize("who", ["stale attempt", "attempt of the future", "foreign worker", "unknown execution"])
async def test_a_fenced_move_is_refused_to_everybody_else(world: World, name: str, phase: Phase, who: str) -> None:
    await world.register()
    id = await world.running()
    await world.lose()
    await world.register()
    await world.register("w2")
    assert [(claimed.id, claimed.attempt) for claimed in await world.claim()] == [(id, 2)]
    await world.acknowledge(id)
    if phase is Phase.CANCELLING:
        await world.cancel(id)
    before = await world.everything(id)
    ends: dict[str, End] = {
        "suspend": Suspend([], ("timer", TIMER_US)),
        "complete": Complete(raw(1)),
        "fail": failure(),
        "retry": failure(retry_delay_us=0),
        "release": RELEASE,
        "block": BLOCK,
        "hold": HOLD,
        "confirm_cancel": CANCELLED,
    }

    answer = await world.report(
        world.new_id() if who == "unknown execution" else id,
        [step("s", 1)],
        ends[name],
        attempt={"stale attempt": 1, "attempt of the future": 3}.get(who, 2),
        worker="w2" if who == "foreign worker" else "w",
        number=99,
        seen=0,
    )

    assert answer == ItemReply(lost=True)
    assert await world.everything(id) == before


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.CANCELLING])
async def test_a_stale_attempt_is_told_nothing_it_could_go_on_with(world: World, phase: Phase) -> None:
    """Replies that let code continue are fenced too (I4)."""
    await world.register()
    id = await world.running()
    await world.report(id, [step("s", 1)])
    await world.lose()
    await world.register()
    await world.claim()
    if phase is Phase.CANCELLING:
        await world.cancel(id)
    assert await world.acknowledge(id, attempt=1) == ItemReply(lost=True)
    assert await world.report(id, [step("s", 1)], attempt=1, number=1, seen=1) == ItemReply(lost=True)


async def test_a_queued_execution_that_was_asked_to_cancel_is_claimed_to_clean_up(world: World) -> None:
    await world.register(workflows=[WorkflowSpec("wf", wake_on_cancel=True)])
    id = await _waiting(world)
    assert await world.cancel(id) is Phase.CANCELLING
    assert await world.phase(id) is Phase.QUEUED
    [claimed] = await world.claim()
    assert claimed.cancelling
    assert claimed.rows[-2].kind is Kind.CANCEL
    assert await world.phase(id) is TRANSITIONS["claim_cancelling"].target
    assert (await world.report(id, [step("clean", 1)], CANCELLED)).ended
    assert await world.phase(id) is Phase.CANCELLED


@pytest.mark.parametrize("phase", sorted(FINAL))
async def test_final_is_final(world: World, phase: Phase) -> None:
    """Nothing that happens around it changes a final execution (I10)."""
    await world.register()
    await world.register("w2")
    id = await BRING[phase](world)
    before = await world.everything(id)
    for name, do in DO.items():
        await world.register("w2")
        if name in ("cancel", "ask_cancel"):
            with pytest.raises(NotCancellable):
                await do(world, id)
        else:
            await do(world, id)
    await world.report(id, [step("late", 1)])
    await world.acknowledge(id)
    assert await world.everything(id) == before


async def test_a_worker_that_confirms_a_cancel_nobody_asked_for_is_told_so(world: World) -> None:
    """Not `lost`: it holds the execution still, and would otherwise drop it while the server waits for it."""
    await world.register()
    id = await world.running()
    answer = await world.report(id, end=CANCELLED)
    assert answer.problem is not None
    assert answer.problem.error_type == "ILLEGAL_MOVE"
    assert (await world.report(id, end=failure())).ended


async def test_leases_decide_when_work_is_handed_out_and_never_whether_a_message_counts(world: World) -> None:
    await world.register()
    id = await world.running()
    world.advance(LEASE_US / SECOND + 60)  # silent for long, and nobody reaped it
    assert (await world.report(id, [step("s", 1)], Complete(raw(2)))).ended
    assert await world.reap() == 1
    assert (await world.get(id)).result == raw(2)
