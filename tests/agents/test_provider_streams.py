"""Agents that stream from a provider by the provider's real client: broken requests are repeated and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.messages import FunctionToolCallEvent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from tests.agents.provider import Provider, serving
from tests.embedded.house import keys_of
from tests.kit.polling import until

from perdure import RetryPolicy
from perdure.agents import AgentItem, DurableAgent, StepOptions, durable, events
from perdure.embedded import Embedded, embedded
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind

WORDS = "one two three"
CALLS = {"tools": [["find", {"id": "a shelf, and where"}]]}
SCRIPTS: dict[str, Any] = {
    "cut": [{"text": WORDS, "faults": [{"break_after": 1}, {"break_after": 3}]}],
    "cut-call": [{**CALLS, "faults": [{"break_after": 2}]}, {"text": WORDS}],
    "silent": [{"text": WORDS, "faults": [{"silent_after": 3}] * 30}],
    "short": [{"text": WORDS, "faults": [{"end_after": 3}]}],
    "slow": [{"text": " ".join(["word"] * 24), "token_seconds": 0.15}],
}


class House:
    """An agent that streams, the agent's provider, and the application that runs the agent."""

    def __init__(self, provider: Provider, p: Embedded, agent: DurableAgent[Any, str]) -> None:
        self.provider = provider
        self.p = p
        self.agent = agent
        self.found = 0
        self.items: list[AgentItem] = []
        self.keys: list[str | None] = []

    async def run(self, prompt: str) -> str:
        """What a client has in the end that drops what lost tries have sent. It is the output."""
        handle = await self.agent.start(self.p, prompt)
        said: dict[str, list[AgentItem]] = {}
        async for one in events(handle):
            if one.item.restarted:
                said.pop(one.item.key)
            said.setdefault(one.item.key, []).append(one)
            self.items.append(one)
        self.keys = await keys_of(handle, Kind.STEP)
        assert all(call.streamed for call in self.provider.calls)
        text = "".join(one.text for kept in said.values() for one in kept)
        assert await handle.result() == text
        return text

    @property
    def restarted(self) -> list[str]:
        """Keys of items that began anew."""
        return [one.item.key for one in self.items if one.item.restarted]


@asynccontextmanager
async def house(
    database: str, *, timeout: float | None = None, profile: OpenAIModelProfile | None = None
) -> AsyncIterator[House]:
    provider = Provider(SCRIPTS)
    async with serving(provider) as url, AsyncOpenAI(base_url=url, api_key="none", timeout=timeout) as client:
        model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client), profile=profile)
        agent = Agent(model, name="clerk")

        @agent.tool_plain
        async def find(id: str) -> str:
            h.found += 1
            return f"on {id}"

        # A slow machine may need some more tries than there are faults.
        at_once = StepOptions(retry=RetryPolicy(max_attempts=30, initial_seconds=0))
        clerk = durable(agent, model_step=at_once)
        async with embedded(database, Registry(clerk)) as p:
            h = House(provider, p, clerk)
            yield h


async def test_words_of_a_stream_that_broke_are_taken_back(database: str) -> None:
    async with house(database) as h:
        assert await h.run("cut") == WORDS
        assert [call.what for call in h.provider.calls if call.what != "begin"] == ["fault", "fault", "end"]
        # The first one broke before a word was said: there was nothing to take back.
        assert h.restarted == ["model:1"]
        assert "".join(one.text for one in h.items) == f"one two{WORDS}"
        assert h.keys == ["model:1"], "the tries of a step are one step"


async def test_a_call_that_was_half_said_is_not_made() -> None:
    async with house(":memory:") as h:
        assert await h.run("cut-call") == WORDS
        assert h.found == 1 and h.restarted == ["model:1"]
        [called] = [one.event for one in h.items if isinstance(one.event, FunctionToolCallEvent)]
        assert called.part.args_as_dict() == {"id": "a shelf, and where"}


async def test_a_provider_that_goes_silent_is_asked_again() -> None:
    async with house(":memory:", timeout=0.3) as h:  # of the client, for each piece
        asking = asyncio.create_task(h.run("silent"))
        await until(lambda: any(one.text for one in h.items))  # a slow client may give up before it hears a word
        h.provider.scripts["silent"][0].faults.clear()
        assert await asking == WORDS
        assert "model:1" in h.restarted and len(h.provider.made()) >= 2


@pytest.mark.slow
async def test_slow_words_are_waited_for_as_long_as_they_come() -> None:
    async with house(":memory:", timeout=3.0) as h:  # they take longer, all together
        for _ in range(5):  # a machine that stands still for so long makes the client give up
            h.items.clear()
            h.provider.calls.clear()
            assert len((await h.run("slow")).split()) == 24
            if len(h.provider.made()) == 1:
                break
        assert not h.restarted and len(h.provider.made()) == 1


async def test_a_stream_that_ends_early_and_politely_is_an_answer_unless_the_profile_says_otherwise() -> None:
    async with house(":memory:") as h:
        assert await h.run("short") == "one two"
    strict = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    async with house(":memory:", profile=strict) as h:
        assert await h.run("short") == WORDS
        assert h.restarted == ["model:1"]
