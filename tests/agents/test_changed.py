"""What may change in an agent while its runs are open: what is recorded says nothing of how the library works."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.toolsets import FunctionToolset
from tests.agents.scripted import Script, call
from tests.embedded.house import reaches
from tests.kit.polling import until

from perdure import Budget, Registry
from perdure.agents import DurableAgent, durable
from perdure.embedded import embedded
from perdure.engine.base.service import Scope
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.status import Phase

WAITS = ["budget", "refused", "expired", "slept", "delivered"]


class Desk:
    """An agent that waits for something, and then for its budget; it has more to it once it is changed."""

    def __init__(self, wait: str) -> None:
        tool = {"expired": "refund", "slept": "nap"}.get(wait, "look")
        self.script = Script(call(tool, "c1"), "done", before=self._refuse if wait == "refused" else None)
        self.options: dict[str, Any] = {"answer_timeout": 0.2} if wait == "expired" else {}
        self.let_go = asyncio.Event()
        self._refused = False
        if wait != "delivered":
            self.let_go.set()

    async def _refuse(self) -> None:
        if not self._refused:
            self._refused = True
            raise ModelHTTPError(429, "script", headers={"retry-after": "0.1"})

    def made(self, *, changed: bool) -> DurableAgent[None, str]:
        toolsets: list[FunctionToolset[None]] = []
        guards: list[Any] = []
        if changed:
            toolsets.append(FunctionToolset([_new], id="new"))
            guards.append(_passes)
        agent: Agent[None, str] = Agent(self.script.model, name="desk", toolsets=toolsets)

        @agent.tool_plain
        async def look() -> str:
            await self.let_go.wait()
            return "seen"

        @agent.tool_plain(requires_approval=True)
        async def refund() -> str:
            return "paid"

        @agent.tool_plain(metadata={"perdure": False})
        async def nap() -> str:
            await asyncio.sleep(0.01)
            return "rested"

        return durable(agent, budget=Budget(calls=1), output_guards=guards, **self.options)


async def _new() -> str:
    return "new"


async def _passes(ctx: Any, output: str) -> None:
    """Lets everything pass."""


@pytest.mark.parametrize("wait", WAITS)
async def test_a_run_goes_on_after_a_wait_when_its_agent_has_more_to_it(database: str, wait: str) -> None:
    desk = Desk(wait)
    async with embedded(database, Registry(agent := desk.made(changed=False))) as p:
        handle = await agent.start(p, "first", session_id="s")
        await until(lambda: desk.script.asked[0] > 0)
        if wait == "delivered":
            await agent.start(p, "second", session_id="s", on_conflict="deliver")
            desk.let_go.set()
        await until(lambda: _has_budget_question(p, handle.id))
        await reaches(handle, Phase.WAITING)
    async with embedded(database, Registry(desk.made(changed=True))) as p:
        await p.raise_budget(handle.id, calls=5)
        again = p.handle(handle.id)
        await until(lambda: _is_over(again))
        assert (await again.get()).error is None
        assert await again.result() == "done"


async def _has_budget_question(p: Any, id: str) -> bool:
    asked = (await p.engine.serve(Scope(await p.engine.projects.default()), ListApprovals())).items
    return any("over_budget" in one.step_key for one in asked if one.execution_id == id)


async def _is_over(handle: Any) -> bool:
    return (await handle.get()).phase in (Phase.COMPLETED, Phase.FAILED, Phase.BLOCKED)
