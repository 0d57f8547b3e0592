"""Verbs side by side equal some order of the same verbs one after the other, and it is the holds that make it so.

A group of verbs that meet on a few executions, a topic, a parent and a key runs in lockstep; its answers and what it
leaves behind must be those of one of its orders, run one verb at a time on a store that was set up alike.
"""

import itertools
import random
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import asyncpg
import msgspec
import pytest
from tests import postgres
from tests.databases import migrated
from tests.store.world import GRACE_US, PROJECT, World, answer_wait, child, event_wait, raw, step

from perdure.store import postgres_lane
from perdure.store.interface import Query, Store, Verb, query, verb
from perdure.store.lockstep import Guilty, Lockstep, Stuck
from perdure.store.named import NAMED, is_sweep, rows_named
from perdure.store.postgres import PostgresStore
from perdure.store.queries import load, parse
from perdure.store.sqlite import SQLiteStore
from perdure.store.verbs import events, moves, reports, starts, waits
from perdure.store.verbs.idempotency import Idempotency
from perdure.store.verbs.starts import New, Offer
from perdure.wire.requests import (
    Answer,
    CloseWait,
    Complete,
    End,
    Entry,
    EventItem,
    OpenWait,
    Publish,
    ReportItem,
    StartChild,
    StartItem,
    Suspend,
)

Named = Callable[[Verb[Any]], Sequence[tuple[str, Any]]] | None
TABLES = (
    "executions, journal, waits, topics, events, idempotency, workers, ended_workers, queues, deployments, workflows, "
    "projects, execution_tags, logs"
)


class Scene:
    """Executions that have much to do with each other, alike in every store that it is set up in."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ids: dict[str, str] = {}
        self.seen: dict[str, int] = {}

    @classmethod
    async def make(cls, store: Store) -> "Scene":
        world = await World.make(store)
        scene = cls(world)
        await world.register()
        for name in ("runs", "waits", "asks", "parent"):
            scene.ids[name] = await world.running()
        await world.report(scene.ids["runs"], [event_wait("e", "t"), answer_wait("a")])
        await world.wait_for(scene.ids["waits"], event_wait("e", "t"))
        await world.wait_for(scene.ids["asks"], answer_wait("a"))
        await world.report(scene.ids["parent"], [child("kid")])
        [kid] = await world.claim_ids()
        await world.acknowledge(kid)
        scene.ids["kid"] = kid
        for name, id in scene.ids.items():
            scene.seen[name] = (await world.get(id)).next_seq - 1
        return scene

    def verbs(self, dice: random.Random, amount: int) -> list[Verb[Any]]:
        return [self._one(dice, n) for n in range(amount)]

    def _one(self, dice: random.Random, n: int) -> Verb[Any]:
        now_us = self.world.now_us
        same: dict[str, Any] = {"project_id": PROJECT, "now_us": now_us}
        match dice.choice(["report"] * 6 + ["cancel", "publish", "publish", "resume", "start", "start"]):
            case "cancel":
                id = self.ids[dice.choice(list(self.ids))]
                return moves.cancel(execution_id=id, cancelled_by="user", grace_us=GRACE_US, **same)
            case "publish":
                items = [EventItem(raw(n), dedup_key=dice.choice([None, "d"]))]
                return events.publish(topic="t", events=items, ids=[f"event{n}"], **same)
            case "resume":
                id = self.ids[dice.choice(["asks", "runs"])]
                return waits.resume(execution_id=id, step_key="a", data=raw(n), **same)
            case "start":
                item = StartItem("wf", key=dice.choice([None, "k"]), parent_execution_id=self.ids["parent"])
                once = dice.choice([None, Idempotency("start", "i", "hash")])
                return starts.start(news=[New(f"0290a5f2-7c1e-7b3a-9d55-{n:012x}", item)], idempotency=once, **same)
        name = dice.choice(["runs", "runs", "parent", "kid", "kid"])
        entries: list[Entry] = []
        end: End | None = None
        match dice.choice(["step", "publish", "wait", "close", "answer", "child", "complete", "suspend", "suspend"]):
            case "step":
                entries = [step(f"s{dice.randint(0, 1)}", n)]
            case "publish":
                entries = [Publish(f"p{n}", None, "t", [EventItem(raw(n))])]
            case "wait":
                entries = [OpenWait(f"e{n}", None, "t")]
            case "close":
                entries = [CloseWait("e")]
            case "answer":
                entries = [Answer(f"x{n}", None, self.ids[dice.choice(["asks", "runs"])], "a", raw(n))]
            case "child":
                entries = [StartChild(f"c{n}", None, StartItem("wf", key=dice.choice([None, "k"])))]
            case "complete":
                end = Complete(raw(n))
            case "suspend":
                end = Suspend(dice.choice([[], ["e"], ["a"]]), None)
        news = ReportItem(self.ids[name], 1, dice.randint(2, 4), self.seen[name], entries, end)
        fresh = [f"0390a5f2-7c1e-7b3a-9d55-{n:012x}"]
        if entries and type(entries[0]) is StartChild and dice.random() < 0.5:
            offer = Offer("w", "d", "3.12", f"z{n}", 1)
            return reports.report_children(worker_id="w", item=news, ids=fresh, offer=offer, **same)
        return reports.report(worker_id="w", item=news, ids=fresh, **same)

    async def left(self) -> Any:
        """All that can be seen of what the verbs left behind."""
        found = await self.world.store.read(_everything())
        return {name: sorted(map(repr, rows)) for name, rows in found.items()}


@verb
async def _everything() -> dict[str, Any]:
    found: dict[str, Any] = {}
    ids = [row[0] for row in await query("list_floor_all")]
    for id in ids:
        found[f"execution {id}"] = await query("get_execution", project_id=PROJECT, id=id)
        found[f"journal {id}"] = await query("read_journal", execution_id=id, after=0, limit=1_000)
        found[f"waits {id}"] = await query("list_waits", execution_id=id)
    found["events"] = await query("read_events", project_id=PROJECT, topic="t", after=0, limit=1_000)
    found["idempotency"] = await query("read_idempotency", project_id=PROJECT, route="start", key="i")
    return found


EXTRA = "-- name: list_floor_all\nSELECT id FROM executions ORDER BY id;\n"


def _told(answers: Sequence[Any]) -> list[str]:
    return [
        f"{type(one).__name__}: {one}" if isinstance(one, Exception) else msgspec.json.encode(one).decode()
        for one in answers
    ]


def _memory() -> SQLiteStore:
    store = SQLiteStore(":memory:")
    store._queries = store._queries | parse(EXTRA, "test")
    return store


async def _orders(seed: int, amount: int, group: Sequence[int]) -> list[tuple[list[str], Any]]:
    """Answers and remains of every order of the group."""
    found = []
    for order in itertools.permutations(group):
        store = _memory()
        scene = await Scene.make(store)
        verbs = scene.verbs(random.Random(seed), amount)
        answers: list[Any] = [None] * amount
        for n in order:
            [answers[n]] = await store.write_all([verbs[n]])
        found.append((_told(answers), await scene.left()))
        await store.close()
    return found


def _in_lockstep(store: SQLiteStore, verbs: Sequence[Verb[Any]], named: Named) -> list[Any]:
    """The group as the PostgreSQL driver runs it, with SQLite underneath."""
    own = (files("perdure.store") / "sql" / "postgres.sql").read_text(encoding="utf-8")
    queries = load("sqlite") | {"any_open_child": parse(own, "postgres.sql")["any_open_child"]}
    answers: dict[int, Any] = {}
    parts: list[list[int]] = [list(range(len(verbs)))]
    while parts:
        part = parts.pop(0)
        execute = store._writer.execute
        execute("BEGIN IMMEDIATE")
        steps = Lockstep([verbs[n] for n in part], queries, named)
        try:
            while batches := steps.round():
                for batch in batches:
                    rows = [
                        [row for one in several for row in execute(batch.statement.sql, one)]
                        for several in batch.values
                    ]
                    steps.answer(batch, rows)
        except (Stuck, Guilty) as error:
            execute("ROLLBACK")
            apart = [run.number for run in error.runs] if isinstance(error, Stuck) else [error.run.number]
            if len(part) == 1:
                assert isinstance(error, Guilty)
                answers[part[0]] = error.error
                continue
            rest = [n for place, n in enumerate(part) if place not in apart]
            parts = [*([rest] if rest else []), *[[part[place]] for place in sorted(apart)], *parts]
            continue
        except Exception:
            execute("ROLLBACK")
            raise
        finally:
            steps.close()
        execute("COMMIT")
        for n, run in zip(part, steps.runs, strict=True):
            answers[n] = run.error or run.result
    return [answers[n] for n in range(len(verbs))]


async def _is_serial_on_sqlite(seed: int, amount: int, named: Named) -> bool:
    store = _memory()
    scene = await Scene.make(store)
    verbs = scene.verbs(random.Random(seed), amount)
    try:
        answers = _in_lockstep(store, verbs, named)
    except Exception:  # the database found two of them in each other's way
        return False
    seen = _told(answers), await scene.left()
    await store.close()
    return seen in await _orders(seed, amount, range(amount))


@pytest.mark.parametrize("amount", [2, 3, 4])
async def test_a_group_equals_some_order_of_its_verbs(amount: int) -> None:
    for seed in range({2: 100, 3: 60, 4: 15}[amount]):
        assert await _is_serial_on_sqlite(seed, amount, rows_named), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("amount", [2, 3, 4, 5])
async def test_many_groups_equal_some_order_of_their_verbs(amount: int) -> None:
    for seed in range(1_000, 1_000 + {2: 3_000, 3: 1_500, 4: 450, 5: 50}[amount]):
        assert await _is_serial_on_sqlite(seed, amount, rows_named), f"seed {seed}"


async def test_without_holds_it_does_not() -> None:
    broken = [seed for seed in range(60) if not await _is_serial_on_sqlite(seed, 3, None)]
    assert len(broken) >= 3


@pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")
@pytest.mark.parametrize("holds", [True, False], ids=["with holds", "without holds"])
async def test_on_postgresql_too(
    holds: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not holds:
        monkeypatch.setattr(postgres_lane, "rows_named", None)
    differs = []
    async with postgres.fresh(migrated) as url:
        connection = await asyncpg.connect(url)
        for seed in range(40):
            await connection.execute(f"TRUNCATE {TABLES}")
            store = await PostgresStore.open(url)
            for lane in store._reads:
                lane._queries = lane._queries | parse(EXTRA, "test", "postgres")
            scene = await Scene.make(store)
            verbs = scene.verbs(random.Random(seed), 3)
            seen = _told(await store.write_all(verbs)), await scene.left()
            if seen not in await _orders(seed, 3, range(3)):
                differs.append(seed)
            await store.close()
        await connection.close()
    assert differs == [] if holds else len(differs) >= 2, differs


# --- the rounds by themselves ----------------------------------------------------------------------------------------


@verb
async def _notes(*, names: Sequence[str]) -> list[str]:
    for name in names:
        await query("write_meta", name=name, value="x")
    return list(names)


def _names(steps: Lockstep) -> list[list[str]]:
    """One round: which rows are written; everybody is answered."""
    rounds = []
    for batch in steps.round():
        rounds.append([values[0][0] for values in batch.values])
        steps.answer(batch, [[] for _ in batch.runs])
    return rounds


def test_a_row_is_one_verb_s_until_it_ends() -> None:
    verbs = [_notes(names=["a", "b"]), _notes(names=["b", "c"]), _notes(names=["d"])]
    steps = Lockstep(verbs, load("postgres"), lambda verb: ())
    assert _names(steps) == [["a", "b", "d"]]
    assert _names(steps) == [["c"]]  # the first one waits for b
    assert _names(steps) == [["b"]]
    assert _names(steps) == []
    assert [run.result for run in steps.runs] == [["a", "b"], ["b", "c"], ["d"]]


def test_verbs_that_wait_for_each_other_are_told_apart() -> None:
    verbs = [_notes(names=["a", "b"]), _notes(names=["b", "a"]), _notes(names=["z"])]
    steps = Lockstep(verbs, load("postgres"), lambda verb: ())
    assert _names(steps) == [["a", "b", "z"]]
    with pytest.raises(Stuck) as stuck:
        steps.round()
    assert [run.number for run in stuck.value.runs] == [0, 1]
    steps.close()


def test_what_the_arguments_name_is_taken_at_once_and_in_order() -> None:
    verbs = [_notes(names=["a", "b"]), _notes(names=["x", "b"]), _notes(names=["x"])]
    steps = Lockstep(verbs, load("postgres"), lambda verb: [("meta", name) for name in verb.values["names"]])
    assert [_names(steps) for _ in range(5)] == [[["a"]], [["b"]], [["x"]], [["b"]], [["x"]]]
    assert _names(steps) == []


def test_a_lookless_verb_ends_at_once() -> None:
    @verb
    async def nothing() -> int:
        assert await Query("insert_tag", [], True) == []
        return 1

    steps = Lockstep([nothing(), _notes(names=["a"])], load("postgres"), rows_named)
    assert _names(steps) == [["a"]]
    assert [run.result for run in steps.runs] == [1, ["a"]]


def test_every_verb_that_changes_something_says_what_it_names() -> None:
    """A verb that is not in the table keeps no order with others, so that must be a decision."""
    from perdure.store.verbs import access, claims, looks, schedules

    reading = {"read_key", "journals", "read_events", "get", "find_by_key", "finished", "list_executions", "journal"}
    reading |= {
        "database_time",
        "old_snapshots",
        "logs",
        "doctor",
        "counts",
        "unserved",
        "list_named",
        "next_due",
        "list_waits",
        "list_keys",
    }
    reading |= {"due_schedules", "get_schedule", "list_schedules", "scheduled_workflows", "list_fires"}
    nothing = {"touch"}
    found = set()
    for module in (access, claims, events, looks, moves, reports, schedules, starts, waits):
        for name, value in vars(module).items():
            if hasattr(value, "__wrapped__") and value.__wrapped__.__module__ == module.__name__:
                found.add(name)
    unnamed = {name for name in found if name not in NAMED and not is_sweep(Verb(_Named(name), {}))}
    assert unnamed == reading | nothing


class _Named:
    def __init__(self, name: str) -> None:
        self.__name__ = name

    async def __call__(self) -> None: ...
