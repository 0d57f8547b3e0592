"""What the pages say is so: their Python blocks run, and do what the text around them says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from tests.documented import DOCS, Page, blocks

from perdure import Budget, Registry
from perdure.testing import embedded
from perdure.wire.errors import BadRequest
from perdure.wire.requests import ListFilters
from perdure.wire.signatures import make_secret, signed_headers

RUN = {"agents", "budgets", "schedules", "sessions", "streams", "testing", "triggers", "webhooks", "workflows"}
"""Pages whose blocks are run: below, in tests/agents (agents) and in tests/test_testing.py (testing)."""


def test_a_page_with_python_blocks_has_a_test_that_runs_them() -> None:
    assert {page.stem for page in DOCS.glob("*.md") if blocks(page.stem)} == RUN


async def test_workflows() -> None:
    page = Page("workflows")
    module = await page.run()
    async with embedded(Registry(module.order)) as p:
        handle = await p.start(module.order, 7)
        assert await handle.result() == len("<p>receipt-7</p>") + len("thanks")
    module = await page.run()
    async with embedded(module.app) as p:
        await (await p.start(module.send, "ann@example.com", concurrency_key="example.com")).result()
    assert page.all_ran


async def test_schedules() -> None:
    page = Page("schedules")
    module = await page.run()
    async with embedded(Registry(module.report), skip_time=False) as p:
        await page.run(client=p)
        declared, made = sorted(await p.schedules.list(), key=lambda one: one.key)
        assert (declared.key, declared.timezone) == ("default", "Europe/Berlin")
        assert (made.key, made.timezone, made.overlap) == ("tokyo", "Asia/Tokyo", "skip")
        assert str(await (await p.schedules.run(made.id)).result()).startswith("for ")
    assert page.all_ran


async def test_triggers() -> None:
    page = Page("triggers")
    module = await page.run()
    async with embedded(Registry(module.confirm, module.book), skip_time=False) as p:
        await p.settle()
        for order in range(3):
            await p.publish("orders", {"order": order})
        await p.settle()
        await p.advance(5)
        await p.settle()
        for workflow, started in (("confirm", 3), ("book", 1)):
            found = await p.list(ListFilters(workflow_id=workflow))
            assert [one.phase for one in found.executions] == ["completed"] * started, workflow
    assert page.all_ran


async def test_budgets() -> None:
    page = Page("budgets")
    module = await page.run()
    async with embedded(Registry(module.research)) as p:
        handle = await p.start(module.research, "what?", budget=Budget(usd=1))
        assert await handle.result() == "the answer to what?"
        assert (await p.budget(handle.id)).usd_micros.spent == 7_500
    assert page.all_ran


async def test_sessions() -> None:
    page = Page("sessions")
    module = await page.run()
    async with embedded(Registry(module.talk)) as p:
        for before, text in enumerate(("hello", "and again")):
            handle = await p.start(module.talk, text, session_id="ann")
            assert await handle.result() == f"{2 * before} messages, and then {text!r}"
    assert page.all_ran


async def test_streams() -> None:
    async def model(question: str) -> AsyncIterator[str]:
        for token in ("On ", "its ", "way."):
            yield token

    shown: list[object] = []
    page = Page("streams")
    module = await page.run(model=model)
    async with embedded(Registry(module.support)) as p:
        await page.run(client=p, clear=shown.clear, show=lambda id, key, data: shown.append((key, data)))
    assert shown == [("answer", "On "), ("answer", "its "), ("answer", "way.")]
    assert module.result == "On its way."
    assert page.all_ran


async def test_webhooks() -> None:
    page = Page("webhooks")
    module = await page.run()
    secret, body = make_secret(), b'{"type": "execution.completed"}'
    headers = signed_headers([secret], "msg_1", int(time.time()), body)
    module.receive(secret, headers, body)
    with pytest.raises(BadRequest):
        module.receive(secret, headers, body + b" ")
    assert page.all_ran
