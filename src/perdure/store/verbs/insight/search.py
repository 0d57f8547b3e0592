"""A search for everything that has a name."""

from typing import Final

from perdure.store.base.interface import query, serves
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.insight.summaries import summaries_of
from perdure.store.verbs.runs.find import ids_beginning_with
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.insight.search import Search, SearchResults
from perdure.wire.runs.search_terms import KEY_PART_CHARS, PART_CHARS_MIN, beginning_with

_NAMES: Final = {
    "queues": ("queues_beginning", "used_queues_beginning"),
    "topics": ("topics_beginning",),
    "sessions": ("sessions_beginning",),
    "deployments": ("deployments_beginning",),
}


@serves(Search, scans=True)
async def search(at: At, op: Search) -> SearchResults:
    project_id, q, limit = at.project_id, op.q, op.limit
    first, last = beginning_with(q)
    given = {"project_id": project_id, "first": first, "last": last, "limit": limit}
    named: dict[str, list[str]] = {}
    for kind, names in _NAMES.items():
        found = {name for one in names for (name,) in await query(one, **given)}
        named[kind] = sorted(found)[:limit]
    for kind, type in (("workflows", "workflow"), ("agents", "agent")):
        named[kind] = [id for (id,) in await query("workflows_beginning", type=type, **given)]
    return SearchResults(executions=await summaries_of(project_id, await _executions(project_id, q, limit)), **named)


async def _executions(project_id: str, q: str, limit: int) -> list[str]:
    """Find executions by id, then by key, then by a later word of the key."""
    where = {"project_id": project_id, "before": FIRST_CURSOR, "limit": limit}
    found: dict[str, None] = {}
    ids = ids_beginning_with(q)
    if ids is not None:
        found |= {id: None for (id,) in await query("with_id", id_from=ids.first, id_to=ids.last, **where)}
    key, term = beginning_with(q), beginning_with(f"k:{q[:KEY_PART_CHARS]}")
    if len(found) < limit:
        found |= {id: None for (id,) in await query("with_key", key_from=key.first, key_to=key.last, **where)}
    if len(found) < limit and len(q) >= PART_CHARS_MIN:
        found |= {id: None for (id,) in await query("with_term", term_from=term.first, term_to=term.last, **where)}
    return list(found)[:limit]
