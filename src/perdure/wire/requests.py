"""What travels between the wings: one request and one reply struct per operation.

The first part is the client's side (the public API adds its contract's names around these), the second the worker
protocol under `/worker/v1`. Both transports, HTTP and in-process, carry exactly these structs.
"""

from typing import Final

from msgspec import Raw, Struct

from perdure.wire.budgets import BudgetSpec
from perdure.wire.records import NULL, Execution, MaybeRaw, Problem, Row
from perdure.wire.schedules import ScheduleSpec
from perdure.wire.transcripts import OnConflict
from perdure.wire.triggers import TriggerSpec
from perdure.wire.workflows import WorkflowType

PROTOCOL_VERSION: Final = 1
"""Sent as `Perdure-Protocol` by native workers; a server refuses versions it does not speak."""


class Request(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of requests that Perdure added: a field nobody knows is a mistake worth telling."""


# --- the client's side ---------------------------------------------------------------------------------------------


class StartItem(Request, frozen=True):
    """One execution to start."""

    workflow_id: str
    payload: Raw = NULL
    deployment_id: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    queue_concurrency_limit: int | None = None
    priority: int = 0
    session_id: str | None = None
    user_id: str | None = None
    tags: dict[str, str] | None = None
    delay_seconds: float | None = None
    start_at_us: int | None = None
    run_timeout_seconds: int | None = None
    key: str | None = None
    accept_early: bool = False
    parent_execution_id: str | None = None
    step_key: str | None = None
    batch_id: str | None = None
    """Set by `map_children`, whose children are one batch; other callers use the batch route."""
    otel_traceparent: str | None = None
    initial_state: MaybeRaw = None
    channel_context: MaybeRaw = None
    webhook_url: str | None = None
    """What hears of its end."""
    on_conflict: OnConflict | None = None
    """The execution is a turn of its session, one at a time: what is to happen while another one is open."""
    budget: BudgetSpec | None = None
    """What it and all below it may spend."""


class Started(Struct, frozen=True):
    """The answer to one accepted item. `existing` when its key already named an execution."""

    execution_id: str
    created_at_us: int
    existing: bool = False


class StartRequest(Request, frozen=True):
    """POST /api/v1/executions: independent items, each with its own answer."""

    items: list[StartItem]


class StartAnswer(Struct, frozen=True, omit_defaults=True):
    """What one item got: an execution, or the problem with it."""

    execution_id: str | None = None
    created_at_us: int = 0
    existing: bool = False
    problem: Problem | None = None

    @classmethod
    def of(cls, answer: "Started | Problem") -> "StartAnswer":
        if isinstance(answer, Problem):
            return cls(problem=answer)
        return cls(answer.execution_id, answer.created_at_us, answer.existing)

    def outcome(self) -> "Started | Problem":
        if self.problem is not None or self.execution_id is None:
            return self.problem or Problem("The server gave no answer to this item.", "ERROR")
        return Started(self.execution_id, self.created_at_us, self.existing)


class StartReply(Struct, frozen=True):
    """Answers in the order of the items."""

    items: list[StartAnswer]


class WaitRequest(Request, frozen=True):
    """POST /api/v1/executions/wait: answer as soon as one of `ids` is final, at most `wait_seconds` from now."""

    ids: list[str]
    wait_seconds: float = 30.0


class Finished(Struct, frozen=True, omit_defaults=True):
    """The end of an execution, as its waiters need it."""

    id: str
    phase: str
    result: MaybeRaw = None
    error: str | None = None
    detail: MaybeRaw = None
    """The failure as the journal has it: {"type", "message", …}."""


class WaitReply(Struct, frozen=True):
    """The final ones among the ids asked for, and the ids that name nothing here."""

    finished: list[Finished]
    missing: list[str] = []


class EventItem(Request, frozen=True):
    """One event to publish. With a `dedup_key` the topic keeps the first and answers repeats with its number."""

    data: Raw = NULL
    event_type: str | None = None
    dedup_key: str | None = None


class ListFilters(Struct, frozen=True):
    """What a list of executions is narrowed to; None: everything. `tag` is `name=value`."""

    phases: list[str] | None = None
    workflow_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    queue_name: str | None = None
    batch_id: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    deployment_id: str | None = None
    key: str | None = None
    tag: str | None = None
    created_after_us: int | None = None
    created_before_us: int | None = None


class ExecutionPage(Struct, frozen=True):
    """One page of a list; `next_cursor` asks for the following one."""

    executions: list[Execution]
    next_cursor: str | None


# --- the worker protocol -------------------------------------------------------------------------------------------


class WorkflowSpec(Request, frozen=True):
    """What a registration says of one workflow; the defaults of executions that are started without saying more."""

    id: str
    queue_name: str | None = None
    output_schema_name: str | None = None
    run_timeout_seconds: int | None = None
    wake_on_cancel: bool = False
    type: WorkflowType = WorkflowType.WORKFLOW
    agent: "AgentSpec | None" = None
    """Of an agent: its definition."""


class AgentSpec(Request, frozen=True):
    """What a registration says of an agent beside; it is kept and shown as `GET /api/v1/agents` does."""

    id: str
    provider: str
    model: str
    system_prompt: str | None = None
    tools: MaybeRaw = None
    metadata: MaybeRaw = None


class QueueSpec(Request, frozen=True):
    """A queue as declared in code. None: no limit."""

    name: str
    concurrency_limit: int | None = None
    total_limit: int | None = None


class RegisterRequest(Request, frozen=True):
    """Open a registration. `worker_id` is made by the worker (a UUID), so that a repeat is harmless."""

    worker_id: str
    deployment_id: str
    python: str
    workflows: list[WorkflowSpec]
    queues: list[QueueSpec] = []
    capacity: int = 100
    embedded: bool = False
    schedules: list[ScheduleSpec] = []
    """All that code declares; of a project's current deployment those that are no longer declared are deleted."""
    triggers: list[TriggerSpec] = []
    """The same of event triggers."""


class RegisterReply(Struct, frozen=True):
    """`epoch` names the store's life; a message that carries another one is refused."""

    epoch: str
    project_id: str
    lease_us: int
    beat_us: int
    grace_us: int = 30_000_000


class ClaimRequest(Request, frozen=True):
    """A long poll for work: up to `capacity` executions.

    The ids of a registration's claims ascend (as text). The last one again gets the same batch again; an older one, a
    copy that comes late, gets nothing.
    """

    worker_id: str
    epoch: str
    claim_id: str
    capacity: int
    wait_seconds: float = 20.0
    arrived: str | None = None
    """The claim whose answer is here, if that had a `held_us`: its work is not taken back any more."""


class Claimed(Struct, frozen=True, omit_defaults=True, gc=False):
    """One execution handed out.

    `rows` are the journal after `base` (0 unless the worker said it parked the execution there). `more` says that rows
    were left out to keep the reply small: an empty report fetches them. `ack_first` asks for an empty report before any
    of the workflow's code runs.
    """

    id: str
    workflow_id: str
    attempt: int
    payload: Raw
    created_at_us: int
    rows: list[Row] = []
    base: int = 0
    more: bool = False
    ack_first: bool = False
    retry_count: int = 0
    cancelling: bool = False
    key: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    deployment_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    tags: MaybeRaw = None
    budgeted: bool = False
    """Whether there may be a budget that it spends from: something in its tree holds one."""


class ClaimReply(Struct, frozen=True):
    """`news` names executions held whose journals have rows this worker has not seen: an empty report fetches them.
    `held_us` is for how long the server held the claim: the rest of the time it was on its way. If it is set, the work
    may be taken back unless the worker sends its next claim within a second."""

    items: list[Claimed]
    news: list[str] = []
    held_us: int | None = None


class StepDone(Request, frozen=True, tag="step"):
    """A step's outcome, or (with `last=False`) a failed try of a step that will be tried again."""

    key: str
    name: str
    fingerprint: str | None
    ok: bool
    value: Raw
    started_at_us: int
    tries: int = 1
    last: bool = True


class TimerFired(Request, frozen=True, tag="timer"):
    """A timer of the workflow's code is due at `at_us`."""

    key: str
    at_us: int


class StartChild(Request, frozen=True, tag="child"):
    """Start a child; the child and its row in this journal are one transaction."""

    key: str
    fingerprint: str | None
    item: StartItem


class Publish(Request, frozen=True, tag="publish"):
    """Publish events; they and the row in this journal are one transaction."""

    key: str
    fingerprint: str | None
    topic: str
    events: list[EventItem]


class Answer(Request, frozen=True, tag="answer"):
    """Answer a suspended step of another execution; the answer and the row in this journal are one transaction."""

    key: str
    fingerprint: str | None
    execution_id: str
    step_key: str
    data: Raw


class OpenWait(Request, frozen=True, tag="wait"):
    """Wait for the next event of `topic` that this execution has not taken yet, or (without a topic) for an answer."""

    key: str
    fingerprint: str | None
    topic: str | None = None
    match: dict[str, Raw] | None = None
    after: int | None = None
    latest: bool = False
    data: MaybeRaw = None
    """What a suspended step shows to whoever answers it."""
    expires_at_us: int | None = None
    """From then on no answer is taken: the code goes on without one."""


class CloseWait(Request, frozen=True, tag="close"):
    """The workflow's code gave up a wait (a time-out, a cancelled branch)."""

    key: str


class ReadTranscript(Request, frozen=True, tag="read_transcript"):
    """Read a session's transcript as it is now. The row has its version; what was said is fetched by it."""

    key: str
    session_id: str


class AppendMessages(Request, frozen=True, tag="append_messages"):
    """Add to a session's transcript; the messages and the row in this journal are one transaction. With a `version`
    only if that is the newest."""

    key: str
    fingerprint: str | None
    session_id: str
    messages: list[Raw]
    version: int | None = None


class Summarize(Request, frozen=True, tag="summarize"):
    """Add a summary to a session's transcript that stands for all of it up to entry `upto`. `version` as above."""

    key: str
    fingerprint: str | None
    session_id: str
    upto: int
    summary: Raw
    version: int | None = None


class TakeMessages(Request, frozen=True, tag="take_messages"):
    """Take the messages of later turns of its workflow that may be delivered to this one, which has its turn in the
    session."""

    key: str
    session_id: str


class LeaveMessages(Request, frozen=True, tag="leave_messages"):
    """Leave messages that this turn has taken and can do nothing with: each is a turn of its own again, which nobody
    takes any more."""

    key: str
    session_id: str
    execution_ids: list[str]


TranscriptEntry = ReadTranscript | AppendMessages | Summarize | TakeMessages | LeaveMessages
Entry = StepDone | TimerFired | StartChild | Publish | Answer | OpenWait | CloseWait | TranscriptEntry


class Suspend(Request, frozen=True, tag="suspend"):
    """Every branch waits. `waits` are the keys of all open waits, `timer` the earliest timer, if any.

    Refused (the reply has rows and no `ended`) when the journal has outcomes that the worker has not seen. That its own
    item has started all of its children is none: whoever says both waits for them whatever their ids are. The worker is
    then told of their rows, and has them parked as well.
    """

    waits: list[str]
    timer: tuple[str | None, int] | None = None
    """Key and due time; without a key it is the end of a pause before a step's next try, which no code waits for."""
    parked: bool = False


class Complete(Request, frozen=True, tag="complete"):
    """The workflow's function returned."""

    result: Raw


class Fail(Request, frozen=True, tag="fail"):
    """The workflow's function raised. With `retry_delay_us` it will be tried again: `take_back` are the keys of the
    steps whose failures are taken back, so that the next attempt runs them again."""

    error: str
    detail: Raw
    retry_delay_us: int | None = None
    take_back: list[str] = []


class Release(Request, frozen=True, tag="release"):
    """Handed back unfinished (drain)."""


class Block(Request, frozen=True, tag="block"):
    """The code on offer does not match the journal."""

    error: str
    detail: Raw


class Cancelled(Request, frozen=True, tag="cancelled"):
    """The cancellation that was asked for is done."""


End = Suspend | Complete | Fail | Release | Block | Cancelled


class LogLine(Request, frozen=True):
    """One line that the workflow logged; `level` as in the standard library."""

    at_us: int
    level: int
    text: str


class Emitted(Request, frozen=True):
    """One item for whoever follows the execution live; `key` and `tries` name the run of code that emitted it."""

    kind: str
    key: str
    data: Raw = NULL
    tries: int = 1


class ReportItem(Request, frozen=True):
    """News of one execution. `number` counts this attempt's reports from 1, 0 only reads; `seen` is the last row the
    worker has. An item without entries and end acknowledges the delivery and fetches rows."""

    execution_id: str
    attempt: int
    number: int
    seen: int
    entries: list[Entry] = []
    end: End | None = None
    logs: list[LogLine] = []
    progress: MaybeRaw = None
    child: bool = False
    """Said with an end: somebody may wait for it. A hint for the server, which may hand the parent out at once."""
    stream: list[Emitted] = []
    """An item that brings any has a number, so that a repeat brings none."""
    stream_of: str | None = None
    """The root whose stream they join, of an execution that has one. A hint, too."""
    changed_inputs: int = 0
    """How many calls were given outcomes that were recorded for other inputs; a line of `logs` names them."""


class ReportRequest(Request, frozen=True):
    """What piled up in a worker: at most one item per execution."""

    worker_id: str
    epoch: str
    items: list[ReportItem]


class ItemReply(Struct, frozen=True, omit_defaults=True):
    """The answer to one item: every row the worker has not seen. `ended`: the item's end took effect.

    `lost`: the attempt no longer holds the execution; drop it without a further word."""

    rows: list[Row] = []
    more: bool = False
    ended: bool = False
    lost: bool = False
    accepted: list[int] = []
    """Per entry of the item the `seq` of its row, 0 when it has none. Rows of steps and timers are not sent back."""
    at_us: int = 0
    """When the accepted rows were written."""
    problem: Problem | None = None


class ReportReply(Struct, frozen=True):
    """Answers in the order of the items."""

    items: list[ItemReply]


class BeatRequest(Request, frozen=True):
    """Keeps the registration's lease; on a connection of its own."""

    worker_id: str
    epoch: str


class BeatReply(Struct, frozen=True):
    """`holding` lists (execution, attempt, last seq) of what this worker holds, as the store sees it: whatever else the
    worker runs it has lost, and an execution whose seq is ahead has rows to fetch."""

    lost: bool
    holding: list[tuple[str, int, int]] = []


class DrainRequest(Request, frozen=True):
    """The registration ends; what it still holds goes back to the queues."""

    worker_id: str
    epoch: str
    died: bool = False
    """Said by who saw the worker's process end without a word of its own: what it held is lost, not handed back."""
