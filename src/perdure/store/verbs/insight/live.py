"""Looks for the stream of changes. Each is a single read for all followers."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from perdure.store.base.interface import query, verb
from perdure.store.verbs.insight.summaries import summaries_of
from perdure.store.verbs.runs.find import find_ids, that_fit
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.insight.live import InboxChanged, LiveCounts
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.runs.executions import ListFilters

QUESTIONS_MAX: Final = 1_000
Stamp: TypeAlias = list[Any]


class ListLook(NamedTuple):
    stamps: Mapping[str, Stamp]
    """Stamps of known executions that fit. An empty stamp: the execution has changed, and the next look reads the
    row."""
    rows: list[ExecutionSummary]
    """Rows of changed executions."""
    window: list[str]
    """The newest executions that fit, back to `since`."""
    more: bool
    """Whether the window ended before `since`."""
    failed: frozenset[str]
    """Failed executions of the window."""


@verb(reads=True)
async def look_at_list(
    *,
    project_id: str,
    filters: ListFilters,
    known: Mapping[str, Stamp | None],
    since: str | None,
    limit: int,
    rows_max: int,
) -> ListLook:
    """Look at a list. `known` are the pages' executions; a stamp skips the read of an unchanged row."""
    stamps: dict[str, Stamp] = {}
    rows: list[ExecutionSummary] = []
    if known:
        fits = await that_fit(project_id, filters, [*known])
        now = {id: stamp for id, *stamp in await query("stamps", project_id=project_id, ids=json.dumps(fits))}
        changed = [id for id, stamp in now.items() if known[id] != stamp]
        rows = await summaries_of(project_id, changed[:rows_max])
        stamps = now | {id: [] for id in changed[rows_max:]}
    if since is None:
        return ListLook(stamps, rows, [], False, frozenset())
    window, following = await find_ids(project_id, filters, FIRST_CURSOR, limit, since=since)
    failed = await query("failed_of_page", project_id=project_id, ids=json.dumps(window)) if window else []
    return ListLook(
        stamps, rows, window, following is not None and len(window) == limit, frozenset(id for (id,) in failed)
    )


@verb(reads=True)
async def count_open(*, project_id: str) -> LiveCounts:
    found = {phase.value: 0 for phase in Phase if phase not in FINAL} | {"paused": 0}
    for phase, count, _ in await query("open_by_phase", project_id=project_id):
        found["queued" if phase in ("ready", "delayed") else phase] += count
    paused = found.pop("paused")
    found["queued"] += paused
    questions = await _questions(project_id)
    return LiveCounts(found, paused, questions.questions, questions.at_least)


@verb(reads=True)
async def look_at_inbox(*, project_id: str) -> InboxChanged:
    return await _questions(project_id)


async def _questions(project_id: str) -> InboxChanged:
    for count, newest_at_us in await query("newest_questions", project_id=project_id, limit=QUESTIONS_MAX):
        return InboxChanged(count, count == QUESTIONS_MAX, newest_at_us)
    raise AssertionError("a count has a row")
