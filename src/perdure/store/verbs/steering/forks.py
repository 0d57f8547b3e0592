"""Forks and retries: executions that begin with a copy of another journal.

Copies keep their `seq`, so statements on journals, retention and forks of forks need no special rule. All refusals come
before the first write.
"""

import json
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw, Struct, structs

from perdure.store.base.executions import JournalRow, Parent, unknown_execution
from perdure.store.base.interface import Notify, Written, query, query_many, record, records, value, verb
from perdure.store.verbs.agents.transcripts import StoredTranscript
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.outside.push_questions import note_answer
from perdure.store.verbs.outside.push_workers import PUSH_RUNTIME
from perdure.store.verbs.runs.continued_keys import continue_keys
from perdure.store.verbs.runs.start_targets import check_payload, find_target
from perdure.store.verbs.runs.starts import New, start_items
from perdure.store.verbs.steering.fork_plans import (
    ForkSource,
    Kept,
    Plan,
    ask_anew,
    plan_fork,
    plan_retry,
)
from perdure.wire.agents.approvals import Approval
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.access import Principal, Role, check_role
from perdure.wire.base.errors import Conflict, TooLarge
from perdure.wire.base.limits import FORK_BYTES_MAX
from perdure.wire.base.records import NULL, Kind
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.runs.executions import Finished
from perdure.wire.runs.requests import WORKER_PROTOCOL, Started, StartItem
from perdure.wire.runs.search_terms import key_terms
from perdure.wire.steering.forks import Edits, Fork, ForkExecution, RetryExecution

CHILDREN_MAX = 10_000
SHOWN_BYTES = 100
"""Open children that a fork restarts; 10,000 take some seconds."""
_OPTIONS = (
    *("workflow_id", "payload", "queue_name", "concurrency_key", "priority", "session_id", "user_id"),
    *("run_timeout_seconds", "webhook_url"),
)
"""Options that a fork or a restarted child takes over."""


class TranscriptRead(Struct, frozen=True):
    session_id: str
    version: int
    begun_at_us: int = 0


class RestartedChild(Struct, frozen=True):
    """A child, open at the cut, that the fork restarts."""

    id: str
    seq: int
    key: str
    old: ForkSource


@verb(sweep=True)
async def fork(at: At, op: ForkExecution | RetryExecution, *, acted_by: str) -> Fork:
    """Fork or retry. Raises NotFound, Conflict, BadValue, TooLarge, the errors of a start, and Forbidden if the
    principal may not edit answers."""
    first = await at.recall()
    if first is not None:
        return msgspec.json.decode(first, type=Fork)
    if isinstance(op, ForkExecution):
        made = await fork_one(at.project_id, op, at.new_id, acted_by, at.now_us, principal=at.principal)
    else:
        made = await retry_one(at.project_id, op, at.new_id, acted_by, at.now_us)
    await at.remember(made, [at.new_id])
    return made


async def fork_one(
    project_id: str,
    request: ForkExecution,
    fork_id: str,
    acted_by: str,
    now_us: int,
    *,
    principal: Principal | None = None,
) -> Fork:
    source = await _locked(project_id, request.execution_id, "lock_source")
    plan = await ask_anew(source, await plan_fork(source, request.from_step, request.edits or Edits()))
    if principal is not None and any(row.kind is Kind.RESUME for row, _ in plan.edits):
        check_role(principal, Role.ADMIN)
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
    plan = await ask_anew(source, await plan_retry(source, request))
    making = _Making(project_id, source, plan, request, fork_id=fork_id, now_us=now_us)
    return await making.make(await _key_to_take(project_id, source), acted_by)


async def _locked(project_id: str, execution_id: str, how: str) -> ForkSource:
    source = await record(ForkSource, how, project_id=project_id, id=execution_id)
    if source is None:
        raise unknown_execution(execution_id)
    return source


def _key_is_taken(source: ForkSource, key: str | None, holder: str) -> Conflict:
    return Conflict(
        f"Key {key!r} of workflow {source.workflow_id!r} belongs to execution {holder!r}; use another key.",
        {"key": key, "execution_id": holder},
    )


async def _key_to_take(project_id: str, source: ForkSource) -> str | None:
    """Return the key to take over. None: a start took the key after the last retry was deleted."""
    if source.key is None:
        return None
    holder = await value("holder_of_key", project_id=project_id, workflow_id=source.workflow_id, key=source.key)
    return source.key if holder in (None, source.id) else None


# --- making it --------------------------------------------------------------------------------------------------------


class _Making:
    def __init__(
        self,
        project_id: str,
        source: ForkSource,
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
        self.again: list[RestartedChild] = []
        self.results: list[tuple[str, Raw]] = []
        """Results of children that have completed since."""
        self.readings: dict[str, int] = {}
        """Maps a session to the oldest version that a kept row has read."""

    async def make(self, key: str | None, acted_by: str) -> Fork:
        await self._find_target(key)
        return await self._write(key, acted_by)

    async def _find_target(self, key: str | None) -> None:
        source, cut = self.source, self.plan.cut
        target = await find_target(self.project_id, source.workflow_id, self.request.deployment_id, source.queue_name)
        if target is not None:  # otherwise the start says what is wrong
            self.deployment_id, self.pushed = target.deployment_id, target.push
        if self.plan.payload is not None:
            await check_payload(self.project_id, source.workflow_id, target, self.plan.payload, "edits.payload")
        if cut == 1:
            return
        if self.pushed or source.python == PUSH_RUNTIME:
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
        lost = json.dumps(list(self.plan.lost))
        found = await query("open_children_at", execution_id=self.source.id, cut=self.plan.cut, lost=lost)
        started = [(seq, key, told) for seq, key, told in found if seq not in self.plan.dropped]
        if len(started) > CHILDREN_MAX:
            (_, first_key, _), *_ = started
            raise TooLarge(
                f"{len(started):,} children were open there, and a fork starts at most {CHILDREN_MAX:,} of them again; "
                f"fork from an earlier step, such as {first_key!r}."
            )
        for seq, child_key, told in started:
            old_id = msgspec.json.decode(told)
            old = await record(ForkSource, "read_source", project_id=self.project_id, id=old_id)
            if old is None:
                raise Conflict(
                    f"Child {old_id!r} was open there and is deleted. Fork from {child_key!r}, which started it."
                )
            if self.plan.retries and old.phase is Phase.COMPLETED:
                [end] = await records(Finished, "read_end", project_id=self.project_id, id=old_id)
                self.results.append((child_key, end.result or NULL))
            else:
                self.again.append(RestartedChild(next(ids), seq, child_key, old))

    async def _look_at_transcripts(self) -> None:
        rows = await query("kept_readings", execution_id=self.source.id, cut=self.plan.cut)
        readings = [msgspec.json.decode(told, type=TranscriptRead) for (told,) in rows]
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
        await self._copy(acted_by)
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
        """Return the time of new rows; a journal's time never goes back."""
        return max(self.now_us, self.kept.at_us or 0)

    async def _has_session(self) -> bool:
        """Whether the source's session is neither its own nor just inherited from the parent."""
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

    def _item(self, old: ForkSource, again: RestartedChild | None = None) -> StartItem:
        """Start `old` again, as a child of the fork if `again` is given."""
        elsewhere = old.deployment_id != self.source.deployment_id
        given: dict[str, Any] = {name: getattr(old, name) for name in _OPTIONS}
        if again is not None:
            given |= {"parent_execution_id": self.fork_id, "step_key": again.key, "batch_id": old.batch_id}
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
        """Make the rows after the copies."""
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

    async def _copy(self, acted_by: str) -> None:
        source, plan, fork_id = self.source, self.plan, self.fork_id
        same = {"execution_id": source.id, "fork_id": fork_id}
        if plan.cut > 1:
            await query("copy_journal", cut=plan.cut, **same)
            values = [(row.seq, bytes(given)) for row, given in plan.edits]
            values += [(one.seq, msgspec.json.encode(one.id)) for one in self.again]
            await query_many(
                "replace_value", [{"execution_id": fork_id, "seq": seq, "value": given} for seq, given in values]
            )
            kinds = dict.fromkeys(plan.failures.values(), Kind.STEP_FAILED) | dict.fromkeys(plan.dropped, Kind.IGNORED)
            await query_many(
                "set_kind", [{"execution_id": fork_id, "seq": seq, "kind": kind} for seq, kind in kinds.items()]
            )
            await query("copy_waits", cut_at_us=self.kept.cut_at_us or self.now_us, **same)
            await query("copy_approvals", **same)
            await self._note_edited_answers(acted_by)
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

    async def _note_edited_answers(self, acted_by: str) -> None:
        for row, given in self.plan.edits:
            if row.kind is not Kind.RESUME or row.key is None:
                continue
            before = bytes(row.value)[:SHOWN_BYTES].decode(errors="replace") if row.ok else "no answer"
            for said in (await records(Approval, "read_approvals", execution_id=self.source.id, key=row.key))[:1]:
                before += f" by {said.answered_by}"
            by = f"edited by {acted_by}, before: {before}"
            await note_answer(self.project_id, self.fork_id, row.key, given, answered_by=by, now_us=self._at_us)

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
    """Make ids from `id`, with the same time."""
    high = UUID(id).int >> 64
    for number in count():
        low = int.from_bytes(blake2b(f"{id}/{number}".encode(), digest_size=8).digest()) >> 2
        yield str(UUID(int=high << 64 | 1 << 63 | low))
