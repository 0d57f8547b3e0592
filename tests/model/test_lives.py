"""Random lives: in any order of callers, workers and clock, store and model agree after every step.

Runs until each event has happened often enough: a machine that never poisons proves nothing about poison.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import Phase as Step
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec import json
from tests import databases
from tests.model.lives import LIMITS, Life, Model, Told
from tests.store.world import (
    BLOCK,
    CANCELLED,
    PROJECT,
    RELEASE,
    SECOND,
    START_US,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
    try_of,
)

from perdure.store.base.interface import Written
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.store.open import open_store
from perdure.store.verbs.runs import claims, find
from perdure.wire.base.errors import Conflict, LeaseLost, NotCancellable
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, LEASED, TRANSITIONS, Phase
from perdure.wire.runs.executions import ListFilters, Row
from perdure.wire.runs.requests import (
    CloseWait,
    Complete,
    End,
    Entry,
    EventItem,
    Hold,
    ItemReply,
    Publish,
    QueueSpec,
    Suspend,
    WorkflowSpec,
)
from perdure.wire.steering.acts import Action

T = TypeVar("T")

WORKERS = ("w0", "w1", "w2")
TOPICS = ("t", "t", "t", "u")


def told(row: Row) -> Told:
    """A row as the model tells it."""
    detail: int | bool | None = None
    if row.kind is Kind.EVENT:
        detail = json.decode(row.value)["sequence_id"] if row.ok else 0
    elif row.kind is Kind.CHILD:
        detail = row.ok
    return row.kind, row.key, detail


_STEPS = frozenset({Kind.STEP, Kind.STEP_FAILED, Kind.TIMER, Kind.EVENT, Kind.RESUME, Kind.CHILD_STARTED, Kind.CHILD})


def _forkable(life: Life) -> dict[str, int]:
    """The steps from which a life can be forked, each with its first row."""
    places: dict[str, int] = {}
    for at, (kind, key, _) in enumerate(life.rows):
        if kind in _STEPS and key is not None:
            places.setdefault(key, at)
    return places


class Lives(RuleBasedStateMachine):
    """Every act on one project, mirrored by the model."""

    kind: ClassVar[str] = databases.SQLITE
    done: ClassVar[Counter[str]] = Counter()
    """Counts over all runs."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory()
        self._opened = contextlib.AsyncExitStack()
        self.world = self._do(self._open())
        self.model = Model(START_US)
        self._names = 0
        self._last: tuple[str, Callable[[], Coroutine[Any, Any, ItemReply]]] | None = None
        self._checked: dict[str, int] = {}
        for worker in WORKERS[:2]:
            self._register(worker)

    async def _open(self) -> World:
        address = await self._opened.enter_async_context(databases.lent(self.kind, Path(self._folder.name)))
        store = await open_store(address)
        self._opened.push_async_callback(store.close)
        if isinstance(store, SQLiteStore):
            store._writer.execute("PRAGMA synchronous=OFF")  # what is on disk is another test's business
        return await World.make(store)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names:04}"

    def teardown(self) -> None:
        self._do(self._close())
        self._runner.close()
        self._folder.cleanup()
        Lives.done.update(self.model.done)

    async def _close(self) -> None:
        await self.world.check()
        await self._opened.aclose()

    def _pick(self, data: st.DataObject, lives: list[Life]) -> Life:
        return data.draw(st.sampled_from(sorted(lives, key=lambda life: life.id)), label="life")

    def _held(self, data: st.DataObject) -> Life:
        """A life held by a worker; a fresh life if none is."""
        held = self.model.in_phase(*LEASED)
        if len(held) < 2:
            worker = next(iter(self.model.leases), WORKERS[0])
            if worker not in self.model.leases:
                self._register(worker)
            self._start("cleans" if self._names % 2 else "wf", timeout=20 if self._names % 3 else None)
            self._claim(worker, 10, acknowledge=True)
            held = self.model.in_phase(*LEASED)
        return self._pick(data, held)

    def _register(self, worker: str) -> None:
        specs = [WorkflowSpec("wf"), WorkflowSpec("cleans", wake_on_cancel=True)]
        queues = [QueueSpec(name, *limits) for name, limits in LIMITS.items()]
        self.world.now_us = self.model.now_us
        self._do(self.world.register(worker, specs, queues=queues, protocol=2))
        self.model.registered(worker)

    # --- callers -----------------------------------------------------------------------------------------------------

    @rule(
        workflow_id=st.sampled_from(["wf", "cleans"]),
        queue=st.sampled_from([None, "one", "two"]),
        key=st.sampled_from([None, "a", "b"]),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([None, None, 5.0]),
        timeout=st.sampled_from([None, None, 20]),
    )
    def start(
        self,
        workflow_id: str,
        queue: str | None,
        key: str | None,
        priority: int,
        delay: float | None,
        timeout: int | None,
    ) -> None:
        self._start(workflow_id, queue, key, priority, delay, timeout)

    def _start(
        self,
        workflow_id: str,
        queue: str | None = None,
        key: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        timeout: int | None = None,
    ) -> None:
        id = self._do(
            self.world.start(
                workflow_id,
                queue_name=queue,
                concurrency_key=key,
                priority=priority,
                delay_seconds=delay,
                run_timeout_seconds=timeout,
            )
        )
        self._born(id, workflow_id, queue, key, priority, delay, timeout)

    def _born(
        self,
        id: str,
        workflow_id: str,
        queue: str | None = None,
        key: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        timeout: int | None = None,
        parent: str | None = None,
        step_key: str | None = None,
    ) -> None:
        now_us = self.model.now_us
        due_us = None if delay is None else now_us + int(delay * SECOND)
        self.model.lives[id] = Life(
            id=id,
            events_before={topic: len(events) for topic, events in self.model.topics.items()},
            queue=queue or workflow_id,
            key=key,
            priority=priority,
            cleans=workflow_id == "cleans",
            timeout_us=None if timeout is None else timeout * SECOND,
            parent=parent,
            step_key=step_key,
            rank=1_000_000 - priority,
            ready_us=due_us or now_us,
            due_us=due_us,
            limited=queue in LIMITS,
        )

    @precondition(lambda self: len(self.model.lives) > 2)
    @rule(data=st.data(), phase=st.sampled_from([*Phase, Phase.RUNNING, Phase.WAITING, Phase.WAITING]))
    def cancel(self, data: st.DataObject, phase: Phase) -> None:
        lives = self.model.in_phase(phase)
        if not lives:
            return
        life = self._pick(data, lives)
        before = life.phase
        try:
            answer = self._do(self.world.cancel(life.id))
        except NotCancellable:
            assert before in FINAL
            self.model.done["cancel of a final one refused"] += 1
            return
        assert before not in FINAL
        self.model.cancel(life, "user")
        assert answer is (Phase.CANCELLED if life.phase is Phase.CANCELLED else Phase.CANCELLING)

    @rule(topic=st.sampled_from(TOPICS), number=st.integers(1, 2))
    def publish(self, topic: str, number: int) -> None:
        seqs = self._do(self.world.publish(topic, {"n": number}))
        self.model.publish(topic, number)
        assert seqs == [len(self.model.topics[topic])]

    @precondition(lambda self: self.model.lives)
    @rule(data=st.data(), early=st.booleans())
    def answer(self, data: st.DataObject, early: bool) -> None:
        lives = list(self.model.lives.values())
        waiting = [life for life in lives if any(wait.state == "open" for wait in life.waits.values())]
        life = self._pick(data, waiting if waiting and not early else lives)
        keys = sorted(life.waits)
        key = self._name("early") if early or not keys else data.draw(st.sampled_from(keys), label="key")
        stands = self.model.answered(life, key)
        if not self.model.answer(life, key):
            with pytest.raises(Conflict):
                self._do(self.world.resume(life.id, key, "another"))
            self.model.done["answer refused"] += 1
            if stands:
                self._do(self.world.resume(life.id, key))
                self.model.done["answer repeated"] += 1
            return
        self._do(self.world.resume(life.id, key))

    @precondition(lambda self: any(_forkable(life) for life in self.model.lives.values()))
    @rule(data=st.data(), retry=st.booleans())
    def fork(self, data: st.DataObject, retry: bool) -> None:
        """Fork from any step of any execution, or retry from there."""
        lives = [life for life in self.model.lives.values() if _forkable(life)]
        parents = [life for life in lives if any(one.phase not in FINAL for one in self.model.children(life.id))]
        late = data.draw(st.booleans(), label="late")
        life = self._pick(data, parents if late and parents else lives)
        places = sorted(_forkable(life).items(), key=lambda place: place[1])
        key, at = places[-1] if late else data.draw(st.sampled_from(places), label="step")
        kept = self._do(self.world.journal(life.id))[: at + 1]
        make = self.world.retry if retry else self.world.fork
        if life.rows[:at].count((Kind.CANCEL, None, None)) or (retry and (life.phase not in FINAL or life.retried)):
            with pytest.raises(Conflict):
                self._do(make(life.id, from_step=key))
            self.model.done["fork refused"] += 1
            return
        fork_id = self._do(make(life.id, from_step=key)).execution_id
        life.retried = life.retried or retry
        made = self.model.fork(life, fork_id, at, kept[at].at_us)
        ended = {row.key for row in kept[:at] if row.kind is Kind.CHILD}
        copied = self._do(self.world.journal(fork_id))
        for row in kept[:at]:
            if row.kind is not Kind.CHILD_STARTED or row.key in ended or not row.ok:
                continue
            old = self.model.lives[json.decode(row.value)]
            if retry and old.phase is Phase.COMPLETED:
                made.note(Kind.CHILD, row.key, detail=True)
                continue
            workflow_id = "cleans" if old.cleans else "wf"
            timeout = None if old.timeout_us is None else old.timeout_us // SECOND
            again: str = json.decode(copied[row.seq - 1].value)
            queue = old.queue if old.queue in LIMITS else None
            self._born(again, workflow_id, queue, old.key, old.priority, None, timeout, fork_id, row.key)
            self.model.done["child asked for again"] += 1
        self.model.done["retry of a final one" if retry else "fork"] += 1

    # --- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.in_phase(Phase.QUEUED))
    @rule(worker=st.sampled_from(WORKERS), capacity=st.integers(1, 4), acknowledge=st.booleans())
    def claim(self, worker: str, capacity: int, acknowledge: bool) -> None:
        self._claim(worker, capacity, acknowledge=acknowledge)

    def _claim(self, worker: str, capacity: int, *, acknowledge: bool) -> None:
        if worker not in self.model.leases:
            with pytest.raises(LeaseLost):
                self._do(self.world.claim(worker, capacity))
            return
        got = self._do(self.world.claim(worker, capacity))
        ids = [claimed.id for claimed in got]
        free = [life.id for life in self.model.ready(limited=False)][:capacity]
        assert [id for id in ids if id in free] == free
        rest = [id for id in ids if id not in free]
        ready: dict[tuple[str, str | None], list[str]] = {}
        for life in self.model.ready(limited=True):
            ready.setdefault((life.queue, life.key), []).append(life.id)
        for group, queue in ready.items():  # of each key the first, never one out of turn
            taken = [id for id in queue if id in rest]
            assert taken == queue[: len(taken)], group
        for claimed in got:
            life = self.model.lives[claimed.id]
            if life.limited:
                assert self.model.room(life.queue, life.key) > 0
                self.model.done["claimed within a limit"] += 1
            self.model.claimed(life, worker)
            assert (claimed.attempt, claimed.cancelling) == (life.attempt, life.phase is Phase.CANCELLING)
            assert claimed.ack_first == (life.losses + life.undelivered > 0)
            assert [told(row) for row in claimed.rows] == life.rows
            if acknowledge:
                assert not self._do(self.world.acknowledge(life.id, worker=worker)).lost
                life.acked = True
        if len(got) < capacity:  # nothing that could run was left behind
            assert not self.model.ready(limited=False)
            for life in self.model.ready(limited=True):
                assert self.model.room(life.queue, life.key) <= 0
                self.model.done["held back by a limit"] += 1

    def _report(self, life: Life, entries: list[Entry], end: End | None = None, seen: int | None = None) -> ItemReply:
        """Send an accepted report, and note the sign of life."""
        worker, attempt = life.worker or "", life.attempt
        seen = life.seq if seen is None else seen
        reply = self._do(self.world.report(life.id, entries, end, worker=worker, seen=seen))
        assert not reply.lost and reply.problem is None
        number = self.world._numbers[life.id, attempt]

        def again() -> Coroutine[Any, Any, ItemReply]:
            return self.world.report(life.id, entries, end, worker=worker, attempt=attempt, number=number, seen=seen)

        self._last = (life.id, again)
        life.acked = True
        return reply

    @rule(data=st.data(), ok=st.booleans(), last=st.booleans())
    def step(self, data: st.DataObject, ok: bool, last: bool) -> None:
        life = self._held(data)
        key = self._name("s")
        reply = self._report(life, [step(key, 1, ok=ok, last=last or ok)])
        kind = Kind.STEP if last or ok else Kind.STEP_FAILED
        life.note(kind, key)
        if kind is Kind.STEP:
            life.recorded()
        assert reply.accepted == [life.seq]

    @rule(data=st.data(), workflow_id=st.sampled_from(["wf", "cleans"]), queue=st.sampled_from([None, "one", "two"]))
    def start_child(self, data: st.DataObject, workflow_id: str, queue: str | None) -> None:
        life = self._held(data)
        key = self._name("c")
        reply = self._report(life, [child(key, workflow_id, queue_name=queue)])
        life.note(Kind.CHILD_STARTED, key)
        life.recorded()
        assert reply.rows[-1].ok is (life.phase is Phase.RUNNING)
        if reply.rows[-1].ok:
            self._born(json.decode(reply.rows[-1].value), workflow_id, queue, parent=life.id, step_key=key)
            self.model.done["child"] += 1

    @rule(data=st.data(), topic=st.sampled_from(TOPICS), number=st.integers(1, 2))
    def publish_inside(self, data: st.DataObject, topic: str, number: int) -> None:
        life = self._held(data)
        key, seen = self._name("p"), life.seq
        reply = self._report(life, [Publish(key, None, topic, [EventItem(raw({"n": number}))])])
        life.note(Kind.PUBLISHED, key)
        life.recorded()
        self.model.publish(topic, number)
        assert [told(row) for row in reply.rows] == life.rows[seen:]

    @rule(
        data=st.data(),
        topic=st.sampled_from([*TOPICS, None, None]),
        match=st.sampled_from([None, 1, 2]),
        twice=st.booleans(),
    )
    def open_wait(self, data: st.DataObject, topic: str | None, match: int | None, twice: bool) -> None:
        life = self._held(data)
        early = [key for key, wait in life.waits.items() if wait.state == "early"]
        topic = None if early else topic
        match = match if topic else None
        keys = [self._key_to_open(data, life, topic)] + ([self._name("k")] if twice else [])
        seen = life.seq
        fields = {} if match is None else {"match": {"n": raw(match)}}
        entries: list[Entry] = [answer_wait(key) if topic is None else event_wait(key, topic, **fields) for key in keys]
        reply = self._report(life, entries)
        for key in keys:
            self.model.open(life, key, topic, match)
        assert [told(row) for row in reply.rows] == life.rows[seen:]

    def _key_to_open(self, data: st.DataObject, life: Life, topic: str | None) -> str:
        """A new key, or a key already answered early or given up."""
        known = sorted(key for key, wait in life.waits.items() if topic is None and wait.topic is None)
        again = data.draw(st.booleans(), label="again")
        return data.draw(st.sampled_from(known), label="key") if known and again else self._name("k")

    @rule(data=st.data())
    def close_wait(self, data: st.DataObject) -> None:
        life = self._held(data)
        for key, wait in life.waits.items():
            if wait.state == "open":
                self._report(life, [CloseWait(key)])
                wait.state = "closed"
                self.model.done["wait closed"] += 1
                return

    @rule(data=st.data(), timer=st.sampled_from([None, "key", "pause"]), behind=st.booleans())
    def suspend(self, data: st.DataObject, timer: str | None, behind: bool) -> None:
        life = self._held(data)
        waits = [key for key, wait in life.waits.items() if wait.state == "open"]
        if timer is None and not waits and not any(one.phase not in FINAL for one in self.model.children(life.id)):
            timer = "key"
        due = None
        if timer is not None:
            due = (self._name("timer") if timer == "key" else None, self.model.now_us + 10 * SECOND)
        seen = max(1, life.seq - 2) if behind else life.seq
        reply = self._report(life, [], Suspend(waits, due), seen)
        if life.phase is Phase.CANCELLING or life.unseen(seen):
            assert not reply.ended
            assert [told(row) for row in reply.rows] == life.rows[seen:]
            self.model.done["suspend refused"] += 1
            return
        assert reply.ended
        self.model.move("suspend", life)
        life.note(Kind.WAITING, None)
        life.timer_key, life.due_us = due if due is not None else (None, None)

    @rule(
        data=st.data(),
        how=st.sampled_from(["complete", "fail", "retry", "retry later", "release", "block", "hold", "cancelled"]),
    )
    def end(self, data: st.DataObject, how: str) -> None:
        self._end(data, how)

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """Ask a running execution to stop, or confirm an earlier request."""
        if self.model.in_phase(Phase.CANCELLING):
            self._end(data, "cancelled")
            return
        life = self._held(data)
        self._do(self.world.cancel(life.id))
        self.model.cancel(life, "user")

    def _end(self, data: st.DataObject, how: str) -> None:
        stopping = self.model.in_phase(Phase.CANCELLING)
        life = self._pick(data, stopping) if stopping and how != "block" else self._held(data)
        if how == "cancelled" and life.phase is Phase.RUNNING:
            how = "complete"
        delay_us = 5 * SECOND if how == "retry later" else 0
        ends: dict[str, End] = {
            "complete": Complete(raw(1)),
            "fail": failure(),
            "release": RELEASE,
            "block": BLOCK,
            "hold": Hold("it failed", raw({"type": "Down", "message": "down"})),
            "cancelled": CANCELLED,
        }
        reply = self._report(life, [], ends.get(how) or failure(retry_delay_us=delay_us))
        if how in ("complete", "fail", "cancelled"):
            assert reply.ended
            self.model.move("confirm_cancel" if how == "cancelled" else how, life)
            row = {"complete": Kind.COMPLETED, "fail": Kind.FAILED, "cancelled": Kind.CANCELLED}[how]
            self.model.ended(life, row)
            return
        assert reply.ended is (life.phase is Phase.RUNNING)
        if not reply.ended:
            self.model.done["end refused while cancelling"] += 1
            return
        if how == "block" and self.model.newer(life.worker or ""):
            self.model.move("release", life)
            life.note(Kind.RELEASED, None)
            self.model._requeued(life, self.model.now_us + SECOND)
            self.model.done["left to newer code"] += 1
        elif how == "block":
            self.model.move("block", life)
            life.note(Kind.BLOCKED, None)
            life.due_us = None
        elif how == "hold":
            self.model.hold(life, None)
        elif how == "release":
            self.model.move("release", life)
            life.note(Kind.RELEASED, None)
            self.model._requeued(life)
        else:
            self.model.move("retry", life)
            life.retries += 1
            life.note(Kind.RETRIED, None)
            self.model._requeued(life, self.model.now_us + delay_us if delay_us else None)

    @rule(data=st.data(), behind=st.booleans())
    def hold_a_step(self, data: st.DataObject, behind: bool) -> None:
        """A step has used up its tries. The code may still have something to see."""
        life = self._held(data)
        key, seen = self._name("h"), max(1, life.seq - 2) if behind else life.seq
        end = Hold("it failed", raw({"type": "Down", "message": "down"}), [key])
        reply = self._report(life, [try_of(key)], end, seen)
        unseen = life.phase is Phase.CANCELLING or life.unseen(seen)
        life.note(Kind.STEP_FAILED, key)
        life.held_steps.append(key)
        assert reply.ended is not unseen
        if unseen:
            self.model.done["hold refused"] += 1
        else:
            self.model.hold(life, key)

    @rule(data=st.data(), how=st.sampled_from(["try", "complete", "fail", "give up"]))
    def act_on_held(self, data: st.DataObject, how: str) -> None:
        if not self.model.in_phase(Phase.HELD):
            self.hold_a_step(data, behind=False)
        lives = self.model.in_phase(Phase.HELD)
        if not lives:
            return
        life = self._pick(data, lives)
        key = life.held_step
        if how == "give up" or (key is None and how == "fail"):
            self._do(self.world.act(life.id, Action.FAIL))
            self.model.give_up(life)
        elif how == "try" or key is None:
            self._do(self.world.act(life.id, Action.TRY, key))
            self.model.release_hold(life, Kind.RETRIED, key)
        else:
            self._do(self.world.act(life.id, Action.COMPLETE if how == "complete" else Action.FAIL, key))
            self.model.release_hold(life, Kind.STEP, key)

    @rule(data=st.data(), completed=st.booleans())
    def act_on_wait(self, data: st.DataObject, completed: bool) -> None:
        lives = [life for life in self.model.lives.values() if life.phase not in FINAL]
        waiting = [life for life in lives if any(wait.state == "open" for wait in life.waits.values())]
        if not waiting:
            return
        life = self._pick(data, waiting)
        key = data.draw(
            st.sampled_from(sorted(key for key, wait in life.waits.items() if wait.state == "open")), label="key"
        )
        self._do(self.world.act(life.id, Action.COMPLETE if completed else Action.TIME_OUT, key))
        self.model.decided(life, key)
        self.model.done["wait decided"] += 1

    @precondition(lambda self: any(life.timer_key for life in self.model.in_phase(Phase.WAITING)))
    @rule(data=st.data())
    def fire(self, data: st.DataObject) -> None:
        life = self._pick(data, [life for life in self.model.in_phase(Phase.WAITING) if life.timer_key])
        key, life.due_us = life.timer_key, None
        assert key is not None
        self._do(self.world.act(life.id, Action.FIRE, key))
        self.model.deliver(life, Kind.TIMER, key)
        self.model.done["timer fired"] += 1

    @precondition(lambda self: any(life.cleans for life in self.model.in_phase(Phase.WAITING)))
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def cancel_a_sleeper(self, data: st.DataObject, worker: str) -> None:
        """The sleeper wakes to clean up."""
        life = self._pick(data, [life for life in self.model.in_phase(Phase.WAITING) if life.cleans])
        self._do(self.world.cancel(life.id))
        self.model.cancel(life, "user")
        self._claim(worker, 100, acknowledge=True)

    @rule(data=st.data())
    def block_beside_newer_code(self, data: st.DataObject) -> None:
        life = self._held(data)
        self._crash(data.draw(st.sampled_from([one for one in WORKERS if one != life.worker]), label="newer"))
        self._end(data, "block")

    # --- what must change nothing -------------------------------------------------------------------------------------

    @precondition(lambda self: any(life.attempt for life in self.model.lives.values()))
    @rule(data=st.data(), end=st.sampled_from([None, Complete(raw(2)), failure(), RELEASE, BLOCK, CANCELLED]))
    def stale(self, data: st.DataObject, end: End | None) -> None:
        """I4: an earlier attempt reports, or a worker without the execution."""
        life = self._pick(data, [life for life in self.model.lives.values() if life.attempt])
        attempt = data.draw(st.integers(1, life.attempt), label="attempt")
        holds = attempt == life.attempt and life.phase in LEASED
        worker = data.draw(st.sampled_from([one for one in WORKERS if not holds or one != life.worker]), label="worker")
        for number in (99, 0):
            reply = self._do(
                self.world.report(
                    life.id,
                    [step("stale", 1)] if number else [],
                    end if number else None,
                    attempt=attempt,
                    worker=worker,
                    number=number,
                    seen=0,
                )
            )
            assert reply == ItemReply(lost=True)
        self.model.done["stale refused"] += 1

    @precondition(lambda self: self._last is not None)
    @rule()
    def repeat(self) -> None:
        """A report whose reply was lost comes again, however late."""
        assert self._last is not None
        id, again = self._last
        before = self._do(self.world.everything(id))
        self._do(again())
        assert self._do(self.world.everything(id)) == before
        self.model.done["repeat"] += 1

    # --- the clock, and workers that come and go ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1, 3, 5, 11, 31]), beats=st.booleans())
    def time_passes(self, seconds: float, beats: bool) -> None:
        self._pass(seconds, beats=beats)

    def _pass(self, seconds: float, *, beats: bool) -> None:
        """Do exactly the due work; leases run out unless renewed."""
        self.world.advance(seconds)
        self.model.now_us = self.world.now_us
        for worker in WORKERS:
            if beats and worker in self.model.leases and self.model.leases[worker] > self.model.now_us:
                held = self._do(self.world.beat(worker))
                mine = [life for life in self.model.in_phase(*LEASED) if life.worker == worker]
                assert held == sorted((life.id, life.attempt, life.seq) for life in mine)
                self.model.leases[worker] = self.model.now_us + 12 * SECOND
        due = self.model.due()
        done = self._do(self.world.wake_due())
        self.model.wake_due()
        assert (done > 0) is (len(due) > 0)

    @rule()
    def reap(self) -> None:
        self._reap()

    def _reap(self) -> None:
        gone = [worker for worker, until_us in self.model.leases.items() if until_us <= self.model.now_us]
        assert self._do(self.world.reap()) == len(gone)
        for worker in sorted(gone, key=lambda worker: (self.model.leases[worker], worker)):
            self.model.end_worker(worker, released=False)

    @rule(data=st.data(), times=st.sampled_from([1, 1, 2, 6]))
    def crash_again(self, data: st.DataObject, times: int) -> None:
        """An execution takes down its workers, one after the other."""
        life = self._held(data)
        for _ in range(times):
            if life.phase not in LEASED:
                return
            worker = life.worker or ""
            self._crash(worker)
            if life.due_us is not None and life.phase is Phase.QUEUED:
                self._pass((life.due_us - self.model.now_us) / SECOND, beats=True)
                self._reap()
            if worker not in self.model.leases:
                self._register(worker)
            self._claim(worker, 100, acknowledge=True)

    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        self._crash(worker)

    def _crash(self, worker: str) -> None:
        """A worker dies: its connection is cut, its lease ends at once, and a successor registers."""
        if worker not in self.model.leases:
            self._register(worker)
            return
        self._do(self.world.store.write(claims.cut_lease(worker_id=worker, until_us=self.model.now_us)))
        self.model.leases[worker] = min(self.model.leases[worker], self.model.now_us)
        self._reap()
        self._register(worker)

    @precondition(lambda self: len(self.model.leases) == len(WORKERS))
    @rule(worker=st.sampled_from(WORKERS), died=st.booleans())
    def drain(self, worker: str, died: bool) -> None:
        drain = claims.drain(project_id=PROJECT, worker_id=worker, now_us=self.model.now_us, died=died)
        self._do(self.world.store.write(drain))
        if worker in self.model.leases:
            self.model.end_worker(worker, released=not died)
            self.model.done["drain"] += 1

    # --- after every step ---------------------------------------------------------------------------------------------

    @invariant()
    def store_and_model_agree(self) -> None:
        page, cursor = self._do(
            self.world.store.read(
                find.list_executions(project_id=PROJECT, filters=ListFilters(), before="~", limit=1_000)
            )
        )
        assert cursor is None
        stored = {execution.id: execution for execution in page}
        written = {hint.execution_id for hint in self.world.hints if isinstance(hint, Written)}
        self.world.hints.clear()
        assert stored.keys() == self.model.lives.keys()
        for id, life in self.model.lives.items():
            found = stored[id]
            assert (found.phase, found.attempt, found.due_at_us, found.retry_count, found.cancelled_by) == (
                life.phase,
                life.attempt,
                life.due_us,
                life.retries,
                life.cancelled_by,
            ), id
            assert found.assigned_to_worker == life.worker, id
            last = self._do(self.world.last_seq(id))
            if self._checked.get(id) != life.seq or last != life.seq:
                rows = self._do(self.world.journal(id))
                assert [told(row) for row in rows] == life.rows, id
                assert last == life.seq, id
                assert id in written or id not in self._checked, "streams look when they are told to"
                self._checked[id] = life.seq
        for queue in LIMITS:
            for key in {life.key for life in self.model.lives.values()}:
                assert self.model.room(queue, key) >= 0


WANTED: tuple[str, ...] = (
    *TRANSITIONS,
    "event for a waiter",
    "early event",
    "answer for a waiter",
    "early answer",
    "answer refused",
    "answer repeated",
    "wait closed",
    "timer",
    "delay over",
    "run timeout",
    "child",
    "claimed within a limit",
    "held back by a limit",
    "suspend refused",
    "hold refused",
    "wait decided",
    "timer fired",
    "end refused while cancelling",
    "left to newer code",
    "cancel of a final one refused",
    "stale refused",
    "repeat",
    "drain",
    "fork",
    "fork refused",
    "retry of a final one",
)
"""Events required in any run, of any size."""


def live(kind: str, *, programs: int, most: int, steps: int, enough: int) -> Counter[str]:
    """Run at least so many programs, and more until everything has happened often enough, at most `most`; how often."""
    Lives.kind = kind
    Lives.done = Counter()
    batch = min(programs, 250)
    ran = 0
    while ran < programs or (ran < most and min(Lives.done[what] for what in WANTED) < enough):
        machine = seed(ran)(type("SeededLives", (Lives,), {}))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=batch,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Step.generate, Step.shrink],
            ),
        )
        ran += batch
    lacking = {what: Lives.done[what] for what in WANTED if Lives.done[what] < enough}
    assert lacking == {}, f"these happened less than {enough} times in {ran} programs, too seldom to mean anything"
    return Lives.done | Counter(programs=ran)


@pytest.mark.timeout(900)
def test_random_lives() -> None:
    live(databases.SQLITE, programs=20, most=300, steps=60, enough=1)


@pytest.mark.slow  # a program on PostgreSQL takes as long as ten on SQLite
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", databases.KINDS)
def test_more_random_lives(kind: str) -> None:
    live(kind, programs=20, most=300, steps=60, enough=3)


@pytest.mark.long
@pytest.mark.timeout(5_400)
@pytest.mark.parametrize("kind", databases.KINDS)
def test_two_thousand_random_lives(kind: str) -> None:
    live(kind, programs=2_000, most=3_000, steps=60, enough=100)
