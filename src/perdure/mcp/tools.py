"""The tools to look at executions and to act on executions. Each tool is a function of typed arguments and returns
text."""

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

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
A = TypeVar("A", bound=Struct)

PAGE: Final = 50
SECTION_CHARS: Final = 1_500
SECTIONS: Final = 4
PAGE_CHARS: Final = 16_000
WAIT_SECONDS_MAX: Final = 45.0

Id = Annotated[str, Meta(description="The execution's id, or its first 8 characters or more.")]
Note = Annotated[str, Meta(description="Why. The server keeps it beside the caller's name.")]


class Tool(NamedTuple):
    name: str
    description: str
    role: Role
    arguments: type[Struct]
    call: Callable[[Ask, Any], Awaitable[str]]
    destroys: bool

    @property
    def schema(self) -> dict[str, Json]:
        (found,), defs = msgspec.json.schema_components([self.arguments], ref_template="#/$defs/{name}")
        schema: dict[str, Json] = dict(defs.pop(found["$ref"].rpartition("/")[2]))
        schema.pop("title", None)
        schema["properties"] = {name: _without_null(one) for name, one in schema["properties"].items()}
        return schema | ({"$defs": defs} if defs else {})


TOOLS: Final[dict[str, Tool]] = {}


def tool(
    role: Role, *, destroys: bool = False
) -> Callable[[Callable[[Ask, A], Awaitable[str]]], Callable[[Ask, A], Awaitable[str]]]:
    """The function's name and docstring are the tool's."""

    def add(function: Callable[[Ask, A], Awaitable[str]]) -> Callable[[Ask, A], Awaitable[str]]:
        arguments = function.__annotations__["given"]
        description = " ".join((function.__doc__ or "").split())
        TOOLS[function.__name__] = Tool(
            name=function.__name__,
            description=description,
            role=role,
            arguments=arguments,
            call=function,
            destroys=destroys,
        )
        return function

    return add


class Listing(Struct, forbid_unknown_fields=True):
    status: Annotated[Status, Meta(description="Only this status.")] | None = None
    workflow: Annotated[str, Meta(description="Only this workflow or agent.")] | None = None
    search: Annotated[str, Meta(description="The beginning of an id, of a key, or of a word in a key.")] | None = None
    error: Annotated[str, Meta(description="Words of the error of failed executions.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = PAGE
    cursor: Annotated[str, Meta(description="From the page before.")] | None = None


@tool(Role.READ)
async def list_executions(ask: Ask, given: Listing) -> str:
    """List executions, the newest first. Each line has the beginning of the id, the workflow, the phase, the age, and
    what the execution waits for or why it failed."""
    op = ListSummaries(
        status=None if given.status is None else [given.status.value],
        workflow_id=given.workflow,
        q=given.search,
        error=given.error,
        cursor=given.cursor,
        limit=given.limit,
    )
    page = await ask(op)
    found = lines.executions(page.executions, _now_us())
    more = [] if page.next_cursor is None else [f"More: cursor={page.next_cursor}"]
    return "\n".join([*found, *more]) or "No execution matches."


class One(Struct, forbid_unknown_fields=True):
    id: Id
    wait: Annotated[float, Meta(ge=0, le=WAIT_SECONDS_MAX, description="Wait so many seconds for its end.")] | None = (
        None
    )


@tool(Role.READ)
async def get_execution(ask: Ask, given: One) -> str:
    """Show one execution: phase, input, result or error, progress, and the questions that it asks."""
    id = await full_id(ask, given.id)
    run = await runs.look(ask, id, given.wait)
    return "\n".join(lines.execution(run.execution, run.questions, _now_us()))


class Why(Struct, forbid_unknown_fields=True):
    id: Id
    slow: Annotated[bool, Meta(description="Also show which steps and waits took the time.")] = False


@tool(Role.READ)
async def why(ask: Ask, given: Why) -> str:
    """Explain why an execution is where it is, and what lets it go on. Use it when one hangs or failed."""
    found = await ask(ExplainExecution(await full_id(ask, given.id), given.slow))
    return lines.bounded(lines.why(found), "More facts were left out.")


class After(Struct, forbid_unknown_fields=True):
    id: Id
    after: Annotated[int, Meta(ge=0, le=INT64_MAX, description="Go on after the line of this number.")] = 0


@tool(Role.READ)
async def get_journal(ask: Ask, given: After) -> str:
    """Show the journal of an execution: its steps, waits and children with their outcomes, in order."""
    id = await full_id(ask, given.id)
    begun_us = (await ask(GetExecution(id))).created_at_us
    page = await ask(GetSteps(id, given.after, PAGE))
    text = lines.bounded(lines.journal(page.steps, begun_us), _more("row"))
    return f"{text}\n{_more('row')}" if page.has_more and not text.endswith(_more("row")) else text or "No more rows."


@tool(Role.READ)
async def get_logs(ask: Ask, given: After) -> str:
    """Show the log lines of an execution, in order."""
    page = await ask(GetLogs(await full_id(ask, given.id), given.after, PAGE))
    text = lines.bounded(lines.logs(page.logs), _more("line"))
    return (
        f"{text}\n{_more('line')}" if page.has_more and not text.endswith(_more("line")) else text or "No more lines."
    )


class Nothing(Struct, forbid_unknown_fields=True):
    pass


@tool(Role.READ)
async def list_questions(ask: Ask, given: Nothing) -> str:
    """List the open questions of all executions, the oldest first."""
    found = (await ask(ListApprovals(limit=PAGE))).items
    return lines.bounded(map(lines.question, found), "There are more questions.") or "No execution asks anything."


class Words(Struct, forbid_unknown_fields=True):
    words: Annotated[str, Meta(min_length=2, description="The words to look for.")]


@tool(Role.READ)
async def search_docs(ask: Ask, given: Words) -> str:
    """Search the documentation of Perdure: how to write workflows, steps, agents, tests and deployments."""
    found = docs.search(given.words, SECTIONS)
    shown = (f"[{one.page}] {one.heading}\n\n{lines.cut(one.text, SECTION_CHARS)}" for one in found)
    return "\n\n".join(shown) or f"No page has these words. The pages are: {', '.join(docs.pages())}."


class Reading(Struct, forbid_unknown_fields=True):
    page: Annotated[str, Meta(description="Its name, as the search shows it in brackets.")]
    offset: Annotated[int, Meta(ge=0, le=INT64_MAX, description="The first character to show.")] = 0


@tool(Role.READ)
async def read_docs(ask: Ask, given: Reading) -> str:
    """Read one page of the documentation of Perdure."""
    text = docs.page(given.page).text
    end = given.offset + PAGE_CHARS
    return text[given.offset : end] + (f"\n\nMore: offset={end}" if end < len(text) else "")


class Start(Struct, forbid_unknown_fields=True):
    workflow: Annotated[str, Meta(description="The name of a workflow or agent.")]
    input: Annotated[Json, Meta(description="Its input, as JSON.")] = None
    key: Annotated[str, Meta(description="A name of your own. A second start with it starts nothing.")] | None = None


@tool(Role.WRITE)
async def start_execution(ask: Ask, given: Start) -> str:
    """Start a workflow or agent and return at once. Use the tools run_… to wait for the result."""
    id = await runs.start(ask, given.workflow, given.input, given.key)
    return f"Started execution {id}. get_execution shows how it goes."


class Retry(Struct, forbid_unknown_fields=True):
    id: Id
    from_step: Annotated[str, Meta(description="The key of the first step that runs again.")] | None = None
    later: (
        Annotated[
            Literal["keep", "redo"],
            Meta(description="Keep or drop what the code called after the failure, such as refunds."),
        ]
        | None
    ) = None
    note: Note | None = None


@tool(Role.WRITE)
async def retry_execution(ask: Ask, given: Retry) -> str:
    """Run a failed or cancelled execution again from what failed, as a new execution. Recorded steps stay.
    LATER_OUTCOMES names steps that may have undone earlier ones. Ask the user, then give `later` or `from_step`."""
    keep, redo = given.later == "keep", given.later == "redo"
    id = await full_id(ask, given.id)
    op = RetryExecution(id, given.from_step, keep_later=keep, redo_later=redo, note=given.note)
    return _forked(await ask(op))


class Forking(Struct, forbid_unknown_fields=True):
    id: Id
    from_step: Annotated[str, Meta(description="The key of the first step that runs again.")] | None = None
    steps: Annotated[dict[str, Json], Meta(description="Values in place of kept outcomes, by the keys of steps.")] = {}
    deployment: Annotated[str, Meta(description="The deployment that runs it.")] | None = None
    note: Note | None = None


@tool(Role.WRITE)
async def fork_execution(ask: Ask, given: Forking) -> str:
    """Start an execution that keeps the outcomes of another one before `from_step`, or up to the last edited step.
    Use it when an execution is blocked. The other one stays as it is."""
    edits = Edits(steps={key: Raw(msgspec.json.encode(one)) for key, one in given.steps.items()})
    id, deployment = await full_id(ask, given.id), given.deployment
    return _forked(await ask(ForkExecution(id, given.from_step, edits, deployment, note=given.note)))


class Act(Struct, forbid_unknown_fields=True):
    id: Id
    action: Action
    step: Annotated[str, Meta(description="The key of what waits. Left out: the held execution as a whole.")] | None = (
        None
    )
    value: Annotated[Json, Meta(description="For complete: the result, as JSON.")] = None
    error: Annotated[str, Meta(description="For fail: the message that the code sees.")] | None = None
    note: Note | None = None


@tool(Role.WRITE, destroys=True)
async def act_on_execution(ask: Ask, given: Act) -> str:
    """Decide a step, timer, event, question or child that waits, or a held execution. `try` runs a step again, `fire`
    ends a timer, `complete` gives a result, `fail` and `time_out` raise an error. Ask the user first."""
    id, value = await full_id(ask, given.id), Raw(msgspec.json.encode(given.value))
    await ask(ActOnExecution(id, given.action, given.step, value, given.error, note=given.note))
    return f"Done: {given.action} in execution {id}."


class Paused(Struct, forbid_unknown_fields=True):
    kind: PauseKind
    name: Annotated[str, Meta(description="The queue, workflow or deployment. For a key: its queue.")]
    concurrency_key: Annotated[str, Meta(description="Only for the kind key.")] | None = None

    def __str__(self) -> str:
        key = "" if self.concurrency_key is None else f"{lines.quoted(self.concurrency_key)} of queue "
        return f"{self.kind} {key}{lines.quoted(self.name)}"


class Pausing(Paused, forbid_unknown_fields=True):
    note: Note | None = None


@tool(Role.ADMIN)
async def pause(ask: Ask, given: Pausing) -> str:
    """Hold back the executions of a queue, workflow, deployment or concurrency key. Ask the user first."""
    await ask(PutPause(given.kind, given.name, given.concurrency_key, note=given.note))
    return f"Paused {given}."


@tool(Role.ADMIN)
async def unpause(ask: Ask, given: Paused) -> str:
    """End a pause. Workers get its executions again, in their old order."""
    ended = await ask(EndPause(given.kind, given.name, given.concurrency_key))
    return f"Ended the pause of {given}." if ended.was_paused else f"Not paused: {given}."


class Target(Struct, forbid_unknown_fields=True):
    id: Id
    note: Note | None = None


@tool(Role.WRITE, destroys=True)
async def cancel_execution(ask: Ask, given: Target) -> str:
    """Cancel an execution and everything below it. Ask the user first."""
    done = await ask(CancelExecution(await full_id(ask, given.id), note=given.note))
    if done.status is Status.CANCELLED:
        return f"Execution {done.execution_id} is cancelled."
    return f"Execution {done.execution_id} is being cancelled; its worker has been told."


class Answer(Struct, forbid_unknown_fields=True):
    id: Id
    step: Annotated[str, Meta(description="The key of the step that asks.")]
    answer: Annotated[Json, Meta(description="The answer, as JSON that fits answer_schema.")]


@tool(Role.WRITE)
async def answer_question(ask: Ask, given: Answer) -> str:
    """Answer an open question of an execution. The first answer stands. Answer only what the user decided."""
    id = await full_id(ask, given.id)
    open_ones = (await ask(GetOpenQuestions(id))).items
    fitting = [one for one in open_ones if one.step_key == given.step]
    if len(fitting) != 1:
        listed = "\n".join(map(lines.question, open_ones)) or "It asks nothing at the moment."
        raise BadRequest(f"Execution {id} has {len(fitting)} open questions under {given.step!r}.\n{listed}")
    (one,) = fitting
    data = Raw(msgspec.json.encode(given.answer))
    done = await ask(ResumeExecution(one.execution_id, one.step_key, data, one.question))
    return f"Answered {lines.quoted(done.step_key)} of execution {done.execution_id}."


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
