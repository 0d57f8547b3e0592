"""Sessions: an agent's memory, and queries for agent runs."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from perdure.store.base.interface import query, query_many, record, records, value, verb
from perdure.store.verbs.runs.find import ids_beginning_with, list_floor
from perdure.wire.agents.agent_steps import MODEL, SUMMARY, call_usage, tool_step
from perdure.wire.agents.sessions import AskedQuestion, Memory, SessionRun, SessionTool, SessionTotals, said_in
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL
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


@verb(reads=True)
async def get_memory(*, project_id: str, session_id: str) -> Memory:
    """Empty, with version 0, for an unknown session."""
    return await _memory(project_id, session_id)


async def _memory(project_id: str, session_id: str) -> Memory:
    for summary, messages, version in await query("read_memory", project_id=project_id, session_id=session_id):
        return Memory(Raw(messages), version, None if summary is None else bytes(summary).decode())
    return Memory(Raw(b"[]"), 0)


@verb(locks="session=session_id")
async def put_memory(
    *, project_id: str, session_id: str, summary: str | None, messages: Raw, version: int | None, now_us: int
) -> int:
    """Returns the new version. Raises Conflict if `version` (0: unstored) differs from the stored version."""
    values = {
        "project_id": project_id,
        "session_id": session_id,
        "summary": None if summary is None else summary.encode(),  # it may hold NUL, which PostgreSQL's texts cannot
        "messages": bytes(messages),
        "now_us": now_us,
    }
    if version is None:
        rows = await query("put_memory", **values)
    elif version == 0:
        rows = await query("insert_memory", **values)
    else:
        rows = await query("update_memory", version=version, **values)
    for (new,) in rows:
        return int(new)
    known = (await _memory(project_id, session_id)).version
    raise Conflict(
        f"The memory of session {session_id!r} has version {known}, not {version}; read it again and put your "
        "change on top.",
        {"version": known},
    )


@verb(reads=True)
async def list_agent_runs(
    *,
    project_id: str,
    agent_id: str | None,
    phases: Sequence[str] | None,
    from_us: int,
    to_us: int,
    before: str,
    limit: int,
    offset: int,
    q: str = "",
) -> tuple[list[SessionRun], Mapping[str, SessionTotals], str | None]:
    """A page of agents' root executions, newest first, with sessions, and the next place. None: any agent, any phase.

    A search by `q` has a single page.
    """
    names = [name for (name,) in await query("agent_names", project_id=project_id, limit=AGENTS_MAX)]
    floor_id = await list_floor(project_id, before, LIST_DEPTH)
    wanted: dict[str, object] = {
        "project_id": project_id,
        "floor_id": floor_id,
        "before": before,
        "phases": None if phases is None else f" {' '.join(phases)} ",
        "from_us": from_us,
        "to_us": to_us,
        "limit": SEARCHED_MAX if q else offset + limit + 1,
    }
    of_agents = [wanted | {"workflow_id": name} for name in names if agent_id in (None, name)]
    ends = [phase for phase in sorted(FINAL) if phases is None or phase in phases]
    rows = await query_many("ended_agent_runs", [one | {"phase": phase} for one in of_agents for phase in ends])
    rows += await query_many("open_agent_runs", of_agents)
    ids = sorted((id for (id,) in rows), reverse=True)
    if q:
        found = await _searched(project_id, q, ids[:SEARCHED_MAX], frozenset(names), limit)
        found = [one for one in found if agent_id in (None, one.workflow_id)][:limit]
        return found, await _totals(project_id, found), None
    following = ids[offset + limit - 1] if len(ids) > offset + limit else floor_id or None
    found = await _runs(project_id, ids[offset : offset + limit], tool_bytes_max=0)
    return found, await _totals(project_id, found), following


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


@verb(reads=True)
async def get_session(
    *, project_id: str, execution_id: str
) -> tuple[SessionRun, list[SessionRun], list[AskedQuestion], SessionTotals]:
    """A root execution, and the runs, questions and sums of its session. Raises NotFound for another execution."""
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
    return run, runs, questions, totals[run.session_id]


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
