"""The tools to look at executions and to act on them: functions of typed arguments that return text."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, NamedTuple, ParamSpec

import msgspec
from msgspec import NODEFAULT, Meta, Raw, Struct

from perdure.mcp import docs, lines, runs
from perdure.mcp.asking import Ask, full_id
from perdure.wire.agents.approvals import GetOpenQuestions, ListApprovals
from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import INT64_MAX
from perdure.wire.base.status import Status
from perdure.wire.insight.summaries import ListSummaries
from perdure.wire.insight.why import ExplainExecution
from perdure.wire.runs.executions import CancelExecution, GetExecution, GetLogs, GetSteps, ResumeExecution
from perdure.wire.runs.queues import PauseKind
from perdure.wire.steering.acts import Action, ActOnExecution
from perdure.wire.steering.forks import Edits, Fork, ForkExecution, RetryExecution
from perdure.wire.steering.pauses import EndPause, PutPause

Json = Any
P = ParamSpec("P")

PAGE: Final = 50
SECTION_CHARS: Final = 1_500
SECTIONS: Final = 4
PAGE_CHARS: Final = 16_000
WAIT_SECONDS_MAX: Final = 45.0

Id = Annotated[str, Meta(description="The execution's id, or its first 8 characters or more.")]
Note = Annotated[str, Meta(description="Why. The server keeps it beside the caller's name.")]
After = Annotated[int, Meta(ge=0, le=INT64_MAX, description="Go on after the line of this number.")]
FromStep = Annotated[str, Meta(description="The key of the first step that runs again.")]
PauseName = Annotated[str, Meta(description="The queue, workflow or deployment. For a key: its queue.")]
PausedKey = Annotated[str, Meta(description="Only for the kind key.")]
_NO_EDITS: Final[dict[str, Json]] = {}


class Tool(NamedTuple):
    name: str
    description: str
    role: Role
    arguments: type[Struct]
    call: Callable[..., Awaitable[str]]
    destroys: bool

    @property
    def schema(self) -> dict[str, Json]:
        (found,), defs = msgspec.json.schema_components([self.arguments], ref_template="#/$defs/{name}")
        schema: dict[str, Json] = dict(defs.pop(found["$ref"].rpartition("/")[2]))
        schema.pop("title", None)
        schema["properties"] = {name: _without_null(one) for name, one in schema["properties"].items()}
        return schema | ({"$defs": defs} if defs else {})


TOOLS: Final[dict[str, Tool]] = {}


def tool(role: Role, *, destroys: bool = False) -> Callable[[Callable[P, Awaitable[str]]], Callable[P, Awaitable[str]]]:
    """The function's name, docstring and parameters behind `ask` are the tool's."""

    def add(function: Callable[P, Awaitable[str]]) -> Callable[P, Awaitable[str]]:
        _, *parameters = inspect.signature(function).parameters.values()
        fields = [
            (one.name, one.annotation, NODEFAULT if one.default is one.empty else one.default) for one in parameters
        ]
        name = function.__name__
        TOOLS[name] = Tool(
            name=name,
            description=" ".join((function.__doc__ or "").split()),
            role=role,
            arguments=msgspec.defstruct(name, fields, forbid_unknown_fields=True),
            call=function,
            destroys=destroys,
        )
        return function

    return add


@tool(Role.READ)
async def list_executions(
    ask: Ask,
    status: Annotated[Status, Meta(description="Only this status.")] | None = None,
    workflow: Annotated[str, Meta(description="Only this workflow or agent.")] | None = None,
    search: Annotated[str, Meta(description="The beginning of an id, of a key, or of a word in a key.")] | None = None,
    error: Annotated[str, Meta(description="Words of the error of failed executions.")] | None = None,
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = PAGE,
    cursor: Annotated[str, Meta(description="From the page before.")] | None = None,
) -> str:
    """List executions, the newest first. Each line has the beginning of the id, the workflow, the phase, the age, and
    what the execution waits for or why it failed."""
    op = ListSummaries(
        status=None if status is None else [status.value],
        workflow_id=workflow,
        q=search,
        error=error,
        cursor=cursor,
        limit=limit,
    )
    page = await ask(op)
    found = lines.executions(page.executions, _now_us())
    more = [] if page.next_cursor is None else [f"More: cursor={page.next_cursor}"]
    return "\n".join([*found, *more]) or "No execution matches."


@tool(Role.READ)
async def get_execution(
    ask: Ask,
    id: Id,
    wait: Annotated[float, Meta(ge=0, le=WAIT_SECONDS_MAX, description="Wait so many seconds for its end.")]
    | None = None,
) -> str:
    """Show one execution: phase, input, result or error, progress, and the questions that it asks."""
    id = await full_id(ask, id)
    run = await runs.look(ask, id, wait)
    return "\n".join(lines.execution(run.execution, run.questions, _now_us()))


@tool(Role.READ)
async def why(
    ask: Ask, id: Id, slow: Annotated[bool, Meta(description="Also show which steps and waits took the time.")] = False
) -> str:
    """Explain why an execution is where it is, and what lets it go on. Use it when one hangs or failed."""
    found = await ask(ExplainExecution(await full_id(ask, id), slow))
    return lines.bounded(lines.why(found), "More facts were left out.")


@tool(Role.READ)
async def get_journal(ask: Ask, id: Id, after: After = 0) -> str:
    """Show the journal of an execution: its steps, waits and children with their outcomes, in order."""
    id = await full_id(ask, id)
    begun_us = (await ask(GetExecution(id))).created_at_us
    page = await ask(GetSteps(id, after, PAGE))
    text = lines.bounded(lines.journal(page.steps, begun_us), _more("row"))
    return f"{text}\n{_more('row')}" if page.has_more and not text.endswith(_more("row")) else text or "No more rows."


@tool(Role.READ)
async def get_logs(ask: Ask, id: Id, after: After = 0) -> str:
    """Show the log lines of an execution, in order."""
    page = await ask(GetLogs(await full_id(ask, id), after, PAGE))
    text = lines.bounded(lines.logs(page.logs), _more("line"))
    return (
        f"{text}\n{_more('line')}" if page.has_more and not text.endswith(_more("line")) else text or "No more lines."
    )


@tool(Role.READ)
async def list_questions(ask: Ask) -> str:
    """List the open questions of all executions, the oldest first."""
    found = (await ask(ListApprovals(limit=PAGE))).items
    return lines.bounded(map(lines.question, found), "There are more questions.") or "No execution asks anything."


@tool(Role.READ)
async def search_docs(ask: Ask, words: Annotated[str, Meta(min_length=2, description="The words to look for.")]) -> str:
    """Search the documentation of Perdure: how to write workflows, steps, agents, tests and deployments."""
    found = docs.search(words, SECTIONS)
    shown = (f"[{one.page}] {one.heading}\n\n{lines.cut(one.text, SECTION_CHARS)}" for one in found)
    return "\n\n".join(shown) or f"No page has these words. The pages are: {', '.join(docs.pages())}."


@tool(Role.READ)
async def read_docs(
    ask: Ask,
    page: Annotated[str, Meta(description="Its name, as the search shows it in brackets.")],
    offset: Annotated[int, Meta(ge=0, le=INT64_MAX, description="The first character to show.")] = 0,
) -> str:
    """Read one page of the documentation of Perdure."""
    text = docs.page(page).text
    end = offset + PAGE_CHARS
    return text[offset:end] + (f"\n\nMore: offset={end}" if end < len(text) else "")


@tool(Role.WRITE)
async def start_execution(
    ask: Ask,
    workflow: Annotated[str, Meta(description="The name of a workflow or agent.")],
    input: Annotated[Json, Meta(description="Its input, as JSON.")] = None,
    key: Annotated[str, Meta(description="A name of your own. A second start with it starts nothing.")] | None = None,
) -> str:
    """Start a workflow or agent and return at once. Use the tools run_… to wait for the result."""
    id = await runs.start(ask, workflow, input, key)
    return f"Started execution {id}. get_execution shows how it goes."


@tool(Role.WRITE)
async def retry_execution(
    ask: Ask,
    id: Id,
    from_step: FromStep | None = None,
    later: Annotated[
        Literal["keep", "redo"],
        Meta(description="Keep or drop what the code called after the failure, such as refunds."),
    ]
    | None = None,
    note: Note | None = None,
) -> str:
    """Run a failed or cancelled execution again from what failed, as a new execution. Recorded steps stay.
    LATER_OUTCOMES names steps that may have undone earlier ones. Ask the user, then give `later` or `from_step`."""
    keep, redo = later == "keep", later == "redo"
    id = await full_id(ask, id)
    op = RetryExecution(id, from_step, keep_later=keep, redo_later=redo, note=note)
    return _forked(await ask(op))


@tool(Role.WRITE)
async def fork_execution(
    ask: Ask,
    id: Id,
    from_step: FromStep | None = None,
    steps: Annotated[
        dict[str, Json], Meta(description="Values in place of kept outcomes, by the keys of steps.")
    ] = _NO_EDITS,
    deployment: Annotated[str, Meta(description="The deployment that runs it.")] | None = None,
    note: Note | None = None,
) -> str:
    """Start an execution that keeps the outcomes of another one before `from_step`, or up to the last edited step.
    Use it when an execution is blocked. The other one stays as it is."""
    edits = Edits(steps={key: Raw(msgspec.json.encode(one)) for key, one in steps.items()})
    id = await full_id(ask, id)
    return _forked(await ask(ForkExecution(id, from_step, edits, deployment, note=note)))


@tool(Role.WRITE, destroys=True)
async def act_on_execution(
    ask: Ask,
    id: Id,
    action: Action,
    step: Annotated[str, Meta(description="The key of what waits. Left out: the held execution as a whole.")]
    | None = None,
    value: Annotated[Json, Meta(description="For complete: the result, as JSON.")] = None,
    error: Annotated[str, Meta(description="For fail: the message that the code sees.")] | None = None,
    note: Note | None = None,
) -> str:
    """Decide a step, timer, event, question or child that waits, or a held execution. `try` runs a step again, `fire`
    ends a timer, `complete` gives a result, `fail` and `time_out` raise an error. Ask the user first."""
    id, value = await full_id(ask, id), Raw(msgspec.json.encode(value))
    await ask(ActOnExecution(id, action, step, value, error, note=note))
    return f"Done: {action} in execution {id}."


class Paused(Struct, forbid_unknown_fields=True):
    kind: PauseKind
    name: Annotated[str, Meta(description="The queue, workflow or deployment. For a key: its queue.")]
    concurrency_key: Annotated[str, Meta(description="Only for the kind key.")] | None = None

    def __str__(self) -> str:
        key = "" if self.concurrency_key is None else f"{lines.quoted(self.concurrency_key)} of queue "
        return f"{self.kind} {key}{lines.quoted(self.name)}"


@tool(Role.ADMIN)
async def pause(
    ask: Ask, kind: PauseKind, name: PauseName, concurrency_key: PausedKey | None = None, note: Note | None = None
) -> str:
    """Hold back the executions of a queue, workflow, deployment or concurrency key. Ask the user first."""
    await ask(PutPause(kind, name, concurrency_key, note=note))
    return f"Paused {_paused(kind, name, concurrency_key)}."


@tool(Role.ADMIN)
async def unpause(ask: Ask, kind: PauseKind, name: PauseName, concurrency_key: PausedKey | None = None) -> str:
    """End a pause. Workers get its executions again, in their old order."""
    ended = await ask(EndPause(kind, name, concurrency_key))
    what = _paused(kind, name, concurrency_key)
    return f"Ended the pause of {what}." if ended.was_paused else f"Not paused: {what}."


@tool(Role.WRITE, destroys=True)
async def cancel_execution(ask: Ask, id: Id, note: Note | None = None) -> str:
    """Cancel an execution and everything below it. Ask the user first."""
    done = await ask(CancelExecution(await full_id(ask, id), note=note))
    if done.status is Status.CANCELLED:
        return f"Execution {done.execution_id} is cancelled."
    return f"Execution {done.execution_id} is being cancelled; its worker has been told."


@tool(Role.WRITE)
async def answer_question(
    ask: Ask,
    id: Id,
    step: Annotated[str, Meta(description="The key of the step that asks.")],
    answer: Annotated[Json, Meta(description="The answer, as JSON that fits answer_schema.")],
) -> str:
    """Answer an open question of an execution. The first answer stands. Answer only what the user decided."""
    id = await full_id(ask, id)
    open_ones = (await ask(GetOpenQuestions(id))).items
    fitting = [one for one in open_ones if one.step_key == step]
    if len(fitting) != 1:
        listed = "\n".join(map(lines.question, open_ones)) or "It asks nothing at the moment."
        raise BadRequest(f"Execution {id} has {len(fitting)} open questions under {step!r}.\n{listed}")
    (one,) = fitting
    data = Raw(msgspec.json.encode(answer))
    done = await ask(ResumeExecution(one.execution_id, one.step_key, data, one.question))
    return f"Answered {lines.quoted(done.step_key)} of execution {done.execution_id}."


def _paused(kind: PauseKind, name: str, concurrency_key: str | None) -> str:
    key = "" if concurrency_key is None else f"{lines.quoted(concurrency_key)} of queue "
    return f"{kind} {key}{lines.quoted(name)}"


def _forked(fork: Fork) -> str:
    return f"Started execution {fork.execution_id}, which keeps {fork.kept_rows} rows of the journal."


def _without_null(schema: Json) -> Json:
    """A model leaves out an unwanted argument."""
    match schema:
        case {"anyOf": [inner, {"type": "null"}]}:
            return inner
    return schema


def _more(what: str) -> str:
    return f"There are more: ask again with `after`, the number of the last {what}."


def _now_us() -> int:
    return time.time_ns() // 1_000
