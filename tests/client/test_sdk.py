"""The Python package `polos-sdk`, as it is in the package index, works with this server: client, worker and agents."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.house import ClientError, House, house
from tests.databases import KINDS, POSTGRES, lent

Json = Any
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # they take turns: one worker per machine
    pytest.mark.skipif(sys.platform == "win32", reason="its worker's processes are driven by signals"),
]


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.long] * (kind == POSTGRES)) for kind in KINDS])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of an empty store. What the client sees is the same on both: on PostgreSQL it is told less often."""
    async with lent(request.param, tmp_path) as address:
        yield address


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[House]:
    """With a key."""
    async with house(database, tmp_path, with_key=True) as shop:
        yield shop


@pytest.fixture
async def keyless(tmp_path: Path) -> AsyncIterator[House]:
    """With `--insecure-local`, on a file."""
    async with house(str(tmp_path / "perdure.db"), tmp_path, with_key=False) as keyless:
        yield keyless


async def run(shop: House, workflow: str, payload: Json = None, **options: Json) -> Json:
    return await shop.ask("run", workflow=workflow, payload=payload, **options)


async def invoke(shop: House, workflow: str, payload: Json = None, **options: Json) -> str:
    handle = await shop.ask("invoke", workflow=workflow, payload=payload, **options)
    id: str = handle["id"]
    return id


async def everyday(shop: House) -> None:
    """What every program does, in one house: each step of it is a scenario of its own."""
    assert await run(shop, "plain", {"amount": 3}) == {"total": 21, "kind": "Order"}
    assert len(shop.noted("price")) == len(shop.noted("order")) == 1

    assert await run(shop, "parent", {"n": 1}) == {"n": 4, "same_session": True}
    assert await run(shop, "batch", {"items": [{"n": 1}, {"n": 2, "fail": True}, {"n": 3}]}) == [2, "no luck", 6]
    assert shop.noted("child 2").count("child 2") == 3 + 1, (
        "the parent's second child, and three tries of the one that fails"
    )
    kid = (await run(shop, "fire_and_forget", {}))["child"]
    assert (await shop.until_phase(kid, "completed"))["result"]["n"] == 10

    assert await run(shop, "nap", {"seconds": 1.0}) == "rested"
    assert shop.noted("nap") == ["nap begins", "nap begins", "nap ends"]

    with pytest.raises(ClientError, match="it fails each time"):
        await run(shop, "fails", {})
    assert len(shop.noted("fails")) == 3


async def test_workflows_children_batches_and_waits(shop: House) -> None:
    await everyday(shop)


async def test_the_same_without_a_key(keyless: House) -> None:
    await everyday(keyless)


async def test_events(shop: House) -> None:
    id = await invoke(shop, "on_event", {"topic": "news"})
    await shop.until_phase(id, "waiting")
    await run(shop, "publishes", {"topic": "news", "data": {"n": 1}})
    found = await shop.until_phase(id, "completed")
    assert found["result"] == {"data": {"n": 1}, "type": "told", "topic": "news"}
    with pytest.raises(ClientError, match="expired"):
        await run(shop, "on_event", {"topic": "silence", "timeout": 1})


async def test_suspend_and_resume(shop: House) -> None:
    id = await invoke(shop, "asks", {})
    asked = await shop.ask("suspended", workflow="asks", id=id)
    assert asked["step"] == "ask" and asked["data"]["question"] == "go on?"
    # At once: the answer overtakes the wait as often as not.
    await shop.ask("resume", workflow="asks", id=id, step="ask", data={"yes": True})
    assert (await shop.until_phase(id, "completed"))["result"] == {"answer": {"yes": True}}

    async def quick() -> None:
        id = await invoke(shop, "asks", {})
        await shop.ask("suspended", workflow="asks", id=id)
        await shop.ask("resume", workflow="asks", id=id, step="ask", data={"id": id})
        assert (await shop.until_phase(id, "completed"))["result"] == {"answer": {"id": id}}

    await asyncio.gather(*[quick() for _ in range(20)])
    slow = await invoke(shop, "asks", {})
    await shop.until_phase(slow, "waiting")
    await shop.ask("resume", workflow="asks", id=slow, step="ask", data={"late": 1})
    await shop.until_phase(slow, "completed")
    with pytest.raises(ClientError, match="expired"):
        await run(shop, "asks", {"timeout": 1})


async def test_cancel(shop: House) -> None:
    id = await invoke(shop, "sleeps", {})
    await shop.until(lambda: len(shop.noted("sleeps")) == 1)
    assert await shop.ask("cancel", id=id) is True
    found = await shop.until_phase(id, "cancelled", seconds=20)
    assert found["cancelled_by"] == "user"
    waiting = await invoke(shop, "nap", {"seconds": 600})
    await shop.until_phase(waiting, "waiting")
    assert await shop.ask("cancel", id=waiting) is True
    await shop.until_phase(waiting, "cancelled")
    assert await shop.ask("cancel", id="0190a5f2-7c1e-7b3a-9d55-0242ac120002") is False
    timed = await invoke(shop, "sleeps", {}, run_timeout_seconds=2)
    found = await shop.until_phase(timed, "cancelled", seconds=40)
    assert found["cancelled_by"] == "system"


async def test_a_worker_that_is_killed(shop: House) -> None:
    id = await invoke(shop, "gated", {"name": "g"})
    await shop.until(lambda: len(shop.noted("stop")) == 1)
    await shop.kill("worker")
    shop.open("g")
    await shop.start_worker()
    found = await shop.until_phase(id, "completed")
    assert found["result"] == ["before", "open"]
    assert len(shop.noted("before")) == 1, "what was recorded does not run again"
    assert len(shop.noted("stop")) == 2


async def test_a_worker_that_is_gone_is_noticed(shop: House) -> None:
    await asyncio.sleep(0)
    id = await invoke(shop, "gated", {"name": "g"})
    await shop.until(lambda: len(shop.noted("stop")) == 1)
    await shop.kill("worker")
    await shop.until_phase(id, "queued", seconds=30)
    assert (await shop.api("GET", "/api/v1/workers/active")) == {"worker_ids": []}


async def test_a_run_that_kills_its_worker_each_time(shop: House) -> None:
    id = await invoke(shop, "suicide", {})
    for times in range(1, 6):
        await shop.until(lambda times=times: len(shop.noted("suicide")) >= times)
        assert shop.worker is not None
        await shop.worker.wait()
        await shop.start_worker()
    found = await shop.until_phase(id, "failed")
    assert "POISONED" in found["error"]
    assert await run(shop, "plain", {"amount": 1}) == {"total": 7, "kind": "Order"}


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_server_that_starts_anew(shop: House, how: str) -> None:
    running = await invoke(shop, "gated", {"name": "g"})
    napping = await invoke(shop, "nap", {"seconds": 3})
    asking = await invoke(shop, "asks", {})
    await shop.until(lambda: len(shop.noted("stop")) == 1)
    await shop.until_phase(napping, "waiting")
    await shop.until_phase(asking, "waiting")
    if how == "stopped":
        await shop.stop_server()
    else:
        await shop.kill("server")
    await shop.start_server()
    shop.open("g")
    assert (await shop.until_phase(running, "completed"))["result"] == ["before", "open"]
    await shop.until_phase(napping, "completed")
    await shop.ask("resume", workflow="asks", id=asking, step="ask", data={"n": 1})
    await shop.until_phase(asking, "completed")
    assert len(shop.noted("before")) == len(shop.noted("stop")) == 1, "its worker went on all the time"


async def test_queues_and_concurrency_keys(shop: House) -> None:
    ids = [await invoke(shop, "narrow", {"n": n}) for n in range(8)]
    for id in ids:
        await shop.until_phase(id, "completed")
    order = sorted((int(line.split()[1]), line.split()[0]) for line in [*shop.noted("enter"), *shop.noted("leave")])
    assert [word for _, word in order] == ["enter", "leave"] * 8, "never two at once"
    keyed = [await invoke(shop, "gated", {"name": f"k{n}"}, concurrency_key=f"key-{n}") for n in range(2)]
    await shop.until(lambda: len(shop.noted("stop k")) == 2)
    shop.open("k0")
    shop.open("k1")
    for id in keyed:
        assert (await shop.until_phase(id, "completed"))["concurrency_key"] in ("key-0", "key-1")


async def test_event_triggers(shop: House) -> None:
    shop.modules = "app triggers"
    await shop.kill("worker")
    await shop.start_worker()
    for n in range(4):
        await shop.ask("publish", topic="orders", event={"data": {"n": n}, "event_type": "made"})
    await shop.until(lambda: len(shop.noted("triggered")) == 4)
    assert sorted(shop.noted("triggered")) == [f"triggered {n}" for n in range(4)]
    for n in range(6):
        await shop.ask("publish", topic="many", event={"data": {"n": n}})
    await shop.until(lambda: len(shop.noted("batch")) == 2)
    assert sorted(shop.noted("batch")) == ["batch [0, 1, 2]", "batch [3, 4, 5]"]


async def test_state(shop: House) -> None:
    id = await invoke(shop, "counts", {"by": 2}, initial_state={"count": 40})
    assert (await shop.until_phase(id, "completed"))["result"] == {"count": 42}


async def test_schedules(shop: House) -> None:
    found = await shop.api("GET", "/api/v1/schedules/workflows/scheduled")
    [schedule] = found["schedules"]
    assert (schedule["cron"], schedule["timezone"], schedule["key"]) == ("0 3 1 1 *", "Europe/Berlin", "yearly")
    started = await shop.api("POST", f"/api/v1/schedules/{schedule['id']}/run")
    await shop.until_phase(started["execution_id"], "completed")
    assert shop.noted("scheduled") == ["scheduled yearly"]


async def test_agents(shop: House) -> None:
    found = await shop.ask("agent", input="hello there")
    assert found["result"] == "HELLO THERE"
    found = await shop.ask("agent", input='use add {"a": 2, "b": 3}')
    assert "TOOL SAID" in found["result"] and "5" in found["result"]
    assert len(shop.noted("add")) == 1
    streamed = await shop.ask("stream", input="one two three")
    assert streamed["text"].split() == ["ONE", "TWO", "THREE"]


async def test_what_an_agent_did_can_be_looked_at(shop: House) -> None:
    id = await invoke(shop, "helper", {"input": 'use remove {"a": 7, "b": 0}', "streaming": False})
    asked = await shop.ask("suspended", workflow="helper", id=id)
    await shop.ask("resume", workflow="helper", id=id, step=asked["step"], data={"approved": True})
    await shop.until_phase(id, "completed")
    trace: Json = {}

    async def whole() -> bool:  # its worker sends spans after the end; until then the journal's are there
        nonlocal trace
        trace = await shop.api("GET", f"/api/v1/traces/{id.replace('-', '')}")
        linked = [span["name"] for span in trace["spans"] if span["span_id"].startswith("linked_") and span["output"]]
        return sorted(linked) == ["agent.helper", "tool.remove"]

    await shop.until(whole)
    roots = [span for span in trace["spans"] if span["parent_span_id"] is None]
    assert [span["name"] for span in roots] == ["agent.helper"], "the pieces around the wait are one run"
    assert (trace["status"], trace["root_span_name"]) == ("completed", "agent.helper")
    assert len({span["span_id"] for span in trace["spans"]}) == trace["span_count"]
    listed = (await shop.api("GET", "/api/v1/traces?root_span_type=agent"))["traces"]
    assert [(one["trace_id"], one["status"]) for one in listed] == [(id.replace("-", ""), "completed")]
    detail = await shop.api("GET", f"/api/v1/sessions/{id}")
    said = [entry["entry_type"] for entry in detail["timeline"]]
    assert said[0] == "user_message" and said[-1] == "assistant_message"
    assert {"approval_request", "approval_response", "tool_call"} <= set(said)
    assert [(one["step_key"], one["status"]) for one in detail["approvals"]] == [(asked["step"], "resolved")]
    assert detail["approvals"][0]["data"]["response"] == {"approved": True}
    [session] = (await shop.api("GET", "/api/v1/sessions"))["sessions"]
    assert (session["execution_id"], session["approval_count"], session["tool_call_count"]) == (id, 1, 1)


async def test_a_tool_that_somebody_has_to_approve(shop: House) -> None:
    for approved in (True, False):
        before = len(shop.noted("remove"))
        id = await invoke(shop, "helper", {"input": 'use remove {"a": 7, "b": 0}', "streaming": False})
        asked = await shop.ask("suspended", workflow="helper", id=id)
        assert asked["step"].startswith("approve_remove_")
        assert [field["key"] for field in asked["data"]["_form"]["fields"]] == ["approved", "feedback"]
        await shop.ask("resume", workflow="helper", id=id, step=asked["step"], data={"approved": approved})
        await shop.until_phase(id, "completed")
        assert len(shop.noted("remove")) == before + approved


async def test_an_agent_asks_the_user(shop: House) -> None:
    id = await invoke(shop, "helper", {"input": 'use ask_user {"question": "which?"}', "streaming": False})
    asked = await shop.ask("suspended", workflow="helper", id=id)
    assert asked["step"].startswith("ask_user_")
    await shop.ask("resume", workflow="helper", id=id, step=asked["step"], data={"response": "the blue one"})
    found = await shop.until_phase(id, "completed")
    assert "the blue one" in str(found["result"])
