"""Numbers over time: how many executions ended, how long they took, and what is open."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from msgspec import field

from perdure.wire.base.fields import Int64, Limit, Name, NextCursor, PageCursor, Time, described
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record

_MINUTE_US: Final = 60_000_000
_QUARTER_US: Final = 15 * _MINUTE_US
_HOUR_US: Final = 60 * _MINUTE_US
WORKFLOWS_MAX: Final = 100
"""Most workflows in an overview."""
CLASSES_PER_OCTAVE: Final = 4
_FACTOR: Final = CLASSES_PER_OCTAVE / math.log(2)


class Range(StrEnum):
    """A range of time that ends now."""

    HOUR = "1h"
    QUARTER_DAY = "6h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


class Buckets(NamedTuple):
    """How a range is divided."""

    from_us: int
    bucket_us: int
    step_us: int
    """The length of the rollups in the buckets."""

    @property
    def seconds(self) -> int:
        return self.bucket_us // 1_000_000

    def starts(self, now_us: int) -> Sequence[int]:
        return range(self.from_us, now_us + 1, self.bucket_us)


_BUCKETS: Final = {
    Range.HOUR: (60, _MINUTE_US, _MINUTE_US),
    Range.QUARTER_DAY: (72, 5 * _MINUTE_US, _MINUTE_US),
    Range.DAY: (96, _QUARTER_US, _QUARTER_US),
    Range.WEEK: (84, 2 * _HOUR_US, _HOUR_US),
    Range.MONTH: (90, 8 * _HOUR_US, _HOUR_US),
}


def buckets_of(asked: Range, now_us: int) -> Buckets:
    """Return buckets; the last bucket contains `now_us`."""
    amount, bucket_us, step_us = _BUCKETS[asked]
    return Buckets(now_us // bucket_us * bucket_us - (amount - 1) * bucket_us, bucket_us, step_us)


def step_of(span_us: int) -> int:
    """Return the length of rollups for sums over a span."""
    return _QUARTER_US if span_us <= 48 * _HOUR_US else _HOUR_US


def class_of(took_us: int) -> int:
    """Return the class of a duration, as the store computes it."""
    return math.floor(_FACTOR * math.log(1 + took_us / 1_000))


def percentile_ms(classes: Mapping[int, int], share: float) -> int | None:
    """Compute a percentile from counts by class; None without a count. Within a class durations count as spread evenly.

    >>> percentile_ms({class_of(100_000): 90, class_of(2_000_000): 10}, 0.95)
    1884
    """
    total = sum(classes.values())
    wanted = share * total
    for number in sorted(classes):
        if wanted <= classes[number]:
            least, most = (math.exp(n / _FACTOR) - 1 for n in (number, number + 1))
            return round(least + (most - least) * wanted / classes[number])
        wanted -= classes[number]
    return None


class EndedCounts(Record, frozen=True):
    completed: Int64 = 0
    failed: Int64 = 0
    cancelled: Int64 = 0

    @property
    def total(self) -> int:
        return self.completed + self.failed + self.cancelled


class EndedBucket(EndedCounts, frozen=True, kw_only=True):
    """Executions that ended from `at` until the next bucket."""

    at_us: Time


class TimedBucket(EndedBucket, frozen=True, kw_only=True):
    p50_ms: Int64 | None = None
    p95_ms: Int64 | None = None


class OpenCounts(Record, frozen=True):
    """Open executions by phase."""

    queued: Int64 = 0
    """Ready or delayed, but not paused."""
    paused: Int64 = 0
    """Ready, and held by a pause."""
    running: Int64 = 0
    waiting: Int64 = 0
    cancelling: Int64 = 0
    blocked: Int64 = 0
    held: Int64 = 0
    """Failed, and waiting for an act."""


class Questions(Record, frozen=True):
    """Open questions to people."""

    waiting: Int64 = 0
    oldest_at_us: Time | None = None
    nearest_expiry_at_us: Time | None = None


class WorkerCounts(Record, frozen=True):
    online: Int64 = 0
    lapsed: Int64 = 0
    """Workers whose lease has run out."""


class AttentionKind(StrEnum):
    BLOCKED = "blocked"
    NO_WORKER = "no_worker"
    """Ready executions of a deployment without a worker."""
    FAILURES = "failures"
    """Failed executions with the same error, not replaced by a retry."""
    HELD = "held"
    QUESTIONS = "questions"
    WEBHOOK = "webhook"
    """A URL whose newest message is not delivered after several tries."""
    PAUSED = "paused"
    """A pause that holds executions."""
    SKIPPED = "skipped"
    """A schedule that skipped due times."""


class AttentionDetails(Record, frozen=True, kw_only=True, omit_defaults=True):
    workflow_id: str | None = None
    deployment_id: str | None = None
    error: str | None = None
    """The error's pattern: numbers and ids are `…`."""
    pause: str | None = None
    """The kind of the paused thing."""
    name: str | None = None
    concurrency_key: str | None = None
    by: str | None = None
    note: str | None = None
    webhook_id: str | None = None
    url: str | None = None
    """The URL without its path."""
    status: Int64 | None = None
    schedule_id: str | None = None
    reason: str | None = None
    nearest_expiry_at_us: Time | None = None


class Attention(Record, frozen=True, kw_only=True):
    """A thing for a person to look at."""

    kind: AttentionKind
    count: Int64
    exact: bool = True
    """False: more may exist."""
    since_us: Time | None = None
    until_us: Time | None = None
    """When the newest occurred."""
    sentence: str
    details: AttentionDetails
    filter: dict[str, str] | None = None
    """Parameters of `GET /api/v1/executions` that list the executions."""
    sample_ids: list[str] = field(default_factory=list)


class Marker(Record, frozen=True):
    """A deployment was registered for the first time."""

    at_us: Time
    deployment_id: str


class WorkflowStats(Record, frozen=True, kw_only=True):
    workflow_id: str
    ended: Int64 = 0
    failed: Int64 = 0
    p50_ms: Int64 | None = None
    """The median time of completed executions from the first claim to the end, waits included."""
    p95_ms: Int64 | None = None
    open: Int64 = 0
    ended_by_bucket: list[Int64] = field(default_factory=list)
    """A number for each bucket of the range, in order."""
    failed_by_bucket: list[Int64] = field(default_factory=list)


class InRange(Record, frozen=True, kw_only=True):
    """The range of an answer's numbers."""

    as_of_us: Time
    range: Range
    from_us: Time
    step_seconds: Int64
    counted_from_us: Time | None = None
    """Ends before this time are not counted yet, while the server counts the past of an older store."""


class ErrorGroup(Record, frozen=True, kw_only=True):
    """A workflow's failed executions with the same error, apart from numbers and ids (`…`)."""

    error_class: str | None = field(default=None, name="class")
    """The text before the colon."""
    message: str
    workflow_id: str
    deployment_id: str | None = None
    """Null: several."""
    place: str | None = None
    """The step or child that failed in the newest execution."""
    count: Int64
    first_at_us: Time
    last_at_us: Time
    first_id: str
    sample_ids: list[str]
    """The newest."""
    filter: dict[str, str]
    """Parameters of `GET /api/v1/executions` that list the executions."""
    is_new: bool | None = None
    """No failure of the deployment before looks alike. Null: not compared, or not all failures could be."""


class DeploymentEnds(EndedCounts, frozen=True, kw_only=True):
    deployment_id: str | None
    p50_ms: Int64 | None = None
    p95_ms: Int64 | None = None


class DeploymentStats(DeploymentEnds, frozen=True, kw_only=True):
    as_of_us: Time
    used_from_us: Time
    from_us: Time
    """`used_from`, or 7 days ago."""
    workers_lost: Int64
    """Workers lost in the last 24 hours."""
    errors: list[ErrorGroup]
    """Failures that no retry replaced: the new ones first, then the largest, at most 5."""
    before: DeploymentEnds | None = None
    """The deployment before, from a day before `from`. Null: none is known."""
    can_roll_back: bool = False
    """The deployment is current, and the deployment before is active."""


class Overview(InRange, frozen=True, kw_only=True):
    since_deploy: DeploymentStats | None = None
    """The current deployment. Null: no other came before it."""
    ended: list[EndedBucket]
    ended_total: EndedCounts
    open: OpenCounts
    queued_oldest_at_us: Time | None = None
    """When the first ready execution began to wait for a worker."""
    people: Questions
    workers: WorkerCounts
    attention: list[Attention]
    """The worst first."""
    markers: list[Marker]
    workflows: list[WorkflowStats]
    """The worst first, at most 100."""


class WorkflowStatsPage(InRange, frozen=True, kw_only=True):
    workflows: list[WorkflowStats]
    """Workflows sorted by id."""
    next_cursor: NextCursor | None = None


class StepTimes(Record, frozen=True, kw_only=True):
    """A step's time from the last try to the outcome."""

    name: str
    count: Int64
    p50_ms: Int64
    p95_ms: Int64


class SampledSteps(Record, frozen=True, kw_only=True):
    sampled: Int64 = 0
    """The newest completed executions, at most 200. Only they have times here."""
    values: list[StepTimes] = field(default_factory=list)
    """The longest in total come first, at most 50."""


class WorkflowDetails(EndedCounts, frozen=True, kw_only=True):
    as_of_us: Time
    range: Range
    from_us: Time
    step_seconds: Int64
    counted_from_us: Time | None = None
    workflow_id: str
    p50_ms: Int64 | None = None
    p95_ms: Int64 | None = None
    open: OpenCounts
    open_exact: bool = True
    """False: more may be open."""
    buckets: list[TimedBucket]
    deployments: list[DeploymentEnds]
    errors: list[ErrorGroup]
    """The largest of the range's newest failures, at most 5."""
    steps: SampledSteps


class KeyCounts(Record, frozen=True):
    """A concurrency key of a queue with limits."""

    concurrency_key: str | None
    running: Int64
    queued: Int64


class QueueStats(InRange, frozen=True, kw_only=True):
    ended: list[EndedBucket]
    keys: list[KeyCounts]
    """The busiest keys of a queue with limits, at most 100."""


RangeOf = Annotated[Range, described("1h, 6h, 24h, 7d or 30d, until now.")]

stats: Final = Noun("Statistics")


@stats.get("/api/v1/overview")
class GetOverview(Operation[Overview], frozen=True):
    """Numbers of a range: ended and open executions, and things that need attention."""

    range: RangeOf = Range.DAY


@stats.get("/api/v1/stats/workflows")
class ListWorkflowStats(Operation[WorkflowStatsPage], frozen=True):
    """Numbers of each workflow with open executions, or with ended executions in the range."""

    range: RangeOf = Range.DAY
    cursor: PageCursor | None = None
    limit: Limit = 100


@stats.get("/api/v1/workflows/{workflow_id}/stats")
class GetWorkflowStats(Operation[WorkflowDetails], frozen=True):
    """Numbers of a workflow: ends and durations over time, by deployment, errors, and times of steps.

    An unknown workflow has zeros.
    """

    workflow_id: Name
    range: RangeOf = Range.DAY


@stats.get("/api/v1/deployments/{deployment_id}/stats")
class GetDeploymentStats(Operation[DeploymentStats], frozen=True):
    """Numbers of a deployment since it came into use: ends, failures, lost workers, and the deployment before it."""

    deployment_id: str


@stats.get("/api/v1/queues/{name}/stats")
class GetQueueStats(Operation[QueueStats], frozen=True):
    """Ended executions of a queue over time, and the queue's concurrency keys. An unknown queue has zeros."""

    name: Name
    range: RangeOf = Range.HOUR
