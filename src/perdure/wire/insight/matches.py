"""Numbers of the executions that filters find: counts, histograms, errors and values of fields.

A search ends after half a second or 10,000 matches, newest first.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Struct

from perdure.wire.base.fields import Int64, Time, between, described
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.insight.stats import ErrorGroup
from perdure.wire.runs.executions import ListFilters

MATCHES_MAX: Final = 10_000
BUCKETS_WANTED: Final = 60
BUCKETS_MAX: Final = 1_000
FACETS_MAX: Final = 100
_SECOND_US: Final = 1_000_000
_STEPS: Final = (1, 5, 15, 60, 300, 900, 3_600, 7_200, 21_600, 86_400, 604_800)
"""Seconds."""


class Match(Struct, frozen=True):
    """An execution found by the filters."""

    id: str
    workflow_id: str
    deployment_id: str | None
    phase: str
    queue_name: str
    user_id: str | None
    session_id: str | None
    batch_id: str | None
    created_at_us: int
    completed_at_us: int | None


class CountReply(Record, frozen=True):
    count: Int64
    exact: bool
    """False: more may match."""


class HistogramTime(StrEnum):
    CREATED = "created"
    ENDED = "ended"


class HistogramBucket(Record, frozen=True):
    at_us: Time
    phases: dict[str, Int64]


class Histogram(Record, frozen=True, kw_only=True):
    step_seconds: Int64
    from_us: Time | None = None
    """The first bucket. Null: nothing was found."""
    to_us: Time | None = None
    """The end of the last bucket."""
    exact: bool
    """False: older executions are left out."""
    buckets: list[HistogramBucket]
    """Buckets, leaving out empty ones."""


class ErrorGroups(Record, frozen=True):
    groups: list[ErrorGroup]
    """The largest first."""
    exact: bool
    """False: older executions are left out."""


class FacetField(StrEnum):
    PHASE = "phase"
    WORKFLOW = "workflow_id"
    DEPLOYMENT = "deployment_id"
    QUEUE = "queue_name"
    USER = "user_id"
    SESSION = "session_id"
    BATCH = "batch_id"
    TAG = "tag"
    """`name=value`."""
    ERROR_CLASS = "error_class"


LEFT_OUT: Final[dict[FacetField, Sequence[str]]] = {
    FacetField.PHASE: ("status", "phases"),
    FacetField.ERROR_CLASS: ("error",),
}
"""Filters on the field, if named differently."""


class FacetValue(Record, frozen=True):
    value: str
    count: Int64


class Facets(Record, frozen=True, kw_only=True):
    of: FacetField
    values: list[FacetValue]
    """The most frequent first."""
    exact: bool
    """False: older executions are left out."""


def histogram(matches: Iterable[Match], over: HistogramTime, step_seconds: int | None, *, exact: bool) -> Histogram:
    """Make a histogram. A step that makes more than BUCKETS_MAX buckets grows."""
    is_created = over is HistogramTime.CREATED
    times = [(one.created_at_us if is_created else one.completed_at_us, one.phase) for one in matches]
    known = [(at_us, phase) for at_us, phase in times if at_us is not None]
    if not known:
        return Histogram(step_seconds=step_seconds or _STEPS[0], exact=exact, buckets=[])
    span = (max(known)[0] - min(known)[0]) / _SECOND_US
    most, least = (BUCKETS_WANTED, 0) if step_seconds is None else (BUCKETS_MAX, step_seconds)
    steps = [least] if least and span <= most * least else [step for step in _STEPS if step > least]
    seconds = next((step for step in steps if span <= most * step), _STEPS[-1])
    step_us = seconds * _SECOND_US
    counts: dict[int, Counter[str]] = {}
    for at_us, phase in known:
        counts.setdefault(at_us // step_us * step_us, Counter())[phase] += 1
    return Histogram(
        step_seconds=seconds,
        from_us=min(counts),
        to_us=max(counts) + step_us,
        exact=exact,
        buckets=[HistogramBucket(at_us, dict(phases)) for at_us, phases in sorted(counts.items())],
    )


matches: Final = Noun("Executions")
_Groups = Annotated[int, between(1, FACETS_MAX), described(f"1 to {FACETS_MAX}.")]


@matches.get("/api/v1/executions/count")
class CountExecutions(ListFilters, Operation[CountReply], frozen=True):
    """Count matching executions."""


@matches.get("/api/v1/executions/histogram")
class GetHistogram(ListFilters, Operation[Histogram], frozen=True):
    """Matching executions, over time and by phase."""

    over: HistogramTime = HistogramTime.CREATED
    step: Annotated[int, between(1, 31_536_000)] | None = None
    """Seconds. The default step makes about 60 buckets."""


@matches.get("/api/v1/executions/errors")
class GetErrors(ListFilters, Operation[ErrorGroups], frozen=True):
    """Matching failed executions, by workflow and error."""

    limit: _Groups = 20


@matches.get("/api/v1/executions/facets")
class GetFacets(ListFilters, Operation[Facets], frozen=True):
    """Values of a field among matching executions. Filters on the field itself do not count."""

    of: FacetField = FacetField.PHASE
    limit: _Groups = 20
