"""Pages that change while open, and a server that goes away and comes back."""

from contextlib import AsyncExitStack

from playwright.async_api import Browser, expect
from tests.dashboard.pages import completed, failed, opened
from tests.server.serving import Hand, Served, serving


async def test_rows_change_in_place_and_new_ones_wait(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    id = await served.start(key="order-1")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        rows = page.locator("tbody tr:not([aria-hidden])")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("Queued")
        await hand.register()
        item = await hand.claim()
        assert item["id"] == id
        await hand.complete(item)
        await expect(rows).to_contain_text("Completed")
        await failed(served, hand, key="order-2")
        await completed(served, hand, key="order-3")
        await expect(page.get_by_role("button", name="2 new · 1 failed")).to_be_visible()
        await expect(rows).to_have_count(1)
        await page.keyboard.press(".")
        await expect(rows).to_have_count(3)
        await expect(page.get_by_role("button", name="2 new")).to_have_count(0)


async def test_rows_that_no_longer_match_fade(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    await served.start(key="order-1")
    async with opened(chromium, served, "/executions?phase=queued") as shown:
        row = shown.page.locator("tbody tr:not([aria-hidden])")
        await expect(row).to_have_count(1)
        await hand.register()
        await hand.complete(await hand.claim())
        await expect(shown.page.locator("tr.gone")).to_contain_text("order-1")
        await shown.page.keyboard.press(".")
        await expect(shown.page.get_by_role("heading", name="No matching executions")).to_be_visible()


async def test_rows_that_an_act_loads_are_no_longer_new(served: Served, chromium: Browser) -> None:
    await served.start(key="order-1")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        rows = page.locator("tbody tr:not([aria-hidden])")
        await expect(rows).to_have_count(1)
        await served.start(key="order-2")
        await expect(page.get_by_role("button", name="1 new")).to_be_visible()
        for key in ("j", "x", "c"):
            await page.keyboard.press(key)
        await expect(page.get_by_role("heading", name="Cancel order-1 of w")).to_be_visible()
        await page.keyboard.press("Control+Enter")
        await expect(rows).to_have_count(2)
        await expect(page.get_by_role("button", name="1 new")).to_have_count(0)


LOADED = "() => performance.getEntriesByType('resource').some((one) => one.name.includes('/assets/resources-'))"
"""Whether the code of pages that are not shown is loaded."""


async def test_a_page_opens_while_its_server_is_gone_and_sends_nothing(database: str, chromium: Browser) -> None:
    async with AsyncExitStack() as first:
        served = await first.enter_async_context(serving(database))
        id = await served.start(key="order-7")
        async with opened(chromium, served, f"/executions/{id}") as shown:
            page = shown.page
            await page.wait_for_function(LOADED)
            await page.get_by_role("button", name="Cancel").click()
            cancel = page.get_by_role("dialog").get_by_role("button", name="Cancel it")
            await expect(cancel).to_be_enabled()
            await first.aclose()
            await expect(cancel).to_be_disabled()
            await expect(page.get_by_role("dialog")).to_contain_text("The server does not answer.")
            await page.keyboard.press("Escape")
            await page.get_by_role("link", name="Queues").click()
            await expect(page.get_by_role("heading", name="Queues", exact=True)).to_be_visible()


async def test_a_page_goes_on_after_its_server_was_restarted(database: str, chromium: Browser) -> None:
    async with AsyncExitStack() as first:
        served = await first.enter_async_context(serving(database))
        await served.start(key="order-1")
        port = served.address[1]
        async with opened(chromium, served, "/executions") as shown:
            page = shown.page
            rows = page.locator("tbody tr:not([aria-hidden])")
            async with page.expect_response(lambda one: "/api/v1/live?" in one.url):  # it heard the server once
                await page.reload()
            await expect(rows).to_have_count(1)
            await first.aclose()
            await expect(page.get_by_text("Server unreachable.")).to_be_visible(timeout=20_000)
            await expect(page.get_by_text("Data from")).to_be_visible()
            await expect(rows).to_have_count(1)
            async with serving(database, port=port) as again:
                await again.start(key="order-2")
                await page.get_by_label("API key").fill(
                    again.key, timeout=20_000
                )  # a key's session ends with its server
                await page.keyboard.press("Enter")
                await expect(rows).to_have_count(2)
                await again.start(key="order-3")
                # It may come with the list, too: a page that found its server again asks for all of it once more.
                fresh = page.get_by_role("button", name="1 new").or_(rows.filter(has_text="order-3"))
                await expect(fresh.first).to_be_visible()
