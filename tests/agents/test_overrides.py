"""`agent.override(…)` counts where the worker was started inside of it, and is not passed over elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from tests.embedded.house import reaches

from perdure import Client, Context, Registry, workflow
from perdure.agents import Compaction, durable
from perdure.engine.base.service import Scope
from perdure.sdk.base.errors import Misplaced
from perdure.testing import embedded
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.status import Phase


def real(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("real")])


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
@pytest.mark.parametrize("model", ["openai:gpt-5.2", FunctionModel(real)], ids=["named", "given"])
async def test_the_model_of_an_override_is_asked_by_a_worker_inside_of_it(model: Any, parks: bool) -> None:
    agent: Agent[str, str] = Agent(model, name="clerk", deps_type=str, defer_model_check=True)

    @agent.tool(requires_approval=True)
    def whose(ctx: RunContext[str]) -> str:
        return ctx.deps

    clerk = durable(agent, deps="production")
    with agent.override(model=TestModel(), deps="tests"):
        async with embedded(Registry(clerk), parks=parks) as p:
            handle = await clerk.start(p, "Hello?")
            await reaches(handle, Phase.WAITING)
            questions = (await p.engine.serve(Scope(await p.engine.projects.default()), ListApprovals())).items
            await handle.resume(questions[0].step_key, True)
            assert await handle.result() == '{"whose":"tests"}'


async def test_agents_inside_of_workflows_and_summaries_ask_it_too() -> None:
    chat_agent = Agent(FunctionModel(real), name="chat")
    asked = FunctionModel(real)
    chat = durable(chat_agent, compaction=Compaction(above=2, keep=1, by=asked))

    @workflow
    async def outer(ctx: Context) -> str:
        return await chat(ctx, "Hello?")

    with chat_agent.override(model=TestModel(custom_output_text="fake")):
        async with embedded(Registry(outer, chat)) as p:
            handle = await p.start(outer)
            assert await handle.result() == "fake"
            for n in range(3):
                assert await chat.run(p, f"{n}", session_id="s") == "fake"
            entries = (await p.transcript("s")).entries
            assert b"short:\\n\\nfake" in bytes(entries[0].message)
    async with embedded(Registry(chat)) as p:
        assert await chat.run(p, "Hello?") == "real", "it ends with its block"


async def test_a_start_inside_of_an_override_that_its_worker_is_outside_of_is_refused() -> None:
    agent = Agent(FunctionModel(real), name="clerk")
    clerk = durable(agent)
    async with embedded(Registry(clerk)) as p:
        with agent.override(model=TestModel()):
            with pytest.raises(Misplaced, match="Start the worker inside the override"):
                await clerk.run(p, "Hello?")
            with pytest.raises(Misplaced):
                await p.start(clerk, "Hello?")
        assert await clerk.run(p, "Hello?") == "real"


async def test_a_start_whose_worker_is_elsewhere_warns() -> None:
    agent = Agent(FunctionModel(real), name="clerk")
    clerk = durable(agent)
    async with embedded(Registry(clerk)) as p:
        client = Client(p._transport)
        with agent.override(model=TestModel()), pytest.warns(UserWarning, match="not where it runs, unless"):
            handle = await client.start(clerk, "Hello?")
        assert await handle.result() == "real"
