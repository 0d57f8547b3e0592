"""People in the loop: a run that waits for somebody holds nothing, and what was approved is what runs."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import RequestInput
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDefinition
from pydantic_ai.toolsets import ExternalToolset
from tests.agents.scripted import Script, call, crashed
from tests.embedded.house import answer_when_asked, keys_of, reaches
from tests.kit.polling import until
from tests.server.serving import Served

from perdure.agents import DurableAgent, durable
from perdure.engine.base.service import Scope
from perdure.sdk.clients.client import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker
from perdure.sdk.workflows.workflow import Registry
from perdure.testing import embedded
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


def told(messages: list[ModelMessage], _: Any) -> str:
    """What the tools gave, as the model hears it."""
    return "; ".join(str(part.content) for m in messages for part in m.parts if isinstance(part, ToolReturnPart))


def refunds(paid: list[tuple[int, str]], script: Script | None = None, **options: Any) -> DurableAgent[None, str]:
    agent = Agent((script or Script(call("refund", "c1", order=7, reason="late"), told)).model, name="refunds")

    @agent.tool_plain(requires_approval=True)
    async def refund(order: int, reason: str) -> str:
        paid.append((order, reason))
        return f"paid {order}"

    return durable(agent, **options)


@pytest.fixture
def paid() -> list[tuple[int, str]]:
    return []


async def test_a_tool_runs_when_somebody_has_allowed_it_and_nothing_is_held_meanwhile(
    paid: list[tuple[int, str]],
) -> None:
    async with embedded(Registry()) as p:
        handle = await refunds(paid).start(p, "Money back!")
        await reaches(handle, Phase.WAITING)
        await until(lambda: p.worker.running == 0)
        assert paid == []
        await answer_when_asked(handle, "approve_refund_c1", {"approved": True})
        assert await handle.result() == "paid 7"
        assert await keys_of(handle, Kind.STEP, Kind.RESUME) == [
            "model:1",
            "approve_refund_c1",
            "tool:refund:c1",
            "model:2",
        ]
    assert paid == [(7, "late")]


@pytest.mark.slow
async def test_the_edited_arguments_are_what_runs(paid: list[tuple[int, str]]) -> None:
    async def during(client: Client, handle: Any) -> None:
        await answer_when_asked(
            handle, "approve_refund_c1", {"approved": True, "arguments": {"order": 8, "reason": "kind"}}
        )

    report = await crashed(refunds(paid), "Money back!", during=during)
    assert report.result == "paid 8"
    assert set(paid) == {(8, "kind")}


async def test_the_edited_arguments_reach_the_tool(paid: list[tuple[int, str]]) -> None:
    async with embedded(Registry()) as p:
        handle = await refunds(paid).start(p, "Money back!")
        await answer_when_asked(
            handle, "approve_refund_c1", {"approved": True, "arguments": {"order": 8, "reason": "kind"}}
        )
        assert await handle.result() == "paid 8"
    assert paid == [(8, "kind")]


async def test_an_edit_that_python_counts_as_equal_reaches_the_tool() -> None:
    """The values `1` and `True` are equal in Python, but differ in JSON."""
    agent = Agent(Script(call("show", "c1", value=1), told).model, name="shows")

    @agent.tool_plain(requires_approval=True)
    async def show(value: Any) -> str:
        return repr(value)

    async with embedded(Registry()) as p:
        handle = await durable(agent).start(p, "Show it!")
        await answer_when_asked(handle, "approve_show_c1", {"approved": True, "arguments": {"value": True}})
        assert await handle.result() == "True"


async def test_arguments_from_the_page_are_read_and_asked_for_again_when_they_are_none(
    paid: list[tuple[int, str]],
) -> None:
    async with embedded(Registry()) as p:
        handle = await refunds(paid).start(p, "Money back!")
        await answer_when_asked(handle, "approve_refund_c1", {"approved": True, "arguments": "{oops"})
        await answer_when_asked(
            handle, "approve_refund_c1:2", {"approved": True, "arguments": '{"order": 9, "reason": "x"}'}
        )
        assert await handle.result() == "paid 9"


async def test_arguments_that_the_tool_does_not_take_are_asked_for_again(paid: list[tuple[int, str]]) -> None:
    """The model hears nothing of a person's slip, and keeps its retries for its own slips."""
    script = Script(call("refund", "c1", order="seven"), call("refund", "c2", order=7, reason="late"), told)
    async with embedded(Registry()) as p:
        handle = await refunds(paid, script).start(p, "Money back!")
        slip = {"approved": True, "arguments": {"order": "nine", "reason": "x"}}
        await answer_when_asked(handle, "approve_refund_c2", slip)
        await until(lambda: script.asked[1] == 1)
        await reaches(handle, Phase.WAITING)
        [asked] = (await p.engine.serve(Scope(await p.engine.projects.default()), ListApprovals())).items
        assert asked.step_key == "approve_refund_c2:2"
        shown = msgspec.json.decode(asked.data)
        assert "order: " in shown["_form"]["description"] and shown["arguments"] == {"order": 7, "reason": "late"}
        await answer_when_asked(handle, asked.step_key, {"approved": True, "arguments": {"order": 9, "reason": "x"}})
        assert (await handle.result()).endswith("; paid 9")
    assert paid == [(9, "x")]


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        ({"approved": False, "feedback": "too much"}, "The call was denied: too much"),
        (False, "The call was denied."),
    ],
)
async def test_whoever_does_not_allow_it_tells_the_model_why(
    paid: list[tuple[int, str]], answer: Any, heard: str
) -> None:
    async with embedded(Registry()) as p:
        handle = await refunds(paid).start(p, "Money back!")
        await answer_when_asked(handle, "approve_refund_c1", answer)
        assert await handle.result() == heard
    assert paid == []


async def test_nobody_answers_in_time(paid: list[tuple[int, str]]) -> None:
    async with embedded(Registry()) as p:
        assert "in time" in await refunds(paid, answer_timeout=3_600).run(p, "Money back!")
    assert paid == []


async def test_several_questions_stand_at_the_same_time(paid: list[tuple[int, str]]) -> None:
    calls = [call("refund", f"c{n}", order=n, reason="r") for n in (1, 2, 3)]
    async with embedded(Registry()) as p:
        handle = await refunds(paid, Script(calls, told)).start(p, "All of it!")
        for n in (3, 1):
            await answer_when_asked(handle, f"approve_refund_c{n}", {"approved": True})
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "approve_refund_c2", {"approved": False})
        result = await handle.result()
    assert "paid 1" in result and "denied" in result and "paid 3" in result
    assert sorted(paid) == [(1, "r"), (3, "r")]


@pytest.mark.slow
async def test_a_tool_may_ask_for_approval_itself() -> None:
    spent: list[int] = []
    agent = Agent(Script(call("spend", "c1", cents=900), told).model, name="spender")

    @agent.tool
    async def spend(ctx: RunContext[object], cents: int) -> str:
        if cents > 500 and not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"why": "a lot"})
        spent.append(cents)
        return f"spent {cents}"

    async def during(client: Client, handle: Any) -> None:
        await answer_when_asked(handle, "approve_spend_c1", {"approved": True})

    report = await crashed(durable(agent), "Buy!", during=during)
    assert report.result == "spent 900" and spent


@pytest.mark.slow
async def test_the_agent_asks_its_user() -> None:
    script = Script(call("ask_user", "q1", question="Which colour?", options=["red", "blue"]), told)
    asker = durable(Agent(script.model, name="asker"), ask_user=True)

    async def during(client: Client, handle: Any) -> None:
        await answer_when_asked(handle, "ask_user_q1", {"answer": "blue"})

    report = await crashed(asker, "Paint!", during=during)
    assert report.result == "blue"
    assert script.tools[0] == ["ask_user"]


async def test_calls_that_are_made_outside_are_answered_from_outside() -> None:
    outside = ExternalToolset[None]([ToolDefinition(name="ship")], id="outside")
    script = Script(call("ship", "c1", order=7), told)
    shipping = durable(Agent(script.model, name="shipping", toolsets=[outside]))
    async with embedded(Registry()) as p:
        handle = await shipping.start(p, "Ship it!")
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "call_ship_c1", "parcel 9")
        assert await handle.result() == "parcel 9"


async def test_questions_of_the_librarys_own_kind_are_asked_too() -> None:
    agent = Agent(Script(call("wonder", "c1"), told).model, name="wonders")

    @agent.tool_plain
    async def wonder() -> str:
        raise CallDeferred(metadata={"question": "Why?"}, kind="question")

    async with embedded(Registry()) as p:
        handle = await durable(agent).start(p, "?")
        await answer_when_asked(handle, "ask_user_c1", {"answer": "because"})
        assert await handle.result() == "because"


async def test_a_request_for_input_of_the_library_waits_as_a_suspended_step(paid: list[tuple[int, str]]) -> None:
    asked: list[str] = []

    async def post(ctx: Any, requests: DeferredToolRequests, token: str) -> DeferredToolResults | None:
        asked.append(token)
        return None

    asking = RequestInput[None](post, timeout=timedelta(days=1))
    agent = refunds(paid, capabilities=[asking])
    async with embedded(Registry(), skip_time=False) as p:
        handle = await agent.start(p, "Money back!")
        await until(lambda: bool(asked))
        assert asked == [f"{handle.id}/event_deferred_tool_calls"]
        await handle.resume("event_deferred_tool_calls", {"approvals": {"c1": True}})
        assert await handle.result() == "paid 7"


async def test_the_question_is_answered_over_http_with_who_answered(
    served: Served, paid: list[tuple[int, str]]
) -> None:
    host, port = served.address
    client = Client.connect(url := f"http://{host}:{port}", served.key)
    transport = HttpTransport(url, served.key)
    lease = HttpLease(transport.urls, served.key, transport.leave)
    worker = Worker(transport, Registry(agent := refunds(paid)), lease=lease)
    await worker.start()
    try:
        handle = await agent.start(client, "Money back!")
        await reaches(handle, Phase.WAITING)
        path = f"/api/v1/approvals/{handle.id}/approve_refund_c1"
        shown = msgspec.json.decode((await served.client.get(path)).content)
        assert shown["data"]["arguments"] == {"order": 7, "reason": "late"}
        link = (await served.client.post(f"{path}/links", json={"name": "ann", "expires_in_seconds": 60})).json()
        page = await served.client.get(link["path"])
        assert "Allow refund?" in page.text and "late" in page.text
        edited = {"approved": True, "arguments": json.dumps({"order": 8, "reason": "by phone"})}
        answered = await served.client.post(f"{path}/submit", json={"data": edited})
        assert answered.status_code == 200, answered.text
        assert await handle.result() == "paid 8"
        listed = (await served.client.get("/api/v1/agents/refunds")).json()
        assert listed["metadata"] == {"output_schema_name": "str", "output_schema": {"type": "string"}}
        assert [tool["name"] for tool in listed["tools"]] == ["refund"]
        session = (await served.client.get(f"/api/v1/sessions/{handle.id}")).json()
        timeline = [(one["entry_type"], one["data"].get("content")) for one in session["timeline"]]
        said = [("user_message", "Money back!"), ("tool_call", None), ("assistant_message", "paid 8")]
        assert [one for one in timeline if not one[0].startswith("approval_")] == said
        [refund] = [one["data"] for one in session["timeline"] if one["entry_type"] == "tool_call"]
        assert (refund["tool_name"], refund["status"], refund["result"]) == ("refund", "completed", "paid 8")
        assert (session["tool_call_count"], session["approval_count"]) == (1, 1)
    finally:
        await worker.drain()
        await transport.close()
        await client.close()
    assert paid == [(8, "by phone")]
