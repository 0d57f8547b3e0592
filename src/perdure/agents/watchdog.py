"""A watchdog over loops: the same tool, the same arguments, the same result, again and again.

Then somebody is asked, with what the run has cost so far, and the run waits suspended: it costs nothing more until they
say whether it goes on.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import RunContext, ToolDefinition
from pydantic_core import to_json

from perdure.agents.names import part
from perdure.agents.runs import current_run

SHOWN_MAX: Final = 2_000
"""Characters of arguments and result that whoever is asked gets to see."""


class Watchdog(AbstractCapability[Any]):
    """Pauses a run that has made the same call with the same outcome `repeats` times in a row."""

    def __init__(self, repeats: int) -> None:
        if repeats < 2:
            raise ValueError(f"A loop has at least 2 rounds; watchdog={repeats!r}.")
        self.repeats = repeats

    async def after_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any], result: Any
    ) -> Any:
        run = current_run()
        if run is None:
            return result
        shown = _shown(result)
        print_ = hashlib.blake2b(b"\0".join((call.tool_name.encode(), _shown(args), shown)), digest_size=8).digest()
        run.rounds = run.rounds + 1 if print_ == run.last_call else 1
        run.last_call = print_
        if run.rounds < self.repeats:
            return result
        run.rounds = 0
        usage = ctx.usage
        question = {
            "tool": call.tool_name,
            "arguments": _cut(_shown(args)),
            "result": _cut(shown),
            "times": self.repeats,
            "requests": usage.requests,
            "tool_calls": usage.tool_calls,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": None if (cost := getattr(usage, "cost", None)) is None else str(cost),
            "_form": {
                "title": f"{call.tool_name} gave the same {self.repeats} times in a row. Go on?",
                "fields": [{"key": "approved", "type": "boolean", "label": "Go on?", "required": True}],
            },
            "_source": "watchdog",
            "_tool": call.tool_name,
        }
        answer = await run.ctx.suspend(run.keys.again(f"watchdog_{part(call.tool_name)}"), question)
        if (answer.get("approved") if isinstance(answer, dict) else answer) is not True:
            run.finishing = f"You called {call.tool_name} {self.repeats} times and it gave the same each time."
        return result


def _shown(value: Any) -> bytes:
    return to_json(value, fallback=repr)


def _cut(text: bytes) -> str:
    shown = text.decode("utf-8", "replace")
    return shown if len(shown) <= SHOWN_MAX else shown[: SHOWN_MAX - 1] + "…"
