"""The palette finds executions and names, and does what the page can do."""

from playwright.async_api import Browser, Page, expect
from tests.dashboard.pages import completed, failed, opened
from tests.server.serving import Hand, Served


async def asked(page: Page, text: str) -> None:
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("dialog").get_by_role("combobox")).to_be_focused()
    await page.keyboard.type(text)


async def test_it_finds_executions_names_and_actions(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await failed(served, hand, key="order-48213", error="ValueError: no stock")
    await completed(served, hand, key="parcel-1")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        await expect(page.locator("tbody tr:not([aria-hidden])")).to_have_count(2)
        await asked(page, "order-48")
        found = page.get_by_role("option", name="order-48213")
        await expect(found).to_contain_text("ValueError: no stock")
        await expect(found).to_have_attribute("aria-selected", "true")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/executions/{id}")
        await page.go_back()
        await expect(page.locator("tbody tr:not([aria-hidden])")).to_have_count(2)
        await asked(page, "#region=eu")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/executions?tag=region%3Deu")
        await asked(page, "> select all")
        await expect(page.get_by_role("option")).to_have_count(1)
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
