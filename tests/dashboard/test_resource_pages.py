"""Pages of workflows, queues, deployments, schedules, events, traces and settings: what each shows and does."""

import json
from typing import Any, Final

from playwright.async_api import Browser, Page, expect
from tests.dashboard.pages import HOSTILE, SHOWN, completed, opened
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

MARKUP: Final = "<i onclick=alert(1)>k</i>"
"""A name of markup. Names may not have invisible characters."""


async def get(served: Served, path: str) -> Any:
    reply = await served.client.get(f"/api/v1{path}")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def post(served: Served, path: str, body: Any) -> Any:
    reply = await served.client.post(f"/api/v1{path}", json=body)
    assert reply.status_code in (200, 201), reply.text
    return reply.json()


async def confirm(page: Page, word: str) -> None:
    """Press the button of the open dialog, and wait for the dialog's end."""
    await page.get_by_role("dialog").get_by_role("button", name=word).click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_an_execution_is_started_with_the_keyboard_alone(served: Served, hand: Hand, chromium: Browser) -> None:
    async with opened(chromium, served, "/queues") as shown:
        page = shown.page
        await page.get_by_role("heading", name="Queues", exact=True).wait_for()
        await page.keyboard.press("n")
        form = page.get_by_role("form", name="Start w")
        await form.get_by_label("Input as JSON").fill('{"order": 7')
        await page.keyboard.press("Control+Enter")
        await expect(form.get_by_text("1 field needs a change")).to_be_visible()
        assert (await get(served, "/executions"))["executions"] == []
        await form.get_by_label("Input as JSON").fill('{"order": 7}')
        await form.get_by_role("button", name="Options").press("Enter")
        await form.get_by_label("Key", exact=True).fill("order 7")
        await form.get_by_label("Tags").fill("shop=berlin")
        for kind, text in (
            ("perdure", "perdure run w \\\n  --input '{\"order\":7}' \\\n  --key 'order 7' \\\n  --tag shop=berlin"),
            ("Python", 'key="order 7"'),
            ("curl", "$PERDURE_API_KEY"),
        ):
            await form.get_by_role("button", name=kind, exact=True).press("Enter")
            await expect(form.locator("pre")).to_contain_text(text)
        await page.keyboard.press("Control+Enter")
        await page.wait_for_url("**/executions/*")
    [one] = (await get(served, "/executions"))["executions"]
    assert (one["payload"], one["key"], one["tags"]) == ({"order": 7}, "order 7", {"shop": "berlin"})


async def test_the_form_takes_the_input_of_an_execution(served: Served, hand: Hand, chromium: Browser) -> None:
    id = await completed(served, hand, "done", payload={"note": HOSTILE}, key="order-1")
    async with opened(chromium, served, "/workflows/w") as shown:
        await shown.page.get_by_role("button", name="Start with the input of order-1").click()
        field = shown.page.get_by_label("Input as JSON")
        assert json.loads(await field.input_value()) == {"note": HOSTILE}
        assert shown.page.url.endswith(f"/workflows/w?run=1&from={id}")
        await shown.page.get_by_role("button", name="Start", exact=True).last.click()
        await shown.page.wait_for_url("**/executions/*")
    newest = (await get(served, "/executions"))["executions"][0]
    assert newest["id"] != id and newest["payload"] == {"note": HOSTILE}


async def test_a_queue_is_paused_with_a_reason_and_resumed(served: Served, hand: Hand, chromium: Browser) -> None:
    await served.start(queue_name="mail", queue_concurrency_limit=3)
    async with opened(chromium, served, "/queues") as shown:
        page = shown.page
        await page.get_by_role("button", name="Pause mail").click()
        await page.get_by_label("Reason").fill(HOSTILE)
        await confirm(page, "Pause")
        await expect(page.get_by_role("status").filter(has_text="mail is paused")).to_contain_text(SHOWN)
        await expect(page.get_by_text("1 execution is held")).to_be_visible()
        [pause] = (await get(served, "/pauses"))["pauses"]
        assert (pause["kind"], pause["name"], pause["note"]) == ("queue", "mail", HOSTILE)
        await page.get_by_role("button", name="Resume mail").last.click()
        await confirm(page, "Resume")
        await expect(page.get_by_text("mail is paused")).to_have_count(0)
    assert (await get(served, "/pauses"))["pauses"] == []
    async with opened(chromium, served, "/queues", role=Role.WRITE) as shown:
        await expect(shown.page.get_by_role("button", name="Pause mail")).to_be_disabled()


async def test_new_executions_are_sent_to_another_deployment(served: Served, hand: Hand, chromium: Browser) -> None:
    await served.start()
    await served.start()
    wait: Any = {"type": "wait", "key": "ok?", "fingerprint": None, "data": {}}
    await hand.report(await hand.claim(), entries=[wait], end={"type": "suspend", "waits": ["ok?"]})
    await post(served, "/workers/deployments", {"deployment_id": "newer"})
    async with opened(chromium, served, "/deployments") as shown:
        page = shown.page
        await expect(page.get_by_role("listitem", name="newer")).to_contain_text("current")
        row = page.get_by_role("listitem", name="default")
        await expect(row.get_by_role("link", name="1 queued")).to_be_visible()
        await expect(row).to_contain_text("Drains since")
        await expect(row).to_contain_text("1 waits for an answer without a time limit.")
        await row.get_by_role("button", name="Use default", exact=True).click()
        await confirm(page, "Use")
        await expect(row).to_contain_text("current")
        again = Hand(served.client)
        await again.register()
        await page.get_by_role("group", name="Show").get_by_role("button", name="Workers").click()
        await expect(page.get_by_role("row").filter(has_text=again.id[:8])).to_contain_text("default")


async def test_a_schedule_from_its_preview_to_its_end(served: Served, hand: Hand, chromium: Browser) -> None:
    async with opened(chromium, served, "/schedules") as shown:
        page = shown.page
        await page.get_by_role("button", name="New schedule").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Cron expression").fill("0 25 * * *")
        await expect(dialog.locator("small .bad")).to_be_visible()
        await dialog.get_by_label("Cron expression").fill("30 7 1 * *")
        await dialog.get_by_label("Time zone").select_option("Asia/Tokyo")
        await dialog.get_by_label("Key").fill(MARKUP)
        await expect(dialog.get_by_text("Day 1 of each month at 7:30, Tokyo")).to_be_visible()
        await expect(dialog.locator(".times li")).to_have_count(10)
        await expect(dialog.locator(".times li").first).to_contain_text("07:30 UTC+09:00")
        await confirm(page, "Create")
        row = page.get_by_role("row").filter(has_text="Day 1 of each month")
        await expect(row).to_contain_text(MARKUP)
        await row.get_by_role("button", name="Run").click()
        await confirm(page, "Run")
        await row.get_by_role("button", name="Pause").click()
        await confirm(page, "Pause")
        await expect(row).to_contain_text("paused")
        await row.get_by_role("button", name="w", exact=True).click()
        await expect(page.get_by_role("region", name="Next due times")).to_contain_text("these times start nothing")
        [one] = (await get(served, "/schedules"))["schedules"]
        assert (one["status"], one["timezone"]) == ("paused", "Asia/Tokyo")
        assert len((await get(served, "/executions"))["executions"]) == 1
        await row.get_by_role("button", name="Delete").click()
        await confirm(page, "Delete")
        await expect(page.get_by_role("heading", name="No schedules yet")).to_be_visible()


async def test_an_event_appears_in_the_tail_of_its_topic(served: Served, hand: Hand, chromium: Browser) -> None:
    async with opened(chromium, served, "/events") as shown:
        page = shown.page
        await page.get_by_role("button", name="Publish").click()
        await page.get_by_label("Topic", exact=True).fill("orders/placed")
        await page.get_by_label("Data as JSON").fill(json.dumps({"note": HOSTILE}))
        await confirm(page, "Publish")
        await page.get_by_role("link", name="orders/placed").click()
        await expect(page.get_by_role("row").nth(1)).to_contain_text(SHOWN)
        await post(served, "/events/publish", {"topic": "orders/placed", "events": [{"data": {"order": 8}}]})
        await expect(page.get_by_role("row").nth(1)).to_contain_text('{"order":8}')  # it came by itself
        await page.get_by_role("button", name='{"order":8}').press("Enter")
        await expect(page.get_by_text('"order": 8')).to_be_visible()
        assert "event=2" in page.url


async def test_a_trace_and_one_of_its_spans(served: Served, hand: Hand, chromium: Browser) -> None:
    await completed(served, hand, {"receipt": HOSTILE}, key="order-1")
    async with opened(chromium, served, "/traces") as shown:
        page = shown.page
        await page.get_by_role("link", name="workflow.w").click()
        await page.get_by_role("button", name="workflow.w").click()
        span = page.get_by_role("complementary", name="Span")
        await expect(span).to_contain_text(SHOWN)
        await span.get_by_role("link", name="Open the execution").click()
        await page.wait_for_url("**/executions/*")


async def test_a_key_is_shown_once_and_works_until_it_is_deleted(served: Served, chromium: Browser) -> None:
    async def signs_in(key: str) -> bool:
        reply = await served.client.get("/api/v1/me", headers={"authorization": f"Bearer {key}"})
        return reply.status_code == 200

    async with opened(chromium, served, "/settings/keys") as shown:
        page = shown.page
        await page.get_by_role("button", name="New key").click()
        await page.get_by_label("Name").fill(MARKUP)
        await page.get_by_label("Role").select_option("read")
        await page.get_by_role("dialog").get_by_role("button", name="Create").click()
        key = await page.locator("code.secret").inner_text()
        assert key.startswith("sk_") and await signs_in(key)
        await page.get_by_role("button", name="I have copied it").click()
        await expect(page.locator("code.secret")).to_have_count(0)
        assert key not in await page.content()
        row = page.get_by_role("row").filter(has_text=MARKUP)
        await expect(row).to_contain_text("read")
        await row.get_by_role("button", name="Delete").click()
        await confirm(page, "Delete")
        await expect(row).to_have_count(0)
        assert not await signs_in(key)
    async with opened(chromium, served, "/settings/keys", role=Role.WRITE) as shown:
        await expect(shown.page.get_by_text("needs the role admin")).to_be_visible()


async def test_members_webhooks_and_the_look_of_pages(served: Served, chromium: Browser) -> None:
    async with opened(chromium, served, "/settings/members") as shown:
        page = shown.page
        await page.get_by_role("button", name="Add a member").click()
        await page.get_by_label("E-mail").fill("ann@example.com")
        await page.get_by_role("dialog").get_by_role("button", name="Add").click()
        await page.get_by_role("button", name="I have copied it").click()
        await page.get_by_role("button", name="Withdraw the invitation of ann@example.com").click()
        await confirm(page, "Withdraw")
        await expect(page.get_by_text("Open invitations")).to_have_count(0)
        await page.get_by_role("link", name="Webhooks").click()
        await page.get_by_role("button", name="New webhook").click()
        await page.get_by_label("URL", exact=True).fill("https://93.184.215.14/hook")
        await page.get_by_label("Description").fill(HOSTILE)
        await confirm(page, "Create")
        await expect(page.get_by_role("row").filter(has_text="https://93.184.215.14/hook")).to_contain_text(SHOWN)
        await page.get_by_role("link", name="Appearance").click()
        await page.get_by_role("button", name="Dark").press("Enter")
        await page.get_by_role("button", name="Compact").press("Enter")
        await page.reload()
        root = page.locator("html[data-theme=dark][data-density=compact]")
        await expect(root).to_have_count(1)


async def test_empty_pages_teach_the_next_step(served: Served, chromium: Browser) -> None:
    for path, code in (
        ("/workflows", "@workflow"),
        ("/queues", 'Queue("mail"'),
        ("/deployments", "perdure work app.py"),
        ("/schedules", "Schedule("),
        ("/events", "perdure publish"),
        ("/events/triggers", "trigger_on="),
        ("/traces", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("/settings/webhooks", "perdure webhooks create"),
        ("/welcome", "await ctx.sleep(20)"),
    ):
        async with opened(chromium, served, path) as shown:
            await expect(shown.page.locator("pre").filter(has_text=code)).to_be_visible()


async def test_a_trigger_is_made_and_changed_in_a_form(served: Served, hand: Hand, chromium: Browser) -> None:
    async with opened(chromium, served, "/events/triggers") as shown:
        page = shown.page
        await page.get_by_role("button", name="New trigger").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Topic").fill("orders/placed")
        await expect(dialog.get_by_text("Each event of the topic starts an execution of w.")).to_be_visible()
        await confirm(page, "Create")
        row = page.get_by_role("row").filter(has_text="orders/placed")
        await expect(row).to_contain_text("each event")
        await page.get_by_role("button", name="Edit the trigger of w on orders/placed").click()
        await dialog.get_by_label("Events for one execution").fill("0")
        await expect(dialog.get_by_role("button", name="Change")).to_be_disabled()
        await dialog.get_by_label("Events for one execution").fill("50")
        await dialog.get_by_label("Seconds to wait for them").fill("30")
        await confirm(page, "Change")
        await expect(row).to_contain_text("50 events or after 30 s")
    [one] = (await get(served, "/event-triggers"))["triggers"]
    assert (one["workflow_id"], one["batch_size"], one["batch_timeout_seconds"]) == ("w", 50, 30)


async def spends(served: Served, hand: Hand, user: str) -> tuple[str, str]:
    """A new execution of the user makes a model call, if the server grants the call."""
    id = await served.start(user_id=user)
    item = await hand.claim()
    call: dict[str, Any] = {"execution_id": id, "reservation_id": f"r-{id}", "amounts": {"calls": 1}}
    asked = {"worker_id": hand.id, "epoch": hand.epoch, "attempt": item["attempt"], **call}
    verdict = (await hand.say("reserve", asked))["verdict"]
    if verdict == "granted":
        await hand.say("settle", call)
    return id, verdict


async def test_a_shared_budget_from_its_creation_over_a_raise_to_its_end(
    served: Served, hand: Hand, chromium: Browser
) -> None:
    async with opened(chromium, served, "/budgets") as shown:
        page = shown.page
        await expect(page.locator("pre").filter(has_text="perdure budget set users")).to_be_visible()
        await page.get_by_role("button", name="New budget").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill(MARKUP)
        await dialog.get_by_label("Calls").fill("1.5")
        await expect(dialog.get_by_text("only dollars have decimals")).to_be_visible()
        await dialog.get_by_label("Calls").fill("1")
        await expect(dialog.get_by_text("Model calls of each user stop at these limits, each day.")).to_be_visible()
        await confirm(page, "Create")
        [made] = (await get(served, "/budgets"))["budgets"]
        assert (made["name"], made["per"], made["period"]) == (MARKUP, "user", "day")
        assert (made["calls"], made["usd_micros"]) == (1, None)
        await expect(page.get_by_text("Nothing is spent yet")).to_be_visible()
        assert (await spends(served, hand, "ann"))[1] == "granted"
        asking, verdict = await spends(served, hand, "ann")
        assert verdict == "exceeded"
        balances = page.get_by_role("region", name="Balances")
        row = balances.get_by_role("row").filter(has_text="ann")
        await expect(row).to_contain_text("1 of 1")
        await expect(row).to_contain_text("holds runs back")
        link = row.get_by_role("link", name="The one that asks")
        await expect(link).to_have_attribute("href", f"/executions/{asking}")
        await row.get_by_role("button", name="Raise ann").click()
        await dialog.get_by_label("Add calls").fill("4")
        await confirm(page, "Raise")
        await expect(row).to_contain_text("1 of 5")
        await expect(row).not_to_contain_text("holds runs back")
        await balances.get_by_label("Find a key").fill("bob")
        await page.keyboard.press("Enter")
        await expect(balances.get_by_text("This key has spent nothing.")).to_be_visible()
        await page.get_by_role("button", name=f"Change {MARKUP}").click()
        await dialog.get_by_label("Tokens").fill("9000")
        await dialog.get_by_label("When it is used up").select_option("finish")
        await confirm(page, "Change")
        await expect(page.get_by_role("row").filter(has_text="9,000 tokens, 1 call")).to_contain_text("finishes")
    async with opened(chromium, served, "/budgets", role=Role.WRITE) as shown:
        await expect(shown.page.get_by_role("button", name="New budget")).to_be_disabled()
        await expect(shown.page.get_by_role("button", name=f"Delete {MARKUP}")).to_be_disabled()
        await expect(shown.page.get_by_role("button", name="Raise ann")).to_be_enabled()
    async with opened(chromium, served, "/budgets") as shown:
        await shown.page.get_by_role("button", name=f"Delete {MARKUP}").click()
        await confirm(shown.page, "Delete")
        await expect(shown.page.get_by_role("heading", name="No shared budgets yet")).to_be_visible()
    assert (await get(served, "/budgets"))["budgets"] == []
