"""Queries, retention and deletion."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import Query, Rows, query, record, records, value, verb
from perdure.store.verbs.base.pages import fitting, page_of
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.status import FINAL
from perdure.wire.runs.executions import Execution, Finished, LogLine, Row

DOCTOR = (
    "doctor_end_recorded_once",
    "doctor_step_recorded_once",
    "doctor_attempts_never_go_back",
    "doctor_time_never_goes_back",
    "doctor_sequence_has_no_gap",
    "doctor_waiting_for_something",
    "doctor_child_end_told",
    "doctor_batch_end_told",
    "doctor_held_by_a_registration",
    "doctor_limited_as_its_queue",
    "doctor_held_by_a_pause",
    "doctor_final_waits_for_nothing",
    "doctor_topic_has_no_gap",
    "doctor_index_of_events",
    "doctor_schedule_goes_on",
    "doctor_execution_of_one_fire",
    "doctor_trigger_not_ahead",
    "doctor_messages_counted",
    "doctor_transcript_has_no_gap",
    "doctor_turns_of_open_executions",
    "doctor_waits_for_a_turn",
    "doctor_budget_adds_up",
    "doctor_payload_there",
    "doctor_shared_value_there",
    "doctor_bulk_job_adds_up",
    "doctor_ended_counts_agree",
    "doctor_orphan_rows",
)


@verb(reads=True)
async def get(*, project_id: str, execution_id: str) -> Execution:
    found = await record(Execution, "get_execution", project_id=project_id, id=execution_id)
    if found is None:
        raise unknown_execution(execution_id)
    return found


@verb(reads=True)
async def finished(
    *, project_id: str, ids: Sequence[str], bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Finished], list[str]]:
    """Read the final executions among `ids`, and the unknown ids."""
    sizes: dict[str, int | None] = dict(await query("end_sizes", project_id=project_id, ids=json.dumps(ids)))
    missing = [id for id in ids if id not in sizes]
    final = [(id, size) for id in ids if (size := sizes.get(id)) is not None]
    fits = fitting([size for _, size in final], bytes_max)
    rows = [{"project_id": project_id, "id": id} for id, _ in final[:fits]]
    done = await Query("read_end", rows, many=True, record=Finished)
    return done, missing


@verb(reads=True)
async def how_ended(*, project_id: str, execution_id: str) -> Finished | None:
    """Return the end; None while the execution is open."""
    rows = await query("how_ended", project_id=project_id, id=execution_id)
    if not rows:
        raise unknown_execution(execution_id)
    phase, error = rows[0]
    return Finished(execution_id, phase, error=error) if phase in FINAL else None


@verb(reads=True)
async def journal(
    *, project_id: str, execution_id: str, after: int, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Row], bool]:
    """Read a page of a journal, and whether more may follow."""
    if not await query("read_state", project_id=project_id, id=execution_id):
        raise unknown_execution(execution_id)
    fits, more = await page_of("journal_sizes", after, limit, bytes_max, execution_id=execution_id)
    if not fits:
        return [], more
    return await records(Row, "read_journal", execution_id=execution_id, after=after, limit=fits), more


@verb(reads=True)
async def logs(*, project_id: str, execution_id: str, after: int, limit: int) -> list[LogLine]:
    if not await query("read_state", project_id=project_id, id=execution_id):
        raise unknown_execution(execution_id)
    return await records(LogLine, "read_logs", execution_id=execution_id, after=after, limit=limit)


@verb(reads=True)
async def doctor(*, checks: Sequence[str] = DOCTOR) -> dict[str, list[str]]:
    """Return each invariant's violations, normally none."""
    return {name.removeprefix("doctor_"): [str(id) for id, *_ in await query(name)] for name in checks}


@verb(reads=True)
async def counts() -> dict[str, Rows]:
    queries = {"phases": "count_phases", "queued": "count_queued", "paused": "count_paused"}
    return {name: await query(one) for name, one in queries.items()}


@verb(reads=True)
async def unserved(*, before_us: int) -> Rows:
    """Deployments with ready work and without a worker: project, deployment, Python of the first attempt (None: not
    begun), count, since when."""
    return await query("unserved", before_us=before_us)


@verb(reads=True)
async def database_time() -> int | None:
    """Return microseconds since the epoch; None: the database has no own clock."""
    now_us: int | None = await value("database_time")
    return now_us


class Snapshot(NamedTuple):
    """An old view of the database. Until the view ends, rows deleted since then cannot be cleaned up."""

    kind: str
    """session, prepared (a prepared transaction), slot (of replication) or standby."""
    name: str
    """A session's pid, or the snapshot's name."""
    application: str
    user: str
    state: str
    seconds: int | None


@verb(reads=True)
async def old_snapshots(*, seconds: int, transactions: int) -> list[Snapshot]:
    """Return snapshots older than `seconds`, or than `transactions` if the age is unknown."""
    return [Snapshot(*row) for row in await query("old_snapshots", seconds=seconds, transactions=transactions)]


class RegisteredWorker(Struct, frozen=True):
    id: str
    deployment_id: str
    embedded: bool
    lease_until_us: int

    def is_online(self, now_us: int) -> bool:
        return self.embedded or self.lease_until_us > now_us


@verb(reads=True)
async def list_workers(*, project_id: str) -> list[RegisteredWorker]:
    """List workers, including workers whose lease has just ended."""
    return await records(RegisteredWorker, "list_workers", project_id=project_id)
