"""Short words for the acts of callers and workers, so that a test reads as a story.

Every word is one verb, at the world's own time: nothing here waits, and only a test moves the clock.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from perdure.store.base.interface import Hint, Store, Verb, query, verb
from perdure.store.verbs import retention
from perdure.store.verbs.base import access
from perdure.store.verbs.base.idempotency import At, Idempotency
from perdure.store.verbs.insight import why
from perdure.store.verbs.runs import claims, direct_dispatch, events, queries, reports, starts, transitions, waits
from perdure.store.verbs.runs.starts import New
from perdure.store.verbs.steering import acts, forks, pending
from perdure.wire.base.operation import validated
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.status import Phase
from perdure.wire.runs.events import Event
from perdure.wire.runs.executions import Act, Execution, ResumeReply, Row
from perdure.wire.runs.requests import (
    Block,
    Cancelled,
    Claimed,
    Complete,
    End,
    Entry,
    EventItem,
    Fail,
    Hold,
    ItemReply,
    OpenWait,
    Publish,
    RegisterRequest,
    Release,
    ReportItem,
    StartChild,
    Started,
    StartItem,
    StepDone,
    StepInFlight,
    Suspend,
    WorkflowSpec,
)
from perdure.wire.runs.waits import PendingWaits
from perdure.wire.steering.acts import Acted, Action, ActOnExecution, GetPending
from perdure.wire.steering.forks import Edits, Fork, ForkExecution, RetryExecution

SECOND = 1_000_000
LEASE_US = 12 * SECOND
GRACE_US = 30 * SECOND
START_US = 1_750_000_000 * SECOND
PROJECT = "project"

T = TypeVar("T")


@functools.cache
def _parameters(verb: Callable[..., Verb[Any]]) -> frozenset[str]:
    return frozenset(inspect.signature(verb).parameters)


@verb(locks="")
async def _forget_ended() -> None:
    await query("prune_ended", before_us=1 << 60, limit=1_000)


@verb(reads=True)
async def _next_seq(*, id: str) -> int:
    state: int = (await query("read_state", project_id=PROJECT, id=id))[0][4]
    return state


class World:
    """A project, its clock, and the past reports of the test's workers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_us = START_US
        self.hints: list[Hint] = []
        self._ids = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._cursors: dict[str, tuple[str, str]] = {}
        store.listen(self.hints.extend)

    @classmethod
    async def make(cls, store: Store) -> World:
        world = cls(store)
        await world.do(access.default_project, id=PROJECT)
        return world

    def filled(self, verb: Callable[..., Verb[T]], usual: Mapping[str, Any] | None = None, /, **values: Any) -> Verb[T]:
        """A verb with `values`, plus missing arguments from `usual` and the world."""
        wanted = _parameters(verb)
        its = {"project_id": PROJECT, "now_us": self.now_us, "lease_us": LEASE_US, "grace_us": GRACE_US, "limit": 500}
        its |= {"patience_us": 0, **(usual or {})}
        if "at" in wanted - values.keys() - its.keys():
            its["at"] = self.at()
        made = {name: self.new_id() for name in ("claim_id", "event_id") if name in wanted - values.keys()}
        return verb(**made, **{name: value for name, value in its.items() if name in wanted - values.keys()}, **values)

    async def do(self, verb: Callable[..., Verb[T]], usual: Mapping[str, Any] | None = None, /, **values: Any) -> T:
        """Run a verb as `filled` makes it."""
        made = self.filled(verb, usual, **values)
        return await (self.store.read(made) if made.declaration.reads else self.store.write(made))

    async def check(self) -> None:
        """Every invariant that can be asked of the database holds."""
        found = await self.do(queries.doctor)
        assert {name: rows for name, rows in found.items() if rows} == {}

    def at(self, same: Idempotency | None = None) -> At:
        return At(PROJECT, self.now_us, self.new_id(), same)

    def new_id(self) -> str:
        self._ids += 1
        return f"0190a5f2-7c1e-7b3a-9d55-{self._ids:012x}"

    async def last_seq(self, id: str) -> int:
        return await self.do(_next_seq, id=id) - 1

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * SECOND)

    # --- callers -----------------------------------------------------------------------------------------------------

    async def start(self, workflow_id: str = "wf", **fields: Any) -> str:
        """Start an execution; returns its id, or raises the caller's error."""
        return (await self.start_all([StartItem(workflow_id, **fields)]))[0]

    async def start_all(self, items: Sequence[StartItem]) -> list[str]:
        answers = await self.answers(items)
        for answer in answers:
            assert isinstance(answer, Started), answer
        return [answer.execution_id for answer in answers if isinstance(answer, Started)]

    async def answers(
        self, items: Sequence[StartItem], idempotency: Idempotency | None = None
    ) -> list[Started | Problem]:
        news = [New(self.new_id(), item) for item in items]
        return (await self.do(starts.start, news=news, idempotency=idempotency))[0]

    async def batch(self, items: Sequence[StartItem], idempotency: Idempotency | None = None) -> list[Started]:
        news = [New(self.new_id(), item) for item in items]
        answers = await self.do(starts.start_batch, news=news, batch_id=self.new_id(), idempotency=idempotency)
        return [answer for answer in answers if isinstance(answer, Started)]

    async def cancel(self, id: str, by: str = "user", acted_by: str | None = None) -> Phase:
        return await self.do(transitions.cancel, execution_id=id, cancelled_by=by, acted_by=acted_by)

    async def act(self, id: str, action: Action, key: str | None = None, **fields: Any) -> Acted:
        request = ActOnExecution(id, action=action, key=key, **fields)
        return await self.do(acts.act, op=request, acted_by="ann")

    async def acts(self, id: str) -> list[Act]:
        return await self.do(pending.acts_between, execution_id=id, first=1, last=1 << 40)

    async def waits(self, id: str, project_id: str = PROJECT) -> PendingWaits:
        times = {"now_us": self.now_us, "lease_us": 1, "push_lease_us": 1}
        return await self.store.read(why.list_waits(project_id=project_id, execution_id=id, times=times))

    async def pending(self, id: str) -> list[tuple[str | None, str]]:
        """The keys of what is pending, each with its kind."""
        found = await self.do(pending.pending, op=GetPending(id))
        return [(call.key, call.kind.value) for call in found.items]

    async def publish(self, topic: str, *data: object, dedup_key: str | None = None) -> list[int]:
        items = [EventItem(raw(value), dedup_key=dedup_key) for value in data]
        ids = [self.new_id() for _ in items]
        return (await self.do(events.publish, topic=topic, events=items, ids=ids)).sequence_ids

    async def read_topic(self, topic: str, after: int = 0) -> list[Event]:
        return (await self.do(events.read_events, topic=topic, after=after))[0]

    async def resume(self, id: str, key: str, data: object = "yes", question_id: str | None = None) -> ResumeReply:
        its: dict[str, Any] = {"execution_id": id, "step_key": key, "question_id": question_id}
        return await self.do(waits.resume, data=raw(data), answered_by="a program", **its)

    async def fork(self, id: str, **fields: Any) -> Fork:
        edited = fields.pop("steps", None)
        if edited is not None:
            fields["edits"] = Edits(steps={key: raw(given) for key, given in edited.items()})
        return await self._fork(ForkExecution(id, **fields))

    async def retry(self, id: str, **fields: Any) -> Fork:
        return await self._fork(RetryExecution(id, **fields))

    async def _fork(self, request: ForkExecution | RetryExecution) -> Fork:
        return await self.do(forks.fork, op=validated(request), acted_by="a program")

    async def delete(self, id: str) -> None:
        await self.do(retention.delete, execution_id=id)

    # --- the clock's work --------------------------------------------------------------------------------------------

    async def wake_due(self, limit: int = 500) -> int:
        """Wake due timers, make delayed starts ready, and end overdue executions. Returns the count."""
        woken = await self.do(transitions.wake_due, limit=limit)
        return woken + await self.end_overdue(limit)

    async def end_overdue(self, limit: int = 500, *, seconds: float = 0.0) -> int:
        """End what is overdue so many seconds from now."""
        now_us = self.now_us + int(seconds * SECOND)
        ends = [
            self.filled(transitions.end_overdue, project_id=one.project_id, execution_id=one.id, now_us=now_us)
            for one in await self.do(transitions.overdue, now_us=now_us, limit=limit)
        ]
        ended = 0
        for answer in await self.store.write_all(ends):
            if isinstance(answer, Exception):
                raise answer
            ended += answer
        return ended

    async def reap(self, *, patience_us: int = 0) -> int:
        return await self.do(claims.reap, patience_us=patience_us)

    async def lose(self, worker: str = "w") -> None:
        """Let the worker's lease run out, and reap."""
        self.advance(LEASE_US / SECOND + 1)
        await self.reap()

    # --- workers -----------------------------------------------------------------------------------------------------

    async def register(
        self,
        worker: str = "w",
        workflows: Sequence[str | WorkflowSpec] = ("wf",),
        *,
        deployment: str = "d",
        python: str = "3.12",
        project: str = PROJECT,
        capacity: int = 100,
        **fields: Any,
    ) -> None:
        specs = [spec if isinstance(spec, WorkflowSpec) else WorkflowSpec(spec) for spec in workflows]
        fields = {name: list(value) if isinstance(value, Sequence) else value for name, value in fields.items()}
        request = RegisterRequest(worker, deployment, python, specs, capacity=capacity, **fields)
        await self.do(_forget_ended)  # a real worker never takes a name again; these are short to read well
        made = {"schedule_ids": [self.new_id() for _ in request.schedules]}
        made |= {"trigger_ids": [self.new_id() for _ in request.triggers]}
        await self.do(claims.register, project_id=project, request=request, **made)

    async def beat(self, worker: str = "w", *steps: StepInFlight) -> list[tuple[str, int, int]] | None:
        return await self.do(claims.beat, worker_id=worker, steps=steps)

    async def live(self, seconds: float, *workers: str) -> None:
        """Let time pass while the workers renew their leases."""
        while seconds > 0:
            self.advance(min(seconds, 5))
            seconds -= 5
            for worker in workers:
                assert await self.beat(worker) is not None

    async def claim(
        self, worker: str = "w", capacity: int = 1, claim_id: str | None = None, **options: Any
    ) -> list[Claimed]:
        """Claim what is ready, with its journals."""
        options |= {"after": self._cursors.get(worker, ("", "")), "claim_id": claim_id or self.new_id(), **options}
        picked, after, _ = await self.do(claims.claim, worker_id=worker, capacity=capacity, **options)
        self._cursors[worker] = after
        found: list[Claimed] = []
        for claimed, base in picked:
            rows = await self.journal(claimed.id, base)
            found.append(direct_dispatch.with_journal(claimed, base, rows, more=False))
        return found

    async def claim_ids(self, worker: str = "w", capacity: int = 100) -> list[str]:
        return [claimed.id for claimed in await self.claim(worker, capacity)]

    async def running(self, worker: str = "w", **fields: Any) -> str:
        """A fresh execution in this worker's hands, acknowledged."""
        id = await self.start(**fields)
        assert id in await self.claim_ids(worker)
        await self.acknowledge(id, worker=worker)
        return id

    async def acknowledge(self, id: str, attempt: int | None = None, worker: str = "w", seen: int = 0) -> ItemReply:
        return await self.report(id, attempt=attempt, worker=worker, number=0, seen=seen)

    async def report(
        self,
        id: str,
        entries: Sequence[Entry] = (),
        end: End | None = None,
        *,
        attempt: int | None = None,
        worker: str = "w",
        number: int | None = None,
        seen: int | None = None,
        progress: object = None,
        **fields: Any,
    ) -> ItemReply:
        """Report as the present attempt unless said otherwise; by default the worker has seen the whole journal."""
        if attempt is None or seen is None:
            state = await self.get(id)
            attempt = state.attempt if attempt is None else attempt
            seen = await self.last_seq(id) if seen is None else seen
        if number is None:
            number = self._numbers[id, attempt] = self._numbers.get((id, attempt), 0) + 1
        if progress is not None:
            fields["progress"] = raw(progress)
        return await self.send(ReportItem(id, attempt, number, seen, list(entries), end, **fields), worker)

    async def send(self, item: ReportItem, worker: str = "w") -> ItemReply:
        ids = [self.new_id() for entry in item.entries for _ in range(_creates(entry))]
        return await self.do(reports.report, worker_id=worker, item=item, ids=ids)

    async def finish(self, id: str, worker: str = "w", result: object = "done") -> None:
        assert (await self.report(id, end=Complete(raw(result)), worker=worker)).ended

    async def wait_for(self, id: str, *opened: OpenWait, due_us: int | None = None, worker: str = "w") -> ItemReply:
        """Open waits and suspend, in one report."""
        timer = None if due_us is None else ("timer", due_us)
        return await self.report(id, opened, Suspend([wait.key for wait in opened], timer), worker=worker)

    # --- looks -------------------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Execution:
        return await self.do(queries.get, execution_id=id)

    async def phase(self, id: str) -> Phase:
        return (await self.get(id)).phase

    async def journal(self, id: str, after: int = 0) -> list[Row]:
        whole = {"after": after, "limit": 100_000, "bytes_max": 1 << 40}
        return (await self.do(queries.journal, execution_id=id, **whole))[0]

    async def kinds(self, id: str) -> list[str]:
        return [row.kind.value for row in await self.journal(id)]

    async def outcomes(self, id: str, kind: Kind) -> list[object]:
        """The values of the journal's rows of one kind, in order."""
        return [msgspec.json.decode(row.value) for row in await self.journal(id) if row.kind is kind]

    async def everything(self, id: str) -> tuple[Execution, list[Row]]:
        return await self.get(id), await self.journal(id)


def _creates(entry: Entry) -> int:
    return len(entry.events) if type(entry) is Publish else int(type(entry) is StartChild)


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def step(key: str, value: object = None, *, ok: bool = True, last: bool = True, tries: int = 1) -> StepDone:
    return StepDone(key, key, None, ok, raw(value), START_US, tries, last)


def try_of(key: str, *, retry_at_us: int | None = None, tries: int = 1) -> StepDone:
    """A failed try; without a next one the step is held."""
    then: dict[str, object] = {"held": True} if retry_at_us is None else {"retry_at_us": retry_at_us}
    return step(key, {"type": "Down", "message": "down", **then}, ok=False, last=False, tries=tries)


def child(key: str, workflow_id: str = "wf", **fields: Any) -> StartChild:
    return StartChild(key, None, StartItem(workflow_id, **fields))


def event_wait(key: str, topic: str, **fields: Any) -> OpenWait:
    return OpenWait(key, None, topic, **fields)


def answer_wait(key: str) -> OpenWait:
    return OpenWait(key, None)


def failure(message: str = "it failed", **fields: Any) -> Fail:
    return Fail(message, raw({"type": "ValueError", "message": message}), **fields)


HOLD = Hold("step 'pay' failed: Down", raw({"type": "Down", "message": "down"}), ["pay"])
BLOCK = Block("the code differs", raw({"type": "Diverged", "message": "the code differs"}))
CANCELLED = Cancelled()
RELEASE = Release()
