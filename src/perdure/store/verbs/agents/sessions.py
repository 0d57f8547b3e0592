"""Sessions: an agent's memory, and queries for agent runs."""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from perdure.store.base.interface import query, query_many, record, records, serves, value
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.find import ids_beginning_with, list_floor
from perdure.wire.agents.agent_steps import MODEL, SUMMARY, call_usage, tool_step
from perdure.wire.agents.sessions import (
    AskedQuestion,
    GetSessionDetail,
    GetSessionMemory,
    GetSessions,
    Memory,
    PutSessionMemory,
    SessionDetail,
    SessionRun,
    SessionSummary,
    SessionTool,
    SessionTotals,
    group_runs,
    said_in,
    show_session,
)
from perdure.wire.agents.transcripts import NewVersion
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, STATUS
from perdure.wire.runs.search_terms import beginning_with

AGENTS_MAX: Final = 500
LIST_DEPTH: Final = 100_000
RUNS_SHOWN_MAX: Final = 100
TURNS_MAX: Final = 1_000
"""Most turns of a session counted in sums."""
OTHERS_MAX: Final = 300
SEARCHED_MAX: Final = 500
QUESTIONS_MAX: Final = 500
EVENTS_LOOKED_AT: Final = 20_000
STEPS_MAX: Final = 1_000
VALUE_SHOWN_MAX: Final = 256 << 10
TOOL_SHOWN_MAX: Final = 16 << 10


@serves(GetSessionMemory, reads=True)
async def get_memory(at: At, op: GetSessionMemory) -> Memory:
    return await _memory(at.project_id, op.session_id)


async def _memory(project_id: str, session_id: str) -> Memory:
    """Empty, with version 0, for an unknown session."""
    for summary, messages, version in await query("read_memory", project_id=project_id, session_id=session_id):
        return Memory(Raw(messages), version, None if summary is None else bytes(summary).decode())
    return Memory(Raw(b"[]"), 0)


@serves(PutSessionMemory, locks="session=op.session_id")
async def put_memory(at: At, op: PutSessionMemory) -> NewVersion:
    """Version 0 is that of an unstored memory."""
    version = op.read_version()
    name = "put_memory" if version is None else "update_memory" if version else "insert_memory"
    # A summary may hold NUL, which PostgreSQL's texts cannot.
    values = {"summary": None if op.summary is None else op.summary.encode(), "messages": bytes(op.messages)}
    for (new,) in await query(name, at, op, version=version, **values):
        return NewVersion(new)
    known = (await _memory(at.project_id, op.session_id)).version
    raise Conflict(
        f"The memory of session {op.session_id!r} has version {known}, not {version}; read it again and put your "
        "change on top.",
        {"version": known},
    )


@serves(GetSessions, scans=True)
async def list_sessions(at: At, op: GetSessions) -> Listed[SessionSummary]:
    """A search by `q` has a single page."""
    project_id, before, q = at.project_id, op.cursor or FIRST_CURSOR, op.q.strip()
    phases = None if op.status is None else [phase for phase, status in STATUS.items() if status is op.status]
    names = [name for (name,) in await query("agent_names", project_id=project_id, limit=AGENTS_MAX)]
    floor_id = await list_floor(project_id, before, LIST_DEPTH)
    wanted: dict[str, object] = {
        "project_id": project_id,
        "floor_id": floor_id,
        "before": before,
        "phases": None if phases is None else f" {' '.join(phases)} ",
        "from_us": 0 if op.start_time is None else op.start_time,
        "to_us": 1 << 62 if op.end_time is None else op.end_time,
        "limit": SEARCHED_MAX if q else op.offset + op.limit + 1,
    }
    of_agents = [wanted | {"workflow_id": name} for name in names if op.agent_id in (None, name)]
    ends = [phase for phase in sorted(FINAL) if phases is None or phase in phases]
    rows = await query_many("ended_agent_runs", [one | {"phase": phase} for one in of_agents for phase in ends])
    rows += await query_many("open_agent_runs", of_agents)
    ids = sorted((id for (id,) in rows), reverse=True)
    if q:
        found = await _searched(project_id, q, ids[:SEARCHED_MAX], frozenset(names), op.limit)
        found = [one for one in found if op.agent_id in (None, one.workflow_id)][: op.limit]
        return Listed(group_runs(found, await _totals(project_id, found)))
    end = op.offset + op.limit
    found = await _runs(project_id, ids[op.offset : end], tool_bytes_max=0)
    following = ids[end - 1] if len(ids) > end else floor_id or None
    return Listed(group_runs(found, await _totals(project_id, found)), following)


async def _searched(
    project_id: str, q: str, newest: Sequence[str], agents: frozenset[str], limit: int
) -> list[SessionRun]:
    """Runs by the beginning of session, id or key, and the runs of `newest` whose user's words match."""
    terms = beginning_with(q)
    where = {"project_id": project_id, "before": FIRST_CURSOR, "limit": limit}
    names = await query("sessions_beginning", project_id=project_id, first=terms.first, last=terms.last, limit=limit)
    rows = await query_many(
        "session_roots", [{"project_id": project_id, "session_id": name, "limit": 1} for (name,) in names]
    )
    rows += await query("with_key", key_from=terms.first, key_to=terms.last, **where)
    ids = ids_beginning_with(q)
    if ids is not None:
        rows += await query("with_id", id_from=ids.first, id_to=ids.last, **where)
    named = [id for (id,) in rows]
    found = [one for one in await _runs(project_id, named, tool_bytes_max=0) if one.workflow_id in agents]
    said = [one for one in await _runs(project_id, newest, tool_bytes_max=0) if said_in(one, q)]
    return sorted({one.id: one for one in [*found, *said]}.values(), key=lambda one: one.id, reverse=True)


async def _totals(project_id: str, runs: Sequence[SessionRun]) -> dict[str, SessionTotals]:
    """Sums of the sessions of `runs`. Reads at most OTHERS_MAX further runs."""
    known = {run.id: run.spent for run in runs}
    room = OTHERS_MAX
    found: dict[str, SessionTotals] = {}
    for session_id in dict.fromkeys(run.session_id for run in runs):
        rows = await query("session_roots", project_id=project_id, session_id=session_id, limit=TURNS_MAX + 1)
        whole = SessionTotals(exact=len(rows) <= TURNS_MAX)
        for (id,) in rows[:TURNS_MAX]:
            spent = known.get(id)
            if spent is None and room:
                room -= 1
                _, spent = await _agent_steps(project_id, id, 0, 0)
            whole = whole.with_turn(spent or SessionTotals(exact=False))
        found[session_id] = whole
    return found


@serves(GetSessionDetail, scans=True)
async def get_session(at: At, op: GetSessionDetail) -> SessionDetail:
    project_id, execution_id = at.project_id, op.execution_id
    found = await _runs(project_id, [execution_id], tool_bytes_max=0)
    if not found:
        raise NotFound(f"Session {execution_id!r} does not exist; name the root execution of one.")
    run = found[0]
    rows = await query("session_roots", project_id=project_id, session_id=run.session_id, limit=RUNS_SHOWN_MAX)
    ids = sorted({execution_id, *(id for (id,) in rows)})
    runs = await _runs(project_id, ids, tool_bytes_max=TOOL_SHOWN_MAX)
    questions: list[AskedQuestion] = []
    for one in runs:
        questions += await _questions(project_id, one, QUESTIONS_MAX - len(questions))
    totals = await _totals(project_id, runs)
    return show_session(run, runs, questions, totals[run.session_id])


async def _runs(project_id: str, ids: Sequence[str], *, tool_bytes_max: int) -> list[SessionRun]:
    """Runs with payloads, results and tool outputs, as far as a reply has room."""
    room = REPLY_BYTES_MAX
    found: list[SessionRun] = []
    for id in ids:
        bytes_max = min(room // 2, VALUE_SHOWN_MAX)
        run = await record(SessionRun, "session_run", project_id=project_id, id=id, bytes_max=bytes_max)
        if run is not None:
            room -= min(room, len(run.payload or b"") + len(run.result or b""))
            tools, spent = await _agent_steps(project_id, id, room, min(room, tool_bytes_max))
            room -= sum(len(tool.value or b"") for tool in tools)
            tokens = {"input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens}
            found.append(replace(run, **tokens, spent=spent, tools=tools))
    return found


async def _agent_steps(project_id: str, id: str, room: int, bytes_max: int) -> tuple[list[SessionTool], SessionTotals]:
    """Tool calls and sums, with values as far as there is room. A call after an approval counts by the later step."""
    values = {"model": MODEL, "summary": SUMMARY, "bytes_max": bytes_max, "limit": STEPS_MAX}
    tools: dict[tuple[str | None, ...], SessionTool] = {}
    steps = await records(JournalEntry, "agent_steps", project_id=project_id, id=id, **values)
    spent = SessionTotals(exact=len(steps) < STEPS_MAX)
    for step in steps:
        if step.kind is not Kind.STEP:  # a failed try that was retried
            continue
        tool = tool_step(step.name, step.key)
        if tool is not None:
            value = None if step.value is None or len(step.value) > room else step.value
            room -= len(value or b"")
            call = (step.execution_id, (step.key or "").rpartition("/")[0], tool.name, tool.call_id)
            tools[call] = SessionTool(name=tool.name, ok=step.ok, at_us=step.at_us, value=value)
        elif step.ok:
            used = call_usage(step.name, step.value)
            spent = spent if used is None else spent.plus(used)
    return list(tools.values()), spent


async def _questions(project_id: str, run: SessionRun, limit: int) -> list[AskedQuestion]:
    """Questions in the waits of suspended steps and on the run's topic."""
    topic = f"workflow/{run.workflow_id}/{run.id}"
    found: dict[tuple[str, str], AskedQuestion] = {}
    where = {"project_id": project_id, "topic": topic}
    for one in await records(AskedQuestion, "questions_of", execution_id=run.id, limit=limit, **where):
        found[one.execution_id, one.step_key] = one
    by_key = {key: (id, key) for id, key in found}
    waited = set(found)
    after = max((await value("newest_event", **where) or 0) - EVENTS_LOOKED_AT, 0)
    for event_type, data, at_us in await query("asked_on_topic", after=after, limit=2 * limit, **where):
        what, _, key = event_type.partition("_")
        place = by_key.setdefault(key, (run.id, key))
        known = found.get(place)
        if place in waited and found[place].request is not None:
            continue  # the waits tell each question and answer under this key
        if what == "suspend" and known is None:
            found[place] = AskedQuestion(
                execution_id=place[0], step_key=key, open=run.phase not in FINAL, asked_at_us=at_us, request=data
            )
        elif what == "suspend" and known is not None:
            found[place] = replace(known, asked_at_us=at_us, request=data)
        elif known is not None and known.response is None:
            found[place] = replace(known, open=False, answered_at_us=at_us, response=data)
    return sorted(found.values(), key=lambda one: one.asked_at_us)[:limit]
