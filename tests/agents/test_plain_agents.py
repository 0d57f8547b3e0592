"""Agents that are not durable: refused in workflow code, and unchanged everywhere else."""

import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.agent import WrapperAgent
from pydantic_ai.models.test import TestModel
from tests.agents.scripted import Script, call

from perdure import Context, ExecutionFailed, Registry, workflow
from perdure.agents import durable
from perdure.testing import embedded

plain = Agent(TestModel(custom_output_text="hi"), name="plain")


async def runs() -> str:
    return (await plain.run("?")).output


async def iterates() -> str:
    async with plain.iter("?") as run:
        async for _ in run:
            pass
    return str(run.result)


async def streams() -> str:
    async with plain.run_stream("?") as said:
        return await said.get_output()


async def wrapped() -> str:
    return (await WrapperAgent(plain).run("?")).output


@pytest.mark.parametrize("ask", [runs, iterates, streams, wrapped])
async def test_a_plain_agent_is_refused_in_a_workflows_body(ask: Callable[[], Awaitable[str]]) -> None:
    @workflow
    async def body(ctx: Context) -> str:
        return await ask()

    async with embedded(Registry(body)) as p:
        with pytest.raises(ExecutionFailed, match=r"'plain'.*`await support\(ctx, ") as failed:
            await (await p.start(body)).result()
    assert failed.value.type == "Misplaced"


async def test_a_plain_agent_runs_in_a_step_and_outside() -> None:
    @workflow
    async def body(ctx: Context) -> str:
        return await ctx.step("ask", runs)

    async with embedded(Registry(body)) as p:
        assert await (await p.start(body)).result() == "hi"
        assert await runs() == "hi"


async def test_a_plain_agent_is_refused_in_a_durable_agents_code_and_a_durable_one_is_not() -> None:
    contexts: list[Context] = []
    inner = durable(plain, name="inner")

    def outer_agent(ask: Callable[[], Awaitable[Any]]) -> Agent[None, str]:
        agent = Agent(Script(call("hand_over", "c1"), "done").model, name="outer")

        @agent.tool_plain(metadata={"perdure": False})
        async def hand_over() -> str:
            return str(await ask())

        return agent

    async def asks_inner() -> str:
        return await inner(contexts[-1], "?")

    refused = durable(outer_agent(runs), name="refused")
    taken = durable(outer_agent(asks_inner), name="taken")

    @workflow
    async def body(ctx: Context) -> str:
        contexts.append(ctx)
        return await taken(ctx, "?")

    async with embedded(Registry(refused, taken, inner, body), parks=False) as p:
        with pytest.raises(ExecutionFailed, match="'plain'"):
            await refused.run(p, "?")
        assert await (await p.start(body)).result() == "done"


def test_a_plain_agent_is_refused_in_a_program_without_durable_ones() -> None:
    program = textwrap.dedent(
        """
        import asyncio, sys
        from perdure import Context, ExecutionFailed, workflow
        from perdure.testing import embedded
        from pydantic_ai import Agent
        from pydantic_ai.models.test import TestModel

        @workflow
        async def body(ctx: Context) -> str:
            return (await Agent(TestModel(), name="plain").run("?")).output

        async def main() -> None:
            async with embedded() as p:
                try:
                    await (await p.start(body)).result()
                except ExecutionFailed as failed:
                    print(failed.type, "perdure.agents" in sys.modules)

        asyncio.run(main())
        """
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "Misplaced False\n"
