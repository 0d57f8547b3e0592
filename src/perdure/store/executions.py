"""Rows of executions, as statements write them."""

from msgspec import Struct


class NewExecution(Struct, frozen=True, gc=False, kw_only=True):
    """A row of an execution that begins."""

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
    limited: bool
    wake_on_cancel: int
    attempt: int = 0
    assigned_to_worker: str | None = None
    started_at_us: int | None = None
    claim_id: str | None = None
    python: str | None = None
    next_seq: int = 1
