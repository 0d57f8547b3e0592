"""The model calls of an execution and its descendants: tokens, cost and time."""

from typing import Final

from msgspec import field

from perdure.wire.base.fields import Double, ExecutionId, Int64, Time, Uuid
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record

CALLS_MAX: Final = 2_000
EXECUTIONS_MAX: Final = 500


class CallSums(Record, frozen=True, kw_only=True):
    """Sums over model calls."""

    calls: Int64 = 0
    input_tokens: Int64 = 0
    output_tokens: Int64 = 0
    cached_tokens: Int64 = 0
    """Input tokens that providers read from their caches."""
    usd: Double = 0.0
    unpriced: Int64 = 0
    """Calls whose price is unknown. `usd` leaves them out."""


class Spent(CallSums, frozen=True, kw_only=True):
    """A sum over model calls."""

    ms: Double = 0.0
    """The time of the successful tries."""


class ModelCall(Record, frozen=True, kw_only=True):
    execution_id: Uuid
    seq: Int64
    """The call's row in the journal of `execution_id`."""
    key: str
    at_us: Time
    model: str | None = None
    input_tokens: Int64
    output_tokens: Int64
    cached_tokens: Int64
    usd: Double | None = None
    ms: Double | None = None


class ModelUsage(Spent, frozen=True, kw_only=True):
    model: str | None = None


class ChildUsage(Spent, frozen=True, kw_only=True):
    """Sums of a child and its descendants."""

    execution_id: Uuid
    workflow_id: str


class ExecutionUsage(Record, frozen=True, kw_only=True):
    shown_as = "UsageResponse"

    execution_id: Uuid
    total: Spent
    own: Spent
    """Sums of the execution without its descendants."""
    models: list[ModelUsage]
    """The most expensive first."""
    children: list[ChildUsage]
    """The children with model calls, the most expensive first."""
    calls: list[ModelCall] = field(default_factory=list)
    """Calls ordered by their end."""
    exact: bool = True
    """False: there are more than 2,000 calls or 500 executions, or an answer is too large to be read."""


usages: Final = Noun("Executions")


@usages.get("/api/v1/executions/{execution_id}/usage")
class GetUsage(Operation[ExecutionUsage], frozen=True):
    """The model calls of an execution and its descendants: tokens, cost and time of each call, and sums by model and
    child.

    The numbers come from the answers of agents' models in the journals. A fork's copied calls count for the source
    only.
    """

    execution_id: ExecutionId
