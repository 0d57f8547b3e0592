"""Registered workflows."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Struct

from perdure.wire.fields import PAGE_MAX, Int64, between

OFFSET_MAX: Final = 100_000


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


class RegistryPage(Struct, frozen=True):
    """The place of a page in a list of registered things."""

    limit: Annotated[Int64, between(1, PAGE_MAX)] = PAGE_MAX
    """1 to 1,000."""
    offset: Annotated[Int64, between(0, OFFSET_MAX)] = 0
    """How many to leave out; 0 to 100,000."""
    cursor: str | None = None
    """The header `Next-Cursor` of the page before."""
