"""More kinds of verbs that may share a group, for test_lockstep.py: reports of push workers, and notifications."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.store.world import GRACE_US, PROJECT, World, raw

from perdure.store.base.interface import Verb
from perdure.store.verbs.agents import budgets, sessions, transcripts
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.insight import traces
from perdure.store.verbs.outside import exports, push_reports, push_workers, webhooks
from perdure.store.verbs.runs import claims, events, starts, transitions
from perdure.store.verbs.runs.starts import New
from perdure.wire.agents.budgets import Amounts, BudgetChange, BudgetSpec, Reserve, Settle
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.insight.traces import StoredSpan
from perdure.wire.outside.push_workers import (
    CompleteExecution,
    ConfirmCancellation,
    FailExecution,
    PutOtelSpanId,
    SaveStep,
)
from perdure.wire.outside.webhooks import CreateWebhook, DeliveryState
from perdure.wire.runs.requests import EventItem, StartItem

KINDS: Final = (
    *("pushed step", "pushed result", "pushed failure", "pushed cancel", "pushed wait", "pushed timer", "pushed span"),
    *("pushed question", "pushed answer"),
    *("pushed child", "push taken", "push handed back", "push lost", "tell a cancel", "untell a cancel"),
    *("cancel the pushed", "cancel of the absent"),
    *("push worker online", "push worker beats", "push worker hurries"),
    *("exports begin", "exports claimed", "exports noted", "exports released", "memory", "spans"),
    *("messages", "a turn"),
    *("reserve", "settle", "raise a budget"),
    *("make a webhook", "settle a delivery", "postpone deliveries", "redeliver"),
    "reaper's mark",
)
PUSH_WORKER: Final = "push"


async def set_up(world: World) -> tuple[str, str]:
    """A push worker with an execution, and an ended execution with a webhook delivery under way. Returns the ids of
    both."""
    same: dict[str, Any] = {"worker_id": PUSH_WORKER, "now_us": world.now_us}
    leased: dict[str, Any] = {"project_id": PROJECT, "lease_us": 90_000_000, "check_us": 5_000_000}
    url = "https://worker.example"
    await world.store.write(
        push_workers.register_push_worker(deployment_id="push", url=url, capacity=9, **same, **leased)
    )
    await world.store.write(push_workers.push_worker_online(**same, **leased))
    await world.store.write(webhooks.make_webhook(At(PROJECT, world.now_us, "webhook"), CreateWebhook(url)))
    told_id = await world.start("anything", deployment_id="push")
    await world.store.write(push_workers.claim_pushed(claim_id="b", at_most=9, grace_us=GRACE_US, **same))
    done = CompleteExecution(told_id, raw(1), PUSH_WORKER)
    await world.store.write(
        push_reports.end_pushed(project_id=PROJECT, op=done, now_us=world.now_us, grace_us=GRACE_US)
    )
    takes: dict[str, Any] = {"busy": "[]", "limit": 9, "until_us": world.now_us + 9, "now_us": world.now_us}
    assert len(await world.store.write(webhooks.take_deliveries(**takes))) == 1
    id = await world.start("anything", deployment_id="push")
    await world.store.write(push_workers.claim_pushed(claim_id="c", at_most=9, grace_us=GRACE_US, **same))
    await world.store.write(push_workers.accept_push(delivery=push_workers.PushDelivery(PROJECT, id, 1, PUSH_WORKER)))
    await world.store.write(budgets.reserve(request=reservation(id, "r0"), project_id=PROJECT, now_us=world.now_us))
    await world.store.write(exports.begin_exports(project_id=PROJECT, now_us=world.now_us))
    return id, told_id


def reservation(id: str, name: str, tokens: int = 5) -> Reserve:
    """The amount set aside by the push worker's execution, of a budget for two calls."""
    return Reserve(PUSH_WORKER, "", id, 1, name, Amounts(7, tokens, 1), BudgetSpec(calls=2, tokens=100))


def verb_of(
    kind: str, id: str, told_id: str, child_id: str, dice: random.Random, n: int, now_us: int
) -> Verb[Any] | None:
    """A verb of one of KINDS; None for other kinds."""
    same: dict[str, Any] = {"project_id": PROJECT, "now_us": now_us}
    one: dict[str, Any] = {"project_id": PROJECT, "execution_id": id}
    held: dict[str, Any] = {"delivery": push_workers.PushDelivery(PROJECT, id, 1, PUSH_WORKER)}
    said: dict[str, Any] = {**same, "grace_us": GRACE_US}
    leased: dict[str, Any] = {**same, "worker_id": PUSH_WORKER, "lease_us": 90_000_000 + n, "check_us": 5_000_000}
    taken = webhooks.TakenDelivery(PROJECT, told_id, "webhook", "https://worker.example", "worker.example", 1)
    match kind:
        case "pushed step":
            key = f"s{dice.randint(0, 1)}"
            return push_reports.save_step(op=SaveStep(id, key, raw(n)), **same)
        case "pushed result":
            done = CompleteExecution(id, raw(n), PUSH_WORKER, final_state=raw(1))
            return push_reports.end_pushed(op=done, **said)
        case "pushed failure":
            retry = dice.choice([True, False])
            return push_reports.end_pushed(op=FailExecution(id, f"e{n}", PUSH_WORKER, retryable=retry), **said)
        case "pushed cancel":
            return push_reports.end_pushed(op=ConfirmCancellation(id, PUSH_WORKER), **said)
        case "pushed wait":
            return push_reports.wait_pushed(wait=push_reports.Wait(f"e{n}", topic="t"), now_us=now_us, **one)
        case "pushed timer":
            return push_reports.wait_pushed(wait=push_reports.Wait(f"t{n}", now_us + 5), now_us=now_us, **one)
        case "pushed question" | "pushed answer":
            type = "suspend_q" if kind == "pushed question" else "resume_q"
            said = {"topic": f"workflow/anything/{id}", "ids": [f"event{n}"], **same}
            return events.publish(events=[EventItem(raw(n), type)], asked_by=id, answered_by=f"{n}", **said)
        case "pushed span":
            return push_reports.put_span_id(project_id=PROJECT, op=PutOtelSpanId(id, f"span{n}"))
        case "pushed child":
            item = StartItem("anything", deployment_id="push", parent_execution_id=id, step_key="c")
            values: dict[str, Any] = {"parent_id": id, "step_key": "c", "news": [New(child_id, item)], "batch_id": None}
            return push_reports.start_children(wait=dice.choice([True, False]), **values, **same)
        case "push taken":
            return push_workers.accept_push(**held)
        case "push handed back":
            return push_workers.hand_back(now_us=now_us, **held)
        case "push lost":
            return push_workers.lost_delivery(now_us=now_us, **held)
        case "tell a cancel":
            return push_workers.tell_cancel(**held)
        case "untell a cancel":
            return push_workers.untell_cancel(**held)
        case "cancel the pushed":
            return transitions.cancel(cancelled_by="user", grace_us=GRACE_US, now_us=now_us, **one)
        case "cancel of the absent":
            return push_workers.cancel_absent(now_us=now_us, **held)
        case "push worker online":
            return push_workers.push_worker_online(**leased)
        case "push worker beats":
            return push_workers.push_worker_beat(**leased, own=dice.choice([True, False]))
        case "push worker hurries":
            return push_workers.hurry_push_check(worker_id=PUSH_WORKER, at_us=now_us + n)
        case "reaper's mark":
            return claims.mark_reaper(now_us=now_us + n, every_us=dice.choice([0, GRACE_US]), locked_us=2 * GRACE_US)
        case "exports begin":
            return exports.begin_exports(**same)
        case "exports claimed":
            return exports.claim_exports(until_us=now_us + n, limit=10, **same)
        case "exports noted":
            return exports.note_exports(project_id=PROJECT, ids=[id])
        case "exports released":
            return exports.release_exports(ids=[id], **same)
        case "memory":
            version = dice.choice([None, 0, 1])
            return sessions.put_memory(session_id="s", summary=None, messages=raw([n]), version=version, **same)
        case "spans":
            trace_id = id.replace("-", "")
            spans = [StoredSpan(trace_id, f"span{dice.randint(0, 1)}", None, f"{n}", "step", now_us, now_us + n)]
            return traces.put_spans(trace_id=trace_id, spans=spans, **same)
        case "messages":
            messages = [raw(n), raw("same")]
            version = dice.choice([None, 0])
            return transcripts.append_messages(session_id="s", messages=messages, version=version, **same)
        case "a turn":
            on_conflict = dice.choice([*OnConflict])
            item = StartItem("wf", deployment_id="push", session_id="s", on_conflict=on_conflict)
            return starts.start(news=[New(child_id, item)], **same)
        case "reserve":
            return budgets.reserve(request=reservation(id, f"r{dice.randint(0, 2)}", n), **same)
        case "settle":
            name = f"r{dice.randint(0, 1)}"
            return budgets.settle(project_id=PROJECT, request=Settle(id, name, Amounts(1, n, 1)))
        case "raise a budget":
            return budgets.change_budget(budget_id=id, change=BudgetChange(calls=1), event_id=f"raised{n}", **same)
        case "make a webhook":
            url = f"https://{dice.choice(['a', 'b'])}.example"
            return webhooks.make_webhook(At(new_id=f"webhook{n}", **same), CreateWebhook(url))
        case "settle a delivery":
            state = dice.choice([*DeliveryState])
            next_at_us = now_us + n if state is DeliveryState.PENDING else None
            return webhooks.settle_delivery(taken=taken, state=state, status=200, answer=f"{n}", next_at_us=next_at_us)
        case "postpone deliveries":
            return webhooks.postpone_deliveries(taken=[taken], next_at_us=now_us + n)
        case "redeliver":
            return webhooks.redeliver(execution_id=told_id, webhook_id="webhook", **same)
    return None
