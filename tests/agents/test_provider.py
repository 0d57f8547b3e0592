"""The provider of the tests, asked by the real client of a provider's protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, AsyncOpenAI, RateLimitError
from pydantic_ai import Agent
from pydantic_ai.models import infer_model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from tests.agents.provider import Provider, read_log, serving
from tests.embedded.house import keys_of

from perdure.agents import durable, events
from perdure.embedded import embedded
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.records import Kind

SCRIPTS: dict[str, Any] = {
    "greet": [{"text": "hello {rest} and all"}],
    "order": [{"tools": [["find", {"id": "{rest}"}], ["weigh", {}]]}, {"text": "found"}],
    "full": [{"text": "at last", "faults": [{"status": 429, "headers": {"Retry-After": "7"}}]}],
    "broken": [{"text": "one two three", "faults": [{"break_after": 2}]}],
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def ask(client: AsyncOpenAI, *messages: Any, **options: Any) -> Any:
    return await client.chat.completions.create(model="gpt-4o-mini", messages=list(messages), **options)


async def test_it_answers_by_its_script(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    provider = Provider(SCRIPTS, log)
    async with serving(provider) as url, AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        said = await ask(client, user("greet Ann"))
        assert (said.choices[0].message.content, said.usage.completion_tokens) == ("hello Ann and all", 4)
        said = (await ask(client, user("order 7"))).choices[0]
        assert said.finish_reason == "tool_calls"
        calls = [(one.id, one.function.name, one.function.arguments) for one in said.message.tool_calls]
        assert calls == [("call-0-0", "find", '{"id": "7"}'), ("call-0-1", "weigh", "{}")]
        said = await ask(client, user("order 7"), said.message.model_dump(), user("go on"))
        assert said.choices[0].message.content == "found"
    assert [(call.what, call.conversation, call.turn) for call in read_log(log)] == [
        *(("begin", "greet Ann", 0), ("end", "greet Ann", 0)),
        *(("begin", "order 7", 0), ("end", "order 7", 0)),
        *(("begin", "order 7", 1), ("end", "order 7", 1)),
    ]


async def test_streams_come_in_pieces_and_end_with_what_was_used() -> None:
    provider = Provider(SCRIPTS)
    async with serving(provider) as url, AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [chunk async for chunk in await ask(client, user("greet Ann"), **options)]
        assert [one.choices[0].delta.content for one in chunks if one.choices][1:5] == ["hello", " Ann", " and", " all"]
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
        chunks = [chunk async for chunk in await ask(client, user("order 7"), **options)]
        deltas = [part for one in chunks if one.choices for part in one.choices[0].delta.tool_calls or ()]
        assert "".join(part.function.arguments for part in deltas if part.index == 0) == '{"id": "7"}'


@pytest.mark.parametrize("stream", [False, True])
async def test_faults_come_once(stream: bool) -> None:
    provider = Provider(SCRIPTS)
    async with serving(provider) as url, AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        with pytest.raises(RateLimitError) as full:
            await ask(client, user("full"), stream=stream)
        assert full.value.response.headers["retry-after"] == "7"
        with pytest.raises(Exception) as broken:  # which one depends on how far the answer came
            said = await ask(client, user("broken"), stream=stream)
            if stream:
                [chunk async for chunk in said]
        assert isinstance(broken.value, APIConnectionError) or "incomplete" in str(broken.value)
        assert (await ask(client, user("full"))).choices[0].message.content == "at last"
        assert (await ask(client, user("broken"))).choices[0].message.content == "one two three"
    assert [call.what for call in provider.calls if call.what != "begin"] == ["fault", "fault", "end", "end"]


@pytest.mark.parametrize("name", ["openai:gpt-5.2", "openai-chat:gpt-5.2"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_speaks_the_protocol_that_the_name_of_its_model_stands_for(
    name: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(name, name="clerk", defer_model_check=True)
    provider = Provider(SCRIPTS)

    @agent.tool_plain
    def find(id: str) -> str:
        return f"order {id}"

    @agent.tool_plain
    def weigh() -> int:
        return 3

    async with serving(provider) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        model = infer_model(name)
        assert isinstance(model, OpenAIChatModel | OpenAIResponsesModel)
        clerk = durable(agent, stream=stream, models={name: model})
        async with model.client, embedded(":memory:", Registry(clerk), parks=False) as p:
            handle = await clerk.start(p, "order 7")
            assert await handle.result() == "found"
            assert "".join([one.text async for one in events(handle)]) == "found"
            steps = await keys_of(handle, Kind.STEP)
            assert (steps[0], steps[-1]) == ("model:1", "model:2")
            assert set(steps[1:-1]) == {"tool:find:call-0-0", "tool:weigh:call-0-1"}  # in the order of their ends
    assert [call.streamed for call in provider.made()] == [stream, stream]
