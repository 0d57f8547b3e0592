"""The API's shapes of push workers: registration, pushed work, and their reports."""

from msgspec import UNSET, Raw, Struct, UnsetType

from perdure.wire.public import Int32, Time, Uuid
from perdure.wire.records import MaybeRaw


class RegisterWorkerRequest(Struct, frozen=True):
    """Register a push worker. Earlier registrations of the same URL end."""

    project_id: Uuid
    mode: str | None = None
    """`push`, the only one."""
    push_endpoint_url: str | None = None
    """The worker's URL, HTTP or HTTPS; required."""
    capabilities: MaybeRaw = None
    max_concurrent_executions: Int32 | None = None
    """How many executions it takes at a time; 100 by default."""
    deployment_id: str | None = None
    """Made if it is new; the current one by default."""


class RegisterWorkerResponse(Struct, frozen=True):
    """Always a new id."""

    worker_id: Uuid


class HeartbeatResponse(Struct, frozen=True):
    """Whether the server does not know the worker, which then must register again."""

    re_register: bool


class ActiveWorkersResponse(Struct, frozen=True):
    """The workers that hold a lease."""

    worker_ids: list[str]


class PollWorkflowResponse(Struct, frozen=True):
    """An execution that a worker has claimed by asking."""

    execution_id: Uuid
    workflow_id: str
    payload: Raw
    retry_count: Int32
    created_at: Time
    deployment_id: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    step_key: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    otel_traceparent: str | None = None
    otel_span_id: str | None = None
    initial_state: MaybeRaw = None


class PushedWork(Struct, frozen=True):
    """An execution as sent to a worker: the body of `POST {url}/execute`."""

    worker_id: str
    execution_id: str
    workflow_id: str
    created_at: str
    retry_count: int
    payload: Raw
    deployment_id: str | None
    parent_execution_id: str | None
    root_execution_id: str
    """Its own id for a root."""
    root_workflow_id: str
    step_key: str | None
    session_id: str | None
    user_id: str | None
    otel_traceparent: str | None
    otel_span_id: str | None
    initial_state: Raw | None
    channel_context: Raw | None
    run_timeout_seconds: int | None


# --- workers' reports -----------------------------------------------------------------------------------------------


class CompleteRequest(Struct, frozen=True):
    """The execution has a result, which may be null."""

    result: Raw
    worker_id: str
    output_schema_name: str | None = None
    final_state: MaybeRaw = None


class FailRequest(Struct, frozen=True):
    """The execution's code failed. It is retried, twice at most, unless `retryable` is false."""

    error: str
    worker_id: str
    stack: str | None = None
    retryable: bool | None = None
    final_state: MaybeRaw = None


class ConfirmCancellationRequest(Struct, frozen=True):
    """The worker has stopped working on the execution."""

    worker_id: str


class SetWaitingRequest(Struct, frozen=True):
    """Suspend the execution. Times without an offset are UTC."""

    step_key: str
    wait_type: str
    """`time`, `event` or `suspend`."""
    wait_until: str | None = None
    """The due time for `time`; otherwise it repeats `expires_at`."""
    wait_topic: str | None = None
    """For `event`."""
    expires_at: str | None = None
    """The time from which an event or an answer is too late."""


class SetWaitingResponse(Struct, frozen=True):
    """The execution that waits."""

    execution_id: Uuid


class SpanIdRequest(Struct, frozen=True):
    """The span in which the next attempt continues."""

    otel_span_id: str | None = None


class SaveStepRequest(Struct, frozen=True):
    """A step's outcome. The first one stands."""

    step_key: str
    outputs: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    success: bool | None = None
    source_execution_id: str | None = None
    output_schema_name: str | None = None


class SavedStepResponse(Struct, frozen=True):
    """A step's outcome, recorded by any worker or by the server."""

    step_key: str
    outputs: MaybeRaw = None
    error: MaybeRaw = None
    success: bool | None = None
    source_execution_id: str | None = None
    output_schema_name: str | None = None


class ListedStepResponse(Struct, frozen=True):
    """A step's outcome in a list."""

    step_key: str
    outputs: MaybeRaw = None
    error: MaybeRaw = None
    success: bool | None = None
    source_execution_id: str | None = None


class SavedStepsResponse(Struct, frozen=True):
    """All outcomes of an execution, by key."""

    steps: list[ListedStepResponse]
