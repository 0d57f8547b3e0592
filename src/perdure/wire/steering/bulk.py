"""Bulk jobs: one action on all executions that filters find."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import FieldInfo, asdict

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import (
    Cursor,
    Double,
    Int64,
    Json,
    KeyName,
    Limit,
    Name,
    NextCursor,
    Time,
    Uuid,
    Value,
    id_check,
    within,
)
from perdure.wire.base.operation import Noun, Operation, validated
from perdure.wire.base.record import Record, derived, reader, to_json
from perdure.wire.base.status import FINAL, STATUS, Phase
from perdure.wire.runs.executions import CancelExecution, DeleteExecution, Execution, ListFilters, ResumeExecution
from perdure.wire.steering.acts import Action, ActOnExecution, Note
from perdure.wire.steering.forks import Edits, ForkExecution, RetryExecution

T = TypeVar("T", bound=Record)

SAMPLE: Final = 20
HOLD_SECONDS_MAX: Final = 300
_SOME_ID: Final = "00000000-0000-7000-8000-000000000000"


class BulkAction(StrEnum):
    CANCEL = "cancel"
    RETRY = "retry"
    FORK = "fork"
    RESUME = "resume"
    ACT = "act"
    DELETE = "delete"


class Applied(NamedTuple):
    operation: type[Operation[Any]]
    kind: str = ""
    """A key of `KINDS`."""
    single: str = ""
    """A field that only a request for one execution has."""

    @property
    def options(self) -> dict[str, FieldInfo]:
        """Fields of the operation."""
        left_out = ("execution_id", "note", self.single)
        fields = [one for one in msgspec.structs.fields(self.operation) if one.name not in left_out]
        return {_NAMES.get(one.name, one.name): one for one in fields}


KINDS: Final[Mapping[str, Sequence[Phase]]] = {
    "": [*Phase],
    "open": [phase for phase in Phase if phase not in FINAL],
    "final": [phase for phase in Phase if phase in FINAL],
    "failed": [Phase.FAILED],
    "held": [Phase.HELD],
}
APPLIED: Final[Mapping[BulkAction, Applied]] = {
    BulkAction.CANCEL: Applied(CancelExecution, "open"),
    BulkAction.RETRY: Applied(RetryExecution, "final"),
    BulkAction.FORK: Applied(ForkExecution, single="key"),
    BulkAction.RESUME: Applied(ResumeExecution, "open", single="question"),
    BulkAction.ACT: Applied(ActOnExecution, "open"),
    BulkAction.DELETE: Applied(DeleteExecution, "final"),
}
_NAMES: Final = {"step_key": "key", "action": "act"}


class BulkOptions(Record, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The options of the action, as a request for one execution has them."""

    key: KeyName | None = None
    """Resume, act: the step that waits for an answer, or what is pending."""
    data: Json = None
    """Resume: the answer. Default: null."""
    act: Action | None = None
    value: Json = None
    """Act: the value of `complete`."""
    error: str | None = None
    """Act: the message of `fail`."""
    from_step: KeyName | None = None
    """Retry, fork: the first step that runs again."""
    from_end: bool | None = None
    """Retry: keep all outcomes, failures included."""
    keep_later: bool | None = None
    """Retry: keep the outcomes of steps that the code called after the failure."""
    redo_later: bool | None = None
    """Retry: drop those outcomes."""
    edits: Edits | None = None
    """Fork: other values for recorded outcomes, or another input."""
    deployment_id: Name | None = None
    """Retry, fork: where the new executions run. Default: the current deployment. Act: where held executions go on."""
    fresh_keys: bool | None = None
    """Retry, fork: give steps new idempotency keys."""


class JobState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    COMPLETED = "completed"


class ItemState(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    LATER = "later"


class BulkJob(Record, frozen=True, kw_only=True):
    """`refused` counts executions whose state did not allow the action. `later` counts executions that another
    transaction had locked; the job tries them again at its end."""

    id: Uuid
    action: BulkAction
    state: JobState
    filters: Value
    options: Value
    note: str | None = None
    started_by: str
    """A key, a user, or the embedding program."""
    newest: Uuid
    """The newest execution of the job. It leaves out later ones."""
    total: Int64
    """How many executions matched when the job was started."""
    at_least: bool
    """Whether there may be more than `total`, because counting ended after 5 seconds."""
    done: Int64
    refused: Int64
    later: Int64
    per_second: Double | None = None
    """While it ran."""
    created_at_us: Time
    starts_at_us: Time | None = None
    """The end of the hold: no execution changes before it. Null: the job was not held, or was stopped or continued
    since."""
    moved_at_us: Time
    """Its last page, stop or continuation."""
    ended_at_us: Time | None = None

    @derived
    def left(self) -> int:
        """How many are left of `total`."""
        return 0 if self.state is JobState.COMPLETED else max(self.total - self.done - self.refused, 0)


class BulkJobPage(Record, frozen=True):
    jobs: list[BulkJob]
    next_cursor: NextCursor | None = None


class BulkItem(Record, frozen=True):
    execution_id: Uuid
    state: ItemState
    at_us: Time
    made_id: Uuid | None = None
    """The execution that the action started."""
    reason: str | None = None
    """Why the execution was refused."""


class BulkItemPage(Record, frozen=True):
    items: list[BulkItem]
    next_cursor: NextCursor | None = None


class BulkPreview(Record, frozen=True):
    count: Int64
    at_least: bool
    """Whether there may be more than `count`, because counting ended after 5 seconds."""
    newest: Uuid
    """The newest of them. A job that gets it as `newest` leaves out later executions."""
    sample: list[Execution]
    """The newest 20."""
    later: Int64 = 0
    """Retry: how many called steps after the failure. The job refuses them without `keep_later` or `redo_later`.
    Executions that are not looked at within 5 seconds do not count."""


bulk: Final = Noun("Bulk jobs")


class Selection(Struct, frozen=True):
    """An action, and the executions that it is for."""

    action: BulkAction
    filters: ListFilters
    """As of the list of executions; at least one. Phases that the action cannot take are left out."""
    options: BulkOptions = field(default_factory=BulkOptions)

    @property
    def kind(self) -> str:
        """A key of `KINDS`. A retry takes completed executions only if a filter names them."""
        if self.action is BulkAction.RETRY and not self.filters.names_phases:
            return "failed"
        if self.action is BulkAction.ACT and self.options.key is None:
            return "held"
        return APPLIED[self.action].kind

    def check(self) -> None:
        kind = APPLIED[self.action].kind
        validated(self.filters, "filters.")
        validated(self.options, "options.")
        if self.filters == ListFilters():
            raise BadValue("A bulk job needs a filter. `created_before` of now takes all.", {"path": "filters"})
        self._check_options()
        validated(self.operation(_SOME_ID), "options.")
        wanted = self.filters.wanted_phases() if self.filters.names_phases else None
        if wanted is not None and not set(wanted) <= set(KINDS[kind]):
            statuses = ", ".join(dict.fromkeys(STATUS[phase] for phase in KINDS[kind]))
            raise BadValue(
                f"filters.status: {self.action} needs {kind} executions; leave out status and phase, or use "
                f"{statuses}.",
                {"path": "filters.status"},
            )

    def _check_options(self) -> None:
        known, given = APPLIED[self.action].options, self._given
        for name in given:
            if name not in known:
                takes = f"only {', '.join(known)}" if known else "no options"
                raise BadValue(f"options.{name}: {self.action} takes {takes}.", {"path": f"options.{name}"})
        for name, one in known.items():
            if one.required and name not in given:
                raise BadValue(f"options.{name}: {self.action} needs it.", {"path": f"options.{name}"})

    @property
    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self.options).items() if value is not None}

    def operation(self, execution_id: str, note: str | None = None) -> Operation[Any]:
        applied = APPLIED[self.action]
        given = {applied.options[name].name: value for name, value in self._given.items()}
        if note is not None and "note" in applied.operation.__struct_fields__:
            given["note"] = note
        return applied.operation(execution_id, **given)

    def wanted(self) -> ListFilters:
        """The filters in their normal form, with the phases that the action takes."""
        filters = validated(self.filters, "filters.")
        given = filters.wanted_phases()
        if given is None and not self.kind:
            return filters
        phases = [phase.value for phase in KINDS[self.kind] if given is None or phase in given]
        return msgspec.structs.replace(filters, status=None, phases=phases, not_phase=None)


def place_after(id: str) -> str:
    """The place before this execution."""
    return id + "~"


_PLAIN: Final = frozenset({"status", "phase", "not_phase", "created_after", "created_before"})


def filters_in_words(filters: ListFilters) -> str:
    """
    >>> filters_in_words(ListFilters(status=["failed", "cancelled"], workflow_id="order", created_after_us=0))
    "status failed or cancelled, workflow_id 'order', created_after 1970-01-01T00:00:00.000000+00:00"
    """
    given: dict[str, Any] = msgspec.to_builtins(to_json(filters))
    words = []
    for name, value in given.items():
        plain = " or ".join(value) if isinstance(value, list) else value
        words.append(f"{name} {plain if name in _PLAIN else repr(plain)}")
    return ", ".join(words)


@bulk.post("/api/v1/bulk/preview", repeated="reads again", role=Role.ADMIN)
class PreviewBulkJob(Selection, Operation[BulkPreview], frozen=True):
    """Count the executions that a bulk job would take, and show the newest 20. Nothing changes."""


JobId = Annotated[str, id_check("bulk job")]


@bulk.post("/api/v1/bulk", role=Role.ADMIN, idempotent=True)
class StartBulkJob(Selection, Operation[BulkJob], frozen=True, kw_only=True):
    """Start a bulk job. It runs in the background, takes each execution once, and survives the end of its server."""

    newest: Annotated[str, id_check("execution")] | None = None
    """From the preview: leave out later executions. Default: the newest that matches now."""
    expect: Int64 | None = None
    """From the preview: refuse with 409 if another number matches now."""
    note: Note | None = None
    """Why, for the list of jobs."""
    hold_seconds: Annotated[int, within(0, HOLD_SECONDS_MAX)] = 0
    """Wait so long before the first execution changes, at most 300 seconds. Stopping the job meanwhile undoes it."""


@bulk.get("/api/v1/bulk")
class ListBulkJobs(Operation[BulkJobPage], frozen=True):
    """List bulk jobs, newest first."""

    cursor: Cursor | None = None
    limit: Limit = 50


@bulk.get("/api/v1/bulk/{job_id}")
class GetBulkJob(Operation[BulkJob], frozen=True):
    """The state and progress of one bulk job."""

    job_id: JobId


@bulk.get("/api/v1/bulk/{job_id}/items")
class ListBulkItems(Operation[BulkItemPage], frozen=True):
    """The executions that a bulk job has taken, newest first."""

    job_id: JobId
    state: ItemState | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@bulk.post("/api/v1/bulk/{job_id}/stop", repeated="no effect; 409 for a completed job", role=Role.ADMIN)
class StopBulkJob(Operation[BulkJob], frozen=True):
    """Stop a bulk job. After the reply it takes no execution until it is continued. A held job has changed nothing
    then."""

    job_id: JobId


@bulk.post("/api/v1/bulk/{job_id}/continue", repeated="no effect; 409 for a completed job", role=Role.ADMIN)
class ContinueBulkJob(Operation[BulkJob], frozen=True):
    """Continue a stopped bulk job with the executions that are left, or start a held one at once."""

    job_id: JobId


def stored(value: Record) -> bytes:
    return msgspec.json.encode(to_json(value))


def stored_selection(action: str, filters: bytes, options: bytes) -> Selection:
    """Raises ValueError and msgspec.ValidationError for a job of a newer server. A filter that is not known here would
    make the job take too many executions."""
    return Selection(BulkAction(action), read_stored(ListFilters, filters), read_stored(BulkOptions, options))


def read_stored(cls: type[T], data: bytes) -> T:
    twin = reader(cls)
    read: T = twin(msgspec.json.decode(data, type=twin.type))
    return read
