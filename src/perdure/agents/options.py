from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Literal, TypedDict, TypeVar

from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.usage import UsageLimits

from perdure.agents.budgets import Price
from perdure.agents.calls import CallHook
from perdure.agents.conversation import Compaction
from perdure.agents.guards import InputGuard, OutputGuard
from perdure.agents.steps import StepOptions
from perdure.agents.stops import StopCondition
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.start_options import Budget, StartOptions
from perdure.sdk.workflows.steps import OnFailure, Retry
from perdure.sdk.workflows.workflow import Queue, Schedulings, Triggerings

DepsT = TypeVar("DepsT")


_ELSEWHERE: Final = {
    "output_type": "Its result is read by the agent's own type: make a second agent with another one.",
    "toolsets": "Give them to Agent(…, toolsets=[…]); a function with @agent.toolset makes others for each run.",
    "capabilities": "Give them to Agent(…, capabilities=[…]) or to durable(agent, capabilities=[…]).",
    "event_stream_handler": "Give it to durable(agent, event_stream_handler=…), or read `events(handle)`.",
    "timeout": "Give it as run_timeout_seconds=.",
    "instructions": "A function with @agent.instructions makes them for each run, from its dependencies.",
    "model_settings": "Agent(…, model_settings=…) takes a function of the run as well.",
}
"""The right place for each option of Pydantic AI's `run`."""


def check_start_options(options: Mapping[str, object]) -> None:
    """Raises `TypeError` for an unknown option."""
    for name in options:
        if name not in StartOptions.__annotations__:
            instead = _ELSEWHERE.get(name, "Give it to Agent(…) or to durable(…), if they take it.")
            raise TypeError(f"A start of a durable agent does not take {name}=. {instead}")


class RunOptions(StartOptions, Generic[DepsT], total=False):
    """The options of `DurableAgent.start`."""

    deps: DepsT | None
    message_history: Sequence[ModelMessage] | None
    model: str | None
    usage_limits: UsageLimits | None


class DurableOptions(TypedDict, Generic[DepsT], total=False):
    """The options of `durable`. From `queue` to `trigger_on`, see `@workflow`."""

    queue: Queue | str | None
    retry: Retry | None
    run_timeout_seconds: int | None
    on_cancel: Literal["cancel", "wake"]
    on_failure: OnFailure
    schedule: Schedulings | None
    trigger_on: Triggerings | None
    name: str | None
    """Default: the agent's."""
    deps: DepsT | Callable[[Context], DepsT] | None
    """Dependencies of runs started without any. A function gets the Context."""
    models: Mapping[str, Model] | None
    """Models for a run to choose, by name."""
    capabilities: Sequence[AbstractCapability[DepsT]]
    """Pydantic AI capabilities for durable runs only."""
    hooks: Sequence[CallHook]
    """Run around each call of a model or tool, but not in a replay."""
    budget: Budget | None
    """Limits each run and its descendants, unless the start brings a budget."""
    price: Price | None
    usage_limits: UsageLimits | None
    """A run beyond one of Pydantic AI's limits fails."""
    stop: Sequence[StopCondition]
    """Conditions under which the agent answers early."""
    input_guards: Sequence[InputGuard]
    output_guards: Sequence[OutputGuard]
    watchdog: int | None
    """Number of equal calls with equal results in a row after which a person decides whether the run continues. Default
    5; None: never."""
    ask_user: bool
    """Give the agent a tool to ask its user."""
    stream: bool | None
    """Ask the model to stream. Default: if the model can. Otherwise the execution's stream gets whole answers."""
    event_stream_handler: EventStreamHandler[DepsT] | None
    """Receives a streaming model's events live, once per try of the step."""
    answer_timeout: float | None
    """Seconds after which an open approval counts as denied and `ask_user` as unanswered. Default None: no limit."""
    model_step: StepOptions | None
    """Retries of model requests. Default: up to 4 tries if the model is busy or unreachable."""
    compaction: Compaction | None
    """Summarizes long conversations. None: never."""
    tool_step: StepOptions | None
    """Retries of tool calls. Default: one try. A tool's metadata `{"perdure": {"retry": 3, "timeout": 10}}` take
    precedence. With `{"perdure": False}` the tool is workflow code."""
