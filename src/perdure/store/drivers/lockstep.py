"""Runs many verbs of one transaction side by side, in rounds of queries, and keeps them apart by rows.

In each round every ready verb asks its next query, and queries of one name are one batch. A driver's transaction is

    while batches := lockstep.round():
        for batch in batches:
            lockstep.answer(batch, … the rows of each of its runs …)

**Holds.** Every query names the row to touch (`-- holds:` in the SQL). A verb owns a row from the first touch until the
verb ends; a verb in need of another verb's row sits the round out. A group thus equals some serial order. A verb takes
the rows named by its arguments before its first query, so two verbs for one execution keep their order. Verbs may hold
a row together if all of them only share the row (`-- shares:`).

**Late.** Some rows (`-- late:`, the journal's) matter only to reads of their own table. One statement writes the late
rows of all verbs when such a read comes, or at the end. A read of one key (`-- sees:`) lets rows of other keys wait.

**Failures.** A failure before the first write concerns only the verb's caller. After a write a verb has no savepoint:
`Guilty` names the verb, and the driver runs the group again without it.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from perdure.store.base.interface import Hint, Notify, Query, Rows, Verb
from perdure.store.base.locks import Row, SharedRow
from perdure.store.base.statements import Statement
from perdure.wire.base.errors import PerdureError

LOCK_ORDER: Final = ("topic", "execution", "budget")
"""Kinds of rows in lock order, which prevents deadlocks. Rows of one kind are locked by name."""


class LockstepStuck(Exception):
    """Verbs wait for each other's rows. The driver then runs verbs one after the other."""

    def __init__(self, runs: "Sequence[VerbRun]") -> None:
        super().__init__(f"{len(runs)} verbs wait for each other's rows.")
        self.runs = runs


class Guilty(Exception):
    def __init__(self, run: "VerbRun", error: Exception) -> None:
        super().__init__(str(error))
        self.run = run
        self.error = error


class Barred(Exception):
    """A verb needs a row of another transaction."""

    def __init__(self, run: "VerbRun", rows: Sequence[Row]) -> None:
        super().__init__(f"{run.verb} needs what others hold.")
        self.run = run
        self.rows = rows


class Alone(Exception):
    """A verb needs a transaction while no other transaction of any server is open."""

    def __init__(self, run: "VerbRun") -> None:
        super().__init__(f"{run.verb} must run alone.")
        self.run = run


class VerbRun:
    __slots__ = (
        "coroutine",
        "error",
        "held",
        "hints",
        "named",
        "number",
        "record",
        "result",
        "rows",
        "statement",
        "values",
        "verb",
        "wrote",
    )
    statement: Statement
    values: Sequence[tuple[Any, ...]]
    record: type | None

    def __init__(self, number: int, verb: Verb[Any], named: Sequence[Row]) -> None:
        self.number = number
        self.verb = verb
        self.named = named
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.rows: Sequence[Row] = ()
        self.held: list[Row] = []
        self.hints: list[Hint] = []
        self.wrote = False
        self.result: Any = None
        self.error: Exception | None = None


class QueryBatch(NamedTuple):
    """One statement for several runs. `values` has one tuple per run, or several for `query_many`. No run waits for a
    deferred statement."""

    statement: Statement
    runs: Sequence[VerbRun]
    values: Sequence[Sequence[tuple[Any, ...]]]


class Lockstep:
    def __init__(
        self,
        verbs: Sequence[Verb[Any]],
        queries: Mapping[str, Statement],
        bars: Callable[[Sequence[Row]], bool] | None = None,
        *,
        holds: bool = True,
        alone: bool = False,
    ) -> None:
        """`holds`: verbs hold rows. `bars` returns True for rows not to wait for; rows named by arguments are not asked
        about. `alone`: no other transaction is open."""
        self._queries = queries
        self._holds = holds
        self._bars = bars
        self._alone = alone
        self.runs = [VerbRun(n, verb, verb.locks() if holds else ()) for n, verb in enumerate(verbs)]
        self._waiting: list[VerbRun] = list(self.runs)
        self._live: dict[int, VerbRun] = {}
        self._holders: dict[Row, VerbRun] = {}
        self._sharers: dict[Row, set[int]] = {}
        self._late: dict[str, list[tuple[Any, ...]]] = {}
        self._known: dict[tuple[str, tuple[int, ...]], tuple[int, set[tuple[Any, ...]]]] = {}
        """Distinct values of some columns among the late rows counted so far."""
        self._freed = True

    @property
    def wrote(self) -> bool:
        return any(run.wrote for run in self.runs)

    def touched(self) -> list[Row]:
        rows = {row for run in self.runs for row in run.held if row[0] in LOCK_ORDER}
        return sorted(rows, key=lambda row: (LOCK_ORDER.index(row[0]), row[1]))

    def named(self, kind: str) -> list[Row]:
        return sorted({row for run in self.runs for row in run.named if row[0] == kind})

    def round(self) -> Sequence[QueryBatch]:
        """The next batches; empty once every verb has ended. Raises LockstepStuck, Guilty, Barred or Alone."""
        while True:
            self._start()
            asking: dict[str, list[VerbRun]] = {}
            for number in sorted(self._live):  # arrival order
                run = self._live[number]
                if run.statement.alone and not self._alone:
                    raise Alone(run)
                if self._bars is not None and run.statement.waits and self._bars(run.rows):
                    raise Barred(run, run.rows)
                if self._holds and not self._take(run, run.rows):
                    continue
                asking.setdefault(run.statement.name, []).append(run)
            if asking:
                return [*self._take_late(asking), *self._batches(asking)]
            if not self._live and not self._waiting:
                return [QueryBatch(self._queries[name], (), [self._late.pop(name)]) for name in list(self._late)]
            if not self._freed:
                raise LockstepStuck([*self._live.values(), *self._waiting])

    def _batches(self, asking: dict[str, list[VerbRun]]) -> list[QueryBatch]:
        batches: list[QueryBatch] = []
        for runs in asking.values():
            if len(runs) > 1 and runs[0].rows:
                # All servers lock rows in one order.
                runs.sort(key=_first_row)
            batches.append(QueryBatch(runs[0].statement, runs, [run.values for run in runs]))
        batches.sort(key=lambda batch: batch.statement.holds is None or batch.statement.holds[0] != "topic")
        return batches

    def _start(self) -> None:
        """No verb overtakes another verb with the same named row."""
        if not self._freed:
            return
        self._freed = False
        ahead: set[Row] = set()
        shared_ahead: set[Row] = set()
        still: list[VerbRun] = []
        for run in self._waiting:
            overtakes = any(row in ahead or (row in shared_ahead and type(row) is tuple) for row in run.named)
            if overtakes or not self._take(run, run.named):
                for row in run.named:
                    (shared_ahead if type(row) is SharedRow else ahead).add(row)
                still.append(run)
                continue
            run.coroutine = run.verb.start()
            self._advance(run, None)
        self._waiting = still

    def _take(self, run: VerbRun, rows: Sequence[Row]) -> bool:
        holders, sharers = self._holders, self._sharers
        for row in rows:
            if holders.get(row, run) is not run:
                return False
            if row in sharers and type(row) is tuple and sharers[row] != {run.number}:
                return False
        for row in rows:
            if row in holders:
                continue
            if type(row) is SharedRow:
                if run.number in sharers.setdefault(row, set()):
                    continue
                sharers[row].add(run.number)
            else:
                holders[row] = run
            run.held.append(row)
        return True

    def answer(self, batch: QueryBatch, rows: Sequence[Rows]) -> None:
        """Raises Guilty."""
        if not batch.runs:
            return
        effect, returns = batch.statement.effect, batch.statement.returns
        for run, found in zip(batch.runs, rows, strict=True):
            if effect and (found or not returns):
                run.wrote = True
            del self._live[run.number]
            self._advance(run, found if run.record is None else batch.statement.reader(run.record)(found))

    def _advance(self, run: VerbRun, send: Rows | None) -> None:
        coroutine = run.coroutine
        assert coroutine is not None
        given: Any = send
        try:
            while True:
                asked = coroutine.send(given)
                if type(asked) is Query:
                    if asked.many and not asked.values:
                        given = []
                        continue
                    self._ask(run, asked)
                    if run.statement.late and self._put_off(run):
                        given = []
                        continue
                    self._live[run.number] = run
                    return
                if type(asked) is not Notify:
                    raise TypeError(f"A verb may await queries and hints only, not {asked!r}.")
                run.hints.extend(asked.hints)
                given = None
        except StopIteration as stop:
            run.result = stop.value
        except Exception as error:
            coroutine.close()
            if run.wrote or not isinstance(error, PerdureError):
                raise Guilty(run, error) from error
            run.error = error
            run.hints.clear()
        run.rows = ()
        self._free(run)

    def _put_off(self, run: VerbRun) -> bool:
        """False: another verb holds the row."""
        if self._holds and not self._take(run, run.rows):
            return False
        self._late.setdefault(run.statement.name, []).extend(run.values)
        run.wrote = True
        return True

    def _take_late(self, asking: Mapping[str, Sequence[VerbRun]]) -> list[QueryBatch]:
        if not self._late:
            return []
        due = [late for late in self._late if any(self._needs(name, runs, late) for name, runs in asking.items())]
        for key in [key for key in self._known if key[0] in due]:
            del self._known[key]
        return [QueryBatch(self._queries[name], (), [self._late.pop(name)]) for name in due]

    def _needs(self, name: str, runs: Sequence[VerbRun], late: str) -> bool:
        statement, written = self._queries[name], self._queries[late]
        if written.late not in statement.looks_at:
            return False
        if statement.sees is None or statement.sees[0] != written.late:
            return True
        places = [(written.parameters.index(column), place) for column, place in statement.sees[1]]
        seen = {tuple(values[place] for _, place in places) for run in runs for values in run.values}
        columns = tuple(column for column, _ in places)
        rows = self._late[late]
        read, known = self._known.get((late, columns), (0, set()))
        known.update(tuple(row[column] for column in columns) for row in rows[read:])
        self._known[late, columns] = (len(rows), known)
        return not seen.isdisjoint(known)

    def _ask(self, run: VerbRun, asked: Query) -> None:
        statement = run.statement = self._queries[asked.name]
        values = run.values = statement.many(asked.values) if asked.many else (statement.values(asked.values),)
        run.record = asked.record
        if statement.holds is None or not self._holds:
            run.rows = ()
            return
        kind, place = statement.holds
        run.rows = [(kind, one[place]) for one in values] if len(values) > 1 else ((kind, values[0][place]),)
        if statement.shares:
            run.rows = [SharedRow(row) for row in run.rows]

    def _free(self, run: VerbRun) -> None:
        self._freed = True
        for row in run.held:
            if type(row) is SharedRow:
                self._sharers[row].discard(run.number)
                if not self._sharers[row]:
                    del self._sharers[row]
            elif self._holders.get(row) is run:
                del self._holders[row]

    def close(self) -> None:
        for run in self.runs:
            if run.coroutine is not None:
                run.coroutine.close()


def _first_row(run: VerbRun) -> tuple[str, str]:
    kind, value = run.rows[0]
    return kind, str(value)
