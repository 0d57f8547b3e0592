"""What a user's type checker sees of agents. Never run: test_types.py gives it to mypy (see user_code.py)."""

from dataclasses import dataclass
from typing import assert_type

from pydantic_ai import Agent

from perdure import Client, Context, Handle, Mapped
from perdure.agents import DurableAgent, durable


@dataclass
class Answer:
    text: str


@dataclass
class Shop:
    name: str


support = durable(Agent("test", name="support", output_type=Answer, deps_type=Shop), deps=Shop("Rome"))
assert_type(support, DurableAgent[Shop, Answer])


async def client_side(client: Client) -> None:
    assert_type(await support.start(client, "Where is it?", session_id="ann"), Handle[Answer])
    assert_type(await support.run(client, "Where is it?", deps=Shop("Oslo")), Answer)
    assert_type(await client.start(support, "Where is it?"), Handle[Answer])
    await client.start(support, 7)  # type: ignore[misc]
    await support.run(client, "Where is it?", deps=7)  # type: ignore[arg-type]
    durable(support.agent, watchdog="often")  # type: ignore[arg-type]


async def workflow_side(ctx: Context) -> None:
    assert_type(await ctx.run_child(support, "Where is it?"), Answer)
    assert_type(await ctx.run_child(support, support.input("Where is it?", deps=Shop("Oslo"))), Answer)
    assert_type(await ctx.map_children(support, ["one", "two"]), Mapped[Answer])
    assert_type(await support(ctx, "Where is it?"), Answer)
