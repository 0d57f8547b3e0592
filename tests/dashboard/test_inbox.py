"""The inbox: questions are answered by mouse and by keys, with edits, on a telephone, and the first answer stands."""

from typing import Any, Final

from playwright.async_api import Browser, expect
from tests.dashboard.pages import HOSTILE, SHOWN, opened
from tests.server.agents.test_approvals import asked
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role


def tool(**arguments: Any) -> dict[str, Any]:
    """What a durable agent asks before it makes a call."""
    return {
        "tool": "refund",
        "tool_call_id": "c1",
        "arguments": arguments,
        "_form": {
            "title": "Allow refund?",
            "fields": [
                {"key": "approved", "type": "boolean", "label": "Allow the call?", "required": True},
                {"key": "arguments", "type": "textarea", "label": "Arguments", "default": "{}"},
                {"key": "feedback", "type": "textarea", "label": "Feedback"},
            ],
        },
        "_source": "agent",
        "_tool": "refund",
    }


FIELDS: Final = {
    "_form": {
        "title": "How shall it go?",
        "context": {"parcel": "2 kg"},
        "fields": [
            {"key": "way", "type": "select", "label": "Way", "options": ["land", "air"], "required": True},
            {"key": "boxes", "type": "integer", "label": "Boxes", "default": 2},
        ],
    }
}


async def answer(served: Served, id: str) -> Any:
    return (await served.client.get(f"/api/v1/approvals/{id}/approve")).json()


async def test_a_call_is_approved_with_edits_in_five_clicks(chromium: Browser, served: Served, hand: Hand) -> None:
    first = await asked(served, hand, tool(order=7, euros=480), execution_key="order-48300")
    second = await asked(served, hand, FIELDS)
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        await shown.count_clicks()
        await page.get_by_role("link", name="Inbox").click()
        rows = page.get_by_label("Open questions").get_by_role("listitem")
        await expect(rows.filter(has_text="w order-48300 asks")).to_have_count(1)
        await expect(rows.filter(has_text=f"w …{second[-8:]} asks")).to_have_count(1)
        await page.get_by_label("euros").click()
        await page.get_by_label("euros").fill("450")
        await expect(page.locator("s")).to_have_text("480")
        await page.get_by_role("button", name="Approve with edits").click()
        await expect(page.get_by_role("heading", name="How shall it go?")).to_be_visible()  # the next one opens
        assert await shown.clicks() <= 5
        await expect(page.locator(".item")).to_have_count(1)
        await page.get_by_role("button", name="Send the answer").click()
        await expect(page.get_by_text("Choose one", exact=True).last).to_be_visible()
        await page.get_by_label("Way").select_option("air")
        await page.get_by_role("button", name="Send the answer").click()
        await expect(page.locator(".item")).to_have_count(0)
    stands = await answer(served, first)
    assert stands["answer"] == {"approved": True, "arguments": {"order": 7, "euros": 450}}
    assert stands["answered_how"] == "api"
    assert (await answer(served, second))["answer"] == {"way": "air", "boxes": 2}


async def test_questions_are_answered_by_keys_alone(chromium: Browser, served: Served, hand: Hand) -> None:
    ids = [await asked(served, hand, tool(n=n)) for n in range(3)]
    async with opened(chromium, served, "/inbox") as shown:
        page = shown.page
        await expect(page.get_by_role("heading", name="refund(n=0)")).to_be_visible()
        await page.keyboard.press("a")
        await expect(page.get_by_role("heading", name="refund(n=1)")).to_be_visible()
        await page.keyboard.press("j")
        await expect(page.get_by_role("heading", name="refund(n=2)")).to_be_visible()
        await page.keyboard.press("k")
        await expect(page.get_by_role("heading", name="refund(n=1)")).to_be_visible()
        await page.keyboard.press("d")
        await expect(page.get_by_role("heading", name="refund(n=2)")).to_be_visible()
        await page.keyboard.press("e")
        await page.keyboard.press("Control+a")
        await page.keyboard.type("9")
        await page.keyboard.press("Control+Enter")
        await expect(page.get_by_role("heading", name="No question waits for an answer")).to_be_visible()
    given = [(await answer(served, id))["answer"] for id in ids]
    assert given == [{"approved": True}, {"approved": False}, {"approved": True, "arguments": {"n": 9}}]


async def test_a_key_works_as_soon_as_its_question_is_shown(chromium: Browser, served: Served, hand: Hand) -> None:
    for n in range(2):
        await asked(served, hand, tool(n=n))
    async with opened(chromium, served, "/inbox") as shown:
        page = shown.page
        await expect(page.get_by_role("heading", name="refund(n=0)")).to_be_visible()
        focused = page.evaluate(
            """() => new Promise((resolve) => {
                const pressed = (key) => new KeyboardEvent("keydown", { key, bubbles: true });
                const press = (key) => document.body.dispatchEvent(pressed(key));
                new MutationObserver((_, observer) => {
                    if (!document.querySelector("h2")?.textContent.includes("n=1")) return;
                    observer.disconnect();
                    press("e");
                    resolve(document.activeElement.tagName);
                }).observe(document.body, { childList: true, subtree: true, characterData: true });
                press("j");
            })"""
        )
        assert await focused == "INPUT"


async def test_who_comes_second_sees_who_was_first(chromium: Browser, served: Served, hand: Hand) -> None:
    id = await asked(served, hand, tool(n=1))
    async with opened(chromium, served, "/inbox") as shown:
        page = shown.page
        await expect(page.get_by_role("button", name="Approve")).to_be_visible()
        reply = await served.client.post(f"/api/v1/approvals/{id}/approve/submit", json={"data": {"approved": False}})
        assert reply.status_code == 200
        await expect(page.get_by_text("Rejected first by")).to_be_visible()
        await expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    async with opened(chromium, served, f"/inbox?item={id}/approve") as shown:
        await expect(shown.page.get_by_text("The first answer stands.")).to_be_visible()


async def test_a_link_is_made_for_a_person(chromium: Browser, served: Served, hand: Hand) -> None:
    await asked(served, hand, tool(n=1))
    async with opened(chromium, served, "/inbox") as shown:
        page = shown.page
        await page.get_by_role("button", name="Create link").click()
        await page.get_by_label("For whom").fill("ann@example.com")
        await page.keyboard.press("Control+Enter")
        link = await page.locator("dialog code").inner_text()
        await page.goto(link)
        await expect(page.get_by_text("Allow refund?")).to_be_visible()
    async with opened(chromium, served, "/inbox", role=Role.READ) as shown:
        await expect(shown.page.get_by_role("button", name="Approve")).to_be_disabled()


async def test_text_of_models_is_text_and_fits_a_telephone(chromium: Browser, served: Served, hand: Hand) -> None:
    id = await asked(served, hand, tool(to=HOSTILE) | {HOSTILE: {"deep": [HOSTILE]}})
    async with opened(chromium, served, f"/inbox?item={id}/approve", width=390, height=844) as shown:
        page = shown.page
        await expect(page.get_by_role("heading", level=2)).to_contain_text(SHOWN)
        await expect(page.locator(".pairs dt")).to_have_text(SHOWN)
        assert await page.locator("main img").count() == 0
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_role("heading", name="No question waits for an answer")).to_be_visible()
    assert (await answer(served, id))["answer"] == {"approved": True}
