"""Lists by filters: each filter, and any of them together, equals a look at every execution."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest
from msgspec import json
from tests.store.world import BLOCK, PROJECT, World, failure, raw

from perdure.store.base.interface import query, verb
from perdure.store.verbs import retention
from perdure.store.verbs.insight import summaries
from perdure.store.verbs.runs import fields, find
from perdure.wire.base.errors import BadValue
from perdure.wire.base.status import STATUS, Phase
from perdure.wire.runs.executions import Execution, ListFilters, read_tags
from perdure.wire.runs.requests import StartItem, WorkflowSpec
from perdure.wire.runs.search_terms import error_words, key_terms

WORKFLOWS: Final = ("one", "two", "three")
WORDS: Final = ("order", "4711", "eu", "Invoice", "47", "é")
ERRORS: Final = ("TimeoutError: connect to db-1", "ValueError: no such order", "Timeout", "it failed, it failed")
FIELDS: Final = ["payload.id", "payload.lines.sku", "result.id"]
PAYLOADS: Final = (
    None,
    7,
    [{"id": 7}],
    {"id": 7, "lines": [{"sku": 1}, {"sku": "a=b"}]},
    {"id": "8", "lines": []},
    {"id": True, "lines": {"sku": None}},
    {"id": {"id": 7}, "lines": [[{"sku": "x\0"}], {"sku": ""}]},
)
EXECUTIONS: Final = 90
LISTS: Final = 150


@verb(locks="execution=execution_id")
async def _mark_retried(*, execution_id: str, retried_as: str) -> None:
    await query("mark_retried", project_id=PROJECT, id=execution_id, retried_as=retried_as)


async def fill(world: World, chance: random.Random) -> None:
    """Executions of every phase, with whatever lists filter by."""
    await world.register(workflows=[WorkflowSpec(name, searchable=FIELDS) for name in WORKFLOWS])
    await world.register("other", workflows=WORKFLOWS, deployment="e")
    ids: list[str] = []
    batch = [answer.execution_id for answer in await world.batch([StartItem(name) for name in WORKFLOWS])]
    keys: set[tuple[str, str]] = set()
    for _ in range(EXECUTIONS):
        world.advance(chance.choice((0, 1, 100)))
        workflow_id = chance.choice(WORKFLOWS)
        key = "-".join(chance.choices(WORDS, k=chance.randint(1, 5))) if chance.random() < 0.5 else None
        if key is not None and (workflow_id, key) in keys:
            key = None
        elif key is not None:
            keys.add((workflow_id, key))
        item = StartItem(
            workflow_id,
            raw(chance.choice(PAYLOADS)),
            key=key,
            session_id=chance.choice((None, None, "s", *ids[:2])),
            user_id=chance.choice((None, "u", "v")),
            queue_name=chance.choice((None, None, "q", *WORKFLOWS)),
            tags=chance.choice((None, {"a": "1"}, {"a": "2", "b": ""})),
            deployment_id=chance.choice(("d", "d", "e")),
            parent_execution_id=chance.choice((None, *[id for id in ids[:2] if await world.phase(id) is Phase.QUEUED])),
        )
        ids += await world.start_all([item])
    for id in [*batch, *ids]:
        if chance.random() < 0.1 and await world.phase(id) is Phase.QUEUED:
            await world.cancel(id)
    for worker in ("w", "other"):
        for claimed in await world.claim(worker, EXECUTIONS // 3):
            await world.acknowledge(claimed.id, worker=worker)
            what = chance.random()
            if what < 0.7 and chance.random() < 0.3:
                await world.store.write(_mark_retried(execution_id=claimed.id, retried_as=ids[0]))
            if what < 0.4:
                await world.finish(claimed.id, worker, result=chance.choice(PAYLOADS))
            elif what < 0.8:
                await world.report(claimed.id, end=failure(chance.choice(ERRORS)), worker=worker)
            elif what < 0.9:
                await world.report(claimed.id, end=BLOCK, worker=worker)


def some_filters(chance: random.Random, every: list[Execution]) -> ListFilters:
    """One to four filters."""
    one = chance.choice(every)
    choices: dict[str, Any] = {
        "status": chance.sample(["pending", "running", "completed", "failed", "cancelled"], chance.randint(1, 2)),
        "phases": chance.sample([phase.value for phase in Phase], chance.randint(0, 4)),
        "workflow_id": chance.choice((*WORKFLOWS, "none", "one,two", "none,three,")),
        "session_id": chance.choice(("s", one.id, one.session_id)),
        "user_id": chance.choice(("u", "none")),
        "queue_name": chance.choice(("q", *WORKFLOWS, "none", "q,one")),
        "batch_id": one.batch_id or one.id,
        "parent_execution_id": one.parent_execution_id or one.id,
        "root_execution_id": one.root_execution_id or one.id,
        "deployment_id": chance.choice(("d", "e", "none", "d,e")),
        "forked_from": chance.choice(every).forked_from or one.id,
        "q": chance.choice(((one.key or "none")[:5], one.id, one.id[:13].upper(), one.id[:9], "47", "eu", one.id[:7])),
        "key": one.key or "none",
        "key_part": chance.choice(((one.key or "none")[:3], "47", "eu", "order-47", "Invoice", "voice", "-eu", "é")),
        "tag": chance.choice(("a=1", "a", "b=", "b", "c", "c=1")),
        "tags": chance.choice(('{"a":"1"}', '{"b":"","a":"2"}', '{"a":"1","b":""}', "{}")),
        "roots": chance.random() < 0.5,
        "error": chance.choice(("timeout", "TIME", "order such", "such timeouterror", "it", "none")),
        "field": f"{chance.choice(FIELDS)}={chance.choice(('7', '8', '1', 'a=b', 'true', 'null', ''))}",
        "retried": chance.random() < 0.5,
        "not_phase": chance.sample([phase.value for phase in Phase], chance.randint(1, 4)),
        "not_workflow_id": chance.choice((*WORKFLOWS, "none", "one,two")),
        "not_queue_name": chance.choice(("q", *WORKFLOWS, "q,one")),
        "not_deployment_id": chance.choice(("d", "e", "none")),
        "not_tag": chance.choice(("a=1", "a", "b=", "c")),
        "created_after_us": one.created_at_us,
        "created_before_us": one.created_at_us + chance.choice((0, 1)),
    }
    names = chance.sample(sorted(choices), chance.randint(1, 4))
    if "field" in names:  # no list by a field of an unknown workflow
        choices["workflow_id"] = chance.choice((one.workflow_id, f"{one.workflow_id},none"))
    return ListFilters(**{name: choices[name] for name in names})


def values_of(document: Any, path: list[str]) -> list[str]:
    if isinstance(document, list):
        return [value for item in document for value in values_of(item, path)]
    if path:
        return values_of(document[path[0]], path[1:]) if isinstance(document, dict) and path[0] in document else []
    if isinstance(document, str):
        return [document]
    return [] if isinstance(document, dict) else [json.encode(document).decode()]


def fits(one: Execution, wanted: ListFilters, tags: dict[str, str]) -> bool:
    """Apply the filters as the documentation describes each."""
    plain = ("user_id", "batch_id", "parent_execution_id", "root_execution_id", "forked_from", "key")
    if any(getattr(wanted, name) not in (None, getattr(one, name)) for name in plain):
        return False
    for name in ("workflow_id", "queue_name", "deployment_id"):
        if (names := getattr(wanted, name)) is not None and getattr(one, name) not in names.split(","):
            return False
        if (names := getattr(wanted, f"not_{name}")) is not None and getattr(one, name) in names.split(","):
            return False
    unwanted, has_value, value = (wanted.not_tag or "").partition("=")
    if unwanted in tags and (not has_value or tags[unwanted] == value):
        return False
    name, equals, value = (wanted.tag or "").partition("=")
    words = [] if one.phase is not Phase.FAILED else error_words(one.error or "")
    part, q = wanted.key_part, wanted.q
    has_id = q is not None and len(q) >= 8 and one.id.startswith(q.lower())
    field, _, asked = (wanted.field or "").partition("=")
    root, *path = field.split(".")
    document = one.payload if root == "payload" else one.result
    starts = [one.key, *[term.removeprefix("k:") for term in key_terms(one.key)]] if one.key else []
    return (
        (wanted.status is None or STATUS[one.phase] in wanted.status)
        and (wanted.phases is None or one.phase in wanted.phases)
        and (wanted.not_phase is None or one.phase not in wanted.not_phase)
        and (wanted.session_id is None or wanted.session_id in (one.session_id, one.id))
        and (not name or (name in tags and (not equals or tags[name] == value)))
        and (part is None or any(start.startswith(part) for start in starts))
        and (q is None or has_id or any(start.startswith(q) for start in starts))
        and all(any(word.startswith(start) for word in words) for start in error_words(wanted.error or ""))
        and (not field or (document is not None and asked in values_of(json.decode(document), path)))
        and (wanted.tags is None or read_tags(wanted.tags).items() <= tags.items())
        and (wanted.roots is None or wanted.roots == (one.parent_execution_id is None))
        and (wanted.retried is None or wanted.retried == (one.retried_as is not None))
        and (wanted.created_after_us is None or one.created_at_us >= wanted.created_after_us)
        and (wanted.created_before_us is None or one.created_at_us < wanted.created_before_us)
    )


async def listed(world: World, filters: ListFilters, limit: int) -> list[str]:
    ids: list[str] = []
    cursor: str | None = "~"
    while cursor is not None:
        listing = find.list_executions(project_id=PROJECT, filters=filters, before=cursor, limit=limit)
        page, cursor = await world.store.scan(listing)
        assert len(page) <= limit
        assert cursor is None or not page or cursor <= page[-1].id
        ids += [execution.id for execution in page]
    return ids


async def listed_by_end(world: World, filters: ListFilters, limit: int) -> list[str]:
    ids: list[str] = []
    cursor: str | None = "~"
    while cursor is not None:
        listing = summaries.list_ended(project_id=PROJECT, filters=filters, before=cursor, limit=limit)
        page, cursor = await world.store.scan(listing)
        assert len(page) <= limit
        ids += [summary.id for summary in page]
    return ids


@pytest.mark.parametrize(("seed", "depths"), [(1, (2_000,)), (2, (3, 5, 8))], ids=["deep", "shallow"])
async def test_filters_equal_a_look_at_every_execution(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int, depths: tuple[int, ...]
) -> None:
    monkeypatch.setattr(find, "DEPTHS", depths)
    if len(depths) > 1:
        monkeypatch.setattr(find, "MATCHES_MAX", 4)
        monkeypatch.setattr(find, "AMONG", 3)
    chance = random.Random(seed)
    await fill(world, chance)
    every, rest = await world.store.read(
        find.list_executions(project_id=PROJECT, filters=ListFilters(), before="~", limit=1_000)
    )
    assert rest is None and len(every) > EXECUTIONS
    assert {one.phase for one in every} >= {*Phase} - {Phase.WAITING, Phase.CANCELLING, Phase.RUNNING, "held"}
    tags = {one.id: {} if one.tags is None else json.decode(one.tags) for one in every}
    some = 0
    for _ in range(LISTS):
        wanted = some_filters(chance, every)
        expected = [one.id for one in every if fits(one, wanted, tags[one.id])]
        some += bool(expected)
        assert await listed(world, wanted, chance.choice((1, 4, 50))) == expected, wanted
        ends = {one.id: (one.completed_at_us, one.id) for one in every if one.completed_at_us is not None}
        by_end = sorted((id for id in expected if id in ends), key=ends.__getitem__, reverse=True)
        assert await listed_by_end(world, wanted, chance.choice((1, 4, 50))) == by_end, wanted
    assert some > LISTS // 4


async def filled(world: World) -> int:
    """Give all executions the terms of new fields. Returns the count of rounds."""
    rounds = 0
    while await world.store.write(fields.fill_fields(declared_before_us=world.now_us)):
        rounds += 1
    return rounds


async def test_a_field_that_is_declared_later_finds_what_was_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "FILLED_AT_ONCE", 2)
    await world.register(workflows=["wf", "other"])
    ids = await world.start_all([StartItem("wf", raw({"id": n % 2})) for n in range(5)])
    await world.start_all([StartItem("other", raw({"id": 1}))])
    [done] = await world.claim()
    await world.finish(done.id, result={"ok": True})
    with pytest.raises(BadValue, match=r"No workflow declares payload\.id as a searchable field"):
        await listed(world, ListFilters(field="payload.id=1"), 10)
    spec = WorkflowSpec("wf", searchable=["payload.id", "result.ok"])
    await world.register(workflows=[spec, "other"])
    late = await world.start("wf", payload=raw({"id": 1}))
    assert await listed(world, ListFilters(field="payload.id=1"), 10) == [late]
    since = find.searchable_from(project_id=PROJECT, field="payload.id", workflow_id=None, now_us=world.now_us)
    assert await world.store.read(since) == world.now_us
    assert await world.store.write(fields.fill_fields(declared_before_us=world.now_us - 1)) is False
    assert await filled(world) == 6
    assert await world.store.read(since) is None
    assert await listed(world, ListFilters(field="payload.id=1"), 10) == [late, ids[3], ids[1]]
    assert await listed(world, ListFilters(field="result.ok=true"), 10) == [done.id]
    with pytest.raises(BadValue, match=r"Workflow 'other' does not declare .* known are: payload\.id, result\.ok\."):
        await listed(world, ListFilters(field="payload.id=1", workflow_id="other"), 10)
    await world.register(workflows=[spec, "other"])
    assert await filled(world) == 0, "the same declaration again changes nothing"
    await world.register("w2", workflows=["wf"], deployment="e")
    assert await listed(world, ListFilters(field="payload.id=1"), 1) == [late, ids[3], ids[1]]
    await world.register(workflows=["wf", "other"])
    with pytest.raises(BadValue, match="as a searchable field"):
        await listed(world, ListFilters(field="payload.id=1"), 10)


async def test_what_is_deleted_leaves_no_term(world: World) -> None:
    await world.register(workflows=[WorkflowSpec("wf", searchable=["payload.id"])])
    id = await world.running(workflow_id="wf", key="order-4711", payload=raw({"id": 7}))
    await world.report(id, end=failure("TimeoutError: no answer"))
    for filters in (
        ListFilters(key_part="4711"),
        ListFilters(error="answer timeout"),
        ListFilters(field="payload.id=7"),
    ):
        assert await listed(world, filters, 10) == [id]
    await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    await world.check()
    assert await listed(world, ListFilters(key_part="4711"), 10) == []
