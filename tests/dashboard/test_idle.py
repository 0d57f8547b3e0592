"""Idle tabs send nothing, and tabs of one browser share their stream."""

import asyncio

import pytest
from playwright.async_api import Browser, Page, Request, expect
from tests.dashboard.pages import opened
from tests.server.serving import Hand, Served, serving
from tests.server.test_approvals import asked as question

IDLE_SECONDS = 6.0


def asked(page: Page) -> list[str]:
    """The API requests of a page from here on."""
    found: list[str] = []

    def note(request: Request) -> None:
        if "/api/" in request.url:
            found.append(request.url.partition("/api/")[2])

    page.on("request", note)
    return found


@pytest.mark.parametrize("where", ["", "executions", "executions/{id}", "inbox"])
async def test_an_idle_page_sends_no_requests(database: str, chromium: Browser, where: str) -> None:
    async with serving(database, lease_seconds=600.0) as served:  # the end of a lease is news for a page
        hand = Hand(served.client)
        await hand.register()
        id = await question(served, hand)
        async with opened(chromium, served, f"/{where.format(id=id)}") as shown:
            await expect(
                shown.page.get_by_text("approve").or_(shown.page.get_by_text("needs attention")).first
            ).to_be_visible()
            requests = asked(shown.page)
            opening = -1
            while opening < len(requests):  # a page that opens asks for several things in turn
                opening = len(requests)
                await asyncio.sleep(1.0)
            await asyncio.sleep(IDLE_SECONDS)
            assert requests[opening:] == []


async def test_tabs_share_one_stream(served: Served, hand: Hand, chromium: Browser) -> None:
    await served.start(key="order-1")
    async with opened(chromium, served, "/executions") as first:
        rows = first.page.locator("tbody tr:not([aria-hidden])")
        await expect(rows).to_contain_text("Queued")
        second = await first.page.context.new_page()
        requests = asked(second)
        others = second.locator("tbody tr:not([aria-hidden])")
        async with first.page.expect_response(lambda one: "/api/v1/live?" in one.url):  # it begins anew for the new tab
            await second.goto("/executions")
        await expect(others).to_contain_text("Queued")
        worker = Hand(served.client)  # the lease of `hand` may end while pages open
        await worker.register()
        await worker.complete(await worker.claim())
        await expect(rows).to_contain_text("Completed")
        await expect(others).to_contain_text("Completed")
        assert not [one for one in requests if one.startswith("v1/live?watch=counts,list")]
        await first.page.close()  # the other one reads the stream itself, from where it was
        await served.start(key="order-2")
        await expect(second.get_by_role("button", name="1 new")).to_be_visible()
