"""Finds loops: if a tool repeats its outcome for the same arguments, the run asks a person whether to continue."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pydantic_ai.tools import RunContext
from pydantic_core import to_json

from perdure.agents.names import part
from perdure.agents.runs import AgentRun

SHOWN_MAX: Final = 2_000
"""Most characters shown of arguments and result."""


async def watched(run: AgentRun, repeats: int, ctx: RunContext[Any], tool: str, args: Any, result: Any) -> None:
    shown = _shown(result)
    print_ = hashlib.blake2b(b"\0".join((tool.encode(), _shown(args), shown)), digest_size=8).digest()
    run.rounds = run.rounds + 1 if print_ == run.last_call else 1
    run.last_call = print_
    if run.rounds < repeats:
        return
    run.rounds = 0
    usage = ctx.usage
    question = {
        "tool": tool,
        "arguments": _cut(_shown(args)),
        "result": _cut(shown),
        "times": repeats,
        "requests": usage.requests,
        "tool_calls": usage.tool_calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": None if (cost := getattr(usage, "cost", None)) is None else str(cost),
        "_form": {
            "title": f"{tool} gave the same {repeats} times in a row. Go on?",
            "fields": [{"key": "approved", "type": "boolean", "label": "Go on?", "required": True}],
        },
        "_source": "watchdog",
        "_tool": tool,
    }
    answer = await run.ask(run.keys.again(f"watchdog_{part(tool)}"), question)
    if (answer.get("approved") if isinstance(answer, dict) else answer) is not True:
        run.finish("watchdog", f"You called {tool} {repeats} times and it gave the same each time.")


def _shown(value: Any) -> bytes:
    return to_json(value, fallback=repr)


def _cut(text: bytes) -> str:
    shown = text.decode("utf-8", "replace")
    return shown if len(shown) <= SHOWN_MAX else shown[: SHOWN_MAX - 1] + "…"
