from __future__ import annotations

from typing import Any

from msgspec import Raw
from msgspec.json import encode
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.models import Model
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset

from perdure.wire.runs.requests import AgentSpec


def agent_spec(name: str, agent: AbstractAgent[Any, Any], schema_name: str) -> AgentSpec:
    """Tools of MCP servers and dynamic toolsets are known only when the agent runs."""
    provider, model = _parse_model(agent.model)
    return AgentSpec(
        id=name,
        provider=provider,
        model=model,
        system_prompt=None,
        tools=Raw(encode(_list_tools(agent))),
        metadata=Raw(encode({"output_schema_name": schema_name, "output_schema": agent.output_json_schema()})),
    )


def _parse_model(model: Model | str | None) -> tuple[str, str]:
    if isinstance(model, Model):
        return model.system, model.model_name
    if model is None:
        return "unknown", "unknown"
    provider, _, name = model.rpartition(":")
    return provider or "unknown", name


def _list_tools(agent: AbstractAgent[Any, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def look(toolset: AbstractToolset[Any]) -> None:
        inner = getattr(toolset, "wrapped", toolset)
        if isinstance(inner, FunctionToolset) and inner.id != "<output>":
            found.extend(
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.function_schema.json_schema,
                    "requires_approval": tool.requires_approval,
                }
                for tool in inner.tools.values()
            )

    for toolset in agent.toolsets:
        toolset.apply(look)
    return found
