"""Facts about a queued execution, by the rules of admission for claims."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from perdure.store.base.interface import query, record, records, value
from perdure.store.verbs.runs.admission import first_hold, group_room, room
from perdure.store.verbs.steering.pending import read_actable
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.times import NEVER_US
from perdure.wire.insight.why import Holder
from perdure.wire.insight.why_facts import BEFORE_MAX, Limit, Queued, ServingWorker, Subject
from perdure.wire.runs.admission import PAUSES, Rule
from perdure.wire.runs.queues import Pause
from perdure.wire.runs.requests import WORKER_PROTOCOL
from perdure.wire.runs.workers import WorkerKind, WorkerState

WORKERS_MAX: Final = 200
HOLDERS_MAX: Final = 10
Verdicts: Final = msgspec.defstruct("Verdicts", [(rule.value, bool, True) for rule in Rule], frozen=True)
"""Rules outside SQL are true here."""


async def queued(project_id: str, subject: Subject, newest: JournalEntry | None, leases: Mapping[str, int]) -> Queued:
    """`leases` are the values of `read_listed_worker`."""
    found = await records(
        ServingWorker,
        "serving_workers",
        project_id=project_id,
        deployment_id=subject.summary.deployment_id or "",
        limit=WORKERS_MAX,
        **leases,
    )
    taking = [one for one in found if _takes_work(one)]
    failing, workers = await _verdicts(project_id, subject, taking)
    free, limit = sys.maxsize, None
    if subject.gate == 1:
        group = await group_room(project_id, subject.summary.queue_name, subject.summary.concurrency_key or "")
        free, reached = room(group)
        if reached is Rule.QUEUE_LIMIT:
            limit = Limit(group.total_limit or 0, group.held_of_queue or 0)
        elif reached is Rule.KEY_LIMIT:
            limit = Limit(group.key_limit or 0, group.held_of_key or 0)
        failing |= {reached} if reached is not None else set()
    before, beside = await _before(project_id, subject, mixed=len(workers) < len(taking))
    places = sum(worker.room for worker in workers)
    if not workers:
        failing.add(Rule.WORKER)
    elif not places:
        failing.add(Rule.CAPACITY)
    elif before + beside >= min(places, free):
        failing.add(Rule.ORDER)
    rule = first_hold(failing)
    if rule is Rule.START_TIME and subject.due_at_us == NEVER_US:
        rule = Rule.TURN
    push = (await read_actable(project_id, subject.summary.id)).push
    facts = Queued(subject, rule, newest, workers=workers, limit=limit, push=push, before=before, beside=beside)
    if rule is Rule.TURN:
        for session_id, behind_id in await query("turn_before", execution_id=subject.summary.id):
            return replace(facts, session_id=session_id, behind_id=behind_id)
    if rule is not None and rule in PAUSES:
        return replace(facts, pause=await record(Pause, "pause_of", project_id=project_id, id=subject.summary.id))
    return replace(facts, holders=await _holders(project_id, facts))


def _takes_work(worker: ServingWorker) -> bool:
    """Whether a worker may claim: a native worker whose lease has ended may do so until reaped."""
    return worker.listed.kind is not WorkerKind.PUSH or worker.listed.state is WorkerState.ONLINE


async def _verdicts(
    project_id: str, subject: Subject, workers: Sequence[ServingWorker]
) -> tuple[set[Rule], Sequence[ServingWorker]]:
    """Return the rules that hold the execution back from the most suitable workers, and the workers."""
    kinds: dict[tuple[str, int], list[ServingWorker]] = {}
    for worker in workers:
        kinds.setdefault((worker.suits_python, worker.protocol), []).append(worker)
    if not kinds:
        kinds[subject.python or "", WORKER_PROTOCOL] = []
    best: dict[Rule | None, tuple[set[Rule], list[ServingWorker]]] = {}
    for (python, protocol), members in kinds.items():
        verdicts: Any = await record(
            Verdicts,
            "verdicts",
            project_id=project_id,
            id=subject.summary.id,
            deployment_id=subject.summary.deployment_id or "",
            python=python,
            protocol=protocol,
        )
        failing = {rule for rule in Rule if not getattr(verdicts, rule.value)}
        best.setdefault(first_hold(failing), (failing, []))[1].extend(members)
    return best[None] if None in best else best[max(best, key=[*Rule].index)]


async def _before(project_id: str, subject: Subject, *, mixed: bool) -> tuple[int, int]:
    """Count ready executions before. `mixed`: other workers may take executions behind, and use the room of the
    group."""
    order: dict[str, object] = {
        "project_id": project_id,
        "deployment_id": subject.summary.deployment_id or "",
        "limit": BEFORE_MAX,
    }
    place = {"rank": subject.rank, "ready_at_us": subject.ready_at_us, "id": subject.summary.id}
    if subject.gate != 1:
        return await value("ready_before", **order, **place), 0
    order |= {"queue_name": subject.summary.queue_name, "concurrency_key": subject.summary.concurrency_key or ""}
    beside = await value("ready_beside_group", mixed=int(mixed), **order, **place)
    return await value("ready_before_in_group", **order, **place), beside


async def _holders(project_id: str, facts: Queued) -> list[Holder]:
    if facts.rule in (Rule.QUEUE_LIMIT, Rule.KEY_LIMIT):
        key = (facts.subject.summary.concurrency_key or "") if facts.rule is Rule.KEY_LIMIT else None
        queue = {"queue_name": facts.subject.summary.queue_name, "concurrency_key": key}
        return await records(Holder, "holders_under_limit", project_id=project_id, limit=HOLDERS_MAX, **queue)
    found: list[Holder] = []
    for worker in facts.workers if facts.rule is Rule.CAPACITY else ():
        if len(found) < HOLDERS_MAX:
            room_left = HOLDERS_MAX - len(found)
            found += await records(Holder, "holders_at_worker", worker_id=worker.listed.id, limit=room_left)
    return found
