"""A server in memory: rows with `seq` and `at_us`, and a world that decides what happens next.

`World` runs a workflow through a `Machine` with everything that reality may do to it: outcomes in any order, several in
one report, late outcomes of abandoned steps, crashes, a cancel. `check_replays` then replays the journal that came out,
from every prefix and in any chunks, and compares with what the live run saw.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from perdure.sdk.base.errors import Diverged, Stuck
from perdure.sdk.replay.calls import DurableCall, Effects, MachineState
from perdure.sdk.replay.failures import steps_to_blame
from perdure.sdk.replay.machine import Machine
from perdure.sdk.replay.orphaned_outcomes import taken_back_by
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.runs.executions import Row

Program = Callable[[Machine, list[Any]], Coroutine[Any, Any, Any]]
"""The code under test. The code writes its trace into the list."""


class Journal:
    """The rows of an execution."""

    def __init__(self, *rows: Row) -> None:
        self.rows: list[Row] = list(rows)
        if not rows:
            self.add(Kind.CLAIMED)

    def add(
        self, kind: Kind, key: str | None = None, name: str | None = None, *, dt_us: int = 1_000, **rest: Any
    ) -> Row:
        at_us = self.rows[-1].at_us + dt_us if self.rows else 1_000_000_000
        rest.setdefault("value", Raw(b"null"))
        row = Row(len(self.rows) + 1, at_us, kind, 1, key, name, **rest)
        self.rows.append(row)
        return row

    def answer(self, call: DurableCall, value: object = None, **rest: Any) -> Row:
        """The outcome of `call`."""
        if value is not None:
            rest["value"] = value if isinstance(value, Raw) else Raw(str(value).encode())
        return self.add(call.kind, call.key, call.name, fingerprint=call.fingerprint, **rest)


def advance(machine: Machine, rows: Sequence[Row], **options: Any) -> Effects:
    """`machine.advance`, again and again until the code has settled."""
    effects = machine.advance(rows, **options)
    while effects.state is MachineState.AGAIN:
        effects = machine.advance(())
    return effects


class Broken(AssertionError):
    """A broken promise; `check` names the promise."""

    def __init__(self, check: str, what: str) -> None:
        super().__init__(f"{check}: {what}")
        self.check = check


class Seen(NamedTuple):
    """What can be seen of a settled execution from outside and from inside."""

    outstanding: frozenset[tuple[str, str]]
    timer: tuple[str, int] | None
    trace: tuple[Any, ...]
    now_us: int
    outcome: str | None


class World:
    """An execution with its fate, drawn from `fate`."""

    def __init__(
        self,
        program: Program,
        fate: random.Random,
        *,
        crashes: float = 0.05,
        cancel: float = 0.0,
        late: float = 0.3,
        tries: int = 1,
    ) -> None:
        self.program = program
        self.fate = fate
        self.crashes = crashes
        self.cancel = cancel
        self.late = late
        self.tries = tries
        self.journal = Journal()
        self.bodies: Counter[str] = Counter()
        self.seen: dict[int, Seen] = {}
        """State of the live run, by length of the journal."""
        self.valid_from = 1
        self.events: Counter[str] = Counter()
        """Counts of what happened, for assertions of tests."""
        self.stuck_at = 0
        """Length of the journal at which the code waits for ever: some programs do, and must do so in every replay."""
        self._children: list[str] = []
        """Keys of the open children."""

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self) -> Seen:
        """Live until the end, or Broken."""
        try:
            return self._run()
        except Stuck:
            self.stuck_at = len(self.journal.rows)
            return Seen(frozenset(), None, (), 0, "stuck")
        finally:
            self._machine.close()

    def _run(self) -> Seen:
        rows_max = 400
        machine, effects, trace = self._open()
        while True:
            if effects.state is MachineState.DONE:
                error = machine.error
                retried = self._retry(machine, error) if error is not None else False
                if not retried:
                    seen = self._note(machine, effects, trace)
                    machine.close()
                    return seen
                machine.close()
                machine, effects, trace = self._open()
                continue
            self._note(machine, effects, trace)
            if len(self.journal.rows) > rows_max:
                raise Broken("ends", f"still running after {rows_max} rows")
            if self.fate.random() < self.crashes:
                self.events["crash"] += 1
                self.journal.add(Kind.LOST)
                self.journal.add(Kind.CLAIMED)
                before = self._look(machine, effects, trace)
                machine.close()
                machine, effects, trace = self._open()
                self._compare("same after a crash", before, self._look(machine, effects, trace))
                continue
            fresh = self._happen(effects)
            effects = self._advance(machine, fresh)

    def _open(self) -> tuple[Machine, Effects, list[Any]]:
        machine, trace = new_machine(self.program)
        self._machine = machine
        self._calls: dict[str, DurableCall] = {}
        self._late: dict[str, DurableCall] = {}
        rows = self.journal.rows
        effects: Effects
        for chunk, more in chunks(rows, self.fate):
            effects = self._advance(machine, chunk, more=more)
            if more and (effects.started or effects.abandoned or effects.timer):
                raise Broken("nothing starts before the record is consumed", f"{effects}")
        return machine, effects, trace

    def _advance(self, machine: Machine, rows: Sequence[Row], **options: Any) -> Effects:
        try:
            effects = advance(machine, rows, **options)
        except Diverged as error:
            raise Broken("never diverges", str(error)) from error
        recorded = {(row.kind, row.key) for row in self.journal.rows}
        if effects.timer is not None and (Kind.TIMER, effects.timer[0]) in recorded:
            raise Broken("no recorded timer runs again", f"{effects.timer}")
        for call in effects.started:
            if call.key in self._calls:
                raise Broken("asks once", f"{call} was started twice")
            if (call.kind, call.key) in recorded:
                raise Broken("no recorded body runs again", f"{call}")
            self._calls[call.key] = call
            if call.kind is Kind.STEP:
                self.bodies[call.key] += 1
        for call in effects.abandoned:
            self._calls.pop(call.key, None)
            self._late[call.key] = call
        return effects

    # --- what happens ----------------------------------------------------------------------------------------------

    def _happen(self, effects: Effects) -> list[Row]:
        """One to four things happen before the worker hears of the first."""
        before = len(self.journal.rows)
        timer = effects.timer
        for _ in range(self.fate.choice((1, 1, 1, 1, 2, 3, 4))):
            choices: list[tuple[str, Any]] = [("answer", call) for call in self._calls.values()]
            choices += [("child", key) for key in self._children]
            if timer is not None:
                choices.append(("timer", timer))
            if self._late and self.fate.random() < self.late:
                choices = [("late", call) for call in self._late.values()]
            if self.cancel and not self.events["cancel"] and self.fate.random() < self.cancel:
                choices = [("cancel", None)]
            if not choices:
                break
            what, which = self.fate.choice(choices)
            self.events[what] += 1
            dt_us = self.fate.choice((0, 1, 1_000, 700_000, 3_000_000))
            if what == "cancel":
                self.journal.add(Kind.CANCEL, dt_us=dt_us)
            elif what == "child":
                self._children.remove(which)
                self._end_child(which, dt_us)
            elif what == "timer":
                key, due_us = which
                wait_us = max(due_us - self.journal.rows[-1].at_us, 0)
                dt_us = wait_us + self.fate.choice((0, 0, 1, 50_000))
                self.journal.add(Kind.TIMER, key, fingerprint=fingerprint_of_timer(due_us), dt_us=dt_us)
                timer = None
            else:
                self._answer(which, dt_us)
            if self.fate.random() < 0.1:
                self.journal.add(self.fate.choice((Kind.WAITING, Kind.RELEASED, Kind.CLAIMED)), dt_us=1)
        return self.journal.rows[before:]

    def _answer(self, call: DurableCall, dt_us: int) -> None:
        (self._calls if call.key in self._calls else self._late).pop(call.key)
        value = Raw(str(self.fate.randrange(100)).encode())
        if call.kind is not Kind.STEP:
            if call.kind is Kind.CHILD_STARTED:
                self._children.append(call.key)
            self.journal.add(call.kind, call.key, call.name, fingerprint=call.fingerprint, dt_us=dt_us, value=value)
            return
        tries = 1
        if self.fate.random() < 0.1:
            self.events["failed try"] += 1
            self.journal.add(Kind.STEP_FAILED, call.key, call.name, ok=False, dt_us=dt_us, tries=1)
            tries = 2
        fails = call.request == "fails" or (call.request == "flaky" and self.fate.random() < 0.5)
        self.journal.add(
            Kind.STEP,
            call.key,
            call.name,
            fingerprint=call.fingerprint,
            dt_us=dt_us,
            value=value,
            ok=not fails,
            tries=tries,
        )

    def _end_child(self, key: str, dt_us: int) -> None:
        ok = self.fate.random() < 0.8
        self.journal.add(Kind.CHILD, key, "completed" if ok else "failed", ok=ok, dt_us=dt_us, value=Raw(b"7"))

    def _retry(self, machine: Machine, error: BaseException) -> bool:
        """Take back the step failures that the worker names, as the server does."""
        keys = steps_to_blame(error)
        if self.tries <= 1 or not keys:
            return False
        self.tries -= 1
        wanted = {*keys, *machine.failed_beside(keys)}
        rows = self.journal.rows
        taken = [n for n, row in enumerate(rows) if row.key in wanted and row.kind is Kind.STEP and not row.ok]
        assert len(taken) == len(wanted)
        for n in taken:
            rows[n] = msgspec.structs.replace(rows[n], kind=Kind.STEP_FAILED)
        seqs = [rows[n].seq for n in taken]
        self.journal.add(Kind.RETRIED, ok=False, value=Raw(msgspec.json.encode(seqs if seqs[1:] else seqs[0])))
        self.events["several"] += len(seqs) > 1
        at = taken[0]
        self.journal.add(Kind.CLAIMED)
        self.events["retry"] += 1
        if at + 2 < len(self.journal.rows) - 2:
            self.events["orphaned"] += 1
        self.seen.clear()
        self.valid_from = len(self.journal.rows)
        return True

    # --- looking ---------------------------------------------------------------------------------------------------

    def _note(self, machine: Machine, effects: Effects, trace: list[Any]) -> Seen:
        seen = self._look(machine, effects, trace)
        self.seen[len(self.journal.rows)] = seen
        return seen

    def _look(self, machine: Machine, effects: Effects, trace: list[Any]) -> Seen:
        done = effects.state is MachineState.DONE
        return Seen(
            frozenset(() if done else ((call.kind.value, call.key) for call in machine.outstanding())),
            effects.timer,
            tuple(trace),
            0 if done else machine.now_us,
            show(machine) if done else None,
        )

    def _compare(self, check: str, live: Seen, replayed: Seen) -> None:
        # Non-outcome rows (lost, claimed) move the time while nothing runs.
        live, replayed = live._replace(now_us=0), replayed._replace(now_us=0)
        if live != replayed:
            raise Broken(check, f"live {live}\n replayed {replayed}")

    def fork(self, cut: int) -> World:
        """A run that begins with the first `cut` rows, like a server's fork. The run asks for open children again."""
        kept, tail = self.journal.rows[:cut], self.journal.rows[cut:]
        other = World(self.program, self.fate, crashes=self.crashes, late=self.late)
        other.journal = Journal(*kept)
        other.journal.add(Kind.FORKED)
        taken = sorted({seq for row in tail if row.kind is Kind.RETRIED for seq in taken_back_by(row) if seq <= cut})
        if taken:
            other.journal.add(Kind.RETRIED, value=Raw(msgspec.json.encode(taken)))
            other.events["taken back later"] += 1
        other.journal.add(Kind.CLAIMED)
        other.valid_from = len(other.journal.rows)
        ended = {row.key for row in kept if row.kind is Kind.CHILD}
        other._children = [row.key or "" for row in kept if row.kind is Kind.CHILD_STARTED and row.key not in ended]
        other.events["open child"] += bool(other._children)
        return other

    def check_forks(self, most: int) -> None:
        """A fork at any row goes on over the outcomes that the fork kept, repeats nothing, and replays."""
        asked = next((n for n, row in enumerate(self.journal.rows) if row.kind is Kind.CANCEL), len(self.journal.rows))
        for cut in self.fate.sample(range(1, asked + 1), min(most, asked)):
            other = self.fork(cut)
            other.run()
            other.check_replays()
            self.events.update(other.events)

    def check_replays(self) -> None:
        """Every prefix of the journal, in any chunks, leads where the live run was."""
        for length in range(self.valid_from, len(self.journal.rows) + 1):
            machine, trace = new_machine(self.program)
            try:
                self._check_replay(machine, trace, length)
            finally:
                machine.close()

    def _check_replay(self, machine: Machine, trace: list[Any], length: int) -> None:
        prefix = self.journal.rows[:length]
        recorded = {(row.kind, row.key) for row in prefix}
        together = self.fate.random() < 0.7
        pieces = chunks(prefix, self.fate)
        if not together:  # As it came live; but what failed attempts left is known as a whole, or not at all.
            pieces = [(prefix[: self.valid_from], False), *chunks(prefix[self.valid_from :], self.fate)]
        given = 0
        for chunk, more in pieces:
            given += len(chunk)
            try:
                effects = advance(machine, chunk, more=more) if together else advance(machine, chunk)
            except Stuck as error:
                if self._may_be_stuck(given):
                    return
                raise Broken("stuck only if the live run was", str(error)) from error
            except Diverged as error:
                raise Broken("never diverges", str(error)) from error
            if together:
                for call in effects.started:
                    if (call.kind, call.key) in recorded:
                        raise Broken("no recorded body runs again", f"{call} at {length}")
        live = self.seen.get(length)
        if length == self.stuck_at:
            raise Broken("stuck as the live run was", "the replay was not")
        if live is not None:
            check = "same outcome" if live.outcome is not None else "same at every prefix"
            self._compare(check, live, self._look(machine, effects, trace))

    def _may_be_stuck(self, length: int) -> bool:
        """Whether the code waits for something that cannot come. The live run hears of several rows at once. Between
        two of them the code may have been stuck, for ever or until a cancel: only a cancel comes unasked."""
        if length in self.seen:
            return False
        settled_at = min((at for at in self.seen if at > length), default=None)
        if settled_at is None:
            return length <= self.stuck_at
        return any(row.kind is Kind.CANCEL for row in self.journal.rows[length:settled_at])


def new_machine(program: Program, **options: Any) -> tuple[Machine, list[Any]]:
    trace: list[Any] = []
    machine = Machine(lambda: program(machine, trace), seed="seed", **options)
    return machine, trace


def chunks(rows: Sequence[Row], fate: random.Random) -> list[tuple[Sequence[Row], bool]]:
    """`rows` in pieces, each with whether there are more."""
    pieces: list[tuple[Sequence[Row], bool]] = []
    at = 0
    while at < len(rows):
        size = fate.choice((1, 2, 3, 5, 1_000))
        pieces.append((rows[at : at + size], at + size < len(rows)))
        at += size
    return pieces


def show(machine: Machine) -> str:
    if isinstance(machine.error, asyncio.CancelledError):
        return "cancelled"  # anyio puts addresses into its words.
    return f"{machine.outcome!r}"
