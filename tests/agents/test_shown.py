"""What `perdure show` says of an agent's run to a person, where the journal does not say it in words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ModelRetry
from tests.agents.scripted import Script, call
from tests.embedded.house import answer_when_asked, reaches
from tests.server.serving import Served
from typer.testing import CliRunner

from perdure import Client, Registry
from perdure.agents import durable
from perdure.cli.main import app
from perdure.cli.runs.conversation import unanswered
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker
from perdure.wire.base.status import Phase


class Answer(BaseModel):
    text: str
    sure: bool


@asynccontextmanager
async def working(served: Served, registry: Registry) -> AsyncIterator[Client]:
    host, port = served.address
    transport = HttpTransport(f"http://{host}:{port}", served.key)
    worker = Worker(transport, registry, lease=HttpLease(transport.urls, served.key, transport.leave))
    await worker.start()
    try:
        async with Client.connect(f"http://{host}:{port}", served.key) as client:
            yield client
    finally:
        await worker.drain()
        await transport.close()


async def shown(served: Served, id: str) -> list[str]:
    """The lines of the command, without what their columns are filled with."""
    host, port = served.address
    env = {"PERDURE_URL": f"http://{host}:{port}", "PERDURE_API_KEY": served.key, "COLUMNS": "200"}
    done = await asyncio.to_thread(CliRunner().invoke, app, ["show", id], env=env)
    assert done.exit_code == 0, done.output
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


async def test_a_call_that_nobody_allowed_and_outputs_that_were_refused_have_a_line_of_their_own(
    served: Served,
) -> None:
    async def no_keys(ctx: RunContext[None], output: Answer) -> None:
        if "sk_" in output.text:
            raise ModelRetry("Leave keys out.")

    script = Script(
        call("refund", "c1", cents=100),
        call("refund", "c2", cents="all"),
        call("final_result", "o1", text="hm"),
        "just words",
        call("final_result", "o2", text="sk_1", sure=True),
        call("final_result", "o3", text="fine", sure=True),
    )
    agent = Agent(script.model, name="clerk", output_type=Answer, retries=9)

    @agent.tool_plain(requires_approval=True)
    def refund(cents: int) -> str:
        return "paid"

    clerk = durable(agent, answer_timeout=0.2, output_guards=[no_keys])
    async with working(served, Registry(clerk)) as client:
        handle = await clerk.start(client, "Money back!")
        assert (await handle.result()).text == "fine"
        lines = await shown(served, handle.id)
    said = [line for line in lines if line.startswith(("person ", "refused ", "guard "))]
    assert said == [
        "person approve_refund_c1: it was not approved in time, so the call was not made",
        "refused refund: cents: Input should be a valid integer, unable to parse string as an integer "
        "the model is asked again",
        "refused final_result: sure: Field required the model is asked again",
        "refused Invalid JSON: expected value at line 1 column 1 the model is asked again",
        "guard no_keys: retry: Leave keys out.",
        "refused final_result: Leave keys out. the model is asked again",
        "guard no_keys: pass",
    ]
    calls = [n for n, line in enumerate(lines) if line.startswith(("model calls final_result", "model just"))]
    why = [n for n, line in enumerate(lines) if line.startswith("refused") and "refund" not in line]
    assert all(call < refused for call, refused in zip(calls, why, strict=False)), "each after what it is about"


async def test_a_message_that_another_turn_took_says_so(served: Served) -> None:
    agent = Agent(Script(call("hold", "c1"), "both").model, name="chat")

    @agent.tool_plain(requires_approval=True)
    def hold() -> str:
        return "held"

    async with working(served, Registry(chat := durable(agent))) as client:
        first = await chat.start(client, "first", session_id="s", on_conflict="queue")
        await reaches(first, Phase.WAITING)
        second = await chat.start(client, "second", session_id="s", on_conflict="deliver")
        await answer_when_asked(first, "approve_hold_c1", True)
        assert await second.result() == "both"
        lines = await shown(served, second.id)
    assert "user second" in lines
    assert f"agent answered together with an earlier message, in {first.id}; both have the same result" in lines
    assert not any("transcript" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("~ask_user_c1/timer", "ask_user_c1: the user did not answer in time"),
        ("~call_lookup_c1/timer#2", "call_lookup_c1: it was not answered in time"),
        (
            "~1_clerk_approve_call_me_c1/timer",
            "approve_call_me_c1: it was not approved in time, so the call was not made",
        ),
        ("~code_pause_call_9/timer", None),  # a tool that sleeps
        ("~model_2/timer", None),
        ("2/timer", None),
    ],
)
def test_which_timers_are_those_of_questions(key: str, says: str | None) -> None:
    assert unanswered(key) == says
