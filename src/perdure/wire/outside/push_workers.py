"""Push workers: registrations and reports."""

from typing import Annotated, ClassVar, Final

from msgspec import Raw, field

from perdure.wire.base.access import Role
from perdure.wire.base.codec import KEY_BYTES_MAX, scrub_text
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import (
    ExecutionId,
    Int32,
    Name,
    Time,
    Uuid,
    Value,
    checked_json,
    id_check,
    in_body,
    name_check,
)
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Done, Record
from perdure.wire.base.records import MaybeRaw

CAPACITY: Final = 100
CAPACITY_MAX: Final = 10_000
_BODY_BYTES_MAX: Final = 1 << 20
"""The server skips a registration's `capabilities`."""

WorkerId = Annotated[str, id_check("worker")]


class Registered(Record, frozen=True):
    """A registration, always with a new id."""

    shown_as: ClassVar[str] = "RegisterWorkerResponse"

    worker_id: Uuid


class Heartbeat(Record, frozen=True):
    shown_as: ClassVar[str] = "HeartbeatResponse"

    re_register: bool


class PolledWork(Record, frozen=True):
    """An execution claimed by a worker's poll."""

    shown_as: ClassVar[str] = "PollWorkflowResponse"

    execution_id: Uuid
    workflow_id: str
    payload: Raw
    retry_count: Int32
    created_at_us: Time = field(name="created_at")
    deployment_id: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    step_key: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    otel_traceparent: str | None = None
    otel_span_id: str | None = None
    initial_state: Value = None


class PushedWork(PolledWork, frozen=True, kw_only=True):
    """The body of `POST {url}/execute`. A root names itself in `root_execution_id`."""

    worker_id: str
    root_workflow_id: str
    channel_context: Value = None
    run_timeout_seconds: Int32 | None = None


class ListedStep(Record, frozen=True):
    shown_as: ClassVar[str] = "ListedStepResponse"

    step_key: str
    outputs: Value = None
    error: Value = None
    success: bool | None = None
    source_execution_id: str | None = None


class SavedStep(ListedStep, frozen=True):
    shown_as: ClassVar[str] = "SavedStepResponse"

    output_schema_name: str | None = None


class Waiting(Record, frozen=True):
    shown_as: ClassVar[str] = "SetWaitingResponse"

    execution_id: Uuid


push_workers: Final = Noun("Workers")
"""A hand-written route in `server/routes/push_workers.py` holds the poll."""


def _refusal(field: str, rule: str, given: object) -> BadRequest:
    return BadRequest(f"body.{field}: {rule}, got {given}.", {"path": f"body.{field}"})


@push_workers.post(
    "/api/v1/workers/register",
    role=Role.WORK,
    repeated="a new id; retires the registration under that URL",
    contract=True,
    body="RegisterWorkerRequest",
    body_bytes_max=_BODY_BYTES_MAX,
)
class RegisterWorker(Operation[Registered], frozen=True):
    """Register a push worker under a new id.

    A worker under the same URL is retired. Its executions go to other workers.
    """

    project_id: Uuid
    mode: str | None = None
    """Only `push`."""
    push_endpoint_url: str | None = None
    """HTTP or HTTPS; required."""
    capabilities: MaybeRaw = None
    max_concurrent_executions: Int32 | None = None
    """Most executions at a time; 100 by default."""
    deployment_id: Name | None = None
    """A new deployment is made. Default: the current deployment."""

    @property
    def capacity(self) -> int:
        return CAPACITY if self.max_concurrent_executions is None else self.max_concurrent_executions

    def check(self) -> None:
        if self.mode not in (None, "push"):
            raise _refusal("mode", "must be 'push'", repr(self.mode))
        url = self.push_endpoint_url
        if url is None or not url.startswith(("http://", "https://")):
            raise _refusal("push_endpoint_url", "must start with http:// or https://", repr(url))
        if "?" in url:
            raise _refusal("push_endpoint_url", "must have no query, since /execute is put behind it", repr(url))
        if not 1 <= self.capacity <= CAPACITY_MAX:
            raise _refusal("max_concurrent_executions", f"must be 1 to {CAPACITY_MAX:,}", self.capacity)


@push_workers.get("/api/v1/workers/active", contract=True, under="worker_ids", reply="ActiveWorkersResponse")
class GetActiveWorkers(Operation[Listed[str]], frozen=True):
    """Live workers of the project."""


@push_workers.post("/api/v1/workers/{worker_id}/online", role=Role.WORK, repeated="no effect", contract=True)
class WorkerOnline(Operation[Done], frozen=True):
    """End the registration: the server may send work."""

    worker_id: WorkerId


@push_workers.post("/api/v1/workers/{worker_id}/heartbeat", role=Role.WORK, repeated="no effect", contract=True)
class WorkerHeartbeat(Operation[Heartbeat], frozen=True):
    """Keep a worker alive.

    `re_register` is true only for an unknown worker: under a new id, its running executions could not report.
    """

    worker_id: WorkerId


pushed_executions: Final = Noun("Push workers")


def _state(value: Raw, where: str) -> Raw | None:
    return None if bytes(checked_json(value, where)) == b"null" else value


Key = Annotated[str, in_body(name_check(KEY_BYTES_MAX))]
Json = Annotated[Raw, in_body(checked_json)]
MaybeJson = Annotated[MaybeRaw, in_body(checked_json)]
State = Annotated[MaybeRaw, in_body(_state)]
"""None means null."""
Scrubbed = Annotated[str, lambda value, where: scrub_text(value)]


@pushed_executions.post(
    "/internal/executions/{execution_id}/complete",
    role=Role.WORK,
    repeated="no effect",
    contract=True,
    body="CompleteRequest",
)
class CompleteExecution(Operation[Done], frozen=True):
    """End an execution with a result.

    409: the worker no longer holds the execution, and has to stop.
    """

    execution_id: ExecutionId
    result: Json
    worker_id: WorkerId
    output_schema_name: str | None = None
    final_state: State = None


@pushed_executions.post(
    "/internal/executions/{execution_id}/fail", role=Role.WORK, repeated="no effect", contract=True, body="FailRequest"
)
class FailExecution(Operation[Done], frozen=True):
    """Report that an execution's code failed.

    The server tries the execution again, at most twice, unless `retryable` is false.
    """

    execution_id: ExecutionId
    error: Scrubbed
    worker_id: WorkerId
    stack: Scrubbed | None = None
    retryable: bool | None = None
    final_state: State = None


@pushed_executions.post(
    "/internal/executions/{execution_id}/confirm-cancellation", role=Role.WORK, repeated="no effect", contract=True
)
class ConfirmCancellation(Operation[Done], frozen=True):
    """Report that the worker has stopped an execution.

    Without a cancellation the execution goes back to the queue, or ends if its run time is up.
    """

    execution_id: ExecutionId
    worker_id: WorkerId


@pushed_executions.post(
    "/internal/executions/{execution_id}/wait",
    role=Role.WORK,
    repeated="no effect",
    contract=True,
    body="SetWaitingRequest",
)
class WaitExecution(Operation[Waiting], frozen=True):
    """Suspend an execution until a time, an event, or an answer.

    Times without an offset are UTC.
    """

    execution_id: ExecutionId
    step_key: Key
    wait_type: str
    """`time`, `event` or `suspend`."""
    wait_until: str | None = None
    """The due time for `time`; otherwise a repetition of `expires_at`."""
    wait_topic: str | None = None
    """The topic for `event`."""
    expires_at: str | None = None
    """When an event or an answer comes too late."""


@pushed_executions.put(
    "/internal/executions/{execution_id}/otel-span-id", role=Role.WORK, contract=True, body="SpanIdRequest"
)
class PutOtelSpanId(Operation[Done], frozen=True):
    """Store the span for the next attempt."""

    execution_id: ExecutionId
    otel_span_id: Key | None = None


@pushed_executions.post(
    "/internal/executions/{execution_id}/steps", role=Role.WORK, repeated="no effect", contract=True
)
class SaveStep(Operation[Done], frozen=True):
    """Record a step's outcome; only the first outcome counts."""

    execution_id: ExecutionId
    step_key: Key
    outputs: MaybeJson = None
    error: MaybeJson = None
    success: bool | None = None
    source_execution_id: Key | None = None
    output_schema_name: Key | None = None


@pushed_executions.get(
    "/internal/executions/{execution_id}/steps", contract=True, under="steps", reply="SavedStepsResponse"
)
class ListSavedSteps(Operation[Listed[ListedStep]], frozen=True):
    """All outcomes of an execution, by key.

    400 if too large for one answer: then ask with `after`.
    """

    execution_id: ExecutionId
    after: str | None = None
    """Answer in pages: the steps after this key. Empty asks for the first page; an empty page is the last."""


@pushed_executions.get("/internal/executions/{execution_id}/steps/{step_key}", contract=True, rest=True)
class GetSavedStep(Operation[SavedStep], frozen=True):
    """A step's outcome.

    404: no outcome yet. The key may hold slashes.
    """

    execution_id: ExecutionId
    step_key: str
