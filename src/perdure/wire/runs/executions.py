"""Executions, journals and logs."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final

from msgspec import DecodeError, Raw, field, json
from msgspec.structs import force_setattr

from perdure.wire.agents.approvals import AnswerState
from perdure.wire.base.access import Role
from perdure.wire.base.codec import KEY_BYTES_MAX
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import (
    Check,
    Cursor,
    ExecutionId,
    HasMore,
    Int32,
    Int64,
    Json,
    KeyName,
    Limit,
    MaxItems,
    NextCursor,
    Note,
    Position,
    Time,
    Uuid,
    Value,
    between,
    checked_id,
    count_check,
    described,
    in_body,
    text_check,
)
from perdure.wire.base.operation import Noun, Operation, Stream
from perdure.wire.base.record import Record, shown_before
from perdure.wire.base.records import NULL, Kind, MaybeRaw
from perdure.wire.base.status import STATUS, Phase, Status
from perdure.wire.runs.search_terms import KEY_PART_CHARS, PART_CHARS_MIN, VALUE_BYTES_MAX, check_fields, error_words
from perdure.wire.runs.streams import StreamEnd, StreamItem

IDS_MAX: Final = 10_000
LIST_MAX: Final = 500
NAMES_MAX: Final = 50
"""Most names or tags in a filter."""
_TAGS: Final = json.Decoder(dict[str, str])


class Execution(Record, frozen=True, kw_only=True, gc=False):
    """`status` is the contract's word, `phase` is more precise.

    `due_at` ends the phase: a timer, a delayed start, or a time-out.
    """

    shown_as: ClassVar[str] = "ExecutionResponse"

    id: Uuid
    workflow_id: str
    payload: Raw
    created_at_us: Time
    retry_count: Int32
    result: Value = None
    error: str | None = None
    started_at_us: Time | None = None
    completed_at_us: Time | None = None
    deployment_id: str | None = None
    assigned_to_worker: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    step_key: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    batch_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    output_schema_name: str | None = None
    cancelled_at_us: Time | None = None
    cancelled_by: str | None = None
    run_timeout_seconds: Int32 | None = None
    key: str | None = None
    phase: Phase
    attempt: Int32
    tags: Value = None
    progress: Value = None
    forked_from: str | None = None
    """The execution whose outcomes are the beginning of this journal."""
    forked_at_step: str | None = None
    """The first step to run again."""
    retried_as: str | None = None
    """The retry of this execution. The retry has the key."""
    due_at_us: Time | None = None

    def __post_init__(self) -> None:
        # JSON has the same null for a result of null and for no result.
        if self.result is None and self.phase is Phase.COMPLETED:
            force_setattr(self, "result", NULL)

    @shown_before("payload")
    def status(self) -> Status:
        return STATUS[self.phase]


class ExecutionPage(Record, frozen=True):
    shown_as: ClassVar[str] = "ExecutionsResponse"

    executions: list[Execution]
    next_cursor: NextCursor | None = None
    searched_to_us: Time | None = None
    """Only on an empty page with a cursor: the search has come to executions created then."""
    searchable_from_us: Time | None = None
    """Only with the filter `field`, while the field is new: executions created before are not searched yet."""


class Row(Record, frozen=True, omit_defaults=True, gc=False):
    """Steps are the rows of kind `step`. `seq` starts at 1 and has no gaps; `at` never decreases."""

    shown_as: ClassVar[str] = "StepResponse"
    sent_as: ClassVar[str] = "row"
    answers_in_full: ClassVar[bool] = True

    seq: Int64
    at_us: Time
    kind: Kind
    attempt: int = 0
    key: str | None = None
    name: str | None = None
    """The step's function, the child's workflow or the topic."""
    fingerprint: str | None = None
    """A short hash of the encoded input, or a timer's due time. The worker compares the hash with the code's
    request."""
    ok: bool = True
    value: Raw = NULL
    """The outcome, an error when not `ok`."""
    started_at_us: Time | None = None
    tries: int = 0


class LogLine(Record, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`level` as in Python's standard library."""

    shown_as: ClassVar[str] = "LogResponse"
    sent_as: ClassVar[str] = "log"
    answers_in_full: ClassVar[bool] = True

    n: Int64 = 0
    """The number of the line in the execution's log, given by the server."""
    at_us: Time
    level: int
    text: str


CANCEL: Final = "cancel"
"""The action of an act."""


class Act(Record, frozen=True, kw_only=True):
    """A person or a program decided a pending call, or cancelled or forked the execution."""

    shown_as: ClassVar[str] = "ActRecord"

    seq: Int64
    """The row written or changed by the act."""
    at_us: Time = field(name="at")
    action: str
    key: str | None = None
    acted_by: str
    note: str | None = None


class JournalPage(Record, frozen=True):
    """`logs` only if requested, `acts` only if there are some."""

    shown_as: ClassVar[str] = "StepsResponse"

    steps: list[Row]
    has_more: HasMore
    logs: list[LogLine] | None = None
    acts: list[Act] | None = None
    """The acts with rows on this page."""


class LogPage(Record, frozen=True):
    shown_as: ClassVar[str] = "LogsResponse"

    logs: list[LogLine]
    has_more: HasMore


class Cancellation(Record, frozen=True):
    """`status` is `running` (phase cancelling) until the worker confirms, or `cancelled`."""

    shown_as: ClassVar[str] = "CancelExecutionResponse"

    execution_id: Uuid
    status: Status
    cancelled_at_us: Time


class ResumeReply(Record, frozen=True):
    """The answer that counts."""

    shown_as: ClassVar[str] = "ResumeResponse"

    execution_id: Uuid
    step_key: str
    state: AnswerState = AnswerState.ANSWERED
    """`early`: no step has asked yet. A step without a question takes the answer; a later question does not."""
    answered_by: str | None = None
    answered_at_us: Time | None = None


class Erased(Record, frozen=True):
    """How many are deleted, and how many are open and must be cancelled first."""

    shown_as: ClassVar[str] = "EraseResponse"

    erased: int
    open: int


class Finished(Record, frozen=True, omit_defaults=True):
    id: str
    phase: str
    result: MaybeRaw = None
    error: str | None = None
    detail: MaybeRaw = None
    """The failure as recorded in the journal: {"type", "message", …}."""


class WaitReply(Record, frozen=True):
    """The final executions among the ids, and the unknown ids."""

    finished: list[Finished]
    missing: list[str] = field(default_factory=list)


def _path(where: str) -> str:
    """A filter is in the query, or in a body as `filters.…`."""
    return where if "." in where else f"query.{where}"


def _names(value: str, where: str) -> str:
    """The search walks once per name in a filter."""
    if (count := value.count(",") + 1) > NAMES_MAX:
        raise BadValue(
            f"{_path(where)}: has {count:,} names; the limit is {NAMES_MAX}. Ask in several requests.",
            {"path": _path(where)},
        )
    return value


def words_check(known: Iterable[str]) -> Check:
    words = sorted(known)

    def run(value: list[str], where: str) -> list[str]:
        for word in value:
            if word not in words:
                path = _path(where)
                raise BadRequest(f"{path}: {word!r} is not one of {', '.join(words)}", {"path": path})
        return value

    return run


def _part(value: str, where: str) -> str:
    if len(value) < PART_CHARS_MIN:
        raise BadValue(
            f"{_path(where)}: {value!r} is too short; give at least {PART_CHARS_MIN} characters.",
            {"path": _path(where)},
        )
    return value[:KEY_PART_CHARS]


def _tags(value: str, where: str) -> str:
    if (count := len(read_tags(value, _path(where)))) > NAMES_MAX:
        raise BadValue(f"{_path(where)}: has {count:,} tags; the limit is {NAMES_MAX}.", {"path": _path(where)})
    return value


def read_tags(value: str, where: str = "tags") -> dict[str, str]:
    """Raises `BadValue`."""
    try:
        return _TAGS.decode(value)
    except DecodeError:
        raise BadValue(
            f'{where}: must be a JSON object of names and texts, such as {{"customer": "ann"}}; got {value!r}',
            {"path": where},
        ) from None


def _field(value: str, where: str) -> str:
    name, equals, wanted = value.partition("=")
    if not equals:
        raise BadValue(
            f"query.{where}: must be a field and its value, such as payload.customer.id=7; got {value!r}",
            {"path": f"query.{where}"},
        )
    check_fields([name], f"query.{where}")
    if len(wanted.encode()) > VALUE_BYTES_MAX:
        raise BadValue(
            f"query.{where}: values above {VALUE_BYTES_MAX} bytes are not searchable.", {"path": f"query.{where}"}
        )
    return value


def _words_of_error(value: str, where: str) -> str:
    if not any(len(word) >= PART_CHARS_MIN for word in error_words(value)):
        raise BadValue(
            f"{_path(where)}: {value!r} has no word of {PART_CHARS_MIN} characters or more; give a word of the error.",
            {"path": _path(where)},
        )
    return value


def _wait(value: float, where: str) -> float:
    if not value >= 0:  # false for NaN too
        raise BadRequest(f"A wait of {value!r} seconds is not possible; it must be 0 or more.")
    return value


def _ids(value: list[str], where: str) -> list[str]:
    return [checked_id(id) for id in value]


Wait = Annotated[float, _wait]
"""Seconds for which the server may hold the request."""
LastEventId = Annotated[str, described("Go on after this id. For clients that cannot set the header.")]
Names = Annotated[str, _names]
_LowerCase = Annotated[str, lambda value, where: value.lower()]


executions: Final = Noun("Executions")


@executions.get("/api/v1/executions/{execution_id}", contract=True, held="wait")
class GetExecution(Operation[Execution], frozen=True):
    """The state and result of an execution."""

    execution_id: ExecutionId
    wait: Wait | None = None
    """Seconds to hold the answer until the execution is final."""


class ListFilters(Record, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Filters of executions; None: no filter."""

    status: Annotated[list[str], words_check(Status)] | None = None
    """pending, running, completed, failed, cancelled; several with commas."""
    phases: Annotated[list[str], words_check(Phase)] | None = field(default=None, name="phase")
    """Finer than status: queued, running, waiting, cancelling, blocked, held, completed, failed, cancelled."""
    workflow_id: Names | None = None
    """Several with commas, at most 50."""
    session_id: str | None = None
    user_id: str | None = None
    queue_name: Names | None = None
    """Several with commas, at most 50."""
    batch_id: str | None = None
    parent_execution_id: _LowerCase | None = None
    """Children of this execution."""
    root_execution_id: _LowerCase | None = None
    """Everything below this root, without the root."""
    forked_from: _LowerCase | None = None
    """Forks and retries of this execution."""
    roots: bool | None = None
    """True: executions without a parent. False: executions with a parent."""
    deployment_id: Names | None = None
    """Several with commas, at most 50."""
    key: str | None = None
    q: Annotated[str, _part] | None = None
    """Free words: an id or its first 8 characters or more, or a part of the key as in `key_part`."""
    key_part: Annotated[str, _part] | None = None
    """The beginning of the key, or of one of the next three words; case counts. 2 to 64 characters."""
    tag: str | None = None
    """`name=value`, or `name` for any value."""
    tags: Annotated[str, _tags] | None = None
    """Several tags, all of which must match: a JSON object of names and values."""
    error: Annotated[str, _words_of_error] | None = None
    """Words of a failed execution's error, or beginnings of words; case does not count."""
    field: Annotated[str, _field] | None = None
    """A searchable field with value: `payload.customer.id=7`."""
    retried: bool | None = None
    """True: executions replaced by a retry. False: without a retry."""
    created_after_us: Time | None = None
    created_before_us: Time | None = None
    not_phase: Annotated[list[str], words_check(Phase)] | None = None
    """Phases to leave out; several with commas."""
    not_workflow_id: Names | None = None
    """Workflows to leave out; several with commas, at most 50."""
    not_deployment_id: Names | None = None
    """Deployments to leave out; several with commas, at most 50."""
    not_queue_name: Names | None = None
    """Queues to leave out; several with commas, at most 50."""
    not_tag: str | None = None
    """A tag to leave out: `name=value`, or `name` with any value."""

    @property
    def names_phases(self) -> bool:
        """True if a filter names wanted phases, not only unwanted phases."""
        return self.status is not None or self.phases is not None

    def wanted_phases(self) -> list[str] | None:
        """The wanted phases. None: all."""
        if not self.names_phases and self.not_phase is None:
            return None
        return [
            phase.value
            for phase, status in STATUS.items()
            if (self.status is None or status in self.status)
            and (self.phases is None or phase in self.phases)
            and phase not in (self.not_phase or ())
        ]


@executions.get("/api/v1/executions")
class ListExecutions(ListFilters, Operation[ExecutionPage], frozen=True):
    """List executions, newest first."""

    cursor: Cursor | None = None
    limit: Annotated[int, between(1, LIST_MAX)] = 50
    """1 to 500."""


@executions.post(
    "/api/v1/executions/wait", repeated="reads again", role=Role.READ, body="WaitRequest", held="wait_seconds"
)
class WaitForExecutions(Operation[WaitReply], frozen=True):
    """Hold the answer until one of the executions is final.

    The answer is empty if no execution was in time. Large results take several answers: ask again for the missing
    executions.
    """

    ids: Annotated[list[str], MaxItems(IDS_MAX), in_body(count_check(IDS_MAX)), _ids]
    wait_seconds: Wait = 30.0


@executions.get("/api/v1/executions/{execution_id}/steps", held="wait")
class GetSteps(Operation[JournalPage], frozen=True):
    """The journal of an execution."""

    execution_id: ExecutionId
    after: Position = 0
    """The `seq` of the last known row."""
    limit: Limit = 500
    after_log: Position | None = None
    """Include log lines after the line of this number."""
    wait: Wait | None = None
    """Seconds to hold the answer until there is something new."""


@executions.get("/api/v1/executions/{execution_id}/logs")
class GetLogs(Operation[LogPage], frozen=True):
    """The log lines of an execution."""

    execution_id: ExecutionId
    after: Position = 0
    """The number of the last known line."""
    limit: Limit = 500


@executions.get("/api/v1/executions/{execution_id}/events")
class StreamExecution(Operation[Stream[Row | LogLine | StreamEnd]], frozen=True):
    """Follow an execution as server-sent events: `row` (of the journal), `log`, and `end` after the final row."""

    execution_id: ExecutionId
    last_event_id: LastEventId | None = None


@executions.get("/api/v1/executions/{execution_id}/stream")
class StreamItems(Operation[Stream[StreamItem | StreamEnd]], frozen=True):
    """Follow the items emitted by an execution and everything below it.

    The server-sent events are `item`, and `end` when the execution is final.
    """

    execution_id: ExecutionId
    last_event_id: LastEventId | None = None


@executions.post(
    "/api/v1/executions/{execution_id}/cancel",
    role=Role.WORK,
    repeated="no effect; 400 after the end",
    contract=True,
    body="CancelRequest",
    bodiless=True,
)
class CancelExecution(Operation[Cancellation], frozen=True):
    """Ask for cancellation of an execution and everything below it."""

    execution_id: ExecutionId
    note: Note | None = None


@executions.post(
    "/api/v1/executions/{execution_id}/resume/{step_key}",
    repeated="the first answer stands and is returned",
    body="ResumeRequest",
)
class ResumeExecution(Operation[ResumeReply], frozen=True):
    """Answer a suspended step.

    The first answer counts. Repeating the same answer gets the first response again; another answer is 409. An answer
    before the question is kept, and taken only if the step shows nothing.
    """

    execution_id: ExecutionId
    step_key: KeyName
    data: Json = NULL
    question: str | None = None
    """The answered question's id; null: any."""


@executions.delete("/api/v1/executions/{execution_id}")
class DeleteExecution(Operation[None], frozen=True):
    """Delete a final execution, all descendants, and their journals."""

    execution_id: ExecutionId


_Owner = Annotated[str, text_check(KEY_BYTES_MAX)]


@executions.post("/api/v1/executions/erase", repeated="no effect", role=Role.ADMIN, body="EraseRequest")
class EraseExecutions(Operation[Erased], frozen=True):
    """Delete the final executions of a user or of a session."""

    user_id: _Owner | None = None
    session_id: _Owner | None = None

    def check(self) -> None:
        if (self.user_id is None) == (self.session_id is None):
            raise BadRequest("body: name either `user_id` or `session_id`.")
