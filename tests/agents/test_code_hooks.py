"""Hooks around tools that are not steps: each hook runs once, despite replays, and the hook's outcome is recorded."""

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry import context as telemetry
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ExternalToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_ai.toolsets.external import TOOL_SCHEMA_VALIDATOR
from tests.agents.scripted import Script, call, crashed
from tests.embedded.house import answer_when_asked, keys_of, reaches

from perdure import ExecutionFailed, Registry, current_step
from perdure.agents import Call, CallHook, durable
from perdure.agents.runs import current_run
from perdure.testing import embedded
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


class Watch(CallHook):
    """Tells what it sees of tools."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def before(self, call: Call) -> None:
        if call.kind == "tool":
            self.seen.append(f"before {call.name} {call.arguments} in {current_step().key}")

    async def after(self, call: Call, result: Any) -> None:
        if call.kind == "tool":
            self.seen.append(f"after {call.name}: {result}")

    async def failed(self, call: Call, error: Exception) -> None:
        if call.kind == "tool":
            self.seen.append(f"failed {call.name}: {error!r}")


def pausing(script: Script) -> Agent[None, str]:
    agent = Agent(script.model, name="pausing")

    @agent.tool_plain(metadata={"perdure": False})
    async def pause(hours: int) -> str:
        await asyncio.sleep(hours * 3_600)
        return f"{hours} h later"

    return agent


async def test_hooks_come_once_around_a_tool_that_is_the_agents_code() -> None:
    watch = Watch()
    agent = durable(pausing(Script(call("pause", "c1", hours=2), "done")), hooks=[watch])
    async with embedded(Registry(), parks=False) as p:
        handle = await agent.start(p, "?")
        assert await handle.result() == "done"
        assert await keys_of(handle, Kind.STEP) == [
            "model:1",
            "hook.before:pause:c1",
            "hook.after:pause:c1",
            "model:2",
        ]
    assert watch.seen == ["before pause {'hours': 2} in hook.before:pause:c1", "after pause: 2 h later"]


async def test_hooks_that_have_nothing_to_do_with_it_record_nothing() -> None:
    class After(CallHook):
        async def after(self, call: Call, result: Any) -> None:
            pass

    for hooks, keys in (((CallHook(),), []), ((After(),), ["hook.after:pause:c1"])):
        agent = durable(pausing(Script(call("pause", "c1", hours=2), "done")), hooks=hooks)
        async with embedded(Registry()) as p:
            handle = await agent.start(p, "?")
            assert await handle.result() == "done"
            assert await keys_of(handle, Kind.STEP) == ["model:1", *keys, "model:2"]


@pytest.mark.slow
async def test_wherever_it_crashes_a_recorded_hook_does_not_come_again() -> None:
    script = Script([call("pause", "c1", hours=1), call("pause", "c2", hours=2)], "done")
    report = await crashed(durable(pausing(script), hooks=[Watch()]), "?")
    assert report.result == "done"


async def test_people_other_agents_and_toolsets_of_other_classes_have_them_too() -> None:
    watch = Watch()
    clerk = durable(Agent(Script("I am a clerk").model, name="clerk"))
    script = Script(
        [
            call("ask_user", "c1", question="Who?"),
            call("clerk", "c2", prompt="Who?"),
            call("outside", "c3", at=7),
            call("clock", "c4"),
        ],
        "done",
    )
    outside = ToolDefinition(name="outside", parameters_json_schema={"type": "object", "properties": {"at": {}}})
    toolsets = [ExternalToolset[None]([outside], id="ext"), Clock()]
    agent = Agent(script.model, name="desk", tools=[clerk.as_tool()], toolsets=toolsets)
    desk = durable(agent, hooks=[watch], ask_user=True)
    async with embedded(Registry(desk, clerk), parks=False) as p:
        handle = await desk.start(p, "?")
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "ask_user_c1", {"answer": "Ann"})
        await answer_when_asked(handle, "call_outside_c3", 49)
        assert await handle.result() == "done"
    assert sorted(watch.seen) == [
        "after ask_user: Ann",
        "after clerk: I am a clerk",
        "after clock: noon",
        "after outside: 49",
        "before ask_user {'question': 'Who?', 'options': None} in hook.before:ask_user:c1",
        "before clerk {'prompt': 'Who?'} in hook.before:clerk:c2",
        "before clock {} in hook.before:clock:c4",
        "before outside {'at': 7} in hook.before:outside:c3",
    ]


class Clock(AbstractToolset[None]):
    """A toolset of a custom class."""

    @property
    def id(self) -> str | None:
        return None

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        tool = ToolDefinition(name="clock", parameters_json_schema={"type": "object", "properties": {}})
        return {"clock": ToolsetTool(toolset=self, tool_def=tool, max_retries=1, args_validator=TOOL_SCHEMA_VALIDATOR)}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> Any:
        return "noon"


class Refuses(CallHook):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def before(self, call: Call) -> None:
        if call.kind == "tool" and call.tool_call_id == "c1" and not call.run_context.tool_call_approved:
            raise self.error


@pytest.mark.parametrize("error", [ModelRetry("not now"), ToolFailed("not now")], ids=["retry", "failed"])
@pytest.mark.parametrize("outside", [False, True], ids=["code", "outside"])
async def test_what_a_hook_tells_the_library_is_the_calls_outcome(error: Exception, outside: bool) -> None:
    script = Script(call("pause", "c1", hours=1), call("pause", "c2", hours=2), "done")
    agent = pausing(script)
    if outside:
        pause = ToolDefinition(name="pause", parameters_json_schema={"type": "object", "properties": {"hours": {}}})
        agent = Agent(script.model, name="pausing", toolsets=[ExternalToolset[None]([pause], id="ext")])
    async with embedded(Registry(), parks=False) as p:
        handle = await durable(agent, hooks=[Refuses(error)]).start(p, "?")
        if outside:
            await reaches(handle, Phase.WAITING)
            await answer_when_asked(handle, "call_pause_c2", "2 h later")
        assert await handle.result() == "done"
    assert "not now" in str(script.heard[1][-1]) and "2 h later" in str(script.heard[2][-1])


async def test_a_hook_may_want_somebody_to_allow_it() -> None:
    script = Script(call("pause", "c1", hours=1), "done")
    async with embedded(Registry(), parks=False) as p:
        handle = await durable(pausing(script), hooks=[Refuses(ApprovalRequired())]).start(p, "?")
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "approve_pause_c1", {"approved": True})
        assert await handle.result() == "done"
    assert "1 h later" in str(script.heard[1][-1])


async def test_a_hook_that_fails_is_the_calls_failure() -> None:
    agent = durable(pausing(Script(call("pause", "c1", hours=1))), hooks=[Refuses(ValueError("out of order"))])
    async with embedded(Registry()) as p:
        with pytest.raises(ExecutionFailed, match="out of order"):
            await agent.run(p, "?")


async def test_hooks_see_how_the_code_failed() -> None:
    watch = Watch()
    agent = Agent(Script(call("breaks", "c1"), call("breaks", "c2")).model, name="breaking", retries=1)

    @agent.tool(metadata={"perdure": False})
    async def breaks(ctx: RunContext[object]) -> str:
        raise ModelRetry("again") if ctx.tool_call_id == "c1" else ValueError("broken")

    async with embedded(Registry(), parks=False) as p:
        with pytest.raises(ExecutionFailed, match="broken"):
            await durable(agent, hooks=[watch]).run(p, "?")
    assert [one for one in watch.seen if one.startswith("failed")] == [
        "failed breaks: ModelRetry('again')",
        "failed breaks: ValueError('broken')",
    ]


# --- context variables ---------------------------------------------------------------------------------------------

caller: ContextVar[str] = ContextVar("caller", default="nobody")


def sees() -> str:
    return f"{caller.get()} {baggage.get_baggage('tenant')}"


class Names(AbstractCapability[None]):
    """Says in context variables which run and which tool call is under way."""

    async def before_run(self, ctx: RunContext[None]) -> None:
        caller.set("run")
        telemetry.attach(baggage.set_baggage("tenant", "ann"))

    async def before_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any) -> Any:
        caller.set(f"{caller.get()} {call.tool_call_id}")
        return args


async def test_tools_see_the_context_variables_that_hooks_set_as_in_a_plain_run() -> None:
    seen: dict[str, list[str]] = {}
    where: set[bool] = set()
    script = Script([call("look", "c1"), call("gaze", "c2")], call("pause", "c3"), call("look", "c4"), "done")
    agent = Agent(script.model, name="looks", capabilities=[Names()])

    @agent.tool
    async def look(ctx: RunContext[None]) -> None:
        seen.setdefault(str(ctx.tool_call_id), []).append(sees())

    @agent.tool
    def gaze(ctx: RunContext[None]) -> None:
        where.add(threading.current_thread() is threading.main_thread())
        seen.setdefault(str(ctx.tool_call_id), []).append(sees())

    @agent.tool_plain(metadata={"perdure": False})
    async def pause() -> None:
        await asyncio.sleep(0 if current_run() is None else 3_600)

    async with embedded(Registry(clerk := durable(agent)), parks=False) as p:
        assert await clerk.run(p, "?") == "done"
    assert (await agent.run("?")).output == "done"
    assert seen == {one: [f"run {one} ann"] * 2 for one in ("c1", "c2", "c4")}
    assert where == {False} and caller.get() == "nobody"


async def test_a_tool_sees_what_a_hook_of_its_call_set_and_no_other_call_does() -> None:
    seen: list[str] = []

    class Names(CallHook):
        async def before(self, call: Call) -> None:
            caller.set(f"{caller.get()} {call.tool_call_id or call.kind}")

    script = Script(call("look", "c1"), call("look", "c2"), "done")
    agent = Agent(script.model, name="looks")

    @agent.tool_plain
    def look() -> None:
        seen.append(caller.get())

    async with embedded(Registry(clerk := durable(agent, hooks=[Names()]))) as p:
        assert await clerk.run(p, "?") == "done"
    assert seen == ["nobody c1", "nobody c2"]
