"""Verbs side by side equal some order of the same verbs one after the other, and it is the holds that make it so.

A group of verbs that meet on a few executions, a topic, a parent and a key runs in lockstep; its answers and what it
leaves behind must be those of one of its orders, run one verb at a time on a store that was set up alike.
"""

import contextlib
import importlib
import itertools
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import msgspec
import pytest
from msgspec import Raw
from tests import postgres
from tests.databases import migrated
from tests.store import more_kinds
from tests.store.world import (
    BLOCK,
    CANCELLED,
    GRACE_US,
    PROJECT,
    RELEASE,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
)

from perdure.store import postgres_lane
from perdure.store.interface import Query, Store, Verb, query, verb
from perdure.store.lockstep import Guilty, Lockstep, Stuck
from perdure.store.named import NAMED, is_sweep, rows_named
from perdure.store.postgres import PostgresStore
from perdure.store.queries import Statement, load, parse
from perdure.store.sqlite import SQLiteStore
from perdure.store.verbs import access, accounts, claims, events, moves, reports, schedules, starts, waits
from perdure.store.verbs.accounts import NewSession
from perdure.store.verbs.hands import Offer
from perdure.store.verbs.idempotency import Idempotency
from perdure.store.verbs.starts import New
from perdure.wire.access import Role
from perdure.wire.accounts import User
from perdure.wire.errors import NotFound
from perdure.wire.requests import (
    AgentSpec,
    Answer,
    AppendMessages,
    CloseWait,
    Complete,
    Emitted,
    End,
    Entry,
    EventItem,
    LeaveMessages,
    LogLine,
    OpenWait,
    Publish,
    ReadTranscript,
    ReportItem,
    ScheduleChange,
    ScheduleSpec,
    StartChild,
    StartItem,
    Summarize,
    Suspend,
    TakeMessages,
    TimerFired,
    WorkflowSpec,
)
from perdure.wire.transcripts import OnConflict
from perdure.wire.workflows import WorkflowType

Named = Callable[[Verb[Any]], Sequence[tuple[str, Any]]] | None
TABLES = (
    "executions, journal, waits, topics, events, idempotency, workers, ended_workers, queues, deployments, workflows, "
    "projects, execution_tags, logs, stream_items, api_keys, schedules, schedule_fires, "
    "users, user_sessions, members, invitations, " + ", ".join(more_kinds.TABLES)
)


REPORTS = (
    *("acknowledge", "step", "failed try", "log", "emit", "timer", "publish in", "open", "close", "answer", "child"),
    *("read", "say", "summarize", "take"),
    *("child into a claim", "end into a claim"),
    *("complete", "fail", "retry", "release", "block", "cancelled", "suspend", "suspend on a timer"),
)
KINDS = (
    *REPORTS,
    *("cancel", "publish", "publish once", "resume", "start", "start into a claim", "start a batch", "cut a lease"),
    *("touch", "new epoch", "make a key", "create a key", "delete a key"),
    *("make a schedule", "change a schedule", "delete a schedule", "run a schedule", "fire a schedule"),
    *("note a use", "sign up", "sign in", "sign out", "change a user", "change a password", "make a project"),
    *("change a project", "add a member", "change a member", "remove a member"),
)
"""Whatever may share a group with others; what a predicate picks has a transaction of its own (`is_sweep`)."""


def _id(kind: int, n: int) -> str:
    return f"0{kind}90a5f2-7c1e-7b3a-9d55-{n:012x}"


def _spec(key: str, cron: str = "* * * * *") -> ScheduleSpec:
    return ScheduleSpec("wf", cron, "UTC", key)


def _key(id: str, name: str, now_us: int) -> dict[str, Any]:
    given = {"id": id, "project_id": PROJECT, "name": name, "role": "admin", "secret_hash": "x", "last_four": "1234"}
    return {**given, "development": False, "now_us": now_us}


def _invitation(email: str, token: str, now_us: int) -> dict[str, Any]:
    given = {"project_id": PROJECT, "email": email, "role": Role.ADMIN, "member_id": f"member {email}"}
    return {**given, "token_hash": token, "expires_at_us": now_us + 9, "now_us": now_us}


def _sign_up(email: str, token: str | None, now_us: int, n: int = 0) -> dict[str, Any]:
    user = User(email, email, "first", "last", None)
    session = NewSession(f"session of {email} {n}", now_us + 9)
    given = {"user": user, "password_hash": f"hash {n}", "session": session, "invitation_hash": token}
    return {**given, "member_id": f"m{n} {email}", "now_us": now_us}


class Scene:
    """Executions that have much to do with each other, alike in every store that it is set up in."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ids: dict[str, str] = {}
        self.seen: dict[str, int] = {}
        self.pushed_ids = ("", "")

    @classmethod
    async def make(cls, store: Store, *, more: bool = False) -> "Scene":
        world = await World.make(store)
        scene = cls(world)
        told = AgentSpec("helper", "openai", "gpt", tools=Raw(b"[]"))
        await world.register(workflows=["wf", WorkflowSpec("helper", type=WorkflowType.AGENT, agent=told)])
        for name in ("runs", "waits", "asks", "parent"):
            turn: dict[str, Any] = {"session_id": "s", "on_conflict": OnConflict.QUEUE} if name == "runs" else {}
            scene.ids[name] = await world.running(user_id="u", **turn)
        await world.report(scene.ids["runs"], [event_wait("e", "t"), answer_wait("a")])
        await world.wait_for(scene.ids["waits"], event_wait("e", "t"))
        await world.wait_for(scene.ids["asks"], answer_wait("a"))
        await world.report(scene.ids["parent"], [child("kid")])
        [kid] = await world.claim_ids()
        await world.acknowledge(kid)
        scene.ids["kid"] = kid
        for name, id in scene.ids.items():
            scene.seen[name] = (await world.get(id)).next_seq - 1
        made = schedules.make_schedule(project_id=PROJECT, id="schedule", spec=_spec("k"), now_us=world.now_us)
        await store.write(made)
        for n, email in enumerate(("ann", "bob")):
            await store.write(accounts.add_member(**_invitation(email, f"invitation{n}", world.now_us)))
            await store.write(accounts.sign_up(**_sign_up(email, f"invitation{n}", world.now_us)))
        await store.write(accounts.add_member(**_invitation("new", "token", world.now_us)))
        if more:
            scene.pushed_ids = await more_kinds.set_up(world)
        return scene

    def verbs(self, dice: random.Random, amount: int) -> list[Verb[Any]]:
        kinds = ["report"] * 6 + ["cancel", "publish", "publish", "resume", "start", "start"]
        children, ends = dice.choice(["child", "child into a claim"]), dice.choice(["complete", "end into a claim"])
        often = ["step", "publish in", "open", "close", "answer", children, ends, "suspend", "suspend"]
        chosen = [dice.choice(often if (kind := dice.choice(kinds)) == "report" else [kind]) for _ in range(amount)]
        return [self.verb(kind, dice, n) for n, kind in enumerate(chosen)]

    def verb(self, kind: str, dice: random.Random, n: int) -> Verb[Any]:
        """One of KINDS, on executions that the dice choose."""
        now_us = self.world.now_us
        same: dict[str, Any] = {"project_id": PROJECT, "now_us": now_us}
        once = dice.choice([None, Idempotency("start", "i", "hash")])
        new = New(_id(2, n), StartItem("wf", key=dice.choice([None, "k"]), parent_execution_id=self.ids["parent"]))
        items = [EventItem(raw(n), dedup_key=dice.choice([None, "d"]))]
        other_kind = more_kinds.verb_of(kind, *self.pushed_ids, _id(8, n), dice, n, now_us)
        if other_kind is not None:
            return other_kind
        match kind:
            case "cancel":
                id = self.ids[dice.choice(list(self.ids))]
                return moves.cancel(execution_id=id, cancelled_by="user", grace_us=GRACE_US, **same)
            case "publish":
                return events.publish(topic="t", events=items, ids=[f"event{n}"], **same)
            case "publish once":
                return events.publish_once(topic="t", events=items, ids=[f"event{n}"], idempotency=once, **same)
            case "resume":
                id = self.ids[dice.choice(["asks", "runs"])]
                return waits.resume(execution_id=id, step_key="a", data=raw(n), **same)
            case "start":
                return starts.start(news=[new], idempotency=once, **same)
            case "start into a claim":
                offer = Offer("w", "d", "3.12", f"claim{n}", 2)
                return starts.start(news=[new], idempotency=once, offer=offer, **same)
            case "start a batch":
                other = New(_id(4, n), StartItem("wf", key="k2"))
                return starts.start_batch(news=[new, other], batch_id=f"batch{n}", idempotency=once, **same)
            case "make a schedule":
                spec = _spec(dice.choice(["k", "l"]), f"{n} * * * *")
                return schedules.make_schedule(id=f"schedule{n}", spec=spec, idempotency=once, **same)
            case "change a schedule":
                change = ScheduleChange(cron=f"{n} 1 * * *")
                return schedules.change_schedule(schedule_id="schedule", change=change, **same)
            case "delete a schedule":
                return schedules.delete_schedule(project_id=PROJECT, schedule_id="schedule")
            case "run a schedule":
                return schedules.run_schedule(schedule_id="schedule", id=_id(5, n), idempotency=once, **same)
            case "fire a schedule":
                same["now_us"] += 90_000_000  # a minute has begun
                return schedules.fire_schedule(schedule_id="schedule", ids=[_id(6, n), _id(7, n)], **same)
            case "note a use":
                return access.note_key_use(id="key0", now_us=now_us + n)
            case "sign up":
                return accounts.sign_up(**_sign_up("new", dice.choice(["token", None]), now_us, n))
            case "sign in":
                return accounts.open_session(user_id="ann", session=NewSession(f"s{n}", now_us + 9), now_us=now_us)
            case "sign out":
                return accounts.close_session(token_hash="session of ann 0")
            case "change a user":
                names = {"first_name": dice.choice([f"first{n}", None]), "last_name": f"last{n}", "display_name": None}
                return accounts.change_user(user_id="ann", **names, now_us=now_us)
            case "change a password":
                session = NewSession(f"s{n}", now_us + 9)
                return accounts.change_password(user_id="ann", password_hash=f"{n}", session=session, now_us=now_us)
            case "make a project":
                project: dict[str, Any] = {
                    "id": f"project{n}",
                    "name": f"project{n}",
                    "description": None,
                    "member_id": f"m{n}",
                }
                return accounts.make_project(**project, user_id="ann", now_us=now_us)
            case "change a project":
                return accounts.change_project(name=f"name{n}", description=None, **same)
            case "add a member":
                email = dice.choice(["new", "ann", "other"])
                return accounts.add_member(**_invitation(email, f"token{n}", now_us))
            case "change a member":
                return accounts.change_member(user_id=dice.choice(["ann", "bob"]), role=Role.READ, **same)
            case "remove a member":
                return accounts.remove_member(project_id=PROJECT, user_id=dice.choice(["ann", "bob"]))
            case "cut a lease":
                return claims.cut_lease(worker_id="w", until_us=now_us + n)
            case "touch":
                return access.touch(now_us=now_us + n)
            case "new epoch":
                return access.new_epoch(epoch=f"epoch{n}")
            case "make a key":
                given = _key(f"key{n}", dice.choice(["one", "two"]), now_us)
                return access.make_key(**{name: value for name, value in given.items() if name != "development"})
            case "create a key":
                return access.create_key(**_key(f"key{n}", f"name{n}", now_us))
            case "delete a key":
                return access.delete_key(project_id=PROJECT, id="key0")
        return self._report(kind, dice, n, same)

    def _report(self, kind: str, dice: random.Random, n: int, same: dict[str, Any]) -> Verb[Any]:
        name = dice.choice(["runs", "runs", "parent", "kid", "kid"])
        entries: list[Entry] = []
        logs: list[LogLine] = []
        stream: list[Emitted] = []
        end: End | None = None
        number = dice.randint(2, 4)
        match kind:
            case "acknowledge":
                number = 0
            case "step":
                entries = [step(f"s{dice.randint(0, 1)}", n)]
            case "failed try":
                entries = [step(f"s{dice.randint(0, 1)}", n, ok=False, last=False)]
            case "log":
                logs = [LogLine(same["now_us"], 20, f"line {n}")]
                entries = [step(f"s{dice.randint(0, 1)}", n)]
            case "emit":
                stream = [Emitted("token", f"s{n}", raw(n)), Emitted("token", f"s{n}", raw(n), 2)]
            case "timer":
                entries = [TimerFired("t", same["now_us"])]
            case "publish in":
                entries = [Publish(f"p{n}", None, "t", [EventItem(raw(n))])]
            case "open":
                entries = [OpenWait(f"e{n}", None, "t")]
            case "close":
                entries = [CloseWait("e")]
            case "answer":
                entries = [Answer(f"x{n}", None, self.ids[dice.choice(["asks", "runs"])], "a", raw(n))]
            case "child" | "child into a claim":
                entries = [StartChild(f"c{n}", None, StartItem("wf", key=dice.choice([None, "k"])))]
            case "read":
                entries = [ReadTranscript(f"r{n}", "s")]
            case "say":
                entries = [AppendMessages(f"m{n}", None, "s", [raw("same"), raw(n)], dice.choice([None, 0]))]
            case "summarize":
                entries = [AppendMessages(f"m{n}", None, "s", [raw(n)]), Summarize(f"u{n}", None, "s", 1, raw("same"))]
            case "take":
                entries = [TakeMessages(f"t{n}", "s"), LeaveMessages(f"l{n}", "s", [self.ids["kid"]])]
            case "complete" | "end into a claim":
                end = Complete(raw(n))
            case "fail":
                end = failure(f"failure {n}")
            case "retry":
                end = failure(f"failure {n}", retry_delay_us=dice.choice([0, 5]))
            case "release":
                end = RELEASE
            case "block":
                end = BLOCK
            case "cancelled":
                end = CANCELLED
            case "suspend":
                end = Suspend(dice.choice([[], ["e"], ["a"]]), None)
            case "suspend on a timer":
                end = Suspend([], ("t", same["now_us"] + 5))
            case _:
                raise ValueError(kind)
        news = ReportItem(self.ids[name], 1, number, self.seen[name], entries, end, logs, stream=stream)
        if kind in ("child into a claim", "end into a claim"):
            offer = Offer("w", "d", "3.12", f"z{n}", 1)
            return reports.report_offered(worker_id="w", item=news, ids=[_id(3, n)], offer=offer, **same)
        return reports.report(worker_id="w", item=news, ids=[_id(3, n)], **same)

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
        found[f"logs {id}"] = await query("read_logs", execution_id=id, after=0, limit=1_000)
        found[f"stream {id}"] = await query("read_stream_items", execution_id=id, after=0, limit=1_000)
    found["events"] = await query("read_events", project_id=PROJECT, topic="t", after=0, limit=1_000)
    found["idempotency"] = await query("read_idempotency", project_id=PROJECT, route="start", key="i")
    found["workers"] = await query("list_workers", project_id=PROJECT)
    found["keys"] = await query("list_keys", project_id=PROJECT)
    found["schedules"] = await query("list_schedules", project_id=PROJECT, before="~", workflow_id=None, limit=100)
    for row in found["schedules"]:
        fires = await query("list_fires", schedule_id=row[0], before_us=1 << 60, limit=100)
        found[f"fires {row[0]}"] = fires
    for table in SEEN_WHOLE:
        found[table] = await query(f"all_{table}")
    found["touched"] = await query("read_meta", name="touched_at_us")
    return found


SEEN_WHOLE = ("users", "user_sessions", "members", "invitations", "projects", *more_kinds.TABLES)
EXTRA = "-- name: list_floor_all\nSELECT id FROM executions ORDER BY id;\n" + "".join(
    f"-- name: all_{table}\nSELECT * FROM {table};\n" for table in SEEN_WHOLE
)


BROKEN_CONSTRAINTS = (apsw.ConstraintError, asyncpg.IntegrityConstraintViolationError)
"""What each database says of a second row in one place, in words of its own."""


def _told(answers: Sequence[Any]) -> list[str]:
    def tell(one: object) -> str:
        if isinstance(one, BROKEN_CONSTRAINTS):
            return "a constraint was broken"
        return f"{type(one).__name__}: {one}" if isinstance(one, Exception) else msgspec.json.encode(one).decode()

    return [tell(one) for one in answers]


class _Copy(SQLiteStore):
    """A new store in memory whose schema is copied, not made anew: that would take most of the time of these tests."""

    def _connect(self, flags: int) -> apsw.Connection:
        connection = super()._connect(flags)
        with connection.backup("main", _made()._writer, "main") as backup:
            backup.step()
        return connection


@cache
def _made() -> SQLiteStore:
    return SQLiteStore(":memory:")


def _memory() -> SQLiteStore:
    store = _Copy(":memory:")
    store._queries = store._queries | parse(EXTRA, "test")
    return store


Group = Callable[[Scene], Sequence[Verb[Any]]]
"""The same verbs for any scene."""


def _random(seed: int, amount: int) -> Group:
    return lambda scene: scene.verbs(random.Random(seed), amount)


def _of_kinds(*kinds: str) -> Group:
    """Verbs of these kinds, on executions that are the same whenever the kinds are."""

    def make(scene: Scene) -> Sequence[Verb[Any]]:
        dice = random.Random(" ".join(kinds))
        return [scene.verb(kind, dice, n) for n, kind in enumerate(kinds)]

    return make


async def _orders(group: Group, *, more: bool = False) -> list[tuple[list[str], Any]]:
    """Answers and remains of every order of the group."""
    found = []
    amount = len(group(await Scene.make(_memory(), more=more)))
    for order in itertools.permutations(range(amount)):
        store = _memory()
        scene = await Scene.make(store, more=more)
        verbs = group(scene)
        answers: list[Any] = [None] * amount
        for n in order:
            [answers[n]] = await store.write_all([verbs[n]])
        found.append((_told(answers), await scene.left()))
        await store.close()
    return found


def _rows(store: SQLiteStore, statement: Statement, values: Sequence[Any]) -> Sequence[Any]:
    rows = store._writer.execute(statement.sql, values).fetchall()
    return [()] * store._writer.changes() if statement.counted else rows


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
                        [row for one in several for row in _rows(store, batch.statement, one)]
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


async def _is_serial_on_sqlite(group: Group, named: Named, *, more: bool = False) -> bool:
    store = _memory()
    scene = await Scene.make(store, more=more)
    answers = _in_lockstep(store, group(scene), named)
    seen = _told(answers), await scene.left()
    await store.close()
    return seen in await _orders(group, more=more)


@pytest.mark.parametrize("amount", [2, 3, 4])
async def test_a_group_equals_some_order_of_its_verbs(amount: int) -> None:
    for seed in range({2: 25, 3: 15, 4: 4}[amount]):
        assert await _is_serial_on_sqlite(_random(seed, amount), rows_named), f"seed {seed}"


MANY = {2: 2_350, 3: 1_800, 4: 700, 5: 140, 6: 10}
assert sum(MANY.values()) == 5_000


@pytest.mark.parametrize(
    ("amount", "part"),
    [
        pytest.param(
            amount, part, marks=pytest.mark.slow if part == 0 else [pytest.mark.long, pytest.mark.timeout(3_600)]
        )
        for amount in MANY
        for part in range(2)
    ],
)
async def test_many_groups_equal_some_order_of_their_verbs(amount: int, part: int) -> None:
    """A fifth of them in `make test-full`, the rest in `make test-long`."""
    first = MANY[amount] // 5
    for seed in (range(first), range(first, MANY[amount]))[part]:
        assert await _is_serial_on_sqlite(_random(1_000 + seed, amount), rows_named), f"seed {1_000 + seed}"


PAIRS = list(itertools.product(KINDS, repeat=2))
MORE_PAIRS = list(itertools.product(more_kinds.KINDS, (*more_kinds.KINDS, "cancel", "publish")))


async def test_some_pairs_of_what_push_workers_say_equal_an_order() -> None:
    for first, second in MORE_PAIRS[::97]:
        assert await _is_serial_on_sqlite(_of_kinds(first, second), rows_named, more=True), f"{first}, {second}"


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_every_pair_of_what_push_workers_say_equals_an_order() -> None:
    for first, second in MORE_PAIRS:
        assert await _is_serial_on_sqlite(_of_kinds(first, second), rows_named, more=True), f"{first}, {second}"


async def test_some_pairs_of_verbs_equal_an_order() -> None:
    # The first one is of a parent and its child: each needs a row that the other holds.
    for first, second in [("cancel", "complete"), *PAIRS[::61]]:
        assert await _is_serial_on_sqlite(_of_kinds(first, second), rows_named), f"{first}, {second}"


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_every_pair_of_verbs_equals_an_order() -> None:
    differs = [pair for pair in PAIRS if not await _is_serial_on_sqlite(_of_kinds(*pair), rows_named)]
    assert differs == []


def test_the_kinds_are_all_verbs_that_may_share_a_group() -> None:
    scene = Scene(World(_memory()))
    scene.ids = dict.fromkeys(("runs", "waits", "asks", "parent", "kid"), "id")
    scene.seen = dict.fromkeys(scene.ids, 1)
    made = {scene.verb(kind, random.Random(0), 0).name for kind in (*KINDS, *more_kinds.KINDS)}
    assert made | {"default_project"} == NAMED.keys() | {"touch"}


async def test_without_holds_it_does_not() -> None:
    broken = 0
    for seed in range(60):
        broken += not await _is_serial_on_sqlite(_random(seed, 3), None)
        if broken == 3:
            return
    pytest.fail(f"only {broken} of 60 groups broke")


@verb
async def _fail_late() -> None:
    await query("write_meta", name="failed", value="1")
    raise NotFound("after it had written")


@pytest.mark.parametrize("amount", [2, 3])
async def test_on_sqlite_s_driver_too(amount: int) -> None:
    """As one group, and with a verb in it that fails after a write, so that the group is run again with savepoints."""
    for seed in range({2: 25, 3: 10}[amount]):
        group = _random(seed, amount)
        orders = await _orders(group)
        for spoiled in (False, True):
            store = _memory()
            scene = await Scene.make(store)
            verbs = list(group(scene))
            if spoiled:
                verbs.insert(1, _fail_late())
            answers = list(await store.write_all(verbs))
            assert not spoiled or isinstance(answers.pop(1), NotFound)
            assert (_told(answers), await scene.left()) in orders, f"seed {seed}"
            await store.close()


@contextlib.asynccontextmanager
async def _on_postgresql() -> AsyncIterator[Callable[[Group], Awaitable[bool]]]:
    """Whether a group on a real server equals one of its orders."""
    async with postgres.fresh(migrated) as url:
        connection = await asyncpg.connect(url)

        async def is_serial(group: Group) -> bool:
            await connection.execute(f"TRUNCATE {TABLES}; DELETE FROM meta WHERE name = 'touched_at_us'")
            store = await PostgresStore.open(url)
            for lane in store._reads:
                lane._queries = lane._queries | parse(EXTRA, "test", "postgres")
            scene = await Scene.make(store)
            seen = _told(await store.write_all(group(scene))), await scene.left()
            await store.close()
            return seen in await _orders(group)

        yield is_serial
        await connection.close()


on_postgres = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@on_postgres
@pytest.mark.parametrize(
    ("holds", "groups"),
    [(True, 12), pytest.param(True, 40, marks=pytest.mark.slow), pytest.param(False, 40, marks=pytest.mark.slow)],
    ids=["with holds", "many with holds", "without holds"],
)
async def test_on_postgresql_too(
    holds: bool, groups: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not holds:
        monkeypatch.setattr(postgres_lane, "rows_named", None)
    async with _on_postgresql() as is_serial:
        differs = [seed for seed in range(groups) if not await is_serial(_random(seed, 3))]
    assert differs == [] if holds else len(differs) >= 2, differs


@on_postgres
@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_every_pair_of_verbs_equals_an_order_on_postgresql(caplog: pytest.LogCaptureFixture) -> None:
    async with _on_postgresql() as is_serial:
        differs = [pair for pair in PAIRS if not await is_serial(_of_kinds(*pair))]
    assert differs == []


@on_postgres
@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("amount", [2, 3, 4, 5, 6])
async def test_many_groups_on_postgresql(amount: int, caplog: pytest.LogCaptureFixture) -> None:
    """Each group is a store of its own on a real server: all of them take twenty minutes of two quiet cores."""
    async with _on_postgresql() as is_serial:
        for seed in range(2_000, 2_000 + MANY[amount]):
            assert await is_serial(_random(seed, amount)), f"seed {seed}"


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
    reading = {"read_key", "journals", "read_events", "get", "find_by_key", "finished", "list_executions", "journal"}
    reading |= {
        "database_time",
        "old_snapshots",
        "logs",
        "doctor",
        "counts",
        "unserved",
        "list_workers",
        "next_due",
        "overdue",
        "list_waits",
        "list_keys",
    }
    reading |= {"get_deployment", "list_workflows", "get_workflow", "list_runs", "get_definition", "list_definitions"}
    reading |= {"get_messages", "list_slack_apps", "look_out", "read_signing", "list_deployments"}
    reading |= {"watched_topics", "list_triggers", "topic_end"}
    reading |= {"get_memory", "list_agent_runs", "get_session", "list_traces", "get_trace", "journal_of", "homes"}
    reading |= {"find_question", "list_questions", "exporting", "project_ids", "read_transcript"}
    reading |= {"budget_of", "queued_behind", "newest_events", "how_ended"}
    reading |= {"untold", "active_workers", "watch_push_workers", "standing", "list_steps", "read_step"}
    reading |= {"due_schedules", "get_schedule", "list_schedules", "scheduled_workflows", "list_fires"}
    reading |= {"find_user", "read_user", "read_session", "read_project", "projects_of", "list_members"}
    reading |= {"read_stream", "list_webhooks", "next_delivery", "list_deliveries", "deliveries_of"}
    nothing = {"touch"}
    found = set()
    for path in Path(moves.__file__).parent.glob("[a-z]*.py"):
        module = importlib.import_module(f"perdure.store.verbs.{path.stem}")
        for name, value in vars(module).items():
            if hasattr(value, "__wrapped__") and value.__wrapped__.__module__ == module.__name__:
                found.add(name)
    unnamed = {name for name in found if name not in NAMED and not is_sweep(Verb(_Named(name), {}))}
    assert unnamed == reading | nothing


class _Named:
    def __init__(self, name: str) -> None:
        self.__name__ = name

    async def __call__(self) -> None: ...
