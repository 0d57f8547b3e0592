"""Facts of executions that filters find, page by page. Each verb also returns where the next page starts."""

import json
from collections import Counter
from typing import Final

from perdure.store.base.interface import query, records, verb
from perdure.store.verbs.insight.stats import error_group
from perdure.store.verbs.runs.find import find_ids
from perdure.wire.insight.attention import Cluster, StuckExecution
from perdure.wire.insight.matches import Match
from perdure.wire.insight.stats import ErrorGroup
from perdure.wire.runs.executions import ListFilters

IDS_MAX: Final = 5_000
FACTS_MAX: Final = 2_000


@verb(reads=True)
async def found_ids(*, project_id: str, filters: ListFilters, before: str) -> tuple[list[str], str | None]:
    ids, following = await find_ids(project_id, filters, before, IDS_MAX)
    return ids, following


@verb(reads=True)
async def found(*, project_id: str, filters: ListFilters, before: str) -> tuple[list[Match], str | None]:
    ids, following = await find_ids(project_id, filters, before, FACTS_MAX)
    return await records(Match, "matched_executions", project_id=project_id, ids=json.dumps(ids)), following


@verb(reads=True)
async def found_failures(
    *, project_id: str, filters: ListFilters, before: str
) -> tuple[list[StuckExecution], str | None]:
    ids, following = await find_ids(project_id, filters, before, FACTS_MAX)
    return await records(StuckExecution, "matched_failures", project_id=project_id, ids=json.dumps(ids)), following


@verb(reads=True)
async def found_tags(*, project_id: str, filters: ListFilters, before: str) -> tuple[list[str], str | None]:
    """List tags. A tag of several executions is repeated."""
    ids, following = await find_ids(project_id, filters, before, FACTS_MAX)
    counts: Counter[str] = Counter(dict(await query("matched_tags", ids=json.dumps(ids))))
    return list(counts.elements()), following


@verb(reads=True)
async def error_groups(*, clusters: list[Cluster]) -> list[ErrorGroup]:
    return [await error_group(cluster) for cluster in clusters]
