"""Forks and retries of executions."""

from typing import Annotated, ClassVar, Final

from msgspec import Raw, Struct, field

from perdure.wire.base.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import ExecutionId, Int64, KeyName, MaxItems, Time, Uuid
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.records import MaybeRaw
from perdure.wire.steering.acts import Note

EDITS_MAX: Final = 1_000


class Edits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    payload: MaybeRaw = None
    """The fork's input."""
    steps: Annotated[dict[str, Raw], MaxItems(EDITS_MAX)] = field(default_factory=dict)
    """Values in place of recorded outcomes, by the key of a step, a wait or a child that is kept."""


class Fork(Record, frozen=True, kw_only=True):
    shown_as: ClassVar[str] = "ForkResponse"

    execution_id: Uuid
    """The new execution."""
    created_at_us: Time
    forked_from: Uuid
    forked_at_step: str | None
    """The first step that runs again; null: all do, or only what was not recorded."""
    kept_rows: Int64
    """How many rows of the journal it starts with."""
    deployment_id: str | None


forks: Final = Noun("Executions")


def _edits(value: Edits, where: str) -> Edits:
    if len(value.steps) > EDITS_MAX:
        raise BadValue(f"{where}.steps: at most {EDITS_MAX:,} edits, got {len(value.steps):,}", {"path": where})
    if value.payload is not None:
        check_json(bytes(value.payload), where=f"{where}.payload")
    for key, edited in value.steps.items():
        check_name(key, where=f"{where}.steps", max_bytes=KEY_BYTES_MAX)
        check_json(bytes(edited), where=f"{where}.steps.{key}")
    return value


@forks.post("/api/v1/executions/{execution_id}/fork", idempotent=True, body="ForkRequest")
class ForkExecution(Operation[Fork], frozen=True):
    """Start an execution that keeps the outcomes of another one before `from_step`.

    Steps from there on run again, with the idempotency keys of the source. Children that were open are asked for again.
    """

    execution_id: ExecutionId
    from_step: KeyName | None = None
    """The key of the first step that runs again; null: the one after the last edited step, or all."""
    edits: Annotated[Edits, _edits] | None = None
    deployment_id: KeyName | None = None
    """Null: the current one."""
    fresh_keys: bool = False
    """Give the steps idempotency keys of their own."""
    key: KeyName | None = None
    """The readable key of the new execution."""
    note: Note | None = None


@forks.post("/api/v1/executions/{execution_id}/retry", idempotent=True, body="RetryRequest")
class RetryExecution(Operation[Fork], frozen=True):
    """Fork a final execution from what failed.

    The new execution takes over the key of the old one. If the code called further steps after the failure, the request
    says `keep_later` or `redo_later`, or is refused with 409 and their names. Steps with `on_retry` are decided.
    """

    execution_id: ExecutionId
    from_step: KeyName | None = None
    """The key of the first step that runs again; null: the step that failed, or all if the code itself failed."""
    from_end: bool = False
    """Keep all outcomes, failures included, and run the rest of the code again."""
    keep_later: bool = False
    """Keep the outcomes of steps that the code called after the failure, such as refunds."""
    redo_later: bool = False
    """Drop those outcomes. The steps run again if the code calls them again."""
    deployment_id: KeyName | None = None
    """Null: the current one."""
    fresh_keys: bool = False
    """Give the steps idempotency keys of their own."""
    note: Note | None = None

    @property
    def says_what_is_kept(self) -> int:
        """By how many options."""
        return (self.from_step is not None) + self.from_end + self.keep_later + self.redo_later

    def check(self) -> None:
        if self.from_end and self.from_step is not None:
            raise BadValue("body: name either `from_step` or `from_end`.", {"path": "body"})
        if self.says_what_is_kept > 1:
            raise BadValue(
                "body: name one of `keep_later`, `redo_later`, `from_step` and `from_end`; each says what is kept.",
                {"path": "body"},
            )
