"""An execution in few columns, as several rooms show it."""

from typing import ClassVar

from msgspec import Struct

from perdure.wire.base.fields import Time, Uuid
from perdure.wire.base.record import Record
from perdure.wire.base.status import Phase


class BriefExecution(Struct, frozen=True, kw_only=True):
    """The columns that sessions and traces both show."""

    id: str
    workflow_id: str
    phase: Phase
    session_id: str | None
    created_at_us: int
    started_at_us: int | None
    completed_at_us: int | None


class StartedExecution(Record, frozen=True):
    """The new execution, or the one that the request's key named."""

    shown_as: ClassVar[str] = "SubmitWorkflowResponse"

    execution_id: Uuid
    created_at_us: Time
