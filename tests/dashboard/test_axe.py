"""No page has a serious finding of axe, in either theme."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect
from tests.dashboard.pages import completed, failed, opened
from tests.dashboard.test_resource_pages import spends
from tests.server.serving import Hand, Served

ROUTES: Final = Path(__file__).parents[2] / "dashboard" / "src" / "routes.tsx"


def paths(ids: dict[str, str]) -> list[str]:
    """Addresses of all pages, with the id of an existing thing where a page needs an id."""
    found = re.findall(r'\bpath: "(/[^"]*)", page', ROUTES.read_text())
    assert found, "routes.tsx names its pages otherwise"
    return [
        re.sub(r":(\w+)", lambda name: ids.get(name[1], ids["id"]), path)
        for path in dict.fromkeys(found)
        if path.count(":") < 2
    ]


def serious(found: Any) -> list[str]:
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_has_a_serious_finding(served: Served, hand: Hand, chromium: Browser, scheme: str) -> None:
    id = await failed(served, hand, workflow_id="w", key="order-1")
    await completed(served, hand, {"paid": True}, workflow_id="w", key="order-2")
    reply = await served.client.put("/api/v1/budgets/users", json={"per": "user", "calls": 1})
    assert reply.status_code == 200, reply.text
    assert [(await spends(served, hand, "ann"))[1] for _ in range(2)] == ["granted", "exceeded"]
    wrong: dict[str, list[str]] = {}
    for path in paths({"id": id}):
        async with opened(chromium, served, path, scheme=scheme) as shown:
            await shown.page.locator("main h1").first.wait_for()
            await expect(shown.page.locator("[aria-busy=true]")).to_have_count(0)
            findings = serious(await Axe().run(shown.page))
            if findings:
                wrong[path] = findings
    assert wrong == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_page_that_waits_for_its_timeline_has_no_serious_finding(
    served: Served, hand: Hand, chromium: Browser, scheme: str
) -> None:
    id = await failed(served, hand)
    async with opened(chromium, served, "/executions", scheme=scheme) as shown:
        await shown.page.route("**/timeline*", lambda _: None)  # it is never answered
        await shown.page.goto(f"/executions/{id}")
        await shown.page.get_by_text("in the queue", exact=True).wait_for()
        assert serious(await Axe().run(shown.page)) == []
