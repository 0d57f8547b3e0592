"""Idle tabs send nothing, and tabs of the same browser share a stream."""

import asyncio

import pytest
from playwright.async_api import Browser, Page, Request, expect
from tests.dashboard.pages import opened
from tests.server.agents.test_approvals import asked as question
from tests.server.serving import Hand, Served

IDLE_SECONDS = 6.0
READS = "async () => (await navigator.locks.query()).held.some((lock) => lock.name.includes('watch=counts,list'))"
"""Whether a tab reads the stream of the list."""


def asked(page: Page) -> list[str]:
    """The API requests of a page from here on."""
    found: list[str] = []

    def note(request: Request) -> None:
        if "/api/" in request.url:
            found.append(request.url.partition("/api/")[2])

    page.on("request", note)
    return found


async def reopened(page: Page, requests: list[str]) -> int:
    """Load a page anew, and wait until the page has asked for everything. Returns the number of requests."""
    unanswered: set[Request] = set()
    page.on("request", lambda one: unanswered.add(one))
    page.on("response", lambda reply: unanswered.discard(reply.request))
    page.on("requestfailed", lambda one: unanswered.discard(one))
    await page.reload()
    count = -1
    while unanswered or count < len(requests):
        count = len(requests)
        await asyncio.sleep(1.0)
        await page.evaluate("new Promise((resolve) => requestIdleCallback(resolve))")
    return count


@pytest.mark.parametrize("where", ["", "executions", "executions/{id}", "inbox"])
async def test_an_idle_page_sends_no_requests(served: Served, hand: Hand, chromium: Browser, where: str) -> None:
    id = await question(served, hand)
    async with opened(chromium, served, f"/{where.format(id=id)}") as shown:
        page = shown.page
        requests = asked(page)
        opening = await reopened(page, requests)
        await expect(page.get_by_text("approve").or_(page.get_by_text("needs attention")).first).to_be_visible()
        await asyncio.sleep(IDLE_SECONDS)
        assert requests[opening:] == []


async def test_tabs_share_one_stream(served: Served, hand: Hand, chromium: Browser) -> None:
    await served.start(key="order-1")
    async with opened(chromium, served, "/executions") as first:
        rows = first.page.locator("tbody tr:not([aria-hidden])")
        await expect(rows).to_contain_text("Queued")
        await first.page.wait_for_function(READS)
        second = await first.page.context.new_page()
        requests = asked(second)
        others = second.locator("tbody tr:not([aria-hidden])")
        async with first.page.expect_response(lambda one: "/api/v1/live?" in one.url):  # it begins anew for the new tab
            await second.goto("/executions")
        await expect(others).to_contain_text("Queued")
        await hand.complete(await hand.claim())
        await expect(rows).to_contain_text("Completed")
        await expect(others).to_contain_text("Completed")
        assert not [one for one in requests if one.startswith("v1/live?watch=counts,list")]
        await first.page.close()  # the other one reads the stream itself, from where it was
        await served.start(key="order-2")
        await expect(second.get_by_role("button", name="1 new")).to_be_visible()


async def test_new_rows_are_counted_on_when_another_tab_begins_the_stream_anew(
    served: Served, chromium: Browser
) -> None:
    await served.start(key="order-1")
    async with opened(chromium, served, "/executions") as first:
        await expect(first.page.locator("tbody tr:not([aria-hidden])")).to_have_count(1)
        await served.start(key="order-2")
        await expect(first.page.get_by_role("button", name="1 new")).to_be_visible()
        second = await first.page.context.new_page()
        async with first.page.expect_response(lambda one: "/api/v1/live?" in one.url):
            await second.goto("/executions")
        await served.start(key="order-3")  # the stream's page has order-2, so the stream counts one
        await expect(first.page.get_by_role("button", name="2 new")).to_be_visible()
