"""The page of an execution: timeline, inspector, time travel and actions."""

import json
import re
import time
from typing import Any

from playwright.async_api import Browser, Page, expect
from tests.dashboard.pages import HOSTILE, SHOWN, opened, overlap
from tests.server.serving import Hand, Served
from uuid_utils import uuid7

from perdure.wire.base.access import Role

TAME = HOSTILE.replace("\u202e", "")
"""A name may not hold the rest."""
HUGE = 123456789012345678901234567890


def step(key: str, value: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "type": "step",
        "key": key,
        "name": key,
        "fingerprint": None,
        "ok": True,
        "value": value,
        "started_at_us": 1_000_000,
        **fields,
    }


async def ordered(served: Served, hand: Hand, **fields: Any) -> str:
    """An execution with two steps that waits for an event."""
    id = await served.start(payload={"order": 7, "amount": HUGE}, **fields)
    item = await hand.claim()
    now_us = served.engine.clock.now_us()
    await hand.report(
        item,
        entries=[
            step("quote", {"cents": 1290, "exact": HUGE}, started_at_us=now_us - 90_000),
            step("charge", "receipt-7", started_at_us=now_us - 40_000),
            {"type": "wait", "key": "paid", "fingerprint": None, "topic": "payments"},
        ],
        end={"type": "suspend", "waits": ["paid"], "timer": None},
    )
    return id


def row(page: Page, name: str) -> Any:
    return page.locator(".wrow").filter(has_text=name)


async def test_the_page_says_why_and_shows_each_step(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand, key="order-7")
    async with opened(chromium, served, f"/executions/{id}") as shown:
        page = shown.page
        await expect(page.get_by_role("heading", level=1)).to_have_text("w")
        await expect(page.locator(".exhead")).to_contain_text("order-7")
        await expect(page.locator(".exsays")).to_contain_text("payments")
        await expect(row(page, "paid").locator(".bar1.wait")).to_have_count(1)
        await row(page, "quote").click()
        inspector = page.get_by_label("Inspector", exact=True)
        await expect(inspector).to_contain_text(str(HUGE))  # integers stay exact
        assert "row=quote" in page.url
        await page.reload()
        await expect(inspector.get_by_role("heading", name="quote")).to_be_visible()
        await page.keyboard.press("j")
        await expect(inspector.get_by_role("heading", name="charge")).to_be_visible()
        await page.keyboard.press("[")
        await expect(inspector).to_contain_text("State at row")
        assert "at=2" in page.url
        await page.keyboard.press("Escape")
        await expect(page.locator(".ribbon")).not_to_contain_text("Back to live")
        await page.keyboard.press("t")
        await expect(page.get_by_role("button", name="Clock time")).to_have_attribute("aria-pressed", "true")
        for tab, text in (
            ("Journal", "charge"),
            ("Input and result", str(HUGE)),
            ("Logs", "No log lines"),
            ("Children", "No children"),
        ):
            await page.locator("main > .extabs").get_by_role("tab", name=tab).click()
            await expect(page.locator(".exmain")).to_contain_text(text)


async def test_the_panel_shows_the_fields_that_say_something(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand, key="order-7", user_id="mara", session_id="tuesday")
    async with opened(chromium, served, f"/executions/{id}") as shown:
        panel = shown.page.get_by_label("Inspector", exact=True)
        await expect(panel.locator("dt")).to_have_text(
            ["Id", "Workflow", "Key", "Created", "Started", "Deployment", "Queue", "Worker", "User", "Session"]
        )
        await expect(panel.locator("dd").nth(2)).to_have_text("order-7")
        await expect(panel).not_to_contain_text("null")
        await expect(panel.get_by_role("button", name="Copy the id")).to_have_count(3)
        await expect(panel.get_by_role("button", name="Copy the execution as JSON")).to_be_visible()
        await panel.get_by_role("link", name="tuesday").click()
        await shown.page.wait_for_url("**/executions?session_id=tuesday")


async def test_an_unknown_execution_has_a_heading(served: Served, chromium: Browser) -> None:
    async with opened(chromium, served, f"/executions/{uuid7()}") as shown:
        await expect(shown.page.get_by_role("heading", level=1)).to_have_text("Execution")
        await expect(shown.page.get_by_role("alert")).to_contain_text("does not exist")


async def test_a_narrow_page_has_its_tools_right_below_its_tabs(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand)
    async with opened(chromium, served, f"/executions/{id}", width=390) as shown:
        await row(shown.page, "paid").wait_for()
        tabs, tools = await shown.page.evaluate(  # in one call, because content that loads moves both
            "['.tabset', '.tools'].map((name) => document.querySelector(name).getBoundingClientRect().toJSON())"
        )
        assert 0 <= tools["top"] - tabs["bottom"] < 10
        assert tools["right"] <= 390
        await shown.page.locator(".tabset").get_by_role("tab", name="Logs").click()
        code = shown.page.locator(".empty pre")
        assert not await overlap(code, shown.page.get_by_role("button", name="Copy the code"))


async def test_new_rows_appear_and_the_end_is_shown(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await served.start()
    item = await hand.claim()
    async with opened(chromium, served, f"/executions/{id}") as shown:
        await expect(shown.page.locator(".exhead .ph")).to_have_text("Running")
        await hand.report(item, entries=[step("first", 1)])
        await expect(row(shown.page, "first")).to_be_visible()
        await hand.report(item, 2, entries=[step("second", 2)], end={"type": "complete", "result": "all done"})
        await expect(row(shown.page, "second")).to_be_visible()
        await expect(shown.page.locator(".exhead .ph")).to_have_text("Completed")
        await expect(shown.page.get_by_role("button", name="Retry")).to_be_visible()


async def test_a_person_cancels_and_readers_may_not(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand)
    async with opened(chromium, served, f"/executions/{id}", role=Role.READ) as shown:
        await row(shown.page, "quote").wait_for()
        await shown.page.keyboard.press("c")
        await expect(shown.page.get_by_role("dialog").get_by_role("button", name="Cancel it")).to_be_disabled()
    async with opened(chromium, served, f"/executions/{id}") as shown:
        await row(shown.page, "quote").wait_for()
        await shown.page.keyboard.press("c")
        dialog = shown.page.get_by_role("dialog")
        await expect(dialog).to_contain_text("cannot be undone")
        await shown.page.keyboard.press("Control+Enter")
        await expect(dialog).to_have_count(0)
        await expect(shown.page.locator(".exhead .ph")).to_have_text("Cancelled")
    assert (await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] == "cancelled"


async def test_a_person_forks_from_a_row_with_another_input(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand)
    async with opened(chromium, served, f"/executions/{id}?row=charge") as shown:
        await row(shown.page, "charge").wait_for()
        await shown.page.keyboard.press("f")
        dialog = shown.page.get_by_role("dialog")
        await expect(dialog.get_by_label("First step that runs again")).to_have_value("charge")
        await dialog.get_by_label("Another input (JSON)").fill('{"order": 8')
        await expect(dialog).to_contain_text("is not JSON")
        await dialog.get_by_label("Another input (JSON)").fill('{"order": 8}')
        await shown.page.keyboard.press("Control+Enter")
        await expect(shown.page.locator(".facts")).to_contain_text("its source")
        fork = shown.page.url.rsplit("/", 1)[1].split("?")[0]
    found = (await served.client.get(f"/api/v1/executions/{fork}")).json()
    assert (found["forked_from"], found["forked_at_step"], found["payload"]) == (id, "charge", {"order": 8})


async def test_a_person_forks_with_another_result_of_a_step(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand)
    async with opened(chromium, served, f"/executions/{id}?row=quote") as shown:
        page = shown.page
        await page.get_by_role("button", name="Fork with another result").click()
        dialog = page.get_by_role("dialog")
        quote = dialog.get_by_label("Result of quote (JSON)")
        await expect(quote).to_have_value(re.compile(str(HUGE)))
        await expect(dialog).to_contain_text("a number of more than 15 digits")
        await quote.fill('{"cents": 5}')
        await dialog.get_by_label("Replace a recorded result").select_option("charge")
        await expect(dialog.get_by_label("Result of charge (JSON)")).to_have_value('"receipt-7"')
        await dialog.get_by_role("button", name="Keep the recorded result of charge").click()
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".facts")).to_contain_text("its source")
        fork = page.url.rsplit("/", 1)[1].split("?")[0]
    rows = (await served.client.get(f"/api/v1/executions/{fork}/steps")).json()["steps"]
    assert [(one["key"], one["value"]) for one in rows if one["kind"] == "step"] == [("quote", {"cents": 5})]


async def test_a_queued_execution_shows_the_line_that_it_is_in(served: Served, hand: Hand, chromium: Browser) -> None:
    ids = [await served.start(key=f"mail-{n}", queue_name="mail", queue_concurrency_limit=1) for n in range(3)]
    item = await hand.claim()
    assert item["id"] == ids[0]
    async with opened(chromium, served, f"/executions/{ids[2]}") as shown:
        line = shown.page.get_by_role("region", name="Next in line")
        await expect(line.get_by_role("heading")).to_contain_text("Next in line of mail · this one is number 2")
        await expect(line.locator("tbody tr")).to_have_count(2)
        await expect(line.locator("tbody tr").first).to_contain_text("mail-1")
        slots = shown.page.get_by_role("region", name="What it waits for")
        await slots.get_by_role("link").click()
        await shown.page.wait_for_url(f"**/executions/{ids[0]}")


async def test_a_lost_worker_is_a_line_and_no_step_ran_twice(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand)
    page_of = f"/api/v1/executions/{id}/timeline"
    lost = (await served.client.get(page_of)).json()
    lost["claims"][0] |= {"how": "lost", "to": lost["spans"][1]["ended_at"]}
    lost["claims"].append({"attempt": 2, "worker": "b" * 32, "from": lost["spans"][1]["ended_at"], "seq": 4})
    lost["spans"][1]["runs"] = [
        {
            "attempt": 1,
            "worker": "a" * 32,
            "n": 1,
            "started_at": lost["spans"][0]["started_at"],
            "lost_at": lost["spans"][0]["ended_at"],
        }
    ]
    lost["proof"] = {"lost": 1, "steps_rerun": 0}
    async with opened(chromium, served, "/executions") as shown:
        await shown.page.route(f"**{page_of}?after=0*", lambda route: route.fulfill(body=json.dumps(lost)))
        await shown.page.goto(f"/executions/{id}")
        await expect(shown.page.locator(".exhead")).to_contain_text("1 worker lost · 0 recorded steps repeated")
        await expect(shown.page.locator(".crash")).to_contain_text("lost")
        await expect(row(shown.page, "charge").locator(".bar1.lost")).to_have_count(1)
        read_out = re.compile("2nd run, same idempotency key")  # beside the bars only where they leave room
        await expect(row(shown.page, "charge")).to_have_attribute("aria-label", read_out)


async def test_the_timeline_zooms_pans_and_fits(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await served.start()
    item = await hand.claim()
    now_us = served.engine.clock.now_us()
    steps = [step("quote", started_at_us=now_us - 8_000_000), step("charge", started_at_us=now_us - 400_000)]
    await hand.report(item, entries=steps, end={"type": "complete", "result": None})
    wider = "([width, times]) => document.querySelectorAll('.bar1')[1].offsetWidth > times * width"
    async with opened(chromium, served, f"/executions/{id}") as shown:
        page = shown.page
        charge = row(page, "charge").locator(".bar1")
        fitted = await charge.bounding_box()
        assert fitted is not None
        middle = (fitted["x"] + fitted["width"] / 2, fitted["y"] + 5)
        await page.mouse.move(*middle)
        await page.keyboard.down("Control")
        await page.mouse.wheel(0, -600)
        await page.keyboard.up("Control")
        await page.wait_for_function(wider, arg=[fitted["width"], 2])
        zoomed = await charge.bounding_box()
        assert zoomed is not None
        assert abs(zoomed["x"] + zoomed["width"] / 2 - middle[0]) < 20  # the moment under the pointer stays there
        await page.mouse.down()
        await page.mouse.move(middle[0] + 10, middle[1], steps=4)
        await page.mouse.up()
        panned = await charge.bounding_box()
        assert panned is not None
        assert panned["x"] - zoomed["x"] > 4
        assert "row=" not in page.url  # the drag chose no row
        await page.mouse.click(*middle)
        await page.wait_for_url("**row=charge")
        await page.mouse.dblclick(*middle)
        await page.wait_for_function(f"(it) => !({wider})(it)", arg=[fitted["width"], 1.1])
        for _ in range(4):
            await page.keyboard.press("+")
        await expect(charge).to_have_count(0)  # keys zoom into the middle, and the last bar leaves the view
        await page.keyboard.press("-")
        await page.keyboard.press("0")
        await expect(charge).to_have_count(1)


async def test_hostile_text_stays_text(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await served.start(
        payload={HOSTILE: HOSTILE},
        key="<b>k</b>",
        user_id="<b>u</b>",
        tags={"t": HOSTILE},
        concurrency_key=TAME,
        queue_name="q",
    )
    item = await hand.claim()
    error = {
        "type": HOSTILE,
        "message": HOSTILE,
        "detail": f'Traceback\n  File "{HOSTILE}", line 1, in {HOSTILE}\n    {HOSTILE}\n',
    }
    reply = await hand.report(
        item,
        entries=[step(TAME, {HOSTILE: [HOSTILE]}), step("bad", error, ok=False)],
        end={"type": "fail", "error": HOSTILE, "detail": {"message": HOSTILE}},
    )
    assert reply.get("ended"), reply
    async with opened(chromium, served, f"/executions/{id}") as shown:
        await expect(row(shown.page, TAME)).to_be_visible()
        await row(shown.page, TAME).click()
        await expect(shown.page.get_by_label("Inspector", exact=True)).to_contain_text(SHOWN)
        await row(shown.page, "bad").click()
        await expect(shown.page.get_by_label("Inspector", exact=True)).to_contain_text(SHOWN)
        for tab in ("Journal", "Input and result"):
            await shown.page.locator("main > .extabs").get_by_role("tab", name=tab).click()
            await expect(shown.page.locator(".exmain")).to_contain_text(SHOWN)
        assert await shown.page.locator("img").count() == 0


async def test_five_thousand_rows_are_few_nodes(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await served.start()
    item = await hand.claim()
    for number in range(10):
        entries = [step(f"item {number * 500 + n}", n) for n in range(500)]
        await hand.report(item, number + 1, entries=entries)
    async with opened(chromium, served, "/executions") as shown:
        page = shown.page
        began = time.monotonic()
        await page.goto(f"/executions/{id}")
        await page.locator(".wrow").first.wait_for()
        first_row = time.monotonic() - began
        await expect(page.locator(".ribbon")).to_contain_text(re.compile(r"5,00\d rows"))
        assert await page.locator(".wf *").count() <= 200
        await page.locator(".wf").evaluate("(it) => (it.scrollTop = it.scrollHeight)")
        await expect(row(page, "item 4999")).to_be_visible()
        assert await page.locator(".wf *").count() <= 200
        print(f"first of 5,000 rows after {first_row * 1000:.0f} ms")  # noqa: T201  # a time on a busy machine decides nothing


async def test_two_executions_are_compared_by_key(served: Served, hand: Hand, chromium: Browser) -> None:
    ids = []
    for cents in (1290, 1390):
        ids.append(await served.start(payload={"order": 7}))
        entries = [step("stock", True), step("quote", {"cents": cents, "exact": HUGE})]
        await hand.report(await hand.claim(), entries=entries, end={"type": "complete", "result": "paid"})
    async with opened(chromium, served, f"/executions/{ids[0]}/compare/{ids[1]}") as shown:
        main = shown.page.get_by_role("main")
        await expect(main).to_contain_text("1 difference, 3 equal outcomes")
        await expect(main.locator(".diff")).to_have_text(['"cents": 1290,', '"cents": 1390,'])
        await expect(main).to_contain_text(str(HUGE))


async def test_a_person_decides_a_wait(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await ordered(served, hand)
    async with opened(chromium, served, f"/executions/{id}?row=paid") as shown:
        inspector = shown.page.get_by_label("Inspector", exact=True)
        await inspector.get_by_role("button", name="Complete it").click()
        dialog = shown.page.get_by_role("dialog")
        await expect(dialog.get_by_role("button", name="Complete it")).to_be_disabled()
        await dialog.get_by_label("Value (JSON)").fill('{"paid": true}')
        await dialog.get_by_label("Note").fill("paid in cash")
        await dialog.get_by_role("button", name="Complete it").click()
        await expect(dialog).to_have_count(0)
        await expect(row(shown.page, "paid")).to_have_attribute("aria-label", re.compile("decided by hand"))
    acts = (await served.client.get(f"/api/v1/executions/{id}/steps")).json()["acts"]
    assert [(act["action"], act["key"], act["note"]) for act in acts] == [("complete", "paid", "paid in cash")]
