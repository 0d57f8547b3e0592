"""What calls out of the caller's project are signed with: webhooks and calls to push workers."""

from msgspec import Struct

from perdure.engine.signing import OVERLAP_HOURS
from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.store.verbs.signing import Secrets
from perdure.wire.access import Role
from perdure.wire.public import Time, rfc3339

routes = Routes("Webhooks")


class SigningSecretResponse(Struct, frozen=True):
    """The secret that messages are signed with by the scheme of Standard Webhooks (`webhook-id`, `webhook-timestamp`,
    `webhook-signature`)."""

    secret: str
    """`whsec_` and base64."""
    created_at: Time
    previous_expires_at: Time | None = None
    """Until then messages carry a signature of the secret before it, too."""


class RotateSigningSecretRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How to replace the secret."""

    overlap_hours: float = OVERLAP_HOURS
    """How long messages carry signatures of both, at most 720; 0 when the old one must not be trusted any more."""


@routes.get("/api/v1/signing-secret", role=Role.ADMIN)
async def get_signing_secret(call: Call) -> SigningSecretResponse:
    """What webhooks and calls to push workers of this project are signed with."""
    return _shown(await call.engine.signing.secrets(call.project_id))


@routes.post("/api/v1/signing-secret/rotate", role=Role.ADMIN, idempotent=True)
async def rotate_signing_secret(call: Call, body: RotateSigningSecretRequest) -> SigningSecretResponse:
    """Replace the secret. While the two overlap, messages carry a signature of each, so receivers change in their own
    time.

    The same request again, by its Idempotency-Key, replaces nothing; 409 `SECRET_SHOWN_ONCE` once another one has.
    """
    return _shown(await call.engine.signing.rotate(call.project_id, body.overlap_hours, idempotency=idempotency(call)))


def _shown(secrets: Secrets) -> SigningSecretResponse:
    until_us = secrets.previous_until_us
    return SigningSecretResponse(
        secrets.secret, rfc3339(secrets.made_at_us), None if until_us is None else rfc3339(until_us)
    )
