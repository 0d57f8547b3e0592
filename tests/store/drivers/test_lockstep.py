"""Verbs side by side equal some order of the same verbs one after the other, thanks to the holds.

A group of verbs on a few shared executions, a topic, a parent and a key runs in lockstep. The answers and every
remaining row must equal those of one order, run one verb at a time on an equal store.
"""

import contextlib
import itertools
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

import apsw
import asyncpg
import msgspec
import pytest
from tests import postgres
from tests.databases import migrated
from tests.store.declared import declarations
from tests.store.scene import KINDS, Scene

from perdure.store.base.executions import JournalRow
from perdure.store.base.interface import Query, Verb, query, query_many, verb
from perdure.store.base.locks import Row, SharedRow
from perdure.store.base.statements import Statement, load, parse
from perdure.store.drivers import postgres_writer
from perdure.store.drivers.lockstep import Guilty, Lockstep, LockstepStuck
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.wire.base.errors import NotFound
from perdure.wire.base.records import Kind

BROKEN_CONSTRAINTS = (apsw.ConstraintError, asyncpg.IntegrityConstraintViolationError)
"""The errors of each database for a second row in one place."""
Played = tuple[list[str], dict[str, list[str]]]
"""The answers of verbs, and every row of every table afterwards."""


def _told(answers: Sequence[Any]) -> list[str]:
    def tell(one: object) -> str:
        assert not isinstance(one, TypeError), "the scene's arguments are not those of the verb"
        if isinstance(one, BROKEN_CONSTRAINTS):
            return "a constraint was broken"
        return f"{type(one).__name__}: {one}" if isinstance(one, Exception) else msgspec.json.encode(one).decode()

    return [tell(one) for one in answers]


FORGET = "UPDATE executions SET created_number = NULL; UPDATE events SET created_number = NULL"
"""Overlapping creations may be numbered in any order."""


def _left(tables: Mapping[str, Iterable[Iterable[Any]]]) -> dict[str, list[str]]:
    return {name: sorted(repr(tuple(row)) for row in rows) for name, rows in tables.items()}


class Stage:
    """The scene on SQLite, restored for each play: a copy takes a tenth of the time of a set-up."""

    def __init__(self, first: SQLiteStore, scene: Scene) -> None:
        self.scene = scene
        self._first = first
        self._store = SQLiteStore(":memory:")
        names = first._writer.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        self.tables = [str(name) for (name,) in names]

    @classmethod
    async def make(cls) -> "Stage":
        first = SQLiteStore(":memory:")
        return cls(first, await Scene.set_up(first))

    async def play(self, act: Callable[[SQLiteStore], Awaitable[Sequence[Any]]]) -> Played:
        connection = self._store._writer
        with connection.backup("main", self._first._writer, "main") as copying:
            copying.step()
        answers = await act(self._store)
        connection.execute(f"{FORGET}; DELETE FROM meta WHERE name = 'created_numbers'")  # PostgreSQL has a sequence
        return _told(answers), _left({name: connection.execute(f"SELECT * FROM {name}") for name in self.tables})

    def values(self) -> set[Any]:
        """All values in the scene's tables."""
        execute = self._first._writer.execute
        return {value for name in self.tables for row in execute(f"SELECT * FROM {name}") for value in row}

    async def are_serial(self, verbs: Sequence[Verb[Any]], *played: Played) -> bool:
        """Whether each play equals some order of the verbs, mostly the first."""
        unexplained = list(played)
        for order in itertools.permutations(range(len(verbs))):
            came = await self.play(partial(_one_by_one, verbs, order))
            unexplained = [one for one in unexplained if one != came]
            if not unexplained:
                return True
        return False

    async def equals_an_order(self, verbs: Sequence[Verb[Any]], *, holds: bool = True) -> bool:
        """Whether the verbs equal some order, in lockstep as well as in one group of SQLite's own driver."""
        in_lockstep = await self.play(partial(_in_lockstep, verbs, holds))
        as_group = await self.play(partial(_as_group, verbs))
        return await self.are_serial(verbs, in_lockstep, as_group)


@pytest.fixture
async def stage() -> Stage:
    return await Stage.make()


async def _as_group(verbs: Sequence[Verb[Any]], store: SQLiteStore) -> Sequence[Any]:
    return await store.write_all(verbs)


async def _one_by_one(verbs: Sequence[Verb[Any]], order: Sequence[int], store: SQLiteStore) -> list[Any]:
    answers: list[Any] = [None] * len(verbs)
    for n in order:
        [answers[n]] = await store.write_all([verbs[n]])
    return answers


@cache
def _queries() -> dict[str, Statement]:
    own = (files("perdure.store") / "sql" / "postgres.sql").read_text(encoding="utf-8")
    return load("sqlite") | {"any_open_child": parse(own, "postgres.sql")["any_open_child"]}


def _rows(store: SQLiteStore, statement: Statement, values: Sequence[Any]) -> Sequence[Any]:
    rows = store._writer.execute(statement.sql, values).fetchall()
    if statement.counted:
        assert statement.holds is not None
        return [(values[statement.holds[1]],)] * store._writer.changes()  # as by RETURNING
    return rows


async def _in_lockstep(verbs: Sequence[Verb[Any]], holds: bool, store: SQLiteStore) -> list[Any]:
    """The group as the PostgreSQL driver runs it, with SQLite underneath."""
    answers: dict[int, Any] = {}
    parts: list[list[int]] = [list(range(len(verbs)))]
    while parts:
        part = parts.pop(0)
        execute = store._writer.execute
        execute("BEGIN IMMEDIATE")
        steps = Lockstep([verbs[n] for n in part], _queries(), holds=holds)
        try:
            while batches := steps.round():
                for batch in batches:
                    rows = [
                        [row for one in several for row in _rows(store, batch.statement, one)]
                        for several in batch.values
                    ]
                    steps.answer(batch, rows)
        except (LockstepStuck, Guilty) as error:
            execute("ROLLBACK")
            apart = [run.number for run in error.runs] if isinstance(error, LockstepStuck) else [error.run.number]
            if len(part) == 1:
                assert isinstance(error, Guilty)
                answers[part[0]] = error.error
                continue
            rest = [n for place, n in enumerate(part) if place not in apart]
            parts = [*([rest] if rest else []), *[[part[place]] for place in sorted(apart)], *parts]
            continue
        except Exception as error:  # the database does not say whose it is: each runs alone
            execute("ROLLBACK")
            if len(part) == 1:
                answers[part[0]] = error
            else:
                parts = [*([n] for n in part), *parts]
            continue
        finally:
            steps.close()
        execute("COMMIT")
        for n, run in zip(part, steps.runs, strict=True):
            answers[n] = run.error or run.result
    return [answers[n] for n in range(len(verbs))]


@pytest.mark.parametrize("mixed", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("amount", [2, 3, 4])
async def test_a_group_equals_some_order_of_its_verbs(stage: Stage, amount: int, mixed: bool) -> None:
    for seed in range({2: 25, 3: 15, 4: 4}[amount]):
        assert await stage.equals_an_order(stage.scene.group(seed, amount, mixed=mixed)), f"seed {seed}"


MANY = {2: 2_350, 3: 1_800, 4: 700, 5: 140, 6: 10}
assert sum(MANY.values()) == 5_000


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mixed", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("amount", MANY)
async def test_many_groups_equal_some_order_of_their_verbs(stage: Stage, amount: int, mixed: bool) -> None:
    for seed in range(1_000, 1_000 + MANY[amount]):
        assert await stage.equals_an_order(stage.scene.group(seed, amount, mixed=mixed)), f"seed {seed}"


PAIRS = list(itertools.product(KINDS, repeat=2))


async def test_some_pairs_of_verbs_equal_an_order(stage: Stage) -> None:
    # The first one is of a parent and its child: each needs a row that the other holds.
    for pair in [("cancel", "complete"), *PAIRS[::61]]:
        assert await stage.equals_an_order(stage.scene.of_kinds(*pair)), pair


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_every_pair_of_verbs_equals_an_order(stage: Stage) -> None:
    differs = [pair for pair in PAIRS if not await stage.equals_an_order(stage.scene.of_kinds(*pair))]
    assert differs == []


def test_the_kinds_are_all_verbs_that_may_share_a_group(stage: Stage) -> None:
    made = {stage.scene.verb(kind, random.Random(0), 0).name for kind in KINDS}
    assert made | {"default_project"} == {name for name, one in declarations() if one.locks is not None}


LOCKED_LATER = {
    **dict.fromkeys(itertools.product(("reserve", "settle", "change_budget"), ["budget"]), "budgets are locked last"),
    **dict.fromkeys(
        [("start", "waiting_claim"), ("report_and_dispatch", "worker")], "if it is free when the waiting claim is used"
    ),
    ("sign_up", "user"): "it is new: in the scene its id is the e-mail address",
}
"""Rows that a verb holds undeclared, and why: their values are among the verb's arguments."""
UNIQUE = {
    *itertools.product(("start", "start_batch", "report", "report_and_dispatch"), ["key"]),
    ("make_schedule", "schedule_key"),
    ("make_key", "api_key"),
}
"""Rows that a verb declares but does not hold: names that two new rows must not share."""


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | msgspec.Struct):
        yield from _texts([*(msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value).values()])
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for one in value:
            yield from _texts(one)


async def test_a_verb_declares_the_rows_that_it_holds_and_its_arguments_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: set[Row] = set()
    run = _rows

    def record(store: SQLiteStore, statement: Statement, values: Sequence[Any]) -> Sequence[Any]:
        if statement.holds is not None and statement.waits:
            held.add((statement.holds[0], values[statement.holds[1]]))
        return run(store, statement, values)

    monkeypatch.setattr(sys.modules[__name__], "_rows", record)
    stored = stage.values()
    undeclared: set[tuple[str, str]] = set()
    declared: set[tuple[str, str]] = set()
    proven: set[tuple[str, str]] = set()
    for kind, seed in itertools.product(KINDS, range(6)):
        said = stage.scene.verb(kind, random.Random(f"{kind} {seed}"), 0)
        held.clear()
        await stage.play(partial(_in_lockstep, [said], True))
        locks = set(said.locks())
        there = stored.intersection(_texts(said.values))
        undeclared |= {(said.name, row[0]) for row in held - locks if row[1] in there}
        declared |= {(said.name, row[0]) for row in locks}
        proven |= {(said.name, row[0]) for row in locks & held}
    assert undeclared == LOCKED_LATER.keys()
    assert declared - proven == UNIQUE


async def test_without_holds_it_does_not(stage: Stage) -> None:
    broken = 0
    for seed in range(60):
        broken += not await stage.equals_an_order(stage.scene.group(seed, 3), holds=False)
        if broken == 3:
            return
    pytest.fail(f"only {broken} of 60 groups broke")


@verb(locks="")
async def _fail_late() -> None:
    await query("write_meta", name="failed", value="1")
    raise NotFound("after it had written")


@pytest.mark.parametrize("amount", [2, 3])
async def test_a_verb_that_fails_late_leaves_a_group_as_it_was(stage: Stage, amount: int) -> None:
    """SQLite's driver then runs the group again with savepoints."""
    for seed in range({2: 25, 3: 10}[amount]):
        verbs = stage.scene.group(seed, amount)
        told, left = await stage.play(partial(_as_group, [verbs[0], _fail_late(), *verbs[1:]]))
        assert told.pop(1) == "NotFound: after it had written"
        assert await stage.are_serial(verbs, (told, left)), f"seed {seed}"


@contextlib.asynccontextmanager
async def _on_postgresql(stage: Stage) -> AsyncIterator[Callable[[Sequence[Verb[Any]]], Awaitable[bool]]]:
    """Whether verbs on a real server equal some order on SQLite."""
    async with postgres.fresh(migrated) as url:
        store = await PostgresStore.open(url)
        connection = await asyncpg.connect(url)
        await Scene.set_up(store)
        await connection.execute("DELETE FROM meta WHERE name = 'schema'")  # which SQLite keeps outside of tables
        await connection.execute(";".join(f"CREATE TEMP TABLE first_{name} AS TABLE {name}" for name in stage.tables))
        # To truncate them takes ten times as long.
        again = ";".join(f"DELETE FROM {name}; INSERT INTO {name} TABLE first_{name}" for name in stage.tables)

        async def is_serial(verbs: Sequence[Verb[Any]]) -> bool:
            await connection.execute(again)
            told = _told(await store.write_all(verbs))
            await connection.execute(FORGET)
            left = _left({name: await connection.fetch(f"SELECT * FROM {name}") for name in stage.tables})
            return await stage.are_serial(verbs, (told, left))

        yield is_serial
        await connection.close()
        await store.close()


on_postgres = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@on_postgres
@pytest.mark.parametrize(
    ("holds", "groups"),
    [(True, 24), pytest.param(True, 80, marks=pytest.mark.slow), pytest.param(False, 40, marks=pytest.mark.slow)],
    ids=["with holds", "many with holds", "without holds"],
)
async def test_on_postgresql_too(
    stage: Stage, holds: bool, groups: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not holds:
        monkeypatch.setattr(
            postgres_writer, "Lockstep", lambda *given, holds, **more: Lockstep(*given, holds=False, **more)
        )
    async with _on_postgresql(stage) as is_serial:
        mixed = [holds and seed % 2 == 1 for seed in range(groups)]
        differs = [n for n in range(groups) if not await is_serial(stage.scene.group(n, 3, mixed=mixed[n]))]
    assert differs == [] if holds else len(differs) >= 2, differs


@on_postgres
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(
    "each",
    [97, pytest.param(11, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.long)],
    ids=["some", "many", "all"],
)
async def test_pairs_of_verbs_equal_an_order_on_postgresql(
    stage: Stage, each: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with _on_postgresql(stage) as is_serial:
        differs = [pair for pair in PAIRS[::each] if not await is_serial(stage.scene.of_kinds(*pair))]
    assert differs == []


@on_postgres
@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mixed", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("amount", MANY)
async def test_many_groups_on_postgresql(
    stage: Stage, amount: int, mixed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with _on_postgresql(stage) as is_serial:
        for seed in range(2_000, 2_000 + MANY[amount]):
            assert await is_serial(stage.scene.group(seed, amount, mixed=mixed)), f"seed {seed}"


# --- the rounds by themselves ----------------------------------------------------------------------------------------


async def _write(*, names: Sequence[str]) -> list[str]:
    for name in names:
        await query("write_meta", name=name, value="x")
    return list(names)


_notes = verb(locks="")(_write)
_notes_that_lock = verb(locks=lambda arguments: [("meta", name) for name in arguments["names"]])(_write)


def _names(steps: Lockstep) -> list[list[str]]:
    """Run a round and answer every verb; returns the written rows."""
    rounds = []
    for batch in steps.round():
        rounds.append([values[0][0] for values in batch.values])
        steps.answer(batch, [[] for _ in batch.runs])
    return rounds


def test_a_row_is_one_verb_s_until_it_ends() -> None:
    verbs = [_notes(names=["a", "b"]), _notes(names=["b", "c"]), _notes(names=["d"])]
    steps = Lockstep(verbs, load("postgres"))
    assert _names(steps) == [["a", "b", "d"]]
    assert _names(steps) == [["c"]]  # the first one waits for b
    assert _names(steps) == [["b"]]
    assert _names(steps) == []
    assert [run.result for run in steps.runs] == [["a", "b"], ["b", "c"], ["d"]]


def test_verbs_that_wait_for_each_other_are_told_apart() -> None:
    verbs = [_notes(names=["a", "b"]), _notes(names=["b", "a"]), _notes(names=["z"])]
    steps = Lockstep(verbs, load("postgres"))
    assert _names(steps) == [["a", "b", "z"]]
    with pytest.raises(LockstepStuck) as stuck:
        steps.round()
    assert [run.number for run in stuck.value.runs] == [0, 1]
    steps.close()


@verb(locks=lambda arguments: [SharedRow(("topic", arguments["topic"]))])
async def _shares(*, topic: str) -> int:
    found = await query("share_topic", project_id="p", topic=topic)
    await query("take_numbers", project_id="p", topic="own", events=1)
    return len(found)


@verb(locks="topic=topic")
async def _owns(*, topic: str) -> int:
    return len(await query("take_numbers", project_id="p", topic=topic, events=1))


def test_a_row_is_shared_until_a_verb_wants_it_alone_and_none_overtakes_that() -> None:
    verbs = [_shares(topic="a"), _owns(topic="b"), _shares(topic="a"), _owns(topic="a"), _shares(topic="a")]
    steps = Lockstep(verbs, load("postgres"))
    asked = []
    while batches := steps.round():
        asked.append({run.number: batch.statement.name for batch in batches for run in batch.runs})
        for batch in batches:
            steps.answer(batch, [[] for _ in batch.runs])
    assert asked == [
        {0: "share_topic", 2: "share_topic", 1: "take_numbers"},
        {0: "take_numbers"},
        {2: "take_numbers"},
        {3: "take_numbers"},
        {4: "share_topic"},
        {4: "take_numbers"},
    ]


def test_the_last_that_shares_a_row_may_have_it_alone() -> None:
    verbs = [_shares(topic="own"), _shares(topic="a")]
    steps = Lockstep(verbs, load("postgres"))
    while batches := steps.round():
        for batch in batches:
            steps.answer(batch, [[] for _ in batch.runs])
    assert [run.error for run in steps.runs] == [None, None]
    both = Lockstep([_shares(topic="own"), _shares(topic="own")], load("postgres"))
    for batch in both.round():
        both.answer(batch, [[] for _ in batch.runs])
    with pytest.raises(LockstepStuck):
        both.round()
    both.close()


def test_what_the_arguments_name_is_taken_at_once_and_in_order() -> None:
    verbs = [_notes_that_lock(names=["a", "b"]), _notes_that_lock(names=["x", "b"]), _notes_that_lock(names=["x"])]
    steps = Lockstep(verbs, load("postgres"))
    assert [_names(steps) for _ in range(5)] == [[["a"]], [["b"]], [["x"]], [["b"]], [["x"]]]
    assert _names(steps) == []


@pytest.mark.parametrize(("key", "waits"), [("a", False), ("b", True)])
def test_a_look_at_one_key_lets_the_rows_of_others_wait(key: str, waits: bool) -> None:
    @verb(locks="")
    async def write_and_look() -> None:
        await query_many("insert_journal", [JournalRow("x", 1, 1, Kind.CHILD_STARTED, 1, key="a")])
        await query("note_claim", id="w", claim_id="c")
        await query("deliver_outcome", project_id="p", id="x", now_us=1, key=key, started=b"1")

    steps = Lockstep([write_and_look()], load("postgres"))
    first = steps.round()
    looked = ["deliver_outcome"]
    assert [batch.statement.name for batch in first] == (looked if waits else ["insert_journal", *looked])
    for batch in first:
        steps.answer(batch, [[]])
    late = [batch.statement.name for batch in steps.round()]
    assert late == (["insert_journal", "note_claim"] if waits else ["note_claim"])


def test_a_lookless_verb_ends_at_once() -> None:
    @verb(locks="")
    async def nothing() -> int:
        assert await Query("insert_tag", [], True) == []
        return 1

    steps = Lockstep([nothing(), _notes(names=["a"])], load("postgres"))
    assert _names(steps) == [["a"]]
    assert [run.result for run in steps.runs] == [1, ["a"]]
