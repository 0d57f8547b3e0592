"""Durable agents on Pydantic AI: `pip install perdure[agents]`. See docs/agents.md.

    from pydantic_ai import Agent
    from perdure.agents import durable

    support = durable(Agent("openai:gpt-5.2", name="support", tools=[find_order]))

Each run is an execution. The results of model and tools are recorded before the run continues.
"""

try:
    import pydantic_ai  # noqa: F401  # an extra, which may not be installed
except ModuleNotFoundError as error:
    if error.name != "pydantic_ai":
        raise
    raise ModuleNotFoundError(
        'Durable agents need Pydantic AI: pip install "perdure[agents]".', name="pydantic_ai"
    ) from None

from perdure.agents.agent import DurableAgent, durable
from perdure.agents.budgets import Price
from perdure.agents.calls import Call, CallHook
from perdure.agents.conversation import Compaction
from perdure.agents.guards import Tripped
from perdure.agents.inputs import AgentInput
from perdure.agents.options import DurableOptions
from perdure.agents.steps import StepOptions
from perdure.agents.stops import called_tool, has_text, max_steps, max_tokens, stop_reason
from perdure.agents.streaming import AgentItem, AgentStream, events
from perdure.sdk.base.errors import BudgetExceeded
from perdure.sdk.workflows.start_options import Budget

__all__ = [
    "AgentInput",
    "AgentItem",
    "AgentStream",
    "Budget",
    "BudgetExceeded",
    "Call",
    "CallHook",
    "Compaction",
    "DurableAgent",
    "DurableOptions",
    "Price",
    "StepOptions",
    "Tripped",
    "called_tool",
    "durable",
    "events",
    "has_text",
    "max_steps",
    "max_tokens",
    "stop_reason",
]
