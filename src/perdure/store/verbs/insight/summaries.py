"""Rows of lists, with facts on the executions' states.

A fact takes one query for a whole page. Final executions need none.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from perdure.store.base.interface import query, records, verb
from perdure.store.verbs.runs.find import UNENDED_US, find_ended, find_ids
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.insight.details import CHILDREN_MAX, NumberedPause, OpenChildren, PageContext, Served, details
from perdure.wire.insight.summaries import EndedSummary, ExecutionSummary, read_ended
from perdure.wire.insight.why_facts import Limit, Subject
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.waits import RecordedWait

S = TypeVar("S", bound=Struct)

PROGRESS_BYTES_MAX: Final = 1 << 10
VALUE_BYTES_MAX: Final = 4 << 10
"""Most bytes of a question, or of a failed try's error."""
ROWS_MAX: Final = 20
"""Last rows of an execution that are examined."""
QUEUES_MAX: Final = 20
"""Queues with limits of which the running executions are counted."""


async def summaries_of(project_id: str, ids: Iterable[str]) -> list[ExecutionSummary]:
    """Return the summaries of existing executions among `ids`, newest first."""
    given = {"ids": json.dumps([*ids]), "progress_bytes_max": PROGRESS_BYTES_MAX}
    page = await records(Subject, "summaries", project_id=project_id, **given)
    beside = await _beside(project_id, [one for one in page if one.summary.phase not in FINAL])
    return [replace(one.summary, details=details(one, beside)) for one in page]


async def _beside(project_id: str, page: list[Subject]) -> PageContext:
    waiting = _ids(page, Phase.WAITING)
    running = _ids(page, Phase.RUNNING)
    paused_tries = [one.summary.id for one in page if one.timer_key is None and one.summary.due_at_us is not None]
    queued = [one for one in page if one.summary.phase is Phase.QUEUED]
    paused = [one.summary.id for one in queued if one.gate > 1]
    recent = [*running, *{*waiting} & {*paused_tries}]
    of, small = {"project_id": project_id}, {"bytes_max": VALUE_BYTES_MAX}
    return PageContext(
        waits=await _by_id(RecordedWait, "first_waits", "execution_id", waiting, **small),
        children=await _by_id(OpenChildren, "open_among_children", "parent_id", waiting, children=CHILDREN_MAX, **of),
        steps=dict(await query("long_steps", ids=json.dumps(running), **of)) if running else {},
        rows=await _by_id(JournalEntry, "last_rows", "execution_id", recent, rows=ROWS_MAX, **of, **small),
        limits=await _limits(project_id, queued),
        pauses=await _by_id(NumberedPause, "numbered_pauses", "number", paused, **of),
        served=await _served(project_id, {one.summary.deployment_id for one in queued}),
    )


def _ids(page: list[Subject], phase: Phase) -> list[str]:
    return [one.summary.id for one in page if one.summary.phase is phase]


async def _by_id(cls: type[S], name: str, key: str, ids: list[str], **given: object) -> Mapping[Any, S]:
    """Read a page's records by a field. Without ids nothing is read."""
    found = await records(cls, name, ids=json.dumps(ids), **given) if ids else []
    return {getattr(one, key): one for one in found}


async def _limits(project_id: str, page: list[Subject]) -> Mapping[tuple[str, str], tuple[Rule, Limit]]:
    groups = {(one.summary.queue_name, one.summary.concurrency_key or "") for one in page if one.gate == 1}
    names = sorted({name for name, _ in groups})[:QUEUES_MAX]
    if not names:
        return {}
    queues = {"project_id": project_id, "ids": json.dumps(names)}
    held: dict[tuple[str, str | None], int] = {}
    for name, key, count in await query("held_of_queues", **queues):
        held[name, key] = count
        held[name, None] = held.get((name, None), 0) + count
    reached: dict[tuple[str, str], tuple[Rule, Limit]] = {}
    for name, total, each in await query("limits_of_queues", **queues):
        of_queue = held.get((name, None), 0)
        for key in (key for one, key in groups if one == name):
            of_key = held.get((name, key), 0)
            if total is not None and of_queue >= total:
                reached[name, key] = Rule.QUEUE_LIMIT, Limit(total, of_queue)
            elif each is not None and of_key >= each:
                reached[name, key] = Rule.KEY_LIMIT, Limit(each, of_key)
    return reached


async def _served(project_id: str, deployments: set[str | None]) -> Mapping[str, Served]:
    names = sorted(name for name in deployments if name is not None)
    if not names:
        return {}
    found: dict[str, Served] = {}
    rows = await query("served_deployments", project_id=project_id, ids=json.dumps(names))
    for name, python, protocol in rows:
        known = found.get(name, Served())
        found[name] = Served(known.pythons | {python}, max(known.protocol, protocol))
    return found


@verb(reads=True)
async def list_summaries(
    *, project_id: str, filters: ListFilters, before: str, limit: int
) -> tuple[list[ExecutionSummary], str | None]:
    """List executions like `list_executions`, for people."""
    ids, following = await find_ids(project_id, filters, before, limit)
    return await summaries_of(project_id, ids), following


@verb(reads=True)
async def list_ended(
    *, project_id: str, filters: ListFilters, before: str, limit: int
) -> tuple[list[ExecutionSummary], str | None]:
    """List ended executions, newest end first. `before` is NEWEST or a returned place."""
    place = EndedSummary(UNENDED_US, FIRST_CURSOR) if before == FIRST_CURSOR else read_ended(before)
    found, following = await find_ended(project_id, filters, place, limit)
    rows = {one.id: one for one in await summaries_of(project_id, [one.id for one in found])}
    page = [rows[one.id] for one in found if one.id in rows]  # one may be deleted by now
    return page, None if following is None else f"{following.at_us}-{following.id}"
