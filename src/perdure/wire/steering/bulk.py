"""Bulk jobs: an action on all executions that filters find."""

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
    Time,
    Uuid,
    Value,
    id_check,
    within,
)
from perdure.wire.base.operation import Listed, Noun, Operation, validated
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
    """A field that exists only in a request for a single execution."""

    @property
    def options(self) -> dict[str, FieldInfo]:
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
    """The options of the action, named as in a request for a single execution."""

    key: KeyName | None = None
    """Resume, act: the step that waits for an answer, or the pending call."""
    data: Json = None
    """Resume: the answer. Default: null."""
    act: Action | None = None
    value: Json = None
    """Act: the value of `complete`."""
    error: str | None = None
    """Act: the message of `fail`."""
    from_step: KeyName | None = None
    """Retry, fork: the first step to run again."""
    from_end: bool | None = None
    """Retry: keep all outcomes, failures included."""
    keep_later: bool | None = None
    """Retry: keep the outcomes of steps called after the failure."""
    redo_later: bool | None = None
    """Retry: drop the outcomes of steps called after the failure."""
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
    """The job leaves out executions newer than this."""
    total: Int64
    """How many executions matched when the job was started."""
    at_least: bool
    """Whether there may be more than `total`, because counting ended after 5 seconds."""
    done: Int64
    refused: Int64
    later: Int64
    per_second: Double | None = None
    """Executions per second while the job ran."""
    created_at_us: Time
    starts_at_us: Time | None = None
    """The end of the hold, when the first execution may change. Null: the job was not held, or was stopped or continued
    since."""
    moved_at_us: Time
    """When the job last finished a page, was stopped or continued."""
    ended_at_us: Time | None = None

    @derived
    def left(self) -> int:
        return 0 if self.state is JobState.COMPLETED else max(self.total - self.done - self.refused, 0)


class BulkItem(Record, frozen=True):
    execution_id: Uuid
    state: ItemState
    at_us: Time
    made_id: Uuid | None = None
    """The execution started by the action."""
    reason: str | None = None
    """Why the execution was refused."""


class BulkPreview(Record, frozen=True):
    count: Int64
    at_least: bool
    """Whether there may be more than `count`, because counting ended after 5 seconds."""
    newest: Uuid
    """The newest execution found. A job with this `newest` leaves out later executions."""
    sample: list[Execution]
    """The newest 20."""
    later: Int64 = 0
    """Retry: how many executions called steps after the failure. The job refuses them without `keep_later` or
    `redo_later`. Executions not examined within 5 seconds do not count."""


bulk: Final = Noun("Bulk jobs")


class Selection(Struct, frozen=True):
    """An action and its executions."""

    action: BulkAction
    filters: ListFilters
    """Filters of the list of executions; at least one is required. Phases that do not allow the action are left out."""
    options: BulkOptions = field(default_factory=BulkOptions)

    @property
    def kind(self) -> str:
        """The key in `KINDS`. A retry takes completed executions only if a filter names them."""
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
        """Normalize the filters and add the phases that allow the action."""
        filters = validated(self.filters, "filters.")
        given = filters.wanted_phases()
        if given is None and not self.kind:
            return filters
        phases = [phase.value for phase in KINDS[self.kind] if given is None or phase in given]
        return msgspec.structs.replace(filters, status=None, phases=phases, not_phase=None)


def place_after(id: str) -> str:
    """Return the place before this execution."""
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
    """Count the executions that a bulk job would take, and show the newest 20. The preview changes nothing."""


JobId = Annotated[str, id_check("bulk job")]


@bulk.post("/api/v1/bulk", role=Role.ADMIN, idempotent=True)
class StartBulkJob(Selection, Operation[BulkJob], frozen=True, kw_only=True):
    """Start a bulk job, which runs in the background, takes each execution once, and survives the end of its server."""

    newest: Annotated[str, id_check("execution")] | None = None
    """The preview's `newest`: later executions are left out. Default: the newest that matches now."""
    expect: Int64 | None = None
    """The count from the preview; 409 if another number matches now."""
    note: Note | None = None
    """The reason, shown in the list of jobs."""
    hold_seconds: Annotated[int, within(0, HOLD_SECONDS_MAX)] = 0
    """Seconds before the first execution changes, at most 300. Stopping a held job leaves everything unchanged."""


@bulk.get("/api/v1/bulk", under="jobs", reply="BulkJobPage")
class ListBulkJobs(Operation[Listed[BulkJob]], frozen=True):
    """List bulk jobs, newest first."""

    cursor: Cursor | None = None
    limit: Limit = 50


@bulk.get("/api/v1/bulk/{job_id}")
class GetBulkJob(Operation[BulkJob], frozen=True):
    """The state and progress of one bulk job."""

    job_id: JobId


@bulk.get("/api/v1/bulk/{job_id}/items", under="items", reply="BulkItemPage")
class ListBulkItems(Operation[Listed[BulkItem]], frozen=True):
    """The executions that a bulk job has taken, newest first."""

    job_id: JobId
    state: ItemState | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@bulk.post("/api/v1/bulk/{job_id}/stop", repeated="no effect; 409 for a completed job", role=Role.ADMIN)
class StopBulkJob(Operation[BulkJob], frozen=True):
    """Stop a bulk job. After the reply the job takes no execution until continued. A job stopped during its hold has
    changed nothing."""

    job_id: JobId


@bulk.post("/api/v1/bulk/{job_id}/continue", repeated="no effect; 409 for a completed job", role=Role.ADMIN)
class ContinueBulkJob(Operation[BulkJob], frozen=True):
    """Continue a stopped bulk job with the remaining executions, or start a held job at once."""

    job_id: JobId


def stored(value: Record) -> bytes:
    return msgspec.json.encode(to_json(value))


def stored_selection(action: str, filters: bytes, options: bytes) -> Selection:
    """Decode a stored job. Raises ValueError and msgspec.ValidationError for a newer server's job: ignoring an unknown
    filter would make the job take too many executions."""
    return Selection(BulkAction(action), read_stored(ListFilters, filters), read_stored(BulkOptions, options))


def read_stored(cls: type[T], data: bytes) -> T:
    twin = reader(cls)
    read: T = twin(msgspec.json.decode(data, type=twin.type))
    return read
