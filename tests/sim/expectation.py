"""The required results of a script, told from the script, the topics and outside requests; not from the engine."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.sim import scripts
from tests.sim.audit import SimStore, Violation, matches
from tests.sim.scripts import Op, Script


class Ended(NamedTuple):
    """An execution as it stands at the end."""

    id: str
    phase: str
    result: Any
    error: str | None
    created_at_us: int
    cancelled_by: str | None
    parent_id: str | None


class Asked(NamedTuple):
    """The acts reported to callers as done."""

    cancelled: set[str]
    """Executions with a tried cancel."""
    answers: dict[tuple[str, str], object]
    """The first accepted answer to a suspended step."""


class Expectation:
    """Checks every execution of a run against its script."""

    def __init__(self, store: SimStore, asked: Asked) -> None:
        self._store = store
        self._asked = asked
        self._ended: dict[str, Ended] = {}
        self._children: dict[tuple[str, str], str] = {}
        self.topics: dict[str, list[tuple[int, bytes, int]]] = {}
        self._taken: dict[tuple[str, str], int | None] = {}
        self._decided = set(
            store.rows("SELECT execution_id, key FROM acts WHERE action = 'complete' OR action = 'fail'")
        )
        self._timed_out = set(store.rows("SELECT execution_id, key FROM acts WHERE action = 'time_out'"))
        self._forked_from: dict[str, str] = dict(
            store.rows("SELECT id, forked_from FROM executions WHERE forked_from IS NOT NULL")
        )
        for row in store.rows(
            "SELECT id, phase, result, error, created_at_us, cancelled_by, parent_execution_id, step_key "
            "FROM executions ORDER BY id"
        ):
            id, phase, result, error, created_at_us, cancelled_by, parent, step_key = row
            value = None if result is None else json.loads(result)
            if id in self._forked_from:  # it may take the events that its source could take
                created_at_us = self._ended[self._forked_from[id]].created_at_us
            self._ended[id] = Ended(id, phase, value, error, created_at_us, cancelled_by, parent)
            if parent is not None:
                self._children[parent, step_key] = id
        for topic, seq, data, at_us in store.rows(
            "SELECT topic, seq, data, created_at_us FROM events ORDER BY topic, seq"
        ):
            self.topics.setdefault(topic, []).append((seq, data, at_us))
        for id, key, seq in store.rows("SELECT execution_id, key, event_seq FROM waits WHERE topic IS NOT NULL"):
            self._taken[id, key] = seq

    def check(self, id: str, script: Script, cancelled: bool = False) -> None:
        """Raises Violation if the execution, or a child, ended in a wrong way."""
        ended = self._ended[id]
        cancelled = cancelled or id in self._asked.cancelled or ended.cancelled_by is not None
        what = f"{script.name} ({id}) ended {ended.phase}"
        if ended.cancelled_by == "system" and script.timeout is None and not cancelled:
            raise Violation("results", f"{what}, timed out without a time-out")
        if ended.phase == "cancelled":
            if not cancelled:
                raise Violation("results", f"{what}, and nobody asked for it")
        elif ended.error is not None and ended.error.startswith("POISONED"):
            pass  # whether it was given up too early is the audit's to say
        elif scripts.is_poison(script):
            raise Violation(
                "I9 poison is contained", f"{what}, in spite of its poison: {ended.result!r} {ended.error!r}"
            )
        elif (key := self._fails_with(id, script.ops)) is not None:
            # Which failure came first among branches is open; that it failed is not.
            if ended.phase != "failed":
                raise Violation("results", f"{what}, though step {key!r} must fail: {ended.result!r}")
        elif ended.phase == "failed" and any(
            isinstance(op, scripts.Step) and op.holds for op in scripts.flat(script.ops)
        ):
            pass  # an act has failed the step, or the execution
        elif ended.phase != "completed":
            raise Violation("results", f"{what}: {ended.error!r}")
        elif script.returns:
            self._returned(ended, script.ops[-1])
        else:
            self._ops(ended, script.ops, ended.result, {})
        for op in scripts.flat(script.ops):
            if isinstance(op, scripts.Child) and (child := self._children.get((id, op.key))) is not None:
                self.check(child, op.script, cancelled)

    def _returned(self, ended: Ended, op: Op) -> None:
        """The result is the step's recorded outcome, and no cancel came before that."""
        self._op(ended, op, ended.result, {})
        [(kind, ok, value), *_] = self._store.rows(
            "SELECT kind, ok, value FROM journal WHERE execution_id = ? AND (kind = 'cancel_asked' OR (kind = 'step' "
            "AND key = ?)) ORDER BY seq",
            ended.id,
            getattr(op, "key", None),
        )
        if kind != "step" or (ok and json.loads(value) != ended.result):
            raise Violation("the end saw the journal", f"{ended.id} returned {ended.result!r} after {kind} {value!r}")

    def _ops(self, ended: Ended, ops: tuple[Op, ...], results: list[Any], taken: dict[str, dict[int, bool]]) -> None:
        if len(ops) != len(results):
            raise Violation("results", f"{ended.id} has {len(results)} results of {len(ops)} operations: {results!r}")
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, scripts.Together):
                for branch, part in zip(op.branches, result, strict=True):
                    self._ops(ended, branch, part, taken)
            else:
                self._op(ended, op, result, taken)

    def _op(self, ended: Ended, op: Op, result: Any, taken: dict[str, dict[int, bool]]) -> None:
        right = True
        if isinstance(op, scripts.Step):
            failed = op.fails >= op.tries
            held = (f"{word}:{op.key}" for word in ("failed", "given", "edited"))
            right = result == f"failed:{op.key}" if failed else str(result).endswith(f":{op.key}")
            right = right or ((op.holds or (ended.id, op.key) in self._decided) and result in held)
        elif isinstance(op, scripts.Sleep):
            right = result == "slept"
        elif isinstance(op, scripts.Publish):
            right = result == "published"
        elif isinstance(op, scripts.AnswerParent):
            # A parent that has failed, was cancelled or has an answer takes no other one.
            parent = self._ended[ended.parent_id or ""]
            right = result == "answered" or parent.phase != "completed" or "from outside" in json.dumps(parent.result)
            right = right or not isinstance(parent.result, list)  # it returned another operation's outcome
            right = right or parent.id in self._forked_from  # which may have kept an earlier child's answer
            right = right or (parent.id, op.step_key) in self._timed_out
        elif isinstance(op, scripts.Suspended):
            first = self._asked.answers.get((ended.id, op.key))
            allowed = ("from outside", "from the child")
            right = (result == "timeout" and self._may_time_out(ended, op)) or (
                str(result).startswith(allowed) and first in (None, result)
            )
        elif isinstance(op, scripts.Event):
            right = self._event(ended, op, result, taken.setdefault(op.topic, {}))
        elif isinstance(op, scripts.Child):
            child = self._ended.get(self._child_of(ended.id, op.key))
            right = child is not None and result == [child.phase, child.result]
            given = (["completed", f"given:{op.key}"], ["failed", None])
            right = right or ((ended.id, op.key) in self._decided and result in given)
        if not right:
            raise Violation("results", f"{op} of {ended.id} had the outcome {result!r}")

    def _may_time_out(self, ended: Ended, op: scripts.Suspended | scripts.Event) -> bool:
        return op.timeout is not None or (ended.id, op.key) in self._timed_out

    def _child_of(self, id: str, key: str) -> str:
        """The execution's own child, or a child kept from the source."""
        while (id, key) not in self._children and id in self._forked_from:
            id = self._forked_from[id]
        return self._children.get((id, key), "")

    def _fails_with(self, id: str, ops: tuple[Op, ...]) -> str | None:
        """A step that always fails, uncaught and without a value from an act."""
        for op in scripts.flat(ops):
            if not isinstance(op, scripts.Step) or op.caught or op.holds or (id, op.key) in self._decided:
                continue
            if op.fails >= op.tries:
                return op.key
        return None

    def _event(self, ended: Ended, op: scripts.Event, result: Any, taken: dict[int, bool]) -> bool:
        """The first fitting event since the execution's creation that no earlier wait of the execution took."""
        if result == "timeout":
            late = self._taken.get((ended.id, op.key))
            if late is not None:
                taken[late] = False  # it came while the worker said that the time was over: a later wait may have it
            return self._may_time_out(ended, op)
        for seq, data, at_us in self.topics.get(op.topic, ()):
            if at_us < ended.created_at_us or not matches(op.number, data) or taken.get(seq, False):
                continue
            if at_us == ended.created_at_us and seq != result:
                continue  # which of the two came first the time does not tell
            if seq == result:
                taken[seq] = True
                return True
            if seq not in taken:
                return False
        return False
