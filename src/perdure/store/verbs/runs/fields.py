"""Searchable fields of payloads and results.

An execution gets terms for its workflow's fields at its start and completion. Executions older than a field get terms
in the background, newest first.
"""

import json
from collections.abc import Sequence
from typing import Final

from perdure.store.base.interface import query, query_many, verb
from perdure.store.verbs.base.pages import fitting
from perdure.store.verbs.runs.find import find_ids
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import WorkflowSpec
from perdure.wire.runs.search_terms import field_terms

FILLED_AT_ONCE: Final = 500


async def declare_fields(project_id: str, workflows: Sequence[WorkflowSpec], now_us: int) -> None:
    """Declare fields, after the registration of the workflows."""
    fields = [(project_id, spec.id, field, now_us) for spec in workflows for field in spec.searchable]
    if fields:
        await query_many("put_search_field", fields)
    await query("drop_search_fields", project_id=project_id)


async def terms_of_fields(
    project_id: str, workflow_id: str, execution_id: str, *, payload: bytes | None = None, result: bytes | None = None
) -> list[tuple[str, str, str]]:
    """Return terms in the order of `insert_term`'s values."""
    fields = [field for (field,) in await query("search_fields_of", project_id=project_id, workflow_id=workflow_id)]
    return [(project_id, term, execution_id) for term in field_terms(fields, payload=payload, result=result)]


@verb(sweep=True)
async def fill_fields(*, declared_before_us: int) -> bool:
    """Give some older executions the terms of a newer field. False: no field is left.

    Transactions that began before a field was declared write no terms for the field. Such transactions must have ended.
    """
    rows = await query("next_search_field", before_us=declared_before_us)
    for project_id, workflow_id, field, place in rows:
        where = {"project_id": project_id, "workflow_id": workflow_id, "field": field}
        ids, following = await find_ids(project_id, ListFilters(workflow_id=workflow_id), place, FILLED_AT_ONCE)
        sizes = await query("sizes_of", project_id=project_id, ids=json.dumps(ids))
        fits = fitting((size for _, size in sizes), REPLY_BYTES_MAX)
        if fits < len(ids):
            ids, following = ids[:fits], ids[fits - 1]
        terms: list[tuple[str, str, str]] = []
        for id, payload, result in await query("documents_of", project_id=project_id, ids=json.dumps(ids)):
            terms += [(project_id, term, id) for term in field_terms([field], payload=payload, result=result)]
        if terms:
            await query_many("add_term", terms)
        await query("move_search_field", place=following, **where)
    return bool(rows)
