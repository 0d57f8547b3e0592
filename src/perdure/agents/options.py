"""What `durable` may be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Literal, TypedDict, TypeVar

from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models import Model
from pydantic_ai.usage import UsageLimits

from perdure.agents.budgets import Price
from perdure.agents.calls import CallHook
from perdure.agents.conversation import Compaction
from perdure.agents.guards import InputGuard, OutputGuard
from perdure.agents.steps import StepOptions
from perdure.agents.stops import StopCondition
from perdure.sdk.budgets import Budget
from perdure.sdk.client import StartOptions
from perdure.sdk.context import Context
from perdure.sdk.steps import Retry
from perdure.sdk.workflow import Queue, Schedulings, Triggerings

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
"""What to do instead of giving an option of the library's `run` to a start."""


def check_start_options(options: Mapping[str, object]) -> None:
    """Raises `TypeError` for what is no option of a start, and says where an option of the library's `run` belongs: a
    run happens in a worker, and what it is started with is JSON."""
    for name in options:
        if name not in StartOptions.__annotations__:
            instead = _ELSEWHERE.get(name, "Give it to Agent(…) or to durable(…), if they take it.")
            raise TypeError(f"A start of a durable agent takes no {name}=. {instead}")


class WorkflowOptions(TypedDict, total=False):
    """How the executions are run: what `@workflow` takes, too."""

    queue: Queue | str | None
    retry: Retry | None
    run_timeout_seconds: int | None
    on_cancel: Literal["cancel", "wake"]
    schedule: Schedulings | None
    trigger_on: Triggerings | None


class DurableOptions(WorkflowOptions, Generic[DepsT], total=False):
    """Everything that `durable` may be told of an agent."""

    name: str | None
    """What it is started by; default: the agent's name."""
    deps: DepsT | Callable[[Context], DepsT] | None
    """The dependencies of runs that were started without: the value, or a function of the Context."""
    models: Mapping[str, Model] | None
    """Models that a run may switch to, by name."""
    capabilities: Sequence[AbstractCapability[DepsT]]
    """Capabilities of the library for durable runs only."""
    hooks: Sequence[CallHook]
    """What comes before and after each call of a model or a tool, once, whatever is replayed."""
    budget: Budget | None
    """What each run and all below it may spend, unless one is given at its start."""
    price: Price | None
    """What the agent's models cost, where the library does not know it: US dollars for a model's name and usage."""
    usage_limits: UsageLimits | None
    """The library's limits: over them a run fails."""
    stop: Sequence[StopCondition]
    """When it has done enough and answers with what it has."""
    input_guards: Sequence[InputGuard]
    """Each looks at the prompt before the run begins."""
    output_guards: Sequence[OutputGuard]
    """Each looks at the output before the run ends with it."""
    watchdog: int | None
    """After so many calls of the same tool, with the same arguments and result in a row, somebody is asked whether the
    run is to go on. Default 5; None: never."""
    ask_user: bool
    """Whether the agent gets a tool by which it asks its user."""
    stream: bool | None
    """Whether its model is asked to stream. Default: if it can. What it says goes to the execution's stream in any
    case, word by word or each answer in one piece."""
    event_stream_handler: EventStreamHandler[DepsT] | None
    """Hears what a streaming model says while it says it, in the step that asks the model: once for each try of it."""
    answer_timeout: float | None
    """How many seconds people may take to answer (approvals, `ask_user`); None: as long as it takes."""
    model_step: StepOptions | None
    """How a request to the model is tried: by default up to 4 times when it is busy or cannot be reached."""
    compaction: Compaction | None
    """When a long conversation is summarized; None: never."""
    tool_step: StepOptions | None
    """How a tool's call is tried: by default once. A tool's own metadata `{"perdure": {"retry": 3, "timeout": 10}}` go
    before; with `{"perdure": False}` it is no step but a part of the agent's code, and may use the Context."""
