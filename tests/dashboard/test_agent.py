"""An agent's run as a conversation: words, calls, costs, and the open question."""

from typing import Any

from playwright.async_api import Browser, expect
from tests.dashboard.pages import HOSTILE, SHOWN, opened
from tests.dashboard.test_inbox import tool
from tests.server.agents.test_sessions import Agent
from tests.server.serving import Hand, Served

REFUND = "approve_refund_c1"


def said(*parts: dict[str, Any]) -> dict[str, Any]:
    """A model's answer as a durable agent records it."""
    usage = {"input_tokens": 2914, "output_tokens": 61, "cost": "0.0061"}
    return {"kind": "response", "model_name": "gpt-5.2", "parts": list(parts), "usage": usage}


def calls(name: str, id: str, **args: Any) -> dict[str, Any]:
    return {"part_kind": "tool-call", "tool_name": name, "tool_call_id": id, "args": args}


def step(key: str, name: str, value: Any) -> dict[str, Any]:
    return {
        "type": "step",
        "key": key,
        "name": name,
        "fingerprint": None,
        "ok": True,
        "value": value,
        "started_at_us": 1,
    }


async def run(served: Served, hand: Hand, *, text: str = "I looked it up.") -> str:
    """A run that has answered twice, called a tool, and waits for an approval."""
    id = await served.start("w", payload="My cup arrived broken.", session_id="mara", user_id="mara")
    item = await hand.claim()
    assert item["id"] == id
    entries = [
        step("model:1", "model.request", said(calls("find_order", "f1", order=text))),
        step("tool:find_order:f1", "tool.find_order", {"kind": "tool_return", "result": {"parcel": text}}),
        step(
            "model:2",
            "model.request",
            said({"part_kind": "text", "content": f"**Well**: {text}"}, calls("refund", "c1", euros=48)),
        ),
        {"type": "wait", "key": REFUND, "fingerprint": "f", "data": tool(euros=48), "expires_at_us": None},
    ]
    reply = await hand.report(item, entries=entries, end={"type": "suspend", "waits": [REFUND], "timer": None})
    assert reply["ended"], reply
    return id


async def test_a_run_is_read_priced_and_approved_where_it_is_told(
    chromium: Browser, served: Served, hand: Hand
) -> None:
    id = await run(served, hand)
    async with opened(chromium, served, f"/executions/{id}?tab=conversation") as shown:
        page = shown.page
        talk = page.get_by_label("Conversation", exact=True)
        await expect(talk).to_contain_text("My cup arrived broken.")
        await expect(talk.locator("strong")).to_have_text("Well")
        await expect(talk).to_contain_text("2,914 → 61")
        await expect(page.get_by_text("$0.0122")).to_be_visible()  # of both calls
        await talk.locator("summary", has_text="find_order").click()
        await expect(talk).to_contain_text('{"parcel":"I looked it up."}')
        await page.get_by_label("euros").fill("45")
        await page.get_by_role("button", name="Approve with edits").click()
        await expect(talk.locator(".tool.ask")).to_have_count(0)
    stands = (await served.client.get(f"/api/v1/approvals/{id}/{REFUND}")).json()
    assert stands["answer"] == {"approved": True, "arguments": {"euros": 45}}


async def test_last_words_are_shown_with_the_end_of_their_budget_wherever_they_are_read(
    chromium: Browser, served: Served, hand: Hand
) -> None:
    id = await served.start("w", payload="Where is it?", session_id="mara")
    spoken = step("model:1", "model.request", said({"part_kind": "text", "content": "Let me see."}))
    words = "nded early (budget): The budget is used up."
    end = {"type": "complete", "result": "Let me see."}
    await hand.report(
        await hand.claim(), entries=[spoken], end=end, progress={"stopped": "budget", "text": f"e{words}"}
    )
    for path in (f"/executions/{id}", f"/sessions/{id}"):
        async with opened(chromium, served, path) as shown:
            talk = shown.page.get_by_label("Conversation", exact=True)
            await expect(talk).to_contain_text("Let me see.")
            await expect(talk.locator(".note")).to_have_text(f"The run e{words}")
    async with opened(chromium, served, "/executions") as shown:
        await expect(shown.page.get_by_role("row").filter(has_text=id[-8:])).to_contain_text(f"E{words}")


async def test_text_of_models_and_tools_is_shown_as_text(chromium: Browser, served: Served, hand: Hand) -> None:
    id = await run(served, hand, text=f"{HOSTILE} [x](javascript:alert(1))")
    async with opened(chromium, served, f"/executions/{id}?tab=conversation", width=390, height=844) as shown:
        talk = shown.page.get_by_label("Conversation", exact=True)
        await expect(talk).to_contain_text(f"Well: {SHOWN} [x](javascript:alert(1))")
        await talk.locator("summary", has_text="find_order").click()
        assert await talk.locator("img, a[href^=javascript]").count() == 0


async def test_what_an_agent_spent_is_five_clicks_away(chromium: Browser, served: Served, hand: Hand) -> None:
    await run(served, hand)
    async with opened(chromium, served, "/") as shown:
        page = shown.page
        await shown.count_clicks()
        await page.get_by_role("link", name="Executions").click()
        await page.locator("tbody tr:not([aria-hidden]) a").first.click()
        await page.get_by_role("button", name="Conversation").or_(page.get_by_role("tab", name="Conversation")).click()
        await expect(page.get_by_text("$0.0122")).to_be_visible()
        assert await shown.clicks() <= 5


async def test_an_agents_numbers_stand_where_those_of_workflows_do(chromium: Browser, served: Served) -> None:
    agent = Agent(served.client)
    await agent.register()
    registered = await served.client.post(
        "/api/v1/agents/register", json={"id": "w", "deployment_id": "default", "provider": "p", "model": "m"}
    )
    assert registered.status_code == 200, registered.text
    id = await served.start("w", payload="Where is it?", session_id="mara")
    await agent.fail(await agent.claim(), "StepFailed: step 'look' failed after 3 tries: OSError: gone")
    async with opened(chromium, served, "/") as shown:
        page = shown.page
        await page.get_by_role("region", name="Workflows and agents").get_by_role("link", name="w").click()
        await expect(page.get_by_role("row").filter(has_text="OSError: gone in look")).to_be_visible()
        await page.get_by_role("button", name="Start with the input").click()
        await expect(page.locator("textarea").first).to_have_value('"Where is it?"')
        await page.locator("dl").get_by_role("link", name="w").click()
        await page.wait_for_url("**/agents/w")
        await page.get_by_role("link", name="Sessions").click()
        await expect(page.get_by_role("row").filter(has_text="mara")).to_contain_text("Failed")
        assert (await served.client.get(f"/api/v1/executions/{id}")).json()["status"] == "failed"
