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
    World,
    answer_wait,
    failure,
    raw,
    step,
    try_of,
)

from perdure.wire.base.errors import Conflict, NotCancellable
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, TRANSITIONS, Phase
from perdure.wire.runs.requests import Complete, End, ItemReply, Suspend, WorkflowSpec
from perdure.wire.steering.acts import Action

TIMER_SECONDS = 3_600


def _timer_us(world: World) -> int:
    return world.now_us + TIMER_SECONDS * SECOND


async def _queued(world: World) -> str:
    return await world.start()


async def _running(world: World) -> str:
    return await world.running()


async def _waiting(world: World) -> str:
    id = await world.running()
    assert (await world.wait_for(id, answer_wait("k"), due_us=_timer_us(world))).ended
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


async def _suspend(world: World, id: str) -> ItemReply:
    return await world.report(id, end=Suspend(["k"], ("timer", _timer_us(world))))


async def _wake(world: World, id: str) -> None:
    world.advance(TIMER_SECONDS)
    await world.wake_due()


async def _lose(world: World, id: str) -> None:
    await world.lose()


async def _poison(world: World, id: str) -> None:
    """Lose the execution until it is not handed out again. Any other move stops the series."""
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
    "suspend": _suspend,
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


@pytest.mark.parametrize("name", TRANSITIONS)
async def test_a_move_is_made_from_its_sources_and_refused_elsewhere(world: World, name: str) -> None:
    for phase in Phase:  # in one store: opening one takes longer than each of these
        await world.register()
        await world.register("w2")
        id = await BRING[phase](world)
        assert await world.phase(id) is phase
        await _try(world, id, name, phase)
        await _leave(world, id)


async def _try(world: World, id: str, name: str, phase: Phase) -> None:
    before = await world.everything(id)
    move = TRANSITIONS[MEANS.get((name, phase), name)]

    if name in ("cancel", "ask_cancel") and phase in FINAL:
        with pytest.raises(NotCancellable, match=f"{phase} already"):
            await DO[name](world, id)
        answer: object = None
    else:
        answer = await DO[name](world, id)

    if phase in move.sources:
        assert await world.phase(id) is move.target, phase
        assert len(await world.journal(id)) > len(before[1]), phase
        if isinstance(answer, ItemReply):
            assert answer.ended, phase
        return
    assert await world.everything(id) == before, phase
    if isinstance(answer, ItemReply):
        assert not answer.ended, phase
        assert answer.lost or answer.problem is not None or phase is Phase.CANCELLING, phase


async def _leave(world: World, id: str) -> None:
    """End the execution and all registrations, so the next one is alone."""
    if await world.phase(id) not in FINAL:
        await world.cancel(id)
        await _overrule(world, id)
    assert await world.phase(id) in FINAL
    await world.lose()


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.CANCELLING])
async def test_a_fenced_move_is_refused_to_everybody_else(world: World, phase: Phase) -> None:
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
        "suspend": Suspend([], ("timer", _timer_us(world))),
        "complete": Complete(raw(1)),
        "fail": failure(),
        "retry": failure(retry_delay_us=0),
        "release": RELEASE,
        "block": BLOCK,
        "hold": HOLD,
        "confirm_cancel": CANCELLED,
    }
    assert set(ends) == {name for name, move in TRANSITIONS.items() if move.fenced}
    others = {
        "stale attempt": (id, 1, "w"),
        "attempt of the future": (id, 3, "w"),
        "foreign worker": (id, 2, "w2"),
        "unknown execution": (world.new_id(), 2, "w"),
    }

    for name, end in ends.items():
        for who, (claimed, attempt, worker) in others.items():
            answer = await world.report(claimed, [step("s", 1)], end, attempt=attempt, worker=worker, number=99, seen=0)
            assert answer == ItemReply(lost=True), (name, who)
            assert await world.everything(id) == before, (name, who)


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
    """Events around a final execution do not change it (I10)."""
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
    """The answer is not `lost`: the worker still holds the execution, and would drop it while the server waits."""
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
