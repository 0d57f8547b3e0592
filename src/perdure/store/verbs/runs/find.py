"""Find executions by filters, newest first.

A *walk* goes down one index. A walk's *floor* is the id reached after a number of entries. Several walks may
lead to the wanted executions. The walk with the lowest floor passes the fewest others.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from perdure.store.base.interface import query, query_many, records, value, verb
from perdure.store.verbs.base.pages import fitting
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.insight.summaries import EndedSummary
from perdure.wire.runs.executions import Execution, ListFilters, read_tags
from perdure.wire.runs.search_terms import Terms, beginning_with, error_terms

DEPTHS: Sequence[int] = (2_000, 20_000, 100_000)
"""Index entries that each further window of a search passes."""
MATCHES_MAX = 10_000
"""Matches of a term that are sorted by id. A walk searches a term with more."""
WORKFLOWS_MAX: Final = 100
FIELDS_NAMED: Final = 20
AMONG: Final = 500
CLOCKS_APART_US: Final = 60_000_000
"""Most microseconds between two clocks: ids have the server's time, `created_at_us` has the store's."""
FLOORS: Final = {
    "list_all": "all_floor",
    "list_open": "open_floor",
    "list_ended": "ended_in_floor",
    "list_failed": "failed_floor",
    "list_cancelled": "cancelled_floor",
    "list_of_queue": "of_queue_floor",
    "list_of_session": "of_session_floor",
    "list_head_of_session": "head_of_session_floor",
    "list_of_user": "of_user_floor",
    "list_of_batch": "of_batch_floor",
    "list_of_parent": "of_parent_floor",
    "list_of_root": "of_root_floor",
    "list_of_source": "of_source_floor",
    "list_tagged": "tagged_floor",
}
_SIMPLE: Final = {
    "parent_execution_id": ("list_of_parent",),
    "root_execution_id": ("list_of_root",),
    "forked_from": ("list_of_source",),
    "batch_id": ("list_of_batch",),
    "session_id": ("list_of_session", "list_head_of_session"),
    "user_id": ("list_of_user",),
}
_BY_PHASE: Final = {Phase.FAILED.value: "list_failed", Phase.CANCELLED.value: "list_cancelled"}
_ID_PART: Final = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}", re.IGNORECASE)
"""A shorter beginning fits the ids of more than a minute."""
_OPEN: Final = frozenset(Phase) - FINAL
_FILTERS: Final = {*ListFilters.__struct_fields__, "tag_name", "not_tag_name", "terms"}
UNENDED_US: Final = 1 << 62
_NAMES: Final = ("workflow_id", "queue_name", "deployment_id")


class Way(NamedTuple):
    """Walks that together lead to the wanted executions."""

    walks: Sequence[tuple[str, dict[str, str]]]
    """Walks, each with its own values."""
    covers: Sequence[str] = ()
    """The filters that all executions of the walks fit."""


@verb(reads=True)
async def list_executions(
    *, project_id: str, filters: ListFilters, before: str, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Execution], str | None]:
    """List a page of executions, and where the next page starts. A page before the last may be short or empty."""
    ids, following = await find_ids(project_id, filters, before, limit)
    sizes = await query("sizes_of", project_id=project_id, ids=json.dumps(ids))
    fits = fitting((size for _, size in sizes), bytes_max)
    if fits < len(ids):
        following = ids[fits - 1]
    page = await records(Execution, "list_executions", project_id=project_id, ids=json.dumps(ids[:fits]))
    return page, following


@verb(reads=True)
async def created_at(*, project_id: str, id: str) -> int | None:
    """Return when the oldest execution with an id from `id` on was created."""
    created_us: int | None = await value("created_from", project_id=project_id, id=id)
    return created_us


async def find_ids(
    project_id: str, filters: ListFilters, before: str, limit: int, *, since: str = ""
) -> tuple[list[str], str | None]:
    """Find at most `limit` executions older than `before`, and not older than `since`, and where the next look starts
    (None: nothing older fits). The search ends early after the windows of DEPTHS."""
    if filters.field is not None:
        await _check_field(project_id, filters.field, several(filters.workflow_id))
    terms = _terms(filters)
    wanted = _wanted(project_id, filters, terms)
    before, least = await id_bounds(wanted, before)
    least = max(least, since)
    matching = await _matching(wanted, terms, before)
    if matching is not None:
        ids = await _among(wanted, (id for id in matching if id >= least), limit)
        return ids[:limit], ids[limit - 1] if len(ids) > limit else None
    ways = _ways(wanted)
    given = {name for name in _FILTERS if wanted[name] is not None}
    ids = []
    for window, depth in enumerate(DEPTHS):
        if window == 1:
            ways += await _ways_by_phase(wanted)
        exact = next((way for way in ways if given <= set(way.covers)), None)
        if exact is not None:
            way, floor = exact, least
        else:
            floors = [await _floor(way, wanted, before, depth) for way in ways]
            floor = max(min(floors), least)
            way = ways[floors.index(min(floors))]
        rows = await _each(way, wanted | {"before": before, "floor_id": floor, "limit": limit + 1})
        ids += sorted(rows, reverse=True)[: limit + 1 - len(ids)]
        if len(ids) > limit:
            return ids[:limit], ids[limit - 1]
        if floor <= least:
            return ids, None
        before = floor
    return ids, before


async def find_ended(
    project_id: str, filters: ListFilters, before: EndedSummary, limit: int
) -> tuple[list[EndedSummary], EndedSummary | None]:
    if filters.field is not None:
        await _check_field(project_id, filters.field, several(filters.workflow_id))
    terms = _terms(filters)
    wanted = _wanted(project_id, filters, terms)
    matching = await _matching(wanted, terms, FIRST_CURSOR)
    if matching is not None:
        ids = await _among(wanted, matching, len(matching))
        rows = await query("ends_among", project_id=project_id, ids=json.dumps(ids))
        found = sorted((one for id, at_us in rows if (one := EndedSummary(at_us, id)) < before), reverse=True)
        return found[:limit], found[limit - 1] if len(found) > limit else None
    # An execution that was created later has ended later.
    least = EndedSummary(max((filters.created_after_us or 0) - CLOCKS_APART_US, 0), "")
    found = []
    for depth in DEPTHS:
        where = {"project_id": project_id, "below_us": before.at_us, "before": before.id}
        floor = least
        for id, at_us in await query("by_end_floor", **where, depth=depth):
            floor = max(EndedSummary(at_us, id), least)
        left = limit + 1 - len(found)
        rows = await query("list_by_end", **wanted | where, floor_us=floor.at_us, floor_id=floor.id, limit=left)
        found += [EndedSummary(at_us, id) for id, at_us in rows]
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        if floor == least:
            return found, None
        before = floor
    return found, before


async def that_fit(project_id: str, filters: ListFilters, ids: Sequence[str]) -> list[str]:
    """Return the executions among `ids` that fit now."""
    rows = await query("list_among", **_wanted(project_id, filters, _terms(filters)), ids=json.dumps(ids))
    return [id for (id,) in rows]


async def _check_field(project_id: str, asked: str, workflow_ids: Sequence[str] | None) -> None:
    field = asked.partition("=")[0]
    wanted: Sequence[str | None] = workflow_ids or (None,)
    found = [await query("find_search_field", project_id=project_id, field=field, workflow_id=id) for id in wanted]
    if not any(found):
        workflow_id = wanted[0]
        known = [name for (name,) in await query("known_search_fields", project_id=project_id, limit=FIELDS_NAMED)]
        declares = "No workflow declares" if workflow_id is None else f"Workflow {workflow_id!r} does not declare"
        raise BadValue(
            f'{declares} {field} as a searchable field; @workflow(searchable=["{field}"]) does. '
            f"Of all workflows, known are: {', '.join(known) or 'none'}.",
            {"field": field, "workflow_id": workflow_id},
        )


@verb(reads=True)
async def searchable_from(*, project_id: str, field: str, workflow_id: str | None, now_us: int) -> int | None:
    """Return the time from which executions are searchable by a field. None: all are."""
    workflow_ids = several(workflow_id) or []
    one = workflow_ids[0] if len(workflow_ids) == 1 else None
    rows = await query("find_search_field", project_id=project_id, field=field, workflow_id=one)
    places = [place for _, place in rows if place is not None]
    if not places:
        return None
    created_us: int | None = await value("created_from", project_id=project_id, id=max(places))
    return created_us or now_us


async def list_floor(project_id: str, before: str, depth: int) -> str:
    """Return the last of the `depth` newest ids; empty if fewer exist."""
    return await value("all_floor", project_id=project_id, before=before, depth=depth) or ""


def _terms(filters: ListFilters) -> list[Terms]:
    """Return ranges of terms. An execution that fits has a term in each range."""
    field = [] if filters.field is None else [Terms(f"f:{filters.field}", f"f:{filters.field}")]
    return [*(beginning_with(term) for term in error_terms(filters.error or "")), *field]


def _wanted(project_id: str, filters: ListFilters, terms: Sequence[Terms]) -> dict[str, Any]:
    wanted: dict[str, Any] = {name: getattr(filters, name) for name in ListFilters.__struct_fields__}
    phases = filters.wanted_phases()
    tag_name, tag_value = _tag(filters.tag)
    tags = None if filters.tags is None else read_tags(filters.tags)
    if tags and tag_name is None:  # one of them leads the walk
        tag_name, tag_value = tags.popitem()
    not_tag_name, not_tag_value = _tag(filters.not_tag)
    part, q = filters.key_part, filters.q
    ids = None if q is None else ids_beginning_with(q)
    names = {f"{no}{name}": several(wanted[f"{no}{name}"]) for name in _NAMES for no in ("", "not_")}
    return (
        wanted
        | names
        | {f"{name}s": None if given is None else json.dumps(given) for name, given in names.items()}
        | {
            "project_id": project_id,
            "status": None,
            "tag": None,
            "error": None,
            "field": None,
            "phases": None if phases is None else f" {' '.join(phases)} ",
            "not_phase": None,
            "tag_name": tag_name,
            "tag_value": tag_value,
            "not_tag": None,
            "not_tag_name": not_tag_name,
            "not_tag_value": not_tag_value,
            "key_end": None if part is None else beginning_with(part).last,
            "q_end": None if q is None else beginning_with(q).last,
            "first_id": None if ids is None else ids.first,
            "last_id": None if ids is None else ids.last,
            "terms": json.dumps(terms) if terms else None,
            "retried": None if filters.retried is None else int(filters.retried),
            "roots": None if filters.roots is None else int(filters.roots),
            "tags": json.dumps([*tags.items()]) if tags else None,
        }
    )


def _tag(given: str | None) -> tuple[str | None, str | None]:
    """Split a tag into name and value; None: any."""
    name, equals, value = (given or "").partition("=")
    return name or None, value if equals else None


def several(value: str | None) -> list[str] | None:
    """Split the names in a filter. A name may have a comma itself."""
    if value is None:
        return None
    return [value, *filter(None, value.split(","))] if "," in value else [value]


def ids_beginning_with(q: str) -> Terms | None:
    return beginning_with(q.lower()) if _ID_PART.fullmatch(q) else None


async def id_bounds(wanted: dict[str, Any], before: str) -> tuple[str, str]:
    """Return the ids between which executions of the wanted time lie. Ids have a time, but perhaps another clock's: a
    bound holds only if the next id beyond was created outside."""
    project_id, after_us, before_us = (wanted[name] for name in ("project_id", "created_after_us", "created_before_us"))
    least = ""
    if after_us is not None:
        id = id_at(after_us - CLOCKS_APART_US)
        created_us = await value("created_below", project_id=project_id, id=id)
        least = id if created_us is None or created_us < after_us else ""
    if before_us is not None:
        id = id_at(before_us + CLOCKS_APART_US)
        created_us = await value("created_from", project_id=project_id, id=id)
        before = min(before, id) if created_us is None or created_us >= before_us else before
    return before, least


def id_at(at_us: int) -> str:
    """Return the least id of executions begun at a time."""
    digits = f"{min(max(at_us // 1_000, 0), (1 << 48) - 1):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


async def _matching(wanted: dict[str, Any], terms: Sequence[Terms], before: str) -> set[str] | None:
    """Return matches, or None if every filter has many."""
    asked = [await _matches(wanted["project_id"], before, queries) for queries in _sets(wanted, terms)]
    sets = [ids for ids in asked if ids is not None]
    return set.intersection(*sets) if sets else None


def _sets(wanted: dict[str, Any], terms: Sequence[Terms]) -> Sequence[Sequence[tuple[str, dict[str, str]]]]:
    """Return queries by filter, whose matches come in no order."""
    key, part, end = wanted["key"], wanted["key_part"], wanted["key_end"]
    sets = [_with_key(key, key)] if key is not None else []
    if part is not None:
        sets.append(_with_key_part(part, end))
    if wanted["q"] is not None:
        found = _with_key_part(wanted["q"], wanted["q_end"])
        if wanted["first_id"] is not None:
            found.append(("with_id", {"id_from": wanted["first_id"], "id_to": wanted["last_id"]}))
        sets.append(found)
    sets += [[_with_term(one)] for one in terms]
    if wanted["tag_name"] is not None and wanted["tag_value"] is None:
        sets.append([("with_tag", {"tag_name": wanted["tag_name"]})])
    return sets


def _with_key(first: str, last: str) -> list[tuple[str, dict[str, str]]]:
    values = {"key_from": first, "key_to": last}
    return [("with_key", values), ("with_retried_key", values)]


def _with_key_part(part: str, end: str) -> list[tuple[str, dict[str, str]]]:
    return [*_with_key(part, end), _with_term(Terms(f"k:{part}", f"k:{end}"))]


def _with_term(terms: Terms) -> tuple[str, dict[str, str]]:
    return "with_term", {"term_from": terms.first, "term_to": terms.last}


async def _matches(project_id: str, before: str, queries: Sequence[tuple[str, dict[str, str]]]) -> set[str] | None:
    """Return the matches of queries. None: too many."""
    ids: set[str] = set()
    for name, values in queries:
        rows = await query(name, project_id=project_id, before=before, limit=MATCHES_MAX + 1, **values)
        ids.update(id for (id,) in rows)
    return ids if len(ids) <= MATCHES_MAX else None


async def _among(wanted: dict[str, Any], ids: Iterable[str], limit: int) -> list[str]:
    """Return the newest that fit, one more than `limit`."""
    newest = sorted(ids, reverse=True)
    found: list[str] = []
    for start in range(0, len(newest), AMONG):
        rows = await query("list_among", **wanted | {"ids": json.dumps(newest[start : start + AMONG])})
        found += [id for (id,) in rows]
        if len(found) > limit:
            break
    return found


def _ways(wanted: dict[str, Any]) -> list[Way]:
    ways = [Way([(walk, {}) for walk in walks], [name]) for name, walks in _SIMPLE.items() if wanted[name] is not None]
    phases, workflow_ids, queue_names = wanted["phases"], wanted["workflow_id"], wanted["queue_name"]
    if wanted["tag_value"] is not None:
        ways.append(Way([("list_tagged", {})], ["tag_name"]))
    if queue_names is not None:
        same = queue_names if workflow_ids is None else set(queue_names).intersection(workflow_ids)
        walks = [("list_of_queue", {"queue_name": name}) for name in queue_names]
        ways.append(Way([*walks, *_of_workflows(same, phases)]))
    if workflow_ids is not None:
        ways.append(Way(_of_workflows(workflow_ids, phases), ["workflow_id", *_covered(phases)]))
    elif phases is not None and set(phases.split()) <= _BY_PHASE.keys():
        ways.append(Way([(_BY_PHASE[phase], {}) for phase in phases.split()], ["phases"]))
    return ways or [Way([("list_all", {})])]


def _of_workflows(ids: Iterable[str], phases: str | None) -> list[tuple[str, dict[str, str]]]:
    return [walk for id in dict.fromkeys(ids) for walk in _of_workflow(id, phases)]


def _of_workflow(workflow_id: str, phases: str | None) -> list[tuple[str, dict[str, str]]]:
    def has(phase: Phase) -> bool:
        return phases is None or f" {phase} " in phases

    where = {"of_workflow": workflow_id}
    walks = [("list_ended", where | {"of_phase": phase.value}) for phase in Phase if phase in FINAL and has(phase)]
    return [*walks, ("list_open", where)] if any(map(has, _OPEN)) else walks


def _covered(phases: str | None) -> list[str]:
    """The index of open executions does not know the phase."""
    partly = phases is not None and 0 < sum(f" {phase} " in phases for phase in _OPEN) < len(_OPEN)
    return [] if partly else ["phases"]


async def _ways_by_phase(wanted: dict[str, Any]) -> list[Way]:
    """Return one way through all workflows, if only the phase is narrow and workflows are few."""
    phases = wanted["phases"]
    if phases is None or wanted["workflow_id"] is not None:
        return []
    names = ["open_workflows"] if any(f" {phase} " in phases for phase in _OPEN) else []
    names += ["ended_workflows"] if any(f" {phase} " in phases for phase in FINAL) else []
    workflows: set[str] = set()
    for name in names:
        rows = await query(name, project_id=wanted["project_id"], limit=WORKFLOWS_MAX + 1)
        workflows |= {id for (id,) in rows}
    if len(workflows) > WORKFLOWS_MAX:
        return []
    unwanted = wanted["not_workflow_id"] or ()
    return [Way(_of_workflows(workflows.difference(unwanted), phases), [*_covered(phases), "not_workflow_id"])]


async def _floor(way: Way, wanted: dict[str, Any], before: str, depth: int) -> str:
    """Return how far down the way leads with `depth` entries; empty: to the end."""
    deep = max(depth // max(len(way.walks), 1), 1)
    ends = await _each(way, wanted | {"before": before, "depth": deep}, floors=True)
    return max(ends, default="")


async def _each(way: Way, values: dict[str, Any], *, floors: bool = False) -> list[str]:
    ids: list[str] = []
    for name in dict.fromkeys(walk for walk, _ in way.walks):
        rows = [values | own for walk, own in way.walks if walk == name]
        ids += [id for (id,) in await query_many(FLOORS[name] if floors else name, rows)]
    return ids
