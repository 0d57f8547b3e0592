"""Signing in and out on a page, sessions that end, and users with several projects."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, expect
from tests.dashboard.pages import opened, telling
from tests.server.serving import Served
from tests.server.users import PASSWORD, member

from perdure.wire.base.access import Role


@asynccontextmanager
async def visitor(browser: Browser, served: Served, path: str) -> AsyncIterator[Page]:
    """A page in a browser without a sign-in."""
    host, port = served.address
    context = await browser.new_context(base_url=f"http://{host}:{port}")
    page = await context.new_page()
    await page.goto(path)
    async with telling(page):
        yield page
    await context.close()


async def test_a_key_signs_in_on_the_page_that_was_asked_for(served: Served, chromium: Browser) -> None:
    id = await served.start(key="order-7")
    async with visitor(chromium, served, f"/executions/{id}") as page:
        await page.get_by_label("API key").fill("sk_wrong")
        await page.get_by_role("button", name="Sign in with the key").click()
        await expect(page.get_by_role("alert")).to_contain_text("not an API key")
        await page.get_by_label("API key").fill(served.key)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("main")).to_contain_text("order-7")
        await page.reload()
        await expect(page.get_by_role("main")).to_contain_text("order-7")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("API key")).to_be_visible()
        await page.goto(f"/executions/{id}")
        await expect(page.get_by_label("API key")).to_be_visible()
        assert "order-7" not in await page.content()


async def test_a_used_link_leads_to_the_form(served: Served, chromium: Browser) -> None:
    path = (await served.client.post("/api/v1/sign-in-links")).json()["path"]
    async with visitor(chromium, served, path) as page:
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("navigation")).to_be_visible()
    async with visitor(chromium, served, path) as page:
        await expect(page.get_by_role("main")).to_contain_text("was used or has expired")
        await page.get_by_label("API key").fill(served.key)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("navigation")).to_be_visible()


async def test_a_session_that_ends_asks_to_sign_in_and_goes_on(served: Served, chromium: Browser) -> None:
    await served.start(key="order-7")
    async with opened(chromium, served, "/executions?workflow_id=w", role=Role.WRITE) as shown:
        await expect(shown.page.get_by_role("main")).to_contain_text("order-7")
        keys = (await served.client.get("/api/v1/api-keys")).json()["keys"]
        for key in keys:
            if key["id"] not in served.key:
                assert (await served.client.delete(f"/api/v1/api-keys/{key['id']}")).is_success
        await shown.page.reload()
        await shown.page.get_by_label("API key").fill(served.key)
        await shown.page.keyboard.press("Enter")
        await expect(shown.page.get_by_role("main")).to_contain_text("order-7")
        assert shown.page.url.endswith("/executions?workflow_id=w")


async def test_a_session_that_ends_under_a_form_asks_over_it_and_keeps_it(served: Served, chromium: Browser) -> None:
    """The session's page stays, so that the next answer of another caller would not be mixed in."""
    id = await served.start(key="order-7")
    async with opened(chromium, served, f"/executions/{id}", role=Role.WRITE) as shown:
        page = shown.page
        await page.get_by_role("button", name="Cancel").click()
        note = page.get_by_role("dialog").get_by_role("textbox").first
        await note.fill("wrong customer")
        for key in (await served.client.get("/api/v1/api-keys")).json()["keys"]:
            if key["id"] not in served.key:
                assert (await served.client.delete(f"/api/v1/api-keys/{key['id']}")).is_success
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        ended = page.get_by_role("dialog", name="Your session has ended")
        await expect(ended).to_be_visible()
        await expect(note).to_have_value("wrong customer")
        again = await served.key_of(Role.WRITE)
        await ended.get_by_label("API key").fill(again)
        await page.keyboard.press("Enter")
        await expect(ended).to_be_hidden()


async def test_an_unknown_address_shows_a_page_to_people_and_json_to_programs(
    served: Served, chromium: Browser
) -> None:
    for path in ("/nowhere", "/executions/x/y/z", "/\u05e9\u05dc\u05d5\u05dd/" + "n" * 200):
        async with opened(chromium, served, path) as shown:
            await expect(shown.page.get_by_role("main")).to_contain_text("This address leads nowhere")
    browser = {"accept": "text/html,*/*"}
    assert (await served.client.get("/nowhere", headers=browser)).status_code == 404
    for path, headers in (("/nowhere", {}), ("/api/v1/nowhere", browser)):
        reply = await served.client.get(path, headers=headers)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")
    gone = "0199a5c8-73f7-77f2-99c2-26c47dee6e01"
    async with opened(chromium, served, f"/executions/{gone}") as shown:
        await shown.page.get_by_role("link", name="All executions").click()
        await expect(shown.page).to_have_url(re.compile(r"/executions$"))


async def test_a_user_sees_each_project_apart(served: Served, chromium: Browser) -> None:
    await served.start(key="of-the-first")
    async with member(served) as ann, visitor(chromium, served, "/executions") as page:
        second = await ann.project("second")
        headers = {"x-project-id": second}
        body = {"payload": 1, "key": "of-the-second", "accept_early": True}
        assert (await ann.client.post("/api/v1/workflows/w/run", json=body, headers=headers)).is_success
        await page.get_by_label("E-mail", exact=True).fill(ann.email)
        await page.get_by_role("textbox", name="Password").fill(PASSWORD)
        await page.keyboard.press("Enter")
        for project, there, elsewhere in (
            (served.project_id, "of-the-first", "of-the-second"),
            (second, "of-the-second", "of-the-first"),
        ):
            await page.get_by_label("Project").select_option(project)
            await page.wait_for_url(f"**/p/{project}/**")
            await page.get_by_role("link", name="Executions").click()
            await expect(page.get_by_role("main")).to_contain_text(there)
            assert elsewhere not in await page.content()
