"""File and shell tools in a folder: each call is a step, so that a crash repeats no command whose result is recorded.

`LocalWorkspace` isolates nothing: commands reach all that the worker reaches. Use a container for untrusted code.
"""

import asyncio
import tempfile

from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import LocalWorkspace

from examples.agents.models import call, model, results
from perdure import Registry
from perdure.agents import DurableAgent, durable
from perdure.testing import embedded


def builder(folder: str, program: str = "print(sum(range(10)))") -> DurableAgent[object, str]:
    agent = Agent(
        model(
            call("write", path="sum.py", text=program),
            call("run", command="python3 sum.py"),
            lambda messages: f"The program prints {results(messages)[-1]}.",
        ),
        name="builder",
        instructions="Write the program, run it, and say what it prints.",
        capabilities=[LocalWorkspace(folder)],
    )

    @agent.tool
    async def write(ctx: RunContext[object], path: str, text: str) -> str:
        """Write a file."""
        await ctx.workspace.write_text(path, text)
        return f"wrote {len(text)} characters"

    @agent.tool
    async def run(ctx: RunContext[object], command: str) -> str:
        """Run a command in a shell."""
        done = await ctx.workspace.run(command, shell=True, timeout=60)
        return done.stdout.strip() if done.exit_code == 0 else f"exit code {done.exit_code}: {done.stderr}"

    return durable(agent)


async def main() -> str:
    with tempfile.TemporaryDirectory() as folder:
        agent = builder(folder)
        async with embedded(Registry(agent)) as p:
            return await agent.run(p, "What is the sum of the numbers below ten?")


if __name__ == "__main__":
    print(asyncio.run(main()))
