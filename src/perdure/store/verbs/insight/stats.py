"""Numbers over time, and what is open now."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import asdict, replace

from perdure.store.base.interface import query, record, records, serves, value, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.base.pages import newest_entries
from perdure.store.verbs.runs.deployments import read_deployment
from perdure.store.verbs.runs.find import CLOCKS_APART_US, id_at
from perdure.wire.base.cursors import read_cursor, write_cursor
from perdure.wire.base.status import Phase
from perdure.wire.base.times import NEVER_US
from perdure.wire.insight.attention import (
    SAMPLES,
    Cluster,
    NewestDelivery,
    Skipped,
    StuckExecution,
    Troubles,
    Unserved,
    attention,
    clusters_of,
)
from perdure.wire.insight.stats import (
    WORKFLOWS_MAX,
    Buckets,
    DeploymentEnds,
    DeploymentStats,
    EndedBucket,
    EndedCounts,
    ErrorGroup,
    GetDeploymentStats,
    GetQueueStats,
    GetWorkflowStats,
    KeyCounts,
    ListWorkflowStats,
    Marker,
    OpenCounts,
    Overview,
    Questions,
    QueueStats,
    Range,
    SampledSteps,
    StepTimes,
    TimedBucket,
    WorkerCounts,
    WorkflowDetails,
    WorkflowStats,
    WorkflowStatsPage,
    buckets_of,
    percentile_ms,
    step_of,
)
from perdure.wire.insight.why_facts import BLAMED
from perdure.wire.runs.deployments import Deployment, DeploymentStatus
from perdure.wire.runs.queues import Pause

STUCK_MAX: Final = 1_000
FAILURES_MAX: Final = 200
"""Newest failures per workflow that are grouped by error."""
FAILING_MAX: Final = 10
"""Most workflows whose failures are grouped."""
DELIVERIES_MAX: Final = 200
DEPLOYMENTS_MAX: Final = 20
ERRORS_MAX: Final = 5
OPEN_MAX: Final = 10_000
SAMPLED_MAX: Final = 200
STEPS_MAX: Final = 5_000
STEPS_SHOWN_MAX: Final = 50
KEYS_MAX: Final = 100
COMPARED_MAX: Final = 1_000
"""Newest failures of a deployment that are compared with those of another."""
_DAY_US: Final = 86_400_000_000
SINCE_US: Final = 7 * _DAY_US
READY_US: Final = 10_000_000
"""Work that is ready for less time needs no attention: the worker may be starting."""


class EndCounts:
    def __init__(self) -> None:
        self.buckets = defaultdict[int, Counter[str]](Counter)
        """Ends by bucket and phase."""
        self.classes: Counter[int] = Counter()
        """Completed executions by class of duration."""

    def add(self, at_us: int, phase: str, took: int, n: int) -> None:
        self.buckets[at_us][phase] += n
        if took >= 0:
            self.classes[took] += n

    @property
    def total(self) -> EndedCounts:
        phases: Counter[str] = Counter()
        for counts in self.buckets.values():
            phases.update(counts)
        return EndedCounts(**phases)

    def percentiles(self) -> dict[str, Any]:
        return {"p50_ms": percentile_ms(self.classes, 0.5), "p95_ms": percentile_ms(self.classes, 0.95)}

    def in_buckets(self, buckets: Buckets, now_us: int) -> list[EndedBucket]:
        return [EndedBucket(at_us=at, **self.buckets[at]) for at in buckets.starts(now_us)]


@verb(reads=True)
async def overview(*, project_id: str, range: Range, now_us: int) -> Overview:
    buckets = buckets_of(range, now_us)
    all_ended, by_workflow = await _ended_by_workflow(project_id, buckets, now_us)
    opened: dict[str, int] = dict(await query("open_by_workflow", project_id=project_id))
    rows = [
        _workflow_stats(id, by_workflow.get(id), opened.get(id, 0), buckets, now_us)
        for id in by_workflow.keys() | opened.keys()
    ]
    rows.sort(key=lambda one: (-one.failed / (one.ended or 1), -one.ended, -one.open, one.workflow_id))
    counts, oldest_at_us = await _open(project_id)
    questions = await record(Questions, "count_questions", project_id=project_id, now_us=now_us)
    assert questions is not None
    workers = await record(WorkerCounts, "count_workers", project_id=project_id, now_us=now_us)
    assert workers is not None
    markers = await query("new_deployments", project_id=project_id, from_us=buckets.from_us, limit=DEPLOYMENTS_MAX)
    current = await value("current_deployment", project_id=project_id)
    since_deploy = None if current is None else await _deployment_stats(project_id, current, now_us)
    return Overview(
        since_deploy=since_deploy if since_deploy and since_deploy.before else None,
        as_of_us=now_us,
        range=range,
        from_us=buckets.from_us,
        step_seconds=buckets.seconds,
        counted_from_us=await _counted_from(now_us),
        ended=all_ended.in_buckets(buckets, now_us),
        ended_total=all_ended.total,
        open=counts,
        queued_oldest_at_us=oldest_at_us,
        people=questions,
        workers=workers,
        attention=attention(await _troubles(project_id, rows, counts, questions, buckets, now_us)),
        markers=[Marker(at_us, deployment_id) for deployment_id, at_us in reversed(markers)],
        workflows=rows[:WORKFLOWS_MAX],
    )


@serves(ListWorkflowStats, scans=True)
async def workflow_stats(at: At, op: ListWorkflowStats) -> WorkflowStatsPage:
    (after,) = ("",) if op.cursor is None else read_cursor(op.cursor, tuple[str], "first")
    now_us, buckets = at.now_us, buckets_of(op.range, at.now_us)
    _, by_workflow = await _ended_by_workflow(at.project_id, buckets, now_us)
    opened: dict[str, int] = dict(await query("open_by_workflow", at))
    ids = sorted(id for id in by_workflow.keys() | opened.keys() if id > after)
    page = [_workflow_stats(id, by_workflow.get(id), opened.get(id, 0), buckets, now_us) for id in ids[: op.limit]]
    return WorkflowStatsPage(
        as_of_us=now_us,
        range=op.range,
        from_us=buckets.from_us,
        step_seconds=buckets.seconds,
        counted_from_us=await _counted_from(now_us),
        workflows=page,
        next_cursor=write_cursor((page[-1].workflow_id,)) if len(ids) > op.limit else None,
    )


@serves(GetWorkflowStats, scans=True)
async def workflow_details(at: At, op: GetWorkflowStats) -> WorkflowDetails:
    range, now_us = op.range, at.now_us
    buckets = buckets_of(range, now_us)
    of_workflow = {"project_id": at.project_id, "workflow_id": op.workflow_id}
    whole = EndCounts()
    deployments, by_bucket = defaultdict[str, EndCounts](EndCounts), defaultdict[int, EndCounts](EndCounts)
    rows = await query("ends_of_workflow", now_us=now_us, **of_workflow, **buckets._asdict())
    for at_us, deployment_id, phase, took, n in rows:
        for one in (whole, deployments[deployment_id], by_bucket[at_us]):
            one.add(at_us, phase, took, n)
    newest = await records(StuckExecution, "failed_of_workflow", limit=FAILURES_MAX, **of_workflow)
    clusters = clusters_of(one for one in newest if one.at_us >= buckets.from_us)[:ERRORS_MAX]
    phases: dict[str, int] = dict(await query("open_of_workflow", limit=OPEN_MAX, **of_workflow))
    return WorkflowDetails(
        as_of_us=now_us,
        range=range,
        from_us=buckets.from_us,
        step_seconds=buckets.seconds,
        counted_from_us=await _counted_from(now_us),
        workflow_id=op.workflow_id,
        open=OpenCounts(**phases),
        open_exact=sum(phases.values()) < OPEN_MAX,
        buckets=[
            TimedBucket(at_us=at, **by_bucket[at].buckets[at], **by_bucket[at].percentiles())
            for at in buckets.starts(now_us)
        ],
        deployments=[_ends(id or None, one) for id, one in sorted(deployments.items(), reverse=True)],
        errors=[await error_group(cluster) for cluster in clusters],
        steps=await _sampled_steps(of_workflow),
        **asdict(whole.total),
        **whole.percentiles(),
    )


async def error_group(cluster: Cluster) -> ErrorGroup:
    newest, *_ = members = cluster.members
    failed = await newest_entries(newest.id, BLAMED, failed=True, bytes_max=0)
    error_class, message = cluster.pattern or (None, "")
    return ErrorGroup(
        error_class=error_class,
        message=message,
        workflow_id=cluster.workflow_id,
        deployment_id=cluster.deployment_id,
        place=next((row.name or row.key for row in failed), None),
        count=len(members),
        first_at_us=members[-1].at_us,
        last_at_us=newest.at_us,
        first_id=members[-1].id,
        sample_ids=[one.id for one in members[:SAMPLES]],
        filter=cluster.filter("failed"),
    )


async def _sampled_steps(of_workflow: Mapping[str, str]) -> SampledSteps:
    ids = [id for (id,) in await query("newest_completed", limit=SAMPLED_MAX, **of_workflow)]
    times: dict[str, list[int]] = defaultdict(list)
    for name, took_us in await query("step_times", ids=json.dumps(ids), limit=STEPS_MAX) if ids else ():
        times[name].append(took_us)
    longest = sorted(times.items(), key=lambda item: -sum(item[1]))[:STEPS_SHOWN_MAX]
    values = [
        StepTimes(name=name, count=len(took), p50_ms=_share(took, 0.5), p95_ms=_share(took, 0.95))
        for name, took in longest
    ]
    return SampledSteps(sampled=len(ids), values=values)


def _share(took_us: list[int], share: float) -> int:
    """A percentile in milliseconds."""
    took_us.sort()
    return round(took_us[min(int(share * len(took_us)), len(took_us) - 1)] / 1_000)


@serves(GetQueueStats, scans=True)
async def queue_stats(at: At, op: GetQueueStats) -> QueueStats:
    range, now_us = op.range, at.now_us
    buckets = buckets_of(range, now_us)
    of_queue = {"project_id": at.project_id, "queue_name": op.name}
    ended = EndCounts()
    for at_us, phase, n in await query("ends_of_queue", now_us=now_us, **of_queue, **buckets._asdict()):
        ended.add(at_us, phase, -1, n)
    return QueueStats(
        as_of_us=now_us,
        range=range,
        from_us=buckets.from_us,
        step_seconds=buckets.seconds,
        counted_from_us=await _counted_from(now_us),
        ended=ended.in_buckets(buckets, now_us),
        keys=await records(KeyCounts, "keys_of_queue", limit=KEYS_MAX, **of_queue),
    )


@serves(GetDeploymentStats, scans=True)
async def deployment_stats(at: At, op: GetDeploymentStats) -> DeploymentStats:
    return await _deployment_stats(at.project_id, op.deployment_id, at.now_us)


async def _deployment_stats(project_id: str, deployment_id: str, now_us: int) -> DeploymentStats:
    """Raises DeploymentNotFound."""
    one = await read_deployment(project_id, deployment_id)
    until_us = NEVER_US if one.superseded_at_us is None else one.superseded_at_us
    came = await query(
        "deployment_before", project_id=project_id, deployment_id=deployment_id, superseded_at_us=until_us
    )
    [(before_id, used_from_us)] = came or [(None, one.created_at_us)]
    before = None if before_id is None else await read_deployment(project_id, before_id)
    used_from_us = max(used_from_us, one.created_at_us)
    since_us = max(used_from_us, now_us - SINCE_US)
    step_us = step_of(now_us - since_us + _DAY_US)
    ended = defaultdict[str, EndCounts](EndCounts)
    rows = await query(
        "ends_since",
        project_id=project_id,
        deployment_id=deployment_id,
        before_id=before_id,
        step_us=step_us,
        from_us=since_us - _DAY_US,
        since_us=since_us // step_us * step_us,
        now_us=now_us,
    )
    for id, phase, took, n in rows:
        ended[id].add(0, phase, took, n)
    lost = await value(
        "lost_workers", project_id=project_id, deployment_id=deployment_id, since_us=max(since_us, now_us - _DAY_US)
    )
    return DeploymentStats(
        as_of_us=now_us,
        used_from_us=used_from_us,
        from_us=since_us,
        workers_lost=lost,
        errors=await _compared_errors(one, before, since_us),
        before=None if before is None else _ends(before.id, ended[before.id]),
        can_roll_back=one.current and before is not None and before.status is DeploymentStatus.ACTIVE,
        **asdict(_ends(one.id, ended[one.id])),
    )


def _ends(deployment_id: str | None, ended: EndCounts) -> DeploymentEnds:
    return DeploymentEnds(deployment_id=deployment_id, **asdict(ended.total), **ended.percentiles())


async def _compared_errors(one: Deployment, before: Deployment | None, since_us: int) -> list[ErrorGroup]:
    failed = await _failed_of(one, since_us, retried=False)
    if not failed:
        return []
    known = [] if before is None else await _failed_of(before, since_us - SINCE_US, retried=True)
    kinds = {(cluster.workflow_id, cluster.pattern) for cluster in clusters_of(known)}
    found: list[tuple[bool | None, Cluster]] = []
    for cluster in clusters_of(failed):
        is_known = (cluster.workflow_id, cluster.pattern) in kinds
        compared = before is not None and (is_known or len(known) < COMPARED_MAX)
        found.append((not is_known if compared else None, cluster))
    found.sort(key=lambda each: each[0] is not True)
    return [replace(await error_group(cluster), is_new=is_new) for is_new, cluster in found[:ERRORS_MAX]]


async def _failed_of(one: Deployment, since_us: int, *, retried: bool) -> list[StuckExecution]:
    return await records(
        StuckExecution,
        "failed_of_deployment",
        project_id=one.project_id,
        deployment_id=one.id,
        least=id_at(one.created_at_us - CLOCKS_APART_US),
        since_us=since_us,
        retried=int(retried),
        limit=COMPARED_MAX,
    )


async def _ended_by_workflow(project_id: str, buckets: Buckets, now_us: int) -> tuple[EndCounts, dict[str, EndCounts]]:
    found = defaultdict[str, EndCounts](EndCounts)
    whole = EndCounts()
    rows = await query("ends_by_workflow", project_id=project_id, now_us=now_us, **buckets._asdict())
    for at_us, workflow_id, phase, took, n in rows:
        for one in (whole, found[workflow_id]):
            one.add(at_us, phase, took, n)
    return whole, found


def _workflow_stats(
    workflow_id: str, ended: EndCounts | None, open: int, buckets: Buckets, now_us: int
) -> WorkflowStats:
    one = ended or EndCounts()
    total = one.total
    by_bucket = [one.buckets[at] for at in buckets.starts(now_us)]
    return WorkflowStats(
        workflow_id=workflow_id,
        ended=total.total,
        failed=total.failed,
        open=open,
        **one.percentiles(),
        ended_by_bucket=[sum(counts.values()) for counts in by_bucket],
        failed_by_bucket=[counts.get(Phase.FAILED, 0) for counts in by_bucket],
    )


async def _counted_from(now_us: int) -> int | None:
    """None: all ends of the range are counted."""
    return None if await query("read_folds") else now_us


async def _open(project_id: str) -> tuple[OpenCounts, int | None]:
    """Return open executions, and since when the first is ready."""
    counts: Counter[str] = Counter()
    ready_us: list[int] = []
    for phase, n, since_us in await query("open_by_phase", project_id=project_id):
        counts[phase] += n
        if since_us is not None:
            ready_us.append(since_us)
    counts["queued"] = counts.pop("ready", 0) + counts.pop("delayed", 0)
    return OpenCounts(**counts), min(ready_us, default=None)


async def _troubles(
    project_id: str,
    workflows: list[WorkflowStats],
    counts: OpenCounts,
    questions: Questions,
    buckets: Buckets,
    now_us: int,
) -> Troubles:
    failing = sorted((one for one in workflows if one.failed), key=lambda one: -one.failed)[:FAILING_MAX]
    failed: list[StuckExecution] = []
    more_failed: set[str] = set()
    for one in failing:
        of_workflow = {"project_id": project_id, "workflow_id": one.workflow_id}
        newest = await records(StuckExecution, "failed_of_workflow", limit=FAILURES_MAX, **of_workflow)
        if len(newest) == FAILURES_MAX:
            more_failed.add(one.workflow_id)
        failed += [each for each in newest if each.at_us >= buckets.from_us]
    asking = []
    if questions.waiting:
        first = {"place_us": 0, "place_id": "", "place_key": "", "limit": SAMPLES}
        asking = [str(id) for id, *_ in await query("list_questions", project_id=project_id, **first)]
    return Troubles(
        blocked=await _stuck("blocked_executions", project_id, counts.blocked),
        held=await _stuck("held_executions", project_id, counts.held),
        failed=failed,
        more_failed=more_failed,
        unserved=await records(
            Unserved, "unserved_of_project", project_id=project_id, before_us=now_us - READY_US, limit=DEPLOYMENTS_MAX
        ),
        questions=questions,
        asking=asking,
        pauses=await records(Pause, "list_pauses", project_id=project_id),
        deliveries=await records(NewestDelivery, "newest_deliveries", project_id=project_id, limit=DELIVERIES_MAX),
        skipped=await records(Skipped, "skipped_fires", project_id=project_id, from_us=buckets.from_us),
    )


async def _stuck(name: str, project_id: str, count: int) -> list[StuckExecution]:
    return await records(StuckExecution, name, project_id=project_id, limit=STUCK_MAX) if count else []
