"""The structs between clients, workers and the server, over HTTP or in the same process."""

from typing import Annotated, Final

import msgspec
from msgspec import Raw, Struct, field, structs

from perdure.wire.agents.budgets import BudgetSpec
from perdure.wire.agents.transcripts import MESSAGES_MAX, OnConflict
from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import Int64, KeyName, MaxItems
from perdure.wire.base.limits import IN_FLIGHT_MAX, REGISTERED_MAX, REPORT_ITEMS_MAX
from perdure.wire.base.operation import Noun, Operation, Request
from perdure.wire.base.record import Record
from perdure.wire.base.records import NULL, MaybeRaw, Problem
from perdure.wire.base.times import AtUs
from perdure.wire.clock.schedules import ScheduleSpec
from perdure.wire.clock.triggers import TriggerSpec
from perdure.wire.runs.executions import LogLine, Row
from perdure.wire.runs.workflows import WorkflowDescription, WorkflowType

PROTOCOL_VERSION: Final = 1
"""A server refuses native workers with another version."""
PAYLOADS_APART: Final = "Perdure-Payloads", "apart"
"""The header of a claim whose worker takes the reply of `ClaimReply.write_apart`."""
WORKER_PROTOCOL: Final = 2
"""The abilities of this release's workers, beyond the first protocol.

2: workers take the seed and the idempotency keys of a fork from the claim.
"""


class StartItem(Request, frozen=True):
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
    """Set by `map_children`."""
    otel_traceparent: str | None = None
    initial_state: MaybeRaw = None
    channel_context: MaybeRaw = None
    webhook_url: str | None = None
    """A URL for a notification of the end."""
    on_conflict: OnConflict | None = None
    """The execution is a turn of its session; the value decides about a start while another turn is open."""
    budget: BudgetSpec | None = None
    """Spending limits for the execution and all descendants."""


class Started(Struct, frozen=True):
    """`existing`: the item's key already named an execution."""

    execution_id: str
    created_at_us: int
    existing: bool = False


class StartAnswer(Record, frozen=True, omit_defaults=True):
    """An execution, or the problem of the item."""

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


class StartReply(Record, frozen=True):
    """Answers in the order of the items."""

    items: list[StartAnswer]


class EventItem(Request, frozen=True):
    """An event to publish. For a repeated `dedup_key` the topic keeps the first event and answers with its number."""

    data: Raw = NULL
    event_type: KeyName | None = None
    dedup_key: KeyName | None = None


workers: Final = Noun("Workers")


class WorkflowSpec(Request, frozen=True):
    """A workflow, with defaults for executions."""

    id: str
    queue_name: str | None = None
    output_schema_name: str | None = None
    run_timeout_seconds: int | None = None
    wake_on_cancel: bool = False
    type: WorkflowType = WorkflowType.WORKFLOW
    agent: "AgentSpec | None" = None
    searchable: list[str] = field(default_factory=list)
    """Fields of payload and result, such as `payload.customer.id`, for finding executions."""
    description: WorkflowDescription | None = None
    """Servers of earlier releases refuse the field."""


class AgentSpec(Request, frozen=True):
    id: str
    provider: str
    model: str
    system_prompt: str | None = None
    tools: MaybeRaw = None
    metadata: MaybeRaw = None


class QueueSpec(Request, frozen=True):
    """A queue's limits; None: no limit."""

    name: str
    concurrency_limit: int | None = None
    total_limit: int | None = None


class RegisterReply(Struct, frozen=True):
    """The server refuses messages of another `epoch`, the store's life."""

    epoch: str
    project_id: str
    lease_us: int
    beat_us: int
    grace_us: int = 30_000_000
    beats_name_steps: bool = False
    """Beats may name the steps in flight."""
    ends_with_steps: bool = False
    """A report may hold a step's outcome together with the end returning the outcome."""
    outage_us: int = 600_000_000
    """Microseconds for which a worker keeps its executions after `STORE_AWAY`."""


@workers.post("/worker/v1/register", role=Role.WORK, name="register", body="RegisterRequest", protocol=True)
class RegisterRequest(Operation[RegisterReply], frozen=True):
    """Open a registration.

    The worker makes `worker_id` (a UUID), so a repeat is harmless.
    """

    worker_id: str
    deployment_id: str
    python: str
    workflows: Annotated[list[WorkflowSpec], MaxItems(REGISTERED_MAX)]
    queues: Annotated[list[QueueSpec], MaxItems(REGISTERED_MAX)] = field(default_factory=list)
    capacity: int = 100
    embedded: bool = False
    schedules: Annotated[list[ScheduleSpec], MaxItems(REGISTERED_MAX)] = field(default_factory=list)
    """All schedules declared in code. For the current deployment, the server deletes other schedules from code."""
    triggers: Annotated[list[TriggerSpec], MaxItems(REGISTERED_MAX)] = field(default_factory=list)
    """The same for event triggers."""
    protocol: int = 1
    """The worker gets no execution in need of a greater version."""
    host: str | None = None
    """The worker's machine. Servers of earlier releases refuse `host` and `pid`."""
    pid: Int64 | None = None


class Claimed(Struct, frozen=True, omit_defaults=True, gc=False):
    """`rows` are the journal after `base`, which is 0 unless the worker has parked the execution. `more`: an empty
    report fetches further rows. `ack_first`: send an empty report before the code runs."""

    id: str
    workflow_id: str
    attempt: int
    payload: Raw
    created_at_us: int
    rows: list[Row] = field(default_factory=list)
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
    """True if an execution of the tree has a budget."""
    seed_id: str | None = None
    """The execution whose id seeds random numbers of a fork."""
    keys_id: str | None = None
    """The execution whose idempotency keys continue here; None: own keys."""


class ClaimReply(Struct, frozen=True):
    """`news` are held executions with new rows, which an empty report fetches.

    `held_us` tells how long the server held the claim. If set, the server may take the work back unless the next claim
    comes within a second.
    """

    items: list[Claimed]
    news: list[str] = field(default_factory=list)
    held_us: int | None = None

    def write_apart(self) -> bytes:
        """The size of the JSON, a newline, the JSON with sizes in place of payloads, and the payloads. The worker then
        parses each payload once."""
        payloads = [bytes(one.payload) for one in self.items]
        items = [
            structs.replace(one, payload=Raw(b"%d" % len(payload)))
            for one, payload in zip(self.items, payloads, strict=True)
        ]
        head = msgspec.json.encode(structs.replace(self, items=items))
        return b"".join((b"%d\n" % len(head), head, *payloads))

    def put_payloads(self, body: bytes, begin: int) -> "ClaimReply":
        """Replace the sizes by the payloads from place `begin` on."""
        for one in self.items:
            end = begin + int(bytes(one.payload))
            structs.force_setattr(one, "payload", Raw(body[begin:end]))
            begin = end
        return self


@workers.post("/worker/v1/claim", role=Role.WORK, name="claim", body="ClaimRequest", protocol=True, held="wait_seconds")
class ClaimRequest(Operation[ClaimReply], frozen=True):
    """Ask for up to `capacity` executions in a long poll.

    Claim ids of a registration ascend, as text. The newest id again gets the same batch; an older id is a late copy and
    gets nothing.
    """

    worker_id: str
    epoch: str
    claim_id: str
    capacity: int
    wait_seconds: float = 20.0
    arrived: str | None = None
    """The claim whose answer has arrived. The server no longer takes the work of the claim back."""


class StepDone(Request, frozen=True, tag="step"):
    """A step's outcome or, with `last=False`, a failed try before a retry."""

    key: str
    name: str
    fingerprint: str | None
    ok: bool
    value: Raw
    started_at_us: AtUs
    tries: int = 1
    last: bool = True
    label: str | None = None
    """The name for people, at most 200 bytes."""
    quiet: bool = False
    """Timelines fold the step with neighbours."""


class TimerFired(Request, frozen=True, tag="timer"):
    key: str
    at_us: AtUs


class StartChild(Request, frozen=True, tag="child"):
    key: str
    fingerprint: str | None
    item: StartItem


class Publish(Request, frozen=True, tag="publish"):
    key: str
    fingerprint: str | None
    topic: str
    events: list[EventItem]


class Answer(Request, frozen=True, tag="answer"):
    """Answer a suspended step of another execution."""

    key: str
    fingerprint: str | None
    execution_id: str
    step_key: str
    data: Raw


class OpenWait(Request, frozen=True, tag="wait"):
    """Wait for the next event of `topic` not yet taken by this execution or, without a topic, for an answer."""

    key: str
    fingerprint: str | None
    topic: str | None = None
    match: dict[str, Raw] | None = None
    after: int | None = None
    latest: bool = False
    data: MaybeRaw = None
    """The suspended step's data for the person who answers."""
    expires_at_us: AtUs | None = None
    """When the code continues without an answer."""
    answer_schema: MaybeRaw = None
    """JSON Schema of the answer, for people, at most 16 KiB. Servers of earlier releases refuse the field."""


class CloseWait(Request, frozen=True, tag="close"):
    """The code gave up a wait: a time-out, or a cancelled branch."""

    key: str


class ReadTranscript(Request, frozen=True, tag="read_transcript"):
    """The row has the newest version, by which the worker fetches the messages."""

    key: str
    session_id: str


class AppendMessages(Request, frozen=True, tag="append_messages"):
    """Append to a session's transcript. A `version` must be the newest, or the append fails."""

    key: str
    fingerprint: str | None
    session_id: str
    messages: Annotated[list[Raw], MaxItems(MESSAGES_MAX)]
    version: int | None = None


class Summarize(Request, frozen=True, tag="summarize"):
    """Append a summary in place of the transcript up to entry `upto`."""

    key: str
    fingerprint: str | None
    session_id: str
    upto: int
    summary: Raw
    version: int | None = None


class TakeMessages(Request, frozen=True, tag="take_messages"):
    """Take the messages for this open turn from later turns of the same workflow."""

    key: str
    session_id: str


class LeaveMessages(Request, frozen=True, tag="leave_messages"):
    """Return messages without use for this turn. Each message becomes a turn, which no other turn takes."""

    key: str
    session_id: str
    execution_ids: list[str]


TranscriptEntry = ReadTranscript | AppendMessages | Summarize | TakeMessages | LeaveMessages
Entry = StepDone | TimerFired | StartChild | Publish | Answer | OpenWait | CloseWait | TranscriptEntry
"""An entry's effect and journal row are one transaction."""


class Suspend(Request, frozen=True, tag="suspend"):
    """`waits` are the keys of all open waits, `timer` is the earliest timer.

    Refused if the journal has outcomes unknown to the worker; the reply then has rows and no `ended`. Child starts of
    the same item are exempt: the worker waits for the children in any case, and the reply has their rows.
    """

    waits: list[str]
    timer: tuple[str | None, AtUs] | None = None
    """Key and due time; without a key, the pause before a step's next try."""
    parked: bool = False


class Complete(Request, frozen=True, tag="complete"):
    """`returns_step`: the code only returned the outcome of the item's single entry, before the record. If the journal
    has rows unknown to the worker, the server records the step and not the end."""

    result: Raw
    returns_step: bool = False


class Fail(Request, frozen=True, tag="fail"):
    """The code failed. `retry_delay_us` asks for another try: then the failed steps `take_back` run again, and the
    later steps `redo` lose their outcomes."""

    error: str
    detail: Raw
    retry_delay_us: int | None = None
    take_back: list[str] = field(default_factory=list)
    redo: list[str] = field(default_factory=list)


class Release(Request, frozen=True, tag="release"):
    """The worker hands the execution back unfinished."""


class Block(Request, frozen=True, tag="block"):
    """The worker's code does not match the journal."""

    error: str
    detail: Raw


class Hold(Request, frozen=True, tag="hold"):
    """The tries are used up, and the code asks to be held instead of failed.

    `steps` are the keys of failed steps awaited by the code. Without `steps` the code itself has failed, and the steps
    `take_back` run again with the next try. A hold with `steps` is refused like `Suspend`.
    """

    error: str
    detail: Raw
    steps: list[str] = field(default_factory=list)
    take_back: list[str] = field(default_factory=list)


class Cancelled(Request, frozen=True, tag="cancelled"):
    """The requested cancellation is complete."""


End = Suspend | Complete | Fail | Release | Block | Hold | Cancelled


class Emitted(Request, frozen=True):
    """An item of a stream. `key` and `tries` name the run of code."""

    kind: str
    key: str
    data: Raw = NULL
    tries: int = 1


class OpenCall(Request, frozen=True):
    """A step running for long, or a timer: `kind` is `step` or `timer`."""

    key: str
    kind: str
    name: str | None = None
    since_us: AtUs = 0
    due_us: AtUs | None = None
    tries: int = 0
    """Failed tries so far."""


class ReportItem(Request, frozen=True):
    """`number` counts this attempt's reports from 1; 0 only reads. `seen` is the worker's last row. An item without
    entries and end acknowledges the delivery and fetches rows."""

    execution_id: str
    attempt: int
    number: int
    seen: int
    entries: list[Entry] = field(default_factory=list)
    end: End | None = None
    logs: list[LogLine] = field(default_factory=list)
    progress: MaybeRaw = None
    child: bool = False
    """A hint, set with an end: a waiting parent may be dispatched at once."""
    stream: list[Emitted] = field(default_factory=list)
    """The item needs a number, so that a repeat adds nothing."""
    stream_of: str | None = None
    """A hint: the root whose stream gets the items."""
    changed_inputs: int = 0
    """How many calls got outcomes recorded for other inputs; a line of `logs` names the calls."""
    open_calls: list[OpenCall] | None = None
    """Steps running for long, and timers, if changed. Acts find such calls here."""


class ItemReply(Struct, frozen=True, omit_defaults=True):
    """`rows` are all rows unknown to the worker. `ended`: the item's end took effect. `lost`: the attempt no longer
    holds the execution, and the worker drops the execution."""

    rows: list[Row] = field(default_factory=list)
    more: bool = False
    ended: bool = False
    lost: bool = False
    accepted: list[int] = field(default_factory=list)
    """The `seq` of each entry's row, or 0. Rows of steps and timers are not sent back."""
    at_us: int = 0
    """When the accepted rows were written."""
    problem: Problem | None = None


class ReportReply(Struct, frozen=True):
    """The replies in the order of the request."""

    items: list[ItemReply]


@workers.post("/worker/v1/report", role=Role.WORK, name="report", body="ReportRequest", protocol=True)
class ReportRequest(Operation[ReportReply], frozen=True):
    """Send pending reports, at most an item per execution."""

    worker_id: str
    epoch: str
    items: Annotated[list[ReportItem], MaxItems(REPORT_ITEMS_MAX, BadRequest)]


class BeatReply(Struct, frozen=True):
    """`holding` lists (execution, attempt, last seq). The worker has lost every other execution. A greater seq than the
    worker's means rows to fetch."""

    lost: bool
    holding: list[tuple[str, int, int]] = field(default_factory=list)
    others_wait: bool = False
    """Another worker waits, and could run this worker's executions."""


StepInFlight = tuple[str, str, int, int]
"""Execution, key, try, and the begin in microseconds."""


@workers.post("/worker/v1/beat", role=Role.WORK, name="beat", body="BeatRequest", protocol=True)
class BeatRequest(Operation[BeatReply], frozen=True):
    """Renew the registration's lease, on a separate connection.

    When the peer closes this connection, the server cuts the lease to a second.
    """

    worker_id: str
    epoch: str
    in_flight: Annotated[list[StepInFlight], MaxItems(IN_FLIGHT_MAX)] = field(default_factory=list)
    """The steps running for half a second or longer, the oldest first."""


@workers.post("/worker/v1/drain", role=Role.WORK, name="drain", body="DrainRequest", protocol=True)
class DrainRequest(Operation[None], frozen=True):
    """End the registration; executions go back to the queues."""

    worker_id: str
    epoch: str
    died: bool = False
    """A supervisor saw the process die, so executions are lost and not handed back."""
