"""Claims: who gets what, in which order, and never more than the limits allow (I4, I8)."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from msgspec import json, structs
from tests.store.world import (
    BLOCK,
    LEASE_US,
    PROJECT,
    RELEASE,
    SECOND,
    World,
    answer_wait,
    child,
    failure,
    raw,
    step,
)

from perdure.store.verbs import retention
from perdure.store.verbs.runs import claims, find, reports, starts
from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.store.verbs.runs.starts import New
from perdure.wire.base.errors import Conflict, LeaseLost
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import (
    Claimed,
    Complete,
    Entry,
    EventItem,
    ItemReply,
    Publish,
    QueueSpec,
    RegisterRequest,
    ReportItem,
    StartChild,
    StartItem,
    StepDone,
    Suspend,
    TimerFired,
    WorkflowSpec,
)


async def held_by(world: World, queue: str, key: str | None = None, *, every_key: bool = False) -> int:
    """The running executions of a queue, counted one by one, unlike the store's count."""
    filters = ListFilters(phases=["running", "cancelling"], queue_name=queue)
    page, _ = await world.store.read(
        find.list_executions(project_id=PROJECT, filters=filters, before="~", limit=10_000)
    )
    return sum(1 for execution in page if every_key or execution.concurrency_key == key)


def _repeated(batch: Sequence[Claimed]) -> list[Claimed]:
    """A batch as handed out again: the server may take back a batch whose answer was lost."""
    return [structs.replace(claimed, ack_first=True) for claimed in batch]


# --- who gets what ----------------------------------------------------------------------------------------------------


async def test_nobody_claims_the_same_execution_twice(world: World) -> None:
    await world.register("w1")
    await world.register("w2")
    ids = await world.start_all([StartItem("wf") for _ in range(10)])
    one = await world.claim_ids("w1", 4)
    other = await world.claim_ids("w2", 100)
    assert sorted([*one, *other]) == sorted(ids)
    assert await world.claim_ids("w1") == []


async def test_the_same_claim_id_gets_the_same_batch(world: World) -> None:
    """I4: if the reply was lost, the repeated claim gets the same batch and nothing else."""
    await world.register()
    await world.start_all([StartItem("wf") for _ in range(5)])
    first = await world.claim(capacity=3, claim_id="c")
    again = await world.claim(capacity=3, claim_id="c")
    assert again == _repeated(first)
    await world.acknowledge(first[0].id)
    assert [claimed.id for claimed in await world.claim(capacity=3, claim_id="c")] == [one.id for one in first[1:]]
    assert len(await world.claim(capacity=3, claim_id="d")) == 2
    assert await world.claim(capacity=3, claim_id="e") == []


async def test_a_repeated_claim_of_journals_gets_them_whole(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("s", 1), answer_wait("k")])
    await world.report(id, end=RELEASE)
    first = await world.claim(claim_id="c")
    assert await world.claim(claim_id="c") == _repeated(first)
    assert [row.seq for row in first[0].rows] == [1, 2, 3, 4]


async def test_a_claim_reply_carries_what_is_on_disk(world: World) -> None:
    """The first row as well: replay on another day must see the same time."""
    await world.register()
    id = await world.start()
    world.advance(5)
    [claimed] = await world.claim()
    assert claimed.rows == await world.journal(id)
    assert claimed.rows[0].at_us == world.now_us


async def test_times_are_in_order_whatever_the_order_of_the_stamps(world: World) -> None:
    """A verb has its time before its turn, and clocks of servers differ: a claim's stamp may precede the start's."""
    await world.register()
    id = await world.start()
    asked_at = world.now_us
    world.now_us -= 700
    [claimed] = await world.claim()
    world.now_us -= 700
    await world.finish(id)
    execution = await world.get(id)
    assert (execution.created_at_us, execution.started_at_us, execution.completed_at_us) == (asked_at,) * 3
    assert claimed.rows[0].at_us == asked_at
    assert [row.at_us for row in await world.journal(id)] == [asked_at] * 2


async def test_only_registered_workers_of_the_project_claim(world: World) -> None:
    await world.register()
    with pytest.raises(LeaseLost):
        await world.claim("nobody")
    with pytest.raises(LeaseLost):
        await world.store.write(
            claims.claim(project_id="other", worker_id="w", claim_id="c", capacity=1, now_us=1, grace_us=1)
        )
    with pytest.raises(Conflict, match="taken"):
        await world.register("w", project="other")


async def test_work_goes_to_workers_of_its_deployment(world: World) -> None:
    await world.register("old", deployment="1")
    pinned = await world.start()
    world.advance(1)
    await world.register("new", deployment="2")
    fresh = await world.start()
    asked = await world.start(deployment_id="1")
    assert await world.claim_ids("new") == [fresh]
    assert await world.claim_ids("old") == [pinned, asked]
    world.advance(1)
    await world.register("old again", deployment="1")  # not the first time: it does not become current
    assert (await world.get(await world.start())).deployment_id == "2"


async def test_an_execution_keeps_the_python_of_its_first_claim(world: World) -> None:
    await world.register("w12", python="3.12")
    await world.register("w13", python="3.13")
    id = await world.start()
    await world.claim("w12")
    await world.report(id, end=RELEASE, worker="w12")
    limited = await world.start(queue_name="q", queue_concurrency_limit=5)
    assert await world.claim_ids("w13") == [limited]
    await world.report(limited, end=RELEASE, worker="w13")
    assert await world.claim_ids("w12") == [id]
    assert await world.claim_ids("w13") == [limited]


# --- order ------------------------------------------------------------------------------------------------------------


async def test_order_is_woken_first_then_priority_then_age(world: World) -> None:
    await world.register()
    woken_low, woken = await world.running(priority=-5), await world.running()
    for id in (woken_low, woken):
        await world.wait_for(id, answer_wait("k"))
    low = await world.start(priority=-1_000)
    world.advance(1)
    first = await world.start()
    second = await world.start()
    world.advance(1)
    high = await world.start(priority=1_000)
    for id in (woken_low, woken):
        await world.resume(id, "k")
    assert await world.claim_ids() == [woken, woken_low, high, first, second, low]


async def test_a_delayed_start_takes_its_place_when_it_is_due(world: World) -> None:
    await world.register()
    delayed = await world.start(delay_seconds=10)
    at = await world.start(start_at_us=world.now_us + 5 * SECOND)
    past = await world.start(start_at_us=1)
    assert await world.claim_ids() == [past]
    world.advance(6)
    later = await world.start()
    assert await world.wake_due() == 1
    assert await world.claim_ids() == [at, later]
    world.advance(6)
    assert await world.wake_due() == 1
    assert await world.claim_ids() == [delayed]


async def test_wake_due_keeps_to_its_limit_and_takes_the_earliest(world: World) -> None:
    await world.register()
    ids = [await world.running() for _ in range(6)]
    for n, id in enumerate(ids):
        await world.wait_for(id, due_us=world.now_us + (6 - n) * SECOND)
    world.advance(6)
    assert await world.wake_due(limit=2) == 2
    assert sorted(await world.claim_ids()) == sorted(ids[-2:])
    assert await world.wake_due() == 4


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_limit_counts_by_key_and_a_total_counts_the_queue(world: World) -> None:
    await world.register(queues=[QueueSpec("q", concurrency_limit=2, total_limit=5)])
    await world.start_all(
        [StartItem("wf", queue_name="q", concurrency_key=key) for key in ("a", "b", None, "c") for _ in range(4)]
    )
    got = await world.claim(capacity=100)
    keys = Counter(claimed.concurrency_key for claimed in got)
    assert len(got) == 5
    assert max(keys.values()) == 2
    assert await world.claim(capacity=100) == []
    await world.finish(got[0].id)
    assert len(await world.claim(capacity=100)) == 1


@pytest.mark.parametrize(
    "limits",
    [
        (1, None),
        (2, 5),
        *(pytest.param(one, marks=pytest.mark.slow) for one in ((3, None), (None, 4), (0, None), (None, 0))),
    ],
    ids=str,
)
async def test_limits_hold_whatever_happens(world: World, limits: tuple[int | None, int | None]) -> None:
    """Random lives in a limited queue; every freed slot can be taken again."""
    dice = random.Random(str(limits))
    key_limit, total_limit = limits
    await world.register(queues=[QueueSpec("q", key_limit, total_limit)])
    await world.register("w2")
    keys = ("a", "b", "c", None)
    await world.start_all([StartItem("wf", queue_name="q", concurrency_key=dice.choice(keys)) for _ in range(60)])
    held: list[tuple[str, str]] = []
    ends = 0
    for _ in range(60):
        worker = dice.choice(["w", "w2"])
        held += [(id, worker) for id in await world.claim_ids(worker, dice.randint(1, 4))]
        for key in keys:
            assert key_limit is None or await held_by(world, "q", key) <= key_limit
        assert total_limit is None or await held_by(world, "q", every_key=True) <= total_limit
        if held and dice.random() < 0.7:
            id, worker = held.pop(dice.randrange(len(held)))
            what = dice.randrange(5)
            if what == 0:
                await world.finish(id, worker)
            elif what == 1:
                await world.wait_for(id, answer_wait(f"k{ends}"), worker=worker)
                await world.resume(id, f"k{ends}")
            elif what == 2:
                await world.report(id, end=failure(retry_delay_us=0), worker=worker)
            elif what == 3:
                await world.cancel(id)
                await world.report(id, end=failure(), worker=worker)
            else:
                await world.report(id, end=RELEASE, worker=worker)
            ends += 1
    if 0 in limits:
        assert not held and not ends
        return
    assert ends > 20
    while held:
        await world.finish(*held.pop())
    while claimed := await world.claim(capacity=100):
        for one in claimed:
            await world.finish(one.id)
    assert await held_by(world, "q", every_key=True) == 0


async def test_a_changed_limit_holds_from_now_on_for_what_is_there(world: World) -> None:
    await world.register()
    ids = await world.start_all([StartItem("wf", queue_name="q") for _ in range(10)])
    assert len(await world.claim(capacity=4)) == 4
    await world.register(queues=[QueueSpec("q", 5)])
    assert len(await world.claim(capacity=100)) == 1
    await world.register(queues=[QueueSpec("q", 2)])
    assert await world.claim(capacity=100) == []
    for id in ids[:4]:
        await world.finish(id)
    assert len(await world.claim(capacity=100)) == 1
    await world.register(queues=[QueueSpec("q", None, 3)])
    assert len(await world.claim(capacity=100)) == 1
    await world.register(queues=[QueueSpec("q")])
    assert len(await world.claim(capacity=100)) == 3


@pytest.mark.parametrize("phase", ["delayed", "waiting", "blocked", "running", "backoff"])
async def test_a_new_limit_counts_whoever_was_elsewhere_when_it_came(world: World, phase: str) -> None:
    await world.register()
    ids = await world.start_all([StartItem("wf", queue_name="q", delay_seconds=5 if phase == "delayed" else None)] * 3)
    if phase != "delayed":
        await world.claim(capacity=10)
        for id in ids:
            if phase == "waiting":
                await world.wait_for(id, answer_wait("k"))
            elif phase == "blocked":
                await world.report(id, end=BLOCK)
            elif phase == "backoff":
                await world.report(id, end=failure(retry_delay_us=5 * SECOND))
    await world.register("w2", queues=[QueueSpec("q", 1)])
    extra = await world.start(queue_name="q")
    if phase == "running":
        assert await world.claim() == []
        for id in ids:
            await world.finish(id)
        assert await world.claim_ids() == [extra]
        return
    if phase == "waiting":
        for id in ids:
            await world.resume(id, "k")
    world.advance(5)
    await world.wake_due()
    for _ in range(4):
        [one] = await world.claim(capacity=100)
        await world.finish(one.id)
    assert await world.claim() == []


async def test_a_limit_that_comes_with_a_start_counts_what_was_there_before(world: World) -> None:
    await world.register()
    running = await world.running(queue_name="q")
    await world.start(queue_name="q")
    items = [StartItem("wf", queue_name="q"), StartItem("wf", queue_name="q", queue_concurrency_limit=1)]
    await world.start_all(items)
    assert await world.claim(capacity=100) == []
    await world.finish(running)
    assert len(await world.claim(capacity=100)) == 1
    await world.start(queue_name="q", queue_concurrency_limit=50)  # only the first one makes the queue
    assert await world.claim(capacity=100) == []


async def test_cleaning_up_needs_no_slot(world: World) -> None:
    await world.register(workflows=["wf", WorkflowSpec("cleans", wake_on_cancel=True)], queues=[QueueSpec("q", 1)])
    id = await world.running(workflow_id="cleans", queue_name="q")
    await world.wait_for(id, answer_wait("k"))
    other = await world.running(queue_name="q")
    await world.cancel(id)
    assert await world.claim_ids() == [id]
    await world.start(queue_name="q")
    assert await world.claim() == []
    await world.finish(other)
    assert len(await world.claim(capacity=100)) == 1


async def test_keys_take_turns(world: World) -> None:
    """A key with much to do does not keep others waiting: claims go round the keys."""
    await world.register(queues=[QueueSpec("q", 100)])
    for key in ("a", "b", "c"):
        await world.start_all([StartItem("wf", queue_name="q", concurrency_key=key) for _ in range(6)])
    got = [(await world.claim(capacity=1))[0].concurrency_key for _ in range(9)]
    assert Counter(got) == {"a": 3, "b": 3, "c": 3}


async def test_limited_and_free_work_both_get_their_share(world: World) -> None:
    await world.register(queues=[QueueSpec("q", 100)])
    await world.start_all([StartItem("wf", queue_name="q") for _ in range(5)])
    await world.start_all([StartItem("wf") for _ in range(5)])
    queues = [(await world.claim(capacity=1, limited_first=bool(n % 2)))[0].queue_name for n in range(10)]
    assert queues == ["wf", "q"] * 5


async def test_more_keys_than_one_look_goes_over_are_all_served(world: World) -> None:
    """Keys in front are full; the cursor still reaches the keys behind."""
    count = claims.GROUPS_PER_CLAIM + 50
    await world.register(queues=[QueueSpec("q", 1)])
    await world.start_all(
        [StartItem("wf", queue_name="q", concurrency_key=f"k{n:05}") for n in range(count) for _ in range(2)]
    )
    got: list[str] = []
    for _ in range(6):
        got += await world.claim_ids(capacity=500)
    assert len(got) == count
    last = await world.start(queue_name="q", concurrency_key="z")
    found = [await world.claim_ids() for _ in range(2)]
    assert [last] in found


async def test_an_empty_key_and_no_key_are_one(world: World) -> None:
    await world.register(queues=[QueueSpec("q", 1)])
    await world.start(queue_name="q")
    await world.start(queue_name="q", concurrency_key="")
    assert len(await world.claim(capacity=10)) == 1
    assert await world.claim(capacity=10) == []


@pytest.mark.parametrize("limited", [False, True])
async def test_a_claim_ends_with_the_payload_that_fills_its_reply(world: World, limited: bool) -> None:
    await world.register(queues=[QueueSpec("wf", 100)] if limited else [])
    for size in (300, 300, 300, 2_000, 10):
        await world.start(payload=raw("x" * size))
    sizes = []
    for _ in range(3):
        batch = await world.claim(capacity=10, bytes_max=700)
        sizes.append([len(bytes(claimed.payload)) for claimed in batch])
    assert sizes == [[302, 302, 302], [2_002], [12]]


async def test_an_embedded_claim_is_no_message_and_carries_all(world: World) -> None:
    await world.register(embedded=True)
    for _ in range(5):
        await world.start(payload=raw("x" * 300))
    assert len(await world.claim(capacity=10, bytes_max=700)) == 5


# --- deployments ------------------------------------------------------------------------------------------------------


async def test_blocked_executions_are_tried_again_when_their_deployment_registers_anew(world: World) -> None:
    await world.register()
    await world.register("other", deployment="e")
    id = await world.running(deployment_id="d")
    await world.report(id, end=BLOCK)
    assert (await world.get(id)).error == "the code differs"
    await world.register("other", deployment="e")
    assert await world.phase(id) is Phase.BLOCKED
    await world.register("w2")
    assert (await world.get(id)).error is None
    [claimed] = await world.claim("w2")
    assert [row.kind for row in claimed.rows[1:]] == [Kind.BLOCKED, Kind.UNBLOCKED, Kind.CLAIMED]


async def test_a_block_by_older_code_leaves_the_execution_to_the_newer(world: World) -> None:
    await world.register("old")
    id = await world.running("old")
    world.advance(1)
    await world.register("new")
    assert (await world.report(id, end=BLOCK, worker="old")).ended
    assert await world.phase(id) is Phase.QUEUED
    assert await world.claim("new") == []
    world.advance(1)
    await world.wake_due()
    [claimed] = await world.claim("new")
    assert [row.kind for row in claimed.rows[1:]] == [Kind.RELEASED, Kind.CLAIMED]
    assert (await world.report(id, end=BLOCK, worker="new")).ended
    assert await world.phase(id) is Phase.BLOCKED


# --- direct dispatch --------------------------------------------------------------------------------------------------


async def test_a_start_into_a_waiting_claim_is_a_claim(world: World) -> None:
    await world.register(queues=[QueueSpec("q", 1)])
    claim_id = world.new_id()
    waiting_claim = WaitingClaim("w", "d", "3.12", claim_id, 2)
    items = [StartItem("wf", queue_name="q"), StartItem("wf", run_timeout_seconds=5), StartItem("wf"), StartItem("wf")]
    answers, handed = await world.store.write(
        starts.start(
            project_id=PROJECT,
            news=[New(world.new_id(), item) for item in items],
            now_us=world.now_us,
            waiting_claim=waiting_claim,
        )
    )
    assert len(answers) == 4
    assert [claimed.attempt for claimed in handed] == [1, 1]
    for claimed in handed:
        assert claimed.rows == await world.journal(claimed.id)
        assert await world.phase(claimed.id) is Phase.RUNNING
    assert (await world.get(handed[0].id)).due_at_us == world.now_us + 5 * SECOND
    again = await world.claim(capacity=2, claim_id=claim_id)
    assert sorted(again, key=lambda one: one.id) == _repeated(handed)
    assert len(await world.claim(capacity=10)) == 2
    await world.finish(handed[0].id)


@pytest.mark.parametrize(
    "waiting_claim",
    [
        WaitingClaim("nobody", "d", "3.12", "c", 1),
        WaitingClaim("w", "e", "3.12", "c", 1),
        WaitingClaim("w", "d", "3.11", "c", 1),
        WaitingClaim("w", "d", "3.12", "c", 0),
    ],
    ids=["unregistered", "other deployment", "other python", "no room"],
)
async def test_a_waiting_claim_that_does_not_stand_any_more_takes_nothing(
    world: World, waiting_claim: WaitingClaim
) -> None:
    await world.register()
    news = [New(world.new_id(), StartItem("wf"))]
    _, handed = await world.store.write(
        starts.start(project_id=PROJECT, news=news, now_us=world.now_us, waiting_claim=waiting_claim)
    )
    assert handed == []
    assert len(await world.claim()) == 1


@pytest.mark.parametrize("claim_id", ["c1", "c2"])
async def test_an_offer_whose_claim_was_answered_by_another_server_takes_nothing(world: World, claim_id: str) -> None:
    """The worker has gone on: no call waits for work under the old claim."""
    await world.register()
    await world.start()
    assert len(await world.claim(claim_id="c2")) == 1
    waiting_claim = WaitingClaim("w", "d", "3.12", claim_id, 1)
    news = [New(world.new_id(), StartItem("wf"))]
    _, handed = await world.store.write(
        starts.start(project_id=PROJECT, news=news, now_us=world.now_us, waiting_claim=waiting_claim)
    )
    assert handed == []
    assert len(await world.claim(claim_id="c3")) == 1


async def test_what_was_ready_before_goes_first(world: World) -> None:
    await world.register()
    earlier = await world.start()
    news = [New(world.new_id(), StartItem("wf"))]
    waiting_claim = WaitingClaim("w", "d", "3.12", "c", 1)
    _, handed = await world.store.write(
        starts.start(project_id=PROJECT, news=news, now_us=world.now_us, waiting_claim=waiting_claim)
    )
    assert handed == []
    assert (await world.claim_ids())[0] == earlier


async def test_children_are_started_into_a_waiting_claim(world: World) -> None:
    await world.register(queues=[QueueSpec("q", 1)])
    parent = await world.running()
    claim_id = world.new_id()
    entries = [child("a", session_id="s"), child("b", queue_name="q"), child("c"), child("d")]
    reply, handed = await _report_and_dispatch(world, parent, entries, WaitingClaim("w", "d", "3.12", claim_id, 2))
    assert [row.ok for row in reply.rows] == [True] * 4
    assert [claimed.id for claimed in handed] == [json.decode(reply.rows[n].value) for n in (0, 2)]
    for claimed in handed:
        assert claimed.parent_execution_id == claimed.root_execution_id == parent
        assert claimed.rows == await world.journal(claimed.id)
        assert await world.phase(claimed.id) is Phase.RUNNING
    assert await world.claim(capacity=2, claim_id=claim_id) == _repeated(sorted(handed, key=lambda one: one.id))
    assert len(await world.claim(capacity=10)) == 2
    await world.finish(handed[0].id)
    assert [row.kind for row in await world.journal(parent)][-1] is Kind.CHILD


async def test_children_of_a_report_that_comes_again_are_handed_out_once(world: World) -> None:
    await world.register()
    parent = await world.running()
    waiting_claim = WaitingClaim("w", "d", "3.12", world.new_id(), 2)
    first = await _report_and_dispatch(world, parent, [child("a")], waiting_claim, number=1)
    again = await _report_and_dispatch(
        world, parent, [child("a")], waiting_claim._replace(claim_id=world.new_id()), number=1
    )
    assert again[0] == first[0]
    assert (len(first[1]), again[1]) == (1, [])
    assert await world.claim(capacity=10) == []


@pytest.mark.parametrize("dispatched", [False, True])
@pytest.mark.parametrize("amount", [1, 2])
async def test_a_report_starts_children_and_waits_for_them(world: World, amount: int, dispatched: bool) -> None:
    await world.register()
    parent = await world.running(session_id="s", user_id="u")
    entries = [child(f"c{n}") for n in range(amount)]
    capacity = amount if dispatched else 0
    waiting_claim = WaitingClaim("w", "d", "3.12", world.new_id(), capacity)
    world.advance(1)
    reply, handed = await _report_and_dispatch(world, parent, entries, waiting_claim, end=Suspend([], parked=True))
    kinds = [Kind.CHILD_STARTED] * amount
    assert (reply.ended, reply.problem, [row.kind for row in reply.rows]) == (True, None, kinds)
    assert reply.accepted == [row.seq for row in reply.rows]
    assert [row.kind for row in await world.journal(parent, after=1)] == [*kinds, Kind.WAITING]
    assert (await world.journal(parent, after=1))[:-1] == reply.rows, "what the worker is told and has parked"
    assert await world.phase(parent) is Phase.WAITING
    children = handed or await world.claim(capacity=5)
    assert [(one.session_id, one.user_id, one.parent_execution_id) for one in children] == [("s", "u", parent)] * amount
    assert [one.id for one in children] == [json.decode(row.value) for row in reply.rows]
    assert len(handed) == capacity
    for one in children:
        assert one.rows == await world.journal(one.id)
    _, [woken] = await _end_and_dispatch(world, children[0].id, WaitingClaim("w", "d", "3.12", world.new_id(), 1))
    assert (woken.id, woken.base) == (parent, reply.rows[-1].seq)
    assert [row.kind for row in woken.rows] == [Kind.WAITING, Kind.CHILD, Kind.CLAIMED]
    assert woken.rows == await world.journal(parent, after=woken.base)


async def test_a_start_and_wait_that_is_told_again_is_answered_alike(world: World) -> None:
    await world.register()
    parent = await world.running()
    waiting_claim = WaitingClaim("w", "d", "3.12", world.new_id(), 1)
    first, handed = await _report_and_dispatch(world, parent, [child("a")], waiting_claim, end=Suspend([], parked=True))
    again, more = await _report_and_dispatch(
        world, parent, [child("a")], waiting_claim._replace(claim_id=world.new_id()), end=Suspend([], parked=True)
    )
    assert (first.ended, again.ended, len(handed), more) == (True, True, 1, [])
    assert len(await world.journal(parent)) == 3


@pytest.mark.parametrize(
    "why", ["refused", "refused for its key", "an outcome", "an unseen outcome", "a cancel", "a fired timer"]
)
async def test_whoever_has_to_see_something_first_does_not_wait_for_its_child(world: World, why: str) -> None:
    await world.register()
    parent = await world.running()
    entries: list[Entry] = [child("a")]
    timer = None
    if why == "refused":
        entries = [child("a", workflow_id="unknown")]
    elif why == "refused for its key":
        await world.start(key="k")
        entries = [StartChild("a", None, StartItem("wf", key="k"))]
    elif why == "an outcome":
        entries.append(Publish("p", None, "topic", [EventItem(raw(1))]))
    elif why == "an unseen outcome":
        await world.report(parent, [step("s")], number=1)
    elif why == "a cancel":
        await world.cancel(parent)
    else:
        await world.report(parent, [TimerFired("t", world.now_us)], number=1)
        timer = ("t", world.now_us + SECOND)
    waiting_claim = WaitingClaim("w", "d", "3.12", world.new_id(), 1)
    seen = 2 if timer is not None else 1
    reply, _ = await _report_and_dispatch(
        world, parent, entries, waiting_claim, 2, end=Suspend([], timer, parked=True), seen=seen
    )
    assert not reply.ended
    assert (reply.problem is not None) is (timer is not None)
    assert await world.phase(parent) is (Phase.CANCELLING if why == "a cancel" else Phase.RUNNING)
    assert {row.seq for row in reply.rows} == {row.seq for row in await world.journal(parent, after=seen)}


async def test_the_end_of_a_child_wakes_its_parent_into_a_waiting_claim(world: World) -> None:
    await world.register()
    parent, child_id, parked = await _parked(world)
    claim_id = world.new_id()
    world.advance(1)
    reply, handed = await _end_and_dispatch(world, child_id, WaitingClaim("w", "d", "3.12", claim_id, 1))
    assert reply.ended
    assert [(one.id, one.attempt, one.base, one.more) for one in handed] == [(parent, 2, parked, False)]
    assert handed[0].rows == await world.journal(parent, after=parked)
    assert [row.kind for row in handed[0].rows] == [Kind.WAITING, Kind.CHILD, Kind.CLAIMED]
    assert await world.phase(parent) is Phase.RUNNING
    again = await world.claim(claim_id=claim_id)
    assert [(one.id, one.attempt, one.rows) for one in again] == [(parent, 2, await world.journal(parent))]
    await world.finish(parent)


async def test_a_parent_that_others_wrote_to_comes_with_all_that_it_lacks(world: World) -> None:
    await world.register()
    parent, child_id, parked = await _parked(
        world, step("s", ok=False, last=False), timer_us=world.now_us + 60 * SECOND
    )
    _, handed = await _end_and_dispatch(world, child_id, WaitingClaim("w", "d", "3.12", world.new_id(), 1))
    assert [row.kind for row in handed[0].rows] == [Kind.STEP_FAILED, Kind.WAITING, Kind.CHILD, Kind.CLAIMED]
    assert handed[0].rows == await world.journal(parent, after=parked)
    assert (await world.get(parent)).due_at_us is None


@pytest.mark.parametrize(
    "why", ["no room", "another worker has it", "not parked", "its queue has a limit", "cancelled"]
)
async def test_a_parent_that_the_claim_may_not_have_is_left_to_the_next(world: World, why: str) -> None:
    await world.register()
    await world.register("v")
    if why == "its queue has a limit":
        await world.register("u", queues=[QueueSpec("wf", 5)])
    parent, child_id, _ = await _parked(world, parked=why != "not parked")
    if why == "cancelled":
        await world.cancel(parent)
    waiting_claim = WaitingClaim(
        "v" if why == "another worker has it" else "w", "d", "3.12", world.new_id(), why != "no room"
    )
    reply, handed = await _end_and_dispatch(world, child_id, waiting_claim)
    assert (reply.ended, handed) == (True, [])
    assert await world.phase(parent) is (Phase.CANCELLED if why == "cancelled" else Phase.QUEUED)
    if why != "cancelled":
        assert [claimed.id for claimed in await world.claim("v")] == [parent]


async def test_an_end_that_is_told_again_hands_nothing_out_twice(world: World) -> None:
    await world.register()
    _, child_id, _ = await _parked(world)
    waiting_claim = WaitingClaim("w", "d", "3.12", world.new_id(), 2)
    assert len((await _end_and_dispatch(world, child_id, waiting_claim))[1]) == 1
    reply, handed = await _end_and_dispatch(world, child_id, waiting_claim._replace(claim_id=world.new_id()))
    assert (reply.ended, handed) == (True, [])


async def _parked(
    world: World, *unseen: StepDone, parked: bool = True, timer_us: int | None = None
) -> tuple[str, str, int]:
    """A parent that waits for a running child. Returns parent, child and the worker's last seen seq."""
    parent = await world.running()
    seen = (await world.report(parent, [child("a")])).rows[-1].seq
    if unseen:
        await world.report(parent, unseen)
    end = Suspend([], None if timer_us is None else ("t", timer_us), parked=parked)
    assert (await world.report(parent, end=end, seen=seen)).ended
    (child_id,) = await world.claim_ids()
    return parent, child_id, seen


async def _end_and_dispatch(world: World, id: str, waiting_claim: WaitingClaim) -> tuple[ItemReply, list[Claimed]]:
    item = ReportItem(id, 1, 1, 1, end=Complete(raw("done")), child=True)
    return await world.store.write(
        reports.report_and_dispatch(
            project_id=PROJECT, worker_id="w", item=item, now_us=world.now_us, waiting_claim=waiting_claim
        )
    )


async def _report_and_dispatch(
    world: World,
    parent: str,
    entries: Sequence[Entry],
    waiting_claim: WaitingClaim,
    number: int = 1,
    *,
    end: Suspend | None = None,
    seen: int = 1,
) -> tuple[ItemReply, list[Claimed]]:
    item = ReportItem(parent, 1, number, seen, list(entries), end)
    ids = [world.new_id() for _ in entries]
    return await world.store.write(
        reports.report_and_dispatch(
            project_id=PROJECT, worker_id="w", item=item, now_us=world.now_us, ids=ids, waiting_claim=waiting_claim
        )
    )


async def test_a_copy_of_an_older_claim_gets_nothing(world: World) -> None:
    await world.register()
    for _ in range(3):
        await world.start()
    older, newer = world.new_id(), world.new_id()
    assert len(await world.claim(claim_id=newer)) == 1
    assert await world.claim(claim_id=older) == []
    assert len(await world.claim(claim_id=newer)) == 1
    assert len(await world.claim()) == 1


@pytest.mark.parametrize("how", ["reaped", "drained"])
async def test_a_registration_that_ended_is_never_opened_again(world: World, how: str) -> None:
    await world.register()
    if how == "reaped":
        world.advance(LEASE_US / SECOND + 1)
        assert await world.reap() == 1
    else:
        await world.store.write(claims.drain(project_id=PROJECT, worker_id="w", now_us=world.now_us))
    late = RegisterRequest("w", "d", "3.12", [WorkflowSpec("wf")], [])
    with pytest.raises(LeaseLost, match="register again with a new id"):
        await world.store.write(
            claims.register(project_id=PROJECT, request=late, now_us=world.now_us, lease_us=LEASE_US)
        )
    assert await world.beat() is None
    world.advance(2)
    deleted, _, _ = await world.store.write(
        retention.prune(
            after=("", ""), finished_before_us=0, idempotency_before_us=world.now_us, now_us=world.now_us, limit=10
        )
    )
    assert deleted == 1
