"""The approval page in a real Chromium: keyboard only, without JavaScript, with malicious data."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright
from tests.server.agents.test_approvals import asked, link_of, path_of
from tests.server.agents.test_approve_page import FIELDS, HOSTILE, REVERSED, TOOL
from tests.server.serving import Hand, Served, serving

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)"),
]


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(":memory:") as served:
        yield served


@asynccontextmanager
async def page_of(browser: Browser, served: Served, *, scripts: bool) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page of a fresh browser, and the page's errors and script runs."""
    heard: list[str] = []
    host, port = served.address
    context = await browser.new_context(base_url=f"http://{host}:{port}", java_script_enabled=scripts)
    page = await context.new_page()
    page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("console", lambda line: heard.append(line.text) if "Security Policy" in line.text else None)
    page.on("request", lambda request: None if f":{port}/" in request.url else heard.append(f"asked {request.url}"))
    yield page, heard
    await context.close()


async def answer_of(served: Served, id: str) -> Any:
    return (await served.client.get(path_of(id))).json()


async def test_a_person_signs_in_and_approves_with_the_keyboard_alone(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    await hand.register()
    id = await asked(served, hand, TOOL)
    async with page_of(chromium, served, scripts=False) as (page, heard):
        await page.goto(f"/approve/{id}/approve")
        assert await page.get_by_label("API key").is_visible()
        for _ in range(4):  # past e-mail, password and their button
            await page.keyboard.press("Tab")
        await page.keyboard.type(served.key)
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Run rm -rf?").wait_for()
        await page.get_by_label("Feedback").focus()
        await page.keyboard.type("go on")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")  # Approve
        await page.get_by_role("heading", name="This has been answered").wait_for()
        assert "Approved" in await page.inner_text("main")
        await page.reload()
        assert "Approved" in await page.inner_text("main"), "to load it again sends nothing again"
        assert heard == []
    assert (await answer_of(served, id))["answer"] == {"approved": True, "feedback": "go on"}


async def test_mistakes_lead_to_their_fields(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    await hand.register()
    id = await asked(served, hand, FIELDS)
    async with page_of(chromium, served, scripts=False) as (page, _):
        await page.goto(f"/approve/{id}/approve?link={await link_of(served, id)}")
        await page.get_by_label("How many").fill("many")
        await page.get_by_role("button", name="Send the answer").click()
        alert = page.get_by_role("alert")
        await alert.wait_for()
        await alert.get_by_role("link", name="How many").click()
        field = page.get_by_label("How many")
        assert await field.get_attribute("aria-invalid") == "true"
        assert await field.input_value() == "many"
        await field.fill("3")
        await page.get_by_role("radio", name="Yes").check()
        await page.get_by_label("Size").select_option(label="S")
        await page.get_by_role("checkbox", name="c").check()
        await page.get_by_role("button", name="Send the answer").click()
        await page.get_by_role("heading", name="This has been answered").wait_for()
        assert "ann@example.com" in await page.inner_text("main")
    answer = (await answer_of(served, id))["answer"]
    assert answer == {"name": "Ann", "count": 3, "sure": True, "size": "S", "tags": ["b", "c"]}


async def test_data_that_means_harm_does_none(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    await hand.register()
    form = {
        "title": HOSTILE,
        "description": REVERSED.replace("\0", ""),
        "context": HOSTILE,
        "fields": [{"key": "a", "label": HOSTILE, "default": HOSTILE, "description": HOSTILE}, {"key": HOSTILE}],
    }
    id = await asked(served, hand, {"_form": form, "_source": HOSTILE, "_tool": HOSTILE, "long": "x" * 100_000})
    async with page_of(chromium, served, scripts=True) as (page, heard):
        await page.goto(f"/approve/{id}/approve?link={await link_of(served, id)}")
        assert await page.get_by_role("heading", level=1).inner_text() == HOSTILE
        assert await page.locator("main script, main img, main a, iframe, style").count() == 0
        text = await page.inner_text("main")
        assert "U+202E" in text and "\u202e" not in text
        width = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], "nothing is wider than the window"
        await page.get_by_role("button", name="Send the answer").click()
        await page.get_by_role("heading", name="This has been answered").wait_for()
        assert heard == []
    assert (await answer_of(served, id))["answer"] == {"a": HOSTILE}


async def test_a_page_of_another_origin_cannot_show_it_in_a_frame(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    await hand.register()
    id = await asked(served, hand, TOOL)
    host, port = served.address
    url = f"http://{host}:{port}/approve/{id}/approve?link={await link_of(served, id)}"
    async with page_of(chromium, served, scripts=True) as (page, _):
        await page.set_content(f"<iframe src='{url}'></iframe><p>outside</p>")
        await page.wait_for_load_state("networkidle")
        shown = [await frame.content() for frame in page.frames[1:]]
        assert not any("rm -rf" in text for text in shown)
