"""The page of docs/guides/agent-in-a-web-page.md."""

import asyncio
import re
import socket
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, expect
from tests.agents.scripted import Script, call
from tests.documented import Page


async def test_a_person_talks_to_the_agent_and_answers_it(
    chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPPORT", str(tmp_path / "support.db"))
    module = await Page("guides/agent-in-a-web-page").run()
    asks = call("refund", "c1", order_id=7, euros=12)
    script = Script(asks, "<b>It is on its way.</b>", ValueError("no model here"))
    with module.agent.override(model=script.model), socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()  # the page may ask before the application has begun
        server = uvicorn.Server(uvicorn.Config(module.app, log_level="critical"))
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            page = await chromium.new_page()
            wrong: list[str] = []
            page.on("pageerror", lambda error: wrong.append(str(error)))
            await page.goto(f"http://127.0.0.1:{bound.getsockname()[1]}/")
            await page.get_by_role("textbox").fill("My cup is broken.")
            await page.get_by_role("button", name="Send").click()
            await expect(page.locator("p")).to_have_text(["> My cup is broken.", re.compile('"euros":12')])
            await page.get_by_role("button", name="Allow").click()
            await expect(page.locator("p")).to_have_text(
                ["> My cup is broken.", "Allowed.", "<b>It is on its way.</b>"]
            )
            await page.get_by_role("textbox").fill("Is it?")
            await page.get_by_role("button", name="Send").click()
            await expect(page.locator("p").last).to_have_text(re.compile("^Failed: .*no model here"))
            assert wrong == []
            await page.close()
        finally:
            server.should_exit = True
            await serving
