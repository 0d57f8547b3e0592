"""Watches every commit: each changed row is held at once against the promises (I2 to I10).

Temporary triggers record the changes of a run's store in order. After each commit the audit compares the changes with
its memory. The audit and the verbs share nothing but the schema and `TRANSITIONS`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import apsw
from tests.sim import scripts
from tests.sim.fork_audit import ForkAudit, JournalRow

from perdure.store.base.interface import Hint, Verb
from perdure.store.base.statements import Statement
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.records import NULL, OUTCOMES, Kind
from perdure.wire.base.status import FINAL, LEASED, TRANSITIONS, Phase
from perdure.wire.runs.requests import Complete, ItemReply, ReportItem
from perdure.wire.steering.acts import Acted, Action, ActOnExecution
from perdure.wire.steering.forks import Fork, RetryExecution

CRASHES_MAX = 5
LEGAL = {(source, move.target) for move in TRANSITIONS.values() for source in move.sources}
WOKEN_INTO_A_CLAIM = (Phase.WAITING, Phase.RUNNING)
"""Wake and claim: two moves of the table in one statement."""
PROGRESS = OUTCOMES - {Kind.CANCEL}
COUNTED = {Kind.CANCEL, Kind.RELEASED, Kind.RETRIED, Kind.BLOCKED, Kind.UNBLOCKED, Kind.TIMER, Kind.IGNORED}
ACTED = {
    Action.COMPLETE: {Kind.STEP, Kind.CHILD},
    Action.FAIL: {Kind.STEP, Kind.CHILD, Kind.FAILED},
    Action.FIRE: {Kind.TIMER},
    Action.TRY: {Kind.RETRIED, Kind.WOKEN},
    Action.TIME_OUT: {Kind.EVENT, Kind.RESUME},
}

_WATCH = """
CREATE TEMP TABLE moves (n INTEGER PRIMARY KEY, what TEXT, id TEXT, a, b, c, d, e, f, g);
CREATE TEMP TRIGGER born AFTER INSERT ON executions BEGIN
  INSERT INTO moves (what, id, a, b, c, d, e, f, g) VALUES ('born', new.id, new.phase, new.attempt,
    new.assigned_to_worker, new.parent_execution_id, new.step_key, new.queue_name, new.concurrency_key);
END;
CREATE TEMP TRIGGER moved AFTER UPDATE ON executions
WHEN old.phase <> new.phase OR old.attempt <> new.attempt
  OR (old.phase IN ('completed', 'failed', 'cancelled') AND ({changed} OR old.retried_as IS NOT NULL)) BEGIN
  INSERT INTO moves (what, id, a, b, c, d, e, f, g) VALUES
    ('moved', new.id, old.phase, new.phase, old.attempt, new.attempt, new.assigned_to_worker, new.error,
    new.losses - old.losses);
END;
CREATE TEMP TRIGGER row_written AFTER INSERT ON journal BEGIN
  INSERT INTO moves (what, id, a, b, c, d, e, f)
  VALUES ('row', new.execution_id, new.seq, new.kind, new.attempt, new.key, new.ok, new.value);
END;
CREATE TEMP TRIGGER row_changed AFTER UPDATE ON journal BEGIN
  INSERT INTO moves (what, id, a, b, c, d, e, f)
  VALUES ('rewritten', new.execution_id, new.seq, old.kind, new.kind, new.key, old.ok, old.value = new.value);
END;
CREATE TEMP TRIGGER registered AFTER INSERT ON workers BEGIN
  INSERT INTO moves (what, id, a) VALUES ('lease', new.id, new.lease_until_us);
END;
CREATE TEMP TRIGGER renewed AFTER UPDATE OF lease_until_us ON workers BEGIN
  INSERT INTO moves (what, id, a) VALUES ('lease', new.id, new.lease_until_us);
END;
CREATE TEMP TRIGGER unregistered AFTER DELETE ON workers BEGIN
  INSERT INTO moves (what, id, a) VALUES ('gone', old.id, old.lease_until_us);
END;
CREATE TEMP TRIGGER wait_opened AFTER INSERT ON waits BEGIN
  INSERT INTO moves (what, id, a, b, c) VALUES ('wait', new.execution_id, new.key, NULL, new.state);
END;
CREATE TEMP TRIGGER wait_moved AFTER UPDATE OF state ON waits BEGIN
  INSERT INTO moves (what, id, a, b, c) VALUES ('wait', new.execution_id, new.key, old.state, new.state);
END;
"""

_READ = "SELECT what, id, a, b, c, d, e, f, g FROM moves ORDER BY n"


class Violation(AssertionError):
    """A broken promise, named by `promise`."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class SimStore(SQLiteStore):
    """The real store in memory, watched and reused by runs."""

    puts_off = False  # what is watched is the order of the verbs' own statements

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.epoch = "epoch"  # alike in every run, as all ids are
        self.audit: Audit | None = None
        self.away = False
        """The store takes no writes."""
        self._tables = [
            name
            for (name,) in self._writer.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> 'meta'"
            )
        ]
        columns = [name for _, name, *_ in self._writer.execute("PRAGMA table_info(executions)")]
        changed = " OR ".join(f"old.{name} IS NOT new.{name}" for name in columns if name != "retried_as")
        self._writer.execute(_WATCH.replace("{changed}", changed))
        self._originals = self._queries

    def begin(self, audit: Audit, queries: dict[str, Statement]) -> None:
        """Empty everything for a new run, whose mutant may have queries of its own."""
        self._inbox.clear()
        self._busy = self._scheduled = self.away = False
        self.audit = None
        self._queries = self._originals | queries
        with self._writer:
            for table in self._tables:
                self._writer.execute(f"DELETE FROM {table}")
            self._writer.execute("DELETE FROM moves")
        self.audit = audit

    def wrap_listener(self, drops: float, random: Random) -> None:
        """Lose some of the hints: they are never the truth."""
        if not drops:
            return
        listener: Callable[[Sequence[Hint]], None] = self._listener
        self._listener = lambda hints: listener([hint for hint in hints if random.random() >= drops])

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Query the database's present rows."""
        return list(self._writer.execute(sql, values))

    def _run_group(self, group: Any) -> Any:
        if self.away:
            raise apsw.FullError("the disk is full")
        return super()._run_group(group)

    def _answer_group(self, group: Any, done: Any, started: float, free: bool) -> None:
        if self.audit is not None:
            changes = self.rows(_READ)
            if changes:
                self._writer.execute("DELETE FROM moves")
            outcomes, _ = done
            self.audit.committed([verb for verb, _ in group], outcomes, changes)
        super()._answer_group(group, done, started, free)


class Seen:
    """The audit's memory of an execution."""

    __slots__ = (
        "attempt",
        "claimed",
        "cleaning",
        "concurrency_key",
        "crashes",
        "id",
        "next_seq",
        "numbers",
        "parent",
        "phase",
        "queue",
        "step_key",
        "worker",
    )

    def __init__(
        self, id: str, phase: Phase, attempt: int, parent: str | None, step_key: str | None, queue: str, key: str
    ) -> None:
        self.id = id
        self.phase = phase
        self.attempt = attempt
        self.parent = parent
        self.step_key = step_key
        self.queue = queue
        self.concurrency_key = key
        self.worker: str | None = None
        self.next_seq = 1
        self.crashes = 0
        self.cleaning = False
        self.claimed: dict[int, int] = {}
        self.numbers: dict[int, int] = {}


class Audit:
    """The promises, held against each commit."""

    def __init__(
        self, store: SimStore, log: Callable[..., None], counts: Counter[str], now_us: Callable[[], int]
    ) -> None:
        self._store = store
        self._log = log
        self._now_us = now_us
        self._counts = counts
        self.tick = 0
        self.seen: dict[str, Seen] = {}
        self.recorded: dict[tuple[str, str], int] = {}
        self.bodies: Counter[tuple[str, str]] = Counter()
        self._leases: dict[str, int] = {}
        """The leases in the store."""
        self._told: dict[str, int] = {}
        """The leases promised by answers to beats, which may end later."""
        self._ended: set[str] = set()
        self._woken: set[str] = set()
        """Woken and claimed by one statement of the present group."""
        self._acked: set[tuple[str, int]] = set()
        self._children: set[tuple[str, str]] = set()
        self._batches: dict[str, tuple[str, dict[str, int]]] = {}
        self._opened: dict[tuple[str, str], int] = {}
        self._outcomes: set[tuple[str, Kind, str | None]] = set()
        """The outcomes of timers and children."""
        self._given: set[tuple[str, str]] = set()
        """Steps with an outcome from an act."""
        self.forks: dict[str, Fork] = {}
        self._fork_audit = ForkAudit(store.rows, Violation)
        self.server_started_us = 0
        """The start in store time. Earlier ends of leases are the server's fault, not the worker's."""

    def told(self, worker: str, until_us: int) -> None:
        """The answer to a beat promises a lease until `until_us`."""
        self._told[worker] = max(self._told.get(worker, 0), until_us)

    def cut(self, worker: str) -> None:
        """The worker's connection is gone, so its promised lease counts no more."""
        self._told.pop(worker, None)

    def _lease(self, worker: str) -> int:
        return max(self._leases.get(worker, 0), self._told.get(worker, 0))

    # --- what workers do ---------------------------------------------------------------------------------------------

    def body(self, execution_id: str, attempt: int, key: str, worker: str, idempotency_key: str) -> int:
        """A step's body begins; answers for the how-manieth time."""
        self._fork_audit.body(execution_id, key, idempotency_key)
        seen = self.seen[execution_id]
        recorded = self.recorded.get((execution_id, key))
        what = f"{worker} begins {key!r} of {execution_id} in attempt {attempt}"
        if recorded is not None and seen.claimed[attempt] > recorded:
            raise Violation("I3 no recorded step runs again", f"{what}, handed out after its outcome was recorded")
        if recorded is not None and (execution_id, key) not in self._given:  # the worker may not know of the act yet
            raise Violation("I3 lease check", f"{what}, whose outcome is recorded already")
        if seen.attempt > attempt:
            raise Violation("I3 lease check", f"{what}, but attempt {seen.attempt} was handed out since")
        if self._lease(worker) <= self._now_us():
            raise Violation("I3 lease check", f"{what}, but its lease has run out at the server")
        self.bodies[execution_id, key] += 1
        if self.bodies[execution_id, key] > 1:
            self._counts["bodies begun again"] += 1
        return self.bodies[execution_id, key]

    def drew(self, execution_id: str, key: str, number: object) -> None:
        """The code has drawn a number right before it called a step."""
        fork = self.forks.get(execution_id)
        self._fork_audit.drew(execution_id, None if fork is None else fork.forked_from, key, number)

    def reply_lost(self, name: str, outcome: Any) -> None:
        """The reply to a call that did something never arrived."""
        if name == "report":
            acted = any(not item.lost for item in outcome.items)
        else:
            acted = name not in ("claim", "beat") or bool(getattr(outcome, "items", None))
        if acted:
            self._counts["lost replies acted on"] += 1
            self._counts[f"lost replies acted on: {name}"] += 1

    # --- commits -----------------------------------------------------------------------------------------------------

    def committed(
        self,
        verbs: Sequence[Verb[Any]],
        outcomes: Sequence[tuple[Any, Exception | None]],
        changes: Sequence[tuple[Any, ...]],
    ) -> None:
        """A group is on disk: verbs, answers, changes."""
        self.tick += 1
        self._woken.clear()
        names = {verb.name for verb in verbs}
        for verb, (answer, error) in zip(verbs, outcomes, strict=True):
            if error is not None and not isinstance(error, PerdureError):
                raise Violation("no verb breaks", f"{verb.name} raised {error!r}")
            if verb.name == "report":
                self._reported(verb.values, answer, error)
            elif verb.name == "record_steps":
                items: list[ReportItem] = verb.values["items"]
                for item, reply in zip(items, answer or [None] * len(items), strict=True):
                    self._reported({**verb.values, "item": item}, reply, error)
            elif verb.name == "report_and_dispatch":
                self._reported(verb.values, None if answer is None else answer[0], error)
            elif verb.name == "beat" and answer is not None and "grant_leases" not in names:
                worker, now_us = verb.values["worker_id"], verb.values["now_us"]
                if worker not in self._leases or self._lease(worker) <= now_us:
                    raise Violation("heartbeat guard", f"the expired lease of {worker} was renewed")
            elif verb.name == "reap":
                self._reaped(verb.values["now_us"], changes)
        self._fork_audit.born = {id for what, id, *_ in changes if what == "born"}
        made = self._new_forks(verbs, outcomes)
        if made:  # children that are asked for again are written before the fork
            changes = sorted(changes, key=lambda change: (change[0], change[1] in made) != ("born", True))
        claims: list[Seen] = []
        written: list[tuple[str, int]] = []
        for what, id, *values in changes:
            if what == "row":
                written.append((id, values[0]))
                if id not in made or values[0] > made[id].kept_rows:
                    self._row(id, *values[:6])
            elif what == "rewritten" and id in made and values[0] <= made[id].kept_rows:
                pass  # the copy as a whole is held against the source
            elif what == "moved" and id in made and values[0] == values[1]:
                self.seen[id].attempt = values[3]  # that of the newest kept row
            elif what == "moved":
                self._moved(id, *values, claims=claims)
            elif what == "born":
                self._born(id, *values, claims=claims)
            elif what == "rewritten":
                self._rewritten(id, *values[:6])
            elif what == "wait":
                self._wait(id, *values[:3])
            elif what == "lease":
                if id in self._ended:
                    raise Violation(
                        "what ended stays ended", f"registration {id} was reaped or drained, and is open again"
                    )
                if values[0] < self._leases.get(id, 0):
                    self.cut(id)
                self._leases[id] = values[0]
            elif what == "gone":
                self._leases.pop(id, None)
                self._ended.add(id)
                self._batches.pop(id, None)
        self._check_forks(verbs, outcomes, made)
        for verb, (answer, error) in zip(verbs, outcomes, strict=True):
            if verb.name == "act" and error is None:
                self._acted(answer, verb.values["op"], written)
        for id, seq in sorted(written):  # within a transaction they may be written in any order
            seen = self.seen[id]
            if seq != seen.next_seq:
                raise Violation("the journal has no gap", f"row {seq} of {id} came after row {seen.next_seq - 1}")
            seen.next_seq += 1
        for seen in claims:
            self._check_limits(seen)
        for verb, (answer, error) in zip(verbs, outcomes, strict=True):
            if verb.name == "claim" and error is None:
                self._claimed(verb.values["worker_id"], verb.values["claim_id"], answer[0], claims)
            elif (
                verb.name in ("start", "report_and_dispatch")
                and (waiting_claim := verb.values.get("waiting_claim")) is not None
            ):
                self._claimed(waiting_claim.worker_id, waiting_claim.claim_id, None, claims)
            elif verb.name == "note_arrival" and error is None:
                worker, claim_id = verb.values["worker_id"], verb.values["claim_id"]
                if self._batches.get(worker, ("",))[0] == claim_id:  # a copy of that claim that comes late gets nothing
                    del self._batches[worker]
        for verb, (_, error) in zip(verbs, outcomes, strict=True):
            if verb.name == "cancel" and error is None:
                self._check_cancelled(verb.values["execution_id"])

    # --- forks -------------------------------------------------------------------------------------------------------

    def payload(self, id: str) -> bytes:
        [(payload,)] = self._store.rows("SELECT payload FROM executions WHERE id = ?", id)
        return bytes(payload)

    def steps(self, id: str) -> dict[str, tuple[int, int]]:
        """The keys from which an execution can be forked, with the first row and the successful step's row, or 0."""
        found: dict[str, tuple[int, int]] = {}
        for row in self._fork_audit.journal(id):
            if row.key is not None and (row.kind == Kind.STEP_FAILED or Kind(row.kind) in OUTCOMES):
                first, _ = found.get(row.key, (row.seq, 0))
                found[row.key] = (first, row.seq if row.kind == Kind.STEP and row.ok else 0)
        return found

    def _new_forks(
        self, verbs: Sequence[Verb[Any]], outcomes: Sequence[tuple[Any, Exception | None]]
    ) -> dict[str, Fork]:
        return {
            answer.execution_id: answer
            for verb, (answer, error) in zip(verbs, outcomes, strict=True)
            if verb.name == "fork" and error is None and answer.execution_id not in self.forks
        }

    def _check_forks(
        self, verbs: Sequence[Verb[Any]], outcomes: Sequence[tuple[Any, Exception | None]], made: dict[str, Fork]
    ) -> None:
        for verb, (answer, error) in zip(verbs, outcomes, strict=True):
            if verb.name != "fork" or error is not None:
                continue
            if answer.execution_id not in made:
                self._counts["forks asked again"] += 1
                continue
            request = verb.values["op"]
            retries = isinstance(request, RetryExecution)
            self._counts[f"{'retries' if retries else 'forks'} of {self.seen[answer.forked_from].phase}"] += 1
            self.forks[answer.execution_id] = answer
            self._kept(answer.execution_id, self._fork_audit.made(request, answer))
            retried_as = self._store.rows("SELECT retried_as FROM executions WHERE id = ?", answer.forked_from)[0][0]
            if retries and retried_as != answer.execution_id:
                raise Violation("a retry is linked", f"{answer.forked_from} was retried as {retried_as}, not {answer}")

    def _kept(self, id: str, rows: list[JournalRow]) -> None:
        for row in rows:
            self._outcomes.add((id, Kind(row.kind), row.key))
            if row.kind == Kind.STEP:
                assert row.key is not None
                self.recorded[id, row.key] = self.tick
                self._counts["kept steps"] += 1

    def _acted(self, acted: Acted, request: ActOnExecution, written: list[tuple[str, int]]) -> None:
        """The last row of an act holds the request, and the act has an author."""
        if (acted.execution_id, acted.seq) not in written:
            self._counts["acts asked again"] += 1
            return
        if request.key is not None and request.action is Action.COMPLETE:
            self._given.add((acted.execution_id, request.key))
        [row] = [row for row in self._fork_audit.journal(acted.execution_id, acted.seq + 1) if row.seq == acted.seq]
        authors = self._store.rows(
            "SELECT action, acted_by FROM acts WHERE execution_id = ? AND seq = ?", acted.execution_id, acted.seq
        )
        given = request.action is not Action.COMPLETE or (bool(row.ok) and row.value == bytes(request.value or NULL))
        if not given or row.kind not in ACTED[acted.action] or authors != [(acted.action, acted.acted_by)]:
            raise Violation("acts are recorded", f"{request} wrote {row}, by {authors}")

    def _reported(self, values: dict[str, Any], answer: ItemReply | None, error: Exception | None) -> None:
        item: ReportItem = values["item"]
        worker = values["worker_id"]
        seen = self.seen[item.execution_id]
        if answer is None or answer.problem is not None:
            raise Violation("no report is refused", f"{item}: {error or answer}")
        if answer.lost:
            self._counts["stale rejections"] += 1
            if seen.attempt == item.attempt and seen.worker == worker and seen.phase in LEASED:
                raise Violation("I4 one driver", f"the holder of {item.execution_id} was told that it lost it")
            return
        if item.attempt < seen.attempt:
            raise Violation("I4 one driver", f"attempt {item.attempt} was answered while {seen.attempt} drives: {item}")
        if seen.worker != worker and item.attempt == seen.attempt:
            raise Violation("I4 one driver", f"{worker} was answered, but {seen.worker} holds {item.execution_id}")
        self._acked.add((item.execution_id, item.attempt))
        if type(item.end) is Complete and item.end.returns_step:
            self._counts[
                "ends together with a step" if answer.ended else "ends put off until the code has seen all"
            ] += 1
        if item.number and item.number <= seen.numbers.get(item.attempt, 0):
            self._counts["repeats answered"] += 1
        seen.numbers[item.attempt] = max(item.number, seen.numbers.get(item.attempt, 0))

    def _claimed(self, worker: str, claim_id: str, answered: Sequence[Any] | None, claims: list[Seen]) -> None:
        """A claim was answered. A worker's latest claim, asked again, must get the same batch and nothing else."""
        told = None if answered is None else {claimed.id for claimed, _ in answered}
        fresh = {
            seen.id: seen.attempt for seen in claims if seen.worker == worker and (told is None or seen.id in told)
        }
        claims[:] = [seen for seen in claims if seen.id not in fresh]
        latest = self._batches.get(worker)
        if latest is None or latest[0] != claim_id:
            if fresh:
                self._batches[worker] = (claim_id, fresh)
            return
        if told is None:
            latest[1].update(fresh)  # started into a waiting claim
            return
        if fresh:
            raise Violation("a claim's repeat", f"{worker} got more work under {claim_id}: {sorted(fresh)}")
        wanted = {
            id
            for id, attempt in latest[1].items()
            if (seen := self.seen[id]).attempt == attempt and seen.phase in LEASED and (id, attempt) not in self._acked
        }
        if told:
            self._counts["claims answered again"] += 1
        if not wanted <= told:
            raise Violation("a claim's repeat", f"{worker} did not get {sorted(wanted)} again under {claim_id}")

    def _reaped(self, now_us: int, changes: Sequence[tuple[Any, ...]]) -> None:
        for what, id, *values in changes:
            if what != "gone":
                continue
            self._counts["registrations reaped"] += 1
            if max(values[0], self._told.get(id, 0)) > now_us:
                raise Violation("reap guard", f"the lease of {id} had not run out")
            if values[0] < self.server_started_us:
                raise Violation("restart grants leases", f"the lease of {id} ran out while there was no server")

    def _born(
        self,
        id: str,
        phase: str,
        attempt: int,
        worker: str | None,
        parent: str | None,
        step_key: str | None,
        queue: str,
        key: str | None,
        *,
        claims: list[Seen],
    ) -> None:
        if id in self.seen:
            raise Violation("I6 effects happen once", f"{id} was started twice")
        if parent is not None and step_key is not None:
            if (parent, step_key) in self._children:
                raise Violation("I6 effects happen once", f"{parent} has two children of step {step_key!r}")
            self._children.add((parent, step_key))
            self._fork_audit.child(id, parent, step_key)
            if self.seen[parent].phase in FINAL | {Phase.CANCELLING}:
                raise Violation("cancel reaches children", f"{parent} is {self.seen[parent].phase} and got a child")
        seen = self.seen[id] = Seen(id, Phase(phase), attempt, parent, step_key, queue, key or "")
        if seen.phase in LEASED:
            seen.worker = worker
            seen.claimed[attempt] = self.tick
            claims.append(seen)
            self._counts["claimed at start"] += 1

    def _moved(
        self,
        id: str,
        before: str,
        after: str,
        attempt_before: int,
        attempt: int,
        worker: str | None,
        error: str | None,
        losses: int,
        *,
        claims: list[Seen],
    ) -> None:
        seen = self.seen[id]
        source, target = Phase(before), Phase(after)
        if source in FINAL:
            raise Violation("I10 final is final", f"{id} was {before} and is {after} now")
        woken = (source, target) == WOKEN_INTO_A_CLAIM
        if woken:
            self._woken.add(id)
        if source is not target and (source, target) not in LEGAL and not woken:
            raise Violation("the table of moves", f"{id} went from {before} to {after}")
        claimed = target in LEASED and source not in LEASED
        if attempt != attempt_before + claimed:
            raise Violation(
                "I4 one driver", f"{id} went from attempt {attempt_before} to {attempt} as {before} to {after}"
            )
        if losses > 0 and (id, attempt) not in self._acked:
            raise Violation("I9 poison is contained", f"a lost delivery of {id} was counted as a crash")
        seen.phase, seen.attempt, seen.worker = target, attempt, worker
        self._counts[f"phase {after}"] += 1
        self._log("moved", id, before, after, attempt)
        if claimed:
            seen.claimed[attempt] = self.tick
            seen.cleaning = target is Phase.CANCELLING
            claims.append(seen)
        if target is Phase.FAILED and error is not None and error.startswith("POISONED"):
            self._counts["poisoned"] += 1
            crashes = seen.crashes + ((id, attempt) in self._acked)
            if crashes < CRASHES_MAX:
                raise Violation("I9 poison is contained", f"{id} was given up after {crashes} crashes: {error}")

    def _row(self, id: str, seq: int, kind_text: str, attempt: int, key: str | None, ok: int, value: bytes) -> None:
        seen = self.seen[id]
        kind = Kind(kind_text)
        self._log("row", id, seq, kind_text, attempt, key)
        woken = id in self._woken and kind in OUTCOMES and attempt == seen.attempt - 1
        if attempt != seen.attempt and not woken:
            raise Violation(
                "I4 one driver", f"a row of attempt {attempt} of {id} was taken while {seen.attempt} drives"
            )
        if kind is Kind.STEP:
            assert key is not None
            if (id, key) in self.recorded:
                raise Violation("I2 recorded once", f"step {key!r} of {id} was recorded again")
            self.recorded[id, key] = self.tick
        elif kind in (Kind.TIMER, Kind.CHILD):
            if (id, kind, key) in self._outcomes:
                raise Violation("I2 recorded once", f"{kind_text} {key!r} of {id} was recorded again")
            self._outcomes.add((id, kind, key))
        elif kind is Kind.LOST:
            self._counts["attempts lost"] += 1
            if (id, attempt) in self._acked:
                seen.crashes += 1
            else:
                self._counts["deliveries lost"] += 1
        if kind in COUNTED:
            self._counts[f"rows {kind_text}"] += 1
        if kind is Kind.CHILD:
            self._counts[f"child ended while its parent was {Phase.WAITING if woken else seen.phase}"] += 1
            self._counts["woken into a claim"] += woken
        if kind in PROGRESS:
            seen.crashes = 0

    def _rewritten(self, id: str, seq: int, before: str, after: str, key: str, ok: int, same: int) -> None:
        if (before, after, ok, same) != ("step", "step_failed", 0, 1):
            raise Violation("I2 recorded once", f"row {seq} of {id} ({before} {key!r}) became {after}")
        self._counts["failures taken back"] += 1
        self.recorded.pop((id, key), None)

    def _wait(self, id: str, key: str, before: str | None, after: str) -> None:
        if before is None:
            self._opened[id, key] = self.tick
            if after == "early":
                self._counts["answers before their wait"] += 1
        elif after == "met":
            at_once = self._opened.get((id, key)) == self.tick
            if before == "early":
                self._counts["early answers taken"] += 1
            else:
                self._counts["waits met at once" if at_once else "waits met later"] += 1
            self._counts[f"waits met while {self.seen[id].phase}"] += 1
        elif after == "closed":
            self._counts["waits given up"] += 1

    def _check_limits(self, claimed: Seen) -> None:
        if claimed.queue != scripts.NARROW or claimed.cleaning:
            return
        held = [
            seen
            for seen in self.seen.values()
            if seen.queue == scripts.NARROW and seen.phase in LEASED and not seen.cleaning
        ]
        if len(held) > scripts.NARROW_TOTAL:
            raise Violation("I8 limits hold", f"{len(held)} of {scripts.NARROW_TOTAL} run in the narrow queue")
        same = sum(seen.concurrency_key == claimed.concurrency_key for seen in held)
        if same > scripts.NARROW_PER_KEY:
            raise Violation("I8 limits hold", f"{same} run with key {claimed.concurrency_key!r}")
        if any(
            seen.queue == scripts.NARROW
            and seen.phase is Phase.QUEUED
            and seen.concurrency_key == claimed.concurrency_key
            for seen in self.seen.values()
        ):
            self._counts["queued behind a limit"] += 1

    def _check_cancelled(self, id: str) -> None:
        below = {id}
        for child, seen in self.seen.items():  # children are born after their parents
            if seen.parent in below:
                below.add(child)
                if seen.phase not in FINAL | {Phase.CANCELLING} and not (
                    seen.phase is Phase.QUEUED and self.is_cancelled(child)
                ):
                    raise Violation("cancel reaches children", f"{child} is {seen.phase}, below {id}")

    is_cancelled: Callable[[str], bool] = staticmethod(lambda id: False)
    """Whether somebody asked to cancel it, as the store knows."""


def matches(number: int | None, data: bytes) -> bool:
    """Whether an event carries the number that a wait asks for."""
    return number is None or json.loads(data).get("number") == number


def missed_waits(store: SimStore) -> list[str]:
    """Open waits whose event is there: what fell between publishing and waiting (I5)."""
    found: list[str] = []
    for id, key, topic, match, after in store.rows(
        "SELECT execution_id, key, topic, match, after_seq FROM waits WHERE state = 'open' AND topic IS NOT NULL "
        "ORDER BY execution_id, key"
    ):
        taken = {
            seq
            for (seq,) in store.rows(
                "SELECT event_seq FROM waits WHERE execution_id = ? AND topic = ? AND event_seq IS NOT NULL", id, topic
            )
        }
        number = None if match is None else json.loads(match)["number"]
        for seq, data in store.rows(
            "SELECT seq, data FROM events WHERE topic = ? AND seq > ? ORDER BY seq", topic, after
        ):
            if seq not in taken and matches(number, data):
                found.append(f"{id} waits as {key!r} for event {seq} of topic {topic!r}, which is there")
                break
    return found
