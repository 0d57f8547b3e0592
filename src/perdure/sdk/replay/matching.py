"""Finds the call for a row of the journal (rule 5 of the machine)."""

import contextvars
import random
import types
from collections.abc import Callable, Iterator, Sequence

from perdure.sdk.base.errors import Diverged
from perdure.sdk.payloads.fingerprints import (
    changed_objects,
    fingerprint_of_captured,
    is_captured,
    numbers_of,
    only_tokens_differ,
    split,
    with_tokens,
    without_numbers,
)
from perdure.sdk.replay.calls import EVENT, STEP, DurableCall
from perdure.sdk.replay.determinism_errors import side
from perdure.sdk.replay.doubts import Doubts
from perdure.sdk.replay.handles import InnerTask
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.open_calls import OpenCalls
from perdure.sdk.replay.task_identity import (
    ChangedInputs,
    ScopeHistory,
    Swap,
    What,
    has_siblings,
    is_scope,
    parse_number,
    parse_scopes,
    swapped,
    swaps,
)
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.runs.executions import Row


class Matching(OpenCalls):
    __slots__ = (
        "_base",
        "_has_started",
        "_history",
        "_next",
        "_rows",
        "changed_inputs",
        "doubts",
        "has_findings",
        "strict",
    )

    def __init__(self, loop: InnerLoop, *, strict: bool) -> None:
        super().__init__(loop)
        self.strict = strict
        self.changed_inputs: ChangedInputs | None = None
        """Strict workflows diverge instead."""
        self.doubts: Doubts | None = None
        self.has_findings = False
        self._base = contextvars.Context()
        """The workflow's variables at the beginning."""
        self._rows: list[Row] = []
        self._next = 0
        self._has_started = False
        self._history: ScopeHistory | None = None

    def identify(self, call: DurableCall, variables: contextvars.Context) -> None:
        """Complete a step's fingerprint by what the task brings along, such as context `variables`."""
        try:
            has_changed = variables != self._base  # one look if no variable was set since
        except Exception:  # a user's __eq__
            has_changed = True
        if has_changed:
            self.doubts = self.doubts or Doubts(self._base)
            call.fingerprint = with_tokens(call.fingerprint, self.doubts.variables(variables))
        if self.strict and not split(call.fingerprint)[1]:
            call.fingerprint = with_tokens(call.fingerprint, ["="])  # older releases wrote no token
        loop = self.loop
        is_alone = loop.tasks_made == 1 or len(loop.tasks()) == 1
        if is_alone and not (self._calls or loop.timers or loop.ready or len(self._made or ()) > 1):
            return  # no other code can make a call before its outcome
        self.doubts = self.doubts or Doubts(self._base)
        self.doubts.note(call, loop)

    def _finds_its_place(self, row: Row, calls: Sequence[DurableCall] | None = None) -> bool:
        """Give `row`'s call the row's key. The call has the same fingerprint, or is one of `calls`."""
        key = row.key
        if key is None or self._has_started:
            return False
        keys = self._matching_keys(row) if calls is None else [call.key for call in calls]
        found = [path for other in keys if (path := swaps(other, key))]
        for path in sorted(found, key=len):
            if all(self._may_swap(swap, path[:at]) for at, swap in enumerate(path)):
                for swap in path:
                    self._swap(swap)
                return True
        return False

    def _matching_keys(self, row: Row) -> list[str]:
        if row.kind is Kind.TIMER:
            timers = self.loop.timers.values()
            return [timer.key for timer in timers if fingerprint_of_timer(timer.due_us) == row.fingerprint]
        if row.fingerprint is None and row.kind in (EVENT, Kind.RESUME):
            return []  # Rows of the first releases do not record the question.
        kind, name, fingerprint = what(row)
        calls = [call for call in self._calls.values() if call.fingerprint == fingerprint]
        return [call.key for call in calls if call.kind is kind and call.name == name]

    def _likely_calls(self, row: Row, call: DurableCall | None) -> list[DurableCall]:
        """The calls that may own `row` although changeable parts of the fingerprint differ. `call` has `row`'s key."""
        name = row.name or (call and call.name)  # an act's row may have none
        rivals = [one for one in self._calls.values() if one.kind is row.kind and one.name == name]
        if not any(split(one.fingerprint)[1] for one in rivals):
            return []
        if is_captured(row.fingerprint):  # of an older release
            same = [one for one in rivals if fingerprint_of_captured(one.request.fn) == row.fingerprint]
            return same or ([] if call is None else [call])
        head, tokens = split(row.fingerprint)
        is_old = not tokens and row.fingerprint is None  # it may answer any input
        same = rivals if is_old else [one for one in rivals if split(one.fingerprint)[0] == head]
        if not tokens and self.strict:
            return [call] if call in same else same
        prints = {one.fingerprint for one in self._unasked() if one.kind is row.kind and one.name == name}
        made = prints if is_old else {one for one in prints if split(one)[0] == head}
        near = same if len(same) == 1 else _nearest(same, tokens)
        may_come = len(made.union(one.fingerprint for one in same)) > 1 if made else False
        if not may_come and (coming := [*self._to_come(rivals[0])]):
            is_step = near and row.kind is STEP
            changed = changed_objects(near[0].request, near[0].fingerprint, tokens) if is_step else None
            may_come = not all(_sees(task, changed) for task in coming)
        if not may_come and len(rivals) == 1:
            return same
        is_sure = near and not may_come
        if not is_sure:
            near = [call] if call in same else same if call is None or not tokens else []
        if tokens:
            near = [one for one in near if numbers_of(split(one.fingerprint)[1]) == numbers_of(tokens)]
        if near and not is_sure:
            self.doubts = self.doubts or Doubts(self._base)
            self.doubts.tell(near[0])
        return near

    def _unasked(self) -> list[DurableCall]:
        return [one for one in self._made or () if isinstance(one, DurableCall)]

    def _to_come(self, call: DurableCall) -> Iterator[InnerTask]:
        """Tasks that may still make a call similar to `call`."""
        own = list(parse_scopes(call.key))
        tasks = self.loop.tasks() if own else []
        scopes = (task.own_scope for task in tasks if call.name in task.own_scope.counts)
        made = {scope for one in scopes for scope in parse_scopes(one.prefix)}
        for task in tasks:
            scope = task.own_scope.prefix
            if task.done() or scope in made or scope.count("/") > len(own):  # tasks deeper down make longer keys
                continue
            if has_siblings(scope, own):
                yield task

    def _doubt(self, call: DurableCall) -> None:
        """A replay gives an outcome to a call with an object that looks like another."""
        doubts = self.doubts
        assert doubts is not None
        made = [one for one in self._unasked() if one.name == call.name]
        if doubts.is_told(call) or (not made and doubts.is_cleared(call, self.loop.tasks_made)):
            return
        opaque = doubts.parts(call)[1]
        if any(doubts.is_alike(one, call) for one in made):
            doubts.tell(call)
        elif all(_sees(task, opaque) for task in self._to_come(call)):
            doubts.clear(call, self.loop.tasks_made)
        else:
            doubts.tell(call)

    def _tell(self, doubts: Doubts) -> None:
        self.has_findings = True
        for call, text, source in doubts.describe():
            if self.strict:
                what = side(call.kind, call.key, call.name)
                raise Diverged(text, seq=self.seen, recorded=what, asked=what, source=source)

    def _may_swap(self, swap: Swap, above: list[Swap]) -> bool:
        """True if the two can change places after the outer swaps `above`."""
        one, other = swap
        if parse_number(one) < parse_number(other):
            now = other
            for outer in reversed(above):
                now = swapped(now, outer)
            if not self._was_made(now):
                return False  # A later call would get the same number.
        if not is_scope(one):
            return True
        self._history = self._history or ScopeHistory()
        self._history.read(self._rows, self._next - 1)
        return self._history.same(one, other)

    def _was_made(self, place: str) -> bool:
        if is_scope(place):
            return self.loop.has_task(place)
        return place in self._calls or place in self._given_up or place in self.loop.timers

    def _is_a_changed_input(self, row: Row, key: str, asked: What) -> bool:
        """True if `row` answers `key` with another input and nothing suggests a mix-up."""
        kind, name, fingerprint = asked
        if name != (row.name or name):
            return False
        captured = only_tokens_differ(row.fingerprint, fingerprint)
        if self._is_excused(row):
            return captured
        if not captured and (self.strict or self._has_a_sibling(key)):
            return False
        recorded: What = (kind, name, row.fingerprint)
        if any(other.fingerprint == row.fingerprint and what(other) == recorded for other in self._calls.values()):
            return False
        self.has_findings = True
        if self.changed_inputs is None:
            self.changed_inputs = ChangedInputs()
        return self.changed_inputs.add(None if captured else key, asked, recorded, row)

    def _has_a_sibling(self, key: str) -> bool:
        """True if a call of another task may be mixed up with this call."""
        own = list(parse_scopes(key))
        if not own:
            call = self._calls.get(key)
            others = (*self._calls.values(), *self._unasked())
            return call is not None and any(one is not call and one.name == call.name for one in others)
        return any(has_siblings(task.own_scope.prefix, own) for task in self.loop.living_tasks())


def fits(row: Row, asked: What) -> bool:
    # Rows of some kinds have no name, and old rows of some kinds no fingerprint.
    _, name, fingerprint = asked
    return (row.name is None or row.name == name) and (row.fingerprint in (None, fingerprint))


def what(one: DurableCall | Row) -> What:
    return one.kind, one.name, one.fingerprint


def _nearest(calls: Sequence[DurableCall], tokens: Sequence[str]) -> list[DurableCall]:
    """The equal calls with each of `tokens` found in any call. Tokens of no call have changed by themselves."""
    tokens = without_numbers(tokens)
    found = [(call, without_numbers(split(call.fingerprint)[1])) for call in calls]
    found = [(call, theirs) for call, theirs in found if len(theirs) == len(tokens)]
    stay = [at for at, one in enumerate(tokens) if any(theirs[at] == one for _, theirs in found)]
    near = [call for call, theirs in found if all(theirs[at] == tokens[at] for at in stay)]
    is_one = len({tuple(theirs) for call, theirs in found if call in near}) == 1
    return near if is_one else []


def _sees(task: InnerTask, objects: Sequence[object] | None) -> bool:
    """Whether the task's code has these very objects, which then cannot tell the task from others."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    if frame is None or objects is None:
        return False
    values = [*frame.f_locals.values()]
    for coro in [value for value in values if type(value) is types.CoroutineType]:  # it awaits one that it was given
        values += coro.cr_frame.f_locals.values() if coro.cr_frame is not None else ()
    for value in [*values]:
        try:
            values += vars(value).values()
        except Exception:  # it has none, or user code raises
            continue
    seen = {*map(id, values), *map(id, frame.f_globals.values())}
    return seen.issuperset(map(id, objects))


class Draws(random.Random):
    """A `random.Random` with a count of its numbers."""

    def __init__(self, seed: str, drew: Callable[[], None]) -> None:
        self._drew = drew
        super().__init__(seed)

    def random(self) -> float:
        self._drew()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self._drew()
        return super().getrandbits(k)
