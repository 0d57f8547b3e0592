"""Questions of a real worker: the form has the fields of `answer_type`, and the code goes on with the answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final, Literal

import msgspec
from playwright.async_api import Browser, expect
from tests.dashboard.pages import opened
from tests.server.agents.test_approvals import asked
from tests.server.serving import Hand, Served

from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry, workflow


class Shipping(msgspec.Struct):
    way: Literal["land", "air"]
    boxes: Annotated[int, msgspec.Meta(ge=1, le=9, description="How many boxes it needs.")]
    insured: bool


TITLE: Final = "How shall parcel 7 go?"


@workflow
async def ship(ctx: Context) -> list[object]:
    chosen = await ctx.suspend("choose", {"title": TITLE, "weight": "2 kg"}, answer_type=Shipping)
    return [chosen.way, chosen.boxes, chosen.insured]


@asynccontextmanager
async def shipping(served: Served) -> AsyncIterator[Handle[list[object]]]:
    """An execution that a real worker runs, over HTTP."""
    transport = HttpTransport(served.server.url, served.key)
    worker = Worker(transport, Registry(ship), lease=HttpLease(transport.urls, served.key), grace_seconds=5)
    await worker.start()
    try:
        async with Client(HttpTransport(served.server.url, served.key)) as client:
            yield await client.start(ship)
    finally:
        await worker.drain()


async def test_a_typed_question_is_answered_by_its_form(chromium: Browser, served: Served) -> None:
    async with shipping(served) as handle, opened(chromium, served, "/inbox") as shown:
        page = shown.page
        await expect(page.get_by_role("heading", name=TITLE)).to_be_visible()
        await expect(page.get_by_text("How many boxes it needs.")).to_be_visible()
        await page.get_by_label("boxes").fill("many")
        await page.get_by_role("button", name="Send the answer").click()
        await expect(page.locator("[data-path=boxes] .bad")).to_have_text("Not a number")
        await expect(page.locator("[data-path=way] .bad")).to_have_text("Choose one")
        await page.get_by_label("boxes").fill("12")
        await expect(page.locator("[data-path=boxes] .bad")).to_have_text("At most 9")
        await page.get_by_label("boxes").fill("2")
        await page.get_by_label("way").select_option("air")
        await page.get_by_role("switch", name="insured").click()
        await page.get_by_role("button", name="Send the answer").click()
        assert await handle.result() == ["air", 2, True]
        await page.get_by_role("button", name="Answered", exact=True).click()
        row = page.get_by_label("Answered questions").get_by_role("button", name=TITLE)
        await expect(row).to_contain_text("Answered by key ")
        await expect(row).to_contain_text(": way=air, boxes=2, insured=true")
        await expect(page.get_by_text("The first answer stands.")).to_be_visible()
        assert "state=answered" in page.url and handle.id in page.url


async def test_a_typed_question_is_answered_by_keys_alone(chromium: Browser, served: Served) -> None:
    async with shipping(served) as handle, opened(chromium, served, "/inbox") as shown:
        page = shown.page
        await expect(page.get_by_role("heading", name=TITLE)).to_be_visible()
        keys = page.keyboard
        await keys.press("e")
        await keys.press("l")  # land, in the list of choices
        await keys.press("Tab")
        await keys.type("x")
        await keys.press("Control+Enter")
        await expect(page.locator("[data-path=boxes] .bad")).to_have_text("Not a number")
        await expect(page.get_by_label("boxes")).to_be_focused()
        await keys.press("Control+a")
        await keys.type("3")
        await keys.press("Tab")
        await keys.press("Space")
        await keys.press("Control+Enter")
        assert await handle.result() == ["land", 3, True]


async def test_tabs_show_what_was_answered_and_what_expired(chromium: Browser, served: Served, hand: Hand) -> None:
    ids = [await asked(served, hand, {"question": f"Pay {n}?"}) for n in range(2)]
    await asked(served, hand, {"question": "Too late?"}, expires_at_us=served.engine.clock.now_us() + 1)
    for id, approved in zip(ids, (True, False), strict=True):
        body = {"data": {"approved": approved, "note": "fine"}}
        assert (await served.client.post(f"/api/v1/approvals/{id}/approve/submit", json=body)).status_code == 200
    async with opened(chromium, served, "/inbox?state=answered") as shown:
        page = shown.page
        rows = page.get_by_label("Answered questions").get_by_role("button")
        await expect(rows).to_have_count(2)
        await expect(rows.nth(0)).to_contain_text("Rejected by key ")
        await expect(rows.nth(0)).to_contain_text(": note=fine")
        await expect(page.get_by_role("heading", name="Pay 1?")).to_be_visible()
        await page.keyboard.press("j")
        await expect(page.get_by_role("heading", name="Pay 0?")).to_be_visible()
        await expect(page.get_by_text("Approved first by")).to_be_visible()
        await page.get_by_role("button", name="Expired", exact=True).click()
        await expect(page.get_by_role("heading", name="Too late?")).to_be_visible()
        await expect(page.get_by_text("This question expired without an answer.")).to_be_visible()
        await page.go_back()
        await expect(page.get_by_role("heading", name="Pay 0?")).to_be_visible()


async def test_the_page_of_an_execution_leads_to_its_question(chromium: Browser, served: Served, hand: Hand) -> None:
    id = await asked(served, hand, {"question": "Pay?"})
    async with opened(chromium, served, f"/executions/{id}") as shown:
        page = shown.page
        await expect(page.get_by_role("link", name="Answer")).to_be_visible()
        await expect(page.get_by_role("button", name="Complete it")).to_have_count(0)
        await page.get_by_role("button", name="More", exact=True).click()
        await expect(page.get_by_role("button", name="Complete it")).to_be_visible()
        await page.get_by_role("link", name="Answer").click()
        await expect(page.get_by_role("heading", name="Pay?")).to_be_visible()
