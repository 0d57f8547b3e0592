"""Runs a script from the rows of a journal, one outcome at a time, as a worker's code does.

A model of what the SDK's machine promises, small enough to be read at a sitting and independent of it: a script's
branches are generators that yield what they ask for and are sent the row that answers.
"""

from collections.abc import Generator, Sequence
from typing import cast

import msgspec
from msgspec import Raw
from tests.sim import scripts
from tests.sim.scripts import Op, Script

from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    Answer,
    Entry,
    EventItem,
    OpenWait,
    Publish,
    StartChild,
    StartItem,
)

OURS = frozenset({Kind.STEP, Kind.CHILD_STARTED, Kind.PUBLISHED, Kind.SENT})
WAITS = frozenset({Kind.EVENT, Kind.RESUME})

Key = tuple[Kind, str]


class Diverged(Exception):
    """The journal has an outcome that the script never asked for, or rows are missing."""


class StepFailed(Exception):
    """A step failed for good."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class CancelAsked(Exception):
    """The execution is being cancelled."""


class NeedsNewer(Exception):
    """The code on offer is too old."""


class Ask:
    """One thing that a branch waits for."""

    __slots__ = ("due_us", "entry", "key", "kind", "name", "started", "step")

    def __init__(
        self,
        kind: Kind,
        key: str,
        name: str | None = None,
        *,
        entry: Entry | None = None,
        due_us: int = 0,
        step: scripts.Step | None = None,
    ) -> None:
        self.kind = kind
        self.key = key
        self.name = name
        self.entry = entry
        self.due_us = due_us
        self.step = step
        self.started = False


Code = Generator["list[Ask] | list[Code]", object, list[object]]


class Branch:
    """A generator, what it waits for, and the branches that it waits for."""

    def __init__(self, code: Code, parent: "Branch | None" = None, slot: int = 0) -> None:
        self.code = code
        self.parent = parent
        self.slot = slot
        self.asks: list[Ask] = []
        self.forks: list[Branch] = []
        self.results: list[object] = []
        self.open = 0
        self.done = False


class Machine:
    """One execution's script and how far it is."""

    def __init__(
        self, script: Script, version: int, retry_count: int, execution_id: str, parent_id: str | None
    ) -> None:
        self.script = script
        self.retry_count = retry_count
        self.cancel_requested = False
        self.fed = 0
        self.now_us = 0
        self.result: list[object] | None = None
        self.error: BaseException | None = None
        self.done = False
        self.tries: dict[str, int] = {}
        self.not_before: dict[str, int] = {}
        self.failed_beside: list[str] = []
        """Steps whose failures came with the one that ended the script."""
        self._id = execution_id
        self._parent_id = parent_id
        self._version = version
        self._asks: dict[Key, tuple[Ask, Branch]] = {}
        self._given_up: set[Key] = set()
        self._fresh: list[Ask] = []
        self._abandoned: list[Ask] = []
        self._aside: dict[Key, Row] = {}
        self._failed: dict[int, str] = {}
        self._excused_until = 0
        self.begun = False
        self._queue: list[Row] = []
        self._main = Branch(self._run_main())

    # --- rows in -----------------------------------------------------------------------------------------------------

    def advance(self, rows: Sequence[Row], *, more: bool) -> tuple[list[Ask], list[Ask]]:
        """Deliver rows; answers what is newly asked for and what was given up, unless more rows are known to come."""
        for row in rows:
            if row.seq <= self.fed:
                continue
            if row.seq != self.fed + 1:
                raise Diverged(f"row {row.seq} came after row {self.fed}")
            self.fed = row.seq
            self._queue.append(row)
            if row.kind is Kind.RETRIED:
                self._excused_until = row.seq
        if more:
            # As long as rows are known to be missing nothing is delivered: one of them may excuse an earlier one.
            return [], []
        if not self.begun:
            self.begun = True
            self.now_us = self._queue[0].at_us if self._queue else 0
            self._pump(self._main, None)
        while self._queue:
            row = self._queue.pop(0)
            self.now_us = max(self.now_us, row.at_us)
            self._deliver(row)
        fresh = [ask for ask in self._fresh if self._asks.get((ask.kind, ask.key), (None,))[0] is ask]
        self._fresh = []
        for ask in fresh:
            ask.started = True
        abandoned, self._abandoned = self._abandoned, []
        return fresh, abandoned

    def _deliver(self, row: Row) -> None:
        if row.kind is Kind.STEP_FAILED:
            assert row.key is not None
            self.tries[row.key] = row.tries
            self._failed[row.seq] = row.key
            at_us = msgspec.json.decode(row.value).get("retry_at_us")
            if at_us is not None:
                self.not_before[row.key] = at_us
        elif row.kind is Kind.RETRIED and bytes(row.value) != b"null":
            found = msgspec.json.decode(row.value, type=int | list[int])
            for seq in found if isinstance(found, list) else [found]:
                key = self._failed.get(seq)
                if key is not None:
                    self.tries.pop(key, None)
                    self.not_before.pop(key, None)
        if self.done and row.kind is Kind.STEP and not row.ok and (row.kind, row.key) in self._given_up:
            assert row.key is not None
            self.failed_beside.append(row.key)
        if row.kind not in OUTCOMES or self.done:
            return
        if row.kind is Kind.CANCEL:
            self.cancel_requested = True
            self._throw(self._main, CancelAsked())
            return
        assert row.key is not None
        key_of = (row.kind, row.key)
        found = self._asks.get(key_of)
        if found is not None:
            self._answer(found[0], found[1], row)
        elif key_of in self._given_up:
            self._given_up.discard(key_of)
        elif row.seq < self._excused_until:
            self._aside[key_of] = row
        else:
            raise Diverged(f"row {row.seq} is {row.kind.value} {row.key!r}, which {self.script.name} never asked for")

    def _answer(self, ask: Ask, branch: Branch, row: Row) -> None:
        asks, branch.asks = branch.asks, []
        for one in asks:
            del self._asks[one.kind, one.key]
            if one is not ask:
                self._give_up(one)
        self._pump(branch, (ask, row))

    def _give_up(self, ask: Ask) -> None:
        self._given_up.add((ask.kind, ask.key))
        if ask.kind is Kind.CHILD_STARTED:
            self._given_up.add((Kind.CHILD, ask.key))
        if ask.started:
            self._abandoned.append(ask)

    # --- branches ----------------------------------------------------------------------------------------------------

    def _pump(self, branch: Branch, answer: object, error: BaseException | None = None) -> None:
        """Run a branch until it asks for something that is not there yet."""
        while True:
            try:
                asked = branch.code.throw(error) if error is not None else branch.code.send(answer)
            except StopIteration as stop:
                branch.done = True
                self._ended(branch, stop.value, None)
                return
            except (StepFailed, CancelAsked, NeedsNewer) as failure:
                branch.done = True
                self._ended(branch, None, failure)
                return
            error = None
            if asked and not isinstance(asked[0], Ask):
                branch.forks = [Branch(code, branch, n) for n, code in enumerate(asked)]
                branch.results = [None] * len(branch.forks)
                branch.open = len(branch.forks)
                for fork in list(branch.forks):
                    if not fork.done and fork in branch.forks:
                        self._pump(fork, None)
                return
            asks = cast(list[Ask], asked)  # told apart just now
            aside = next((ask for ask in asks if (ask.kind, ask.key) in self._aside), None)
            if aside is not None:
                answer = (aside, self._aside.pop((aside.kind, aside.key)))
                continue
            branch.asks = asks
            for ask in asks:
                self._asks[ask.kind, ask.key] = (ask, branch)
            self._fresh.extend(asks)
            return

    def _ended(self, branch: Branch, result: object, failure: BaseException | None) -> None:
        parent = branch.parent
        if parent is None:
            self.done = True
            self.error = failure
            self.result = result if isinstance(result, list) else None
            return
        if failure is not None:
            self._drop(parent)
            self._pump(parent, None, failure)
            return
        parent.results[branch.slot] = result
        parent.open -= 1
        if not parent.open:
            results, parent.forks = parent.results, []
            self._pump(parent, results)

    def _drop(self, branch: Branch) -> None:
        """Give up everything that a branch and those under it wait for."""
        forks, branch.forks = branch.forks, []
        for fork in forks:
            self._drop(fork)
            fork.done = True
            fork.code.close()
        asks, branch.asks = branch.asks, []
        for ask in asks:
            del self._asks[ask.kind, ask.key]
            self._give_up(ask)

    def _throw(self, branch: Branch, error: BaseException) -> None:
        self._drop(branch)
        self._pump(branch, None, error)

    # --- what is open ------------------------------------------------------------------------------------------------

    @property
    def is_suspended(self) -> bool:
        """Nothing that is asked for is this worker's to do."""
        return not any(kind in OURS for kind, _ in self._asks)

    def waits(self) -> list[str]:
        return [key for kind, key in self._asks if kind in WAITS]

    def timer(self) -> tuple[str, int] | None:
        """The earliest timer and when it is due."""
        timers = [(ask.due_us, key) for (kind, key), (ask, _) in self._asks.items() if kind is Kind.TIMER]
        return (min(timers)[1], min(timers)[0]) if timers else None

    def outstanding(self) -> list[Ask]:
        return [ask for ask, _ in self._asks.values()]

    # --- the script --------------------------------------------------------------------------------------------------

    def _run_main(self) -> Code:
        try:
            return (yield from self._run(self.script.ops))
        except CancelAsked:
            if self.script.cleanup:
                yield [Ask(Kind.STEP, "cleanup", "cleanup", step=scripts.Step("cleanup"))]
            raise

    def _run(self, ops: tuple[Op, ...]) -> Code:
        results: list[object] = []
        for op in ops:
            if isinstance(op, scripts.Together):
                both = yield [self._run(branch) for branch in op.branches]
                results.append(both)
            elif isinstance(op, scripts.Needs):
                if self._version < op.version:
                    raise NeedsNewer
            else:
                result = yield from self._one(op)
                results.append(result)
        return results

    def _one(self, op: Op) -> Generator[list[Ask], object, object]:
        if isinstance(op, scripts.Step):
            _, row = yield from _ask(Ask(Kind.STEP, op.key, op.key, step=op))
            if row.ok:
                return msgspec.json.decode(row.value)
            if op.caught:
                return f"failed:{op.key}"
            raise StepFailed(op.key)
        if isinstance(op, scripts.Sleep):
            yield from _ask(Ask(Kind.TIMER, op.key, due_us=self.now_us + int(op.seconds * 1e6)))
            return "slept"
        if isinstance(op, scripts.Event):
            match = None if op.number is None else {"number": Raw(str(op.number).encode())}
            wait = OpenWait(op.key, None, topic=op.topic, match=match)
            found = yield from self._wait(Ask(Kind.EVENT, op.key, op.topic, entry=wait), op.timeout)
            return "timeout" if found is None else msgspec.json.decode(found.value)["sequence_id"]
        if isinstance(op, scripts.Suspended):
            wait = OpenWait(op.key, None, data=Raw(b"null"))
            found = yield from self._wait(Ask(Kind.RESUME, op.key, entry=wait), op.timeout)
            return "timeout" if found is None else msgspec.json.decode(found.value)
        if isinstance(op, scripts.Publish):
            events = [
                EventItem(Raw(msgspec.json.encode({"number": number, "by": f"{self._id}/{op.key}"})))
                for number in op.numbers
            ]
            publish = Publish(op.key, None, op.topic, events)
            yield from _ask(Ask(Kind.PUBLISHED, op.key, op.topic, entry=publish))
            return "published"
        if isinstance(op, scripts.AnswerParent):
            assert self._parent_id is not None
            answer = Answer(op.key, None, self._parent_id, op.step_key, Raw(b'"from the child"'))
            _, row = yield from _ask(Ask(Kind.SENT, op.key, op.step_key, entry=answer))
            return "answered" if row.ok else "refused"
        assert isinstance(op, scripts.Child)
        start = StartChild(op.key, None, start_item(op.script))
        _, row = yield from _ask(Ask(Kind.CHILD_STARTED, op.key, op.script.workflow, entry=start))
        if not row.ok:
            return "not started"
        _, row = yield from _ask(Ask(Kind.CHILD, op.key))
        return [row.name, msgspec.json.decode(row.value) if row.ok else None]

    def _wait(self, ask: Ask, timeout: float | None) -> Generator[list[Ask], object, Row | None]:
        asks = [ask]
        if timeout is not None:
            asks.append(Ask(Kind.TIMER, f"{ask.key}/timeout", due_us=self.now_us + int(timeout * 1e6)))
        answered, row = yield from _ask(*asks)
        return row if answered is ask else None


def _ask(*asks: Ask) -> Generator[list[Ask], object, tuple[Ask, Row]]:
    answer = yield list(asks)
    assert isinstance(answer, tuple)
    return answer


def start_item(script: Script, *, key: str | None = None, priority: int = 0) -> StartItem:
    """The request that starts a script; its payload is the script's name."""
    return StartItem(
        workflow_id=script.workflow,
        payload=Raw(msgspec.json.encode(script.name)),
        queue_name=script.queue,
        concurrency_key=script.concurrency_key,
        run_timeout_seconds=script.timeout,
        priority=priority,
        key=key,
    )
