"""The Python blocks of docs/agents.md and of the guide of long agents."""

from __future__ import annotations

import re

import pytest
from pydantic_ai.models.test import TestModel
from tests.agents.scripted import Script, call
from tests.documented import DOCS, Page
from tests.embedded.house import answer_when_asked, reaches

import perdure.agents
from perdure import Budget, Registry
from perdure.agents.options import DurableOptions
from perdure.testing import embedded
from perdure.wire.status import Phase


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


def test_the_page_has_every_public_name_and_option() -> None:
    text = (DOCS / "agents.md").read_text(encoding="utf-8")
    options = set(DurableOptions.__annotations__)
    assert {name for name in {*perdure.agents.__all__} | options if not re.search(rf"\b{name}\b", text)} == set()
