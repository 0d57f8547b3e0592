"""What a verb's arguments name, and which verbs choose their rows by a predicate.

The lockstep driver takes named rows before a verb's first query, so that verbs for one execution, topic or key keep
the order in which they came. Verbs that pick rows by a predicate, or touch very many, go to a connection of their own:
SKIP LOCKED means something between connections only, and a long verb is waited for by everybody in its group.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from perdure.store.interface import Verb
from perdure.store.verbs.claims import REAPED
from perdure.store.verbs.starts import New
from perdure.wire.budgets import topic_of
from perdure.wire.requests import (
    Answer,
    OpenWait,
    Publish,
    ReportItem,
    StartChild,
    StartItem,
    TranscriptEntry,
)
from perdure.wire.schedules import ScheduleSpec

Row = tuple[str, Any]
Values = dict[str, Any]

LARGE = 100
"""Items of one verb from which it has a group for itself."""


def _execution(values: Values) -> Iterator[Row]:
    yield "execution", values["execution_id"]


def _item(item: StartItem) -> Iterator[Row]:
    if item.key is not None:
        yield "key", (item.workflow_id, item.key)
    if item.parent_execution_id is not None:
        yield "execution", item.parent_execution_id
    if item.on_conflict is not None and item.session_id is not None:
        yield "session", item.session_id


def _idempotency(values: Values) -> Iterator[Row]:
    same = values.get("idempotency")
    if same is not None:
        yield "idempotency", same.key


def _start(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)  # not the worker of an offer: whoever starts something does not wait for that one
    news: Sequence[New] = values["news"]
    for new in news:
        yield from _item(new.item)


def _publish(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield "topic", values["topic"]
    if values.get("asked_by") is not None:
        yield "execution", values["asked_by"]


def _report(values: Values) -> Iterator[Row]:
    item: ReportItem = values["item"]
    yield "execution", item.execution_id
    for entry in item.entries:
        if type(entry) is Publish:
            yield "topic", entry.topic
        elif type(entry) is OpenWait:
            if entry.topic is not None:
                yield "topic", entry.topic
        elif type(entry) is Answer:
            yield "execution", entry.execution_id
        elif type(entry) is StartChild:
            yield from _item(entry.item)
        elif isinstance(entry, TranscriptEntry):
            yield "session", entry.session_id


def _report_offered(values: Values) -> Iterator[Row]:
    yield from _report(values)
    yield "offer", values["offer"].worker_id


def _append_messages(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield "session", values["session_id"]


def _schedule(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield "schedule", values["schedule_id"]


def _make_schedule(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    spec: ScheduleSpec = values["spec"]
    yield "schedule_key", (spec.workflow_id, spec.key)


def _worker(values: Values) -> Iterator[Row]:
    yield "worker", values["worker_id"]


def _wait_pushed(values: Values) -> Iterator[Row]:
    yield from _execution(values)
    if values["wait"].topic is not None:
        yield "topic", values["wait"].topic


def _start_children(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield "execution", values["parent_id"]
    news: Sequence[New] = values["news"]
    for new in news:
        yield from _item(new.item)


def _project(values: Values) -> Iterator[Row]:
    yield "project", values["project_id"]


def _user(values: Values) -> Iterator[Row]:
    yield "user", values["user_id"]


def _make_key(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield "api_key", ""


def _make_project(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield from _user(values)


def _add_member(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield from _project(values)
    yield "user_email", values["email"]


def _make_webhook(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield from _project(values)


def _reserve(values: Values) -> Iterator[Row]:
    yield "execution", values["request"].execution_id
    yield "reservation", values["request"].reservation_id


def _change_budget(values: Values) -> Iterator[Row]:
    yield from _idempotency(values)
    yield "topic", topic_of(values["budget_id"])


NAMED: Final[dict[str, Callable[[Values], Iterable[Row]]]] = {
    "start": _start,
    "start_batch": _start,
    "publish": _publish,
    "publish_once": _publish,
    "report": _report,
    "report_offered": _report_offered,
    "record_steps": lambda values: [("execution", item.execution_id) for item in values["items"]],
    "resume": _execution,
    "reserve": _reserve,
    "settle": lambda values: [("reservation", values["request"].reservation_id)],
    "change_budget": _change_budget,
    "cancel": _execution,
    "cut_lease": _worker,
    "note_arrival": _worker,
    "push_worker_beat": _worker,
    "make_key": _make_key,
    "create_key": lambda values: [("api_key", values["id"])],
    "delete_key": lambda values: [("api_key", values["id"])],
    "note_key_use": lambda values: [("api_key", values["id"])],
    "sign_up": lambda values: [("user_email", values["user"].email)],
    "open_session": _user,
    "close_session": lambda values: [("session", values["token_hash"])],
    "change_user": _user,
    "change_password": _user,
    "make_project": _make_project,
    "add_member": _add_member,
    "change_member": _project,
    "remove_member": _project,
    "withdraw_invitation": _project,
    "change_project": _project,
    "make_schedule": _make_schedule,
    "change_schedule": lambda values: [("schedule", values["change"].schedule_id)],
    "delete_schedule": _schedule,
    "run_schedule": _schedule,
    "fire_schedule": _schedule,
    **dict.fromkeys(
        ("begin_exports", "claim_exports", "note_exports", "release_exports"),
        lambda values: [("export", values["project_id"])],
    ),
    "append_messages": _append_messages,
    "put_memory": lambda values: [("session", values["session_id"])],
    "put_spans": lambda values: [("trace", values["trace_id"])],
    "save_step": _execution,
    "complete_pushed": _execution,
    "fail_pushed": _execution,
    "confirm_cancel_pushed": _execution,
    "wait_pushed": _wait_pushed,
    "put_span_id": _execution,
    "start_children": _start_children,
    "accept_push": _execution,
    "hand_back": _execution,
    "lost_delivery": _execution,
    "tell_cancel": _execution,
    "untell_cancel": _execution,
    "cancel_absent": _execution,
    "push_worker_online": _worker,
    "hurry_push_check": _worker,
    "make_webhook": _make_webhook,
    "delete_webhook": lambda values: [("project", values["project_id"])],
    "settle_delivery": lambda values: [("execution", values["taken"].execution_id)],
    "postpone_deliveries": lambda values: [("execution", one.execution_id) for one in values["taken"]],
    "redeliver": _execution,
    "new_epoch": lambda values: [("meta", "epoch")],
    "mark_reaper": lambda values: [("meta", REAPED)],
    "default_project": lambda values: [("project", "")],
}
"""By verb: the rows that its arguments name."""

SWEEPS: Final = frozenset(
    {
        "add_message",
        "answer_question",
        "beat",  # looks at all that a worker holds
        "bind_slack_app",
        "bring_forward",
        "claim",
        "claim_pushed",
        "delete",
        "delete_trigger",
        "drain",
        "end_embedded",
        "erase",
        "forgive_push_worker",
        "grant_leases",
        "lapse_expired",
        "limit_leases",
        "make_signing",
        "prune",
        "push_worker_refused",
        "reap",
        "recall",
        "register",
        "register_definition",
        "register_push_deployment",
        "register_push_workflow",
        "register_queues",
        "register_trigger",
        "release_slack_app",
        "retire_deployment",
        "take_for_trigger",
        "use_deployment",
        "rotate_signing",
        "catch_up",
        "register_push_worker",
        "retire_push_worker",
        "take_push_checks",
        "take_deliveries",
        "wake_due",
        "end_overdue",
    }
)
"""Verbs whose rows a predicate picks, and what is rare."""


def rows_named(verb: Verb[Any]) -> Sequence[Row]:
    """The rows that a verb's arguments name, each once."""
    name = NAMED.get(verb.name)
    return () if name is None else list(dict.fromkeys(name(verb.values)))


def is_sweep(verb: Verb[Any]) -> bool:
    """Whether a verb belongs on the connection for predicates and large work."""
    if verb.name in SWEEPS:
        return True
    if verb.name in ("start", "start_batch", "start_children"):
        news: Sequence[New] = verb.values["news"]
        return len(news) > LARGE or any(new.item.queue_concurrency_limit is not None for new in news)
    if verb.name in ("report", "report_offered"):
        item: ReportItem = verb.values["item"]
        return any(
            type(entry) is StartChild and entry.item.queue_concurrency_limit is not None for entry in item.entries
        )
    return False


def weight(verb: Verb[Any]) -> int:
    """About how many rows a verb writes: groups are bounded by that, too."""
    if verb.name in ("report", "report_offered"):
        return 1 + len(verb.values["item"].entries)
    if verb.name in ("start", "start_batch", "start_children"):
        return len(verb.values["news"])
    if verb.name == "record_steps":
        return 2 * len(verb.values["items"])
    return 1
