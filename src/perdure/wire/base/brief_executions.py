"""An execution in a few columns."""

from typing import ClassVar

from msgspec import Struct

from perdure.wire.base.fields import Time, Uuid
from perdure.wire.base.record import Record
from perdure.wire.base.status import Phase


class BriefExecution(Struct, frozen=True, kw_only=True):
    """The columns shown by both sessions and traces."""

    id: str
    workflow_id: str
    phase: Phase
    created_at_us: int
    started_at_us: int | None
    completed_at_us: int | None
    session_id: str | None = None


class StartedExecution(Record, frozen=True):
    """A new execution, or the execution started earlier under the request's key."""

    shown_as: ClassVar[str] = "SubmitWorkflowResponse"

    execution_id: Uuid
    created_at_us: Time
