"""Many verbs of one transaction, side by side: rounds of queries, and the rows that keep the verbs apart.

A driver that sends one statement at a time waits for the network once per query. Here the verbs of a group advance
together instead: in each round every verb that can go on asks its next query, queries of one name are sent as one
batch, and the answers go back to their verbs. This module decides who may ask; it does no input or output, so a
driver's transaction is

    while batches := lockstep.round():
        for batch in batches:
            lockstep.answer(batch, … the rows of each of its runs …)

**Holds.** Locks of the database do not keep verbs of one transaction apart. So every query says which row it touches
(`-- holds:` in the SQL), a row belongs to one verb from its first touch until the verb ends, and a verb whose next
query touches a row of another sits the round out. Each verb therefore sees the rows it decides by as if it ran alone,
and a group equals some serial order. What a verb's arguments name is taken before its first query, in the order of
arrival: two verbs for one execution keep their order.

**Late.** Rows that only looks at their table need (`-- late:`, the journal's) are written when such a look comes, or at
the end of the transaction, those of all verbs by one statement. Their verbs go on meanwhile. A look that sees only rows
of one key (`-- sees:`) lets those of all others wait on.

**A verb that fails** before it wrote concerns only its caller. After a write there is no savepoint to go back to:
`Guilty` names the run, and the driver rolls the group back and runs it again without that verb.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from perdure.store.interface import Hint, Query, Rows, Tell, Verb
from perdure.store.locks import Row
from perdure.store.queries import Statement
from perdure.wire.errors import PerdureError

LOCK_ORDER: Final = ("topic", "execution", "budget")
"""Rows of several kinds are locked in this order, and those of one kind by name: that is what prevents deadlocks."""


class Stuck(Exception):
    """Verbs wait for each other's rows. They are run one after the other instead."""

    def __init__(self, runs: "Sequence[Run]") -> None:
        super().__init__(f"{len(runs)} verbs wait for each other's rows.")
        self.runs = runs


class Guilty(Exception):
    """A verb failed after it had written: the whole group has to be rolled back, and this one runs alone."""

    def __init__(self, run: "Run", error: Exception) -> None:
        super().__init__(str(error))
        self.run = run
        self.error = error


class Barred(Exception):
    """A verb needs a row that others are known to hold: it is not worth to wait for, with the whole group."""

    def __init__(self, run: "Run", rows: Sequence[Row]) -> None:
        super().__init__(f"{run.verb} needs what others hold.")
        self.run = run
        self.rows = rows


class Alone(Exception):
    """A verb must have a transaction to itself, in which no other of any server has any part."""

    def __init__(self, run: "Run") -> None:
        super().__init__(f"{run.verb} must run alone.")
        self.run = run


class Run:
    """One run of a verb: where it is, what it holds, and what became of it."""

    __slots__ = ("asked", "coroutine", "error", "held", "hints", "named", "number", "result", "verb", "wrote")

    def __init__(self, number: int, verb: Verb[Any], named: Sequence[Row]) -> None:
        self.number = number
        self.verb = verb
        self.named = named
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.asked: _Asked | None = None
        self.held: list[Row] = []
        self.hints: list[Hint] = []
        self.wrote = False
        self.result: Any = None
        self.error: Exception | None = None


class _Asked(NamedTuple):
    statement: Statement
    values: Sequence[tuple[Any, ...]]
    rows: Sequence[Row]
    """What it touches."""
    many: bool
    record: type | None = None


class Batch(NamedTuple):
    """One statement for several runs; `values` has, for each run, one tuple or (for `query_many`) several. No run waits
    for a statement that was put off."""

    statement: Statement
    runs: Sequence[Run]
    values: Sequence[Sequence[tuple[Any, ...]]]


class Lockstep:
    """The verbs of one group, from their start to their ends."""

    def __init__(
        self,
        verbs: Sequence[Verb[Any]],
        queries: Mapping[str, Statement],
        bars: Callable[[Sequence[Row]], bool] | None = None,
        *,
        holds: bool = True,
        alone: bool = False,
    ) -> None:
        """`holds`: verbs hold rows. Looks and lone verbs need not. `bars` tells whether one of some rows must not be
        waited for; the rows that arguments name are not among them. `alone`: no other transaction is under way."""
        self._queries = queries
        self._holds = holds
        self._bars = bars
        self._alone = alone
        self.runs = [Run(n, verb, verb.locks() if holds else ()) for n, verb in enumerate(verbs)]
        self._waiting: list[Run] = list(self.runs)
        self._live: dict[int, Run] = {}
        self._holders: dict[Row, Run] = {}
        self._late: dict[str, list[tuple[Any, ...]]] = {}
        self._known: dict[tuple[str, tuple[int, ...]], tuple[int, set[tuple[Any, ...]]]] = {}
        """Of what was put off, the values of some columns, and of how many rows: each look reads only the newest."""
        self._freed = True

    @property
    def wrote(self) -> bool:
        """Whether anything was written."""
        return any(run.wrote for run in self.runs)

    def touched(self) -> list[Row]:
        """Every row that some verb holds or held so far, in lock order."""
        rows = {row for run in self.runs for row in run.held if row[0] in LOCK_ORDER}
        return sorted(rows, key=lambda row: (LOCK_ORDER.index(row[0]), row[1]))

    def named(self, kind: str) -> list[Row]:
        """The rows of a kind that the verbs' arguments name."""
        return sorted({row for run in self.runs for row in run.named if row[0] == kind})

    def round(self) -> Sequence[Batch]:
        """What can be asked now, one batch per statement; empty once every verb has ended. Raises Stuck, Guilty,
        Barred or Alone."""
        while True:
            self._start()
            asking: dict[str, list[Run]] = {}
            for number in sorted(self._live):  # arrival order
                run = self._live[number]
                asked = run.asked
                assert asked is not None
                if asked.statement.alone and not self._alone:
                    raise Alone(run)
                if self._bars is not None and asked.statement.waits and self._bars(asked.rows):
                    raise Barred(run, asked.rows)
                if self._holds and not self._take(run, asked.rows):
                    continue
                asking.setdefault(asked.statement.name, []).append(run)
            if asking:
                return [*self._take_late(asking), *self._batches(asking)]
            if not self._live and not self._waiting:
                return [Batch(self._queries[name], (), [self._late.pop(name)]) for name in list(self._late)]
            if not self._freed:
                raise Stuck([*self._live.values(), *self._waiting])

    def _batches(self, asking: dict[str, list[Run]]) -> list[Batch]:
        batches: list[Batch] = []
        for runs in asking.values():
            if len(runs) > 1 and runs[0].asked is not None and runs[0].asked.rows:
                # Servers that lock several rows do it in one order, or they would wait for each other.
                runs.sort(key=_first_row)
            statement = runs[0].asked.statement if runs[0].asked is not None else None
            assert statement is not None
            batches.append(Batch(statement, runs, [run.asked.values for run in runs if run.asked is not None]))
        batches.sort(key=lambda batch: batch.statement.holds is None or batch.statement.holds[0] != "topic")
        return batches

    def _start(self) -> None:
        """Start the verbs whose named rows are free, in order; nobody overtakes a verb that names the same row."""
        if not self._freed:
            return
        self._freed = False
        ahead: set[Row] = set()
        still: list[Run] = []
        for run in self._waiting:
            if any(row in self._holders or row in ahead for row in run.named):
                ahead.update(run.named)
                still.append(run)
                continue
            self._take(run, run.named)
            run.coroutine = run.verb.start()
            self._advance(run, None)
        self._waiting = still

    def _take(self, run: Run, rows: Sequence[Row]) -> bool:
        holders = self._holders
        for row in rows:
            if holders.get(row, run) is not run:
                return False
        for row in rows:
            if row not in holders:
                holders[row] = run
                run.held.append(row)
        return True

    def answer(self, batch: Batch, rows: Sequence[Rows]) -> None:
        """Send the rows of each run in, and let it go on to its next query or its end. Raises Guilty."""
        if not batch.runs:
            return
        effect, returns = batch.statement.effect, batch.statement.returns
        for run, found in zip(batch.runs, rows, strict=True):
            if effect and (found or not returns):
                run.wrote = True
            del self._live[run.number]
            record = run.asked.record if run.asked is not None else None
            self._advance(run, found if record is None else batch.statement.records(record, found))

    def _advance(self, run: Run, send: Rows | None) -> None:
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
                    run.asked = self._ask(asked)
                    if run.asked.statement.late and self._put_off(run, run.asked):
                        given = []
                        continue
                    self._live[run.number] = run
                    return
                if type(asked) is not Tell:
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
        run.asked = None
        self._free(run)

    def _put_off(self, run: Run, asked: _Asked) -> bool:
        """Let what can be written late go on waiting for company; its verb need not. False: its row is another's."""
        if self._holds and not self._take(run, asked.rows):
            return False
        self._late.setdefault(asked.statement.name, []).extend(asked.values)
        run.wrote = True
        return True

    def _take_late(self, asking: Mapping[str, Sequence[Run]]) -> list[Batch]:
        """What was put off and must be there before these statements."""
        if not self._late:
            return []
        due = [late for late in self._late if any(self._needs(name, runs, late) for name, runs in asking.items())]
        for key in [key for key in self._known if key[0] in due]:
            del self._known[key]
        return [Batch(self._queries[name], (), [self._late.pop(name)]) for name in due]

    def _needs(self, name: str, runs: Sequence[Run], late: str) -> bool:
        """Whether what runs ask for looks at rows of those that were put off."""
        statement, written = self._queries[name], self._queries[late]
        if written.late not in statement.looks_at:
            return False
        if statement.sees is None or statement.sees[0] != written.late:
            return True
        places = [(written.parameters.index(column), place) for column, place in statement.sees[1]]
        seen = {
            tuple(values[place] for _, place in places)
            for run in runs
            if run.asked is not None
            for values in run.asked.values
        }
        columns = tuple(column for column, _ in places)
        rows = self._late[late]
        read, known = self._known.get((late, columns), (0, set()))
        known.update(tuple(row[column] for column in columns) for row in rows[read:])
        self._known[late, columns] = (len(rows), known)
        return not seen.isdisjoint(known)

    def _ask(self, asked: Query) -> _Asked:
        statement = self._queries[asked.name]
        values = statement.many(asked.values) if asked.many else (statement.values(asked.values),)
        holds = statement.holds
        if holds is None or not self._holds:
            return _Asked(statement, values, (), asked.many, asked.record)
        kind, place = holds
        rows = [(kind, one[place]) for one in values] if len(values) > 1 else ((kind, values[0][place]),)
        return _Asked(statement, values, rows, asked.many, asked.record)

    def _free(self, run: Run) -> None:
        self._freed = True
        for row in run.held:
            if self._holders.get(row) is run:
                del self._holders[row]

    def close(self) -> None:
        """Drop verbs that have not ended (the group was rolled back)."""
        for run in self.runs:
            if run.coroutine is not None:
                run.coroutine.close()


def _first_row(run: Run) -> tuple[str, str]:
    assert run.asked is not None
    kind, value = run.asked.rows[0]
    return kind, str(value)
