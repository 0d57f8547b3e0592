"""Research: one agent makes questions, many look for answers at the same time, one writes it up. The plan is code."""

import asyncio

from pydantic_ai import Agent

from examples.agents.models import call, model
from perdure import Context, Registry, workflow
from perdure.agents import durable, max_steps
from perdure.testing import embedded

planner = durable(
    Agent(
        model(call("final_result", response=["How old is it?", "Who uses it?", "What comes next?"])),
        name="planner",
        output_type=list[str],
    )
)
searcher = durable(Agent(model("Nobody knows."), name="searcher"), stop=[max_steps(10)])
writer = durable(Agent(model("Three questions, no answer."), name="writer"))


@workflow
async def research(ctx: Context, topic: str) -> str:
    questions = await ctx.run_child(planner, f"Questions about {topic}")
    found = await ctx.map_children(searcher, questions, limit=10)
    notes = "\n".join(f"{question} {answer}" for question, answer in zip(questions, found.results(), strict=True))
    return await ctx.run_child(writer, f"Write it up:\n{notes}")


async def main() -> str:
    async with embedded(Registry(research, planner, searcher, writer)) as client:
        return await (await client.start(research, "durable execution")).result()


if __name__ == "__main__":
    print(asyncio.run(main()))
