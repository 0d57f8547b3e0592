"""What people want to know or do on their first day, each in at most five clicks from the list."""

from playwright.async_api import Browser, expect
from tests.dashboard.pages import completed, opened
from tests.dashboard.test_execution import ordered
from tests.server.serving import Hand, Served

CLICKS_MAX = 5


async def test_why_does_it_wait_and_let_it_go_on(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand, key="order-7")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        await shown.count_clicks()
        await page.get_by_role("link", name="w", exact=True).first.click()
        await expect(page.locator(".exsays")).to_contain_text("payments")
        await page.locator(".wrow").filter(has_text="paid").click()
        await page.get_by_label("Inspector", exact=True).get_by_role("button", name="Complete it").click()
        await page.get_by_role("dialog").get_by_label("Value (JSON)").fill('{"paid": true}')
        await page.get_by_role("dialog").get_by_role("button", name="Complete it").click()
        await expect(page.get_by_role("dialog")).to_have_count(0)
        assert await shown.clicks() <= CLICKS_MAX
    acts = (await served.client.get(f"/api/v1/executions/{id}/steps")).json()["acts"]
    assert [(act["action"], act["key"]) for act in acts] == [("complete", "paid")]


async def test_run_it_again_with_another_input(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await completed(served, hand, "done", payload={"amount": 1}, key="order-1")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        await shown.count_clicks()
        await page.get_by_role("link", name="w", exact=True).first.click()
        await page.get_by_role("button", name="Start from this").click()
        await page.get_by_label("Input as JSON").fill('{"amount": 2}')
        await page.get_by_role("button", name="Start", exact=True).last.click()
        await page.wait_for_url(lambda url: "/executions/" in url and id not in url)
        assert await shown.clicks() <= CLICKS_MAX
    newest = (await served.client.get("/api/v1/executions")).json()["executions"][0]
    assert newest["id"] != id and newest["payload"] == {"amount": 2}
