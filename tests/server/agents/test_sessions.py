"""Sessions over HTTP: memories and transcripts of agents."""

from typing import Any
from uuid import uuid4

import pytest
from tests.server.agents.test_approvals import asking, submit
from tests.server.serving import Hand, Served

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.wire.agents import agent_runs

MEMORY = "/internal/session/a%2Fb/memory"


async def test_memory_as_existing_clients_use_it(served: Served) -> None:
    reply = await served.client.get(MEMORY)
    assert (reply.status_code, reply.json()) == (200, {"messages": [], "version": 0, "summary": None})
    body = {"summary": "so far", "messages": [{"role": "user", "content": "hi"}], "unknown": "is ignored"}
    for version in (1, 2):
        reply = await served.client.put(MEMORY, json=body)
        assert (reply.status_code, reply.json()) == (200, {"version": version})
    known = (await served.client.get(MEMORY)).json()
    assert known == {"messages": body["messages"], "version": 2, "summary": "so far"}
    _, other = await served.other_project()
    assert (await served.client.get(MEMORY, headers=other)).json()["version"] == 0


async def test_a_concurrent_writer_is_told(served: Served) -> None:
    assert (await served.client.put(MEMORY, json={"messages": [1], "version": 0})).status_code == 200
    late = await served.client.put(MEMORY, json={"messages": [2], "version": 0})
    assert (late.status_code, late.json()["error_type"], late.json()["details"]) == (409, "CONFLICT", {"version": 1})
    late = await served.client.put(MEMORY, json={"messages": [2]}, headers={"if-match": '"7"'})
    assert late.status_code == 409
    assert (await served.client.get(MEMORY)).json()["messages"] == [1]
    reply = await served.client.put(MEMORY, json={"messages": [2]}, headers={"if-match": '"1"'})
    assert (reply.status_code, reply.json()) == (200, {"version": 2})


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        ({"summary": "s"}, {}, 422, "messages"),
        ({"messages": [], "version": -1}, {}, 422, "body.version"),
        ({"messages": [], "version": 2**63}, {}, 422, "body.version"),
        ({"messages": "x" * (8 << 20)}, {}, 422, "messages: "),
        ({"messages": [], "summary": "x" * (2 << 20)}, {}, 422, "summary: "),
        ({"messages": []}, {"if-match": "*"}, 400, "If-Match"),
    ],
)
async def test_what_cannot_be_kept(served: Served, body: Any, headers: dict[str, str], status: int, says: str) -> None:
    reply = await served.client.put(MEMORY, json=body, headers=headers)
    assert reply.status_code == status and says in reply.json()["error"]
    assert (await served.client.get(MEMORY)).json()["version"] == 0


# --- looking -------------------------------------------------------------------------------------------------------

RESULT = {
    "result": "It is sunny.",
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
    "tool_results": [{"tool_name": "weather", "status": "completed", "result": {"sun": True}}],
}


class Agent(Hand):
    """A worker with the agent workflows `w` and `x`, and a plain one."""

    async def register(self) -> Any:
        body = {"worker_id": self.id, "deployment_id": "default", "python": "3.11"}
        reply = await self.say(
            "register",
            {**body, "workflows": [{"id": "w", "type": "agent"}, {"id": "plain"}, {"id": "x", "type": "agent"}]},
        )
        self.epoch = reply["epoch"]
        return reply


@pytest.fixture
async def agent(served: Served) -> Agent:
    agent = Agent(served.client)
    await agent.register()
    return agent


async def listed(served: Served, query: str = "") -> list[Any]:
    reply = await served.client.get(f"/api/v1/sessions?{query}")
    assert reply.status_code == 200, reply.text
    found: list[Any] = reply.json()["sessions"]
    return found


async def test_sessions_are_grouped_runs_of_agents(served: Served, agent: Agent) -> None:
    first = await served.start(payload={"input": "How is the weather?"}, session_id="s")
    await agent.complete(await agent.claim(), RESULT)
    second = await served.start(payload={"message": "And now?"}, session_id="s")
    await agent.fail(await agent.claim(), "broken")
    alone = await served.start("x", "hello " * 50)
    await served.start("plain", {"input": "no agent"})
    child = {"parent_execution_id": alone, "step_key": "c"}
    await served.start("w", {"input": "not a root"}, **child)
    found = await listed(served)
    assert [one["execution_id"] for one in found] == [alone, second]
    assert found[0]["user_message_preview"] == ("hello " * 50)[:200] + "..."
    assert [found[0][name] for name in ("session_id", "status", "phase")] == [alone, "pending", "queued"]
    assert found[1] == {
        "execution_id": second,
        "agent_id": "w",
        "session_id": "s",
        "status": "failed",
        "phase": "failed",
        "user_message_preview": "How is the weather?",
        "created_at": (await served.client.get(f"/api/v1/executions/{first}")).json()["created_at"],
        "total_tokens": 15,
        "tool_call_count": 1,
        "approval_count": 0,
        "error": "broken",
        "execution_count": 2,
        "last_at": found[1]["last_at"],
        "last_message_preview": "And now?",
        "whole": found[1]["whole"],
    }
    for query, ids in {
        "agent_id=x": [alone],
        "agent_id=plain": [],
        "status=completed": [first],
        "limit=1&offset=1": [second],
        "end_time=2020-01-01T00:00:00Z": [],
        "start_time=2020-01-01T00:00:00Z": [alone, second],
    }.items():
        assert [one["execution_id"] for one in await listed(served, query)] == ids, query
    for query in ("limit=0", "offset=-1", "status=lost", "limit=501"):
        assert (await served.client.get(f"/api/v1/sessions?{query}")).status_code == 400, query
    _, other = await served.other_project()
    reply = await served.client.get("/api/v1/sessions", headers=other)
    assert reply.json() == {"sessions": [], "next_cursor": None}
    for unknown in (str(uuid4()), second):
        reply = await served.client.get(f"/api/v1/sessions/{unknown}", headers=other)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")


async def test_a_session_has_a_timeline(served: Served, agent: Agent) -> None:
    first = await served.start(payload={"input": "How is the weather?"}, session_id="s")
    await agent.complete(await agent.claim(), RESULT)
    second = await served.start(payload={"prompt": "Cancel my trip."}, session_id="s")
    item = await agent.claim()
    question = {"type": "wait", "key": "approve", "fingerprint": None, "topic": None, "data": {"_form": {"title": "?"}}}
    await agent.report(item, 1, entries=[question])
    detail = (await served.client.get(f"/api/v1/sessions/{second}")).json()
    assert (detail["status"], detail["approval_count"], detail["result"]) == ("running", 1, None)
    [approval] = detail["approvals"]
    assert (approval["step_key"], approval["status"], approval["resolved_at"]) == ("approve", "pending", None)
    assert approval["data"] == {"request": {"_form": {"title": "?"}}}
    await served.client.post(f"/api/v1/executions/{second}/resume/approve", json={"data": {"approved": True}})
    await agent.report(item, 2, seen=3, end={"type": "complete", "result": {"content": "Done."}})
    detail = (await served.client.get(f"/api/v1/sessions/{second}")).json()
    [approval] = detail["approvals"]
    assert (approval["status"], approval["data"]["response"]) == ("resolved", {"approved": True})
    said = [(one["entry_type"], one["data"].get("content")) for one in detail["timeline"]]
    assert said == [
        ("user_message", "How is the weather?"),
        ("tool_call", None),
        ("assistant_message", "It is sunny."),
        ("user_message", "Cancel my trip."),
        ("approval_request", None),
        ("approval_response", None),
        ("assistant_message", "Done."),
    ]
    assert [one["timestamp"] for one in detail["timeline"]] == sorted(one["timestamp"] for one in detail["timeline"])
    assert detail["timeline"][1]["data"] == {
        "tool_name": "weather",
        "status": "completed",
        "result": {"sun": True},
        "root_execution_id": first,
    }
    assert detail["timeline"][5]["data"] == {"event_type": "resume_approve", "payload": {"approved": True}}
    rest = {name: detail[name] for name in detail if not name.endswith("_at") and name not in ("timeline", "approvals")}
    assert rest == {
        "execution_id": second,
        "agent_id": "w",
        "session_id": "s",
        "status": "completed",
        "duration_ms": rest["duration_ms"],
        "error": None,
        "payload": {"prompt": "Cancel my trip."},
        "result": {"content": "Done."},
        "total_input_tokens": 10,
        "total_output_tokens": 5,
        "total_tokens": 15,
        "tool_call_count": 1,
        "approval_count": 1,
        "whole": rest["whole"],
    }
    assert [one["approval_count"] for one in await listed(served)] == [1]


async def test_tokens_of_a_durable_agent_are_those_of_its_journal(served: Served, agent: Agent) -> None:
    """The result is only the output. Tokens appear during the run, including those of agents handed over to."""

    def answer(key: str, given: int, taken: int, name: str = "model.request") -> Any:
        value = {"parts": [], "usage": {"input_tokens": given, "output_tokens": taken}, "kind": "response"}
        step = {"type": "step", "key": key, "name": name, "fingerprint": None, "ok": True, "value": value}
        return {**step, "started_at_us": 1}

    id = await served.start(payload="hi")
    item = await agent.claim()
    strange = {**answer("odd", 0, 0), "value": {"usage": {"input_tokens": "many"}}}
    await agent.report(item, 1, entries=[answer("model:1", 10, 5), answer("other", 99, 99, "step"), strange])
    await served.start("plain", {}, parent_execution_id=id, step_key="c")
    below = await agent.claim()
    await agent.report(below, 1, entries=[answer("model:1", 100, 50)])
    detail = (await served.client.get(f"/api/v1/sessions/{id}")).json()
    assert [detail[f"total{name}_tokens"] for name in ("_input", "_output", "")] == [110, 55, 165]
    assert [one["total_tokens"] for one in await listed(served)] == [165]
    await agent.complete(below)
    await agent.report(item, 2, seen=4, end={"type": "complete", "result": RESULT})
    assert [one["total_tokens"] for one in await listed(served)] == [15], "a result that names them has the word"


async def test_tools_of_a_durable_agent_are_those_of_its_journal(served: Served, agent: Agent) -> None:
    """Each tool call appears at its own time during the run, including the calls of agents handed over to."""

    def called(key: str, value: Any, name: str = "tool.refund", **more: Any) -> Any:
        step = {"type": "step", "key": key, "name": name, "fingerprint": None, "ok": True, "value": value}
        return {**step, "started_at_us": 1, **more}

    def gave(value: Any) -> Any:
        return {"kind": "tool_return", "result": value}

    asks, again = {"kind": "approval_required"}, {"kind": "model_retry", "message": "Which order?"}
    failure = {"type": "ValueError", "message": "no such order"}
    id = await served.start(payload="hi")
    item = await agent.claim()
    first = [
        called("tool:refund:call_1", {"usage": {}, "value": gave({"sum": 7})}),
        called("tool:refund:call_2", again),
        called("mcp:find:call_3", failure, "mcp.find", ok=False, last=False),
        called("mcp:find:call_3", failure, "mcp.find", ok=False),
        called("validate:refund:call_4", None, "tool.validate"),
        called("tool.refund", None),
        called("tool:refund:call_5", asks),
        called("tool:large:call_6", gave("x" * 20_000), "tool.large"),
    ]
    await agent.report(item, 1, entries=first)
    await served.start("plain", {}, parent_execution_id=id, step_key="c")
    below = await agent.claim()
    await agent.report(below, 1, entries=[called("agent:x/tool:refund:call_1", gave("below"))])

    async def shown() -> list[tuple[Any, ...]]:
        detail = (await served.client.get(f"/api/v1/sessions/{id}")).json()
        found = [one["data"] for one in detail["timeline"] if one["entry_type"] == "tool_call"]
        assert detail["tool_call_count"] == len(found) == (await listed(served))[0]["tool_call_count"]
        assert {one["root_execution_id"] for one in found} == {id}
        return [(one["tool_name"], one["status"], one["result"]) for one in found]

    done = [
        ("refund", "completed", {"sum": 7}),
        ("refund", "failed", "Which order?"),
        ("find", "failed", "no such order"),
    ]
    large, under = ("large", "completed", None), ("refund", "completed", "below")
    assert await shown() == [*done, ("refund", "waiting", "waits for approval"), large, under]
    await agent.report(item, 2, seen=9, entries=[called("tool:refund:call_5:2", gave("paid back"))])
    assert await shown() == [*done, large, under, ("refund", "completed", "paid back")]
    await agent.complete(below)
    await agent.report(item, 3, seen=11, end={"type": "complete", "result": RESULT})
    assert await shown() == [("weather", "completed", {"sun": True})], "a result that names them has the word"


async def test_what_is_asked_below_a_run_belongs_to_it(served: Served, agent: Agent) -> None:
    id = await served.start(payload="hi")
    await agent.claim()
    await served.start("plain", {}, parent_execution_id=id, step_key="c")
    item = await agent.claim()
    question = {"type": "wait", "key": "approve", "fingerprint": None, "topic": None, "data": {"q": 1}}
    await agent.report(item, 1, entries=[question])
    detail = (await served.client.get(f"/api/v1/sessions/{id}")).json()
    [approval] = detail["approvals"]
    assert (approval["step_key"], approval["status"], approval["data"]) == ("approve", "pending", {"request": {"q": 1}})
    assert [one["approval_count"] for one in await listed(served)] == [1]


async def test_questions_of_push_workers_go_over_the_runs_topic(served: Served, agent: Agent) -> None:
    id = await served.start(payload="hi")
    topic = f"workflow/w/{id}"
    for event_type, data in (("text_delta", "x"), ("suspend_ask", {"q": 1}), ("suspend_other", 2), ("resume_ask", 3)):
        body = {"topic": topic, "events": [{"event_type": event_type, "data": data}]}
        await served.client.post("/api/v1/events/publish", json=body)
    detail = (await served.client.get(f"/api/v1/sessions/{id}")).json()
    found = {one["step_key"]: (one["status"], one["data"]) for one in detail["approvals"]}
    assert found == {"ask": ("resolved", {"request": {"q": 1}, "response": 3}), "other": ("pending", {"request": 2})}


async def test_questions_that_share_a_key_are_told_apart(database: str) -> None:
    async with asking(database) as one:
        small, large = await one.children(2)
        for id, pay in ((small, 10), (large, 1_000_000)):
            await one.ask({"pay": pay}, id)
            await one.wait(id)
        await submit(one.served.client, small, "yes")
        detail = (await one.served.client.get(f"/api/v1/sessions/{one.id}")).json()
        found = [(approval["status"], approval["data"]) for approval in detail["approvals"]]
        assert found == [
            ("resolved", {"request": {"pay": 10}, "response": "yes"}),
            ("pending", {"request": {"pay": 1_000_000}}),
        ]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("text", "text"),
        ({"message": "m", "input": None}, "m"),
        ({"content": [1]}, [1]),
        ({"other": 1}, None),
        ([1], None),
        (None, None),
    ],
)
def test_what_the_user_said(payload: Any, message: Any) -> None:
    assert agent_runs.user_message(payload) == message


@pytest.mark.parametrize("result", [None, 1, [], {}, {"usage": 1, "tool_results": 2}, {"usage": {"total_tokens": "x"}}])
def test_any_result_is_borne(result: Any) -> None:
    assert agent_runs.usage(result) == agent_runs.Usage()
    assert agent_runs.tool_calls(result) == []
    assert agent_runs.assistant_message(result) is None


def test_the_output_of_a_durable_agent_is_what_it_said() -> None:
    assert agent_runs.assistant_message("hello") == "hello"
    assert agent_runs.assistant_message({"text": "hello", "sure": True}) == {"text": "hello", "sure": True}
    assert agent_runs.assistant_message({"result": 1, "usage": {}}) == 1


def answer(key: str, tokens: int, cost: str | None = None, model: str = "large") -> Any:
    used = {"input_tokens": tokens, "output_tokens": 1, **({"cost": cost} if cost else {})}
    value = {"kind": "response", "model_name": model, "parts": [], "usage": used}
    step = {"type": "step", "key": key, "name": "model.request", "fingerprint": None, "ok": True, "value": value}
    return {**step, "started_at_us": 1}


async def test_a_session_is_summed_over_all_its_turns(served: Served, agent: Agent) -> None:
    for n in range(3):
        await served.start(payload={"input": f"Question {n}"}, session_id="mara", key=f"order-{n}")
        item = await agent.claim()
        entries = [answer("model.request", 10, "0.25"), answer("model.request#2", 5)]
        await agent.report(item, entries=entries, end={"type": "complete", "result": "done"})
    other = await served.start("x", {"input": "Where is my parcel?"})
    (first, newest) = await listed(served, "limit=2")
    assert first["execution_id"] == other and first["whole"]["calls"] == 0
    assert (newest["execution_count"], newest["last_message_preview"]) == (1, "Question 2"), "of this page"
    whole = {"turns": 3, "calls": 6, "input_tokens": 45, "output_tokens": 6, "usd": 0.75, "unpriced": 3}
    assert newest["whole"] == {**whole, "cached_tokens": 0, "exact": True}
    detail = await served.client.get(f"/api/v1/sessions/{newest['execution_id']}")
    assert detail.json()["whole"] == newest["whole"]
    for words, sessions in (
        ("mar", ["mara"]),
        ("order-1", ["mara"]),
        ("question 0", ["mara"]),
        ("PARCEL", [other]),
        (other[:13], [other]),
        ("nothing", []),
    ):
        found = await served.client.get("/api/v1/sessions", params={"q": words})
        assert [one["session_id"] for one in found.json()["sessions"]] == sessions, words
        assert found.json()["next_cursor"] is None
    _, headers = await served.other_project()
    assert (await served.client.get("/api/v1/sessions?q=mara", headers=headers)).json()["sessions"] == []


async def test_what_agents_spent_is_told_by_time_model_and_agent(served: Served, agent: Agent) -> None:
    for workflow, model, cost in (
        ("w", "large", "0.5"),
        ("w", "small", None),
        ("x", "large", "0.25"),
        ("plain", "large", "9"),
    ):
        await served.start(workflow)
        entries = [answer("model.request", 10, cost, model)]
        await agent.report(await agent.claim(), entries=entries, end={"type": "complete", "result": None})
    await served.start("w")
    found = (await served.client.get("/api/v1/stats/spend")).json()
    assert (found["executions"], found["total"]["usd"], found["total"]["unpriced"], found["exact"]) == (
        4,
        0.75,
        1,
        True,
    )
    assert [(one["agent_id"], one["executions"], one["usd"]) for one in found["agents"]] == [
        ("w", 3, 0.5),
        ("x", 1, 0.25),
    ]
    assert [(one["model"], one["calls"]) for one in found["models"]] == [("large", 2), ("small", 1)]
    assert (len(found["buckets"]), found["step_seconds"]) == (96, 900)
    used = [one for one in found["buckets"] if one["calls"]]
    assert sum(one["usd"] for one in used) == 0.75 and sum(one["tokens"] for one in used) == 33
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        one = await client.stats.spend("7d", agent="x")
    assert (one.total.usd, one.total.input_tokens, [agent.agent_id for agent in one.agents]) == (0.25, 10, ["x"])
    for wrong in ("range=2h", "agent_id="):
        assert (await served.client.get(f"/api/v1/stats/spend?{wrong}")).status_code in (400, 422), wrong
