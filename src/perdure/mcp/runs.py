"""Workflows and agents as tools, executions as tasks.

A task has the execution's id, so the task lives as long as the execution, on any server of the store.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from perdure.mcp import lines
from perdure.mcp.asking import Ask
from perdure.mcp.elicitation import answer, key_of
from perdure.wire.agents.approvals import GetOpenQuestions, OpenQuestion
from perdure.wire.base.errors import Conflict, NotCancellable, NotFound
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.base.wording import plain
from perdure.wire.insight.why import ExplainExecution
from perdure.wire.runs.executions import CancelExecution, Execution, GetExecution
from perdure.wire.runs.starts import SubmitWorkflow
from perdure.wire.runs.workflows import GetStartable, RegisteredWorkflow, WorkflowType, tool_name

Json = Any

DESCRIPTION_CHARS: Final = 400
RESULT_CHARS: Final = 20_000
SHOWN_CHARS: Final = 300
_ASKED: Final = (Phase.QUEUED, Phase.HELD, Phase.BLOCKED)
"""Phases without a reason for the wait."""


class RunTool(NamedTuple):
    name: str
    description: str
    schema: dict[str, Json]
    workflow: RegisteredWorkflow


class WatchedRun(NamedTuple):
    execution: Execution
    questions: list[OpenQuestion]

    @property
    def is_final(self) -> bool:
        return self.execution.phase in FINAL


async def run_tools(ask: Ask, cursor: str | None = None) -> tuple[list[RunTool], str | None]:
    page = await ask(GetStartable(cursor))
    # Schemas may be large.
    return await asyncio.to_thread(lambda: [_tool(one) for one in page.items]), page.next_cursor


async def find_run_tool(ask: Ask, name: str) -> RunTool:
    """Raises `NotFound`."""
    for one in (await ask(GetStartable(tool=name))).items:
        return await asyncio.to_thread(_tool, one)
    raise NotFound(f"The tool {lines.cut(name, SHOWN_CHARS)!r} does not exist: no worker has registered its workflow.")


def _tool(one: RegisteredWorkflow) -> RunTool:
    kind = "agent" if one.type is WorkflowType.AGENT else "workflow"
    text = f"Run the {kind} {plain(one.id)} and return its result."
    if one.description:
        text += " " + lines.cut(plain(" ".join(one.description.split())), DESCRIPTION_CHARS)
    return RunTool(tool_name(one.id), text, input_schema(one), one)


def input_schema(one: RegisteredWorkflow) -> dict[str, Json]:
    """A schema of an object: the input's schema, or an object with the field `input`."""
    if one.takes_input is False:
        return {"type": "object", "properties": {}}
    if one.type is WorkflowType.AGENT:
        asked = {"type": "string", "description": "The message to the agent."}
        return {"type": "object", "properties": {"input": asked}, "required": ["input"]}
    found = _decoded(one.input_schema)
    whole = _object_of(found)
    if whole is not None:
        return whole
    defs = found.pop("$defs", None) if isinstance(found, dict) else None
    wrapped: dict[str, Json] = {"type": "object", "properties": {"input": found}, "required": ["input"]}
    return wrapped if defs is None else wrapped | {"$defs": defs}


def payload_of(one: RegisteredWorkflow, arguments: Mapping[str, Json]) -> Json:
    if one.takes_input is False:
        return None
    if one.type is WorkflowType.AGENT or _object_of(_decoded(one.input_schema)) is not None:
        return dict(arguments)
    return arguments.get("input")


def _decoded(schema: Raw | None) -> Json:
    return {} if schema is None else msgspec.json.decode(schema)


def _object_of(schema: Json) -> dict[str, Json] | None:
    """An object's schema, with the reference at the root resolved. None for another schema."""
    if not isinstance(schema, dict):
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str):
        defs = dict(schema.get("$defs", {}))
        name = reference.removeprefix("#/$defs/")
        inner = defs.get(name)
        if not isinstance(inner, dict):
            return None
        if reference not in (one.get("$ref") for one in _parts(defs)):
            del defs[name]
        schema = {**inner, "$defs": defs} if defs else inner
    return schema if schema.get("type") == "object" else None


def _parts(schema: Json) -> Iterator[dict[str, Json]]:
    if isinstance(schema, dict):
        yield schema
    for one in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _parts(one)


async def start(ask: Ask, workflow_id: str, payload: Json, key: str | None = None) -> str:
    op = SubmitWorkflow(workflow_id=workflow_id, payload=Raw(msgspec.json.encode(payload)), key=key)
    return (await ask(op)).execution_id


async def look(ask: Ask, id: str, wait: float | None = None) -> WatchedRun:
    """Raises `NotFound`."""
    execution = await ask(GetExecution(id, wait))
    if execution.phase in FINAL:
        return WatchedRun(execution, [])
    return WatchedRun(execution, (await ask(GetOpenQuestions(id))).items)


async def give(ask: Ask, run: WatchedRun, answers: Mapping[str, Mapping[str, Json]]) -> None:
    """Answer the open questions named by keys. Keys of closed questions are skipped."""
    for question in run.questions:
        content = answers.get(key_of(question))
        if content is None:
            continue
        try:
            await ask(answer(question, content))
        except Conflict:
            continue  # another caller was first


async def cancel(ask: Ask, id: str) -> None:
    try:
        await ask(CancelExecution(id))
    except NotCancellable:
        return  # already ended


def question_lines(run: WatchedRun) -> list[str]:
    return [lines.question(one) for one in run.questions]


async def standing(ask: Ask, run: WatchedRun) -> str:
    """A sentence on the state of the run."""
    execution = run.execution
    if run.questions:
        count = len(run.questions)
        return "It waits for an answer." if count == 1 else f"It waits for {count} answers."
    if execution.phase in _ASKED:
        return plain((await ask(ExplainExecution(execution.id))).sentence)
    if execution.progress is not None:
        return f"Progress: {lines.value(execution.progress, lines.OUTCOME_CHARS)}"
    return f"The execution is {execution.phase.value}."


def result_text(execution: Execution) -> str:
    """JSON of the result, or the error."""
    if execution.phase is Phase.CANCELLED:
        return f"Execution {execution.id} was cancelled."
    if execution.phase is Phase.FAILED:
        return f"Execution {execution.id} failed: {lines.quoted(execution.error or '', RESULT_CHARS)}"
    text = lines.value(execution.result, RESULT_CHARS)
    if len(text) < RESULT_CHARS:
        return text
    return f"{text}\nThe result is cut. GET /api/v1/executions/{execution.id} has all of it."
