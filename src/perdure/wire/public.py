"""Shapes of the public API, with the contract's names. Times are RFC 3339 with offset; values are JSON byte for byte.

Contract requests ignore unknown fields, which clients of other versions send. Requests that Perdure added refuse them
(`wire/requests.py`). A reply's fields with defaults may be null.
"""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from perdure.wire.budgets import BudgetSpec
from perdure.wire.fields import INT64_MAX as INT64_MAX  # these while not every room asks `fields` and `times` itself
from perdure.wire.fields import Double as Double
from perdure.wire.fields import Int32 as Int32
from perdure.wire.fields import Int64 as Int64
from perdure.wire.fields import Moment as Moment
from perdure.wire.fields import Position as Position
from perdure.wire.fields import Uuid as Uuid
from perdure.wire.record import DONE as DONE
from perdure.wire.record import Done as Done
from perdure.wire.records import NULL, Event, MaybeRaw
from perdure.wire.requests import Request, StartItem
from perdure.wire.times import microseconds as microseconds
from perdure.wire.times import rfc3339 as rfc3339
from perdure.wire.transcripts import OnConflict

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
# --- start ---------------------------------------------------------------------------------------------------------


class SubmitWorkflowRequest(Struct, frozen=True):
    """Start one execution. `payload` is required; null is fine."""

    payload: Raw
    deployment_id: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    step_key: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    queue_concurrency_limit: Int32 | None = None
    wait_for_subworkflow: bool | None = None
    session_id: str | None = None
    user_id: str | None = None
    otel_traceparent: str | None = None
    initial_state: MaybeRaw = None
    run_timeout_seconds: Int32 | None = None
    channel_context: MaybeRaw = None
    key: str | None = None
    priority: Int32 | None = None
    tags: dict[str, str] | None = None
    delay_seconds: float | None = None
    start_at: Moment | None = None
    accept_early: bool | None = None
    webhook_url: str | None = None
    """A URL that gets a signed POST at the end, retried until it is taken."""
    on_conflict: OnConflict | None = None
    """Makes the execution a turn of its session, one at a time: `queue`, `reject` or `deliver` while another is
    open."""
    budget: BudgetSpec | None = None
    """Spending limits on model calls for the execution and all its descendants."""


class SubmitWorkflowResponse(Struct, frozen=True):
    """The execution that was started, or that the request's key already named."""

    execution_id: Uuid
    created_at: Time


class WorkflowRequest(Struct, frozen=True):
    """One item of a batch."""

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
    start_at: Moment | None = None
    accept_early: bool | None = None
    webhook_url: str | None = None
    """A URL that gets a signed POST at the end, retried until it is taken."""
    budget: BudgetSpec | None = None
    """Spending limits on model calls for the execution and all its descendants."""


class SubmitWorkflowsRequest(Struct, frozen=True):
    """Start several executions in one transaction: all or none, under one batch id."""

    workflows: list[WorkflowRequest]
    deployment_id: str | None = None
    step_key: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    wait_for_subworkflow: bool | None = None
    otel_traceparent: str | None = None
    channel_context: MaybeRaw = None


class SubmitWorkflowsResponse(Struct, frozen=True):
    """In the order of the request."""

    executions: list[SubmitWorkflowResponse]


class StartItemRequest(StartItem, frozen=True):
    """One independent execution to start: all fields of a run, and the name of its workflow."""

    start_at: Moment | None = None
    root_execution_id: str | None = None
    wait_for_subworkflow: bool | None = None


class StartManyRequest(Request, frozen=True):
    """Independent starts: each item has its own answer; no batch id, no shared session."""

    items: list[StartItemRequest]


# --- executions ----------------------------------------------------------------------------------------------------


class ResumeRequest(Request, frozen=True):
    """The answer to a suspended step."""

    data: Raw = NULL
    question: str | None = None
    """The id of the question that is answered; null: any question of the step."""


class ResumeResponse(Struct, frozen=True):
    """The answer that stands."""

    execution_id: Uuid
    step_key: str
    state: str = "answered"
    """`answered`: the step continues with it. `early`: no step has asked yet. A step that shows nothing will take
    the answer; a later question will not."""
    answered_by: str | None = None
    answered_at: Time | None = None


# --- events --------------------------------------------------------------------------------------------------------


class EventData(Struct, frozen=True):
    """One event to publish. With a `dedup_key` the topic keeps the first and answers repeats with its number."""

    data: Raw
    event_type: str | None = None
    execution_id: str | None = None
    attempt_number: Int32 | None = None
    dedup_key: str | None = None


class PublishEventRequest(Struct, frozen=True):
    """Append events to a topic, in order, in one transaction."""

    topic: str
    events: list[EventData]
    durable: bool | None = None
    execution_id: str | None = None
    root_execution_id: str | None = None


class PublishEventResponse(Struct, frozen=True):
    """The events' numbers, in the order of the request."""

    sequence_ids: list[Int64]
    created_at: Time


class EventResponse(Struct, frozen=True):
    """One event. `sequence_id` grows by one per topic, without gaps."""

    id: Uuid
    sequence_id: Int64
    topic: str
    data: Raw
    created_at: Time
    event_type: str | None = None


def event_response(event: Event) -> EventResponse:
    return EventResponse(
        event.id, event.sequence_id, event.topic, event.data, rfc3339(event.created_at_us), event.event_type
    )


class GetEventsResponse(Struct, frozen=True):
    """A page of a topic; `has_more`: the page was full."""

    events: list[EventResponse]
    has_more: bool
    next_sequence_id: Int64 | None = None
