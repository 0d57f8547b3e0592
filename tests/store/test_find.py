"""Lists by filters: each filter, and any of them together, equals a look at every execution."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest
from msgspec import json
from tests.store.world import BLOCK, PROJECT, World, failure

from perdure.store.verbs import find
from perdure.wire.executions import Execution
from perdure.wire.requests import ListFilters, StartItem
from perdure.wire.search import error_words, key_terms
from perdure.wire.status import STATUS, Phase

WORKFLOWS: Final = ("one", "two", "three")
WORDS: Final = ("order", "4711", "eu", "Invoice", "47", "é")
ERRORS: Final = ("TimeoutError: connect to db-1", "ValueError: no such order", "Timeout", "it failed, it failed")
EXECUTIONS: Final = 90
LISTS: Final = 150


async def fill(world: World, chance: random.Random) -> None:
    """Executions of every phase, with whatever lists filter by."""
    await world.register(workflows=WORKFLOWS)
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
            if what < 0.4:
                await world.finish(claimed.id, worker)
            elif what < 0.8:
                await world.report(claimed.id, end=failure(chance.choice(ERRORS)), worker=worker)
            elif what < 0.9:
                await world.report(claimed.id, end=BLOCK, worker=worker)


def some_filters(chance: random.Random, every: list[Execution]) -> ListFilters:
    """One to three filters."""
    one = chance.choice(every)
    choices: dict[str, Any] = {
        "status": chance.sample(["pending", "running", "completed", "failed", "cancelled"], chance.randint(1, 2)),
        "phases": chance.sample([phase.value for phase in Phase], chance.randint(0, 4)),
        "workflow_id": chance.choice((*WORKFLOWS, "none")),
        "session_id": chance.choice(("s", one.id, one.session_id)),
        "user_id": chance.choice(("u", "none")),
        "queue_name": chance.choice(("q", *WORKFLOWS, "none")),
        "batch_id": one.batch_id or one.id,
        "parent_execution_id": one.parent_execution_id or one.id,
        "root_execution_id": one.root_execution_id or one.id,
        "deployment_id": chance.choice(("d", "e", "none")),
        "key": one.key or "none",
        "key_part": chance.choice(((one.key or "none")[:3], "47", "eu", "order-47", "Invoice", "voice", "-eu", "é")),
        "tag": chance.choice(("a=1", "a", "b=", "b", "c", "c=1")),
        "error": chance.choice(("timeout", "TIME", "order such", "such timeouterror", "it", "none")),
        "retried": chance.random() < 0.5,
        "created_after_us": one.created_at_us,
        "created_before_us": one.created_at_us + chance.choice((0, 1)),
    }
    return ListFilters(**{name: choices[name] for name in chance.sample(sorted(choices), chance.randint(1, 3))})


def fits(one: Execution, wanted: ListFilters, tags: dict[str, str]) -> bool:
    """As the documentation of the filters says."""
    plain = ("workflow_id", "user_id", "queue_name", "batch_id", "parent_execution_id", "root_execution_id")
    for name in (*plain, "deployment_id", "key"):
        if getattr(wanted, name) not in (None, getattr(one, name)):
            return False
    name, equals, value = (wanted.tag or "").partition("=")
    words = [] if one.phase is not Phase.FAILED else error_words(one.error or "")
    part = wanted.key_part
    starts = [one.key, *[term.removeprefix("k:") for term in key_terms(one.key)]] if one.key else []
    return (
        (wanted.status is None or STATUS[one.phase] in wanted.status)
        and (wanted.phases is None or one.phase in wanted.phases)
        and (wanted.session_id is None or wanted.session_id in (one.session_id, one.id))
        and (not name or (name in tags and (not equals or tags[name] == value)))
        and (part is None or any(start.startswith(part) for start in starts))
        and all(any(word.startswith(asked) for word in words) for asked in error_words(wanted.error or ""))
        and (wanted.retried is None or not wanted.retried)
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
    assert some > LISTS // 4
