from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec import Raw

from perdure.store.base.executions import NewExecution, Parent
from perdure.store.base.interface import WEIGHED_BYTES, Due, Notify, Ready, query, query_many, record, verb
from perdure.store.base.locks import Arguments, Locks
from perdure.store.verbs.agents.budgets import give_budget
from perdure.store.verbs.agents.turns import ask_for_turn, workflow_of
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.outside.webhooks import host_of
from perdure.store.verbs.runs.direct_dispatch import DirectDispatch, WaitingClaim
from perdure.store.verbs.runs.fields import terms_of_fields
from perdure.store.verbs.runs.rows import NULL_BYTES, WOKEN_RANK, deliver
from perdure.store.verbs.runs.start_targets import StartTarget, Where, check_payload, target_of, where_of
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.codec import same_json
from perdure.wire.base.errors import BadRequest, Conflict, NotFound, PerdureError
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.times import NEVER_US
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Claimed, StartAnswer, Started, StartItem
from perdure.wire.runs.search_terms import key_terms

INLINE_BYTES_MAX = 1 << 10
"""A larger payload gets its own row."""
COMPARED_BYTES_MAX = 16 << 10
"""Larger inputs are compared as bytes, not as JSON values."""
LARGE = 100
"""A verb that starts more executions runs in its own group."""
SUGGESTIONS_MAX = 3
"""Later targets of a transaction get no "Did you mean"."""
_ANSWERS = msgspec.json.Decoder(list[StartAnswer])
_DETAILS = attrgetter("otel_traceparent", "initial_state", "channel_context", "webhook_url")
_NO_DETAILS = (None, None, None, None)
_NO_PARENT = Parent()


class New(NamedTuple):
    id: str
    item: StartItem


async def start_items(
    project_id: str,
    news: Sequence[New],
    now_us: int,
    *,
    batch_id: str | None = None,
    independent: bool = True,
    checks_input: bool = False,
    input_check: str | None = None,
    dispatch: DirectDispatch | None = None,
    parents: dict[str, Parent] | None = None,
    targets: dict[Where, StartTarget | PerdureError] | None = None,
    budgeted: dict[str | None, bool] | None = None,
) -> list[Started | Problem]:
    """Start the items. If `independent`, a refused item does not disturb other items.

    `checks_input` refuses inputs that do not fit the registered schema; `input_check` names a check already made by the
    caller. `dispatch` claims some at once. `parents`, `targets` and `budgeted` (by root id) hold rows that the caller
    has read.
    """
    if dispatch is not None:
        await dispatch.open(project_id)
    starts = _Starts(project_id, now_us, dispatch)
    starts.batch_id = batch_id
    starts.checks_input = checks_input
    starts.input_check = input_check
    starts.parents |= parents or {}
    starts.targets |= targets or {}
    starts.budgeted |= budgeted or {}
    answers: list[Started | Problem] = []
    for n, (id, item) in enumerate(news):
        if batch_id is not None:
            starts.payload_at = f"workflows[{n}].payload"
        try:
            answers.append(await starts.plan(id, item))
        except PerdureError as refusal:
            if not independent:
                raise
            answers.append(Problem(refusal.message, refusal.code, refusal.details))
    if starts.rows:
        await starts.insert()
        await starts.follow_up()
    return answers


class _Starts:
    """Executions that a transaction plans singly and inserts together."""

    def __init__(self, project_id: str, now_us: int, dispatch: DirectDispatch | None) -> None:
        self.project_id = project_id
        self.now_us = now_us
        self.dispatch = dispatch
        self.batch_id: str | None = None
        self.checks_input = False
        self.input_check: str | None = None
        self.payload_at = "payload"
        self.parents: dict[str, Parent] = {}
        self.targets: dict[Where, StartTarget | PerdureError] = {}
        self.budgeted: dict[str | None, bool] = {}
        self.rows: list[NewExecution] = []
        self._queues: set[str] = set()
        """Limited queues that the items create."""
        self._keys: dict[tuple[str, str], tuple[Started, Raw]] = {}
        """The started execution and the input, by workflow and key."""
        self._claimed: list[Claimed] = []
        self._current: str | None = None
        """The current deployment, if an item names no deployment."""
        self._tags: list[dict[str, object]] = []
        self._terms: list[tuple[str, str, str]] = []
        """Terms in the order of `insert_term`'s values."""
        self._extras: list[dict[str, object]] = []
        self._large: list[dict[str, object]] = []
        self._webhooks: list[dict[str, object]] = []
        self._messages: list[tuple[str, str, str]] = []
        """Open turn, waiting turn and workflow."""

    async def plan(self, id: str, item: StartItem) -> Started:
        target = self.targets.get(where_of(item)) or await self._find_target(item)
        if isinstance(target, PerdureError):
            raise target
        if item.deployment_id is None:
            self._current = target.deployment_id
        key = None if item.key is None else (item.workflow_id, item.key)
        if key is not None:
            holder = await _holder_of_key(self.project_id, item, self._keys.get(key))
            if holder is not None:
                return holder
        if self.checks_input and target.input_check not in (None, self.input_check):
            await check_payload(self.project_id, item.workflow_id, target, item.payload, self.payload_at)
        gate = target.gate
        if item.queue_concurrency_limit is not None or self._queues:
            gate = await self._limit(item, target)
        if target.key_pauses and item.concurrency_key is not None:
            gate = await self._key_gate(target.queue_name, item.concurrency_key) or gate
        parent = _NO_PARENT if item.parent_execution_id is None else await self._parent(item.parent_execution_id)
        due_at_us = _due_at_us(item, self.now_us)
        if item.on_conflict is not None and await self._waits_for_turn(id, item, item.on_conflict, parent):
            due_at_us = NEVER_US
        started = Started(id, self.now_us)
        if key is not None:
            self._keys[key] = started, item.payload
            self._terms += [(self.project_id, term, id) for term in key_terms(key[1])]
        if target.searchable:
            self._terms += await terms_of_fields(self.project_id, item.workflow_id, id, payload=bytes(item.payload))
        waiting_claim = None if gate or due_at_us is not None else self._waiting_claim(target)
        row = self._row(id, item, target, parent, due_at_us=due_at_us, gate=gate, waiting_claim=waiting_claim)
        self.rows.append(row)
        if waiting_claim is not None:
            root_id = parent.root_id
            budgeted = item.budget is not None or target.shares_budget
            budgeted = budgeted or (root_id is not None and await self._is_budgeted(root_id))
            self._claimed.append(self._as_claimed(row, item, waiting_claim, budgeted=budgeted))
        if item.tags or _DETAILS(item) != _NO_DETAILS or parent.channel_context is not None:
            self._keep_details(id, item, parent)
        if item.budget is not None:
            await give_budget(self.project_id, id, parent.root_id or id, item.budget, self.now_us)
        return started

    async def insert(self) -> None:
        await query_many("insert_execution", self.rows)
        for name in self._queues:  # the limit also applies to executions started before
            await query("mark_limited", project_id=self.project_id, name=name, gate=1)
        if self._tags:
            await query_many("insert_tag", self._tags)
        if self._terms:
            await query_many("insert_term", self._terms)
        if self._extras:
            await query_many("insert_extras", self._extras)
        if self._large:
            await query_many("insert_large_payload", self._large)
        if self._webhooks:
            await query_many("insert_execution_webhook", self._webhooks)

    async def follow_up(self) -> None:
        for holder, id, workflow_id in self._messages:
            if await workflow_of(self.project_id, holder) == workflow_id:
                await deliver(self.project_id, holder, Kind.MESSAGE, self.now_us, name=id)
        if self.dispatch is not None and self._claimed:
            await self.dispatch.note(self._claimed, self.now_us)
        current = self._current
        notices: set[Ready | Due] = {
            Ready(self.project_id, row.deployment_id, row.deployment_id is not None and row.deployment_id == current)
            for row in self.rows
            if not row.attempt
        }
        notices |= {Due(row.due_at_us) for row in self.rows if row.due_at_us not in (None, NEVER_US)}
        if notices:
            await Notify(*notices)

    async def _find_target(self, item: StartItem) -> StartTarget | PerdureError:
        target: StartTarget | PerdureError
        try:
            target = await target_of(self.project_id, item, suggests=len(self.targets) < SUGGESTIONS_MAX)
        except PerdureError as refusal:
            target = refusal
        self.targets[where_of(item)] = target
        return target

    async def _key_gate(self, queue_name: str, concurrency_key: str) -> int:
        """0: no pause holds the key."""
        where = {"project_id": self.project_id, "queue_name": queue_name, "concurrency_key": concurrency_key}
        for (number,) in await query("key_gate", **where):
            return int(number)
        return 0

    async def _limit(self, item: StartItem, target: StartTarget) -> int:
        """Return the gate. If the item limits a queue, create the queue."""
        name = target.queue_name
        if name in self._queues:
            return max(target.gate, 1)
        if item.queue_concurrency_limit is None or target.queue is not None:
            return target.gate
        self._queues.add(name)
        await query("begin_limits")
        limits = {"concurrency_limit": item.queue_concurrency_limit, "total_limit": None}
        await query("insert_queue", project_id=self.project_id, name=name, **limits)
        return max(target.gate, 1)

    async def _parent(self, id: str) -> Parent:
        parent = self.parents.get(id)
        if parent is None:
            parent = await record(Parent, "read_parent", project_id=self.project_id, id=id)
            if parent is None:
                raise NotFound(f"Parent execution {id!r} does not exist.")
            if parent.cancelled:
                raise Conflict(f"Parent execution {id!r} was cancelled; nothing more is started below it.")
            self.parents[id] = parent
        return parent

    async def _waits_for_turn(self, id: str, item: StartItem, on_conflict: OnConflict, parent: Parent) -> bool:
        session_id = item.session_id or parent.session_id or id
        if session_id == parent.session_id:
            raise Conflict(
                f"A child would wait for its parent's turn in session {session_id!r}: leave `on_conflict` out, or give "
                "the child a session of its own."
            )
        holder = await ask_for_turn(self.project_id, session_id, id, on_conflict, self.now_us)
        if holder is not None and on_conflict is OnConflict.DELIVER:
            self._messages.append((holder, id, item.workflow_id))
        return holder is not None

    def _waiting_claim(self, target: StartTarget) -> WaitingClaim | None:
        dispatch = self.dispatch
        if dispatch is None or not dispatch.room or target.deployment_id != dispatch.waiting_claim.deployment_id:
            return None
        dispatch.room -= 1
        return dispatch.waiting_claim

    def _row(
        self,
        id: str,
        item: StartItem,
        target: StartTarget,
        parent: Parent,
        *,
        due_at_us: int | None,
        gate: int,
        waiting_claim: WaitingClaim | None,
    ) -> NewExecution:
        timeout = target.run_timeout_seconds if item.run_timeout_seconds is None else item.run_timeout_seconds
        payload = bytes(item.payload)
        if len(payload) > INLINE_BYTES_MAX:
            self._large.append({"execution_id": id, "payload": payload})
            payload = b""
        ready_at_us = due_at_us or self.now_us
        worker_id = claim_id = python = started_at_us = None
        if waiting_claim is not None:
            due_at_us = None if timeout is None else self.now_us + timeout * 1_000_000
            worker_id, claim_id, python = waiting_claim.worker_id, waiting_claim.claim_id, waiting_claim.python
            started_at_us = self.now_us
        return NewExecution(
            project_id=self.project_id,
            id=id,
            workflow_id=item.workflow_id,
            deployment_id=target.deployment_id,
            phase="queued" if waiting_claim is None else "running",
            payload=payload,
            created_at_us=self.now_us,
            parent_execution_id=item.parent_execution_id,
            root_execution_id=parent.root_id,
            step_key=item.step_key,
            queue_name=target.queue_name,
            concurrency_key=item.concurrency_key,
            batch_id=self.batch_id or item.batch_id,
            session_id=item.session_id or parent.session_id,
            user_id=item.user_id or parent.user_id,
            output_schema_name=target.output_schema_name,
            run_timeout_seconds=timeout,
            key=item.key,
            tags=msgspec.json.encode(item.tags) if item.tags else None,
            due_at_us=due_at_us,
            priority=item.priority,
            rank=WOKEN_RANK - item.priority,
            ready_at_us=ready_at_us,
            gate=gate,
            wake_on_cancel=target.wake_on_cancel or 0,
            # All by keyword: to unpack a dict here would cost more than the rest.
            attempt=0 if waiting_claim is None else 1,
            assigned_to_worker=worker_id,
            started_at_us=started_at_us,
            claim_id=claim_id,
            python=python,
            next_seq=1 if waiting_claim is None else 2,
        )

    async def _is_budgeted(self, root_id: str) -> bool:
        if root_id not in self.budgeted:
            self.budgeted[root_id] = bool(await query("any_budget", root_id=root_id))
        return self.budgeted[root_id]

    def _as_claimed(
        self, row: NewExecution, item: StartItem, waiting_claim: WaitingClaim, *, budgeted: bool
    ) -> Claimed:
        return Claimed(
            id=row.id,
            workflow_id=row.workflow_id,
            attempt=1,
            payload=item.payload,
            created_at_us=self.now_us,
            rows=[Row(1, self.now_us, Kind.CLAIMED, 1, name=waiting_claim.worker_id)],
            key=row.key,
            queue_name=row.queue_name,
            concurrency_key=row.concurrency_key,
            parent_execution_id=row.parent_execution_id,
            root_execution_id=row.root_execution_id,
            deployment_id=row.deployment_id,
            session_id=row.session_id or row.id,
            user_id=row.user_id,
            tags=None if row.tags is None else Raw(row.tags),
            budgeted=budgeted,
        )

    def _keep_details(self, id: str, item: StartItem, parent: Parent) -> None:
        for name, text in (item.tags or {}).items():
            self._tags.append({"project_id": self.project_id, "name": name, "value": text, "execution_id": id})
        context = _value(item.channel_context) or parent.channel_context
        state = _value(item.initial_state)
        if item.otel_traceparent is not None or state is not None or context is not None:
            self._extras.append(
                {
                    "execution_id": id,
                    "otel_traceparent": item.otel_traceparent,
                    "initial_state": state,
                    "channel_context": context,
                }
            )
        if item.webhook_url is not None:
            self._webhooks.append({"execution_id": id, "url": item.webhook_url, "host": host_of(item.webhook_url)})


def _due_at_us(item: StartItem, now_us: int) -> int | None:
    """Return when the execution is due. None: now."""
    due_at_us = item.start_at_us
    if item.delay_seconds is not None:
        due_at_us = now_us + int(item.delay_seconds * 1_000_000)
    return None if due_at_us is None or due_at_us <= now_us else due_at_us


async def _holder_of_key(
    project_id: str, item: StartItem, before: tuple[Started, Raw | bytes | None] | None
) -> Started | None:
    """Return the execution with the item's key: `before`, from the same request, or a stored one. Raises Conflict for
    another input."""
    if before is None:
        sizes = {"payload_bytes": len(item.payload), "compared_bytes": COMPARED_BYTES_MAX}
        named = {"project_id": project_id, "workflow_id": item.workflow_id, "key": item.key}
        found = await query("find_started", **named, **sizes)
        if not found:
            return None
        id, created_at_us, payload = found[0]
        before = Started(id, created_at_us), payload
    started, payload = before
    if payload is None or not _is_same(bytes(payload), bytes(item.payload)):
        raise Conflict(
            f"Key {item.key!r} of workflow {item.workflow_id!r} belongs to execution {started.execution_id!r}, which "
            "was started with another input. Start with the same input to get that execution, or use another key.",
            {"key": item.key, "execution_id": started.execution_id},
        )
    return Started(started.execution_id, started.created_at_us, existing=True)


def _is_same(a: bytes, b: bytes) -> bool:
    return a == b or (max(len(a), len(b)) <= COMPARED_BYTES_MAX and same_json(a, b))


def _value(given: Raw | None) -> bytes | None:
    """JSON null counts as missing."""
    return None if given is None or bytes(given) == NULL_BYTES else bytes(given)


def item_locks(item: StartItem) -> Locks:
    if item.key is not None:
        yield "key", (item.workflow_id, item.key)
    if item.parent_execution_id is not None:
        yield "execution", item.parent_execution_id
    if item.on_conflict is not None and item.session_id is not None:
        yield "session", item.session_id


def news_locks(arguments: Arguments) -> Locks:
    """Lock without a waiting claim's worker, because a start does not wait for the worker."""
    for new in arguments["news"]:
        yield from item_locks(new.item)


def news_sweep(arguments: Arguments) -> bool:
    news: Sequence[New] = arguments["news"]
    return len(news) > LARGE or any(new.item.queue_concurrency_limit is not None for new in news)


def news_weight(arguments: Arguments) -> int:
    news: Sequence[New] = arguments["news"]
    return len(news) + sum(len(new.item.payload) for new in news) // WEIGHED_BYTES


@verb(locks=news_locks, sweep=news_sweep, weight=news_weight)
async def start(
    *,
    project_id: str,
    news: Sequence[New],
    now_us: int,
    idempotency: Idempotency | None = None,
    input_check: str | None = None,
    waiting_claim: WaitingClaim | None = None,
) -> tuple[list[Started | Problem], list[Claimed]]:
    """Start independent executions. Returns also the executions that the waiting claim took.

    `input_check`: as for `start_items`.
    """
    dispatch = None if waiting_claim is None else DirectDispatch(waiting_claim)
    answers = await _once(project_id, news, now_us, idempotency, input_check=input_check, dispatch=dispatch)
    return answers, [] if dispatch is None else dispatch.given


@verb(locks=news_locks, sweep=news_sweep, weight=news_weight)
async def start_batch(
    *, project_id: str, news: Sequence[New], batch_id: str, now_us: int, idempotency: Idempotency | None = None
) -> list[Started | Problem]:
    """Start all or none."""
    if not news:
        raise BadRequest("A batch needs at least one workflow.")
    return await _once(project_id, news, now_us, idempotency, batch_id=batch_id)


async def _once(
    project_id: str,
    news: Sequence[New],
    now_us: int,
    idempotency: Idempotency | None,
    *,
    batch_id: str | None = None,
    input_check: str | None = None,
    dispatch: DirectDispatch | None = None,
) -> list[Started | Problem]:
    first = await recall(project_id, idempotency)
    if first is not None:
        return [answer.outcome() for answer in _ANSWERS.decode(first)]
    answers = await start_items(
        project_id,
        news,
        now_us,
        batch_id=batch_id,
        independent=batch_id is None,
        checks_input=True,
        input_check=input_check,
        dispatch=dispatch,
    )
    if idempotency is not None:
        ids = [answer.execution_id for answer in answers if isinstance(answer, Started)]
        if ids:
            given = msgspec.json.encode([StartAnswer.of(answer) for answer in answers])
            await remember(project_id, idempotency, given, now_us, ids)
    return answers
