"""What the library tells telemetry by itself (`instrument=`): each span once, however often the run is replayed."""

import asyncio
from collections import Counter

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai import Agent
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings
from tests.agents.scripted import Script, call
from tests.agents.test_code_hooks import Clock
from tests.embedded.house import answer_when_asked, reaches
from tests.kit.polling import until

from perdure import Registry
from perdure.agents import durable
from perdure.embedded import embedded
from perdure.wire.base.status import Phase


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_the_library_s_spans_are_emitted_once(database: str, parks: bool) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    telemetry = Instrumentation(settings=InstrumentationSettings(tracer_provider=provider))
    clerk = durable(Agent(Script("It is lost.").model, name="clerk", capabilities=[telemetry]))
    script = Script(
        call("look", "call_1", order=7),
        call("clerk", "call_2", prompt="Where is it?"),
        call("nap", "call_3"),
        call("clock", "call_6"),
        call("ask_user", "call_4", question="Again?"),
        call("refund", "call_5"),
        "Sorry.",
    )
    desk = Agent(script.model, name="desk", tools=[clerk.as_tool()], toolsets=[Clock()], capabilities=[telemetry])

    @desk.tool_plain
    async def look(order: int) -> str:
        with provider.get_tracer("shop").start_as_current_span("query"):
            return "on its way"

    @desk.tool_plain(metadata={"perdure": False})
    async def nap() -> str:
        await asyncio.sleep(0.01)
        return "rested"

    @desk.tool_plain(requires_approval=True)
    async def refund() -> str:
        return "done"

    support = durable(desk, ask_user=True)
    async with embedded(database, Registry(support, clerk), parks=parks) as p:
        handle = await support.start(p, "?")
        await until(lambda: script.asked[4] == 1)
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "ask_user_call_4", {"answer": "yes"})
        await until(lambda: script.asked[5] == 1)
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "approve_refund_call_5", True)
        assert await handle.result() == "Sorry."
    assert Counter(span.name for span in kept.get_finished_spans()) == {
        "invoke_agent desk": 1,
        "invoke_agent clerk": 1,
        "chat script": 8,
        "execute_tool look": 1,
        "query": 1,
        "execute_tool clerk": 1,
        "execute_tool nap": 1,
        "execute_tool ask_user": 1,
        "execute_tool refund": 1,
        "execute_tool clock": 1,
    }
    spans = {span.name: span for span in kept.get_finished_spans()}
    below, above = spans["query"].parent, spans["execute_tool look"].context
    assert below is not None and below.span_id == above.span_id, "what a tool opens stands below its call"
