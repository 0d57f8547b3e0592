"""Structured output: the execution's result is a model of yours. An answer that does not fit is asked for again."""

import asyncio

from pydantic import BaseModel, Field
from pydantic_ai import Agent

from examples.agents.models import call, model
from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded


class Recipe(BaseModel):
    title: str
    minutes: int = Field(gt=0)
    ingredients: list[str]


cook = durable(
    Agent(
        model(
            call("final_result", title="Carbonara", minutes=0, ingredients=["spaghetti"]),  # refused: no minutes
            call("final_result", title="Carbonara", minutes=20, ingredients=["spaghetti", "eggs", "guanciale"]),
        ),
        name="cook",
        output_type=Recipe,
    )
)


async def main() -> Recipe:
    async with embedded(Registry(cook)) as client:
        return await cook.run(client, "Something Roman, please.")


if __name__ == "__main__":
    print(asyncio.run(main()))
