"""What was said, as messages: read once, and each run's own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import Raw
from pydantic import TypeAdapter, ValidationError
from pydantic_ai import Agent
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage
from tests.agents.test_conversation import echo

from perdure.agents import durable
from perdure.agents.history import History, message_json
from perdure.embedded import embedded
from perdure.sdk.workflows.workflow import Registry

AT = datetime(2026, 11, 27, tzinfo=UTC)
MESSAGES: list[ModelMessage] = [
    ModelRequest(
        [
            UserPromptPart(
                ["look", ImageUrl("https://a.example/b.png"), BinaryContent(b"\x00\xff", media_type="image/png")]
            )
        ],
        instructions="be brief",
        metadata={"tags": ["a"]},
        timestamp=AT,
    ),
    ModelResponse(
        [
            ThinkingPart("hm", signature="s"),
            TextPart("I look."),
            ToolCallPart("find", {"words": ["parcel"], "most": 3}, tool_call_id="c1"),
        ],
        usage=RequestUsage(input_tokens=7, details={"cached": 2}),
        provider_details={"id": {"deep": [1]}},
        timestamp=AT,
    ),
    ModelRequest([ToolReturnPart("find", {"found": [{"id": 7}]}, tool_call_id="c1")], timestamp=AT),
    ModelResponse([TextPart("Here.")], timestamp=AT),
]


def raws(messages: list[ModelMessage]) -> list[Raw]:
    return list(map(message_json, messages))


def spoiled(value: object) -> None:
    """Change everything in a value that can be changed."""
    if isinstance(value, list):
        for one in value:
            spoiled(one)
        value.append("more")
    elif isinstance(value, dict):
        for one in value.values():
            spoiled(one)
        value["more"] = "more"
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for one in vars(value).values():
            spoiled(one)
        vars(value).update(dict.fromkeys(vars(value), "changed"))


def test_it_reads_what_the_library_reads_and_hands_out_copies() -> None:
    history, given = History(), raws(MESSAGES)
    expected = ModelMessagesTypeAdapter.validate_json(b"[" + b",".join(map(bytes, given)) + b"]")
    for _ in range(3):
        found = history.messages(given)
        assert found == expected
        assert [vars(one) for one in found] == [vars(one) for one in expected]
        spoiled(found)


def test_a_message_is_stored_as_its_own_type_writes_it() -> None:
    one = TypeAdapter[ModelMessage](ModelMessage)
    assert [bytes(message_json(message)) for message in MESSAGES] == [one.dump_json(message) for message in MESSAGES]


def test_each_message_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    history, given, read = History(), raws(MESSAGES), list[int]()

    def counted(self: History, said: list[Raw]) -> list[ModelMessage]:
        read.append(len(said))
        return plain(self, said)

    plain = History._parse_messages
    monkeypatch.setattr(History, "_parse_messages", counted)
    history.messages(given[:2])
    history.messages(given)
    history.messages(given[1:])
    assert read == [2, 2, 0]


def test_it_keeps_so_much_and_no_more() -> None:
    given = raws(MESSAGES)
    history = History(bytes_max=max(len(bytes(one)) for one in given))
    for _ in range(2):
        assert [type(one) for one in history.messages(given)] == [type(one) for one in MESSAGES]
    assert history.messages(given[-1:]) == history.messages([Raw(bytes(given[-1]))])
    assert History(bytes_max=0).messages(given) == history.messages(given)


def test_what_is_no_message_is_refused() -> None:
    history = History()
    assert history.messages([]) == []
    with pytest.raises(ValidationError):
        history.messages([*raws(MESSAGES), Raw(b'{"kind":"letter"}')])


async def test_what_a_model_does_to_its_messages_does_not_reach_the_next_turn(database: str) -> None:
    def spoils(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answer = echo(messages, info)
        for message in messages:
            for part in message.parts:
                if isinstance(part, UserPromptPart):
                    part.content = f"{part.content}!"
        return answer

    chat = durable(Agent(FunctionModel(spoils), name="chat"))
    async with embedded(database, Registry(chat)) as p:
        await chat.run(p, "one", session_id="s")
        second = await chat.run(p, "two", session_id="s")
        third = await chat.run(p, "three", session_id="s")
    assert second == "one! | two"  # what it did to its own turn is what was said in it
    assert third == "one! | two! | three"
