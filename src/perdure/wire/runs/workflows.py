"""Registered workflows of deployments, and runs."""

import hashlib
import re
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from msgspec import Raw, Struct, field
from msgspec.structs import replace

from perdure.wire.base.fields import PAGE_MAX, Cursor, Int64, PageCursor, Time, Uuid, Value, between
from perdure.wire.base.operation import Listed, Noun, Offset, Operation, RegistryPage
from perdure.wire.base.record import Record, not_null
from perdure.wire.base.records import MaybeRaw
from perdure.wire.base.status import Status

STARTABLE_MAX: Final = 50
WORKFLOWS_MAX: Final = 2_000
"""Most names of workflows, agents and tools in a project."""
DESCRIPTIONS_BYTES_MAX: Final = 8 << 20
"""Most bytes of schemas and texts in a registration."""
TOOL_PREFIX: Final = "run_"
TOOL_CHARS_MAX: Final = 48
"""Programs put a prefix before a tool's name, and some take 64 characters."""


class WorkflowType(StrEnum):
    WORKFLOW = "workflow"
    AGENT = "agent"
    TOOL = "tool"


SCHEMA_BYTES_MAX: Final = 64 << 10
DESCRIBED_BYTES_MAX: Final = 2_000
"""Most bytes of a text or a path."""


class InputCheck(StrEnum):
    """Whether the worker reads exactly what the schema describes."""

    EXACT = "exact"
    WIDE = "wide"
    """The input has models, which read more times and numbers."""


class WorkflowDescription(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A workflow's function, described for people, and for the check of inputs at the start."""

    takes_input: bool = True
    input_optional: bool = False
    """The function's default replaces null."""
    input_check: InputCheck | None = None
    """None: inputs may fit the function and not the schema, and are not checked."""
    input_schema: MaybeRaw = None
    """JSON Schema (draft 2020-12), at most 64 KiB."""
    output_schema: MaybeRaw = None
    file: str | None = None
    """The path relative to the project, or to the folder of the import."""
    line: int | None = None
    text: str | None = None
    """The docstring's first paragraph."""

    @property
    def check_name(self) -> str | None:
        """Equal checks of inputs have equal names. None: inputs are not checked."""
        if self.takes_input and (self.input_check is None or self.input_schema is None):
            return None
        parts = (self.takes_input, self.input_optional, self.input_check, bytes(self.input_schema or b""))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class Source(Record, frozen=True):
    """The place of a workflow's function."""

    file: str
    """Relative to the worker's project."""
    line: int | None = None


class RegisteredWorkflow(Record, frozen=True):
    shown_as: ClassVar[str] = "DeploymentWorkflow"

    id: str = field(name="workflow_id")
    deployment_id: str
    type: WorkflowType = field(name="workflow_type")
    trigger_on_event: bool
    """Workers declared a topic whose events start the workflow."""
    scheduled: bool
    """Workers declared a schedule for the workflow."""
    created_at_us: Time = field(name="created_at")
    queue_name: str
    """The queue of executions, unless a start names another queue."""
    description: str | None = None
    """The first paragraph of the docstring. The fields from here on are null in lists, and for a worker without
    descriptions."""
    takes_input: bool | None = None
    input_schema: Value = None
    """JSON Schema of the input."""
    output_schema: Value = None
    """JSON Schema of the result."""
    source: Source | None = None

    def described_by(self, said: WorkflowDescription) -> "RegisteredWorkflow":
        return replace(
            self,
            description=said.text,
            takes_input=said.takes_input,
            input_schema=not_null(said.input_schema),
            output_schema=not_null(said.output_schema),
            source=None if said.file is None else Source(said.file, said.line),
        )


class WorkflowRun(Record, frozen=True):
    """A root execution, in short."""

    shown_as: ClassVar[str] = "WorkflowRunSummary"

    id: Uuid
    workflow_id: str
    created_at_us: Time = field(name="created_at")
    status: Status
    payload: Raw
    root_execution_id: str | None = None
    session_id: str | None = None
    completed_at_us: Time | None = field(default=None, name="completed_at")
    result: Value = None
    error: str | None = None


def tool_name(workflow_id: str) -> str:
    """The name of a workflow's MCP tool.

    >>> tool_name("order"), tool_name("billing/send mail")
    ('run_order', 'run_billing_send_mail_d1488d')
    """
    name = TOOL_PREFIX + re.sub(r"[^A-Za-z0-9_-]", "_", workflow_id)
    if name == TOOL_PREFIX + workflow_id and len(name) <= TOOL_CHARS_MAX:
        return name
    mark = hashlib.sha256(workflow_id.encode()).hexdigest()[:6]
    return f"{name[: TOOL_CHARS_MAX - len(mark) - 1]}_{mark}"


workflows: Final = Noun("Workflows")


@workflows.get("/api/v1/workflows", contract=True)
class GetWorkflows(RegistryPage, Operation[Listed[RegisteredWorkflow]], frozen=True):
    """Registered workflows, by name, then newest first.

    A workflow has an entry per deployment. Agents, tools and retired deployments are left out.
    """


@workflows.get("/api/v1/startable")
class GetStartable(Operation[Listed[RegisteredWorkflow]], frozen=True):
    """Workflows and agents by name, with descriptions and schemas.

    The newest deployment describes the workflow. Retired deployments are left out.
    """

    cursor: PageCursor | None = None
    limit: Annotated[Int64, between(1, STARTABLE_MAX)] = STARTABLE_MAX
    """1 to 50. A page with large schemas may be shorter."""
    tool: str | None = None
    """Only the workflow of the MCP tool of this name."""


@workflows.get("/api/v1/workflows/runs", contract=True)
class GetWorkflowRuns(Operation[Listed[WorkflowRun]], frozen=True):
    """Root executions, newest first.

    `GET /api/v1/executions` has more filters.
    """

    workflow_type: WorkflowType = WorkflowType.WORKFLOW
    workflow_id: str | None = None
    limit: Annotated[Int64, between(1, PAGE_MAX)] = 50
    """1 to 1,000."""
    offset: Offset = 0
    """How many to leave out; 0 to 100,000. Newly begun runs shift an offset, not a cursor."""
    cursor: Cursor | None = None
    start_time: Time | None = None
    """Only runs created then or later."""
    end_time: Time | None = None
    """Only runs created then or before."""


@workflows.get("/api/v1/workflows/{workflow_id}", contract=True)
class GetWorkflow(Operation[RegisteredWorkflow], frozen=True):
    """A registered workflow, not an agent or a tool."""

    workflow_id: str
    deployment_id: str | None = None
    """Default: the newest deployment of the workflow."""
