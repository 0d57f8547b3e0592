"""The list of executions: filters, keys, actions on several, bulk jobs."""

import re

from playwright.async_api import Browser, expect
from tests.dashboard.pages import HOSTILE, SHOWN, completed, failed, opened
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role


async def test_filters_are_chips_and_the_address(served: Served, hand: Hand, chromium: Browser) -> None:
    await failed(served, hand, key="order-1", error="ValueError: no stock")
    await completed(served, hand, key="order-2")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        rows = page.locator("tbody tr:not([aria-hidden])")
        await expect(rows).to_have_count(2)
        await page.keyboard.press("/")
        await page.keyboard.type("pha")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.keyboard.type("fail")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("ValueError: no stock")
        assert page.url.endswith("/executions?phase=failed")
        await page.keyboard.type("order-2")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="No matching executions")).to_be_visible()
        await page.get_by_role("button", name="Remove phase is failed", exact=False).last.click()
        await expect(rows).to_have_count(1)
        await page.go_back()
        await page.go_back()
        await expect(rows).to_contain_text("order-1")
        await page.get_by_role("button", name="Save view").click()
        await page.get_by_label("Name").fill("Broken")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name=re.compile(r"^All\b")).click()
        await expect(rows).to_have_count(2)
        await page.get_by_role("button", name=re.compile(r"^Broken\b")).click()
        await expect(rows).to_have_count(1)


async def test_chips_leave_out_and_the_address_keeps_columns_order_and_selection(
    served: Served, hand: Hand, chromium: Browser
) -> None:
    await failed(served, hand, key="order-1", tags={"shop": "1"})
    await completed(served, hand, key="order-2")
    await completed(served, hand, key="order-3")
    async with opened(chromium, served, "/executions?phase=failed&sort=ended&cols=tags,ended") as shown:
        page = shown.page
        rows = page.locator("tbody tr:not([aria-hidden])")
        await expect(rows).to_contain_text("shop=1")
        await page.get_by_role("button", name="phase is. Leave these out").click()
        await expect(rows).to_have_count(2)
        assert "not_phase=failed" in page.url and "cols=tags" in page.url
        await expect(rows.first).to_contain_text("order-3")
        await page.get_by_role("checkbox", name="Select w order-2").click()
        await expect(page).to_have_url(re.compile("sel="))
        await page.reload()
        await expect(page.get_by_text("1 selected")).to_be_visible()
        await expect(page.get_by_role("checkbox", name="Select w order-2")).to_be_checked()
        await page.get_by_role("button", name="Columns", exact=True).click()
        await page.get_by_role("checkbox", name="Deployment").check()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("columnheader", name="Deployment")).to_be_visible()
        await completed(served, hand, key="order-4")
        await expect(page.get_by_role("button", name="1 new")).to_be_visible()
        await page.keyboard.press(".")
        await expect(rows.first).to_contain_text("order-4")


async def test_all_that_failed_since_noon_are_retried_in_five_clicks(
    served: Served, hand: Hand, chromium: Browser
) -> None:
    for n in range(3):
        await failed(served, hand, key=f"order-{n}")
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        await shown.count_clicks()
        await page.get_by_role("button", name="Failed today").click()
        await expect(page.locator("tbody tr:not([aria-hidden])")).to_have_count(3)
        await page.get_by_role("checkbox", name="Select all that are loaded").click()
        await page.get_by_role("button", name="Select all", exact=False).click()
        await page.get_by_role("button", name="Retry…").click()
        await page.get_by_role("button", name="Retry 3").click()
        await expect(page.get_by_text(re.compile(r"Retrying 3 executions in \d+ s"))).to_be_visible()
        assert await shown.clicks() <= 5
        await page.get_by_role("button", name="Start now").click()
        await page.get_by_role("button", name="Open the job").click()
        await expect(page.get_by_text("3 of 3 done").first).to_be_visible(timeout=20_000)
        await expect(page.locator("tbody tr")).to_have_count(3)
    [job] = (await served.client.get("/api/v1/bulk")).json()["jobs"]
    assert (job["action"], job["done"], job["refused"]) == ("retry", 3, 0)


async def test_a_job_of_a_page_waits_and_can_be_undone(served: Served, hand: Hand, chromium: Browser) -> None:
    ids = [await served.start(key=f"order-{n}") for n in range(2)]
    async with opened(chromium, served, "/executions?phase=queued") as shown:
        page = shown.page
        await page.get_by_role("checkbox", name="Select all that are loaded").click()
        await page.get_by_role("button", name="Select all", exact=False).click()
        await page.get_by_role("button", name="Cancel…").click()
        await page.get_by_role("button", name="Cancel 2").click()
        await expect(page.get_by_text(re.compile(r"Cancelling 2 executions in \d+ s"))).to_be_visible()
        await page.keyboard.press("Control+Z")
        await expect(page.get_by_text("Undone: no execution has changed.")).to_be_visible()
        [undone] = (await served.client.get("/api/v1/bulk")).json()["jobs"]
        assert (undone["state"], undone["done"]) == ("stopped", 0)
        phases = [(await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] for id in ids]
        assert phases == ["queued", "queued"]
        held = {"action": "cancel", "filters": {"phase": ["queued"]}, "hold_seconds": 60}
        job = (await served.client.post("/api/v1/bulk", json=held)).json()
        await page.goto(f"/bulk/{job['id']}")
        await expect(page.get_by_text(re.compile(r"It starts in \d+ s"))).to_be_visible()
        await page.get_by_role("button", name="Start now").click()
        await expect(page.get_by_text("2 of 2 done").first).to_be_visible()


async def test_some_are_cancelled_by_keys_alone(served: Served, chromium: Browser) -> None:
    hand = Hand(served.client)
    await hand.register()
    await completed(served, hand, key="ended")
    ids = [await served.start(key=f"open-{n}") for n in range(3)]
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        await expect(page.locator("tbody tr:not([aria-hidden])")).to_have_count(4)
        for key in ("j", "j", "x", "j", "j", "Shift+X", "c"):  # the newest stays out
            await page.keyboard.press(key)
        await expect(page.get_by_role("heading", name="Cancel 2 executions")).to_be_visible()
        await expect(page.get_by_text("1 is ended already and left out.")).to_be_visible()
        await page.keyboard.press("Control+Enter")
        await expect(page.get_by_text("Cancelling 2 executions")).to_be_visible()
        await expect(page.locator("tr .p-cancelled")).to_have_count(2)
        await page.keyboard.press("Space")
        await expect(page.get_by_label("The chosen execution")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_label("The chosen execution")).to_have_count(0)
    phases = [(await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] for id in ids]
    assert phases == ["cancelled", "cancelled", "queued"]


async def test_those_who_may_read_see_what_they_may_not_do(served: Served, hand: Hand, chromium: Browser) -> None:
    await failed(served, hand, key="order-1")
    async with opened(chromium, served, "/executions", role=Role.READ) as shown:
        await shown.page.get_by_role("checkbox", name="Select w order-1").click()
        await expect(shown.page.get_by_role("button", name="Retry…")).to_be_disabled()
        await shown.page.keyboard.press("r")
        await expect(shown.page.get_by_text("You may not do this: it needs the role write.")).to_be_visible()
        await expect(shown.page.get_by_role("button", name="Retry", exact=False).last).to_be_disabled()


async def test_text_of_others_is_shown_as_text(served: Served, hand: Hand, chromium: Browser) -> None:
    image = HOSTILE.partition("\u202e")[0]  # a key holds no control characters
    await failed(served, hand, key=image, error=f"ValueError: {HOSTILE}", tags={"t": HOSTILE})
    async with opened(chromium, served, "/executions?phase=failed") as shown:
        row = shown.page.locator("tbody tr:not([aria-hidden])")
        await expect(row.locator("code")).to_have_text(image)
        await expect(row.locator(".says")).to_contain_text(SHOWN)
        await row.click()
        await shown.page.keyboard.press("Space")
        await expect(shown.page.get_by_label("The chosen execution")).to_contain_text(f"t={SHOWN}")
        assert await shown.page.locator("main img").count() == 0


async def test_a_narrow_screen_shows_the_title_and_everything_beside_it(
    served: Served, hand: Hand, chromium: Browser
) -> None:
    id = await failed(served, hand)
    async with opened(chromium, served, "/executions", width=390, height=844) as shown:
        page = shown.page
        await expect(page.get_by_role("heading", name="Executions")).to_be_in_viewport()
        await expect(page.get_by_role("link", name="Start a run")).to_be_in_viewport(ratio=1)
        await page.goto(f"/executions/{id}")
        for name in ("Timeline", "Journal", "Logs"):
            await expect(page.get_by_role("tab", name=name)).to_be_in_viewport(ratio=0.9)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
