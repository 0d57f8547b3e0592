"""The service of workers: registrations, claims, reports and beats."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

from msgspec import structs
from uuid_utils import uuid7

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.base.start_checks import check_item, check_transcript_entry
from perdure.engine.runs.low_water_marks import LowWaterMarks
from perdure.engine.runs.recalls import Recalls
from perdure.engine.runs.registrations import check_registration
from perdure.engine.runs.waiting_claims import NAMES_MAX, ClaimKind, ClaimPoll, WaitingClaims
from perdure.store.base.interface import Verb
from perdure.store.verbs.runs import claims, reports
from perdure.store.verbs.runs.direct_dispatch import with_journal
from perdure.wire.agents.approvals import ANSWER_SCHEMA_BYTES_MAX
from perdure.wire.base.access import Role
from perdure.wire.base.codec import (
    KEY_BYTES_MAX,
    LABEL_BYTES_MAX,
    TOPIC_BYTES_MAX,
    check_name,
    check_raw,
    check_text,
    scrub_text,
)
from perdure.wire.base.errors import BadRequest, BadValue, LeaseLost, PerdureError
from perdure.wire.base.fields import checked_id
from perdure.wire.base.limits import REPLY_BYTES_MAX, REPORT_ITEMS_MAX
from perdure.wire.base.records import Problem
from perdure.wire.base.times import clamped
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    Answer,
    Block,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    DrainRequest,
    Fail,
    Hold,
    ItemReply,
    OpenWait,
    Publish,
    RegisterReply,
    RegisterRequest,
    ReportItem,
    ReportReply,
    ReportRequest,
    StartChild,
    StepDone,
    Suspend,
    TranscriptEntry,
)
from perdure.wire.runs.streams import ITEM_BYTES_MAX

CLAIM_MAX = 500
POLL_SECONDS_MAX = 60.0
JOURNAL_ROWS_MAX = 10_000
CHANGED_MAX = 10_000


class _Looked(NamedTuple):
    """Hints from a worker's last claim for the next claim."""

    kind: ClaimKind
    missed: int
    """How many hints before the claim woke no claim of this kind. -1: more work may be left."""


class Claims(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._looked: OrderedDict[str, _Looked] = OrderedDict()
        self._after: OrderedDict[ClaimKind, tuple[str, str]] = OrderedDict()
        """A kind's next claim starts at this limited group."""
        self._current: dict[str, str] = {}
        """Maps a project to the deployment of the last start without a deployment; used only to choose a claim."""
        self._turn = 0
        self._next_turn: asyncio.TimerHandle | None = None
        self._waiting = WaitingClaims()
        self._low_water_marks: dict[tuple[str, str], LowWaterMarks] = {}
        """Maps project and deployment to low-water marks, while the database is crowded."""
        self._latest: OrderedDict[str, ClaimPoll] = OrderedDict()
        self._recalls = Recalls(core, self._waiting)
        self._changed: dict[str, set[str]] = {}

    def note_changed(self, worker_id: str, execution_id: str) -> None:
        """A writer elsewhere added a row to a held execution's journal. The worker may ask on another server."""
        if self._core.store.alone or self.is_present(worker_id):
            ids = self._changed.setdefault(worker_id, set())
            if len(ids) < CHANGED_MAX:  # the next beat brings the rest
                ids.add(execution_id)
            self._core.notifier.notify(("worker", worker_id))

    def _take_changed(self, worker_id: str) -> list[str]:
        return list(self._changed.pop(worker_id, ()))

    @serves(RegisterRequest)
    async def register(self, scope: Scope, op: RegisterRequest) -> RegisterReply:
        if op.embedded and scope.principal is not None:
            raise BadRequest("body.embedded: only a worker in the server's own process is embedded.")
        await check_registration(op)
        core, settings = self._core, self._core.settings
        await self.write(
            claims.register(
                project_id=scope.project_id,
                request=op,
                now_us=self.now_us(),
                lease_us=core.lease_us,
                schedule_ids=[self.new_id() for _ in op.schedules],
                trigger_ids=[self.new_id() for _ in op.triggers],
            )
        )
        if op.schedules:
            core.notifier.notify(("loop", "schedule"))
        if op.triggers:
            core.notifier.notify(("loop", "trigger"))
        if core.store.alone and any(spec.searchable for spec in op.workflows):
            core.notifier.notify(("loop", "fields"))
        return RegisterReply(
            core.store.epoch,
            scope.project_id,
            core.lease_us,
            core.beat_us,
            core.grace_us,
            beats_name_steps=True,
            ends_with_steps=True,
            outage_us=int(settings.outage_seconds * 1e6),
        )

    @serves(ClaimRequest)
    async def claim(self, scope: Scope, op: ClaimRequest) -> ClaimReply:
        async with scope.poll():
            reply = await self._claim(scope.project_id, op)
        return reply

    async def _claim(self, project_id: str, request: ClaimRequest) -> ClaimReply:
        self._check_epoch(request.epoch)
        began = asyncio.get_running_loop().time()
        if request.arrived is not None and not self._was_here(request.worker_id, request.arrived):
            await self._core.store.write(
                claims.note_arrival(project_id=project_id, worker_id=request.worker_id, claim_id=request.arrived)
            )
        poll = ClaimPoll(project_id, request, max(0, min(request.capacity, CLAIM_MAX)))
        items, changed = await self._wait_for_work(poll, request, began)
        held_us = None
        # The first answer to a repeated claim may have said that the work stays, and may still be on its way.
        stays = poll.superseded or poll.repeats
        if items and not stays and self._recalls.add(poll):
            held_us = int((asyncio.get_running_loop().time() - began) * 1e6)
        return ClaimReply(items, changed, held_us)

    async def _wait_for_work(
        self, poll: ClaimPoll, request: ClaimRequest, began: float
    ) -> tuple[list[Claimed], list[str]]:
        core = self._core
        capacity = poll.capacity
        again = self._supersede(poll)
        looked = self._looked.get(request.worker_id)
        if capacity and looked is not None:
            poll.offer(looked.kind)
            self._waiting.open(poll)
        until = began + min(max(request.wait_seconds, 0.0), POLL_SECONDS_MAX)
        try:
            while True:
                if poll.superseded:
                    return poll.handed, []
                cursors = core.notifier.cursors(("worker", request.worker_id))
                changed = self._take_changed(request.worker_id)
                items: list[Claimed] = []
                if capacity and (poll.woken or again or self._worth_a_look(poll)):
                    again = False
                    items = await self._poll(poll, request)
                if poll.taken:  # a start is on its way to this claim
                    await poll.settled.wait()
                if poll.handed:  # the query may have found the same executions
                    found = {one.id for one in items}
                    items += [one for one in poll.handed if one.id not in found]
                left = until - asyncio.get_running_loop().time()
                if items or changed or left <= 0 or core.closing or poll.repeats:
                    return items, changed
                if capacity:
                    if poll.woken or self._worth_a_look(poll):  # a hint came during the look
                        continue
                    self._enter(poll)
                    self._recalls.look_soon()  # this worker could take unacknowledged executions
                pause = (
                    left if core.store.alone else core.own_look(core.settings.poll_seconds) * random.uniform(0.5, 1.5)
                )
                if not await core.notifier.wait_any(cursors, min(left, pause), poll.sleep()) and pause < left:
                    looked = self._looked.get(request.worker_id)
                    if looked is not None:  # no hint came: query anyway
                        self._looked[request.worker_id] = looked._replace(missed=-1)
                if poll.handed and not poll.taken:
                    return poll.handed, self._take_changed(request.worker_id)
        finally:
            poll.ended_at = asyncio.get_running_loop().time()
            self._waiting.close(poll)
            if poll.woken:  # it has not looked: its client has gone, or its registration, or it cannot take work
                self._waiting.wake_next(poll)

    def _enter(self, poll: ClaimPoll, *, first: bool = False) -> None:
        """Enter a waiting claim. On SQLite, claims of a kind look without a hint by turns, because each look covers
        all."""
        self._waiting.enter(poll, first=first)
        if self._core.store.alone and self._next_turn is None:
            self._look_by_turns()

    def _look_by_turns(self) -> None:
        pause = self._core.settings.poll_seconds * random.uniform(0.5, 1.5)
        self._next_turn = asyncio.get_running_loop().call_later(pause, self._take_turns)

    def _take_turns(self) -> None:
        self._next_turn = None
        longest = self._waiting.longest()
        if longest and not self._core.closing:
            for poll in longest:
                self._waiting.wake_this(poll)
            self._look_by_turns()

    def _supersede(self, poll: ClaimPoll) -> bool:
        """End the worker's earlier claim, whose connection is gone. True if the new claim repeats the earlier one: the
        store must return its batch again."""
        self._recalls.discard(poll.worker_id)
        earlier = self._latest.pop(poll.worker_id, None)
        self._latest[poll.worker_id] = poll
        if len(self._latest) > 10_000:
            self._changed.pop(self._latest.popitem(last=False)[0], None)
        if earlier is None:
            return False
        earlier.superseded = True
        self._waiting.leave(earlier)
        earlier.stir()
        return earlier.claim_id == poll.claim_id

    def _was_here(self, worker_id: str, claim_id: str) -> bool:
        poll = self._latest.get(worker_id)
        return poll is not None and poll.claim_id == claim_id

    def is_present(self, worker_id: str) -> bool:
        poll = self._latest.get(worker_id)
        return poll is not None and poll.is_recent(asyncio.get_running_loop().time())

    def others_wait(self, worker_id: str) -> bool:
        """Whether another waiting worker could take this worker's executions."""
        poll = self._latest.get(worker_id)
        return poll is not None and self._waiting.any_like(poll)

    def present(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        return [id for id, poll in self._latest.items() if poll.is_recent(now)]

    def waiting_for(self) -> dict[str, list[str]]:
        return self._waiting.deployments()

    def wake_for(self, ready: Set[tuple[str, str]], unacknowledged: Set[tuple[str, str]]) -> None:
        """Wake claims for ready executions, and claims with an unacknowledged batch from another server."""
        for worker_id, claim_id in unacknowledged:
            poll = self._latest.get(worker_id)
            if poll is not None and poll.claim_id == claim_id:
                self._looked.pop(worker_id, None)
                self._waiting.wake_this(poll)
        for project_id, deployment_id in ready:
            self.notify(project_id, deployment_id)

    def notify(self, project_id: str, deployment_id: str | None = None, amount: int = 1) -> None:
        """Note that `amount` executions or more may be claimable, in any deployment if None."""
        if not self._waiting.wake(project_id, deployment_id, amount):
            self._looked.clear()

    def note_current(self, project_id: str, deployment_id: str) -> None:
        self._current[project_id] = deployment_id

    def _worth_a_look(self, poll: ClaimPoll) -> bool:
        """False if the worker's last query took everything and no hint came since."""
        looked = self._looked.get(poll.worker_id)
        if looked is None or looked.missed != self._waiting.missed(looked.kind):
            return True
        if poll.kind not in (None, looked.kind):
            return True
        poll.offer(looked.kind)
        return False

    def take_waiting(self, project_id: str, deployment_id: str | None = None, of_worker: str = "") -> ClaimPoll | None:
        """Reserve a waiting claim for a start: in this deployment, by the worker, or in the current deployment. Call
        `settle` after the start."""
        if self._core.crowded:  # queries are slow then
            return None
        if deployment_id is None:
            looked = self._looked.get(of_worker)
            deployment_id = self._current.get(project_id) if looked is None else looked.kind.deployment_id
        poll = self._waiting.take(project_id, deployment_id)
        if poll is None:
            return None
        poll.taken = True
        poll.settled.clear()
        return poll

    def settle(self, poll: ClaimPoll, handed: list[Claimed]) -> None:
        """`handed` is empty if the start failed."""
        poll.taken = False
        poll.handed.extend(handed)
        poll.settled.set()
        if handed:
            self._core.stats.claim_latency_seconds.extend(0.0 for _ in handed)
            poll.stir()
        elif poll.ended_at is None and not poll.superseded:
            self._enter(poll, first=True)
            if self._worth_a_look(poll):  # a hint came while it was taken
                self._waiting.wake_this(poll)

    async def _poll(self, poll: ClaimPoll, request: ClaimRequest) -> list[Claimed]:
        """Look for work. A successful look uses up the wake. A claim that a start had taken did not look for
        everything."""
        self._waiting.leave(poll)
        woken, poll.woken = poll.woken, False
        try:
            items, more = await self._try(poll, request)
        except BaseException:
            poll.woken = poll.woken or woken
            raise
        if poll.repeats:
            poll.woken = poll.woken or woken
        elif more or poll.taken or poll.handed:
            self._waiting.wake_next(poll)
        return items

    async def _try(self, poll: ClaimPoll, request: ClaimRequest) -> tuple[list[Claimed], bool]:
        """Claim, and say whether more may be left."""
        core = self._core
        self._turn += 1
        looked = self._looked.pop(request.worker_id, None)
        missed = -1 if looked is None else self._waiting.missed(looked.kind)
        marks = None
        ranges = None
        started = asyncio.get_running_loop().time()
        if looked is not None and core.crowded:
            marks = self._low_water_marks.setdefault((poll.project_id, looked.kind.deployment_id), LowWaterMarks())
            ranges = marks.ranges(started)
        picked, after, now = await core.store.write(
            claims.claim(
                project_id=poll.project_id,
                worker_id=request.worker_id,
                claim_id=request.claim_id,
                capacity=poll.capacity,
                now_us=core.clock.now_us(),
                grace_us=core.grace_us,
                after=("", "") if looked is None else self._after.get(looked.kind, ("", "")),
                limited_first=self._turn % 2 == 0,
                ranges=ranges,
            )
        )
        if marks is not None and ranges is not None:
            marks.note(now.heads, ranges, started, asyncio.get_running_loop().time())
        elif self._low_water_marks and not core.crowded:
            self._low_water_marks.clear()
        kind = ClaimKind(poll.project_id, now.deployment_id, now.python, now.protocol)
        if poll.kind != kind:  # the worker has registered anew, as another kind
            self._waiting.close(poll)
        poll.offer(kind)
        poll.repeats = now.repeated
        self._after[kind] = after
        if len(self._after) > NAMES_MAX:
            self._after.popitem(last=False)
        more = len(picked) == poll.capacity or sum(len(one.payload) for one, _ in picked) >= REPLY_BYTES_MAX
        if more or now.repeated or looked is None or looked.kind != kind:
            missed = -1
        self._looked[request.worker_id] = _Looked(kind, missed)
        while len(self._looked) > NAMES_MAX:
            self._looked.popitem(last=False)
        if not picked:
            return [], False
        now_us = core.clock.now_us()
        core.stats.claim_latency_seconds.extend(
            (now_us - claimed.created_at_us) / 1e6 for claimed, _ in picked if claimed.attempt == 1
        )
        wanted = [(claimed.id, base) for claimed, base in picked if claimed.base]
        found: Iterator[tuple[list[Row], bool]] = iter(())
        if wanted:
            found = iter(
                await core.store.read(
                    claims.journals(wanted=wanted, rows_max=JOURNAL_ROWS_MAX, bytes_max=REPLY_BYTES_MAX)
                )
            )
        items = [with_journal(claimed, base, *next(found)) if claimed.base else claimed for claimed, base in picked]
        return items, more

    @serves(ReportRequest)
    async def report(self, scope: Scope, op: ReportRequest) -> ReportReply:
        self._check_epoch(op.epoch)
        if len(op.items) > REPORT_ITEMS_MAX:
            raise BadRequest(f"A report carries at most {REPORT_ITEMS_MAX} items, got {len(op.items)}.")
        core, project_id = self._core, scope.project_id
        now_us = self.now_us()
        problems = [check_report(item, encoded=scope.encoded) for item in op.items]
        items = [item for item, problem in zip(op.items, problems, strict=True) if problem is None]
        steps = _steps_of(items) if core.store.alone else {}
        others = [item for item in items if item.execution_id not in steps] if steps else items
        # A waiting claim takes what one item makes ready; the next claim takes what several do.
        poll = None
        if sum(map(_makes_ready, others)) == 1:
            poll = self.take_waiting(project_id, of_worker=op.worker_id)
        waiting_claim = None if poll is None else poll.waiting_claim
        verbs: list[Verb[Any]] = []
        same: dict[str, Any] = {"project_id": project_id, "worker_id": op.worker_id, "now_us": now_us}
        decides = scope.has_role(Role.WRITE)
        for item in others:
            its: dict[str, Any] = {**same, "decides": decides, "item": recordable(item), "ids": fresh_ids(item)}
            if waiting_claim is not None and _makes_ready(item):
                verbs.append(reports.report_and_dispatch(**its, waiting_claim=waiting_claim))
            else:
                verbs.append(reports.report(**its))
        if steps:
            verbs.append(reports.record_steps(**same, items=list(steps.values())))
        handed: list[Claimed] = []
        replies: list[ItemReply] = []
        recorded: Any = ()
        try:
            answers: Sequence[Any] = await core.store.write_all(verbs)
            if steps:
                *answers, recorded = answers
            for answer in answers:
                if isinstance(answer, tuple):
                    answer, handed = answer
                replies.append(_reply(answer))
        finally:
            if poll is not None:
                self.settle(poll, handed)
        if isinstance(recorded, PerdureError):
            recorded = [_reply(recorded)] * len(steps)
        elif isinstance(recorded, Exception):  # one step is at fault: record each alone
            alone = [reports.report(**same, item=item) for item in steps.values()]
            recorded = [_reply(answer) for answer in await core.store.write_all(alone)]
        rest, taken = iter(replies), iter(recorded)
        return ReportReply(
            [
                ItemReply(problem=problem)
                if problem is not None
                else next(taken if item.execution_id in steps else rest)
                for item, problem in zip(op.items, problems, strict=True)
            ]
        )

    @serves(DrainRequest)
    async def drain(self, scope: Scope, op: DrainRequest) -> None:
        """Return the worker's executions to the queue, or lose them at once if the process died."""
        self._check_epoch(op.epoch)
        await self.write(
            claims.drain(project_id=scope.project_id, worker_id=op.worker_id, now_us=self.now_us(), died=op.died)
        )
        if scope.leases is not None:
            scope.leases.pop(op.worker_id, None)

    def _check_epoch(self, epoch: str) -> None:
        if epoch != self._core.store.epoch:
            raise LeaseLost("The store was restored or replaced since this worker registered; register again.")


def _steps_of(items: Sequence[ReportItem]) -> dict[str, ReportItem]:
    """Map executions to items that are each one step's outcome and can be recorded together. Empty if an execution has
    several items, because their order counts."""
    by_execution = {item.execution_id: item for item in items}
    if len(by_execution) < len(items):
        return {}
    steps = {id: item for id, item in by_execution.items() if reports.is_small_step(item)}
    return steps if len(steps) > 1 else {}


def _makes_ready(item: ReportItem) -> bool:
    """Whether the item starts children or ends a child."""
    return (item.child and reports.is_final(item.end)) or any(type(entry) is StartChild for entry in item.entries)


def _reply(answer: ItemReply | Exception) -> ItemReply:
    if isinstance(answer, PerdureError):
        return ItemReply(problem=Problem(answer.message, answer.code, answer.details))
    if isinstance(answer, Exception):
        return ItemReply(
            problem=Problem("The server failed to record this report; its log says why.", "INTERNAL_ERROR")
        )
    return answer


def fresh_ids(item: ReportItem) -> Sequence[str]:
    if not item.entries:
        return ()
    ids: list[str] = []
    for entry in item.entries:
        if type(entry) is StartChild:
            ids.append(str(uuid7()))
        elif type(entry) is Publish:
            ids.extend(str(uuid7()) for _ in entry.events)
    return ids


def check_report(item: ReportItem, *, encoded: bool = False) -> Problem | None:
    """Check an item of a report; our SDKs never send invalid values. `encoded` is as for `check_item`."""
    try:
        for entry in item.entries:
            check_name(entry.key, where="key", max_bytes=KEY_BYTES_MAX)
            if type(entry) is StepDone:
                check_name(entry.name, where="name", max_bytes=KEY_BYTES_MAX)
                if not (encoded and entry.ok):
                    check_raw(entry.value, where=f"step {entry.key!r}")
                if entry.label is not None:
                    check_text(entry.label, where="label", max_bytes=LABEL_BYTES_MAX)
            elif type(entry) is Publish:
                check_name(entry.topic, where="topic", max_bytes=TOPIC_BYTES_MAX)
                for event in entry.events:
                    check_raw(event.data, where="event")
            elif type(entry) is StartChild:
                check_item(entry.item, encoded=encoded)
            elif type(entry) is Answer:
                check_name(entry.step_key, where="step_key", max_bytes=KEY_BYTES_MAX)
                check_raw(entry.data, where="data")
            elif type(entry) is OpenWait:
                _check_wait(entry)
            elif isinstance(entry, TranscriptEntry):
                check_transcript_entry(entry)
        if item.progress is not None:
            check_raw(item.progress, where="progress")
        if item.stream:
            _check_stream(item)
        end = item.end
        if type(end) is Complete:
            if end.returns_step and [type(entry) for entry in item.entries] != [StepDone]:
                raise BadValue("returns_step: the end of a report with one step's outcome and no other entry")
            if not encoded:
                check_raw(end.result, where="result")
        elif type(end) is Fail or type(end) is Block or type(end) is Hold:
            check_raw(end.detail, where="detail")
        elif type(end) is Suspend and len(end.waits) > 100_000:
            raise BadValue("An execution may hold at most 100,000 open waits.")
    except PerdureError as error:
        return Problem(error.message, error.code, error.details)
    return None


def _check_stream(item: ReportItem) -> None:
    if item.number == 0:
        raise BadValue("stream: a report that carries items of a stream has a number")
    if item.stream_of is not None:
        checked_id(item.stream_of, "root execution")
    for one in item.stream:
        check_name(one.kind, where="stream.kind")
        check_name(one.key, where="stream.key", max_bytes=KEY_BYTES_MAX)
        check_raw(one.data, where="stream.data", max_bytes=ITEM_BYTES_MAX)


def _check_wait(wait: OpenWait) -> None:
    if wait.topic is not None:
        check_name(wait.topic, where="topic", max_bytes=TOPIC_BYTES_MAX)
    if wait.data is not None:
        check_raw(wait.data, where="data")
    if wait.answer_schema is not None:
        check_raw(wait.answer_schema, where="answer_schema", max_bytes=ANSWER_SCHEMA_BYTES_MAX)
    for name, value in (wait.match or {}).items():
        check_name(name, where="match")
        check_raw(value, where=f"match.{name}")


def recordable(item: ReportItem) -> ReportItem:
    """Scrub texts, so that the server can record any error."""
    end = item.end
    if type(end) is Fail or type(end) is Block or type(end) is Hold:
        words = scrub_text(end.error)
        if words != end.error:
            item = structs.replace(item, end=structs.replace(end, error=words))
    if item.logs:
        lines = [structs.replace(line, text=scrub_text(line.text), at_us=clamped(line.at_us)) for line in item.logs]
        item = structs.replace(item, logs=lines)
    return item
