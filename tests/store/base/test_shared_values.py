"""A large value is stored once per execution, and every reader sees it whole."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec import json
from tests.store.world import PROJECT, World, child, raw, step

from perdure.store.base.interface import query, value, verb
from perdure.store.verbs.base import shared_values
from perdure.store.verbs.base.shared_values import ROWS_BACK, SHARED_BYTES_MIN
from perdure.store.verbs.insight import trace_queries, workflow_runs
from perdure.store.verbs.runs import find, queries
from perdure.wire.base.records import Kind
from perdure.wire.insight.journal_spans import trace_id_of
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import Complete
from perdure.wire.runs.workflows import GetWorkflowRuns
from perdure.wire.steering.forks import Edits

LARGE = "x" * SHARED_BYTES_MIN
OTHER = "y" * SHARED_BYTES_MIN  # of the same size


@verb(reads=True)
async def _stored() -> int:
    """The bytes of all payloads, results and values of journals."""
    [(*_, executions)], [(*_, journal)] = await query("size_executions"), await query("size_journal")
    return int(executions + journal)


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register(workflows=["wf"], protocol=2)


async def _same(world: World) -> str:
    """An execution that returns its step's result, which is the step's input."""
    id = await world.running(payload=raw(LARGE))
    await world.report(id, [step("a", LARGE)])
    await world.finish(id, result=LARGE)
    return id


async def _steps(world: World, id: str) -> list[object]:
    return await world.outcomes(id, Kind.STEP)


async def test_equal_values_are_stored_once(world: World) -> None:
    id = await _same(world)
    assert len(LARGE) < await world.store.read(_stored()) < 1.1 * len(LARGE)
    execution = await world.get(id)
    assert [json.decode(execution.payload), json.decode(execution.result or b"")] == [LARGE, LARGE]
    assert await _steps(world, id) == [LARGE]
    await world.check()


@pytest.mark.parametrize(("payload", "first", "result"), [(LARGE, OTHER, LARGE), (OTHER, LARGE, OTHER)])
async def test_other_values_are_stored_each(world: World, payload: str, first: str, result: str) -> None:
    id = await world.running(payload=raw(payload))
    await world.report(id, [step("a", first)])
    await world.finish(id, result=result)
    assert await world.store.read(_stored()) > 3 * len(LARGE)
    assert [json.decode((await world.get(id)).result or b""), *await _steps(world, id)] == [result, first]


async def test_only_values_of_one_size_are_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison sends a value to the database once more."""
    compared: list[str] = []

    def noted(ask: Callable[..., Any], name: str, **values: Any) -> Any:
        compared.extend([name] * ("value" in values))
        return ask(name, **values)

    for ask in (query, value):
        monkeypatch.setattr(shared_values, ask.__name__, partial(noted, ask))
    id = await world.running(payload=raw(LARGE + "x"))
    await world.report(id, [step("a", LARGE + "yy")])
    await world.finish(id, result=LARGE + "zzz")
    assert compared == []
    await _same(world)
    assert compared == ["equals_payload", "step_of_value"]


async def test_every_list_page_and_trace_has_the_whole_value(world: World) -> None:
    id = await _same(world)
    read = world.store.read
    [one], _ = await read(find.list_executions(project_id=PROJECT, filters=ListFilters(), before="~", limit=10))
    [run] = (await read(workflow_runs.list_runs(world.at(), GetWorkflowRuns()))).items
    [end], _ = await read(queries.finished(project_id=PROJECT, ids=[id]))
    for result in (one.result, run.result, end.result):
        assert json.decode(result or b"") == LARGE
    _, [traced], _ = await world.store.scan(trace_queries.get_trace(project_id=PROJECT, trace_id=trace_id_of(id)))
    assert json.decode(traced.values.output or b"") == LARGE
    assert [json.decode(row.value or b"") for row in traced.rows if row.kind is Kind.STEP] == [LARGE]


async def test_pages_of_a_journal_count_the_whole_value(world: World) -> None:
    id = await world.running(payload=raw(LARGE))
    await world.report(id, [step("a", LARGE), step("b", LARGE), step("c", 1)])
    whole = await world.journal(id)
    page, more = await world.store.read(
        queries.journal(project_id=PROJECT, execution_id=id, after=0, limit=10, bytes_max=len(LARGE))
    )
    assert more and len(page) < len(whole) and page == whole[: len(page)]


async def test_a_replay_and_a_repeated_report_see_the_whole_value(world: World) -> None:
    id = await world.running(payload=raw(LARGE))
    entries = [step("a", LARGE)]
    first = await world.report(id, entries, number=7, seen=1)
    again = await world.report(id, entries, number=7, seen=1)
    assert again.accepted == first.accepted
    await world.lose()
    await world.register("w2", workflows=["wf"])
    [claimed] = await world.claim("w2")
    assert [json.decode(row.value) for row in claimed.rows if row.kind is Kind.STEP] == [LARGE]


async def test_a_fork_with_another_input_keeps_the_values(world: World) -> None:
    id = await world.running(payload=raw(LARGE))
    await world.report(id, [step("a", LARGE), step("b", 1)])
    await world.finish(id, result=LARGE)
    made = await world.fork(id, from_step="b", edits=Edits(payload=raw(OTHER)))
    await world.delete(id)
    [claimed] = [one for one in await world.claim(capacity=10) if one.id == made.execution_id]
    assert json.decode(claimed.payload) == OTHER
    assert [json.decode(row.value) for row in claimed.rows if row.kind is Kind.STEP] == [LARGE]
    await world.check()


async def test_a_failed_step_keeps_its_own_value(world: World) -> None:
    """A retry of the workflow reads the value elsewhere."""
    error = {"type": "ValueError", "message": LARGE}
    id = await world.running(payload=raw(error))
    await world.report(id, [step("a", error, ok=False)])
    assert await world.store.read(_stored()) > 2 * len(LARGE)


async def test_an_old_step_is_not_looked_for(world: World) -> None:
    id = await world.running(payload=raw(1))
    await world.report(id, [step("a", LARGE), *[step(f"s{n}", n) for n in range(ROWS_BACK)]])
    await world.finish(id, result=LARGE)
    assert await world.store.read(_stored()) > 2 * len(LARGE)
    assert json.decode((await world.get(id)).result or b"") == LARGE


async def test_an_end_with_outcomes_and_a_parent_has_it_too(world: World) -> None:
    parent = await world.running()
    await world.report(parent, [child("c", payload=raw(LARGE))])
    [kid] = await world.claim()
    await world.report(kid.id, [step("a", LARGE)])
    assert (await world.report(kid.id, [step("b", LARGE)], Complete(raw(LARGE)))).ended
    assert await world.outcomes(parent, Kind.CHILD) == [LARGE]
    assert await _steps(world, kid.id) == [LARGE, LARGE]
    await world.check()
