"""Items that piled up in a worker are recorded together, each with an answer."""

from collections.abc import AsyncIterator

import pytest
from tests.store.world import raw, step

from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.wire.runs.requests import (
    ClaimRequest,
    Complete,
    ItemReply,
    RegisterRequest,
    ReportItem,
    ReportRequest,
    Started,
    StartItem,
    WorkflowSpec,
)


class Hand:
    """A worker as the engine sees the worker, with executions."""

    def __init__(self, engine: Engine, project_id: str) -> None:
        self.engine = engine
        self.project_id = project_id

    async def take(self, amount: int) -> list[str]:
        """Start and claim executions."""
        scope, engine = Scope(self.project_id), self.engine
        await engine.serve(scope, RegisterRequest("w", "default", "3.11", [WorkflowSpec("wf")]))
        started = await engine.executions.start(self.project_id, [StartItem("wf")] * amount)
        reply = await engine.serve(scope, ClaimRequest("w", engine.store.epoch, "0", amount, 0.0))
        assert len(reply.items) == amount
        return [one.execution_id for one in started if isinstance(one, Started)]

    async def report(self, *items: ReportItem) -> list[ItemReply]:
        request = ReportRequest("w", self.engine.store.epoch, list(items))
        return (await self.engine.serve(Scope(self.project_id), request)).items

    async def keys(self, id: str) -> list[str | None]:
        rows, _ = await self.engine.executions.journal(self.project_id, id, 1, 100)
        return [row.key for row in rows]


@pytest.fixture
async def hand() -> AsyncIterator[Hand]:
    engine = Engine(await open_store(":memory:"))
    await engine.start()
    yield Hand(engine, await engine.projects.default())
    await engine.stop()


async def test_each_item_of_a_report_has_its_answer_in_its_place(hand: Hand) -> None:
    a, b, c, d = await hand.take(4)
    replies = await hand.report(
        ReportItem(a, 1, 1, 1, [step("s")]),
        ReportItem(b, 1, 1, 1, [step("")]),
        ReportItem(c, 1, 1, 1, [step("s"), step("t")]),
        ReportItem(d, 2, 1, 1, [step("s")]),
        ReportItem("nothing", 1, 1, 1, end=Complete(raw(1))),
    )
    assert [(reply.accepted, reply.lost) for reply in replies] == [
        ([2], False),
        ([], False),
        ([2, 3], False),
        ([], True),
        ([], True),
    ]
    assert replies[1].problem is not None and "is empty" in replies[1].problem.error
    assert [await hand.keys(id) for id in (a, b, c, d)] == [["s"], [], ["s", "t"], []]


async def test_a_step_that_cannot_be_recorded_keeps_none_of_those_beside_it(hand: Hand) -> None:
    """I2: the database itself refuses a second outcome of a key."""
    a, b, c = await hand.take(3)
    for id in (a, b, c):
        await hand.report(ReportItem(id, 1, 1, 1, [step("s")]))
    replies = await hand.report(
        ReportItem(a, 1, 2, 2, [step("t")]), ReportItem(b, 1, 2, 2, [step("s")]), ReportItem(c, 1, 2, 2, [step("t")])
    )
    assert [reply.accepted for reply in replies] == [[3], [], [3]]
    assert replies[1].problem is not None and replies[1].problem.error_type == "INTERNAL_ERROR"
    assert [await hand.keys(id) for id in (a, b, c)] == [["s", "t"], ["s"], ["s", "t"]]


async def test_items_of_one_execution_are_taken_in_their_order(hand: Hand) -> None:
    a, b = await hand.take(2)
    replies = await hand.report(
        ReportItem(a, 1, 1, 1, [step("s")]), ReportItem(b, 1, 1, 1, [step("s")]), ReportItem(a, 1, 2, 1, [step("t")])
    )
    assert [reply.accepted for reply in replies] == [[2], [2], [3]]
    assert [await hand.keys(id) for id in (a, b)] == [["s", "t"], ["s"]]


async def test_an_end_returns_one_step_and_nothing_else(hand: Hand) -> None:
    a, b, c = await hand.take(3)
    returned = Complete(raw(1), returns_step=True)
    replies = await hand.report(
        ReportItem(a, 1, 1, 1, [], returned),
        ReportItem(b, 1, 1, 1, [step("s"), step("t")], returned),
        ReportItem(c, 1, 1, 1, [step("s")], returned),
    )
    assert [reply.ended for reply in replies] == [False, False, True]
    assert [reply.problem is not None and reply.problem.error_type for reply in replies[:2]] == ["BAD_VALUE"] * 2
    assert [await hand.keys(id) for id in (a, b)] == [[], []]
