"""The model: an execution's expected life, told without a database.

A dict of lives, each with its phase, attempt, journal, waits, and due moment. Written from the design and not from the
verbs: if the two disagree, either is wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from tests.store.world import GRACE_US, LEASE_US, SECOND

from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.base.status import FINAL, LEASED, TRANSITIONS, Phase

LIMITS: dict[str, tuple[int | None, int | None]] = {"one": (1, None), "two": (None, 2)}
"""Queues with a limit by key, and with a total."""
LOSSES_MAX = 5
Told = tuple[Kind, str | None, int | bool | None]
"""A row of a journal in the model: kind, key, and the event's number or the child's success."""


@dataclass
class Wait:
    state: str  # open, met, decided (by an act), early, closed
    topic: str | None = None
    match: int | None = None
    after: int = 0
    opened_us: int = 0
    """The moment of an early answer."""


@dataclass
class Life:
    id: str
    events_before: dict[str, int]
    """The number of events of each topic at the execution's start."""
    queue: str
    key: str | None
    priority: int
    cleans: bool
    timeout_us: int | None
    parent: str | None
    step_key: str | None
    rank: int
    ready_us: int
    due_us: int | None
    limited: bool
    phase: Phase = Phase.QUEUED
    attempt: int = 0
    worker: str | None = None
    acked: bool = False
    losses: int = 0
    undelivered: int = 0
    retries: int = 0
    cancelled_by: str | None = None
    cancelled_us: int = 0
    timer_key: str | None = None
    retried: bool = False
    held_step: str | None = None
    """The step that caused the hold; None: the code has failed."""
    held_steps: list[str] = field(default_factory=list)
    """All unreleased steps, including steps with a refused hold."""
    rows: list[Told] = field(default_factory=list)
    waits: dict[str, Wait] = field(default_factory=dict)
    taken: set[tuple[str, int]] = field(default_factory=set)

    @property
    def seq(self) -> int:
        return len(self.rows)

    def note(self, kind: Kind, key: str | None, detail: int | bool | None = None) -> None:
        """One more row of the journal."""
        self.rows.append((kind, key, detail))

    def recorded(self) -> None:
        """A new outcome: what was lost before it is forgiven."""
        self.losses = self.undelivered = 0

    def unseen(self, seen: int) -> bool:
        """Whether an outcome, or an act that lets a step run again, stands after `seen`."""
        return any(kind in OUTCOMES or (kind is Kind.RETRIED and key) for kind, key, _ in self.rows[seen:])


class Model:
    """Every life, every topic, every worker's lease, and the time."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self.lives: dict[str, Life] = {}
        self.topics: dict[str, list[tuple[int, int]]] = {}
        """(published at, number) of each event of a topic, in order."""
        self.leases: dict[str, int] = {}
        self.since: dict[str, int] = {}
        """When each worker registered."""
        self.done: Counter[str] = Counter()
        """What has happened, by the names of the table and a few of our own."""

    def move(self, name: str, life: Life) -> None:
        """Change a phase as the table says, and count it."""
        move = TRANSITIONS[name]
        assert life.phase in move.sources, f"the model itself moves from {life.phase} by {name}"
        life.phase = move.target
        self.done[name] += 1

    def in_phase(self, *phases: Phase) -> list[Life]:
        return [life for life in self.lives.values() if life.phase in phases]

    def children(self, id: str) -> list[Life]:
        return [life for life in self.lives.values() if life.parent == id]

    # --- ready and claimed --------------------------------------------------------------------------------------------

    def ready(self, *, limited: bool) -> list[Life]:
        """The claimable lives in order: waking lives before new ones, then by priority, then by age."""
        found = [life for life in self.in_phase(Phase.QUEUED) if life.due_us is None and life.limited == limited]
        return sorted(found, key=lambda life: (life.rank, life.ready_us, life.id))

    def room(self, queue: str, key: str | None) -> int:
        """The free slots of this queue and key."""
        held = [life for life in self.in_phase(*LEASED) if life.queue == queue and life.limited]
        by_key, total = LIMITS[queue]
        room = 1_000_000
        if by_key is not None:
            room = by_key - sum(1 for life in held if life.key == key)
        if total is not None:
            room = min(room, total - len(held))
        return room

    def claimed(self, life: Life, worker: str) -> None:
        cancelling = life.cancelled_by is not None
        self.move("claim_cancelling" if cancelling else "claim", life)
        life.attempt += 1
        life.worker = worker
        life.acked = False
        life.note(Kind.CLAIMED, None)
        timeout = None if life.timeout_us is None else self.now_us + life.timeout_us
        life.due_us = self.now_us + GRACE_US if cancelling else timeout

    def _requeued(self, life: Life, due_us: int | None = None) -> None:
        life.due_us = due_us
        life.rank = -life.priority
        life.ready_us = self.now_us if due_us is None else due_us
        life.limited = life.queue in LIMITS

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def deliver(self, life: Life, kind: Kind, key: str | None, detail: int | bool | None = None) -> None:
        """An outcome from outside: into the journal, and it wakes whoever waits."""
        if life.phase in FINAL:
            return
        life.note(kind, key, detail)
        life.recorded()
        if life.phase is Phase.WAITING:
            self.move("wake", life)
            self._requeued(life)

    def publish(self, topic: str, number: int) -> None:
        events = self.topics.setdefault(topic, [])
        events.append((self.now_us, number))
        for life in sorted(self.lives.values(), key=lambda life: life.id):
            for key, wait in life.waits.items():  # in the order in which they were opened
                if wait.state == "open" and wait.topic == topic and self._fits(wait, len(events), number):
                    wait.state = "met"
                    life.taken.add((topic, len(events)))
                    self.deliver(life, Kind.EVENT, key, len(events))
                    self.done["event for a waiter"] += 1
                    break

    @staticmethod
    def _fits(wait: Wait, seq: int, number: int) -> bool:
        return seq > wait.after and wait.match in (None, number)

    def answer(self, life: Life, key: str) -> bool:
        """Whether an answer is accepted: by an open wait, or kept for one."""
        wait = life.waits.get(key)
        if life.phase in FINAL or (wait is not None and (wait.state != "open" or wait.topic is not None)):
            return False
        if wait is None:
            life.waits[key] = Wait("early", opened_us=self.now_us)
        else:
            wait.state = "met"
            self.deliver(life, Kind.RESUME, key)
            self.done["answer for a waiter"] += 1
        return True

    @staticmethod
    def answered(life: Life, key: str) -> bool:
        """Whether an answer stands under the key; the same again is then no conflict."""
        wait = life.waits.get(key)
        return wait is not None and wait.topic is None and wait.state in ("early", "met")

    def open(self, life: Life, key: str, topic: str | None, match: int | None) -> None:
        """The code waits; what is there already is its at once."""
        known = life.waits.get(key)
        if known is not None and known.state == "early":
            known.state = "met"
            life.note(Kind.RESUME, key)
            life.recorded()
            self.done["early answer"] += 1
            return
        if known is not None and known.state in ("open", "met", "decided"):
            return
        events = self.topics.get(topic, []) if topic is not None else []
        if known is None:
            known = life.waits[key] = Wait("open", topic, match, life.events_before.get(topic or "", 0))
        known.state = "open"
        for seq, (_, number) in enumerate(events, 1):
            if (topic or "", seq) not in life.taken and self._fits(known, seq, number):
                known.state = "met"
                life.taken.add((topic or "", seq))
                life.note(Kind.EVENT, key, seq)
                life.recorded()
                self.done["early event"] += 1
                return

    # --- held ---------------------------------------------------------------------------------------------------------

    def hold(self, life: Life, step: str | None) -> None:
        self.move("hold", life)
        life.held_step = step
        life.note(Kind.HELD, step)
        life.due_us = None

    def release_hold(self, life: Life, kind: Kind, key: str | None) -> None:
        """An act writes a row and ends the hold. The code gets fresh retries."""
        self.move("release_hold", life)
        life.note(kind, key)
        life.recorded()
        if key is None:
            life.retries = 0
            for step in life.held_steps:  # held beside the failed code
                life.note(Kind.RETRIED, step)
            life.held_steps.clear()
        else:
            life.held_steps.remove(key)
        self._requeued(life)

    def give_up(self, life: Life) -> None:
        self.move("give_up", life)
        for key in life.held_steps:
            life.note(Kind.STEP, key)
        self.ended(life, Kind.FAILED)

    def decided(self, life: Life, key: str) -> None:
        """An act completes an open wait or times out the wait: the outcome stands, and no answer counts as a repeat.
        The event has no number."""
        wait = life.waits[key]
        wait.state = "decided"
        self.deliver(life, Kind.EVENT if wait.topic is not None else Kind.RESUME, key, 0 if wait.topic else None)

    # --- forks --------------------------------------------------------------------------------------------------------

    def fork(self, source: Life, id: str, at: int, cut_us: int) -> Life:
        """A life that begins with the first `at` rows of `source`."""
        kept = source.rows[:at]
        outcomes = {key: detail for kind, key, detail in kept if kind in (Kind.EVENT, Kind.RESUME)}
        fork = self.lives[id] = Life(
            id=id,
            events_before=source.events_before,
            queue=source.queue,
            key=source.key,
            priority=source.priority,
            cleans=source.cleans,
            timeout_us=source.timeout_us,
            parent=None,
            step_key=None,
            rank=1_000_000 - source.priority,
            ready_us=self.now_us,
            due_us=None,
            limited=source.queue in LIMITS,
            attempt=sum(1 for kind, _, _ in kept if kind is Kind.CLAIMED),
            rows=list(kept),
        )
        for key, wait in source.waits.items():
            if key in outcomes or (wait.state == "early" and wait.opened_us <= cut_us):
                fork.waits[key] = replace(wait)
                if outcomes.get(key):
                    fork.taken.add((wait.topic or "", int(outcomes[key] or 0)))
        fork.note(Kind.FORKED, source.rows[at][1])
        return fork

    # --- ends ---------------------------------------------------------------------------------------------------------

    def ended(self, life: Life, row: Kind) -> None:
        """Apply a final phase."""
        life.note(row, None)
        life.due_us = None
        for wait in life.waits.values():
            if wait.state == "open":
                wait.state = "closed"
        if life.parent is not None and life.step_key is not None:
            self.deliver(self.lives[life.parent], Kind.CHILD, life.step_key, life.phase is Phase.COMPLETED)

    def cancel(self, life: Life, by: str) -> None:
        """Down the tree, never up."""
        self._cancel_one(life, by)
        level = [life.id]
        while level:
            below = [child for id in level for child in self.children(id)]
            for child in below:
                self._cancel_one(child, by)
            level = [child.id for child in below]

    def _cancel_one(self, life: Life, by: str) -> None:
        if life.phase in FINAL:
            return
        if life.cancelled_by is not None:
            if life.phase is Phase.QUEUED and self.now_us >= life.cancelled_us + GRACE_US:
                self.move("cancel", life)  # nobody has taken it for its clean-up, in all that time
                self.ended(life, Kind.CANCELLED)
            return
        life.cancelled_by, life.cancelled_us = by, self.now_us
        if life.phase is Phase.RUNNING:
            self.move("ask_cancel", life)
            life.note(Kind.CANCEL, None)
            life.due_us = self.now_us + GRACE_US
        elif life.cleans and (
            life.phase in (Phase.WAITING, Phase.HELD) or (life.phase is Phase.QUEUED and life.attempt)
        ):
            if life.phase is Phase.WAITING:
                self.move("wake", life)
            elif life.phase is Phase.HELD:
                self.move("release_hold", life)
            life.note(Kind.CANCEL, None)
            self._requeued(life)
            life.limited = False
        else:
            self.move("cancel", life)
            self.ended(life, Kind.CANCELLED)

    def overrule(self, life: Life) -> None:
        self.move("overrule", life)
        self.ended(life, Kind.CANCELLED)

    # --- the clock ----------------------------------------------------------------------------------------------------

    def due(self) -> list[Life]:
        return [
            life
            for life in self.lives.values()
            if life.due_us is not None and life.due_us <= self.now_us and life.phase is not Phase.BLOCKED
        ]

    def wake_due(self) -> None:
        for life in self.due():
            if life.phase is Phase.WAITING:
                due_us = life.due_us
                self.move("wake", life)
                life.note(Kind.TIMER if life.timer_key else Kind.WOKEN, life.timer_key)
                if life.timer_key:
                    life.recorded()
                self._requeued(life)
                life.ready_us = due_us or 0
                self.done["timer"] += 1
            elif life.phase is Phase.QUEUED:
                life.ready_us, life.due_us = life.due_us or 0, None
                self.done["delay over"] += 1
        for life in sorted(self.due(), key=lambda life: (life.due_us or 0, life.id)):
            if life.due_us is None or life.due_us > self.now_us:
                continue  # it went with one before it
            if life.phase is Phase.RUNNING:
                self.cancel(life, "system")
                self.done["run timeout"] += 1
            else:
                self.overrule(life)

    def lose(self, life: Life, *, released: bool = False) -> None:
        """The life's worker is gone."""
        if life.phase is Phase.CANCELLING:
            self.overrule(life)
            return
        if released:
            self.move("release", life)
            life.note(Kind.RELEASED, None)
            self._requeued(life)
            return
        if life.acked:
            life.losses += 1
        else:
            life.undelivered += 1
        if life.losses == LOSSES_MAX:
            self.move("poison", life)
            self.ended(life, Kind.FAILED)
            return
        count = life.losses if life.acked else life.undelivered
        self.move("lose", life)
        life.note(Kind.LOST, None)
        most_us = 0 if count == 1 else min(SECOND * 2 ** (count - 2), 300 * SECOND)
        own = int.from_bytes(blake2b(f"{life.id} {count}".encode(), digest_size=4).digest())
        less_us = most_us // 2 * own // 2**32  # up to half
        self._requeued(life, self.now_us + most_us - less_us if most_us else None)

    def end_worker(self, worker: str, *, released: bool) -> None:
        del self.leases[worker]
        for life in sorted(self.in_phase(*LEASED), key=lambda life: life.id):
            if life.worker == worker:
                self.lose(life, released=released)

    def newer(self, worker: str) -> bool:
        """Whether another worker of the only deployment registered after `worker`."""
        return any(self.since[other] > self.since[worker] for other in self.leases)

    def registered(self, worker: str) -> None:
        self.leases[worker] = self.now_us + LEASE_US
        self.since[worker] = self.now_us
        for life in self.in_phase(Phase.BLOCKED):
            self.move("unblock", life)
            life.note(Kind.UNBLOCKED, None)
            self._requeued(life)
