"""Forks and retries: executions that begin with a copy of another one's journal.

The copies keep their `seq`, so every statement on journals, retention and a fork of a fork need no rule of their own.
All refusals come before the first write.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw, Struct, structs

from perdure.store.executions import JournalRow, Parent, unknown_execution
from perdure.store.interface import Notify, Written, query, query_many, record, records, value, verb
from perdure.store.verbs.continued_keys import continue_keys
from perdure.store.verbs.events import event_value
from perdure.store.verbs.idempotency import Idempotency, recall, remember
from perdure.store.verbs.push_workers import PYTHON as PUSHED
from perdure.store.verbs.start_targets import check_payload, find_target
from perdure.store.verbs.starts import New, start_items
from perdure.store.verbs.transcripts import StoredTranscript
from perdure.wire.budgets import ReserveReply, topic_of
from perdure.wire.errors import BadValue, Conflict, NotFound, TooLarge
from perdure.wire.events import Event
from perdure.wire.executions import Execution, Finished, Row
from perdure.wire.forks import Edits, Fork, ForkExecution, RetryExecution
from perdure.wire.holds import read_held
from perdure.wire.limits import FORK_BYTES_MAX
from perdure.wire.records import NULL, Kind
from perdure.wire.requests import WORKER_PROTOCOL, Started, StartItem
from perdure.wire.search import key_terms
from perdure.wire.status import FINAL, Phase
from perdure.wire.transcripts import OnConflict

KEYS_SHOWN = 20
CHILDREN_MAX = 10_000
"""Open children that one fork starts again; 10,000 take some seconds."""
_EDITABLE = (Kind.STEP, Kind.RESUME, Kind.EVENT, Kind.CHILD)
_OPTIONS = (
    *("workflow_id", "payload", "queue_name", "concurrency_key", "priority", "session_id", "user_id"),
    *("run_timeout_seconds", "webhook_url"),
)
"""Options that a fork, and a child that is asked for again, have from before."""


class Source(Execution, frozen=True, kw_only=True, gc=False):
    """Its statements leave the result out. `session_id` is None if it is the first of its session."""

    priority: int
    seed_id: str | None
    keys_id: str | None
    python: str | None
    next_seq: int
    created_number: int | None
    initial_state: bytes | None
    channel_context: bytes | None
    webhook_url: str | None


class Kept(Struct, frozen=True):
    value_bytes: int = 0
    at_us: int | None = None
    attempt: int = 0
    cancel_seq: int | None = None
    cut_at_us: int | None = None
    """Of the first row that is not kept."""


class StartedChild(Struct, frozen=True):
    seq: int
    key: str
    value: Raw


class Failure(Struct, frozen=True):
    """The part of a recorded failure that a retry needs."""

    steps: Sequence[str] = ()
    children: Sequence[str] = ()
    code: str = ""


class Refusal(Struct, frozen=True):
    """The part of a step's recorded failure that names the budget that refused it."""

    details: ReserveReply | None = None


class Reading(Struct, frozen=True):
    session_id: str
    version: int
    begun_at_us: int = 0


class Plan(Struct, frozen=True):
    cut: int
    """The first row that is not kept."""
    at_step: str | None = None
    failures: dict[str, int] = {}
    """The rows of kept failures whose steps run again, by key."""
    edits: Sequence[tuple[Row, Raw]] = ()
    payload: Raw | None = None
    retries: bool = False
    """The fork takes over the source's key, and results that its children have had since."""


class Again(Struct, frozen=True):
    """A child that was open at the cut and is asked for again."""

    id: str
    row: StartedChild
    old: Source


@verb(sweep=True)
async def fork(
    *,
    project_id: str,
    request: ForkExecution | RetryExecution,
    fork_id: str,
    acted_by: str,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> Fork:
    """Fork or retry. Raises NotFound, Conflict, BadValue, TooLarge, and what a start raises."""
    first = await recall(project_id, idempotency)
    if first is not None:
        return msgspec.json.decode(first, type=Fork)
    if isinstance(request, ForkExecution):
        made = await fork_one(project_id, request, fork_id, acted_by, now_us)
    else:
        made = await retry_one(project_id, request, fork_id, acted_by, now_us)
    await remember(project_id, idempotency, msgspec.json.encode(made), now_us, [fork_id])
    return made


async def fork_one(project_id: str, request: ForkExecution, fork_id: str, acted_by: str, now_us: int) -> Fork:
    source = await _locked(project_id, request.execution_id, "lock_source")
    plan = await _ask_anew(source, await _plan_fork(source, request.from_step, request.edits or Edits()))
    if request.key is not None:
        where = {"project_id": project_id, "workflow_id": source.workflow_id}
        for (holder,) in await query("holder_of_key", key=request.key, **where):
            raise _key_is_taken(source, request.key, holder)
    making = _Making(project_id, source, plan, request, fork_id=fork_id, now_us=now_us)
    return await making.make(request.key, acted_by)


async def retry_one(project_id: str, request: RetryExecution, fork_id: str, acted_by: str, now_us: int) -> Fork:
    source = await _locked(project_id, request.execution_id, "lock_retried")
    if source.phase not in FINAL:
        raise Conflict(f"Execution {source.id!r} is {source.phase.value}. Cancel it before you retry it, or fork it.")
    if source.retried_as is not None:
        for _ in await query("read_state", project_id=project_id, id=source.retried_as):
            raise Conflict(
                f"Execution {source.id!r} was retried as {source.retried_as!r}. Retry that one, or fork this one.",
                {"execution_id": source.retried_as},
            )
    plan = await _ask_anew(source, await _plan_retry(source, request))
    making = _Making(project_id, source, plan, request, fork_id=fork_id, now_us=now_us)
    return await making.make(await _key_to_take(project_id, source), acted_by)


async def _locked(project_id: str, execution_id: str, how: str) -> Source:
    source = await record(Source, how, project_id=project_id, id=execution_id)
    if source is None:
        raise unknown_execution(execution_id)
    return source


def _key_is_taken(source: Source, key: str | None, holder: str) -> Conflict:
    return Conflict(
        f"Key {key!r} of workflow {source.workflow_id!r} belongs to execution {holder!r}; use another key.",
        {"key": key, "execution_id": holder},
    )


async def _key_to_take(project_id: str, source: Source) -> str | None:
    """None: a start took the key after the last retry was deleted."""
    if source.key is None:
        return None
    holder = await value("holder_of_key", project_id=project_id, workflow_id=source.workflow_id, key=source.key)
    return source.key if holder in (None, source.id) else None


# --- where to cut -----------------------------------------------------------------------------------------------------


async def _plan_fork(source: Source, from_step: str | None, edits: Edits) -> Plan:
    edited = [_edited(source, await _edited_row(source, key), given) for key, given in edits.steps.items()]
    cut = max((row.seq for row, _ in edited), default=0) + 1
    if from_step is not None:
        cut = await _first_row(source, from_step)
        for row, _ in edited:
            if row.seq >= cut:
                raise _bad_edit(row.key, f"it comes at or after {from_step!r}, so it runs again.")
    return Plan(cut, at_step=from_step, edits=edited, payload=edits.payload)


async def _edited_row(source: Source, key: str) -> Row:
    rows = await records(Row, "outcomes_of_key", execution_id=source.id, key=key)
    for row in rows:
        if row.kind in _EDITABLE:
            return row
    if not rows:
        raise _bad_edit(key, f"execution {source.id!r} has no outcome of it.{_known(await _newest_keys(source))}")
    raise _bad_edit(key, f"a row of kind `{rows[0].kind.value}` has no value to replace.")


def _edited(source: Source, row: Row, given: Raw) -> tuple[Row, Raw]:
    """An event keeps its topic and its number. One that an act timed out has none, as one that an act gave."""
    if row.kind is not Kind.EVENT:
        return row, given
    if not row.ok:
        event = Event(
            id=source.id, sequence_id=0, topic=row.name or "", data=given, created_at_us=row.at_us, event_type=None
        )
        return row, Raw(event_value(event))
    envelope = msgspec.json.decode(row.value, type=dict[str, Raw])
    return row, Raw(msgspec.json.encode(envelope | {"data": given}))


def _bad_edit(key: str | None, why: str) -> BadValue:
    return BadValue(f"edits.steps.{key}: {why}", {"path": f"edits.steps.{key}"})


async def _first_row(source: Source, key: str) -> int:
    seq: int | None = await value("first_row_of", execution_id=source.id, key=key)
    if seq is not None:
        return seq
    keys = await _newest_keys(source)
    if source.phase not in FINAL:
        last = f"its last step is {keys[0]!r}" if keys else "it has not recorded a step"
        raise Conflict(f"Execution {source.id!r} is not at step {key!r} yet; {last}.")
    raise NotFound(f"Execution {source.id!r} has no step {key!r}.{_known(keys)}")


async def _newest_keys(source: Source) -> list[str]:
    return [key for (key,) in await query("newest_keys", execution_id=source.id, limit=KEYS_SHOWN)]


def _known(keys: list[str]) -> str:
    return f" Its newest steps: {', '.join(keys)}." if keys else " It recorded none."


async def _plan_retry(source: Source, request: RetryExecution) -> Plan:
    end = source.next_seq - 1
    if request.from_step is not None:
        return Plan(await _first_row(source, request.from_step), at_step=request.from_step, retries=True)
    if request.from_end:
        return Plan(end, retries=True)
    if source.phase is Phase.COMPLETED or source.python == PUSHED:
        return Plan(1, retries=True)
    [before] = await records(Kept, "kept_facts", execution_id=source.id, cut=end)
    cut = before.cancel_seq or end
    if source.phase is Phase.CANCELLED:
        seqs = await _failed_of_hold(source, cut)
        return Plan(cut, at_step=min(seqs, key=lambda key: seqs[key], default=None), failures=seqs, retries=True)
    [last] = await records(Row, "row_at", execution_id=source.id, seq=end)
    failure = _failure(last)
    if failure.code == "POISONED":
        return Plan(cut, retries=True)
    steps, children = failure.steps, failure.children
    if not steps and not children:  # the code failed, or an older worker did not say
        steps = [key for (key,) in await query("failed_step_of", execution_id=source.id)]
    blamed = {key: await _failed_row(source, key, (Kind.STEP,)) for key in steps}
    lost = {key: await _failed_row(source, key, (Kind.CHILD, Kind.CHILD_STARTED)) for key in children}
    seqs = {key: seq for key, seq in (blamed | lost).items() if seq}
    if not seqs:
        return Plan(1, retries=True)
    cut = min([cut, *(seq for key, seq in seqs.items() if key in lost)])
    return Plan(
        cut,
        at_step=min(seqs, key=lambda key: seqs[key]),
        failures={key: seq for key, seq in seqs.items() if seq < cut},
        retries=True,
    )


async def _failed_of_hold(source: Source, cut: int) -> dict[str, int]:
    """The failed steps that had ended the code, if it was held at `cut`."""
    for (told,) in await query("hold_at", execution_id=source.id, cut=cut):
        found = {key: await _failed_row(source, key, (Kind.STEP,)) for key in read_held(told).take_back}
        return {key: seq for key, seq in found.items() if 0 < seq < cut}
    return {}


async def _ask_anew(source: Source, plan: Plan) -> Plan:
    """Also run the kept calls again that waited for a budget at the cut: the fork has a budget of its own."""
    if plan.cut == 1:
        return plan
    waits = [(topic, after) for topic, after in await query("budget_waits_at", execution_id=source.id, cut=plan.cut)]
    if not waits:
        return plan
    refused = {
        row.key: row.seq
        for row in await records(Row, "failed_steps_before", execution_id=source.id, cut=plan.cut)
        if row.key is not None and _budget_wait(row) in waits
    }
    at_step = plan.at_step or min(refused, key=lambda key: refused[key], default=None)
    return structs.replace(plan, at_step=at_step, failures=plan.failures | refused)


def _budget_wait(row: Row) -> tuple[str, int] | None:
    """The topic that a refused call waits for, and the event that it has seen."""
    try:
        refused = msgspec.json.decode(row.value, type=Refusal).details
    except msgspec.DecodeError:  # it failed otherwise
        return None
    budget = None if refused is None else refused.budget
    return None if budget is None else (topic_of(budget.execution_id), budget.raises)


def _failure(row: Row) -> Failure:
    try:
        return msgspec.json.decode(row.value, type=Failure)
    except msgspec.DecodeError:  # a push worker may send any JSON
        return Failure()


async def _failed_row(source: Source, key: str, kinds: Sequence[Kind]) -> int:
    rows = await records(Row, "outcomes_of_key", execution_id=source.id, key=key)
    return next((row.seq for row in rows if row.kind in kinds and not row.ok), 0)


# --- making it --------------------------------------------------------------------------------------------------------


class _Making:
    def __init__(
        self,
        project_id: str,
        source: Source,
        plan: Plan,
        request: ForkExecution | RetryExecution,
        *,
        fork_id: str,
        now_us: int,
    ) -> None:
        self.project_id = project_id
        self.source = source
        self.plan = plan
        self.request = request
        self.fork_id = fork_id
        self.now_us = now_us
        self.seed_id = None if request.fresh_keys and plan.cut == 1 else source.seed_id or source.id
        self.deployment_id: str | None = None
        self.pushed = False
        self.kept = Kept()
        self.again: list[Again] = []
        self.results: list[tuple[str, Raw]] = []
        """Of children that have completed since."""
        self.readings: dict[str, int] = {}
        """By session, the oldest version that a kept row has read."""

    async def make(self, key: str | None, acted_by: str) -> Fork:
        await self._look(key)
        return await self._write(key, acted_by)

    async def _look(self, key: str | None) -> None:
        source, cut = self.source, self.plan.cut
        target = await find_target(self.project_id, source.workflow_id, self.request.deployment_id, source.queue_name)
        if target is not None:  # otherwise the start says what is wrong
            self.deployment_id, self.pushed = target.deployment_id, target.push
        if self.plan.payload is not None:
            await check_payload(self.project_id, source.workflow_id, target, self.plan.payload, "edits.payload")
        if cut == 1:
            return
        if self.pushed or source.python == PUSHED:
            raise Conflict(
                f"Workflow {source.workflow_id!r} is served by push workers, which keep no steps; fork from the start."
            )
        [self.kept] = await records(Kept, "kept_facts", execution_id=source.id, cut=cut)
        if self.kept.cancel_seq is not None:
            raise Conflict(
                f"Execution {source.id!r} was asked to cancel before that; fork from a step before the cancel."
            )
        if self.kept.value_bytes > FORK_BYTES_MAX:
            raise TooLarge(
                f"The outcomes to keep have {self.kept.value_bytes:,} bytes, more than {FORK_BYTES_MAX:,} "
                "(PERDURE_FORK_BYTES_MAX); fork from an earlier step."
            )
        await self._look_at_children()
        await self._look_at_transcripts()

    async def _look_at_children(self) -> None:
        ids = _ids_after(self.fork_id)
        started = await records(StartedChild, "open_children_at", execution_id=self.source.id, cut=self.plan.cut)
        if len(started) > CHILDREN_MAX:
            raise TooLarge(
                f"{len(started):,} children were open there, and a fork starts at most {CHILDREN_MAX:,} of them again; "
                f"fork from an earlier step, such as {started[0].key!r}."
            )
        for row in started:
            old_id = msgspec.json.decode(row.value)
            old = await record(Source, "read_source", project_id=self.project_id, id=old_id)
            if old is None:
                raise Conflict(
                    f"Child {old_id!r} was open there and is deleted. Fork from {row.key!r}, which started it."
                )
            if self.plan.retries and old.phase is Phase.COMPLETED:
                [end] = await records(Finished, "read_end", project_id=self.project_id, id=old_id)
                self.results.append((row.key, end.result or NULL))
            else:
                self.again.append(Again(next(ids), row, old))

    async def _look_at_transcripts(self) -> None:
        rows = await query("kept_readings", execution_id=self.source.id, cut=self.plan.cut)
        readings = [msgspec.json.decode(told, type=Reading) for (told,) in rows]
        for one in sorted(readings, key=lambda one: -one.version):
            self.readings[one.session_id] = one.version
        begun = {one.session_id: one.begun_at_us for one in readings}
        for session_id, version in sorted(self.readings.items()):
            await self._check_transcript(session_id, version, begun[session_id])

    async def _check_transcript(self, session_id: str, version: int, begun_at_us: int) -> None:
        if version == 0:
            return
        session: dict[str, object] = {"project_id": self.project_id, "session_id": session_id}
        stored = await record(StoredTranscript, "lock_transcript", **session)
        gone = stored is None or stored.begun_at_us != begun_at_us
        if stored is not None and not gone:
            summary_of = await value("newest_summary", version=version, **session) or 0
            gone = summary_of < min(stored.dropped, version)
        if gone:
            raise Conflict(
                f"Version {version} of the transcript of session {session_id!r} is gone; fork from a step before it "
                "was read."
            )

    async def _write(self, key: str | None, acted_by: str) -> Fork:
        source, plan, fork_id = self.source, self.plan, self.fork_id
        session_id = (source.session_id if await self._has_session() else self.seed_id) or fork_id
        parent = Parent(fork_id, session_id, source.user_id, source.channel_context)
        news = [New(one.id, self._item(one.old, one)) for one in self.again]  # a turn is asked for last: it writes
        news.append(New(fork_id, await self._own_item(session_id, key)))
        own_rows = await self._own_rows()
        *_, started = await start_items(
            self.project_id, news, self.now_us, independent=False, parents={fork_id: parent}
        )
        if isinstance(started, Started) and started.existing:  # it was started since the plan
            raise _key_is_taken(source, key, started.execution_id)
        if plan.retries:
            await query("mark_retried", project_id=self.project_id, id=source.id, retried_as=fork_id)
        await query("make_fork", **self._columns(key, own_rows[-1].seq + 1))
        if plan.retries and key is not None:
            await query_many("insert_term", [(self.project_id, term, fork_id) for term in key_terms(key)])
        await self._note_acts(acted_by)
        await self._copy()
        await query_many("insert_journal", own_rows)
        await Notify(Written(source.id))
        return Fork(
            execution_id=fork_id,
            created_at_us=self.now_us,
            forked_from=source.id,
            forked_at_step=plan.at_step,
            kept_rows=plan.cut - 1,
            deployment_id=self.deployment_id,
        )

    @property
    def _at_us(self) -> int:
        """The time of a journal never goes back."""
        return max(self.now_us, self.kept.at_us or 0)

    async def _has_session(self) -> bool:
        """Or one of its own, or that of the parent, whose conversation it does not continue."""
        source = self.source
        if source.session_id in (None, source.seed_id):
            return False
        return source.parent_execution_id is None or await self._has_transcript()

    async def _has_transcript(self) -> bool:
        return bool(await query("any_transcript_row", execution_id=self.source.id))

    async def _own_item(self, session_id: str, key: str | None) -> StartItem:
        source = self.source
        is_turn = source.session_id is not None and await self._has_transcript()
        return structs.replace(
            self._item(source),
            payload=source.payload if self.plan.payload is None else self.plan.payload,
            deployment_id=self.request.deployment_id,
            session_id=session_id,
            key=None if self.plan.retries else key,
            on_conflict=OnConflict.QUEUE if is_turn else None,
        )

    def _item(self, old: Source, again: Again | None = None) -> StartItem:
        """Start `old` anew, as a child of the fork if it is asked for `again`."""
        elsewhere = old.deployment_id != self.source.deployment_id
        given: dict[str, Any] = {name: getattr(old, name) for name in _OPTIONS}
        if again is not None:
            given |= {"parent_execution_id": self.fork_id, "step_key": again.row.key, "batch_id": old.batch_id}
        return StartItem(
            **given,
            deployment_id=old.deployment_id if elsewhere else self.deployment_id,
            tags=None if old.tags is None else msgspec.json.decode(old.tags),
            initial_state=None if old.initial_state is None else Raw(old.initial_state),
            channel_context=None if old.channel_context is None else Raw(old.channel_context),
        )

    def _columns(self, key: str | None, next_seq: int) -> dict[str, object]:
        source, plan = self.source, self.plan
        keys_id = None if self.request.fresh_keys else source.keys_id or source.id
        return {
            "project_id": self.project_id,
            "id": self.fork_id,
            "forked_from": source.id,
            "forked_at_step": plan.at_step,
            "kept_rows": plan.cut - 1,
            "seed_id": self.seed_id,
            "keys_id": keys_id,
            "needs_protocol": None if self.pushed or (keys_id is None and self.seed_id is None) else WORKER_PROTOCOL,
            "key": key,
            "next_seq": next_seq,
            "attempt": self.kept.attempt,
            "at_us": self._at_us,
            "created_number": source.created_number,  # it may take the events that the source could take
        }

    async def _own_rows(self) -> list[JournalRow]:
        """The rows after the copies."""
        plan = self.plan
        taken = set(plan.failures.values())
        for (told,) in await query("retried_after", execution_id=self.source.id, cut=plan.cut):
            seqs = msgspec.json.decode(told, type=int | list[int] | None)
            taken |= {seq for seq in (seqs if isinstance(seqs, list) else [seqs or 0]) if 0 < seq < plan.cut}
        rows: list[JournalRow] = []

        def add(kind: Kind, *, of: str | None = None, name: str | None = None, told: bytes | Raw = NULL) -> None:
            seq, attempt = plan.cut + len(rows), self.kept.attempt
            rows.append(JournalRow(self.fork_id, seq, self._at_us, kind, attempt, key=of, name=name, value=told))

        add(Kind.FORKED, of=plan.at_step, name=self.source.id)
        if taken:
            add(Kind.RETRIED, told=msgspec.json.encode(sorted(taken)))
        for child, result in self.results:
            add(Kind.CHILD, of=child, name=Phase.COMPLETED.value, told=result)
        return rows

    async def _copy(self) -> None:
        source, plan, fork_id = self.source, self.plan, self.fork_id
        same = {"execution_id": source.id, "fork_id": fork_id}
        if plan.cut > 1:
            await query("copy_journal", cut=plan.cut, **same)
            values = [(row.seq, bytes(given)) for row, given in plan.edits]
            values += [(one.row.seq, msgspec.json.encode(one.id)) for one in self.again]
            await query_many(
                "replace_value", [{"execution_id": fork_id, "seq": seq, "value": given} for seq, given in values]
            )
            await query_many("take_back_step", [{"execution_id": fork_id, "key": key} for key in plan.failures])
            await query("copy_waits", cut_at_us=self.kept.cut_at_us or self.now_us, **same)
            await query("copy_approvals", **same)
            await query("copy_acts", cut=plan.cut, **same)
            for session_id, version in self.readings.items():
                await query(
                    "note_reading",
                    project_id=self.project_id,
                    session_id=session_id,
                    execution_id=fork_id,
                    version=version,
                )
        copied = [(source, fork_id), *((one.old, one.id) for one in self.again)]
        budgets = [
            {"execution_id": old.id, "fork_id": id, "root_id": fork_id, "now_us": self.now_us}
            | {"ended_at_us": old.completed_at_us or self.now_us, "is_final": int(old.phase in FINAL)}
            for old, id in copied
        ]
        await query_many("copy_budget", budgets)
        if not self.request.fresh_keys:
            await continue_keys(self.project_id, {one.id: one.old.keys_id or one.old.id for one in self.again})

    async def _note_acts(self, acted_by: str) -> None:
        plan = self.plan
        acts = [(plan.cut, "retry" if plan.retries else "fork", plan.at_step)]
        acts += [(row.seq, "edit", row.key) for row, _ in plan.edits]
        await query_many(
            "insert_act",
            [
                {
                    "execution_id": self.fork_id,
                    "seq": seq,
                    "project_id": self.project_id,
                    "at_us": self._at_us,
                    "action": action,
                    "key": key,
                    "acted_by": acted_by,
                    "note": self.request.note,
                }
                for seq, action, key in acts
            ],
        )


def _ids_after(id: str) -> Iterator[str]:
    """Ids for what is made with `id`, of the same time."""
    high = UUID(id).int >> 64
    for number in count():
        low = int.from_bytes(blake2b(f"{id}/{number}".encode(), digest_size=8).digest()) >> 2
        yield str(UUID(int=high << 64 | 1 << 63 | low))
