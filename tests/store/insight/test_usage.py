"""The model costs of an execution and all executions below."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.world import PROJECT, START_US, World, child, failure, raw, step

from perdure.store.verbs.insight.usage import usage
from perdure.wire.agents.usage import ExecutionUsage
from perdure.wire.agents.usage_sums import sums
from perdure.wire.base.errors import NotFound
from perdure.wire.runs.requests import StepDone, Suspend


def answer(key: str, model: str, tokens: int, cost: str | None = None, **values: Any) -> StepDone:
    used = {"input_tokens": tokens, "output_tokens": 1, "cache_read_tokens": 2, **({"cost": cost} if cost else {})}
    said = {"kind": "response", "model_name": model, "parts": [], "usage": used, **values}
    return StepDone(key, "model.request", None, True, raw(said), START_US)


async def spent(world: World, id: str) -> ExecutionUsage:
    return sums(await world.store.scan(usage(project_id=PROJECT, execution_id=id)))


async def test_calls_are_summed_by_model_and_by_child(world: World) -> None:
    await world.register()
    id = await world.running()
    world.advance(2)
    await world.report(id, [answer("model.request", "large", 100, "0.25"), step("tool"), answer("a#2", "small", 10)])
    await world.report(id, [child("research")], Suspend([]))
    (below,) = await world.claim_ids()
    await world.report(below, [child("deeper"), answer("model.request", "large", 50, "0.5")], Suspend([]))
    (deepest,) = await world.claim_ids()
    await world.report(deepest, [answer("model.request", "small", 7, "0.125")])
    found = await spent(world, id)
    assert (found.total.calls, found.total.input_tokens, found.total.usd) == (4, 167, 0.875)
    assert (found.total.cached_tokens, found.total.unpriced, found.total.ms) == (8, 1, 8_000.0)
    assert (found.own.calls, found.own.usd) == (2, 0.25)
    assert [(one.model, one.calls, one.usd) for one in found.models] == [("large", 2, 0.75), ("small", 2, 0.125)]
    assert [(one.execution_id, one.workflow_id, one.calls, one.usd) for one in found.children] == [
        (below, "wf", 2, 0.625)
    ]
    assert [(one.execution_id, one.key, one.usd) for one in found.calls] == [
        (id, "model.request", 0.25),
        (id, "a#2", None),
        (below, "model.request", 0.5),
        (deepest, "model.request", 0.125),
    ]
    assert found.exact
    alone = await spent(world, deepest)
    assert (alone.total.calls, alone.children) == (1, [])


async def test_a_fork_does_not_count_what_it_copied(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [answer("model.request", "large", 100, "0.25"), step("next")])
    await world.report(id, [], failure())
    made = await world.fork(id, from_step="next")
    assert (await spent(world, made.execution_id)).total.calls == 0
    assert (await spent(world, id)).total.usd == 0.25


async def test_a_sum_says_if_it_is_not_exact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.store.verbs.insight.usage.VALUE_BYTES_MAX", 500)
    await world.register()
    id = await world.running()
    await world.report(id, [answer("a", "large", 1), answer("b", "large", 1, long="x" * 600)])
    found = await spent(world, id)
    assert (found.total.calls, found.exact) == (1, False)
    monkeypatch.setattr("perdure.store.verbs.insight.usage.CALLS_MAX", 1)
    monkeypatch.setattr("perdure.store.verbs.insight.usage.PAGE", 1)
    assert not (await spent(world, id)).exact
    monkeypatch.setattr("perdure.store.verbs.insight.usage.EXECUTIONS_MAX", 1)
    await world.report(id, [child("one"), child("two")], Suspend([]))
    assert not (await spent(world, id)).exact


async def test_an_unknown_execution(world: World) -> None:
    with pytest.raises(NotFound):
        await spent(world, world.new_id())
