"""Compares each fork with the source in the fork's commit, and later with the fork's bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.steering.forks import Fork, ForkExecution, RetryExecution

Rows = list[tuple[Any, ...]]

COLUMNS = ("seq", "at_us", "kind", "attempt", "key", "name", "fingerprint", "ok", "value", "started_at_us", "tries")


class JournalRow(NamedTuple):
    seq: int
    at_us: int
    kind: str
    attempt: int
    key: str | None
    name: str | None
    fingerprint: Any
    ok: int
    value: bytes | None
    started_at_us: int | None
    tries: int | None


class ForkAudit:
    """Known forks. The audit reads tables and shares nothing with the verbs."""

    def __init__(self, rows: Callable[..., Rows], broken: Callable[[str, str], Exception]) -> None:
        self._rows = rows
        self._broken = broken
        self._keys: dict[str, str | None] = {}
        """The execution whose idempotency keys another one must have; None: the first body tells."""
        self._steps: dict[str, set[str]] = {}
        """The keys of steps that a fork has kept, except after failures taken back, because calls may then come in
        another order."""
        self._drawn: dict[tuple[str, str], object] = {}
        self.born: set[str] = set()
        """Executions born in the present commit: the order within a commit is unknown."""

    def journal(self, id: str, before: int = 1 << 62) -> list[JournalRow]:
        sql = f"SELECT {', '.join(COLUMNS)} FROM journal WHERE execution_id = ? AND seq < ? ORDER BY seq"
        return [JournalRow(*row) for row in self._rows(sql, id, before)]

    # --- the copy ----------------------------------------------------------------------------------------------------

    def made(self, request: ForkExecution | RetryExecution, fork: Fork) -> list[JournalRow]:
        """The rows that the fork has kept; raises if the source's differ."""
        id, cut = fork.execution_id, fork.kept_rows + 1
        source, kept, own = self.journal(fork.forked_from), self.journal(id, cut), self.journal(id)[cut - 1 :]
        self._check_cut(request, fork, source)
        if len(kept) != fork.kept_rows:
            raise self._broken("forks keep rows", f"{id} has {len(kept)} of {fork.kept_rows} rows")
        edits = {} if isinstance(request, RetryExecution) or request.edits is None else request.edits.steps
        settled = {row.key for row in kept if row.kind == "child"}
        given = {row.key for row in own if row.kind == "child"}
        for old, new in zip(source, kept, strict=False):
            wanted = old
            if old.kind == "child_started" and old.ok and old.key not in settled | given:
                wanted = old._replace(value=new.value)
                child = self._asked_again(id, old, new)
                self._keys[child] = child if request.fresh_keys else self._of(json.loads(old.value or b"null"))
            elif old.key in edits and old.kind == "step":
                wanted = old._replace(ok=1, value=bytes(edits[old.key]))
            elif isinstance(request, RetryExecution) and (old.kind, old.ok, new.kind) == ("step", 0, "step_failed"):
                wanted = old._replace(kind="step_failed")
            if new != wanted:
                raise self._broken("forks keep rows", f"row {old.seq} of {id} is {new}, that of its source {old}")
        if not own or own[0].kind != "forked" or own[0].name != fork.forked_from:
            raise self._broken("forks keep rows", f"{id} has no row `forked` after its {fork.kept_rows} kept rows")
        taken_back = {old.seq for old, new in zip(source, kept, strict=False) if old.kind != new.kind}
        told = {seq for row in own if row.kind == "retried" for seq in json.loads(row.value or b"[]")}
        if not taken_back <= told:
            raise self._broken("forks keep rows", f"{id} took back rows {taken_back}, and noted {told}")
        self._keys[id] = id if request.fresh_keys else self._of(fork.forked_from)
        if not any(row.kind == Kind.RETRIED for row in (*source, *own)):
            self._steps[id] = {row.key for row in kept if row.kind == Kind.STEP and row.key is not None}
        return kept

    def _check_cut(self, request: ForkExecution | RetryExecution, fork: Fork, source: list[JournalRow]) -> None:
        wanted = None
        if request.from_step is not None:
            outcomes = {"step_failed", *OUTCOMES - {Kind.CANCEL}}
            wanted = min(row.seq for row in source if row.key == request.from_step and row.kind in outcomes) - 1
        elif isinstance(request, ForkExecution):
            edits = request.edits.steps if request.edits is not None else {}
            wanted = max((row.seq for row in source if row.kind == "step" and row.key in edits), default=0)
        elif request.from_end:
            wanted = len(source) - 1
        if wanted is not None and fork.kept_rows != wanted:
            raise self._broken("forks keep rows", f"{request} kept {fork.kept_rows} rows, not {wanted}")

    def _asked_again(self, fork_id: str, old: JournalRow, new: JournalRow) -> str:
        """A child that was open is asked for again, as a child of the fork."""
        child: str = json.loads(new.value or b"null")
        found = self._rows("SELECT parent_execution_id, step_key FROM executions WHERE id = ?", child)
        if found != [(fork_id, old.key)]:
            raise self._broken("forks ask for open children again", f"row {old.seq} of {fork_id} names {child}")
        return child

    # --- chance ------------------------------------------------------------------------------------------------------

    def drew(self, id: str, source: str | None, key: str, number: object) -> None:
        """The code has drawn a number right before it called a step."""
        self._drawn[id, key] = number
        wanted = number if source is None else self._drawn.get((source, key), number)
        if key in self._steps.get(id, ()) and number != wanted:
            raise self._broken("forks draw the same", f"{id} drew {number} before {key!r}, and its source {wanted}")

    # --- idempotency keys --------------------------------------------------------------------------------------------

    def _of(self, id: str) -> str | None:
        return self._keys.get(id, id)

    def child(self, id: str, parent: str, key: str) -> None:
        """A child started by a fork's code, or below, has the keys of the earlier child there."""
        if parent in self._keys and id not in self._keys:
            self._keys[id] = id if self._keys[parent] == parent else self._started_before(parent, key)

    def _started_before(self, parent: str, key: str) -> str | None:
        [(source,)] = self._rows("SELECT forked_from FROM executions WHERE id = ?", parent)
        first = self._of(parent)
        for of in (source, first):
            for (told,) in self._rows(
                "SELECT value FROM journal WHERE execution_id = ? AND key = ? AND kind = 'child_started' AND ok = 1",
                of,
                key,
            ):
                old = json.loads(told)
                if old in self.born:
                    return None
                if of == first or old in self._keys:
                    return self._of(old)
        return None

    def body(self, id: str, key: str, idempotency_key: str) -> None:
        """A step's body begins with this idempotency key."""
        wanted = self._of(id)
        found = idempotency_key.removesuffix(f":{key}")
        if wanted is None:
            wanted = self._keys[id] = found
        if found != wanted:
            raise self._broken(
                "I3 forks keep their keys", f"{key!r} of {id} has the idempotency key {idempotency_key!r}, not {wanted}"
            )
