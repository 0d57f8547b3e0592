"""The system without one guard, again and again: a run must notice each mutant.

Most mutants change the text of a query as a run's store hands the query to the verbs. Some replace a function of the
verbs or of the SDK's worker. No mutant is in the product.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from types import ModuleType
from typing import Any

from msgspec import structs
from tests.sim.worker import SimLease, SimTransport
from tests.sim.world import Mutant, Patch

from perdure.sdk.workers import run_ends, worker
from perdure.sdk.workers.lease import Lease
from perdure.sdk.workers.runner import Runner
from perdure.sdk.workers.worker import Worker
from perdure.store.base.executions import State
from perdure.store.base.interface import Rows, query_many, records
from perdure.store.base.records import expand_columns
from perdure.store.base.statements import Statement, parse, spelled_out, texts
from perdure.store.verbs.runs import reports, rows, transitions, waits
from perdure.wire.base.errors import PerdureError
from perdure.wire.runs.requests import ClaimReply, ClaimRequest, ItemReply, ReportItem, ReportRequest

_TEXT = "\n".join(expand_columns(spelled_out(text, source), source) for source, text in texts("common"))


def changed(name: str, *replacements: tuple[str, str]) -> dict[str, Statement]:
    """A query with parts of the text replaced. Each part must exist, so that a mutant cannot outlive its guard."""
    _, found, rest = _TEXT.partition(f"-- name: {name}\n")
    assert found, f"there is no query {name!r}"
    body = rest.partition("\n-- name: ")[0]
    for old, new in replacements:
        assert old in body, f"query {name!r} has no {old!r}"
        body = body.replace(old, new)
    return parse(f"-- name: {name}\n{body}", f"mutant of {name}")


def nothing(name: str) -> dict[str, Statement]:
    """A query that finds nothing."""
    return changed(name, ("WHERE ", "WHERE 1 = 0 AND "))


def _sql(name: str, *queries: dict[str, Statement], focus: str | None = None) -> Mutant:
    merged: dict[str, Statement] = {}
    for one in queries:
        merged |= one
    return Mutant(name, queries=merged, focus=focus)


def _forks(name: str, *queries: dict[str, Statement], focus: str | None = None) -> Mutant:
    return _sql(name, *queries, focus=focus)._replace(forks=True)


def _code(name: str, where: ModuleType | type, attribute: str, value: object, *more: Patch, focus: str = "") -> Mutant:
    patches: tuple[Patch, ...] = ((where, attribute, value), *more)
    for place, name_there, _ in patches:
        assert hasattr(place, name_there), f"{place.__name__} has no {name_there}"
    return Mutant(name, patches=patches, focus=focus or None)


_refused = reports._refused


async def _refuses_nobody(project_id: str, worker_id: str, item: ReportItem) -> ItemReply:
    [state] = await records(State, "read_state", project_id=project_id, id=item.execution_id)
    item = structs.replace(item, attempt=state.attempt, number=min(item.number, state.report_number))
    return await _refused(project_id, state.assigned_to_worker or worker_id, item)


async def _told_nobody(*_: Any, **__: Any) -> bool:
    return False


def _inserts_no_wait(name: str, values: Any) -> Awaitable[Rows]:
    return query_many(name, [] if name == "insert_wait" else values)


# --- workers that leave a rule of the protocol out -------------------------------------------------------------------

_begin, _renewed, _on_beat, _timer_due, _call = (
    Lease.begin,
    SimLease._renewed,
    Worker.on_beat,
    Runner._timer_due,
    SimTransport.call,
)
NEVER_UNSURE: Patch = (worker, "OURS_SECONDS", math.inf)
"""Some rules do harm only without this setting."""


def _begins_late(lease: Any, worker: Any, worker_id: str, reply: Any, sent: float) -> None:
    _begin(lease, worker, worker_id, reply, lease.now())


def _renews_late(lease: Any, worker_id: str, holding: Any, sent: float) -> None:
    _renewed(lease, worker_id, holding, sent)
    lease._deadline = lease.now() + lease._reply.lease_us / 1e6


async def _keeps(worker: Any, execution_id: str, attempt: int) -> None:
    """Hands nothing back."""


def _is_impatient(worker: Any, holding: Any, sent: float) -> None:
    worker._strangers = {(id, attempt): -1 for id, attempt, _ in holding}
    _on_beat(worker, holding, sent)


def _fires_again(runner: Any, timer: tuple[str, int]) -> None:
    _timer_due(runner, timer)
    runner._fired.clear()


def _does_not_look(runner: object, row: object) -> None:
    """Reports an outcome that the journal has."""


def _takes_back_one(run: object, steps: list[str]) -> list[str]:
    return steps[:1]


async def _keeps_claim_id(transport: Any, op: Any) -> Any:
    if not isinstance(op, ClaimRequest):
        return await _call(transport, op)
    its = vars(transport)
    id = its.setdefault("claim_id", op.claim_id)
    reply = await _call(transport, structs.replace(op, claim_id=id, arrived=op.arrived and its["arrived"]))
    if reply.items:
        its["arrived"] = its.pop("claim_id")
    return reply


async def _takes_old_answers(transport: Any, op: Any) -> Any:
    reply = await _call(transport, op)
    if isinstance(reply, ClaimReply) and op.worker_id != transport.process.worker.id:
        transport.process.worker._begin(reply.items, math.inf)
    return reply


async def _counts_repeats(transport: Any, op: Any) -> Any:
    if not isinstance(op, ReportRequest):
        return await _call(transport, op)
    failed = vars(transport).setdefault("failed", set())
    names = {(one.execution_id, one.attempt, one.number) for one in op.items}
    if names <= failed:
        op = structs.replace(op, items=[structs.replace(one, number=one.number + 1) for one in op.items])
    try:
        return await _call(transport, op)
    except PerdureError:
        failed |= names
        raise


ATTEMPT = "AND attempt = :attempt"
WORKER = "AND assigned_to_worker = :worker_id"
NUMBER = "AND report_number < :number"
LIMITED = "EXISTS (SELECT 1 FROM queues q WHERE"

_ALL = (
    # One driver (I4): attempt, worker and report number in every write, and in replies that let code go on.
    _sql("report: any attempt of the holder", changed("advance", (ATTEMPT, ""))),
    _sql("report: any attempt of any worker", changed("advance", (ATTEMPT, ""), (WORKER, ""))),
    _sql("look: any attempt of any worker", changed("acknowledge", (ATTEMPT, ""), (WORKER, ""))),
    _sql("complete: any attempt of any worker", changed("complete", (ATTEMPT, ""), (WORKER, "")), focus="last words"),
    _sql("fail: any attempt of any worker", changed("fail", (ATTEMPT, ""), (WORKER, "")), focus="last words"),
    _sql("report: a repeat is taken again", changed("advance", (NUMBER, ""))),
    _code("refusal: everybody is answered as if he held it", reports, "_refused", _refuses_nobody),
    # Leases.
    _sql("reap: leases that have not run out", changed("expired_workers", (":now_us", ":now_us + 2000000"))),
    _sql("beat: renews what has run out", changed("beat_worker", ("AND lease_until_us > :now_us", ""))),
    _sql("restart: no new leases", nothing("grant_leases")),
    _sql("register: opens again what has ended", nothing("read_ended"), focus="late registrations"),
    _sql("reap: forgets what was held", nothing("held_by")),
    _code("worker: no lease check before a step", Lease, "is_good", lambda lease: lease._reply is not None),
    _code(
        "worker: lease counts from the answer",
        Lease,
        "begin",
        _begins_late,
        (SimLease, "_renewed", _renews_late),
        focus="late beats",
    ),
    _code("worker: keeps what it does not know", Worker, "_hand_back", _keeps),
    _code(
        "worker: hands back what is still on its way",
        Worker,
        "on_beat",
        _is_impatient,
        NEVER_UNSURE,
        focus="late claims",
    ),
    _code("worker: begins what may have been taken back", *NEVER_UNSURE, focus="late claims"),
    _code("worker: asks on under an id that was answered", SimTransport, "call", _keeps_claim_id, focus="lost claims"),
    _code(
        "worker: takes what an earlier registration was handed",
        SimTransport,
        "call",
        _takes_old_answers,
        NEVER_UNSURE,
        focus="late claims",
    ),
    _code("worker: reports a timer twice", Runner, "_timer_due", _fires_again, (Runner, "_given", _does_not_look)),
    _code("worker: a repeat under a new number", SimTransport, "call", _counts_repeats),
    # Claims.
    _sql("claim: a repeat is answered with nothing", nothing("claimed_before")),
    _sql("claim: a repeat is a new claim", nothing("note_claim")),
    _sql(
        "claim: a lost one is not acknowledged first",
        changed("claim_executions", ("losses + undelivered", "0")),
        changed("claim_limited", ("losses + undelivered", "0")),
    ),
    _sql("limits: nobody counts the queue", changed("group_room", ("AS held_of_queue", "* 0 AS held_of_queue"))),
    _sql("limits: nobody counts the key", changed("group_room", ("AS held_of_key", "* 0 AS held_of_key"))),
    _sql("limits: the woken are not limited", changed("deliver_outcome", (LIMITED, f"1 = 0 AND {LIMITED}"))),
    _sql("limits: the lost are not limited", changed("lose", (LIMITED, f"1 = 0 AND {LIMITED}"))),
    # Poison (I9).
    _code("poison: no limit", transitions, "LOSSES_MAX", 1_000_000),
    _code("poison: a smaller limit", transitions, "LOSSES_MAX", 4),
    _sql("poison: lost deliveries count as crashes", changed("lock_state", (" acked,", " 1 AS acked,"))),
    _sql(
        "poison: progress does not count",
        changed("advance", ("losses = CASE WHEN :outcomes > 0 THEN 0 ELSE losses END", "losses = losses")),
        changed("advance_next", ("losses = 0", "losses = losses")),
    ),
    # Waits wake (I5).
    _code("suspend: outcomes not seen do not matter", reports, "OUTCOMES", frozenset()),
    _sql("wait: what is there already is not looked for", nothing("read_events")),
    _sql("publish: waits are not looked for", nothing("waiting_for")),
    _code("resume: an early answer is dropped", waits, "query_many", _inserts_no_wait),
    _sql(
        "deliver: the waiting sleep on",
        changed("deliver_outcome", ("THEN 'queued' ELSE phase", "THEN phase ELSE phase")),
    ),
    _sql(
        "deliver: to the final too",
        changed("deliver_outcome", ("'held')", "'held', 'cancelled', 'failed', 'completed')")),
    ),
    _code("end: the parent is not told", rows, "deliver", _told_nobody),
    _sql("timers: none is due", nothing("wake_timers")),
    _sql("unblock: nothing", nothing("unblock")),
    # Effects and starts happen once (I1, I6).
    _sql("start: keys are not looked up", nothing("find_started")),
    _sql("start: idempotency keys are not looked up", nothing("read_idempotency")),
    _sql("publish: dedup keys are not looked up", nothing("find_event")),
    _sql("retry: the failure stands", nothing("take_back_step")),
    _code("retry: the failure beside it stands", run_ends, "_with_failed_beside", _takes_back_one),
    # Forks keep what their source has recorded, its idempotency keys and its chance.
    _forks("fork: idempotency keys of its own", changed("make_fork", ("keys_id = :keys_id", "keys_id = NULL"))),
    _forks("fork: chance of its own", changed("make_fork", ("seed_id = :seed_id", "seed_id = NULL"))),
    _forks(
        "fork: old workers get it", changed("make_fork", ("needs_protocol = :needs_protocol", "needs_protocol = NULL"))
    ),
    _forks("fork: children get keys of their own", changed("set_keys", ("keys_id = :keys_id,", "keys_id = NULL,"))),
    _forks("fork: open children stay the source's", changed("replace_value", ("WHERE ", "WHERE 1 = 0 AND "))),
    _forks("fork: consumed events are taken again", nothing("copy_waits"), focus="a topic again"),
    _forks("retry: the source is not linked", nothing("mark_retried")),
    # The first outcome stands.
    _forks(
        "act: a child that ends is delivered all the same",
        changed("deliver_outcome", ("AND NOT EXISTS (SELECT 1 FROM journal s", "OR EXISTS (SELECT 1 FROM journal s")),
    ),
    _forks("act: a late outcome is recorded all the same", nothing("given_since")),
    # Cancel.
    _sql("cancel: spares children", nothing("children_to_cancel")),
    _sql("cancel: the end did not see it", changed("complete", ("AND next_seq <= :upto", ""))),
    _sql("cancel: no end of grace", changed("overdue", ("WHERE ", "WHERE :phase <> 'cancelling' AND "))),
)

MUTANTS = {mutant.name: mutant for mutant in _ALL}
