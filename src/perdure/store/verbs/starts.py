"""Start executions: one, many independent ones, a batch, a child."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from perdure.store.interface import Due, Ready, Tell, query, query_many, verb
from perdure.store.locks import Arguments, Locks
from perdure.store.verbs.budgets import give_budget
from perdure.store.verbs.hands import Hands, Offer
from perdure.store.verbs.idempotency import Idempotency, recall, remember
from perdure.store.verbs.rows import NULL_BYTES, WOKEN_RANK, deliver
from perdure.store.verbs.turns import HELD_US, ask_for_turn, workflow_of
from perdure.store.verbs.webhooks import host_of
from perdure.wire.codec import same_json
from perdure.wire.errors import (
    BadRequest,
    Conflict,
    DeploymentNotFound,
    NoDeployment,
    NotFound,
    PerdureError,
    WorkflowNotFound,
)
from perdure.wire.records import Kind, Problem, Row
from perdure.wire.requests import Claimed, StartAnswer, Started, StartItem
from perdure.wire.transcripts import OnConflict

INLINE_BYTES_MAX = 64 << 10
"""A larger payload has its own row: SQLite reads and writes the whole execution at each step."""
COMPARED_BYTES_MAX = 16 << 10
"""Two inputs up to this size are compared as JSON values, larger ones as bytes."""
LARGE = 100
"""A verb that starts more than this runs in a group of its own."""
_ANSWERS = msgspec.json.Decoder(list[StartAnswer])


class New(NamedTuple):
    id: str
    item: StartItem


class Target(NamedTuple):
    deployment_id: str | None
    queue_name: str
    output_schema_name: str | None
    run_timeout_seconds: int | None
    wake_on_cancel: int
    limited: int
    queue_exists: bool


Where = tuple[str | None, str, str | None, bool]


def where_of(item: StartItem) -> Where:
    return item.deployment_id, item.workflow_id, item.queue_name, item.accept_early


class Parent(msgspec.Struct, frozen=True, gc=False):
    root_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    channel_context: bytes | None = None


async def target_of(project_id: str, item: StartItem) -> Target:
    """Where an item runs; refuses an item that no worker could run."""
    rows = await query("start_target", **_asked_of(project_id, item))
    if not rows:
        raise NotFound(f"Project {project_id!r} does not exist.")
    return _target(item, rows[0])


async def offered_target(project_id: str, item: StartItem, hands: Hands) -> Target:
    """As `target_of`, and opens the hands."""
    rows = await query("offered_target", worker_id=hands.offer.worker_id, **_asked_of(project_id, item))
    if not rows:
        raise NotFound(f"Project {project_id!r} does not exist.")
    hands.see(project_id, rows[0][_TARGET:])
    return _target(item, rows[0][:_TARGET])


_TARGET = 10


def _asked_of(project_id: str, item: StartItem) -> dict[str, object]:
    return {
        "project_id": project_id,
        "deployment_id": item.deployment_id,
        "workflow_id": item.workflow_id,
        "queue_name": item.queue_name,
    }


def _target(item: StartItem, row: Sequence[Any]) -> Target:
    deployment_id, workflow_id, queue_name, schema, timeout, wake, queue, key_limit, total_limit, push = row
    limited = int(key_limit is not None or total_limit is not None)
    if deployment_id is None:
        if item.deployment_id is not None:
            raise DeploymentNotFound(
                f"Deployment {item.deployment_id!r} does not exist, or is retired; "
                f"start a worker with `--deployment {shlex.quote(item.deployment_id)}`."
            )
        if not item.accept_early:
            raise NoDeployment(
                f"Workflow {item.workflow_id!r} cannot be started: the project has no deployment yet. Start a worker, "
                'or let the execution wait for one: "accept_early": true, or `perdure run --accept-early`.'
            )
        return Target(None, queue_name, None, None, 0, limited, queue is not None)
    if workflow_id is None and not push:  # push workers run any workflow of their program, registered or not
        raise WorkflowNotFound(
            f"Workflow {item.workflow_id!r} is not registered in deployment {deployment_id!r}; check its name, or "
            "restart the worker that should serve it."
        )
    return Target(deployment_id, queue_name, schema, timeout, wake or 0, limited, queue is not None)


async def start_items(
    project_id: str,
    news: Sequence[New],
    now_us: int,
    *,
    batch_id: str | None = None,
    independent: bool = True,
    hands: Hands | None = None,
    parents: dict[str, Parent] | None = None,
    targets: dict[Where, Target | PerdureError] | None = None,
    budgeted: dict[str | None, bool] | None = None,
) -> list[Started | Problem]:
    """Insert the items. If `independent`, a refused item does not disturb the rest.

    A refusal of the whole request comes before the first write. Executions that `hands` takes are inserted as claimed.
    The caller passes known `parents` by id, `targets`, and by root id whether a tree is `budgeted`.
    """
    given: list[Claimed] = []
    if hands is not None:
        await hands.open(project_id)
    targets = {} if targets is None else targets
    queues: dict[str, int] = {}
    """Queues that these items create, and whether they are limited."""
    parents = {} if parents is None else parents
    keys: dict[tuple[str, str], tuple[Started, Raw]] = {}
    """The started execution and the input, by workflow and key."""
    budgeted = {} if budgeted is None else budgeted
    answers: list[Started | Problem] = []
    rows: list[tuple[object, ...]] = []
    tags: list[tuple[object, ...]] = []
    extras: list[tuple[object, ...]] = []
    large: list[tuple[str, bytes]] = []
    told: list[tuple[object, ...]] = []
    heard: list[tuple[str, str, str]] = []
    """Open turn, waiting turn and its workflow: the open turn receives the message."""
    for id, item in news:
        where = where_of(item)
        target = targets.get(where)
        if target is None:
            try:
                target = await target_of(project_id, item)
            except PerdureError as error:
                target = error
            targets[where] = target
        if isinstance(target, PerdureError):
            if not independent:
                raise target
            answers.append(Problem(target.message, target.code, target.details))
            continue
        if item.key is not None:
            try:
                before = await _holder_of_key(project_id, item, keys.get((item.workflow_id, item.key)))
            except Conflict as error:
                if not independent:
                    raise
                answers.append(Problem(error.message, error.code, error.details))
                continue
            if before is not None:
                answers.append(before)
                continue
        queue_name = target.queue_name
        limited = queues.get(queue_name, target.limited)
        if item.queue_concurrency_limit is not None and not target.queue_exists and queue_name not in queues:
            limited = queues[queue_name] = 1
            await query("begin_limits")
            await query(
                "insert_queue",
                project_id=project_id,
                name=queue_name,
                concurrency_limit=item.queue_concurrency_limit,
                total_limit=None,
            )
        parent = Parent()
        if item.parent_execution_id is not None:
            known = parents.get(item.parent_execution_id)
            if known is None:
                found = await query("read_parent", project_id=project_id, id=item.parent_execution_id)
                refusal: PerdureError | None = None
                if not found:
                    refusal = NotFound(f"Parent execution {item.parent_execution_id!r} does not exist.")
                elif found[0][4]:
                    what = f"Parent execution {item.parent_execution_id!r} was cancelled"
                    refusal = Conflict(f"{what}; nothing more is started below it.")
                if refusal is not None:
                    if not independent:
                        raise refusal
                    answers.append(Problem(refusal.message, refusal.code))
                    continue
                known = parents[item.parent_execution_id] = Parent(*found[0][:4])
            parent = known
        due_at_us = item.start_at_us
        if item.delay_seconds is not None:
            due_at_us = now_us + int(item.delay_seconds * 1_000_000)
        if due_at_us is not None and due_at_us <= now_us:
            due_at_us = None
        if item.on_conflict is not None:
            try:
                holder = await _ask_for_turn(project_id, id, item, item.on_conflict, parent, now_us)
            except PerdureError as error:
                if not independent:
                    raise
                answers.append(Problem(error.message, error.code, error.details))
                continue
            if holder is not None:
                due_at_us = HELD_US
                if item.on_conflict is OnConflict.DELIVER:
                    heard.append((holder, id, item.workflow_id))
        if item.key is not None:
            keys[item.workflow_id, item.key] = Started(id, now_us), item.payload
        timeout = item.run_timeout_seconds if item.run_timeout_seconds is not None else target.run_timeout_seconds
        born: tuple[object, ...] = _QUEUED
        phase = "queued"
        ready_at_us = due_at_us or now_us
        if (
            hands is not None
            and hands.room
            and due_at_us is None
            and not limited
            and target.deployment_id == hands.offer.deployment_id
        ):
            offer = hands.offer
            hands.room -= 1
            phase = "running"
            born = (1, offer.worker_id, now_us, offer.claim_id, offer.python, 2)
            if timeout is not None:
                due_at_us = now_us + timeout * 1_000_000
            root_id = parent.root_id
            if root_id is not None and root_id not in budgeted:
                budgeted[root_id] = bool(await query("any_budget", root_id=root_id))
            given.append(_claimed(id, item, now_us, offer, queue_name, parent, budgeted.get(root_id, False)))
        payload = bytes(item.payload)
        if len(payload) > INLINE_BYTES_MAX:
            large.append((id, payload))
            payload = b""
        rows.append(
            (
                project_id,
                id,
                item.workflow_id,
                target.deployment_id,
                phase,
                payload,
                now_us,
                item.parent_execution_id,
                parent.root_id,
                item.step_key,
                queue_name,
                item.concurrency_key,
                batch_id or item.batch_id,
                item.session_id or parent.session_id,
                item.user_id or parent.user_id,
                target.output_schema_name,
                timeout,
                item.key,
                msgspec.json.encode(item.tags) if item.tags else None,
                due_at_us,
                item.priority,
                WOKEN_RANK - item.priority,
                ready_at_us,
                limited,
                target.wake_on_cancel,
                *born,
            )
        )
        if item.tags:
            tags.extend((project_id, name, value, id) for name, value in item.tags.items())
        context = _value(item.channel_context) or parent.channel_context
        state = _value(item.initial_state)
        if item.otel_traceparent is not None or state is not None or context is not None:
            extras.append((id, item.otel_traceparent, state, context))
        if item.budget is not None:
            await give_budget(project_id, id, parent.root_id or id, item.budget, now_us)
        if item.webhook_url is not None:
            told.append((id, item.webhook_url, host_of(item.webhook_url)))
        if due_at_us is not None and due_at_us != HELD_US:
            await Tell(Due(due_at_us))
        answers.append(Started(id, now_us))
    if rows:
        await query_many("insert_execution", rows)
        for queue_name in queues:  # the limit also applies to executions started before
            await query("mark_limited", project_id=project_id, name=queue_name, limited=1)
        if tags:
            await query_many("insert_tag", tags)
        if extras:
            await query_many("insert_extras", extras)
        if large:
            await query_many("insert_large_payload", large)
        if told:
            await query_many("insert_execution_webhook", told)
        for holder, id, workflow_id in heard:
            if await workflow_of(project_id, holder) == workflow_id:
                await deliver(project_id, holder, Kind.MESSAGE, now_us, name=id)
        if hands is not None and given:
            await hands.note(given, now_us)
        if len(given) < len(rows):
            await Tell(*{Ready(project_id, row[3]) for row in rows if row[4] == "queued"})  # type: ignore[arg-type]  # text
    return answers


async def _holder_of_key(
    project_id: str, item: StartItem, before: tuple[Started, Raw | bytes | None] | None
) -> Started | None:
    """The execution with the item's key: `before`, from the same request, or a stored one. None: the key is free.

    Raises Conflict if it has another input.
    """
    if before is None:
        found = await query(
            "find_started",
            project_id=project_id,
            workflow_id=item.workflow_id,
            key=item.key,
            payload_bytes=len(item.payload),
            compared_bytes=COMPARED_BYTES_MAX,
        )
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


async def _ask_for_turn(
    project_id: str, id: str, item: StartItem, on_conflict: OnConflict, parent: Parent, now_us: int
) -> str | None:
    session_id = item.session_id or parent.session_id or id
    if session_id == parent.session_id:
        raise Conflict(
            f"A child would wait for its parent's turn in session {session_id!r}: leave `on_conflict` out, or give the "
            "child a session of its own."
        )
    return await ask_for_turn(project_id, session_id, id, on_conflict, now_us)


def _value(given: Raw | None) -> bytes | None:
    """JSON null counts as missing."""
    return None if given is None or bytes(given) == NULL_BYTES else bytes(given)


_QUEUED = (0, None, None, None, None, 1)


def _claimed(
    id: str, item: StartItem, now_us: int, offer: Offer, queue_name: str, parent: Parent, budgeted: bool
) -> Claimed:
    return Claimed(
        id=id,
        workflow_id=item.workflow_id,
        attempt=1,
        payload=item.payload,
        created_at_us=now_us,
        rows=[Row(1, now_us, Kind.CLAIMED, 1, name=offer.worker_id)],
        key=item.key,
        queue_name=queue_name,
        concurrency_key=item.concurrency_key,
        parent_execution_id=item.parent_execution_id,
        root_execution_id=parent.root_id,
        deployment_id=offer.deployment_id,
        session_id=item.session_id or parent.session_id or id,
        user_id=item.user_id or parent.user_id,
        tags=Raw(msgspec.json.encode(item.tags)) if item.tags else None,
        budgeted=budgeted or item.budget is not None,
    )


def item_locks(item: StartItem) -> Locks:
    if item.key is not None:
        yield "key", (item.workflow_id, item.key)
    if item.parent_execution_id is not None:
        yield "execution", item.parent_execution_id
    if item.on_conflict is not None and item.session_id is not None:
        yield "session", item.session_id


def news_locks(arguments: Arguments) -> Locks:
    """The rows that `news` name. An offer's worker is exempt: a start does not wait for it."""
    for new in arguments["news"]:
        yield from item_locks(new.item)


def news_sweep(arguments: Arguments) -> bool:
    news: Sequence[New] = arguments["news"]
    return len(news) > LARGE or any(new.item.queue_concurrency_limit is not None for new in news)


def news_weight(arguments: Arguments) -> int:
    news: Sequence[New] = arguments["news"]
    return len(news)


@verb(locks=news_locks, sweep=news_sweep, weight=news_weight)
async def start(
    *,
    project_id: str,
    news: Sequence[New],
    now_us: int,
    idempotency: Idempotency | None = None,
    offer: Offer | None = None,
) -> tuple[list[Started | Problem], list[Claimed]]:
    """Start independent executions, each with its own answer. Also answers with those that the offer took."""
    hands = None if offer is None else Hands(offer)
    answers = await _once(project_id, news, now_us, idempotency, hands=hands)
    return answers, [] if hands is None else hands.given


@verb(locks=news_locks, sweep=news_sweep, weight=news_weight)
async def start_batch(
    *, project_id: str, news: Sequence[New], batch_id: str, now_us: int, idempotency: Idempotency | None = None
) -> list[Started | Problem]:
    """All or none."""
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
    hands: Hands | None = None,
) -> list[Started | Problem]:
    """Start the items, or repeat the first answer to this Idempotency-Key."""
    first = await recall(project_id, idempotency)
    if first is not None:
        return [answer.outcome() for answer in _ANSWERS.decode(first)]
    answers = await start_items(project_id, news, now_us, batch_id=batch_id, independent=batch_id is None, hands=hands)
    if idempotency is not None:
        ids = [answer.execution_id for answer in answers if isinstance(answer, Started)]
        if ids:
            given = msgspec.json.encode([StartAnswer.of(answer) for answer in answers])
            await remember(project_id, idempotency, given, now_us, ids)
    return answers
