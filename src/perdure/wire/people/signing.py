from typing import Annotated, ClassVar, Final

from msgspec import field

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import Time
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record

OVERLAP_HOURS: Final = 24.0
OVERLAP_HOURS_MAX: Final = 24.0 * 30


def _overlap(hours: float, where: str) -> float:
    if not 0 <= hours <= OVERLAP_HOURS_MAX:
        raise BadValue(f"{where}: must be 0 to {OVERLAP_HOURS_MAX:g}, got {hours:g}.", {"path": where})
    return hours


class SigningSecret(Record, frozen=True):
    """The secret for signing messages by the scheme of Standard Webhooks."""

    shown_as: ClassVar[str] = "SigningSecretResponse"

    secret: str
    """`whsec_` and base64."""
    created_at_us: Time = field(name="created_at")
    previous_until_us: Time | None = field(default=None, name="previous_expires_at")
    """When the previous secret's signatures end."""


signing: Final = Noun("Webhooks")


@signing.get("/api/v1/signing-secret", role=Role.ADMIN)
class GetSigningSecret(Operation[SigningSecret], frozen=True):
    """The secret for signing webhooks and calls to push workers of the project."""


@signing.post("/api/v1/signing-secret/rotate", role=Role.ADMIN, idempotent=True)
class RotateSigningSecret(Operation[SigningSecret], frozen=True):
    """Replace the secret.

    During the overlap, messages carry a signature of each secret. Repeating the request with the same Idempotency-Key
    replaces nothing; 409 `SECRET_SHOWN_ONCE` after another replacement.
    """

    overlap_hours: Annotated[float, _overlap] = OVERLAP_HOURS
    """Hours in which both secrets sign, at most 720; 0 if the old secret must not be trusted any more."""
