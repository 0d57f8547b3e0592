"""Retention, deletion and erasure of executions with all their data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.store.base.executions import State, unknown_execution
from perdure.store.base.interface import query, query_many, record, value, verb
from perdure.store.verbs.agents.transcripts import DROPPED_AT_ONCE, delete_transcript, prune_transcripts
from perdure.store.verbs.base.idempotency import prune_answers
from perdure.store.verbs.insight.ended import count_deleted
from perdure.store.verbs.insight.traces import delete_traces
from perdure.wire.agents.shared_budgets import DAY_US
from perdure.wire.base.errors import Conflict
from perdure.wire.base.status import FINAL
from perdure.wire.insight.journal_spans import trace_id_of

_AFTER_EVERY_ID = "\U0010ffff"


PRUNE_ROWS_MAX = 20_000
"""Approximate; rows of journals, spans and streams."""


_PARTS = (
    "delete_large_payload",
    "delete_journal",
    "delete_waits",
    "delete_acts",
    "delete_pending_calls",
    "delete_logs",
    "delete_stream",
    "delete_tags",
    "delete_terms",
    "delete_approvals",
    "delete_links",
    "delete_extras",
    "delete_execution_webhooks",
    "delete_deliveries",
    "delete_budget",
    "delete_reservations",
)


@verb(sweep=True)
async def delete(*, project_id: str, execution_id: str) -> int:
    """Delete an execution with all descendants. Returns how many. Raises what `final_tree` raises."""
    return await delete_executions(project_id, await final_tree(project_id, execution_id))


async def final_tree(project_id: str, execution_id: str) -> list[str]:
    """An execution and its descendants. Raises NotFound, and Conflict for an open execution."""
    state = await record(State, "read_state", project_id=project_id, id=execution_id)
    if state is None:
        raise unknown_execution(execution_id)
    tree = [execution_id]
    phases: dict[str, str] = {execution_id: state.phase}
    for id in tree:
        for child, phase in await query("children", project_id=project_id, id=id):
            tree.append(child)
            phases[child] = phase
    still_open = [id for id in tree if phases[id] not in FINAL]
    if still_open:
        raise Conflict(f"Execution {still_open[0]!r} is {phases[still_open[0]]}; cancel it before it is deleted.")
    return tree


async def delete_executions(project_id: str, ids: Sequence[str]) -> int:
    if ids:
        ended = await query_many("delete_execution", [{"project_id": project_id, "id": id} for id in ids])
        for name in _PARTS:
            await query_many(name, [{"id": id} for id in ids])
        await delete_traces(project_id, [trace_id_of(id) for id in ids])
        await count_deleted(project_id, ended)
    return len(ids)


@verb(sweep=True)
async def prune(
    *,
    after: tuple[str, str],
    finished_before_us: int,
    idempotency_before_us: int,
    now_us: int,
    limit: int,
    workflows: Mapping[str, int] | None = None,
    statuses: Mapping[str, int] | None = None,
) -> tuple[int, tuple[str, str], bool]:
    """Delete a batch of expired data. Returns how many rows, the next `after`, and whether more is left.

    `workflows` and `statuses` hold own deadlines; a workflow's deadline takes precedence.
    """
    answers, more_answers = await prune_answers(idempotency_before_us, now_us, limit)
    registrations = await query("prune_ended", before_us=idempotency_before_us, limit=limit)
    losses = await query("prune_losses", before_us=idempotency_before_us, limit=limit)
    by_workflow, by_status = workflows or {}, statuses or {}
    before_us = max(finished_before_us, *by_workflow.values(), *by_status.values(), 0)
    rows = await query("oldest_executions", project_id=after[0], after=after[1], limit=limit)
    gone: dict[str, list[str]] = {}
    looked, room = 0, PRUNE_ROWS_MAX
    for project_id, id, workflow_id, phase, completed_at_us, _, size in rows:
        looked += 1
        kept_since_us = by_workflow.get(workflow_id, by_status.get(phase, finished_before_us))
        if completed_at_us is not None and completed_at_us < kept_since_us:
            gone.setdefault(project_id, []).append(id)
            room -= size
            if room <= 0:
                break
    deleted = 0
    for project_id, ids in gone.items():
        free = await query("lock_old", project_id=project_id, ids=json.dumps(ids))
        deleted += await delete_executions(project_id, [id for (id,) in free])  # locked executions are for a later walk
    events = await query("prune_events", before_us=finished_before_us, limit=limit)
    topics = [{"project_id": project_id, "topic": topic} for project_id, topic in sorted(set(events))]
    await query_many("prune_event_fields", topics)
    # A fire's row keeps its slot from a second fire, so it outlasts a wrong clock.
    fires = await query("prune_fires", before_us=min(finished_before_us, idempotency_before_us), limit=limit)
    memory = await query("prune_memory", before_us=finished_before_us, limit=limit)
    balances = await query("prune_balances", day_before_us=finished_before_us - DAY_US, limit=limit)
    more_transcripts = await prune_transcripts(finished_before_us)
    traces = await query("old_traces", before_us=finished_before_us, limit=limit)
    for project_id, trace_id, size in traces:
        await delete_traces(project_id, [trace_id])
        room -= size
        if room <= 0:
            break
    after = ("", "")
    cut = looked < len(rows)
    if cut or len(rows) == limit:
        project_id, id, _, _, _, created_at_us, _ = rows[looked - 1]
        # Ids grow with time, so the project has nothing else that is old enough.
        after = (project_id, id if created_at_us < before_us else _AFTER_EVERY_ID)
    gone_rows = (rows, events, fires, memory, balances, traces, registrations, losses)
    deleted += answers + sum(map(len, gone_rows[1:]))
    more = cut or room <= 0 or more_answers or more_transcripts or limit in map(len, gone_rows)
    return deleted, after, more


@verb(sweep=True)
async def erase(*, project_id: str, user_id: str | None, session_id: str | None, limit: int) -> tuple[int, int]:
    """Delete executions, memory, transcripts without an open turn, and, if nothing is open, balances of shared budgets.
    Returns how many executions are deleted, and how many are open."""
    if user_id is not None:
        rows: dict[str, Any] = dict(await query("final_of_user", project_id=project_id, user_id=user_id, limit=limit))
        ids = list(rows)
        still_open: int = await value("open_of_user", project_id=project_id, user_id=user_id)
        sessions = sorted(set(rows.values()))
    else:
        final = await query("final_of_session", project_id=project_id, session_id=session_id, limit=limit)
        ids = [id for (id,) in final]
        still_open = await value("open_of_session", project_id=project_id, session_id=session_id)
        sessions = [session_id]
    deleted = await delete_executions(project_id, ids)
    await query_many("delete_memory", [{"project_id": project_id, "session_id": id} for id in sessions])
    if not still_open:
        spent = [("session", id) for id in sessions] if user_id is None else [("user", user_id)]
        await query_many(
            "delete_balances_of", [{"project_id": project_id, "per": per, "key": key} for per, key in spent]
        )
    for id in sessions:
        while await delete_transcript(project_id, id) >= DROPPED_AT_ONCE:
            pass
    return deleted, still_open
