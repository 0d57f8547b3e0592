"""Sessions: an agent's memory, and queries for agent runs."""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct
from msgspec.structs import replace

from perdure.store.interface import query, query_many, record, records, value, verb
from perdure.store.verbs.runs import list_floor
from perdure.wire.agent_steps import MODEL, SUMMARY, answer_tokens, tool_step
from perdure.wire.errors import Conflict, NotFound
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Kind
from perdure.wire.sessions import Memory, Question, SessionRun, SessionTool
from perdure.wire.status import FINAL

AGENTS_MAX: Final = 500
LIST_DEPTH: Final = 100_000
RUNS_SHOWN_MAX: Final = 100
QUESTIONS_MAX: Final = 500
EVENTS_LOOKED_AT: Final = 20_000
STEPS_MAX: Final = 1_000
VALUE_SHOWN_MAX: Final = 256 << 10
TOOL_SHOWN_MAX: Final = 16 << 10


@verb(looks=True)
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
    """Answers the new version. Raises Conflict if `version` (0: none yet) is not the stored one."""
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


@verb(looks=True)
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
) -> tuple[list[SessionRun], str | None]:
    """A page of agents' root executions, newest first, and the next place. None: any agent, any phase."""
    names = [name for (name,) in await query("agent_names", project_id=project_id, limit=AGENTS_MAX)]
    floor_id = await list_floor(project_id, before, LIST_DEPTH)
    wanted: dict[str, object] = {
        "project_id": project_id,
        "floor_id": floor_id,
        "before": before,
        "phases": None if phases is None else f" {' '.join(phases)} ",
        "from_us": from_us,
        "to_us": to_us,
        "limit": offset + limit + 1,
    }
    of_agents = [wanted | {"workflow_id": name} for name in names if agent_id in (None, name)]
    ends = [phase for phase in sorted(FINAL) if phases is None or phase in phases]
    rows = await query_many("ended_agent_runs", [one | {"phase": phase} for one in of_agents for phase in ends])
    rows += await query_many("open_agent_runs", of_agents)
    ids = sorted((id for (id,) in rows), reverse=True)
    following = ids[offset + limit - 1] if len(ids) > offset + limit else floor_id or None
    return await _runs(project_id, ids[offset : offset + limit], tool_bytes_max=0), following


@verb(looks=True)
async def get_session(*, project_id: str, execution_id: str) -> tuple[SessionRun, list[SessionRun], list[Question]]:
    """A root execution, and the runs and questions of its session. Raises NotFound, also if it is not a root."""
    found = await _runs(project_id, [execution_id], tool_bytes_max=0)
    if not found:
        raise NotFound(f"Session {execution_id!r} does not exist; name the root execution of one.")
    run = found[0]
    rows = await query("session_roots", project_id=project_id, session_id=run.session_id, limit=RUNS_SHOWN_MAX)
    ids = sorted({execution_id, *(id for (id,) in rows)})
    runs = await _runs(project_id, ids, tool_bytes_max=TOOL_SHOWN_MAX)
    questions: list[Question] = []
    for one in runs:
        questions += await _questions(project_id, one, QUESTIONS_MAX - len(questions))
    return run, runs, questions


async def _runs(project_id: str, ids: Sequence[str], *, tool_bytes_max: int) -> list[SessionRun]:
    """With payloads, results and tool outputs as far as a reply has room."""
    room = REPLY_BYTES_MAX
    found: list[SessionRun] = []
    for id in ids:
        bytes_max = min(room // 2, VALUE_SHOWN_MAX)
        run = await record(SessionRun, "session_run", project_id=project_id, id=id, bytes_max=bytes_max)
        if run is not None:
            room -= min(room, len(run.payload or b"") + len(run.result or b""))
            given, taken, tools = await _agent_steps(project_id, id, room, min(room, tool_bytes_max))
            room -= sum(len(tool.value or b"") for tool in tools)
            found.append(replace(run, input_tokens=given, output_tokens=taken, tools=tools))
    return found


class AgentStep(Struct, frozen=True):
    """A model answer or a tool call. A value of None was too large."""

    execution_id: str
    kind: Kind
    key: str
    name: str
    ok: bool
    at_us: int
    value: bytes | None


async def _agent_steps(project_id: str, id: str, room: int, bytes_max: int) -> tuple[int, int, list[SessionTool]]:
    """Tokens in and out, and tool calls, with values as far as there is room. Of a call that waited for approval, the
    later step counts."""
    values = {"model": MODEL, "summary": SUMMARY, "bytes_max": bytes_max, "limit": STEPS_MAX}
    given = taken = 0
    tools: dict[tuple[str | None, ...], SessionTool] = {}
    for step in await records(AgentStep, "agent_steps", project_id=project_id, id=id, **values):
        if step.kind is not Kind.STEP:  # a failed try that was retried
            continue
        tool = tool_step(step.name, step.key)
        if tool is not None:
            value = None if step.value is None or len(step.value) > room else step.value
            room -= len(value or b"")
            call = (step.execution_id, step.key.rpartition("/")[0], tool.name, tool.call_id)
            tools[call] = SessionTool(name=tool.name, ok=step.ok, at_us=step.at_us, value=value)
        elif step.name in (MODEL, SUMMARY) and step.ok and step.value is not None:
            input_tokens, output_tokens = answer_tokens(step.value)
            given, taken = given + input_tokens, taken + output_tokens
    return given, taken, list(tools.values())


async def _questions(project_id: str, run: SessionRun, limit: int) -> list[Question]:
    """From the waits of suspended steps and from the run's topic."""
    topic = f"workflow/{run.workflow_id}/{run.id}"
    found: dict[tuple[str, str], Question] = {}
    where = {"project_id": project_id, "topic": topic}
    for one in await records(Question, "questions_of", execution_id=run.id, limit=limit, **where):
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
            found[place] = Question(
                execution_id=place[0], step_key=key, open=run.phase not in FINAL, asked_at_us=at_us, request=data
            )
        elif what == "suspend" and known is not None:
            found[place] = replace(known, asked_at_us=at_us, request=data)
        elif known is not None and known.response is None:
            found[place] = replace(known, open=False, answered_at_us=at_us, response=data)
    return sorted(found.values(), key=lambda one: one.asked_at_us)[:limit]
