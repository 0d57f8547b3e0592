"""Things that need attention: facts of the store in words, worst first."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from perdure.wire.base.wording import cut, quoted
from perdure.wire.insight.stats import Attention, AttentionDetails, AttentionKind, Questions
from perdure.wire.outside.webhooks import origin
from perdure.wire.runs.queues import Pause

ATTENTION_MAX: Final = 5
CLUSTERS_MAX: Final = 3
"""Failures leave room for other kinds."""
SAMPLES: Final = 3
TRIES_MIN: Final = 3
"""Failed tries before a webhook needs attention."""
FILTER_WORDS: Final = 8
_CLASS: Final = re.compile(r"([A-Za-z_][\w.]*): ?(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b0x[0-9a-f]+\b|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"
    r"|\d+(?:[.,:]\d+)*",
    re.IGNORECASE,
)
_LETTERS: Final = re.compile(r"[^\W\d_]{2,}")


class StuckExecution(Struct, frozen=True):
    """An execution that is blocked, held or failed."""

    id: str
    workflow_id: str
    deployment_id: str | None
    phase: str
    at_us: int
    error: str | None


class Unserved(Struct, frozen=True):
    deployment_id: str | None
    n: int
    since_us: int
    id: str


class NewestDelivery(Struct, frozen=True):
    execution_id: str
    webhook_id: str | None
    url: str
    state: str
    tries: int
    tried_at_us: int | None
    status: int | None


class Skipped(Struct, frozen=True):
    schedule_id: str
    workflow_id: str
    key: str
    n: int
    since_us: int
    last_us: int
    reason: str | None


class Troubles(Struct, frozen=True, kw_only=True):
    """Facts about a project."""

    blocked: Sequence[StuckExecution] = ()
    held: Sequence[StuckExecution] = ()
    failed: Sequence[StuckExecution] = ()
    more_failed: Collection[str] = ()
    """Workflows with more failures than `failed` has."""
    unserved: Sequence[Unserved] = ()
    questions: Questions
    asking: Sequence[str] = ()
    """The ids of some executions with open questions."""
    pauses: Sequence[Pause] = ()
    deliveries: Sequence[NewestDelivery] = ()
    """Newest first."""
    skipped: Sequence[Skipped] = ()


class Pattern(NamedTuple):
    """An error without the parts that differ between executions."""

    error_class: str | None
    message: str

    def __str__(self) -> str:
        return self.message if self.error_class is None else f"{self.error_class}: {self.message}"


def pattern_of(error: str) -> Pattern:
    """
    >>> str(pattern_of("TimeoutError: connect to db-1 after 3.5 s"))
    'TimeoutError: connect to db-… after … s'
    >>> pattern_of("order 0190a5f2-7c1e-7b3a-9d55-0242ac120002 is gone")
    Pattern(error_class=None, message='order … is gone')
    """
    match = _CLASS.fullmatch(error)
    error_class, message = (match[1], match[2]) if match else (None, error)
    return Pattern(error_class, _VARIABLE.sub("…", cut(message)))


def words_of(pattern: Pattern) -> str | None:
    """Return words by which the filter `error` finds executions with this pattern."""
    words = [*(pattern.error_class or "").split("."), *_LETTERS.findall(pattern.message.rstrip("…"))]
    return " ".join([word for word in words if word][:FILTER_WORDS]) or None


class Cluster(NamedTuple):
    workflow_id: str
    deployment_id: str | None
    """None: several deployments, or no deployment."""
    pattern: Pattern | None
    members: Sequence[StuckExecution]
    """One or more executions, newest first."""

    def details(self) -> AttentionDetails:
        error = None if self.pattern is None else str(self.pattern)
        return AttentionDetails(workflow_id=self.workflow_id, deployment_id=self.deployment_id, error=error)

    def filter(self, phase: str) -> dict[str, str]:
        words = None if self.pattern is None or phase != "failed" else words_of(self.pattern)
        wanted = {"phase": phase, "workflow_id": self.workflow_id, "deployment_id": self.deployment_id, "error": words}
        return {name: value for name, value in wanted.items() if value is not None}


def clusters_of(stuck: Iterable[StuckExecution]) -> list[Cluster]:
    """Group executions by workflow and error, the largest group first."""
    found: dict[tuple[str, Pattern | None], list[StuckExecution]] = {}
    for one in stuck:
        pattern = None if one.error is None else pattern_of(one.error)
        found.setdefault((one.workflow_id, pattern), []).append(one)
    clusters: list[Cluster] = []
    for (workflow_id, pattern), members in found.items():
        deployments = {one.deployment_id for one in members}
        deployment_id = deployments.pop() if len(deployments) == 1 else None
        members.sort(key=lambda one: one.at_us, reverse=True)
        clusters.append(Cluster(workflow_id, deployment_id, pattern, members))
    return sorted(clusters, key=lambda cluster: len(cluster.members), reverse=True)


def attention(facts: Troubles) -> list[Attention]:
    """Return at most ATTENTION_MAX entries."""
    found = [
        *_clusters(facts.blocked, AttentionKind.BLOCKED),
        *map(_unserved, facts.unserved),
        *_failures(facts),
        *_clusters(facts.held, AttentionKind.HELD),
        *_questions(facts),
        *_webhooks(facts.deliveries),
        *(_paused(pause) for pause in facts.pauses if pause.held),
        *map(_skipped, facts.skipped),
    ]
    return found[:ATTENTION_MAX]


def _executions(count: int) -> str:
    return "1 execution" if count == 1 else f"{count:,} executions"


def _clusters(stuck: Sequence[StuckExecution], kind: AttentionKind) -> list[Attention]:
    return [
        _cluster(cluster, kind, f"{'is' if len(cluster.members) == 1 else 'are'} {kind}", cluster.filter(kind.value))
        for cluster in clusters_of(stuck)[:CLUSTERS_MAX]
    ]


def _failures(facts: Troubles) -> Iterator[Attention]:
    for cluster in clusters_of(facts.failed)[:CLUSTERS_MAX]:
        exact = cluster.workflow_id not in facts.more_failed
        filters = cluster.filter("failed") | {"retried": "false"}
        yield _cluster(cluster, AttentionKind.FAILURES, "failed", filters, exact=exact)


def _cluster(
    cluster: Cluster, kind: AttentionKind, did: str, filters: dict[str, str], *, exact: bool = True
) -> Attention:
    members = cluster.members
    because = "." if cluster.pattern is None else f": {str(cluster.pattern).rstrip('.')}."
    amount = _executions(len(members)) if exact else f"At least {_executions(len(members))}"
    return Attention(
        kind=kind,
        count=len(members),
        exact=exact,
        since_us=members[-1].at_us,
        until_us=members[0].at_us,
        sentence=f"{amount} of {cut(cluster.workflow_id)} {did}{because}",
        details=cluster.details(),
        filter=filters,
        sample_ids=[one.id for one in members[:SAMPLES]],
    )


def _unserved(one: Unserved) -> Attention:
    deployment_id = one.deployment_id or ""
    return Attention(
        kind=AttentionKind.NO_WORKER,
        count=one.n,
        since_us=one.since_us,
        sentence=f"{_executions(one.n)} of deployment {quoted(deployment_id)} {'is' if one.n == 1 else 'are'} ready, "
        "and no worker serves it.",
        details=AttentionDetails(deployment_id=deployment_id),
        filter={"phase": "queued", "deployment_id": deployment_id},
        sample_ids=[one.id],
    )


def _questions(facts: Troubles) -> Iterator[Attention]:
    asked = facts.questions
    if asked.waiting:
        waits = "1 question waits" if asked.waiting == 1 else f"{asked.waiting:,} questions wait"
        yield Attention(
            kind=AttentionKind.QUESTIONS,
            count=asked.waiting,
            since_us=asked.oldest_at_us,
            sentence=f"{waits} for an answer.",
            details=AttentionDetails(nearest_expiry_at_us=asked.nearest_expiry_at_us),
            sample_ids=list(facts.asking),
        )


def _webhooks(deliveries: Sequence[NewestDelivery]) -> Iterator[Attention]:
    """A webhook that delivered its newest message is well."""
    messages: dict[tuple[str | None, str], list[NewestDelivery]] = {}
    for one in deliveries:
        if one.tries:
            messages.setdefault((one.webhook_id, one.url), []).append(one)
    for newest, *older in messages.values():
        if newest.state == "failed" or (newest.state == "pending" and newest.tries >= TRIES_MIN):
            failing = [one for one in (newest, *older) if one.state != "delivered"]
            url = origin(newest.url)
            answer = "without an answer" if newest.status is None else f"last with status {newest.status}"
            amount = "1 message" if len(failing) == 1 else f"{len(failing):,} messages"
            yield Attention(
                kind=AttentionKind.WEBHOOK,
                count=len(failing),
                since_us=min((one.tried_at_us for one in failing if one.tried_at_us), default=None),
                until_us=newest.tried_at_us,
                sentence=f"{amount} to {url} failed, {answer}.",
                details=AttentionDetails(webhook_id=newest.webhook_id, url=url, status=newest.status),
                sample_ids=[one.execution_id for one in failing[:SAMPLES]],
            )


def _paused(pause: Pause) -> Attention:
    by, filters = cut(pause.paused_by), {"workflow": "workflow_id", "deployment": "deployment_id"}
    sentence = f"{by[:1].upper()}{by[1:]} paused {cut(pause.what)}, which holds {_executions(pause.held)}."
    return Attention(
        kind=AttentionKind.PAUSED,
        count=pause.held,
        since_us=pause.paused_at_us,
        sentence=sentence,
        details=AttentionDetails(
            pause=pause.kind.value,
            by=pause.paused_by,
            **{name: getattr(pause, name) for name in ("name", "concurrency_key", "note")},
        ),
        filter={"phase": "queued", filters.get(pause.kind.value, "queue_name"): pause.name},
    )


def _skipped(one: Skipped) -> Attention:
    slots = "1 due time" if one.n == 1 else f"{one.n:,} due times"
    reason = "." if one.reason is None else f": {cut(one.reason).rstrip('.')}."
    sentence = f"Schedule {quoted(one.key)} of {cut(one.workflow_id)} skipped {slots}{reason}"
    return Attention(
        kind=AttentionKind.SKIPPED,
        count=one.n,
        since_us=one.since_us,
        until_us=one.last_us,
        sentence=sentence,
        details=AttentionDetails(workflow_id=one.workflow_id, schedule_id=one.schedule_id, reason=one.reason),
    )
