"""Registered workflows."""

from enum import StrEnum

from msgspec import Struct


class WorkflowType(StrEnum):
    """Agents and tools are workflows that were declared as such."""

    WORKFLOW = "workflow"
    AGENT = "agent"
    TOOL = "tool"


class RegisteredWorkflow(Struct, frozen=True):
    """A workflow of one deployment, as its workers registered it."""

    id: str
    deployment_id: str
    type: WorkflowType
    trigger_on_event: bool
    """Whether workers declared that a topic's events start it."""
    scheduled: bool
    """Whether workers declared a schedule for it."""
    created_at_us: int
