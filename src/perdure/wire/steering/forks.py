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
    """Values that replace recorded outcomes, by the key of a kept step, wait or child."""


class Fork(Record, frozen=True, kw_only=True):
    shown_as: ClassVar[str] = "ForkResponse"

    execution_id: Uuid
    """The new execution."""
    created_at_us: Time
    forked_from: Uuid
    forked_at_step: str | None
    """The first step that runs again. Null: all steps do, or only unrecorded ones."""
    kept_rows: Int64
    """How many rows of the source's journal the fork starts with."""
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
    """Start an execution that keeps another execution's outcomes before `from_step`.

    From there on steps run again, with the idempotency keys of the source. Open children are requested again.
    """

    execution_id: ExecutionId
    from_step: KeyName | None = None
    """The key of the first step that runs again. Null: the step after the last edited step, or all steps."""
    edits: Annotated[Edits, _edits] | None = None
    deployment_id: KeyName | None = None
    """Null: the current deployment."""
    fresh_keys: bool = False
    """Give steps new idempotency keys."""
    key: KeyName | None = None
    """The readable key of the new execution."""
    note: Note | None = None


@forks.post("/api/v1/executions/{execution_id}/retry", idempotent=True, body="RetryRequest")
class RetryExecution(Operation[Fork], frozen=True):
    """Fork a final execution from the failed step.

    The new execution takes over the key of the old one. If the code called more steps after the failure, the request
    needs `keep_later` or `redo_later`; the 409 without either names the steps. Steps with `on_retry` need neither.
    """

    execution_id: ExecutionId
    from_step: KeyName | None = None
    """The key of the first step that runs again. Null: the failed step, or all steps if the code itself failed."""
    from_end: bool = False
    """Keep all outcomes, failures included, and run the rest of the code again."""
    keep_later: bool = False
    """Keep the outcomes of steps that the code called after the failure, such as refunds."""
    redo_later: bool = False
    """Drop the outcomes of steps that the code called after the failure. Such steps run again if called again."""
    deployment_id: KeyName | None = None
    """Null: the current deployment."""
    fresh_keys: bool = False
    """Give steps new idempotency keys."""
    note: Note | None = None

    @property
    def says_what_is_kept(self) -> int:
        """How many options say what is kept."""
        return (self.from_step is not None) + self.from_end + self.keep_later + self.redo_later

    def check(self) -> None:
        if self.from_end and self.from_step is not None:
            raise BadValue("body: name either `from_step` or `from_end`.", {"path": "body"})
        if self.says_what_is_kept > 1:
            raise BadValue(
                "body: name one of `keep_later`, `redo_later`, `from_step` and `from_end`; each says what is kept.",
                {"path": "body"},
            )
