"""The Python package `polos-sdk`, as it is in the package index, works with this server: client, worker and agents.

Each scenario is a function. Those that leave the others alone run side by side in one house, which costs a fraction of
one after the other in houses of their own; after them come those in which a process dies. So it is done with a key and
without one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.client.house import ClientError, House, house
from tests.databases import KINDS, POSTGRES, SQLITE, lent
from tests.kit.polling import until

Json = Any
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # they take turns: one worker per machine
    pytest.mark.skipif(sys.platform == "win32", reason="its worker's processes are driven by signals"),
]
# What the client sees is the same on both databases: on PostgreSQL it is told less often.
KEYED = [pytest.param(kind, marks=[pytest.mark.long] * (kind == POSTGRES)) for kind in KINDS]

AT_ONCE = 2
"""A limit on scenarios, so that the client's time limits (5 s to connect) do not count other work."""


@pytest.fixture(params=KEYED)
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """A house with a key."""
    async with lent(request.param, tmp_path) as store, house(store, tmp_path, with_key=True) as shop:
        yield shop


@pytest.fixture
async def keyless(tmp_path: Path) -> AsyncIterator[House]:
    """A house with `--insecure-local`, on a file."""
    async with lent(SQLITE, tmp_path) as store, house(store, tmp_path, with_key=False) as keyless:
        yield keyless


async def test_each_scenario_with_a_key(shop: House) -> None:
    await side_by_side(shop)
    await a_worker_is_killed(shop, until_missed=True)
    await a_run_kills_its_worker_each_time(shop)
    await the_server_starts_anew_twice(shop)
    await the_clock_starts_what_is_due(shop)


async def test_each_scenario_without_a_key(keyless: House) -> None:
    await side_by_side(keyless)
    await a_worker_is_killed(keyless)
    await the_server_starts_anew_twice(keyless)
    await the_clock_starts_what_is_due(keyless)


async def side_by_side(shop: House) -> None:
    """Run all scenarios that leave other scenarios alone, and report each failure."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(scenario: Callable[[House], Awaitable[None]]) -> None:
        async with turns:
            await scenario(shop)

    found = await asyncio.gather(*map(one, PEACEFUL), return_exceptions=True)
    failed = [error for error in found if isinstance(error, Exception)]
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(PEACEFUL)} scenarios", failed)


async def run(shop: House, workflow: str, payload: Json = None, **options: Json) -> Json:
    return await shop.ask("run", workflow=workflow, payload=payload, **options)


async def invoke(shop: House, workflow: str, payload: Json = None, **options: Json) -> str:
    handle = await shop.ask("invoke", workflow=workflow, payload=payload, **options)
    id: str = handle["id"]
    return id


# --- side by side --------------------------------------------------------------------------------------------------


async def a_program_runs_and_fails(shop: House) -> None:
    assert await run(shop, "plain", {"amount": 3}) == {"total": 21, "kind": "Order"}
    assert len(shop.noted("price")) == len(shop.noted("order")) == 1
    with pytest.raises(ClientError, match="it fails each time"):
        await run(shop, "fails", {})
    assert len(shop.noted("fails")) == 3


async def there_are_children_and_batches(shop: House) -> None:
    assert await run(shop, "parent", {"n": 1}) == {"n": 4, "same_session": True}
    assert await run(shop, "batch", {"items": [{"n": 1}, {"n": 2, "fail": True}, {"n": 3}]}) == [2, "no luck", 6]
    assert shop.noted("child 2").count("child 2") == 3 + 1, (
        "the parent's second child, and three tries of the one that fails"
    )
    kid = (await run(shop, "fire_and_forget", {}))["child"]
    assert (await shop.until_phase(kid, "completed"))["result"]["n"] == 10


async def a_batch_with_a_cancelled_child_ends(shop: House) -> None:
    id = await invoke(shop, "batch", {"items": [{"n": 100}, {"n": 101, "gate": "never opened"}]})
    await until(lambda: len(shop.noted("child 101")) == 1)
    children = (await shop.api("GET", f"/api/v1/executions?parent_execution_id={id}"))["executions"]
    [held] = [child["id"] for child in children if child["payload"]["n"] == 101]
    assert await shop.ask("cancel", id=held) is True
    await shop.until_phase(held, "cancelled", seconds=40)
    doubled, error = (await shop.until_phase(id, "completed"))["result"]
    assert doubled == 200 and "cancelled" in error
    assert len(shop.noted("child 101")) == 1, "what was cancelled is not tried again"


async def a_wait_lets_go_and_comes_back(shop: House) -> None:
    assert await run(shop, "nap", {"name": "short", "seconds": 1.0}) == "rested"
    assert shop.noted("nap short") == ["nap short begins", "nap short begins", "nap short ends"]


async def events_are_waited_for(shop: House) -> None:
    id = await invoke(shop, "on_event", {"topic": "news"})
    await shop.until_phase(id, "waiting")
    await run(shop, "publishes", {"topic": "news", "data": {"n": 1}})
    found = await shop.until_phase(id, "completed")
    assert found["result"] == {"data": {"n": 1}, "type": "told", "topic": "news"}
    with pytest.raises(ClientError, match="expired"):
        await run(shop, "on_event", {"topic": "silence", "timeout": 1})


async def what_is_suspended_is_resumed(shop: House) -> None:
    async def quick() -> None:
        id = await invoke(shop, "asks", {})
        asked = await shop.ask("suspended", workflow="asks", id=id)
        assert asked["step"] == "ask" and asked["data"]["question"] == "go on?"
        # At once: the answer overtakes the wait as often as not.
        await shop.ask("resume", workflow="asks", id=id, step="ask", data={"id": id})
        assert (await shop.until_phase(id, "completed"))["result"] == {"answer": {"id": id}}

    await asyncio.gather(*[quick() for _ in range(20)])
    slow = await invoke(shop, "asks", {})
    await shop.until_phase(slow, "waiting")
    await shop.ask("resume", workflow="asks", id=slow, step="ask", data={"late": 1})
    await shop.until_phase(slow, "completed")
    with pytest.raises(ClientError, match="expired"):
        await run(shop, "asks", {"timeout": 1})


async def what_runs_or_waits_is_cancelled(shop: House) -> None:
    id = await invoke(shop, "sleeps", {})
    await until(lambda: len(shop.noted("sleeps")) == 1)
    assert await shop.ask("cancel", id=id) is True
    found = await shop.until_phase(id, "cancelled", seconds=20)
    assert found["cancelled_by"] == "user"
    waiting = await invoke(shop, "nap", {"name": "long", "seconds": 600})
    await shop.until_phase(waiting, "waiting")
    assert await shop.ask("cancel", id=waiting) is True
    await shop.until_phase(waiting, "cancelled")
    assert await shop.ask("cancel", id="0190a5f2-7c1e-7b3a-9d55-0242ac120002") is False
    timed = await invoke(shop, "sleeps", {}, run_timeout_seconds=2)
    found = await shop.until_phase(timed, "cancelled", seconds=40)
    assert found["cancelled_by"] == "system"


async def a_queue_takes_one_at_a_time(shop: House) -> None:
    ids = [await invoke(shop, "narrow", {"n": n}) for n in range(8)]
    for id in ids:
        await shop.until_phase(id, "completed")
    order = sorted((int(line.split()[1]), line.split()[0]) for line in [*shop.noted("enter"), *shop.noted("leave")])
    assert [word for _, word in order] == ["enter", "leave"] * 8, "never two at once"


async def a_limit_counts_for_each_concurrency_key(shop: House) -> None:
    ids = [await invoke(shop, "keyed", {"name": name}, concurrency_key=name[0]) for name in ("a1", "a2", "b1", "b2")]
    await until(lambda: len(shop.noted("keyed")) >= 2)
    assert sorted(shop.noted("keyed")) == ["keyed a1 enters", "keyed b1 enters"], "of each key one, both at once"
    for name in ("b1", "a1"):
        shop.open(name)
    await until(lambda: len(shop.noted("keyed")) >= 6)
    for name in ("a2", "b2"):
        shop.open(name)
    for id, key in zip(ids, "aabb", strict=True):
        assert (await shop.until_phase(id, "completed"))["concurrency_key"] == key
    for key in "ab":
        said = [line for line in shop.noted("keyed") if line.split()[1][0] == key]
        assert said == [f"keyed {key}{n} {does}" for n in (1, 2) for does in ("enters", "leaves")], "never two of a key"


async def events_trigger_runs(shop: House) -> None:
    for n in range(4):
        await shop.ask("publish", topic="orders", event={"data": {"n": n}, "event_type": "made"})
    await until(lambda: len(shop.noted("triggered")) == 4)
    assert sorted(shop.noted("triggered")) == [f"triggered {n}" for n in range(4)]


async def events_trigger_runs_in_batches(shop: House) -> None:
    for n in range(6):
        await shop.ask("publish", topic="many", event={"data": {"n": n}})
    await until(lambda: len(shop.noted("batch")) == 2)
    assert sorted(shop.noted("batch")) == ["batch [0, 1, 2]", "batch [3, 4, 5]"]


async def a_batch_that_does_not_fill_is_started_by_its_timeout(shop: House) -> None:
    await shop.ask("publish", topic="few", event={"data": {"n": 0}})
    await until(lambda: len(shop.noted("late")) == 1)
    assert shop.noted("late") == ["late [0]"]
    for n in range(1, 5):
        await shop.ask("publish", topic="few", event={"data": {"n": n}})
    await until(lambda: "4]" in "".join(shop.noted("late")))
    taken = [int(n) for line in shop.noted("late") for n in line.removeprefix("late [").removesuffix("]").split(", ")]
    assert sorted(taken) == [0, 1, 2, 3, 4], "each once"


async def a_run_has_state(shop: House) -> None:
    id = await invoke(shop, "counts", {"by": 2}, initial_state={"count": 40})
    assert (await shop.until_phase(id, "completed"))["result"] == {"count": 42}


async def a_schedule_is_run_by_hand(shop: House) -> None:
    found = await shop.api("GET", "/api/v1/schedules/workflows/scheduled")
    [schedule] = found["schedules"]
    assert (schedule["cron"], schedule["timezone"], schedule["key"]) == ("0 3 1 1 *", "Europe/Berlin", "yearly")
    started = await shop.api("POST", f"/api/v1/schedules/{schedule['id']}/run")
    await shop.until_phase(started["execution_id"], "completed")
    assert shop.noted("scheduled") == ["scheduled yearly"]


async def agents_answer_use_tools_and_stream(shop: House) -> None:
    found = await shop.ask("agent", input="hello there")
    assert found["result"] == "HELLO THERE"
    found = await shop.ask("agent", input='use add {"a": 2, "b": 3}')
    assert "TOOL SAID" in found["result"] and "5" in found["result"]
    assert len(shop.noted("add")) == 1
    streamed = await shop.ask("stream", input="one two three")
    assert streamed["text"].split() == ["ONE", "TWO", "THREE"]


async def removal(shop: House, a: int, approved: bool) -> tuple[str, Json]:
    """Run the agent with a tool that a person approves or refuses. Returns the run's id, and the question."""
    id = await invoke(shop, "helper", {"input": f'use remove {{"a": {a}, "b": 0}}', "streaming": False})
    asked = await shop.ask("suspended", workflow="helper", id=id)
    await shop.ask("resume", workflow="helper", id=id, step=asked["step"], data={"approved": approved})
    await shop.until_phase(id, "completed")
    return id, asked


async def what_an_agent_did_can_be_looked_at(shop: House) -> None:
    id, asked = await removal(shop, 7, approved=True)
    trace_id = id.replace("-", "")
    trace: Json = {}

    async def whole() -> bool:  # its worker sends spans after the end; until then the journal's are there
        nonlocal trace
        trace = await shop.api("GET", f"/api/v1/traces/{trace_id}")
        linked = [span["name"] for span in trace["spans"] if span["span_id"].startswith("linked_") and span["output"]]
        return sorted(linked) == ["agent.helper", "tool.remove"]

    await until(whole)
    roots = [span for span in trace["spans"] if span["parent_span_id"] is None]
    assert [span["name"] for span in roots] == ["agent.helper"], "the pieces around the wait are one run"
    assert (trace["status"], trace["root_span_name"]) == ("completed", "agent.helper")
    assert len({span["span_id"] for span in trace["spans"]}) == trace["span_count"]
    listed = (await shop.api("GET", "/api/v1/traces?root_span_type=agent"))["traces"]
    assert [one["status"] for one in listed if one["trace_id"] == trace_id] == ["completed"]
    detail = await shop.api("GET", f"/api/v1/sessions/{id}")
    said = [entry["entry_type"] for entry in detail["timeline"]]
    assert said[0] == "user_message" and said[-1] == "assistant_message"
    assert {"approval_request", "approval_response", "tool_call"} <= set(said)
    assert [(one["step_key"], one["status"]) for one in detail["approvals"]] == [(asked["step"], "resolved")]
    assert detail["approvals"][0]["data"]["response"] == {"approved": True}
    sessions = (await shop.api("GET", "/api/v1/sessions"))["sessions"]
    [session] = [one for one in sessions if one["execution_id"] == id]
    assert (session["approval_count"], session["tool_call_count"]) == (1, 1)


async def a_tool_has_to_be_approved(shop: House) -> None:
    for a, approved in ((8, True), (9, False)):
        _, asked = await removal(shop, a, approved)
        assert asked["step"].startswith("approve_remove_")
        assert [field["key"] for field in asked["data"]["_form"]["fields"]] == ["approved", "feedback"]
        assert len(shop.noted(f"remove {a}")) == approved


async def an_agent_asks_the_user(shop: House) -> None:
    id = await invoke(shop, "helper", {"input": 'use ask_user {"question": "which?"}', "streaming": False})
    asked = await shop.ask("suspended", workflow="helper", id=id)
    assert asked["step"].startswith("ask_user_")
    await shop.ask("resume", workflow="helper", id=id, step=asked["step"], data={"response": "the blue one"})
    found = await shop.until_phase(id, "completed")
    assert "the blue one" in str(found["result"])


PEACEFUL: list[Callable[[House], Awaitable[None]]] = [
    a_program_runs_and_fails,
    there_are_children_and_batches,
    a_batch_with_a_cancelled_child_ends,
    a_wait_lets_go_and_comes_back,
    events_are_waited_for,
    what_is_suspended_is_resumed,
    what_runs_or_waits_is_cancelled,
    a_queue_takes_one_at_a_time,
    a_limit_counts_for_each_concurrency_key,
    events_trigger_runs,
    events_trigger_runs_in_batches,
    a_batch_that_does_not_fill_is_started_by_its_timeout,
    a_run_has_state,
    a_schedule_is_run_by_hand,
    agents_answer_use_tools_and_stream,
    what_an_agent_did_can_be_looked_at,
    a_tool_has_to_be_approved,
    an_agent_asks_the_user,
]


# --- one after the other -------------------------------------------------------------------------------------------


async def a_worker_is_killed(shop: House, *, until_missed: bool = False) -> None:
    """A new worker takes over the executions at once, or only when the server has noticed the loss."""
    id = await invoke(shop, "gated", {"name": "worker"})
    await until(lambda: len(shop.noted("stop worker")) == 1)
    await shop.kill("worker")
    if until_missed:
        await shop.until_phase(id, "queued", seconds=30)
        assert (await shop.api("GET", "/api/v1/workers/active")) == {"worker_ids": []}
    shop.open("worker")
    await shop.start_worker()
    found = await shop.until_phase(id, "completed")
    assert found["result"] == ["before", "open"]
    assert len(shop.noted("before worker")) == 1, "what was recorded does not run again"
    assert len(shop.noted("stop worker")) == 2


async def a_run_kills_its_worker_each_time(shop: House) -> None:
    id = await invoke(shop, "suicide", {})
    for times in range(1, 6):
        await until(lambda times=times: len(shop.noted("suicide")) >= times)  # type: ignore[misc]  # bound now
        assert shop.worker is not None
        await shop.worker.wait()
        await shop.start_worker()
    found = await shop.until_phase(id, "failed")
    assert "POISONED" in found["error"]
    assert await run(shop, "plain", {"amount": 1}) == {"total": 7, "kind": "Order"}


async def the_server_starts_anew_twice(shop: House) -> None:
    """The server is told to stop, later killed. Executions that run, sleep and ask live through both ends."""
    running = await invoke(shop, "gated", {"name": "server"})
    napping = await invoke(shop, "nap", {"name": "server", "seconds": 3})
    asking = await invoke(shop, "asks", {})
    await until(lambda: len(shop.noted("stop server")) == 1)
    await until(lambda: len(shop.noted("nap server")) >= 1)  # on a busy machine it may end before the server
    await shop.until_phase(asking, "waiting")
    await shop.stop_server()
    await shop.start_server()
    await shop.kill("server")
    await shop.start_server()
    shop.open("server")
    assert (await shop.until_phase(running, "completed"))["result"] == ["before", "open"]
    await shop.until_phase(napping, "completed")
    await shop.ask("resume", workflow="asks", id=asking, step="ask", data={"n": 1})
    await shop.until_phase(asking, "completed")
    assert len(shop.noted("before server")) == len(shop.noted("stop server")) == 1, "its worker went on all the time"


async def the_clock_starts_what_is_due(shop: House) -> None:
    """Looked at last: by now the minute is over, or nearly so."""
    await until(lambda: bool(shop.noted("ticks")), seconds=90)
    [schedule] = (await shop.api("GET", "/api/v1/schedules/workflows/ticks"))["schedules"]
    fires = (await shop.api("GET", f"/api/v1/schedules/{schedule['id']}/fires"))["fires"]
    assert fires and not any(fire["by_hand"] for fire in fires)
    for line in shop.noted("ticks"):
        assert datetime.fromisoformat(line.removeprefix("ticks ")).second == 0, line
