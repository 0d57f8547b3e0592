"""The first page answers whether anything needs attention, and does the next step."""

from typing import Final

from playwright.async_api import Browser, expect
from tests.dashboard.pages import HOSTILE, completed, failed, opened, overlap
from tests.server.serving import Hand, Served

from perdure.wire.runs.requests import WORKER_PROTOCOL

LONG: Final = "release-" + "9" * 190


async def test_failures_are_named_and_retried(served: Served, hand: Hand, chromium: Browser) -> None:
    for n in range(3):
        await failed(served, hand, key=f"order-{n}", error=f"ValueError: {HOSTILE}")
    await completed(served, hand)
    # `hand` speaks a protocol without forks. Without this worker the page soon says that none serves the retries.
    serving_forks = Hand(served.client)
    serving_forks.protocol = WORKER_PROTOCOL
    await serving_forks.register()
    async with opened(chromium, served, "/") as shown:
        page = shown.page
        await expect(page.get_by_text("1 item needs attention")).to_be_visible()
        item = page.get_by_role("list", name="Needs attention").get_by_role("listitem")
        await expect(item).to_contain_text("3 executions of w failed")
        await expect(item).to_contain_text("<img")
        await expect(page.get_by_role("region", name="Workflows and agents")).to_contain_text("75 %")
        fold = await page.evaluate("document.querySelector('.scroll').scrollHeight <= innerHeight")
        assert fold, "all of it is above the fold"
        await page.get_by_role("button", name="Retry 3").click()
        await page.get_by_role("dialog").get_by_role("button", name="Retry 3").click()
        await expect(page.get_by_text("Retrying 3 executions in")).to_be_visible()
        await page.get_by_role("button", name="Start now").click()
        await expect(page.get_by_text("Nothing needs attention")).to_be_visible(timeout=20_000)
        await expect(page.get_by_role("region", name="Open now").get_by_role("link", name="Queued")).to_contain_text(
            "3"
        )
        await page.get_by_role("button", name="7 d").click()
        await page.wait_for_url(lambda url: url.endswith("?range=7d"))


async def test_what_the_last_deploy_broke_is_read_without_a_click(
    served: Served, hand: Hand, chromium: Browser
) -> None:
    old = hand.deployment_id
    await failed(served, hand, error="KeyError: 'known'")
    await completed(served, hand)
    hand.deployment_id = LONG
    await hand.register()
    await failed(served, hand, error="KeyError: 'known'")
    first = await failed(served, hand, error=f"ValueError: {HOSTILE} 1")
    await failed(served, hand, error=f"ValueError: {HOSTILE} 2")
    await completed(served, hand)
    for scheme, width in (("dark", 390), ("light", 1440)):
        async with opened(chromium, served, "/", scheme=scheme, width=width) as shown:
            page = shown.page
            line = page.get_by_role("group", name=f"Since {LONG} came into use")
            await expect(line).to_contain_text("3 of 4 failed (75 %)")
            await expect(line).to_contain_text("2 alike, new here: ValueError: <img")
            await expect(line).to_contain_text("before, on default: 50 % of 2")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing runs over"
            await expect(line.get_by_role("link", name="See the first")).to_have_attribute(
                "href", f"/executions/{first}"
            )
            await line.get_by_role("button", name="Retry 2").click()
            await expect(page.get_by_role("dialog").get_by_role("button", name="Retry 2")).to_be_visible()
            await page.keyboard.press("Escape")
            await line.get_by_role("button", name="Roll back").click()
            dialog = page.get_by_role("dialog")
            await expect(dialog).to_contain_text(f"New executions start on {old} instead of {LONG}.")
            await expect(dialog).to_contain_text("It has no worker now")
    async with opened(chromium, served, "/deployments") as shown:
        page = shown.page
        line = page.get_by_role("group", name=f"Since {LONG} came into use")
        await line.get_by_role("button", name="Roll back").click()
        await page.get_by_role("dialog").get_by_role("button", name="Use").click()
        await expect(page.get_by_role("listitem", name=old).get_by_text("current")).to_be_visible()
    listed = (await served.client.get("/api/v1/deployments")).json()["deployments"]
    assert [one["id"] for one in listed if one["current"]] == [old]


async def test_the_flag_of_a_deployment_leaves_the_axis_free(served: Served, hand: Hand, chromium: Browser) -> None:
    await completed(served, hand)
    async with opened(chromium, served, "/") as shown:
        await expect(shown.page.locator(".tick")).to_have_count(2)
        flag = shown.page.locator(".marker .tag")
        assert [await overlap(flag, tick) for tick in await shown.page.locator(".tick").all()] == [False, False]


async def test_an_empty_project_is_told_how_to_begin(served: Served, chromium: Browser) -> None:
    async with opened(chromium, served, "/") as shown:
        await expect(shown.page.get_by_text("@workflow").first).to_be_visible()
        assert shown.page.url.endswith("/welcome")
