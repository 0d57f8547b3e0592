"""Years of use: the reads of a query do not grow with finished executions.

Every query runs, as its driver runs it, in a store with many finished executions and some thousand open ones. The test
counts the pages read: a few for the query, and a few for each row answered or written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import asyncpg
import pytest
from tests import postgres
from tests.databases import migrated
from tests.store.grown import NOW_US, PAYLOAD, fill_postgres, fill_sqlite, name_of
from tests.store.world import START_US

from perdure.store.base.statements import Statement, load
from perdure.store.drivers.postgres_writer import BEGIN, LOCKS, PREPARE
from perdure.store.drivers.sqlite_numbers import Numbers
from perdure.store.inspection import SIZES
from perdure.store.open import open_store
from perdure.store.verbs.insight.ended import HOUR_US, MINUTE_US
from perdure.store.verbs.insight.workflow_runs import LIST_DEPTH
from perdure.store.verbs.runs.find import FLOORS
from perdure.store.verbs.runs.queries import DOCTOR
from perdure.wire.base.fields import FIRST_CURSOR

SMALL: Final = (20_000, 1_000)
LARGE: Final = (1_000_000, 10_000)
"""The numbers of finished and of open executions."""

PAGES_MAX: Final = 60
PAGES_PER_ROW_MAX: Final = 60
ENTRIES_PER_PAGE: Final = 2
"""A page holds more, so this finds what walks an index."""

LARGE_TABLES: Final = (
    "executions",
    "journal",
    "waits",
    "approvals",
    "events",
    "event_fields",
    "topics",
    "execution_tags",
    "search_terms",
    "logs",
    "stream_items",
    "idempotency",
    "schedule_fires",
    "deliveries",
    "conversation_messages",
    "spans",
    "traces",
    "session_memory",
    "execution_extras",
    "large_payloads",
    "transcripts",
    "transcript_entries",
    "messages",
    "turns",
    "budgets",
    "reservations",
    "acts",
    "pending_calls",
)
"""The tables that grow with the years."""

# The open executions come in tens, one of each kind (grown.sql). The fourth ten is what single queries name.
KINDS: Final = (
    *("queued", "queued_limited", "delayed", "running", "running_limited"),
    *("cancelling", "waiting_for_event", "waiting_for_timer", "waiting_for_answer", "blocked"),
)
WORKER: Final = "worker-3"

# Asked by hand, or once in a process' life: they read what they are about.
MAY_READ_MUCH: Final = {
    **dict.fromkeys((*DOCTOR, *SIZES), "an operator's question, on a connection of its own"),
    "mark_limited": "all that is open, when a queue gains or loses its limits",
    "unblock": "all that is blocked, when a deployment registers",
    "count_phases": "all that is open, for the metrics",
    "count_queued": "all that is queued, for the metrics",
    **dict.fromkeys(("count_paused", "list_pauses", "read_pause"), "all that pauses hold, when a person asks"),
    "ends_since": "counts of a week, for a person",
    "count_open_by_deployment": "all that is open, when a person asks",
    "list_queues": "all that is ready or running, when a person asks",
    "any_open_of_deployment": "what is held or delayed, when a deployment is retired",
    "unserved": "all that is ready, once a minute",
    **dict.fromkeys(("open_by_phase", "open_by_workflow", "unserved_of_project"), "all that is open, for a person"),
    **dict.fromkeys(("count_questions", "blocked_executions"), "all that waits for a person, for a person"),
    "newest_questions": "what waits for a person, up to a limit",
    **dict.fromkeys(("keys_of_queue", "next_in_queue", "many_in_queue"), "all that is ready, for a person"),
    "step_times": "the journals of a list",
    "open_of_workflow": "what is open of a workflow, up to a limit, for a person",
    "skipped_fires": "all schedules of a project, for a person",
    "unmarked_queues": "all that is open, once a minute where many write at once",
    "orphaned": "all that is held, at the start of a process that is alone",
    "group_room": "what is held of a queue and of a key, at most its limits",
    "changed_of_workers": "all that a worker holds, once a second while it waits",
    "held_by_all": "all that some workers hold, at each beat",
    "unacknowledged_claims": "all that a worker holds, once a second while it waits",
    "list_all_workers": "what workers hold, when a person asks",
    **dict.fromkeys(("read_listed_worker", "serving_workers"), "what workers hold, when a person asks"),
    **dict.fromkeys(
        ("ready_before", "ready_before_in_group", "ready_beside_group"), "what is ready, up to a limit, for a person"
    ),
    "count_held_by": "what a push worker holds, at most what it takes",
    "untold_of_push_workers": "all that push workers hold, every few seconds",
    "open_of_user": "all that a user has, when that is erased",
    "open_of_session": "all that a session has, when that is erased",
    "list_runs": "the newest executions, at most LIST_DEPTH",
    "run_sizes": "the newest executions, at most LIST_DEPTH",
    **dict.fromkeys((*FLOORS.values(), "by_end_floor"), "index entries, at most as deep as asked"),
    "traces_floor": "index entries of the newest traces, at most LIST_DEPTH of them",
    **dict.fromkeys(
        ("first_waits", "open_among_children", "last_rows", "long_steps", "numbered_pauses"),
        "a few rows of each execution of a page",
    ),
    "held_of_queues": "the running executions of a page's queues, at most their limits",
    "ended_floor": "index entries of what ended last, at most LIST_DEPTH of them",
}
ANSWERS_NOTHING: Final = {
    **dict.fromkeys(("read_meta", "try_lock_meta"), "only PostgreSQL's schema has rows there"),
    "bring_forward": "no clock was put back",
    "delete_key": "there are no keys",
    "list_keys": "there are no keys",
    "read_key": "there are no keys",
    "note_key_use": "there are no keys",
    **dict.fromkeys(
        ("find_user", "read_user", "update_user", "update_password", "read_session", "delete_session"),
        "there are no users",
    ),
    **dict.fromkeys(("delete_old_sessions", "delete_other_sessions", "projects_of_user"), "there are no users"),
    **dict.fromkeys(("member_roles", "list_members", "update_member", "delete_member"), "there are no members"),
    **dict.fromkeys(
        ("read_invitation", "take_invitation", "list_invitations", "delete_invitation", "delete_old_invitations"),
        "there are no invitations",
    ),
    **dict.fromkeys(("read_link", "list_links", "revoke_link"), "there are no links"),
    "embedded_workers": "there are none",
    "count_live_workers": "all leases have run out at the time that is asked about",
    "live_worker_of": "all leases have run out at the time that is asked about",
    "read_ended": "none has ended",
    "prune_ended": "none has ended",
    **dict.fromkeys(("forgive_losses", "prune_losses"), "no loss was counted"),
    "unheard_of": "all that was handed out was acknowledged",
    "has_lapsed": "no push worker has",
    "newer_registration": "all are as old",
    "adopt_early": "nothing waits for a first deployment",
    "adopt_any_early": "nothing waits for a first deployment",
    "take_back_step": "no step has failed",
    "timer_fired": "no timer has",
    **dict.fromkeys(("payload_of_size", "equals_payload"), "no payload is large"),
    "ask_anew": "nothing is asked anew",
    "read_answer": "nobody answered",
    "reopen_wait": "none is closed",
    "deliver_and_claim": "nothing is parked",
    "any_open_child": "all children have ended",
    "orphaned": "everything held is a worker's",
    "changed_of_workers": "there is none",
    "old_snapshots": "there is none",
    "limit_leases": "no lease is too long",
    "declared_schedules": "none is declared by code",
    "declared_triggers": "none is declared by code",
    "settle_fires": "its execution is open",
    "unserved": "every deployment has a worker",
    "unmarked_queues": "all that is open knows of its queue's limits",
    "forgotten_early": "nothing waits for a first deployment",
    "model_calls": "no model was asked",
    "calls_of_agents": "no model was asked",
    "worker_in_flight": "no worker has said that a step runs",
    "taken_events": "the wait is still open",
    "insert_project": "it is there",
    "due_before": "a wait of a push worker has one",
    "batch_waited_for": "a batch that is one wait has one",
    "renew_push_lease": "the one that is named asks for its work",
    "any_open_of_batch": "all of the batch have ended",
    "lock_asking": "no deployment has push workers",
    "tell_cancel": "the one that is named is not cancelled",
    "untell_cancel": "the one that is named is not cancelled",
    "insert_queue": "it is there",
    "begin_folds": "it is there",
    "step_times": "no step says when it began",
    **dict.fromkeys(
        ("failed_of_workflow", "failed_of_deployment", "matched_failures", "held_executions"), "all were completed"
    ),
    "deployment_before": "no other is known",
    **dict.fromkeys(("unserved_of_project", "skipped_fires"), "nothing is wrong"),
    **dict.fromkeys(("end_due_pauses", "delete_pause", "pauses_to_work"), "no pause has ended"),
    **dict.fromkeys(("key_gate", "pause_of", "any_paused", "release_paused"), "the pause covers no execution"),
    "read_signing": "nothing was signed",
    "rotate_signing": "nothing was signed",
    "insert_memory": "it is there",
    **dict.fromkeys(("list_failed", "failed_floor", "list_cancelled", "cancelled_floor"), "all were completed"),
    "with_retried_key": "nothing was retried",
    **dict.fromkeys(("list_of_source", "of_source_floor"), "nothing was forked"),
    "open_among_children": "all children have ended",
    "long_steps": "no step runs for long",
    "last_rows": "the running ones have no outcome yet",
    "failed_of_page": "all were completed",
    "numbered_pauses": "the pause covers no execution",
    "head_of_session_floor": "there is one at most",
    "agent_names": "there is no agent",
    "questions_of": "nothing was asked",
    "asked_on_topic": "nothing was asked",
    **dict.fromkeys(("question_below", "open_questions_below"), "only what is open is asked there"),
    "read_approvals": "nobody answered",
    "release_turn": "nothing waits for its turn",
    **dict.fromkeys(("release_hold", "give_up"), "nothing is held"),
    "open_children": "all children have ended",
    "recent_tries": "no try has failed of late",
    "retried_after": "nothing was retried",
    "hold_at": "it was not held",
    **dict.fromkeys(("failed_step_of", "failed_steps_before"), "no step has failed"),
    "budget_waits_at": "it waited for no budget",
    "open_children_at": "all children have ended",
    "started_child_of": "none was started",
    **dict.fromkeys(("kept_readings", "any_transcript_row"), "no transcript was read"),
}

linux = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


def defaults(executions: int) -> dict[str, Any]:
    """Default values of parameters, for queries without values of their own."""
    return {
        **dict.fromkeys(("error", "progress", "tags", "due_at_us", "timer_key", "parked_worker", "parked_seq"), None),
        **dict.fromkeys(("parent_execution_id", "root_execution_id", "step_key", "batch_id", "session_id"), None),
        **dict.fromkeys(("output_schema_name", "run_timeout_seconds", "key", "started_at_us", "match"), None),
        "answer_schema": b"{}",
        **dict.fromkeys(("match_names", "match_hash"), None),
        **dict.fromkeys(("fingerprint", "phases", "user_id", "tag_name", "tag_value", "assigned_to_worker"), None),
        **dict.fromkeys(
            ("key_part", "key_end", "terms", "retried", "roots", "searchable", "described", "tags", "input_check"), None
        ),
        **{f"{no}{name}": None for name in ("workflow_ids", "queue_names", "deployment_ids") for no in ("", "not_")},
        **dict.fromkeys(("not_tag_name", "not_tag_value"), None),
        **dict.fromkeys(("q", "q_end", "first_id", "last_id"), None),
        **dict.fromkeys(("created_at_us", "updated_at_us"), NOW_US),
        **dict.fromkeys(("created_after_us", "created_before_us", "event_type", "concurrency_limit"), None),
        **dict.fromkeys(("priority", "rank", "gate", "wake_on_cancel", "attempt", "after", "after_seq"), 0),
        **dict.fromkeys(("losses", "undelivered", "refused", "fresh", "outcomes", "retries", "tries", "passed_us"), 0),
        **dict.fromkeys(("embedded", "development"), 0),
        **dict.fromkeys(("now_us", "ready_at_us", "lease_until_us", "at_us"), NOW_US + 60_000_000),
        **dict.fromkeys(("ok", "rows", "events", "n", "upto", "attempt", "total_limit"), 1),
        **dict.fromkeys(("payload", "result", "value", "data", "answer"), PAYLOAD),
        **dict.fromkeys(("limit", "capacity"), 100),
        "before_us": START_US + 5_000 * 1_000_000,  # the oldest 5,000 are older
        "grace_us": 30_000_000,
        "id": "another",
        "project_id": "p",
        "deployment_id": "d",
        "workflow_id": "workflow-1",
        "worker_id": WORKER,
        "claim_id": "claim",
        "python": "3.11",
        "protocol": 2,
        "number": 9,
        "queue_name": "narrow",
        "concurrency_key": "key-3",
        "cancelled_by": "user",
        "phase": "queued",
        "kind": "step",
        "seq": 1_000_000,
        "next_seq": 1,
        "topic": "topic-3",
        "dedup_key": "dedup-300",
        "before": FIRST_CURSOR,
        "floor_id": name_of(executions - LIST_DEPTH) if executions > LIST_DEPTH else "",
        **dict.fromkeys(("last_slot_us", "last_used_at_us", "reason", "execution_id"), None),
        **dict.fromkeys(("next_at_us", "slot_us"), NOW_US),
        **{"cron": "* * * * *", "timezone": "UTC", "status": "active", "overlap": "skip", "missed": "skip"},
        **{"missed_window_seconds": 60, "declared": 0, "by_hand": "", "schedule_id": "schedule-3"},
        **{"granted_us": None, "result_seq": None},
        **dict.fromkeys(("lease_us", "push_lease_us"), 12_000_000),
        **dict.fromkeys(("forked_from", "forked_at_step", "seed_id", "keys_id", "retried_as", "created_number"), None),
        **{"kept_rows": 2, "needs_protocol": 2, "note": None, "upto": 1 << 62},
        "by_database": 0,
        **dict.fromkeys(("folded_to_us", "settled_to_us"), 0),
        "took": -1,
        "ready_from_us": 0,
        **dict.fromkeys(("push", "offset", "trigger_on_event", "scheduled"), 0),
        **{"type": "workflow", "keep": 50, "conversation_id": "chat-3", "agent_id": "agent-3", "agent_run_id": None},
        "content": PAYLOAD,
        **{"retired": 0, "label": None, "quiet": 0, "in_flight": None},
        **{"batch_size": 10, "batch_timeout_seconds": None, "taken_seq": 0},
        "api_app_id": "app-3",
        "rank_before": 1 << 62,
        "seconds": 300,
        "transactions": 100_000,
        "ids": json.dumps([name_of(n) for n in range(executions - 90, executions)]),
        "topics": json.dumps([f"topic-{n}" for n in range(20)]),
        "workers": json.dumps([WORKER]),
        "deployments": json.dumps(["d", "other"]),
        "depth": min(LIST_DEPTH, executions // 2),
        "trace_id": name_of(executions // 2 // 100 * 100 + 13).replace("-", ""),
        "span_id": "span-3",
        **dict.fromkeys(("parent_span_id", "ended_at_us", "summary"), None),
        **dict.fromkeys(("root_span_id", "root_span_type", "root_span_name", "span_type"), "text"),
        **dict.fromkeys(("rooted", "failed", "spans", "of_execution"), 1),
        **dict.fromkeys(("body", "messages"), PAYLOAD),
        "sorted_at_us": NOW_US,
        **{"claimed_until_us": NOW_US, "ended_at_us": NOW_US},
        **{"from_us": 0, "to_us": 1 << 62, "bytes_max": 1_000},
        "version": 3,
        "route": "start",
        "body_hash": "hash",
        "level": 20,
        **dict.fromkeys(("email", "first_name", "last_name", "display_name", "description", "token_hash"), "text"),
        **{"password_hash": "text", "expires_at_us": NOW_US, "kept": 9},
        **dict.fromkeys(("name", "role", "secret_hash", "last_four_digits", "text", "state"), "text"),
        **dict.fromkeys(("secret", "links", "answered_by", "how"), "text"),
        **{"action": "cancel", "filters": PAYLOAD, "options": PAYLOAD, "note": None, "started_by": "text"},
        **{"newest": "~", "place": "", "total": 1, "at_least": 0, "done": 1, "later": 1, "pause_us": 1},
        **{"job_id": "job-3", "made_id": None, "starts_at_us": None},
        **{"url": "https://example.com/x", "host": "example.com", "description": None, "is_root": 1, "busy": "[]"},
        **{"after_us": 0, "after_id": "", "after_key": "", "after_project_id": ""},
        "until_us": NOW_US + 120_000_000,
        **{"hash": b"hash-253", "uses": 1, "entries": 1, "expected": None, "summarized": 0, "dropped": 4},
        **{"summary_of": None, "deliver": 1, "taken_by": "taker", "held_us": None},
        **dict.fromkeys(("usd_micros", "tokens", "calls", "seconds_max"), 1),
        **dict.fromkeys(
            ("usd_micros_back", "tokens_back", "calls_back", "usd_micros_max", "tokens_max", "calls_max"), 0
        ),
        **{
            "on_exceed": "ask",
            "root_id": "root",
            "asking_id": "asking",
            "budget_id": "budget",
            "started": b'"a child"',
            **{
                "shared_id": "shared-1",
                "per": "session",
                "period": "day",
                "opened_at_us": NOW_US,
                "used_at_us": NOW_US,
            },
            "day_us": NOW_US,
        },
    }


def special(executions: int) -> dict[str, dict[str, Any]]:
    """The values for single queries."""
    ids = {kind: name_of(executions + 30 + n) for n, kind in enumerate(KINDS)}
    nothing: dict[str, Any] = dict.fromkeys(("deployment_id", "queue_name", "workflow_id"))
    has_children = name_of(executions // 2 // 20 * 20)
    done, old, fresh = name_of(executions // 2), name_of(40), name_of(executions * 2)
    hour_us = START_US // HOUR_US * HOUR_US
    minutes = {"from_us": hour_us + HOUR_US, "to_us": hour_us + HOUR_US + 5 * MINUTE_US}
    buckets = {"step_us": HOUR_US, "bucket_us": 2 * HOUR_US, "from_us": hour_us}
    found: dict[str, dict[str, Any]] = {}
    for query in ("acknowledge", "advance", "advance_next", "complete", "fail", "suspend", "requeue"):
        found[query] = {"id": ids["running"], "error": "e"}
    found["advance_next"] = found["advance"] | {"seq": 2}
    for query in ("record_pushed", "lock_pushed", "read_pushed", "next_row", "put_output_schema"):
        found[query] = {"id": ids["running"], "key": "another"}
    found["accept_push"] = {"execution_id": ids["running"]}
    found["step_of_pushed"] = {"id": done, "key": "step-1"}
    found["outcome_sizes"] = {"execution_id": done}
    found["outcomes_at"] = {"execution_id": done, "seqs": "[1, 2, 3]"}
    for query in ("put_span_id", "put_final_state"):
        found[query] = {"execution_id": name_of(31), "otel_span_id": "span", "final_state": PAYLOAD}
    for query in ("push_online", "push_beat", "renew_push_lease", "push_refused", "hurry_check", "lock_push_worker"):
        found[query] = {"id": WORKER, "check_at_us": NOW_US - 1, "young_us": 0, "lease_until_us": 1, "own": 1}
    for query in ("lapse_push_worker", "delete_push_worker", "end_push_lease"):
        found[query] = {"id": WORKER, "now_us": NOW_US}
    for query in ("batch_children", "any_open_of_batch"):
        found[query] = {"batch_id": "batch-5"}
    for query in ("last_event_of_type", "first_event_of_type", "read_event"):
        found[query] = {"event_type": "made", "seq": 8}
    for query in (
        "block",
        "hold",
        "need_protocol",
        "actable",
        "ask_cancel",
        "lose",
        "poison",
        "count_outcome",
        "lock_state",
        "try_lock_execution",
        "read_state",
    ):
        found[query] = {"id": ids["running"], "error": "e"}
    for query in ("confirm_cancel", "overrule"):
        found[query] = {"id": ids["cancelling"]}
    for query in (
        "get_execution",
        "read_end",
        "how_ended",
        "read_parent",
        "children",
        "children_to_cancel",
        "any_open_child",
    ):
        found[query] = {"id": has_children}
    for query in ("compared_run", "path_execution", "completed_before"):
        found[query] = {"id": done}
    for query in ("verdicts", "ready_before", "ready_before_in_group", "ready_beside_group"):
        found[query] = {"id": ids["queued"], "ready_at_us": 1 << 62, "mixed": 1}
    for query in ("holders_under_limit", "holders_at_worker"):
        found[query] = {"worker_id": WORKER, "concurrency_key": None, "limit": 10}
    for query in (
        "count_losses",
        "count_steps",
        "shapes_of_steps",
    ):
        found[query] = {"execution_id": done, "before": 9}
    found["worker_in_flight"] = {"worker_id": WORKER}
    found["begun_steps"] = {"execution_id": done, "keys": json.dumps(["step-1"])}
    found["spending_execution"] = {"id": done}
    found["spending_below"] = {"ids": json.dumps([has_children])}
    found["model_calls"] = {"execution_id": done}
    found["calls_of_agents"] = {"ids": json.dumps([done])}
    for query in ("ended_of_agent", "open_of_agent"):
        found[query] = {"workflow_id": "workflow-1", "phase": "completed", "floor_id": name_of(executions - 40)}
    found["entries"] = {"execution_id": done, "after": 0, "every": 1}
    found["steps_rerun"] = {"execution_id": done, "first_seq": 1, "last_seq": 100}
    for query in ("waits_of_keys", "newest_waits"):
        found[query] = {"execution_id": ids["waiting_for_event"], "keys": json.dumps(["wait-1"]), "unmet": 1}
    found["newest_entries"] = {"execution_id": done, "kinds": json.dumps(["step"]), "key": None, "failed": 0}
    for query in (
        "summaries",
        "first_waits",
        "open_among_children",
        "last_rows",
        "long_steps",
        "numbered_pauses",
    ):
        some = [name_of(executions + 20 + n) for n in range(100)] + [has_children]
        found[query] = {"ids": json.dumps(some), "rows": 20, "children": 20, "progress_bytes_max": 1024}
    for query in ("queues", "used_queues"):
        found[f"{query}_beginning"] = {"first": "n", "last": "o", "limit": 5}
    found["workflows_beginning"] = {"first": "work", "last": "x", "type": "workflow", "limit": 5}
    found["sessions_beginning"] = {"first": "session-2", "last": "session-3", "limit": 5}
    found["topics_beginning"] = {"first": "topic-1", "last": "topic-2", "limit": 5}
    found["deployments_beginning"] = {"first": "d", "last": "e", "limit": 5}
    for query in ("limits_of_queues", "held_of_queues"):
        found[query] = {"ids": json.dumps(["narrow"])}
    found["served_deployments"] = {"ids": json.dumps(["d", "other"])}
    found["explained_waits"] = {"execution_id": ids["waiting_for_event"], "key": None}
    for query in ("delete_execution", "delete_journal"):
        found[query] = {"id": old}
    for query in ("read_wait", "meet_wait", "close_wait", "close_waits", "open_waits", "list_waits", "count_early"):
        found[query] = {"execution_id": ids["waiting_for_event"], "key": "wait-1", "event_seq": 1}
    for query in ("ask_anew", "reopen_wait", "taken_events", "read_answer", "set_answer_schema"):
        found[query] = {"execution_id": ids["waiting_for_event"], "key": "wait-1"}
    for query in ("insert_journal", "insert_log", "insert_wait", "last_log", "read_journal", "journal_sizes"):
        found[query] = {"execution_id": done, "key": "another", "state": "open"}
    for query in (
        "upsert_worker",
        "read_worker",
        "lock_worker",
        "beat_worker",
        "beat_unlocked",
        "renew_lease",
        "read_lease",
        "note_claim",
        "delete_worker",
        "read_listed_worker",
    ):
        found[query] = {"id": WORKER, "capacity": 500, "now_us": NOW_US, "host": "here", "pid": 1}
    for query in ("put_pause", "read_pause", "end_pause", "try_lock_pause", "note_marked", "mark_again"):
        found[query] = {"kind": "queue", "name": "resting", "concurrency_key": "", "state": "holding"}
        found[query] |= {"number": 2, "note": None, "until_us": None, "paused_by": "user", "place": None}
    for query in ("open_after", "mark_paused"):
        found[query] = {"kind": "workflow", "name": "workflow-0", "ids": json.dumps([ids["queued"]]), "number": 2}
    for query in ("release_paused", "any_paused", "delete_pause"):
        found[query] = {"number": 2}
    for query in ("upsert_queue", "insert_queue", "read_queue", "lock_queue", "list_queues"):
        found[query] = {"name": "narrow", "total_limit": 1_000}
    for query in ("lock_schedule", "try_lock_schedule", "read_schedule", "update_schedule", "advance_schedule"):
        found[query] = {"id": "schedule-3"}
    found["read_description"] = {"deployment_id": "d", "id": "workflow-0"}
    for query in ("lock_deployment", "upsert_deployment", "read_deployment", "retire_deployment"):
        found[query] = {"id": "d"}
    for query in ("put_definition", "read_definition"):
        found[query] = {"id": "agent-3", "kind": "agent"}
    for query in ("list_definitions", "definition_sizes"):
        found[query] = {"kind": "agent", "before_us": NOW_US, "after": ""}
    for query in ("list_topics", "topic_sizes"):
        found[query] = {"first": "topic-10", "beyond": "topic-2", "after_topic": "topic-10"}
    for query in ("list_runs", "run_sizes"):
        found[query] = {"workflow_id": None, "type": "workflow"}
    for query in ("try_lock_trigger", "take_events", "delete_trigger"):
        found[query] = {"id": "trigger-3", "taken_seq": 100}
    for query in ("update_trigger", "find_trigger"):
        found[query] = {"workflow_id": "workflow-3"}
    for query in ("insert_workflow", "put_workflow"):
        found[query] = {"id": "another"}
    for query in ("insert_export", "claim_export", "note_export"):
        found[query] = {"execution_id": done if query == "insert_export" else name_of(executions - 93)}
    for query in (
        "session_roots",
        "session_run",
        "questions_of",
        "asked_on_topic",
    ):  # these skip all but the newest events
        found[query] = {
            "topic": "topic-4",
            "session_id": "session-25",
            "id": name_of(60),
            "execution_id": ids["waiting_for_answer"],
        }
    for query in ("read_memory", "put_memory", "insert_memory", "update_memory", "delete_memory"):
        found[query] = {"session_id": "session-25"}
    for query in (
        "lock_transcript",
        "try_lock_transcript",
        "advance_transcript",
        "read_version",
        "newest_summary",
        "entry_sizes",
        "read_entries",
    ):
        found[query] = {"session_id": "session-25", "version": 10}
    for query in ("insert_entry", "drop_entries", "note_dropped", "delete_transcript", "count_turn", "oldest_reading"):
        found[query] = {"session_id": "session-25", "upto": 4}
    for query in ("open_turn", "next_turn", "messages_to_take", "taken_turns", "give_back_taken", "any_turn"):
        found[query] = {"session_id": "session-25"}
    for query in ("take_turn", "leave_turn", "delete_turn", "begin_turn", "turns_of_execution", "note_reading"):
        found[query] = {"session_id": "session-25", "execution_id": name_of(101)}
    for query in ("settle_delivery", "postpone_delivery", "read_delivery", "redeliver", "deliveries_of"):
        found[query] = {"execution_id": name_of(54), "webhook_id": "", "tries": 0, "status": 200, "answer": "ok"}
        found[query] |= {"state": "delivered", "next_at_us": None}
    found["postpone_delivery"] |= {"next_at_us": NOW_US}
    for query in ("list_answered", "list_expired"):
        found[query] = {"place_us": 1 << 62, "place_id": "", "place_key": "", "skew_us": 0}
    found["list_questions"] = {"place_us": 0, "place_id": "", "place_key": ""}
    found["list_links"] = {"before_us": 1 << 62, "before_id": ""}
    for query in ("question_of", "read_approvals", "note_approval"):
        found[query] = {"execution_id": ids["waiting_for_answer"], "key": "wait-1"}
    for query in ("lock_budget", "read_budget", "reserve_budget", "pause_budget", "settle_budget", "raise_budget"):
        found[query] = {"id": has_children}
    for query in ("any_reservation", "settle_reservation", "note_settled"):
        found[query] = {"execution_id": ids["running"], "id": "call-1"}
    for query in ("lock_source", "lock_retried", "read_source", "mark_retried", "set_keys", "make_fork", "keys_of"):
        found[query] = {"id": done}
    forked = {"execution_id": done, "fork_id": fresh, "cut": 3, "cut_at_us": NOW_US, "lost": "[]"}
    for query in (
        "kept_facts",
        "budget_waits_at",
        "failed_steps_before",
        "retried_after",
        "hold_at",
        "kept_readings",
        "open_children_at",
        "copy_journal",
        "copy_waits",
    ):
        found[query] = forked
    for query in ("copy_approvals", "first_row_of", "failed_step_of", "newest_keys", "any_transcript_row"):
        found[query] = forked | {"key": "step-1"}
    for query in ("row_at", "replace_value", "insert_act"):
        found[query] = forked | {"seq": 2, "key": "step-1", "action": "fork", "acted_by": "user"}
    found["copy_acts"] = forked | {"execution_id": name_of(executions // 2 // 100 * 100 + 14)}
    found["copy_budget"] = forked | {"execution_id": has_children, "is_final": 1}
    line = name_of(executions // 2 // 20 * 20 + 11)
    emitted = name_of(executions // 2 // 200 * 200 + 11)
    walks: dict[str, dict[str, Any]] = {
        "list_all": {},
        "list_open": {"of_workflow": "workflow-1"},
        "list_ended": {"of_workflow": "workflow-1", "of_phase": "completed"},
        "list_failed": {},
        "list_cancelled": {},
        "list_of_queue": {"queue_name": "narrow"},
        "list_of_session": {"session_id": "session-25"},
        "list_head_of_session": {"session_id": done},
        "list_of_user": {"user_id": "user-2"},
        "list_of_batch": {"batch_id": "batch-3"},
        "list_of_parent": {"parent_execution_id": has_children},
        "list_of_root": {"root_execution_id": has_children},
        "list_of_source": {"forked_from": done},
        "list_tagged": {"tag_name": "shop", "tag_value": "value-1"},
    }
    for query in (
        "read_job",
        "try_lock_job",
        "lock_job",
        "set_job_state",
        "move_job",
        "insert_job",
        "selection_of_job",
    ):
        found[query] = {"id": "another" if query == "insert_job" else "job-3", "state": "running", "most": 10_000}
    found["insert_job"] |= {"moved_at_us": NOW_US}
    for query in ("put_item", "later_items", "list_items", "list_items_in_state", "prune_items"):
        found[query] = {"job_id": "job-3", "execution_id": name_of(3), "state": "later", "after": ""}
    found |= {
        "list_jobs": {"before": "~"},
        "later_among": {"job_id": "job-3", "ids": json.dumps([name_of(3), name_of(13)])},
        "oldest_job": {"before_us": NOW_US},
        "delete_job": {"id": "job-5"},
        "asking_among": {"ids": json.dumps([ids["waiting_for_answer"]]), "key": "wait-1"},
        "insert_turn": {"session_id": "session-25", "execution_id": fresh, "state": "waiting"},
        "begin_turn": {"session_id": "session-26", "execution_id": name_of(104)},
        "pause_of": {"id": ids["queued"]},
        "any_workflow": {"name": "workflow-2"},
        "turn_before": {"execution_id": name_of(105)},
        "result_of": {"id": done},
        "release_turn": {"id": ids["delayed"]},
        "use_message": {"hash": b"another"},
        "insert_webhook": {"id": "another"},
        "delete_webhook": {"id": "webhook-2"},
        "lock_project": {"id": "p"},
        "insert_execution_webhook": {"execution_id": done},
        "insert_deliveries": {"execution_id": name_of(executions // 2 + 1), "workflow_id": "workflow-1"},
        "delete_execution_webhooks": {"id": done},
        "delete_deliveries": {"id": name_of(63)},
        "list_deliveries": {
            "before_us": 1 << 62,
            "before_id": "",
            "before_webhook": "",
            "state": None,
            "webhook_id": None,
        },
        "question_target": {"id": ids["waiting_for_answer"]},
        "question_below": {"id": name_of(executions // 2 // 20 * 20), "key": "wait-1"},
        "open_questions_of": {"id": ids["waiting_for_answer"], "limit": 100},
        "open_questions_below": {"id": name_of(executions // 2 // 20 * 20), "limit": 100},
        "list_startable": {"after_id": "", "limit": 1_000},
        "delete_approvals": {"id": done},
        "open_children": {"id": has_children},
        "recent_tries": {"execution_id": done, "after": 10},
        "pending_calls": {"execution_id": ids["running"], "attempt": 1},
        "acts_between": {"execution_id": name_of(executions // 2 // 100 * 100 + 14), "first_seq": 1, "last_seq": 9},
        "given_since": {"execution_id": done, "after": 1, "before": 9},
        "insert_pending_call": {"execution_id": done, "key": "another", "kind": "step", "since_us": 1, "due_us": None},
        "newest_acts": {"execution_id": name_of(executions // 2 // 100 * 100 + 14)},
        "insert_act": {"execution_id": done, "action": "try", "acted_by": "user", "note": None},
        "delete_acts": {"id": name_of(executions // 2 // 100 * 100 + 14)},
        "delete_pending_calls": {"id": ids["running"]},
        "insert_budget": {"execution_id": line},
        "any_budget": {"root_id": has_children},
        "read_spender": {"id": ids["running"]},
        "budgets_above": {"id": name_of(executions // 2 // 20 * 20 + 1)},
        "insert_reservation": {"execution_id": done},
        "live_reservations": {"id": ids["running"]},
        "delete_budget": {"id": has_children},
        "delete_reservations": {"id": has_children},
        "read_shared_budget": {"name": "daily"},
        "put_shared_budget": {"name": "daily"},
        "delete_shared_budget": {"name": "daily"},
        "read_payer": {"id": ids["running"]},
        "insert_balance": {"id": "00000000-new", "key": "session-new"},
        "list_balances": {"after": "session-3", "opened_at_us": None},
        "read_balance": {"key": "session-3", "opened_at_us": None},
        "delete_balances_of": {"key": "session-3"},
        "prune_balances": {"day_before_us": NOW_US},
        "insert_extras": {
            "execution_id": fresh,
            "otel_traceparent": None,
            "initial_state": None,
            "channel_context": None,
        },
        "delete_extras": {"id": name_of(31)},
        "insert_large_payload": {"execution_id": fresh},
        "payload_of_size": {"execution_id": name_of(31), "size": len(PAYLOAD)},
        "equals_payload": {"execution_id": name_of(31)},
        "any_step_of_size": {"execution_id": done, "upto": 20, "size": len(PAYLOAD)},
        "step_of_value": {"execution_id": done, "upto": 20, "size": len(PAYLOAD)},
        "delete_large_payload": {"id": name_of(31)},
        "push_details": {"id": name_of(31)},
        "output_schema_of": {"id": done},
        "agent_steps": {"id": done, "model": "step", "summary": "none"},
        "outcomes_of_key": {"execution_id": done, "key": "step-1"},
        "recorded_runs": {"execution_id": done, "key": "step-1"},
        "due_before": {"execution_id": done, "seq": 9},
        "batch_waited_for": {"execution_id": ids["waiting_for_event"], "key": "wait-1", "batch_id": "batch"},
        "open_batch_wait": {"execution_id": ids["waiting_for_event"], "key": "wait-1"},
        "set_wait_expiry": {"execution_id": ids["waiting_for_event"], "key": "wait-1"},
        "ask_question": {"execution_id": ids["running"], "key": "ask", "must_name": 0},
        "lock_asking": {"id": ids["running"]},
        "alone_in_run": {"id": ids["running"]},
        "insert_push_worker": {"id": "another", "url": "https://another.example", "check_at_us": 1},
        "push_worker_at": {"url": "https://worker-3.example"},
        "lapsed_long_ago": {"before_us": 1 << 60},
        "take_push_checks": {"next_us": NOW_US + 99_000_000},
        "active_push_workers": {"now_us": NOW_US},
        "list_all_workers": {"after": ""},
        "active_native_workers": {"now_us": NOW_US},
        "delete_schedule": {"id": "schedule-3"},
        "insert_schedule": {"id": "another", "key": "another"},
        "find_schedule": {"key": "key-1"},
        "list_schedules": {"before": "~", "workflow_id": None},
        "list_fires": {"before": NOW_US},
        "insert_fire": {"slot_us": NOW_US + 9, "state": "started", "execution_id": fresh},
        "update_fire": {"state": "done", "execution_id": fresh},
        "delete_fires": {"schedule_id": "schedule-49"},
        "lock_execution_of_trace": {"id": done},
        "known_spans": {"ids": json.dumps([f"span-{n}" for n in range(20)])},
        "upsert_span": {"started_at_us": NOW_US},
        "update_trace": {"started_at_us": NOW_US},
        "lapsed_exports": {"now_us": NOW_US},
        "ended_exports": {"after_us": START_US + (executions - 900) * 1_000_000, "upto_us": NOW_US},
        "move_export_cursor": {"ended_at_us": NOW_US, "ended_id": "", "looked_at_us": NOW_US, "looked_id": ""},
        "insert_export_cursor": {"now_us": NOW_US},
        "forget_exports": {"before_us": NOW_US},
        "traced_execution": {"id": done},
        "homes_of": {"ids": json.dumps([done, has_children])},
        "traced_below": {"id": has_children, "after": ""},
        "read_span": {"span_id": "span-1"},
        "traces_floor": {"depth": 100},
        "list_traces": {"span_type": None, "name": None, "failed": None},
        "list_ended_roots": {"span_type": None, "name": None, "failed": None},
        "cut_lease": {"id": WORKER, "lease_until_us": NOW_US + 1_000_000},
        "grant_leases": {"lease_until_us": NOW_US + 24_000_000},
        "write_meta": {"value": "text"},
        "insert_tag": {"execution_id": done, "value": "text"},
        "insert_project": {"id": "p"},
        "insert_key": {"id": "key"},
        "delete_key": {"id": "key"},
        "read_key": {"id": "key"},
        "insert_trigger": {"id": "another"},
        "list_triggers": {"before": "~"},
        "list_deployments": {"before_us": NOW_US, "after": ""},
        "last_delayed_of_deployment": {"beyond_us": 1 << 60},
        "insert_message": {"id": 1_000_000},
        "suspend_next": {"id": ids["running"], "seq": 2, "due_at_us": NOW_US, "number": 9},
        "start_and_wait": {"id": ids["running"], "seq": 2, "due_at_us": None, "number": 9},
        "deliver_and_claim": {"id": ids["waiting_for_timer"]},
        "note_key_use": {"id": "key"},
        "insert_session": {"user_id": "user"},
        "insert_member": {"user_id": "user", "role": "read"},
        "update_member": {"user_id": "user", "role": "read"},
        "create_project": {"id": "another"},
        "start_target": {"workflow_id": "workflow-1", "queue_name": None},
        "neighbouring_workflows": {"workflow_id": "workflow-11"},
        "dispatch_target": {"workflow_id": "workflow-1", "queue_name": None},
        "mark_limited": {"name": "workflow-2", "gate": 1},
        "note_ended": {"id": "worker-99", "lost": 0},
        "note_loss": {"execution_id": ids["running"]},
        "read_ended": {"id": "worker-99"},
        "insert_execution": {"id": fresh, "queue_name": "workflow-1"},
        "find_started": {"workflow_id": "workflow-4", "key": "key-59", "payload_bytes": 4, "compared_bytes": 16_384},
        "holder_of_key": {"workflow_id": "workflow-4", "key": "key-59"},
        "insert_idempotency": {"key": "another", "executions": json.dumps([fresh])},
        "read_idempotency": {"key": "key-12"},
        "ends_of_answer": {"key": "key-12"},
        "keep_answer": {"key": "key-12", "since_us": NOW_US, "any_open": 1},
        "drop_answer": {"key": "key-12"},
        "deliver_outcome": {"id": ids["waiting_for_event"], "started": None},
        "cancel_idle": {"id": ids["queued"]},
        "cancel_waking": {"id": ids["waiting_for_timer"]},
        "delete_waits": {"id": name_of(46)},
        "delete_logs": {"id": line},
        "delete_tags": {"id": name_of(60)},
        "trim_logs": {"execution_id": line},
        "read_logs": {"execution_id": line},
        "insert_stream_item": {"execution_id": done, "n": 1_000, "key": "model", "kind": "token"},
        "last_stream_item": {"execution_id": emitted},
        "read_stream_items": {"execution_id": emitted, "after": 0},
        "stream_item_times": {"execution_id": emitted, "after": 0},
        "trim_stream": {"execution_id": emitted, "n": 2, "upto": 0},
        "delete_stream": {"id": emitted},
        "stream_state": {"id": emitted},
        "stream_family": {"root_id": has_children},
        "streams_at": {"ids": json.dumps([emitted, has_children])},
        "last_log": {"execution_id": line},
        "take_back_step": {"execution_id": done, "key": "step-1"},
        "oldest_executions": {"after": ""},
        "final_of_user": {"user_id": "user-2"},
        "open_of_user": {"user_id": "user-2"},
        "final_of_session": {"session_id": "session-25"},
        "open_of_session": {"session_id": "session-25"},
        "insert_event": {"sequence_id": 1_000, "dedup_key": "another"},
        "next_limited_group": {"queue_name": "", "concurrency_key": ""},
        "ready_sizes": {"capacity": 500},
        **{
            name: nothing | own | {"floor_id": "", "depth": min(LIST_DEPTH, executions // 2)}
            for name, own in walks.items()
        },
        **{FLOORS[name]: nothing | own | {"depth": 1} for name, own in walks.items()},
        "all_floor": nothing,
        "list_among": nothing,
        "list_by_end": nothing
        | {"below_us": 1 << 62, "floor_us": START_US + max(executions - LIST_DEPTH, 0) * 1_000_000},
        "by_end_floor": {"below_us": 1 << 62, "depth": 1},
        "with_key": {"key_from": "key-59", "key_to": "key-599"},
        "with_retried_key": {"key_from": "key-59", "key_to": "key-599"},
        "with_term": {"term_from": "k:1", "term_to": "k:2"},
        "with_id": {"id_from": name_of(30), "id_to": name_of(60)},
        "with_tag": {"tag_name": "shop"},
        "insert_term": {"execution_id": fresh, "term": "k:new"},
        "add_term": {"execution_id": fresh, "term": "k:new"},
        "put_search_field": {"field": "payload.id"},
        "find_search_field": {"field": "payload.id"},
        "next_search_field": {"before_us": 1 << 60},
        "move_search_field": {"field": "payload.id", "place": None},
        "delete_terms": {"id": name_of(9)},
        "open_workflows": {"limit": 101},
        "ended_workflows": {"limit": 101},
        "created_below": {"id": fresh},
        "created_from": {"id": done},
        **dict.fromkeys(
            ("ended_agent_runs", "open_agent_runs"),
            nothing | {"workflow_id": "workflow-1", "phase": "completed", "floor_id": "", "to_us": 1 << 62},
        ),
        "unserved": {"before_us": 1 << 60},
        "unserved_of_project": {"before_us": 1 << 60},
        **dict.fromkeys(("ended_groups", "ended_by_minute", "counted_by_minute"), minutes),
        "place_after": minutes | {"depth": 100},
        **dict.fromkeys(("ends_by_workflow", "ends_of_workflow", "ends_of_queue"), buckets),
        "deployment_before": {"superseded_at_us": 1 << 62},
        "failed_of_deployment": {"least": "", "since_us": 0, "retried": 0},
        "lost_workers": {"since_us": 0},
        "ends_since": buckets | {"since_us": buckets["from_us"], "before_id": None, "deployment_id": "d"},
        "next_in_queue": {"looked": 10_000},
        "many_in_queue": {"looked": 10},
        "ends_of_queue": buckets | {"queue_name": "workflow-1"},
        "counted_groups": {"at_us": hour_us + HOUR_US},
        "add_ended": {"step_us": MINUTE_US, "at_us": hour_us},
        "move_folds": {
            "was_folded_to_us": START_US + (executions - 5) * 1_000_000,
            "was_settled_to_us": START_US,
            "was_deletions": 0,
        },
        **{
            name: {"step_us": HOUR_US, "at_us": hour_us + HOUR_US} for name in ("drop_ended_from", "prune_ended_counts")
        },
        "count_early": {"execution_id": ids["waiting_for_event"]},
        "last_event_before": {"execution_id": ids["running"]},
        **{name: {"ids": json.dumps([done, line]), "after": 0, "last": 8} for name in ("short_sizes", "read_short")},
        "waits_matching": {"match_names": '["lines","order"]', "match_hash": executions + 36},
        "find_event_fields": {"part": 3, "hash": PAYLOAD[:6], "unknown": bytes(6), "long": bytes(6)},
        "insert_event_fields": {"part": 9, "seq": 1_024, "entries": PAYLOAD},
    }
    return found


def values_of(query: Statement, executions: int) -> Iterator[tuple[Any, ...]]:
    """The values of a query's parameters, in order. A query without values tries other queries' until it reads
    something."""
    known, own = defaults(executions), special(executions)
    if query.name in own or query.name in ANSWERS_NOTHING:
        yield query.values(known | own.get(query.name, {}))
        return
    wanted = set(query.parameters)
    tried = [{}, *({name: value for name, value in one.items() if name in wanted} for one in own.values())]
    yield from dict.fromkeys(query.values(known | one) for one in tried if wanted <= (known | one).keys())


def asked() -> list[str]:
    """The names of all queries that have something to read in a store of any age."""
    names = [name for name in load("postgres") if name not in (*DOCTOR, *SIZES)]
    assert len(names) > 100
    return names


class Seen(NamedTuple):
    """The reads of a query."""

    query: str
    pages: int
    rows: int
    """Answered with, or written."""
    plan: list[str]
    scans: list[str]
    """Large tables that were walked whole."""
    walked: int = 0
    """Rows and index entries read, reported by PostgreSQL only."""

    def __str__(self) -> str:
        head = f"{self.query}: {self.pages} pages and {self.walked} entries for {self.rows} rows {self.scans}"
        return "\n".join([head, *self.plan])

    def too_much(self, open_: int) -> bool:
        """Whether the reads exceed the query's own rows, given the open executions."""
        allowed = PAGES_MAX + PAGES_PER_ROW_MAX * self.rows
        if self.query in (*FLOORS.values(), "list_runs", "run_sizes", "traces_floor", "ended_floor"):
            allowed += 2 * LIST_DEPTH
        elif self.query in MAY_READ_MUCH:
            allowed += 5 * open_
        return max(self.pages, self.walked // ENTRIES_PER_PAGE) > allowed or (
            bool(self.scans) and self.query not in MAY_READ_MUCH
        )


FEW_ROWS: Final = {"last_rows": "the last rows of a journal", "oldest_reading": "the turns of a session, in no order"}


def test_no_statement_asks_a_large_table_for_its_least_or_greatest() -> None:
    """PostgreSQL before 16 without statistics reads all matching rows for MIN and MAX. ORDER BY with LIMIT 1 reads a
    single row."""
    tables = "|".join(LARGE_TABLES)
    asks = re.compile(rf"SELECT\s+(?:CAST\()?(?:MIN|MAX)\([\w.]+\)\s+FROM\s+(?:{tables})\b")
    found = [name for name in asked() if asks.search(load("postgres")[name].sql)]
    assert set(found) == set(FEW_ROWS)


def judge(seen: list[Seen], open_: int) -> None:
    """Nothing read too much, and every query had something to read."""
    too_much = [str(one) for one in seen if one.too_much(open_)]
    assert not too_much, "\n\n".join(too_much)
    queries = load("postgres")
    silent = {one.query for one in seen if not one.rows and queries[one.query].returns}
    assert silent - set(ANSWERS_NOTHING) == set()


def literal(value: object) -> str:
    """A value as it stands in the text of a statement."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::BYTEA"
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def writer_of(name: str) -> str:
    """Which of the driver's connections runs a query."""
    if name in ("count_phases", "count_queued", "unserved", "orphaned", "count_open_by_deployment"):
        return "scan"
    query = load("postgres")[name]
    return "write" if query.writes or re.search(r"\bFOR (UPDATE|KEY SHARE)\b", query.sql) else "read"


async def explain(
    connection: asyncpg.Connection[asyncpg.Record],
    name: str,
    text: str,
    values: tuple[Any, ...],
    writer: str,
    mode: str,
) -> Seen:
    """Run a statement prepared in a transaction like its writer's, then roll back."""
    await connection.execute(f"PREPARE asked AS {text}")
    try:
        await connection.execute(BEGIN[writer])
        await connection.fetchrow(PREPARE[writer], *((0,) if writer == "write" else ()))  # its mark
        await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
        given = f"({', '.join(map(literal, values))})" if values else ""
        answer = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, FORMAT JSON) EXECUTE asked{given}"
        )
    finally:
        await connection.execute("ROLLBACK")
        await connection.execute("DEALLOCATE asked")
    (found,) = json.loads(answer)
    top = found["Plan"]
    plan: list[str] = []
    scans: list[str] = []
    written = walked = 0
    for depth, node in _nodes(top, 0):
        table = node.get("Relation Name", "")
        pages = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        plan.append(
            f"{'  ' * depth}{node['Node Type']} {table} {node.get('Index Name', '')} {node.get('Index Cond', '')} "
            f"rows={node['Actual Rows']} removed={node.get('Rows Removed by Filter', 0)} pages={pages}"
        )
        if node["Node Type"] == "ModifyTable":
            written += sum(int(child["Actual Rows"]) for child in node.get("Plans", ())[-1:])
        if table and "Scan" in node["Node Type"]:
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            walked += int((node["Actual Rows"] + removed) * node["Actual Loops"])
        if node["Node Type"] == "Seq Scan" and table in LARGE_TABLES:
            scans.append(table)
    return Seen(
        name,
        top["Shared Hit Blocks"] + top["Shared Read Blocks"],
        max(int(top["Actual Rows"]), written),
        plan,
        scans,
        walked,
    )


def _nodes(plan: dict[str, Any], depth: int) -> Iterator[tuple[int, dict[str, Any]]]:
    yield depth, plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child, depth + 1)


async def judge_postgres(url: str, executions: int, open_: int) -> None:
    """Every query of a writer, prepared there: alone and for many runs, planned for the values and for any."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url)
    queries = load("postgres")
    seen: list[Seen] = []
    try:
        for name in asked():
            query = queries[name]
            for values in values_of(query, executions):
                texts = [(query.sql, values)]
                if query.routed is not None:
                    texts.append((query.routed, (*values, 1)))
                found = [
                    await explain(connection, name, text, given, writer_of(name), mode)
                    for text, given in texts
                    for mode in ("force_generic_plan", "force_custom_plan")
                ]
                if found[0].rows or not query.returns:
                    break
            seen += found
        judge(seen, open_)
        for kind, text in LOCKS.items():
            names = [f"topic-{n}" for n in range(5)] if kind == "topic" else [name_of(n * 100) for n in range(100)]
            for mode in ("force_generic_plan", "force_custom_plan"):
                one = await explain(connection, f"lock {kind}", text, (names,), "write", mode)
                assert one.rows == len(names)
                assert not one.too_much(open_), str(one)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def quiet() -> Iterator[postgres.Server]:
    """A server that gathers no statistics by itself."""
    with postgres.running(postgres.FAST | {"autovacuum": "off", "max_wal_size": "2GB"}) as server:
        yield server


async def grown_postgres(server: postgres.Server, size: tuple[int, int]) -> None:
    database = await postgres.make(server=server)
    url = server.database_url(database)
    try:
        await migrated(url)
        await fill_postgres(url, *size)
        await judge_postgres(url, *size)  # nothing is known about the tables yet
        await postgres.admin("VACUUM ANALYZE", url=url)
        await judge_postgres(url, *size)
    finally:
        await postgres.drop(database, server)


@linux
@pytest.mark.slow
async def test_what_postgresql_reads_does_not_grow_with_what_is_finished(quiet: postgres.Server) -> None:
    await grown_postgres(quiet, SMALL)


@linux
@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_postgresql_reads_does_not_grow_with_a_million_finished(quiet: postgres.Server) -> None:
    await grown_postgres(quiet, LARGE)


def read_sqlite(connection: apsw.Connection, query: Statement, values: tuple[Any, ...]) -> Seen:
    connection.execute("BEGIN IMMEDIATE")
    connection.status(apsw.SQLITE_DBSTATUS_CACHE_HIT, True)
    connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS, True)
    changed = connection.total_changes()
    rows = len(list(connection.execute(query.sql, values)))
    pages = sum(
        connection.status(counter, True)[0]
        for counter in (apsw.SQLITE_DBSTATUS_CACHE_HIT, apsw.SQLITE_DBSTATUS_CACHE_MISS)
    )
    found = Seen(query.name, pages, max(rows, connection.total_changes() - changed), [], [])
    connection.execute("ROLLBACK")
    return found


def judge_sqlite(path: Path, executions: int, open_: int) -> None:
    """The same for a file, counting the pages that each query asks the cache for."""
    connection = apsw.Connection(str(path))
    Numbers(connection)
    seen: list[Seen] = []
    for name in asked():
        query = load("sqlite")[name]
        for values in values_of(query, executions):
            found = read_sqlite(connection, query, values)
            if found.rows or not query.returns:
                break
        seen.append(found)
    connection.close()
    judge(seen, open_)


async def grown_sqlite(path: Path, size: tuple[int, int]) -> None:
    await (await open_store(str(path))).close()
    fill_sqlite(str(path), *size)
    judge_sqlite(path, *size)


async def test_what_sqlite_reads_does_not_grow_with_what_is_finished(tmp_path: Path) -> None:
    await grown_sqlite(tmp_path / "store.db", SMALL)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_sqlite_reads_does_not_grow_with_a_million_finished(tmp_path: Path) -> None:
    await grown_sqlite(tmp_path / "store.db", LARGE)
