"""One query for everything that this server's clients await, because hints may be lost."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from perdure.store.base.interface import query, verb
from perdure.wire.runs.executions import Finished


class Awaited(NamedTuple):
    ends: Mapping[str, Sequence[str]]
    """Executions by project."""
    journals: Sequence[str]
    """Executions with a followed journal or log."""
    topics: Mapping[str, Sequence[str]]
    """Topics by project."""
    streams: Mapping[str, Sequence[str]]
    """Root executions by project."""
    workers: Sequence[str]
    deployments: Mapping[str, Sequence[str]]
    """Deployments with a waiting claim, by project."""


class PolledChanges(NamedTuple):
    ended: Sequence[tuple[str, Finished]]
    """Projects with ended executions."""
    journals: Sequence[tuple[str, int, int]]
    """Execution, last seq of the journal and last number of the log."""
    topics: Sequence[tuple[str, str, int]]
    streams: Sequence[tuple[str, str, int]]
    """Project, root execution, and a number that grows with the tree's streams."""
    changed: Sequence[tuple[str, str, int]]
    """Worker, execution and seq, if another writer wrote the journal's last row."""
    unacknowledged: Sequence[tuple[str, str]]
    """Worker and claim."""
    ready: Sequence[tuple[str, str]]
    """Project and deployment with ready executions."""


@verb(reads=True)
async def poll_awaited(*, awaited: Awaited) -> PolledChanges:
    ended: list[tuple[str, Finished]] = []
    for project_id, ids in awaited.ends.items():
        for id, phase, result, error, detail in await query("ended_among", project_id=project_id, ids=_json(ids)):
            result = None if result is None else Raw(result)
            ended.append((project_id, Finished(id, phase, result, error, None if detail is None else Raw(detail))))
    journals = await query("journals_at", ids=_json(awaited.journals)) if awaited.journals else []
    seen = [(id, seq or 0, n or 0) for id, seq, n in journals]
    topics = [
        (project_id, topic, last)
        for project_id, names in awaited.topics.items()
        for topic, last in await query("topics_at", project_id=project_id, topics=_json(names))
    ]
    streams = [
        (project_id, id, amount)
        for project_id, ids in awaited.streams.items()
        for id, amount in await query("streams_at", project_id=project_id, ids=_json(ids))
    ]
    changed: list[tuple[str, str, int]] = []
    unacknowledged: list[tuple[str, str]] = []
    if awaited.workers:
        workers = _json(awaited.workers)
        changed = [(worker_id, id, seq) for worker_id, id, seq in await query("changed_of_workers", workers=workers)]
        rows = await query("unacknowledged_claims", workers=workers)
        unacknowledged = [(worker_id, claim_id) for worker_id, claim_id in rows]
    ready = [
        (project_id, deployment_id)
        for project_id, names in awaited.deployments.items()
        for (deployment_id,) in await query("ready_deployments", project_id=project_id, deployments=_json(names))
    ]
    return PolledChanges(ended, seen, topics, streams, changed=changed, unacknowledged=unacknowledged, ready=ready)


def _json(names: Sequence[str]) -> str:
    return msgspec.json.encode(names).decode()
