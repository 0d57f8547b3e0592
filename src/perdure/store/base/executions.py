"""Rows of executions and their journals."""

from typing import Any

from msgspec import Raw, Struct, structs

from perdure.wire.base.errors import NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Row


class NewExecution(Struct, frozen=True, gc=False, kw_only=True):
    project_id: str
    id: str
    workflow_id: str
    deployment_id: str | None
    phase: str
    payload: bytes
    created_at_us: int
    parent_execution_id: str | None
    root_execution_id: str | None
    step_key: str | None
    queue_name: str
    concurrency_key: str | None
    batch_id: str | None
    session_id: str | None
    user_id: str | None
    output_schema_name: str | None
    run_timeout_seconds: int | None
    key: str | None
    tags: bytes | None
    due_at_us: int | None
    priority: int
    rank: int
    ready_at_us: int
    gate: int
    wake_on_cancel: int
    attempt: int = 0
    assigned_to_worker: str | None = None
    started_at_us: int | None = None
    claim_id: str | None = None
    python: str | None = None
    next_seq: int = 1


class State(Struct, frozen=True, gc=False):
    """The columns of an execution by which verbs decide."""

    phase: Phase
    attempt: int
    assigned_to_worker: str | None
    report_number: int
    next_seq: int
    workflow_id: str
    parent_execution_id: str | None
    wake_on_cancel: bool
    cancelled_by: str | None
    acked: int
    losses: int
    undelivered: int
    created_at_us: int
    cancelled_at_us: int | None


class ChangedExecution(Struct, frozen=True, gc=False, kw_only=True):
    """An open execution after a change, with the last journal row of the change."""

    seq: int
    at_us: int
    attempt: int
    phase: Phase
    worker_id: str
    """The last worker, or ""."""
    deployment_id: str | None
    gate: int
    waits: bool = True
    """False if no wait is open."""

    def row(self, execution_id: str, kind: Kind, **values: Any) -> "JournalRow":
        return JournalRow(execution_id, self.seq, self.at_us, kind, self.attempt, **values)


class Parent(Struct, frozen=True, gc=False):
    """The columns of an execution for its children to inherit."""

    root_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    channel_context: bytes | None = None
    cancelled: bool = False
    forked_from: str | None = None
    keys_id: str | None = None
    """None: children have idempotency keys of their own."""


class ChangedParent(ChangedExecution, frozen=True, gc=False, kw_only=True):
    parent: Parent
    budgeted: bool = False


class EndedExecution(Struct, frozen=True, gc=False):
    """An execution after its end, with the last journal row."""

    seq: int
    at_us: int
    attempt: int
    workflow_id: str
    parent_execution_id: str | None
    step_key: str | None
    batch_id: str | None
    gate: int
    end_flags: int = 0
    """A sum of OUTSIDE, SESSIONS and SEARCHABLE (`verbs.rows`)."""
    waits: bool = True


class StoredWait(Struct, frozen=True, gc=False):
    state: str
    topic: str | None
    after_seq: int | None
    event_seq: int | None
    data: bytes | None
    """The shown question, or an early answer."""
    expires_at_us: int | None
    event_type: str | None
    """The type of an event that answers a push worker's question."""
    batch_id: str | None
    opened_at_us: int
    must_name: bool
    answer_schema: bytes | None = None

    def shows_another(self, topic: str | None, data: bytes | None) -> bool:
        """True if a native worker's wait for an answer shows other data than before."""
        is_plain = self.topic is None and self.event_type is None and self.batch_id is None
        return topic is None and is_plain and data != self.data

    @property
    def awaits(self) -> str | None:
        """The wait's subject in words. None for an answer."""
        if self.event_type is not None or (self.topic is None and self.batch_id is None):
            return None
        return "executions to end" if self.topic is None else "an event"


class StoredWorker(Struct, frozen=True, gc=False):
    project_id: str
    deployment_id: str
    python: str
    last_claim_id: str | None
    embedded: int
    anything: bool = False
    """True if work of the worker's deployment is ready."""
    protocol: int = 1


class JournalRow(Struct, frozen=True, gc=False):
    execution_id: str
    seq: int
    at_us: int
    kind: Kind
    attempt: int
    key: str | None = None
    name: str | None = None
    fingerprint: str | None = None
    ok: bool = True
    value: bytes | Raw = b"null"
    started_at_us: int | None = None
    tries: int = 0
    label: str | None = None
    quiet: bool = False

    def to_row(self) -> Row:
        fields = structs.asdict(self)
        del fields["execution_id"], fields["label"], fields["quiet"]
        return Row(**fields | {"value": Raw(bytes(self.value))})


def unknown_execution(id: str) -> NotFound:
    return NotFound(f"Execution {id!r} does not exist.")
