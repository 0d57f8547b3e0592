"""A program of `polos-sdk`, unmodified: its workflows, tools and agents. Run in the package's own environment.

`LOG` names a file to which every piece of user code adds a line when it runs; `GATES` a folder in which a file opens a
step that waits for it.
"""
# mypy: ignore-errors

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

from polos import Agent, BatchWorkflowInput, WorkflowContext, create_ask_user_tool, tool, workflow
from polos.llm.providers.base import LLMProvider, LLMResponse, register_provider
from pydantic import BaseModel


def note(line: str) -> None:
    with open(os.environ["LOG"], "a") as file:
        file.write(f"{line}\n")


async def gate(name: str) -> None:
    while not (Path(os.environ["GATES"]) / name).exists():  # noqa: ASYNC110  # another process opens it
        await asyncio.sleep(0.02)


# --- plain ---------------------------------------------------------------------------------------------------------


class Order(BaseModel):
    article: str
    amount: int


@workflow(id="plain")
async def plain(ctx: WorkflowContext, payload: dict[str, Any]):
    async def price():
        note(f"price {ctx.execution_id}")
        return {"price": 7}

    async def order():
        note(f"order {ctx.execution_id}")
        return Order(article="a", amount=payload["amount"])

    first = await ctx.step.run("the price/of it", price)
    second = await ctx.step.run("order", order)
    return {"total": first["price"] * second.amount, "kind": type(second).__name__}


@workflow(id="gated")
async def gated(ctx: WorkflowContext, payload: dict[str, Any]):
    async def before():
        note(f"before {payload['name']}")
        return "before"

    async def stop():
        note(f"stop {payload['name']}")
        await gate(payload["name"])
        return "open"

    return [await ctx.step.run("before", before), await ctx.step.run("stop", stop)]


@workflow(id="fails")
async def fails(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"fails {ctx.retry_count if hasattr(ctx, 'retry_count') else '?'}")
    raise ValueError("it fails each time")


@workflow(id="suicide")
async def suicide(ctx: WorkflowContext, payload: dict[str, Any]):
    note("suicide")
    os._exit(9)


# --- children ------------------------------------------------------------------------------------------------------


@workflow(id="child")
async def child(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"child {payload['n']}")
    if payload.get("gate"):
        await gate(payload["gate"])
    if payload.get("fail"):
        raise RuntimeError("no luck")

    async def double():
        return payload["n"] * 2

    return {"n": await ctx.step.run("double", double), "session": ctx.session_id}


@workflow(id="parent")
async def parent(ctx: WorkflowContext, payload: dict[str, Any]):
    first = await ctx.step.invoke_and_wait("one", child, {"n": payload["n"]})
    second = await ctx.step.invoke_and_wait("two", child, {"n": first["n"]})
    return {"n": second["n"], "same_session": second["session"] == ctx.session_id}


@workflow(id="batch")
async def batch(ctx: WorkflowContext, payload: dict[str, Any]):
    inputs = [BatchWorkflowInput(id="child", payload=one) for one in payload["items"]]
    results = await ctx.step.batch_invoke_and_wait("all", inputs)
    return [one.result["n"] if one.success else one.error for one in results]


@workflow(id="fire_and_forget")
async def fire_and_forget(ctx: WorkflowContext, payload: dict[str, Any]):
    handle = await ctx.step.invoke("kid", child, {"n": 5})
    return {"child": handle.id}


# --- waits ---------------------------------------------------------------------------------------------------------


@workflow(id="nap")
async def nap(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"nap {payload['name']} begins")
    await ctx.step.wait_for("rest", seconds=payload["seconds"])
    note(f"nap {payload['name']} ends")
    return "rested"


@workflow(id="on_event")
async def on_event(ctx: WorkflowContext, payload: dict[str, Any]):
    found = await ctx.step.wait_for_event("event", topic=payload["topic"], timeout=payload.get("timeout"))
    return {"data": found.data, "type": found.event_type, "topic": found.topic}


@workflow(id="publishes")
async def publishes(ctx: WorkflowContext, payload: dict[str, Any]):
    await ctx.step.publish_event("tell", topic=payload["topic"], data=payload["data"], event_type="told")
    return "told"


@workflow(id="asks")
async def asks(ctx: WorkflowContext, payload: dict[str, Any]):
    answer = await ctx.step.suspend("ask", {"question": "go on?"}, timeout=payload.get("timeout"))
    return {"answer": answer["data"]}


@workflow(id="sleeps")
async def sleeps(ctx: WorkflowContext, payload: dict[str, Any]):
    async def long():
        note(f"sleeps {ctx.execution_id}")
        await asyncio.Event().wait()

    await ctx.step.run("long", long)


# --- queues, state, schedules ----------------------------------------------------------------------------


@workflow(id="narrow", queue={"concurrency_limit": 1})
async def narrow(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"enter {time.monotonic_ns()}")
    await asyncio.sleep(0.05)
    note(f"leave {time.monotonic_ns()}")
    return payload["n"]


@workflow(id="keyed", queue={"concurrency_limit": 1})
async def keyed(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"keyed {payload['name']} enters")
    await gate(payload["name"])
    note(f"keyed {payload['name']} leaves")


class Counter(BaseModel):
    count: int = 0


@workflow(id="counts", state_schema=Counter)
async def counts(ctx: WorkflowContext, payload: dict[str, Any]):
    ctx.state.count += payload["by"]
    return {"count": ctx.state.count}


@workflow(id="scheduled", schedule={"cron": "0 3 1 1 *", "timezone": "Europe/Berlin", "key": "yearly"})
async def scheduled(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"scheduled {payload['key']}")
    return "done"


@workflow(id="ticks", schedule={"cron": "* * * * *", "timezone": "UTC", "key": "each minute"})
async def ticks(ctx: WorkflowContext, payload: dict[str, Any]):
    note(f"ticks {payload['timestamp']}")


# --- agents, with a model that needs no network --------------------------------------------------------------------


@register_provider("offline")
class Offline(LLMProvider):
    """Does what it is told: `use <tool> <json>` calls a tool, anything else comes back in capitals."""

    def __init__(self, **kwargs: Any) -> None:
        pass

    def _answer(self, messages: list[dict[str, Any]], tool_results: Any) -> LLMResponse:
        if tool_results:
            outputs = [str(one.get("output", one.get("content", one))) for one in tool_results]
            return answer("TOOL SAID " + " AND ".join(outputs))
        text = _text(messages[-1])
        asked = re.search(r"use (\w+) (\{.*\})", text)
        if asked is None:
            return answer(text.upper())
        call = {
            "call_id": "call_1",
            "id": "call_1",
            "type": "function",
            "function": {"name": asked[1], "arguments": asked[2]},
        }
        return answer(None, call)

    async def generate(self, messages, model, tool_results=None, **kwargs):
        note("llm")
        return self._answer(messages, tool_results)

    async def stream(self, messages, model, tool_results=None, **kwargs):
        note("llm stream")
        said = self._answer(messages, tool_results)
        for word in (said.content or "").split():
            yield {"type": "text_delta", "data": {"content": word + " "}}
        for call in said.tool_calls or []:
            yield {"type": "tool_call", "data": {"tool_call": call}}
        yield {"type": "done", "data": {"usage": USAGE, "raw_output": said.raw_output}}


def answer(content: str | None, *calls: dict[str, Any]) -> LLMResponse:
    raw = [{"role": "assistant", "content": content, "tool_calls": list(calls)}]
    return LLMResponse(
        content=content, tool_calls=list(calls), usage=USAGE, raw_output=raw, model="m", stop_reason="stop"
    )


USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def _text(message: Any) -> str:
    content = message.get("content", "") if isinstance(message, dict) else str(message)
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content)


class Sum(BaseModel):
    a: int
    b: int


@tool(id="add", description="adds")
async def add(ctx: WorkflowContext, payload: Sum):
    note("add")
    return {"sum": payload.a + payload.b}


@tool(id="remove", description="removes, if somebody says yes", approval="always")
async def remove(ctx: WorkflowContext, payload: Sum):
    note(f"remove {payload.a}")
    return {"removed": payload.a}


helper = Agent(
    id="helper",
    provider="offline",
    model="m",
    system_prompt="help",
    tools=[add, remove, create_ask_user_tool()],
)
