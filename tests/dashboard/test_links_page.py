"""The links to questions, among the settings."""

from playwright.async_api import Browser, expect
from tests.dashboard.pages import opened
from tests.server.agents.test_approval_links import listed, made
from tests.server.agents.test_approvals import asked
from tests.server.serving import Hand, Served


async def test_links_are_shown_and_revoked(served: Served, chromium: Browser, hand: Hand) -> None:
    id = await asked(served, hand)
    await made(served, id, {}, "\u05d0\u05d1 of 'x'")
    await made(served, id, {}, "n" * 200)
    async with opened(chromium, served, "/settings/links") as shown:
        page = shown.page
        await expect(page.locator("tbody tr")).to_have_count(2)
        await expect(page.locator("tbody")).to_contain_text("key 'test'")
        await page.get_by_role("button", name=f"Revoke the link for {'n' * 200}").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        await expect(page.locator("tbody tr")).to_have_count(1)
    assert [one["name"] for one in await listed(served)] == ["\u05d0\u05d1 of 'x'"]
