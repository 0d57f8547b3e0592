"""Starting: accepted is kept, the same key is the same execution, a batch is all or nothing."""

import asyncio

import pytest
from msgspec import Raw, json
from tests.store.world import SECOND, World, child, raw

from perdure.store.base.interface import query, verb
from perdure.store.verbs.base import access
from perdure.store.verbs.base.idempotency import Idempotency
from perdure.store.verbs.runs import starts
from perdure.store.verbs.runs.start_targets import NEIGHBOURS
from perdure.store.verbs.runs.starts import COMPARED_BYTES_MAX, INLINE_BYTES_MAX, SUGGESTIONS_MAX, New
from perdure.wire.base.errors import Conflict, DeploymentNotFound, KeyReused, NoDeployment, NotFound, WorkflowNotFound
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Fail, QueueSpec, Started, StartItem, WorkflowSpec


async def test_an_execution_is_what_was_asked_for(world: World) -> None:
    await world.register(
        workflows=[WorkflowSpec("wf", "declared", "Answer", 60, wake_on_cancel=True)], queues=[QueueSpec("mine", 3)]
    )
    id = await world.start(
        payload=raw({"a": 1}),
        queue_name="mine",
        concurrency_key="c",
        session_id="s",
        user_id="u",
        tags={"a": "1", "b": ""},
        run_timeout_seconds=5,
        key="k",
        priority=3,
    )
    execution = await world.get(id)
    assert execution.phase is Phase.QUEUED
    assert (execution.id, execution.workflow_id, execution.deployment_id) == (id, "wf", "d")
    assert (execution.queue_name, execution.concurrency_key) == ("mine", "c")
    assert (execution.session_id, execution.user_id, execution.key) == ("s", "u", "k")
    assert (execution.payload, execution.tags) == (raw({"a": 1}), raw({"a": "1", "b": ""}))
    assert (execution.run_timeout_seconds, execution.output_schema_name) == (5, "Answer")
    assert (execution.attempt, await world.last_seq(id), execution.created_at_us) == (0, 0, world.now_us)


async def test_what_is_not_said_comes_from_the_workflow(world: World) -> None:
    await world.register(workflows=["plain", WorkflowSpec("wf", "declared", "Answer", 60)])
    execution = await world.get(await world.start())
    assert (execution.queue_name, execution.run_timeout_seconds) == ("declared", 60)
    assert (execution.session_id, execution.user_id) == (execution.id, None)
    plain = await world.get(await world.start("plain"))
    assert (plain.queue_name, plain.run_timeout_seconds, plain.output_schema_name) == ("plain", None, None)


async def test_what_nobody_could_run_is_refused(world: World) -> None:
    answers = await world.answers([StartItem("wf")])
    assert isinstance(answers[0], Problem) and answers[0].error_type == NoDeployment.code
    await world.register()
    items = [
        StartItem("wf", deployment_id="x"),
        StartItem("nope"),
        StartItem("wf"),
        StartItem("wf", parent_execution_id=world.new_id()),
        StartItem("nope", accept_early=True),
    ]
    answers = await world.answers(items)
    kinds = [answer.error_type if isinstance(answer, Problem) else "started" for answer in answers]
    assert kinds == [
        DeploymentNotFound.code,
        WorkflowNotFound.code,
        "started",
        NotFound.code,
        WorkflowNotFound.code,
    ]
    with pytest.raises(NotFound, match="Project 'nowhere'"):
        await world.store.write(
            starts.start_batch(
                project_id="nowhere", news=[New(world.new_id(), StartItem("wf"))], batch_id="b", now_us=1
            )
        )


@verb(locks="")
async def _insert_project(*, id: str) -> None:
    await query("insert_project", id=id, name=id, now_us=1)


async def test_an_unknown_workflow_is_told_the_nearest_name_of_its_deployment(world: World) -> None:
    await world.store.write(_insert_project(id="elsewhere"))
    await world.register("other", ["order_procesin"], project="elsewhere")
    await world.register("next", ["order_procesing_2"], deployment="next")
    await world.register(workflows=["order_processing", "refund"])
    nearest = {"order_procesing": "order_processing", "refunds": "refund", "Refund": "refund", "zebra": None}
    answers = await world.answers([StartItem(name) for name in nearest])
    for answer, name in zip(answers, nearest.values(), strict=True):
        assert isinstance(answer, Problem)
        assert answer.error.endswith("serve it." if name is None else f"serve it. Did you mean {name!r}?")
    with pytest.raises(WorkflowNotFound, match=r"Did you mean 'order_procesing_2'\?$"):
        await world.batch([StartItem("order_procesing_1", deployment_id="next")])


async def test_the_nearest_name_is_found_among_many(world: World) -> None:
    await world.register(workflows=["order", *(f"{letter}-{n}" for letter in "az" for n in range(NEIGHBOURS + 1))])
    [answer] = await world.answers([StartItem("ordr")])
    assert isinstance(answer, Problem) and answer.error.endswith("Did you mean 'order'?")


async def test_a_request_with_many_unknown_workflows_is_told_a_few_names(world: World) -> None:
    await world.register(workflows=["order"])
    answers = await world.answers([StartItem(f"orde{n}") for n in range(SUGGESTIONS_MAX + 2)])
    told = ["Did you mean 'order'?" in answer.error for answer in answers if isinstance(answer, Problem)]
    assert told == [True] * SUGGESTIONS_MAX + [False] * 2
    await world.register(workflows=["a" * 65])
    [answer] = await world.answers([StartItem("a" * 65 + "b")])  # such names take too long to compare
    assert isinstance(answer, Problem) and answer.error.endswith("serve it.")


async def test_a_batch_is_all_or_nothing(world: World) -> None:
    """A refusal undoes the starts written before it."""
    await world.register()
    for bad in (StartItem("nope"), StartItem("wf", parent_execution_id=world.new_id())):
        with pytest.raises(NotFound):
            await world.batch([StartItem("wf"), StartItem("wf", queue_name="q", queue_concurrency_limit=1), bad])
        assert await world.claim(capacity=10) == []
    started = await world.batch([StartItem("wf") for _ in range(10)])
    batch_ids = {(await world.get(answer.execution_id)).batch_id for answer in started}
    assert len(batch_ids) == 1 and None not in batch_ids
    assert len(await world.claim(capacity=100)) == 10
    await world.start(queue_name="q")
    assert len(await world.claim(capacity=100)) == 1  # no queue was left behind by what was refused


async def test_the_same_key_is_the_same_execution(world: World) -> None:
    await world.register(workflows=["wf", "other"])
    first = await world.start(key="k", payload=raw(1))
    world.advance(5)
    answers = await world.answers([StartItem("wf", key="k", payload=raw(1)), StartItem("other", key="k")])
    assert answers[0] == Started(first, world.now_us - 5 * SECOND, existing=True)
    assert isinstance(answers[1], Started) and not answers[1].existing
    answers = await world.answers([StartItem("wf", key="new"), StartItem("wf", key="new")])
    assert isinstance(answers[0], Started) and isinstance(answers[1], Started)
    assert answers[0].execution_id == answers[1].execution_id
    assert (answers[0].existing, answers[1].existing) == (False, True)
    assert len(await world.claim(capacity=10)) == 3


async def test_the_same_key_with_another_input_is_refused_and_names_both(world: World) -> None:
    await world.register()
    first = await world.start(key="k", payload=raw({"a": 1}))
    items = [StartItem("wf", key="k", payload=raw({"a": 2})), StartItem("wf"), StartItem("wf", key="k", payload=raw(1))]
    refused, fine, also = await world.answers(items)
    assert isinstance(refused, Problem) and isinstance(also, Problem) and isinstance(fine, Started)
    assert (refused.error_type, refused.details) == (Conflict.code, {"key": "k", "execution_id": first})
    assert "'k'" in refused.error and first in refused.error and "another input" in refused.error
    with pytest.raises(Conflict, match=first):
        await world.batch([StartItem("wf"), StartItem("wf", key="k", payload=raw(3))])
    started, same, other = await world.answers(
        [StartItem("wf", key="new", payload=raw(n), priority=p) for n, p in ((1, 0), (1, 5), (2, 0))]
    )
    assert isinstance(started, Started) and same == Started(started.execution_id, world.now_us, existing=True)
    assert isinstance(other, Problem) and started.execution_id in other.error
    assert len(await world.claim(capacity=10)) == 3


async def test_a_failed_execution_keeps_its_key(world: World) -> None:
    await world.register()
    id = await world.running(key="k", payload=raw(1))
    await world.report(id, end=Fail("Broken", raw({})))
    assert await world.start_all([StartItem("wf", key="k", payload=raw(1))]) == [id]
    [answer] = await world.answers([StartItem("wf", key="k", payload=raw(2))])
    assert isinstance(answer, Problem) and answer.error_type == Conflict.code


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ('{"a": 1, "b": [1.5, "é"]}', '{"b":[1.5,"\\u00e9"],"a":1}', True),
        ("[1e2]", "[100.0]", True),
        ("[1]", "[1.0]", False),
        ("[1]", "[true]", False),
        ("[1, 2]", "[2, 1]", False),
        ("null", '""', False),
        (f'["{"x" * INLINE_BYTES_MAX}"]', f'["{"x" * INLINE_BYTES_MAX}" ]', True),
        (f'["{"x" * INLINE_BYTES_MAX}"]', f'["{"y" * INLINE_BYTES_MAX}"]', False),
    ],
    ids=repr,
)
async def test_inputs_that_differ_in_their_formatting_only_are_the_same(
    world: World, before: str, after: str, is_same: bool
) -> None:
    await world.register()
    await world.start(key="k", payload=Raw(before.encode()))
    [answer] = await world.answers([StartItem("wf", key="k", payload=Raw(after.encode()))])
    assert isinstance(answer, Started) == is_same


async def test_large_inputs_are_the_same_byte_for_byte(world: World) -> None:
    size = COMPARED_BYTES_MAX + 1
    await world.register()
    large = raw("x" * (size - 2))
    first = await world.start(key="k", payload=large)
    assert await world.start_all([StartItem("wf", key="k", payload=large)]) == [first]
    others = [raw("y" * (size - 2)), raw("x" * size), raw("x"), Raw(bytes(large) + b" ")]
    answers = await world.answers([StartItem("wf", key="k", payload=other) for other in others])
    assert all(isinstance(answer, Problem) and answer.error_type == Conflict.code for answer in answers)


async def test_a_key_outlives_the_end_of_its_execution(world: World) -> None:
    await world.register()
    id = await world.running(key="k")
    await world.finish(id)
    assert (await world.start_all([StartItem("wf", key="k")])) == [id]


async def test_a_key_whose_item_was_refused_names_nothing(world: World) -> None:
    await world.register()
    missing = world.new_id()
    answers = await world.answers([StartItem("wf", key="k", parent_execution_id=missing), StartItem("wf", key="k")])
    assert isinstance(answers[0], Problem)
    assert isinstance(answers[1], Started) and not answers[1].existing
    assert (await world.get(answers[1].execution_id)).key == "k"


async def test_many_callers_with_one_key_get_one_execution(world: World) -> None:
    await world.register()
    answers = await asyncio.gather(*[world.start(key="k") for _ in range(100)])
    assert len(set(answers)) == 1
    assert len(await world.claim(capacity=10)) == 1


# --- Idempotency-Key -------------------------------------------------------------------------------------------------


async def test_the_same_request_gets_the_same_answer(world: World) -> None:
    await world.register()
    key = Idempotency("start", "k", "hash")
    first = await world.answers([StartItem("wf"), StartItem("nope")], key)
    world.advance(60)
    assert await world.answers([StartItem("wf"), StartItem("nope")], key) == first
    assert len(await world.claim(capacity=10)) == 1
    batch = Idempotency("batch", "k", "hash")  # another route: another key
    started = await world.batch([StartItem("wf")], batch)
    assert await world.batch([StartItem("wf")], batch) == started


async def test_another_body_under_the_same_key_is_refused(world: World) -> None:
    await world.register()
    await world.answers([StartItem("wf")], Idempotency("start", "k", "one"))
    with pytest.raises(KeyReused):
        await world.answers([StartItem("wf")], Idempotency("start", "k", "two"))
    assert len(await world.claim(capacity=10)) == 1


async def test_a_refusal_is_not_the_answer_for_ever(world: World) -> None:
    key = Idempotency("start", "k", "hash")
    answers = await world.answers([StartItem("wf")], key)
    assert isinstance(answers[0], Problem)
    await world.register()
    answers = await world.answers([StartItem("wf")], key)
    assert isinstance(answers[0], Started)


async def test_a_hundred_at_once_start_one(world: World) -> None:
    await world.register()
    key = Idempotency("start", "k", "hash")
    answers = await asyncio.gather(*[world.answers([StartItem("wf")], key) for _ in range(100)])
    assert all(answer == answers[0] for answer in answers)
    assert len(await world.claim(capacity=10)) == 1


# --- before the first deployment, and after -------------------------------------------------------------------------


async def test_early_executions_wait_for_a_deployment_that_knows_them(world: World) -> None:
    early = await world.start(accept_early=True)
    later = await world.start(accept_early=True, delay_seconds=5)
    chosen = await world.start(accept_early=True, queue_name="mine", run_timeout_seconds=7)
    assert (await world.get(early)).deployment_id is None
    await world.register("stranger", ["something else"], deployment="a")
    assert (await world.get(early)).deployment_id is None
    world.advance(1)
    await world.register(
        workflows=[WorkflowSpec("wf", "q", "Answer", 60, wake_on_cancel=True)], queues=[QueueSpec("q", 1)]
    )
    execution = await world.get(early)
    assert (execution.deployment_id, execution.queue_name) == ("d", "q")
    assert (execution.output_schema_name, execution.run_timeout_seconds) == ("Answer", 60)
    assert ((await world.get(chosen)).queue_name, (await world.get(chosen)).run_timeout_seconds) == ("mine", 7)
    assert sorted(await world.claim_ids()) == sorted([early, chosen])
    world.advance(5)
    await world.wake_due()
    assert await world.claim() == []  # the limit counts the adopted ones
    await world.finish(early)
    assert await world.claim_ids() == [later]


async def test_cancelling_an_early_one_works(world: World) -> None:
    id = await world.start(accept_early=True)
    assert await world.cancel(id) is Phase.CANCELLED


async def test_the_current_deployment_is_the_last_that_came_for_the_first_time(world: World) -> None:
    for deployment in ("1", "2"):
        world.advance(1)
        await world.register(f"w{deployment}", deployment=deployment)
    world.advance(1)
    await world.register("again", ["only here"], deployment="1")
    assert (await world.get(await world.start())).deployment_id == "2"
    # A registration states what its deployment has: what it does not name is gone.
    answers = await world.answers([StartItem("wf", deployment_id="1"), StartItem("only here", deployment_id="1")])
    assert isinstance(answers[0], Problem) and isinstance(answers[1], Started)


async def test_children_stay_in_their_parent_s_deployment(world: World) -> None:
    await world.register(deployment="1")
    parent = await world.running()
    world.advance(1)
    await world.register("w2", deployment="2")
    [row] = (await world.report(parent, [child("c"), child("d", deployment_id="2")])).rows[:1]
    assert row.ok
    assert len(await world.claim(capacity=10)) == 1
    assert len(await world.claim("w2", capacity=10)) == 1


async def test_a_project_s_ids_mean_nothing_in_another(world: World) -> None:
    """I11, as far as the store can say: the same names live side by side."""
    await world.store.write(access.default_project(id="ignored", now_us=1))
    await world.register()
    id = await world.start(key="k")
    with pytest.raises(NotFound):
        await world.store.write(
            starts.start_batch(
                project_id="other", news=[New(world.new_id(), StartItem("wf", key="k"))], batch_id="b", now_us=1
            )
        )
    assert await world.start(key="k") == id


async def test_only_the_child_that_its_parent_started_tells_it_of_its_end(world: World) -> None:
    """A caller of the API may name any parent and step, only to say where an execution belongs."""
    await world.register()
    parent = await world.running()
    [reply] = (await world.report(parent, [child("c")])).rows
    kid = json.decode(bytes(reply.value), type=str)
    others = [await world.start(parent_execution_id=parent, step_key=key) for key in ("c", "c", "d", "d")]
    await world.claim(capacity=5)
    await world.finish(others[0], result="a stranger's")
    await world.finish(kid, result="its own")
    for id in others[1:]:
        await world.finish(id, result="a stranger's")
        assert await world.phase(id) is Phase.COMPLETED
    assert await world.outcomes(parent, Kind.CHILD) == ["its own"]
    await world.check()


async def test_nothing_is_started_below_what_is_cancelled(world: World) -> None:
    """A cancel reaches all executions below. A later start would run on."""
    await world.register()
    running, idle = await world.running(), await world.start()
    for parent, phase in ((running, Phase.CANCELLING), (idle, Phase.CANCELLED)):
        assert await world.cancel(parent) is phase
        [refused] = await world.answers([StartItem("wf", parent_execution_id=parent)])
        assert isinstance(refused, Problem)
        assert (refused.error_type, refused.error) == (
            "CONFLICT",
            f"Parent execution {parent!r} was cancelled; nothing more is started below it.",
        )
    ended = await world.running()
    await world.finish(ended)
    await world.start(parent_execution_id=ended)
