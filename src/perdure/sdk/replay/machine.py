"""The machine of one execution: journal rows in, effects out, without input/output or a clock.

    machine = Machine(start, seed=…)
    effects = machine.advance(rows)      # run effects.started, cancel effects.abandoned, watch effects.timer
    effects = machine.advance(new_rows)  # … until effects.state is DONE

A replay takes every branch of the live run:

1. *One outcome at a time, in the order of `seq`; the code settles in between.*
2. *Ask, check, hold.* The next outcome must match an awaited call, else `Diverged`. Nothing new starts
   before the whole record is consumed, so a diverging replay has no effect.
3. *Late outcomes.* An outcome is ignored if the code gave its call up. Only events are kept, for the next wait that
   asks for the same.
4. *Time* is `at_us` of the last row. It moves only when the code has settled.
5. *Each call gets its own outcome.* Tasks created in another order than recorded change places before anything new
   starts (see `task_identity`). If a doubt remains, the code has diverged. An input counts as changed only if no other
   call has or had it.

A row `retried` takes step failures back. The next attempt may not repeat the calls after these failures, so their
outcomes are kept aside for calls with the same keys. Without such a call, an outcome kept aside is not a divergence.
"""

import contextvars
import random
import uuid
from asyncio import CancelledError, current_task
from collections.abc import Callable, Coroutine, Sequence
from types import CodeType
from typing import Any, Final

from msgspec import structs

from perdure.sdk.base.errors import Diverged, Stuck
from perdure.sdk.payloads.fingerprints import (
    is_captured,
    is_opaque,
    only_tokens_differ,
    split,
    token_of,
)
from perdure.sdk.replay.calls import (
    AGAIN,
    CHILD_STARTED,
    DONE,
    EVENT,
    FORKED,
    RETRIED,
    RUNNING,
    STARTING,
    STEP,
    STEP_FAILED,
    SUSPENDED,
    AwaitedStart,
    DurableCall,
    Effects,
)
from perdure.sdk.replay.determinism_errors import diverged, stuck
from perdure.sdk.replay.handles import InnerTask
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.matching import Draws, Matching, fits, what
from perdure.sdk.replay.open_calls import OURS
from perdure.sdk.replay.orphaned_outcomes import LateEvents, OrphanedOutcomes, same_question, taken_back_by
from perdure.sdk.replay.tail_await import has_tails, only_returns
from perdure.sdk.replay.task_identity import (
    ScopeHistory,
)
from perdure.wire.base.records import OUTCOMES, Kind, fingerprint_of_timer
from perdure.wire.runs.executions import Row

CALLBACKS_MAX: Final = 10_000
"""Some tens of milliseconds; then the worker's loop has its turn."""

TIMER_EARLY_US: Final = 60_000_000
"""A row earlier than its timer's due time by more microseconds belongs to another timer."""

_AGAIN: Final = Effects((), (), None, AGAIN)
_DONE: Final = Effects((), (), None, DONE)
_UNASKED: Final = frozenset({Kind.CANCEL, Kind.MESSAGE})


class Machine(Matching):
    """Use a machine from one thread; callbacks and tasks of another event loop may call `advance`."""

    __slots__ = (
        "_context",
        "_done",
        "_fed",
        "_first_claim",
        "_main",
        "_more",
        "_random",
        "_replay_until",
        "_result",
        "_start",
        "_uuids",
        "_waits_until",
        "cancel_requested",
        "error",
        "may_only_return",
        "messages",
        "seed",
    )

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Any]],
        *,
        seed: str,
        strict: bool = False,
        context: contextvars.Context | None = None,
    ) -> None:
        super().__init__(InnerLoop(seed, self), strict=strict)  # type: ignore[abstract]  # filled in by refuse_the_rest
        self.seed = seed
        self.cancel_requested = False
        self.messages: list[str] = []
        """The reader empties the list."""
        self.error: BaseException | None = None
        """`asyncio.CancelledError` if the code was cancelled."""
        self.may_only_return = False
        """Whether `only_returns` can be true, judged by the code of the workflow's function."""
        self._start: Callable[[], Coroutine[Any, Any, Any]] | None = start
        self._context = context
        self._main: InnerTask | None = None
        self._done = False
        self._result: Any = None
        self._fed = 0
        self._more = False
        self._first_claim = True
        self._replay_until = 0
        self._random: random.Random | None = None
        self._uuids: random.Random | None = None
        self._waits_until: str | None = None

    def raised(self, row: Row, asked: int) -> None:
        """The failure is about to be raised in the task that asked for the step at row `asked`."""
        task = current_task(self.loop)
        if task is not None and task is not self._main and self._failures is not None and row.key is not None:
            self._failures.raised_in(task, row.key, row.seq, asked)  # type: ignore[arg-type]  # all tasks here are ours

    @property
    def now_us(self) -> int:
        return self.loop.now_us

    def random(self) -> random.Random:
        if self._random is None:
            self._random = Draws(f"{self.seed}:random", self.drew)
        return self._random

    def uuid(self) -> uuid.UUID:
        if self._uuids is None:
            self._uuids = random.Random(f"{self.seed}:uuid")
        self.drew()
        return uuid.UUID(int=self._uuids.getrandbits(128), version=4)

    def drew(self) -> None:
        """Later steps of the running task record which random numbers the task got."""
        self._drawn += 1
        scope = self.loop.own_scope()
        if scope is not None:
            scope.drawn = token_of(f"{scope.drawn}{self._drawn}".encode())

    @property
    def replaying(self) -> bool:
        return self.seen < self._replay_until

    def advance(self, rows: Sequence[Row], *, more: bool | None = None, replay: bool | None = None) -> Effects:
        """`more`: further rows follow and nothing is started yet; the default without rows is the last value. `replay`:
        an earlier claim recorded the rows; by default true up to the first call without `more`."""
        if more is None:
            more = self._more and not rows
        try:
            return self._advance(rows, more, self._first_claim if replay is None else replay)
        except (Diverged, Stuck):
            self.close()
            raise

    def _advance(self, rows: Sequence[Row], more: bool, replay: bool) -> Effects:
        self._more = more
        self._first_claim = self._first_claim and more
        self._feed(rows, replay)
        loop = self.loop
        before = loop.enter()
        try:
            if self._main is None:
                if self._done:
                    self._pass_over()
                    return _DONE
                self._main = self._begin()
            main = self._main
            budget = CALLBACKS_MAX
            while True:
                if loop.ready:
                    budget = loop.pump(budget)
                    if not loop.is_settled:
                        return _AGAIN
                if self.doubts is not None and self.doubts.pending:
                    self._tell(self.doubts)
                if main.done() or not self._deliver_next():
                    break
        finally:
            loop.leave(before)
        return self._finish(main) if main.done() else self._settle()

    def only_returns(self, call: DurableCall, inner: CodeType) -> bool:
        """Whether no line of the code runs between the outcome of the step `call`, awaited by `inner`, and the end."""
        main, loop = self._main, self.loop
        if main is None or getattr(main, "_fut_waiter", None) is not call.future:
            return False
        if not only_returns(main.get_coro(), inner) or self.cancel_requested or self._orphaned is not None:
            return False
        if self._made is not None:  # perhaps forgotten, and then the end is a failure
            return False
        return [*self._calls.values()] == [call] and not (loop.ready or loop.timers) and loop.living_tasks() == [main]

    def only_waits(self, rows: Sequence[Row]) -> bool:
        """Whether the code still waits after these rows, and for the same calls."""
        try:
            effects = self.advance(rows)
        except Exception:  # any error comes up again when the execution goes on
            return False
        return effects.state is SUSPENDED and not effects.started and not effects.abandoned

    def close(self) -> None:
        """`Evicted` runs the code's `finally` blocks, which cannot ask for anything."""
        self.loop.shut()
        self._calls.clear()
        self._fresh.clear()
        self._abandoned = []
        self._children = self._child_waits = None
        self._forgotten()
        self._forget_rows()
        self._main = None  # leaves no cycle, nor do these
        self._base = contextvars.Context()
        if self.doubts is not None:
            self.doubts.close()

    @property
    def is_done(self) -> bool:
        return self._done or (self._main is not None and self._main.done())

    @property
    def result(self) -> Any:
        assert self._done
        return self._result

    @property
    def outcome(self) -> Any:
        return self.result if self.error is None else self.error

    def failed_tries(self, key: str) -> int:
        return 0 if self._orphaned is None else self._orphaned.tries.get(key, 0)

    def failed_beside(self, blamed: Sequence[str]) -> list[str]:
        return [] if self._failures is None else list(self._failures.beside(blamed))

    def later_than(self, blamed: Sequence[str]) -> dict[str, str | None] | None:
        return {} if self._failures is None else self._failures.later_than(blamed)

    def _begin(self) -> InnerTask:
        if self._rows:
            self.loop.move(self._rows[self._next].at_us)
        context = contextvars.Context() if self._context is None else self._context
        assert self._start is not None
        start, self._start = self._start, None  # The task refers back to this machine.
        coro = context.run(start)
        self._base = context.copy()
        self.may_only_return = has_tails(coro)
        return self.loop.create_main(coro, context)

    def _feed(self, rows: Sequence[Row], replay: bool) -> None:
        fed = self._fed
        for row in rows:
            if row.seq <= fed:
                continue  # two replies may overlap
            if row.seq != fed + 1:
                raise ValueError(f"The journal has a gap: row {row.seq} came after row {fed}.")
            fed += 1
            self._rows.append(row)
            if row.kind is RETRIED:
                self._note_taken_back(row)
            elif replay and row.kind in OUTCOMES:
                self._replay_until = fed
        self._fed = fed

    def _deliver_next(self) -> bool:
        if self._orphaned is not None and self._orphaned.due:
            self.loop.move(0)
            self._deliver(self._orphaned.due.pop(0))
            return True
        rows = self._rows
        while self._next < len(rows):
            row = rows[self._next]
            if row.kind is STEP_FAILED and self._more:
                return False  # a later row may take it back
            self._next += 1
            self.seen = row.seq
            self.loop.move(row.at_us)
            if row.kind is STEP or row.kind in OUTCOMES:
                if not row.ok:
                    self._upsets += 1
                self._deliver(row if row.kind is not Kind.TIMER else self._with_due_time(row))
                return True
            if row.kind is Kind.WAITING:
                self._waits_until = row.fingerprint
            elif row.kind is Kind.CLAIMED:
                self._waits_until = None  # A later timer's row does not belong to that suspension.
            if row.kind is STEP_FAILED:
                self._note_failed(row)
            elif row.kind is RETRIED:
                self._note_retried(row)
            elif row.kind is FORKED and self._orphaned is not None:
                self._orphaned.tries.clear()  # a fork has fresh tries
        self._forget_rows()
        return False

    def _with_due_time(self, row: Row) -> Row:
        """A row without a due time gets the due time of the suspension before."""
        return row if row.fingerprint is not None else structs.replace(row, fingerprint=self._waits_until)

    def _deliver(self, row: Row) -> None:
        kind, key = row.kind, row.key
        call = self._calls.get(key)  # type: ignore[arg-type]  # None is in no dict of keys
        if call is not None and call.kind is kind:
            if call.name != row.name or call.fingerprint != row.fingerprint:
                if not fits(row, what(call)) or split(call.fingerprint)[1]:
                    if self._finds_its_place(row):
                        return self._deliver(row)
                    likely = self._likely_calls(row, call)
                    if call not in likely:
                        if self._finds_its_place(row, likely):
                            return self._deliver(row)
                        is_other = split(call.fingerprint)[1] and not is_captured(row.fingerprint)
                        is_other = is_other and only_tokens_differ(row.fingerprint, call.fingerprint)
                        if is_other or not self._is_a_changed_input(row, call.key, what(call)):
                            return self._keep_aside(row, call)
            elif kind is STEP and not self._has_started and is_opaque(call.fingerprint):
                self._doubt(call)
            del self._calls[call.key]
            call.done_at = self.loop.turn
            if kind in OURS:
                self._ours -= 1
            assert call.future is not None
            wanted = not call.future.done()  # If it was just cancelled, `give_up` finds its row.
            if not row.ok and (kind is STEP or kind is CHILD_STARTED):
                self._note_failure(row, seen=wanted)
            if call.after:
                self._note_later(call)
            if wanted:
                call.future.set_result(row)
            return None
        if kind is Kind.CANCEL:
            self.cancel_requested = True
            if self._main is not None:
                self._main.cancel()
            return None
        if kind is Kind.MESSAGE:
            self.messages.append(row.name or "")
            return None
        timer = self.loop.timers.get(key) if kind is Kind.TIMER else None  # type: ignore[arg-type]  # has one
        if timer is not None:
            if row.fingerprint is None:
                is_another = self._is_excused(row) and row.at_us < timer.due_us - TIMER_EARLY_US
            else:
                is_another = row.fingerprint != fingerprint_of_timer(timer.due_us)
            if is_another:
                return self._deliver(row) if self._finds_its_place(row) else self._keep_aside(row, None)
            return self.loop.fire(timer, early=row.at_us < timer.due_us - TIMER_EARLY_US)
        if kind is Kind.CHILD and self._children is not None and key in self._children:
            self._children[key] = row
            for future in (self._child_waits or {}).pop(key, ()):
                if not future.done():
                    if not row.ok:
                        self._note_failure(row, seen=True)
                    future.set_result(row)
            return None
        if self._given_up.get(key) is kind:  # type: ignore[arg-type]  # None is not a key
            asked = None if self._given_up_asked is None else self._given_up_asked.get(key)  # type: ignore[arg-type]  # as above
            if asked is not None and not fits(row, asked):
                # Perhaps another call's outcome, which no later wait may take as a late event.
                if self._finds_its_place(row):
                    return self._deliver(row)
                if kind is Kind.TIMER or not self._is_a_changed_input(row, key, asked):  # type: ignore[arg-type]  # found there
                    return self._keep_aside(row, None)
            del self._given_up[key]  # type: ignore[arg-type]  # found there
            if kind is STEP and not row.ok:
                self._note_failure(row, seen=False)
            if kind is EVENT and row.ok and self._late_events is not None:
                self._hand_on(row, self._late_events)
            return None
        if self._finds_its_place(row) or self._finds_its_place(row, self._likely_calls(row, None)):
            return self._deliver(row)
        return self._keep_aside(row, call)

    def _hand_on(self, row: Row, late: LateEvents) -> None:
        assert row.key is not None
        wait = late.waits.pop(row.key)
        for call in self._calls.values():
            if call.kind is EVENT and same_question(call, wait):
                del self._calls[call.key]
                self._let_go(call)  # its wait stays open, and its event goes on to the next wait
                assert call.future is not None
                if not call.future.done():
                    call.future.set_result(row)
                return
        late.rows.append((wait, row))

    def _settle(self) -> Effects:
        if self._more:
            return Effects((), (), None, RUNNING if self._ours else SUSPENDED)
        started = self._take_fresh() if self._fresh else ()
        self._has_started = True
        self._history = None
        self._given_up_asked = None
        if self.changed_inputs is not None:
            for call in started:
                if (row := self.changed_inputs.recorded.get(what(call))) is not None:
                    raise self._diverged(row, call)
        abandoned = self._take_abandoned() if self._abandoned else ()
        first = self.loop.earliest() if self.loop.timers else None
        timer = None if first is None else (first.key, first.due_us)
        if self._ours:
            if (
                started
                and type(started[0]) is AwaitedStart
                and len(started) == self._ours
                and all(type(call) is AwaitedStart for call in started)
            ):
                return Effects(started, abandoned, timer, STARTING)
            return Effects(started, abandoned, timer, RUNNING)
        if not self._calls and timer is None and not self._waits_for_a_child():
            raise stuck(self.loop)
        return Effects(started, abandoned, timer, SUSPENDED)

    def _finish(self, main: InnerTask) -> Effects:
        """Remaining rows must belong to calls of branches that end now."""
        try:
            self.error = main.exception()
        except CancelledError as error:
            self.error = error
        if self.error is None:
            self._result = main.result()
            self.error = self._forgotten()
        if self._failures is not None:
            self._failures.ended_at = self.seen
        self._pass_over()
        abandoned = self._take_abandoned()
        for call in self._calls.values():
            if call.after:
                self._note_later(call)
            self._given_up[call.key] = call.kind
            if call.issued:
                abandoned.append(call)
        self._given_up.update(dict.fromkeys(self.loop.timers, Kind.TIMER))
        children = self._children
        self.close()
        self._children = children
        self._done = True
        return Effects((), abandoned, None, DONE)

    def _pass_over(self) -> None:
        rows = self._rows
        while self._next < len(rows):
            row = rows[self._next]
            self._next += 1
            self.seen = row.seq
            if row.kind not in OUTCOMES or row.kind in _UNASKED:
                continue
            if self._was_asked(row):
                if row.kind is STEP and not row.ok:
                    self._note_failure(row, seen=False)
            elif not self._done:
                self._keep_aside(row, None)
        self._forget_rows()

    def _forget_rows(self) -> None:
        """A parked execution must not keep a long journal in memory."""
        if self._more:
            self._history = self._history or ScopeHistory()
            self._history.read(self._rows, self._next)
            self._history.turn_the_page()
        self._rows.clear()
        self._next = 0

    def _note_failed(self, row: Row) -> None:
        self._orphaned = self._orphaned or OrphanedOutcomes()
        self._orphaned.note_failed(row)

    def _note_taken_back(self, row: Row) -> None:
        for taken in taken_back_by(row):
            self._orphaned = self._orphaned or OrphanedOutcomes()
            self._orphaned.note_taken_back(taken, row, self.seen)

    def _note_retried(self, row: Row) -> None:
        if self._orphaned is not None:
            for taken in taken_back_by(row):
                self._orphaned.forget_tries(taken)
            if row.key is not None:  # its failures were never outcomes
                self._orphaned.tries.pop(row.key, None)

    def _keep_aside(self, row: Row, call: DurableCall | None) -> None:
        """Unless a failed attempt left the row behind, the code has diverged."""
        key, orphaned = row.key, self._orphaned
        if key is None or orphaned is None:
            raise self._diverged(row, call)
        if not self._is_excused(row) and not (key in orphaned.aside and row.kind is Kind.CHILD):
            raise self._diverged(row, call)
        if call is not None:
            del self._calls[key]
            call.key = orphaned.other_key(key, row.seq)
            self._calls[call.key] = call
            if call.kind is CHILD_STARTED and self._children is not None:
                del self._children[key]
                self._children[call.key] = None
        elif key in self.loop.timers:
            self.loop.rename_timer(key, orphaned.other_key(key, row.seq))
        orphaned.aside.setdefault(key, []).append(row)

    def _diverged(self, row: Row, call: DurableCall | None) -> Diverged:
        return diverged(row, call, self._calls.values(), self._main, self.loop)
