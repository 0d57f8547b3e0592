"""The Python blocks of docs/agents.md."""

from __future__ import annotations

import re

import pytest
from pydantic_ai.models.test import TestModel
from tests.documented import DOCS, Page

import perdure.agents
from perdure import Registry
from perdure.agents.options import DurableOptions, WorkflowOptions
from perdure.testing import embedded


async def test_agents(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page("agents")
    module = await page.run()
    answers = TestModel(call_tools=[], custom_output_args={"text": "On its way.", "sure": True})
    with module.agent.override(model=answers):
        async with embedded(Registry(module.support)) as p:
            await page.run(client=p)
    assert module.answer == module.Answer(text="On its way.", sure=True)
    assert capsys.readouterr().out == ""  # as the page says: an Answer does not come as text
    assert page.all_ran


def test_the_page_has_every_public_name_and_option() -> None:
    text = (DOCS / "agents.md").read_text(encoding="utf-8")
    options = {name for kind in (DurableOptions, WorkflowOptions) for name in kind.__annotations__}
    assert {name for name in {*perdure.agents.__all__} | options if not re.search(rf"\b{name}\b", text)} == set()
