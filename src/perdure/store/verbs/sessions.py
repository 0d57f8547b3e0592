"""Sessions: an agent's memory, with a version against concurrent writers, and queries for agent runs."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from msgspec import Raw

from perdure.store.interface import query, verb
from perdure.wire.agent_steps import MODEL, SUMMARY, answer_tokens, tool_step
from perdure.wire.errors import Conflict, NotFound
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Kind
from perdure.wire.sessions import Memory, Question, Session, SessionRun, SessionTool
from perdure.wire.status import FINAL, Phase

AGENTS_MAX: Final = 500
LIST_DEPTH: Final = 100_000
"""How many of the project's newest executions a list looks at."""
RUNS_SHOWN_MAX: Final = 100
QUESTIONS_MAX: Final = 500
EVENTS_LOOKED_AT: Final = 20_000
"""How many of a run's newest events are searched for questions."""
STEPS_MAX: Final = 1_000
"""How many model answers and tool calls of a run are looked at."""
VALUE_SHOWN_MAX: Final = 256 << 10
TOOL_SHOWN_MAX: Final = 16 << 10


@verb(looks=True)
async def get_memory(*, project_id: str, session_id: str) -> Memory:
    """The memory of a session; empty with version 0 for an unknown one."""
    rows = await query("read_memory", project_id=project_id, session_id=session_id)
    if not rows:
        return Memory(None, Raw(b"[]"), 0)
    summary, messages, version = rows[0]
    return Memory(None if summary is None else bytes(summary).decode(), Raw(messages), version)


@verb(locks="session=session_id")
async def put_memory(
    *, project_id: str, session_id: str, summary: str | None, messages: Raw, version: int | None, now_us: int
) -> int:
    """Replace the memory; answers the new version. With a `version` (0: none yet), raises Conflict if another is
    stored."""
    values = {
        "project_id": project_id,
        "session_id": session_id,
        # Bytes, because a text may contain NUL, which PostgreSQL's text type rejects.
        "summary": None if summary is None else summary.encode(),
        "messages": bytes(messages),
        "now_us": now_us,
    }
    if version is None:
        rows = await query("put_memory", **values)
    elif version == 0:
        rows = await query("insert_memory", **values)
    else:
        rows = await query("update_memory", version=version, **values)
    if not rows:
        found = await query("read_memory", project_id=project_id, session_id=session_id)
        known = found[0][2] if found else 0
        raise Conflict(
            f"The memory of session {session_id!r} has version {known}, not {version}; read it again and put your "
            "change on top.",
            {"version": known},
        )
    new: int = rows[0][0]
    return new


# --- looks ---------------------------------------------------------------------------------------------------------


class RunFilters(NamedTuple):
    """None: any."""

    agent_id: str | None = None
    phases: Sequence[str] | None = None
    from_us: int = 0
    to_us: int = 1 << 62


@verb(looks=True)
async def list_agent_runs(
    *, project_id: str, filters: RunFilters, before: str, limit: int, offset: int
) -> tuple[list[SessionRun], str | None]:
    """A page of agents' root executions with ids below `before`, newest first, and the next place."""
    names = [row[0] for row in await query("agent_names", project_id=project_id, limit=AGENTS_MAX)]
    floor = await query("list_floor", project_id=project_id, before=before, depth=LIST_DEPTH)
    floor_id = floor[0][0] if floor else ""
    ids: list[str] = []
    for name in names:
        if filters.agent_id in (None, name):
            rows = await query(
                "agent_runs",
                project_id=project_id,
                workflow_id=name,
                floor_id=floor_id,
                before=before,
                phases=None if filters.phases is None else f" {' '.join(filters.phases)} ",
                from_us=filters.from_us,
                to_us=filters.to_us,
                limit=offset + limit + 1,
            )
            ids += [row[0] for row in rows]
    ids.sort(reverse=True)
    following = ids[offset + limit - 1] if len(ids) > offset + limit else floor_id or None
    return await _runs(project_id, ids[offset : offset + limit], tool_bytes_max=0), following


@verb(looks=True)
async def get_session(*, project_id: str, execution_id: str) -> Session:
    """The session of a root execution. Raises NotFound, also for an execution that is not a root."""
    found = await _runs(project_id, [execution_id], tool_bytes_max=0)
    if not found:
        raise NotFound(f"Session {execution_id!r} does not exist; name the root execution of one.")
    run = found[0]
    rows = await query("session_roots", project_id=project_id, session_id=run.session_id, limit=RUNS_SHOWN_MAX)
    ids = sorted({execution_id, *(row[0] for row in rows)})
    runs = await _runs(project_id, ids, tool_bytes_max=TOOL_SHOWN_MAX)
    questions: list[Question] = []
    for one in runs:
        questions += await _questions(project_id, one, QUESTIONS_MAX - len(questions))
    return Session(run, runs, questions)


async def _runs(project_id: str, ids: Sequence[str], *, tool_bytes_max: int) -> list[SessionRun]:
    """The executions; payloads, results and tool outputs as far as a reply has room."""
    room = REPLY_BYTES_MAX
    found: list[SessionRun] = []
    for id in ids:
        rows = await query("session_run", project_id=project_id, id=id, bytes_max=min(room // 2, VALUE_SHOWN_MAX))
        for row in rows:
            room -= min(room, len(row[8] or b"") + len(row[9] or b""))
            agents = await _agent_steps(project_id, id, room, min(room, tool_bytes_max))
            room -= sum(len(tool.value or b"") for tool in agents.tools)
            found.append(_run(row, agents))
    return found


class _AgentSteps(NamedTuple):
    input_tokens: int
    output_tokens: int
    tools: Sequence[SessionTool]


async def _agent_steps(project_id: str, id: str, room: int, bytes_max: int) -> _AgentSteps:
    """The steps of a run and its descendants; values as far as there is room. Of a call that waited for approval,
    the later step counts."""
    values = {"model": MODEL, "summary": SUMMARY, "bytes_max": bytes_max, "limit": STEPS_MAX}
    rows = await query("agent_steps", project_id=project_id, id=id, **values)
    given = taken = 0
    tools: dict[tuple[str | None, ...], SessionTool] = {}
    for execution_id, kind, key, name, ok, at_us, value in rows:
        if kind != Kind.STEP:  # a failed try that was retried
            continue
        tool = tool_step(name, key)
        if tool is not None:
            if value is not None and len(value) > room:
                value = None
            room -= len(value or b"")
            call = (execution_id, key.rpartition("/")[0], tool.name, tool.call_id)
            tools[call] = SessionTool(tool.name, bool(ok), at_us, value)
        elif name in (MODEL, SUMMARY) and ok:
            input_tokens, output_tokens = answer_tokens(value)
            given, taken = given + input_tokens, taken + output_tokens
    return _AgentSteps(given, taken, list(tools.values()))


async def _questions(project_id: str, run: SessionRun, limit: int) -> list[Question]:
    """The questions of the run's suspended steps, from their waits and from its topic."""
    topic = f"workflow/{run.workflow_id}/{run.id}"
    found: dict[tuple[str, str], Question] = {}
    for id, key, state, data, opened_at_us, value, at_us in await query(
        "questions_of", project_id=project_id, execution_id=run.id, topic=topic, limit=limit
    ):
        found[id, key] = Question(key, state == "open", opened_at_us, data, at_us, value)
    by_key = {key: (id, key) for id, key in found}
    waited = set(found)
    end = await query("newest_event", project_id=project_id, topic=topic)
    after = max((end[0][0] or 0) - EVENTS_LOOKED_AT, 0)
    for event_type, data, at_us in await query(
        "asked_on_topic", project_id=project_id, topic=topic, after=after, limit=2 * limit
    ):
        what, _, key = event_type.partition("_")
        place = by_key.setdefault(key, (run.id, key))
        known = found.get(place)
        if place in waited and found[place].request is not None:
            continue  # the waits already tell each question and answer under this key
        if what == "suspend":
            answer = (None, None) if known is None else (known.answered_at_us, known.response)
            is_open = run.phase not in FINAL if known is None else known.open
            found[place] = Question(key, is_open, at_us, data, *answer)
        elif known is not None and known.response is None:
            found[place] = Question(key, False, known.asked_at_us, known.request, at_us, data)
    return sorted(found.values(), key=lambda one: one.asked_at_us)[:limit]


def _run(values: Sequence[Any], agents: _AgentSteps) -> SessionRun:
    fields = [*values, *agents]
    fields[2] = Phase(fields[2])
    return SessionRun(*fields)
