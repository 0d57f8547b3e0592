"""Starts, and limits of starts for clients, workflows and the server."""

from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

from msgspec import Raw
from msgspec.structs import fields, replace

from perdure.wire.agents.budgets import BudgetSpec, check_budget
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.access import Role
from perdure.wire.base.brief_executions import StartedExecution
from perdure.wire.base.codec import KEY_BYTES_MAX, check_name, check_text
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import Header, Int32, MaxItems, Moment, Time, count_check, in_body
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.records import MaybeRaw
from perdure.wire.base.times import AT_US_MAX, microseconds
from perdure.wire.runs.executions import IDS_MAX
from perdure.wire.runs.requests import StartItem, StartReply

BODY_BYTES_MAX: Final = 1 << 30
"""Payloads only have the server's limit for all requests."""
INT32_MAX = 2**31 - 1
DELAY_SECONDS_MAX = 10 * 366 * 86_400.0
INPUT_CHECK: Final = "Perdure-Input-Check"


def check_options(item: StartItem) -> None:
    """Check all options except names and payload. Raises BadValue with the field."""
    if not -1_000 <= item.priority <= 1_000:
        raise BadValue(f"`priority` must be -1000 to 1000, got {item.priority}.")
    if item.delay_seconds is not None and not 0 <= item.delay_seconds <= DELAY_SECONDS_MAX:
        raise BadValue(f"`delay_seconds` must be 0 to {DELAY_SECONDS_MAX:.0f}, got {item.delay_seconds!r}.")
    if item.start_at_us is not None and not 0 <= item.start_at_us <= AT_US_MAX:
        raise BadValue("`start_at` must lie between 1970 and 9999.")
    if item.on_conflict is not None and (item.delay_seconds is not None or item.start_at_us is not None):
        raise BadValue("`on_conflict`: a turn begins at once or after those before it; leave out the start time.")
    if item.run_timeout_seconds is not None and not 1 <= item.run_timeout_seconds <= INT32_MAX:
        raise BadValue(f"`run_timeout_seconds` must be 1 to {INT32_MAX}, got {item.run_timeout_seconds}.")
    if item.queue_concurrency_limit is not None and not 1 <= item.queue_concurrency_limit <= INT32_MAX:
        raise BadValue(f"`queue_concurrency_limit` must be 1 to {INT32_MAX}, got {item.queue_concurrency_limit}.")
    if item.budget is not None:
        check_budget(item.budget)
    if item.tags is not None:
        if len(item.tags) > 10:
            raise BadValue(f"`tags` may hold 10 entries, got {len(item.tags)}.")
        for name, text in item.tags.items():
            check_name(name, where="tags")
            check_text(text, where=f"tags.{name}", max_bytes=KEY_BYTES_MAX)


def _uuid(value: str, where: str) -> str | None:
    try:
        return str(UUID(value))
    except ValueError:
        return None


_Parent = Annotated[str, _uuid]
"""The contract ignores text other than a UUID."""


starts: Final = Noun("Executions")


class BatchItem(Record, frozen=True):
    shown_as: ClassVar[str] = "WorkflowRequest"

    workflow_id: str
    payload: Raw
    queue_name: str | None = None
    concurrency_key: str | None = None
    queue_concurrency_limit: Int32 | None = None
    initial_state: MaybeRaw = None
    run_timeout_seconds: Int32 | None = None
    key: str | None = None
    priority: Int32 | None = None
    tags: dict[str, str] | None = None
    delay_seconds: float | None = None
    start_at_us: Time | None = None
    accept_early: bool | None = None
    webhook_url: str | None = None
    """A URL for a signed POST at the end, retried until the receiver accepts."""
    budget: BudgetSpec | None = None
    """Limits on model calls for the execution and all descendants."""

    def to_item(self, **shared: Any) -> StartItem:
        """`shared` are fields of the whole batch."""
        given = ((name, getattr(self, name, None)) for name in _ITEM_FIELDS)
        return StartItem(**shared | {name: value for name, value in given if value is not None})


_ITEM_FIELDS: Final = [one.name for one in fields(StartItem)]


@starts.post(
    "/api/v1/workflows/{workflow_id}/run", role=Role.WORK, contract=True, idempotent=True, body="SubmitWorkflowRequest"
)
class SubmitWorkflow(BatchItem, Operation[StartedExecution], frozen=True, forbid_unknown_fields=False):
    """Start an execution.

    `payload` is required; null is fine.
    """

    deployment_id: str | None = None
    parent_execution_id: _Parent | None = None
    root_execution_id: str | None = None
    step_key: str | None = None
    wait_for_subworkflow: bool | None = None
    session_id: str | None = None
    user_id: str | None = None
    otel_traceparent: str | None = None
    channel_context: MaybeRaw = None
    on_conflict: OnConflict | None = None
    """The execution is a turn of its session: `queue`, `reject` or `deliver` while another turn is open."""


class Batch(Record, frozen=True):
    """The executions in the order of the request."""

    shown_as: ClassVar[str] = "SubmitWorkflowsResponse"

    executions: list[StartedExecution]


@starts.post(
    "/api/v1/workflows/batch_run",
    role=Role.WORK,
    contract=True,
    idempotent=True,
    body="SubmitWorkflowsRequest",
    body_bytes_max=BODY_BYTES_MAX,
)
class SubmitWorkflows(Operation[Batch], frozen=True, forbid_unknown_fields=False):
    """Start several executions in one transaction, all or none, under one batch id."""

    workflows: Annotated[list[BatchItem], MaxItems(IDS_MAX), in_body(count_check(IDS_MAX))]
    deployment_id: str | None = None
    step_key: str | None = None
    parent_execution_id: _Parent | None = None
    root_execution_id: str | None = None
    session_id: str | None = None
    """Default: the parent's session, else a new session."""
    user_id: str | None = None
    wait_for_subworkflow: bool | None = None
    otel_traceparent: str | None = None
    channel_context: MaybeRaw = None

    def check(self) -> None:
        if not self.workflows:
            raise BadRequest("body.workflows: is empty; name at least one workflow.")

    def to_items(self, new_session_id: str) -> list[StartItem]:
        session_id = self.session_id or (None if self.parent_execution_id else new_session_id)
        shared = {name: getattr(self, name, None) for name in _ITEM_FIELDS} | {"session_id": session_id}
        shared = {name: value for name, value in shared.items() if value is not None}
        return [one.to_item(**shared) for one in self.workflows]


class StartItemRequest(StartItem, frozen=True):
    """A run of a named workflow."""

    start_at: Moment | None = None
    root_execution_id: str | None = None
    wait_for_subworkflow: bool | None = None

    def to_item(self) -> StartItem:
        """The item with the start as a number, and the parent's id in lower case."""
        parent, start = self.parent_execution_id, self.start_at
        return replace(
            self,
            parent_execution_id=None if parent is None else parent.lower(),
            start_at_us=self.start_at_us if start is None else microseconds(start),
        )


@starts.post(
    "/api/v1/executions", role=Role.WORK, idempotent=True, body="StartManyRequest", body_bytes_max=BODY_BYTES_MAX
)
class StartExecutions(Operation[StartReply], frozen=True):
    """Start many independent executions.

    Each execution has its own answer. The executions have no batch id and share no session.
    """

    items: Annotated[list[StartItemRequest], MaxItems(IDS_MAX), in_body(count_check(IDS_MAX))]
    input_check: Annotated[str, Header(INPUT_CHECK)] | None = None
    """The name of a workflow's check of inputs (`WorkflowDescription.check_name`). The caller has read each input with
    the workflow's type. The server checks inputs only for workflows with another check."""
