"""The Python blocks of docs/agents.md and of the guides of agents."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic_ai.models.test import TestModel
from tests.agents.scripted import Script, call
from tests.documented import DOCS, Page
from tests.embedded.house import answer_when_asked, reaches
from tests.test_guides import calling

import perdure.agents
from perdure import Budget, Registry
from perdure.agents.options import DurableOptions
from perdure.testing import embedded
from perdure.wire.base.status import Phase


async def test_agents(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page("agents")
    module = await page.run()
    answers = TestModel(call_tools=[], custom_output_args={"text": "On its way.", "sure": True})
    with module.agent.override(model=answers):
        async with embedded(Registry(module.support)) as p:
            await page.run(client=p)
    assert module.answer == module.Answer(text="On its way.", sure=True)
    assert capsys.readouterr().out == ""  # as the page says: an Answer does not come as text

    module = await page.run()

    async def refund(euros: int) -> str:
        return f"{euros} euros are on their way"

    module.agent.tool_plain(refund)
    calls = Script(call("refund", "c1", euros=400), call("final_result", "c2", text="Done.", sure=True))
    with module.agent.override(model=calls.model):
        async with embedded(Registry(module.support)) as p:
            handle = await module.support.start(p, "My parcel has not come.")
            await reaches(handle, Phase.WAITING)
            await answer_when_asked(handle, "approve_refund_c1", {"approved": True})
            assert (await handle.result()).text == "Done."
    assert "400 euros" in str(calls.heard[1][-1])
    assert page.all_ran


class Priced(TestModel):
    """A budget of dollars needs a model whose price is known."""

    @property
    def model_name(self) -> str:
        return "gpt-5.2"

    @property
    def system(self) -> str:
        return "openai"


async def test_long_agents(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page("guides/long-agents")
    module = await page.run()
    model = Priced(call_tools=["search"], custom_output_text="Bark and leaves.")
    with module.agent.override(model=model):
        async with embedded(Registry(module.researcher)) as p:
            await page.run(client=p)
    assert capsys.readouterr().out == "Bark and leaves.Bark and leaves. None\n"
    assert module.spent.calls.spent == 2
    await page.run()
    with module.agent.override(model=Priced(custom_output_text="Bark.")):
        async with embedded(Registry(module.report)) as p:
            ended = await p.start(module.report, "What do beavers eat?", budget=Budget(calls=1, on_exceed="finish"))
            assert await ended.result() == "Unfinished: Bark."
            assert await (await p.start(module.report, "What do beavers eat?")).result() == "Bark."
    assert page.all_ran


def told(reply: httpx2.Response) -> list[tuple[str, Any]]:
    """The server-sent events."""
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (.*)\ndata: (.*)\n\n", reply.text)]


async def test_an_agent_in_a_web_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPPORT", str(tmp_path / "support.db"))
    page = Page("guides/agent-in-a-web-page")
    module = await page.run()
    await page.run()
    assert page.all_ran
    asks = call("refund", "c1", order_id=7, euros=12)
    script = Script(
        lambda messages, info: ValueError("no model here") if "Fail." in str(messages) else asks, "It is on its way."
    )
    with module.agent.override(model=script.model):
        async with calling(module.app) as client:
            id = (await client.post("/runs", json={"text": "My cup is broken.", "session": "s"})).json()["id"]
            following = asyncio.create_task(client.get(f"/runs/{id}/events"))
            await reaches(module.perdure().handle(id), Phase.WAITING)
            [asked] = (await client.get("/questions")).json()
            assert (asked["id"], asked["asks"]["arguments"]) == (id, {"order_id": 7, "euros": 12})
            answers = f"/runs/{id}/answers/{asked['key']}"
            assert (await client.post(answers, json={"approved": True})).status_code == 204
            whole = await following
            question, words, done = told(whole)
            assert (question, done) == (("question", asked), ("done", "It is on its way."))
            assert words[1]["text"] == "It is on its way."
            assert (await client.get("/questions")).json() == []
            assert (await client.post(answers, json={"approved": False})).status_code == 409
            first, second = re.findall("^id: (.*)$", whole.text, re.MULTILINE)
            for cursor, left in ((first, [words, done]), (second, [done])):
                again = await client.get(f"/runs/{id}/events", headers={"last-event-id": cursor})
                assert told(again) == left
            assert (await client.get("/runs/0190a5f2-7c1e-7b3a-9d55-0242ac120002/events")).status_code == 404
            encoded = re.findall(r'"type":"(text-[^"]+)"', (await client.get(f"/runs/{id}/ai-sdk")).text)
            assert encoded == ["text-start", "text-delta", "text-end"]
            id = (await client.post("/runs", json={"text": "Fail.", "session": "t"})).json()["id"]
            [(name, error)] = told(await client.get(f"/runs/{id}/events"))
            assert name == "failed" and "no model here" in error
            assert '"type":"error"' in (await client.get(f"/runs/{id}/ai-sdk")).text


def test_the_page_has_every_public_name_and_option() -> None:
    text = (DOCS / "agents.md").read_text(encoding="utf-8")
    options = set(DurableOptions.__annotations__)
    assert {name for name in {*perdure.agents.__all__} | options if not re.search(rf"\b{name}\b", text)} == set()
