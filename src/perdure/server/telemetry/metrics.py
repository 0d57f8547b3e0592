"""The metrics page in Prometheus' format.

A key sees its own project. Figures of the process reveal other projects' work, so only operators see them: keys and
members of the default project.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from perdure.store.verbs.runs import queries

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.server.telemetry.health import Health

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# The metric without prefix, and its help, by the engine's name.
COUNTED: Final[dict[str, tuple[str, str]]] = {
    "claimed": ("claims", "Executions handed to workers"),
    "stale_rejections": ("stale_rejections", "Messages of attempts that no longer hold their execution"),
    "deliveries_lost": ("deliveries_lost", "Executions handed out whose message never arrived"),
    "executions_lost": ("executions_lost", "Executions taken back from workers that vanished"),
    "workers_lost": ("workers_lost", "Registrations whose lease ran out, or whose process died"),
    "poisoned": ("executions_poisoned", "Executions failed because they kept taking their workers with them"),
    "schedule_fires": ("schedule_fires", "Executions started for due times of schedules"),
    "schedule_skips": ("schedule_skips", "Due times skipped because an execution of the schedule was open"),
    "trigger_starts": ("trigger_starts", "Executions started by event triggers"),
    "schedule_refusals": ("schedule_refusals", "Due times for which no execution could be started"),
    "webhooks_delivered": ("webhooks_delivered", "Messages that webhooks have taken"),
    "webhooks_given_up": ("webhooks_given_up", "Messages to webhooks that were given up"),
    "spans_exported": ("spans_exported", "Spans that the collector has taken"),
    "spans_refused": ("spans_refused", "Spans that the collector has refused; they are not sent again"),
    "blocked": ("executions_blocked", "Executions whose journal the code on offer does not match"),
    "held": ("executions_held", "Executions that have failed and are held for an act"),
    "changed_inputs": ("changed_inputs", "Calls whose input differs from the recorded one, counted at each replay"),
    "failed_groups": ("commit_groups_failed", "Commits that failed; nothing of them happened"),
}


class _Page(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


async def exposition(
    engine: "Engine", project_id: str | None, health: "Health", streams: int, connections: int, *, process: bool = True
) -> str:
    """The figures of a project, or of all with None. `process` adds the process's figures."""
    counts = await engine.store.scan(queries.counts())
    metrics = [*_executions(engine, counts["phases"], project_id), *_queues(engine, counts["queued"], project_id)]
    metrics.append(_pauses(counts["paused"], project_id))
    if process:
        metrics.extend(_engine(engine))
        metrics.extend(_server(engine, health, streams, connections))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(metrics))
    return generate_latest(registry).decode()


def _executions(engine: "Engine", rows: Iterable[Sequence[object]], project_id: str | None) -> Iterator[Metric]:
    labels = ("workflow", "phase")
    now = GaugeMetricFamily("perdure_executions_open", "Executions that are not final, by phase", labels=labels)
    ended = CounterMetricFamily(
        "perdure_executions_ended", "Executions that became final since the start", labels=labels
    )
    for metric, counts in ((now, rows), (ended, ((*key, n) for key, n in engine.stats.ended.items()))):
        totals: Counter[tuple[str, str]] = Counter()
        for project, workflow_id, phase, amount in counts:
            if project_id in (None, project):
                totals[str(workflow_id), str(phase)] += int(str(amount))
        for where, total in totals.items():
            metric.add_metric(where, total)
        yield metric


def _queues(engine: "Engine", rows: Sequence[tuple[object, ...]], project_id: str | None) -> Iterator[Metric]:
    depth = GaugeMetricFamily("perdure_queue_depth", "Executions ready to be claimed", labels=("deployment", "queue"))
    age = GaugeMetricFamily(
        "perdure_queue_oldest_seconds", "How long the oldest of them has been ready", labels=("deployment", "queue")
    )
    now_us = engine.clock.now_us()
    for project, deployment_id, queue_name, amount, since_us in rows:
        if project_id in (None, project):
            labels = (str(deployment_id or ""), str(queue_name))
            depth.add_metric(labels, int(str(amount)))
            age.add_metric(labels, max(0.0, (now_us - int(str(since_us or now_us))) / 1e6))
    yield depth
    yield age


def _pauses(rows: Sequence[tuple[object, ...]], project_id: str | None) -> Metric:
    paused = GaugeMetricFamily(
        "perdure_paused_executions", "Ready executions that pauses hold, 0 as well", labels=("kind", "name")
    )
    totals: Counter[tuple[str, str]] = Counter()
    for project, kind, name, amount in rows:
        if project_id in (None, project):
            totals[str(kind), str(name)] += int(str(amount))
    for where, total in totals.items():
        paused.add_metric(where, total)
    return paused


def _engine(engine: "Engine") -> Iterator[Metric]:
    stats, store = engine.stats, engine.store
    for name, (shown, note) in COUNTED.items():
        counter = CounterMetricFamily(f"perdure_{shown}", note)
        counter.add_metric((), stats.counted.get(name, 0))
        yield counter
    yield _summary("commit_group_verbs", "Changes committed together", store.groups, store.group_verbs)
    yield _summary(
        "commit_group_seconds", "From the first change of a group to its commit", store.groups, store.group_seconds
    )
    latest = sorted(stats.claim_latency_seconds)
    for share in (0.5, 0.99):
        value = latest[min(int(len(latest) * share), len(latest) - 1)] if latest else 0.0
        name = f"claim_latency_p{share * 100:.0f}_seconds"
        yield _gauge(name, "From ready to handed out, of the latest 1,000 claims", value)
    yield _gauge("old_snapshots", "Snapshots of the database that others have held for minutes", stats.old_snapshots)
    yield _gauge("timer_lag_seconds", "How late the latest due timers were woken", stats.timer_lag_seconds)
    yield _gauge("schedule_lag_seconds", "How late the latest due schedules were fired", stats.schedule_lag_seconds)


def _server(engine: "Engine", health: "Health", streams: int, connections: int) -> Iterator[Metric]:
    yield _gauge("loop_lag_seconds", "How late the event loop was, at worst in ten seconds", health.lag_seconds)
    yield _gauge("store_writable", "1 while the store takes writes", 0 if health.problem else 1)
    yield _gauge("hints_up", "1 while hints of other servers of the database arrive", int(engine.store.hints_up))
    yield _gauge("streams_open", "Open server-sent event streams", streams)
    yield _gauge("connections_open", "Open HTTP connections", connections)


def _gauge(name: str, note: str, value: float) -> Metric:
    return GaugeMetricFamily(f"perdure_{name}", note, value=value)


def _summary(name: str, note: str, count: int, total: float) -> Metric:
    return SummaryMetricFamily(f"perdure_{name}", note, count_value=count, sum_value=total)
