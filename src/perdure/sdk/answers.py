"""Turns answers of the HTTP API into the SDK's records."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import Raw

from perdure.wire.errors import PerdureError
from perdure.wire.public import EventResponse, ExecutionResponse, LogResponse, StepResponse, microseconds
from perdure.wire.records import Event, Execution, Kind, Row
from perdure.wire.requests import LogLine
from perdure.wire.status import Phase

T = TypeVar("T")


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the body of an answer. Raises PerdureError if it is not an answer of Perdure."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise PerdureError(f"The server's answer is not one of Perdure ({error}); is it the right server?") from error


def to_us(time: str) -> int:
    """Microseconds since the epoch."""
    return microseconds(datetime.fromisoformat(time))


def _maybe_to_us(time: str | None) -> int | None:
    return None if time is None else to_us(time)


def execution(shown: ExecutionResponse) -> Execution:
    """Fields that the API does not show are empty."""
    phase = Phase(shown.phase or shown.status)
    return Execution(
        id=shown.id,
        project_id="",
        workflow_id=shown.workflow_id,
        deployment_id=shown.deployment_id,
        phase=phase,
        payload=shown.payload,
        result=shown.result if phase is Phase.COMPLETED else None,
        error=shown.error,
        created_at_us=to_us(shown.created_at),
        started_at_us=_maybe_to_us(shown.started_at),
        completed_at_us=_maybe_to_us(shown.completed_at),
        assigned_to_worker=shown.assigned_to_worker,
        parent_execution_id=shown.parent_execution_id,
        root_execution_id=shown.root_execution_id,
        retry_count=shown.retry_count,
        step_key=shown.step_key,
        queue_name=shown.queue_name or shown.workflow_id,
        concurrency_key=shown.concurrency_key,
        batch_id=shown.batch_id,
        session_id=shown.session_id,
        user_id=shown.user_id,
        output_schema_name=shown.output_schema_name,
        cancelled_at_us=_maybe_to_us(shown.cancelled_at),
        cancelled_by=shown.cancelled_by,
        run_timeout_seconds=shown.run_timeout_seconds,
        key=shown.key,
        attempt=shown.attempt or 0,
        tags=_maybe(shown.tags),
        progress=_maybe(shown.progress),
        due_at_us=_maybe_to_us(shown.due_at),
        next_seq=0,
    )


def _maybe(value: Raw | None) -> Raw | None:
    return None if value is None or bytes(value) == b"null" else value


def row(step: StepResponse) -> Row:
    return Row(
        step.seq,
        to_us(step.at),
        Kind(step.kind),
        step.attempt,
        step.key,
        step.name,
        step.fingerprint,
        step.ok,
        step.value,
        _maybe_to_us(step.started_at),
        step.tries,
    )


def line(shown: LogResponse) -> tuple[int, LogLine]:
    """A log line, after its number."""
    return shown.n, LogLine(to_us(shown.at), shown.level, shown.text)


def event(shown: EventResponse) -> Event:
    return Event(shown.id, shown.sequence_id, shown.topic, shown.event_type, shown.data, to_us(shown.created_at))
