"""A model that gives scripted answers, and counts the requests."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from perdure import Registry, Workflow
from perdure.testing import CrashReport, crash_everywhere

R = TypeVar("R")

Said = str | ModelResponsePart | Sequence[str | ModelResponsePart] | Exception
Saying = Said | Callable[[list[ModelMessage], AgentInfo], Said]


class Script:
    """What a model answers to the first, the second, … request of a run: a text, calls of tools, or an error.

    The place in the script is the number of answers in the history, so a repeated request gets the same answer, and
    `asked` tells that it was repeated.
    """

    def __init__(self, *sayings: Saying, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self.sayings = sayings
        self.asked: Counter[int] = Counter()
        self.heard: list[list[ModelMessage]] = []
        self.tools: list[list[str]] = []
        self.instructions: list[str | None] = []
        self._before = before
        self.model = FunctionModel(self._answer, model_name="script")

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        place = sum(isinstance(message, ModelResponse) for message in messages)
        self.asked[place] += 1
        self.heard.append(list(messages))
        self.instructions.append(info.instructions)
        self.tools.append([tool.name for tool in info.function_tools])
        if self._before is not None:
            await self._before()
        saying = self.sayings[place]
        said = saying(messages, info) if callable(saying) else saying
        if isinstance(said, Exception):
            raise said
        parts = [said] if isinstance(said, str) or not isinstance(said, Sequence) else list(said)
        return ModelResponse(
            [TextPart(part) if isinstance(part, str) else part for part in parts],
            usage=RequestUsage(input_tokens=10 * (place + 1), output_tokens=5),
        )


def call(tool: str, call_id: str, **arguments: Any) -> ToolCallPart:
    """A model's call of a tool."""
    return ToolCallPart(tool, arguments, tool_call_id=call_id)


async def crashed(
    workflow: Workflow[Any, R], prompt: Any, *others: Workflow[Any, Any], during: Any = None
) -> CrashReport[R]:
    """Run it with a crash at each commit in turn: every run ends alike, and no recorded step runs again.

    On a machine with much else to do a run of 0.2 s of processor time has taken a minute.
    """
    return await crash_everywhere(workflow, prompt, during=during, registry=Registry(workflow, *others), timeout=600)
