"""The capability that makes an agent durable: it tells the library what is a step, and in which execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic_ai.agent import AbstractAgent, EventStreamHandler
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.durable_exec import BaseDurabilityCapability, DurabilityEngineSpec, conversation_id_from_run_id
from pydantic_ai.models import Model
from pydantic_ai.tools import AgentDepsT

from perdure.agents.runs import current_run
from perdure.agents.steps import TOOL_KEY, JsonCodec, StepBackend, StepOptions, not_recordable

CODEC: Final = JsonCodec()


class PerdureDurability(BaseDurabilityCapability[AgentDepsT]):
    """Model requests, tool calls and MCP calls of an agent as steps of the execution it runs in.

    `durable(agent)` attaches it. Outside of an execution it does nothing.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Perdure",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=CODEC,
        serialization_failure=not_recordable,
        # The agent's code runs in a loop without input/output: whatever connects, connects inside the step.
        toolset_lifecycles={"function": "enter-never", "mcp": "enter-never", "dynamic": "enter-never"},
        tool_config_key=TOOL_KEY,
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        name: str | None = None,
        model_step: StepOptions | None = None,
        tool_step: StepOptions | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        self._backend = StepBackend(model_step or {}, tool_step or {})

    def for_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> AbstractCapability[AgentDepsT]:
        """This capability as bound to `agent`: bound once, and handed to each run."""
        return self if self.agent is agent else super().for_agent(agent)

    @property
    def in_durable_context(self) -> bool:
        return current_run() is not None

    def get_durable_operation_backend(self) -> StepBackend:
        return self._backend

    def get_default_run_id(self) -> str | None:
        run = current_run()
        return None if run is None else run.id

    def get_default_conversation_id(self, run_id: str) -> str | None:
        run = current_run()
        return None if run is None else run.ctx.session_id or conversation_id_from_run_id(run_id)
