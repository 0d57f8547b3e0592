"""The named SQL: refusals of the loader, and hot queries that read only needed rows."""

import ast
import re
from pathlib import Path

import apsw
import pytest

from perdure.store import verbs
from perdure.store.base import statements
from perdure.store.base.statements import load, parse
from perdure.store.drivers.migrate import FIRST, migrations, planner_statistics, split_statements
from perdure.store.drivers.sqlite_numbers import Numbers
from perdure.store.inspection import SIZES
from perdure.store.verbs.runs import queries

VERBS = Path(*verbs.__path__)


@pytest.mark.parametrize(
    "write",
    [
        "INSERT INTO meta (name) VALUES (:name)",
        "UPDATE meta SET value = :value",
        "DELETE FROM meta",
        "REPLACE INTO meta (name) VALUES (:name)",
        "WITH old AS (SELECT 1) DELETE FROM meta",
        "WITH old AS (\n  SELECT 1\n)\nUPDATE meta SET value = 1",
        "insert into meta (name) values (:name)",
    ],
)
def test_a_write_says_what_it_holds_or_picks(write: str) -> None:
    with pytest.raises(ValueError, match="does not say what it holds or picks"):
        parse(f"-- name: q\n{write};\n", "file.sql")
    assert parse(f"-- name: q\n-- picks: meta\n{write};\n", "file.sql")["q"].writes


@pytest.mark.parametrize("header", ["-- holds: the row", "-- holds: meta=value"])
def test_what_is_held_is_named_by_a_value(header: str) -> None:
    with pytest.raises(ValueError, match="holds"):
        parse(f"-- name: q\n{header}\nDELETE FROM meta WHERE name = :name;\n", "file.sql")
    query = parse("-- name: q\n-- holds: meta=name\nDELETE FROM meta WHERE x = :x AND name = :name;\n", "file.sql")["q"]
    assert query.holds == ("meta", 1)


@pytest.mark.parametrize("header", ["-- sees: journal", "-- sees: journal key", "-- sees: journal key=name"])
def test_what_is_seen_of_a_table_is_named_by_values(header: str) -> None:
    with pytest.raises(ValueError, match="sees"):
        parse(f"-- name: q\n{header}\nSELECT 1 FROM journal WHERE key = :key;\n", "file.sql")
    text = "-- name: q\n-- sees: journal key=key seq=n\nSELECT 1 FROM journal WHERE seq = :n AND key = :key;\n"
    assert parse(text, "file.sql")["q"].sees == ("journal", [("key", 1), ("seq", 0)])


NEW_FILE = "BEGIN; PRAGMA auto_vacuum="
"""Nobody else has the new file. IMMEDIATE would write the first page before the pragma."""


def test_no_lock_of_ours_outlives_its_transaction_and_no_write_begins_as_a_read() -> None:
    """Behind a pooler a session's lock stays with a shared connection. SQLite refuses at once, despite its time-out, to
    upgrade a reader after another writer's commit."""
    for path in VERBS.parent.rglob("*"):
        if path.suffix in (".py", ".sql"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"advisory_(un)?lock", text.replace("advisory_xact_lock", "")), path
            if path.name.startswith("sqlite"):
                begins = set(re.findall(r'"(BEGIN[^"]*)"', text))
                assert {begin for begin in begins if not begin.startswith(NEW_FILE)} <= {"BEGIN IMMEDIATE"}, path


def test_a_word_in_braces_is_said_by_one_database() -> None:
    text = "-- name: q\nSELECT {MAX|GREATEST}(a, :b{::BIGINT}) FROM t\n"
    text += "WHERE id {IN (|= ANY(ARRAY(}SELECT 1{)|))} {FOR UPDATE};\n"
    assert parse(text, "file.sql")["q"].sql == "SELECT MAX(a, ?1) FROM t\nWHERE id IN (SELECT 1)"
    said = parse(text, "file.sql", "postgres")["q"]
    assert said.sql == "SELECT GREATEST(a, $1::BIGINT) FROM t\nWHERE id = ANY(ARRAY(SELECT 1)) FOR UPDATE"
    assert said.routed is not None and said.routed.startswith("SELECT CAST($2 AS INTEGER) AS ord, GREATEST")


def test_a_text_with_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match="text 'part' has a comment"):
        parse("-- text: part\na\n-- why\n\n-- name: q\nSELECT {= part}, b FROM t;\n", "file.sql")


def test_a_bulk_form_takes_arrays() -> None:
    insert = (
        "-- name: q\n-- holds: t=id\n-- bulk: n; bytes data\nINSERT INTO t (id, n, data) VALUES (:id, :n + 1, :data);\n"
    )
    assert parse(insert, "file.sql")["q"].bulk is None
    assert parse(insert, "file.sql", "postgres")["q"].bulk == (
        "INSERT INTO t (id, n, data) SELECT v.p1, v.p2 + 1, v.p3 FROM "
        "unnest($1::TEXT[], $2::BIGINT[], $3::BYTEA[]) WITH ORDINALITY AS v (p1, p2, p3, ord)"
    )
    update = (
        "-- name: q\n-- holds: t=id\n-- bulk: n\nUPDATE t SET n = :n WHERE project_id = :p AND id = :id AND n < :n "
    )
    arrays = "unnest($1::BIGINT[], $2::TEXT[], $3::TEXT[])"
    assert parse(update + "RETURNING n;\n", "file.sql", "postgres")["q"].bulk == (
        f"UPDATE t SET n = v.p1 FROM {arrays} WITH ORDINALITY AS v (p1, p2, p3, ord) "
        "WHERE project_id = v.p2 AND id = v.p3 AND COALESCE(n < v.p1, FALSE) RETURNING v.ord, n"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "-- bulk: m\nINSERT INTO t (id) VALUES (:id)",
        "-- bulk: id; blobs id\nINSERT INTO t (id) VALUES (:id)",
        "-- bulk:\nUPDATE t SET id = :id WHERE id = :id RETURNING id",
        "-- bulk:\nDELETE FROM t WHERE id = :id",
    ],
)
def test_a_bulk_form_that_cannot_be_is_refused(statement: str) -> None:
    with pytest.raises(ValueError, match="'q'"):
        parse(f"-- name: q\n-- holds: t=id\n{statement};\n", "file.sql", "postgres")


def test_what_queries_share_stands_once() -> None:
    text = "-- text: both\na, :b\n\n-- name: p\nSELECT {= both};\n\n-- name: q\nSELECT {= both}, c;\n"
    assert [one.sql for one in parse(text, "file.sql").values()] == ["SELECT a, ?1", "SELECT a, ?1, c"]
    with pytest.raises(ValueError, match="no text 'other'"):
        parse("-- name: q\nSELECT {= other};\n", "file.sql")


def test_a_look_needs_no_header() -> None:
    assert not parse("-- name: q\nSELECT updated FROM meta WHERE 'delete' = :x;\n", "file.sql")["q"].writes


def test_a_name_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'q' stands there twice"):
        parse("-- name: q\nSELECT 1;\n-- name: q\nSELECT 2;\n", "file.sql")
    monkeypatch.setattr(statements, "parse", lambda text, source, dialect: {"same": None})
    with pytest.raises(ValueError, match=r"\w+\.sql defines queries that stand elsewhere too: same"):
        load.__wrapped__("sqlite")


def test_parameters_are_numbered_in_the_order_of_their_first_use() -> None:
    query = parse("-- name: q\nSELECT :b, :a, :b, a::text, '12:30';\n", "file.sql")["q"]
    assert query.sql == "SELECT ?1, ?2, ?1, a::text, '12:30'"
    assert query.parameters == ("b", "a")
    assert query.values({"a": 1, "b": 2, "c": 3}) == (2, 1)


def _named_in_verbs() -> set[str]:
    """Every query name in verbs and drivers, literal or composed."""
    found: set[str] = set(queries.DOCTOR)
    for path in [
        *VERBS.rglob("*.py"),
        *(path for path in VERBS.parent.rglob("*.py") if path.stem in ("sqlite", "sqlite_run", "inspection")),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+", node.value):
                found.add(node.value)
    return found


def test_every_query_is_asked_by_somebody() -> None:
    assert set(load("sqlite")) - _named_in_verbs() == {"integrity"}  # the doctor asks on demand


# What may walk a whole table, and why that is no harm.
MAY_SCAN = {
    "list_projects": "a handful of rows",
    "grant_leases": "one row per worker",
    "count_shorter_leases": "one row per worker",
    "any_lease": "one row, or none",
    "any_lease_until": "one row per worker",
    "limit_leases": "one row per worker, after the clock went back",
    "count_longer_leases": "one row per worker, after the clock went back",
    "expired_workers": "one row per worker",
    "embedded_workers": "one row per worker",
    "list_workers": "one row per worker",
    **dict.fromkeys(("pauses_to_work", "end_due_pauses", "count_paused"), "one row per pause"),
    **dict.fromkeys(("serving_workers", "served_deployments"), "one row per worker, when a person asks"),
    "push_workers_of": "one row per worker, when a deployment changes sides",
    **dict.fromkeys(
        (
            "live_push_workers",
            "expired_push_workers",
            "active_push_workers",
            "active_native_workers",
            "lapsed_long_ago",
        ),
        "one row per worker",
    ),
    "untold_of_push_workers": "one row per push worker, and what those hold, every few seconds",
    "newer_registration": "one row per worker, and only when one blocks",
    "watched_topics": "one row per event trigger",
    "count_live_workers": "one row per worker",
    "live_worker_of": "one row per worker, and only when a deployment changes sides",
    "prune_ended": "one row per registration that ended within a day",
    "orphaned": "what is held, at the start of a process",
    "unserved": "what is ready, once a minute and in a thread of its own",
    **dict.fromkeys(("place_after", "ended_groups", "ended_by_minute"), "one row per project"),
    "open_by_phase": "what is running, in a thread of its own",
    "unserved_of_project": "what is ready, in a thread of its own",
    "count_workers": "one row per worker",
    "count_phases": "what is open, in a thread of its own",
    "count_open_by_deployment": "what is open, in a thread of its own",
    **dict.fromkeys(("due_jobs", "next_job_due"), "the open bulk jobs, every few seconds"),
    "unasked_budgets": "the budgets that executions wait for, every minute",
    "count_queued": "what is queued, in a thread of its own",
    **dict.fromkeys(SIZES, "an operator's question, on a connection of its own"),
}


@pytest.fixture(scope="module")
def planner() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    for migration in migrations("sqlite"):
        for statement in split_statements(migration.sql):
            connection.execute(statement)
    connection.execute(planner_statistics())
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # as the store has it
    Numbers(connection)
    connection.execute("ANALYZE sqlite_schema")
    return connection


def _plan(connection: apsw.Connection, name: str) -> list[str]:
    query = load("sqlite")[name]
    rows = connection.execute("EXPLAIN QUERY PLAN " + query.sql, [None] * len(query.parameters))
    return [str(row[3]) for row in rows]


@pytest.mark.parametrize(
    "name", sorted(name for name in load("sqlite") if not name.startswith("doctor_") and name not in MAY_SCAN)
)
def test_no_query_walks_a_whole_table(planner: apsw.Connection, name: str) -> None:
    if load("sqlite")[name].sql.startswith("PRAGMA"):
        return
    scans = [line for line in _plan(planner, name) if line.startswith("SCAN")]
    scans = [line for line in scans if "CONSTANT" not in line and "VIRTUAL TABLE" not in line]  # a list that was given
    partial = re.compile(
        r"USING (COVERING )?INDEX (executions_(due|held|ready|idle|early)|schedule_fires_waiting|deliveries_due)"
    )
    assert [
        line
        for line in scans
        if not partial.search(line) and not re.match(r"SCAN (\(|times|rows|due|of_session|found)", line)
    ] == []


# Queries in the path of every step, and the index that each has to use.
EXPECTED = {
    "claim_executions": "executions_ready",
    "claim_between": "executions_ready",
    "ready_sizes_between": "executions_ready",
    "claim_limited": "executions_ready_limited",
    "next_limited_group": "executions_ready_limited",
    "group_room": "executions_held_limited",
    "holders_under_limit": "executions_held_limited",
    "held_by": "executions_held",
    "claimed_before": "executions_held",
    "with_key": "executions_by_key",
    "with_retried_key": "executions_by_retried_key",
    "find_started": "executions_by_key",
    "children": "executions_by_parent",
    "any_open_child": "executions_by_parent",
    "wake_timers": "executions_due",
    "ready_delayed": "executions_due",
    "overdue": "executions_due",
    "next_due": "executions_due",
    "adopt_early": "executions_early",
    "unblock": "executions_idle",
    "waiting_for": "waits_open",
    "due_schedules": "schedules_due",
    "next_schedule": "schedules_due",
    "find_user": "users_by_email",
    "projects_of_user": "members_by_user",
    "delete_old_sessions": "user_sessions_by_user",
    "delete_other_sessions": "user_sessions_by_user",
    "read_invitation": "invitations_by_token",
    "list_keys": "api_keys_by_project",
    "find_schedule": "schedules_by_key",
    "open_fires": "schedule_fires_open",
    "settle_fires": "schedule_fires_open",
    "prune_fires": "schedule_fires_by_time",
    "prune_events": "events_by_time",
    "oldest_answers": "idempotency_by_time",
    "final_of_user": "executions_by_user",
    "prune_memory": "session_memory_by_age",
    "old_traces": "traces_by_age",
    "ended_exports": "executions_by_end",
    "list_ended_roots": "executions_by_end",
    "list_failed": "executions_failed",
    "list_of_user": "executions_by_user",
    "list_of_session": "executions_by_session",
    "list_cancelled": "executions_cancelled",
    "list_open": "executions_open",
    "list_ended": "executions_ended",
    "list_of_queue": "executions_by_queue",
    "open_workflows": "executions_open",
    "ended_workflows": "executions_ended",
    "ended_agent_runs": "executions_ended",
    "open_agent_runs": "executions_open",
    "delete_terms": "search_terms_of",
    "outcomes_of_key": "journal_outcomes",
    "step_of_pushed": "journal_outcomes",
    "take_push_checks": "push_workers_to_check",
    "push_worker_at": "push_workers_by_url",
    "count_held_by": "executions_held",
    "untold_of_push_workers": "executions_held",
    "batch_children": "executions_by_batch",
    "any_open_of_batch": "executions_batch_open",
    "old_transcripts": "transcripts_by_age",
    "newest_summary": "transcript_summaries",
    "open_turn": "turns_open",
    "next_turn": "turns_of_session",
    "live_reservations": "reservations_open",
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_hot_queries_use_the_index_made_for_them(planner: apsw.Connection, name: str) -> None:
    plan = _plan(planner, name)
    assert any(f"INDEX {EXPECTED[name]} " in line + " " for line in plan), plan


BY_KEY = [
    "advance",
    "advance_next",
    "complete",
    "fail",
    "suspend",
    "suspend_next",
    "start_and_wait",
    "deliver_outcome",
    "deliver_and_claim",
    "read_state",
    "get_execution",
    "acknowledge",
    "record_pushed",
    "accept_push",
]


@pytest.mark.parametrize("name", BY_KEY)
def test_one_execution_is_found_by_its_key(planner: apsw.Connection, name: str) -> None:
    assert _plan(planner, name)[0] == "SEARCH executions USING PRIMARY KEY (project_id=? AND id=?)"


def test_admission_needs_no_sort(planner: apsw.Connection) -> None:
    for name in ("claim_executions", "claim_between", "claim_limited", "next_limited_group"):
        assert not [line for line in _plan(planner, name) if "TEMP B-TREE" in line]


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [migration.number for migration in migrations("sqlite")]
    assert numbers == list(range(FIRST, FIRST + len(numbers)))
    assert [migration.number for migration in migrations("postgres")] == numbers


def test_both_dialects_have_their_own_words() -> None:
    for dialect in ("sqlite", "postgres"):
        assert all("{" not in migration.sql for migration in migrations(dialect))
    assert "INTEGER" not in re.sub("--.*", "", migrations("postgres")[0].sql)


OFTEN = ["insert_execution", "insert_journal", "advance", "advance_next", "complete", "fail", "suspend", "acknowledge"]


@pytest.mark.parametrize("name", OFTEN)
def test_the_frequent_writes_make_no_table_but_the_one_for_their_answer(planner: apsw.Connection, name: str) -> None:
    """SQLite would make a table for `x IN (a, b, c)` each time, in a CHECK or an index as well."""
    query = load("sqlite")[name]
    code = planner.execute("EXPLAIN " + query.sql, [None] * len(query.parameters))
    made = sum(row[1] == "OpenEphemeral" for row in code)
    assert made == ("RETURNING" in query.sql)


def test_what_queries_share_may_name_more_of_it_and_stands_once() -> None:
    shared = "-- text: a\n1 + 1\n\n-- text: b\n{= a} + 2\n\n"
    assert parse(shared + "-- name: q\nSELECT {= b};\n", "file.sql")["q"].sql == "SELECT 1 + 1 + 2"
    with pytest.raises(ValueError, match="no text 'c'"):
        parse(shared + "-- name: q\nSELECT {= c};\n", "file.sql")
    with pytest.raises(ValueError, match="twice"):
        parse(shared + "-- text: a\n3\n\n-- name: q\nSELECT {= a};\n", "file.sql")


def test_publishing_reads_as_little_among_many_waits_as_among_few(planner: apsw.Connection) -> None:
    names = '["order"]'
    steps: list[int] = []
    planner.execute("SAVEPOINT filled")
    for first, beyond in ((0, 100), (100, 5_000)):
        for n in range(first, beyond):
            planner.execute(
                "INSERT INTO waits (execution_id, key, project_id, state, topic, opened_at_us, match_names, match_hash)"
                " VALUES (?, 'k', 'p', 'open', 't', 1, ?, ?)",
                (f"x{n}", names, n),
            )
        count = [0]

        def step(counted: list[int] = count) -> bool:
            counted[0] += 1
            return False

        planner.set_progress_handler(step, 1)
        for name in ("waiting_for", "waits_matching"):
            statement = load("sqlite")[name]
            asked = {"project_id": "p", "topic": "t", "match_names": names, "match_hash": 7}
            assert len(list(planner.execute(statement.sql, statement.values(asked)))) == 1
        planner.set_progress_handler(None)
        steps.append(count[0])
    planner.execute("ROLLBACK TO filled; RELEASE filled")
    assert steps[1] == steps[0]
