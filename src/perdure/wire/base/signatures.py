"""Signed calls by the scheme of Standard Webhooks: they prove content, sender and time.

The secret is `whsec_` and base64. HMAC-SHA256 signs the message's id, the time and the body. While a secret is being
replaced, each has a signature.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from perdure.wire.base.errors import BadRequest

PREFIX: Final = "whsec_"
ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
TOLERANCE_SECONDS: Final = 300


def make_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signed_headers(secrets: Sequence[str], id: str, at_seconds: int, body: bytes) -> dict[str, str]:
    """Headers with one signature per secret. `at_seconds` counts from 1970."""
    signatures = " ".join("v1," + _signature(secret, id, at_seconds, body) for secret in secrets)
    return {ID: id, TIMESTAMP: str(at_seconds), SIGNATURE: signatures}


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now_seconds: float) -> None:
    """Check a message's headers (names in lower case) against the body, byte for byte as received.

    Raises `BadRequest` if a header is missing, the message is more than five minutes off, or no signature matches.
    """
    try:
        id, timestamp, given = headers[ID], headers[TIMESTAMP], headers[SIGNATURE]
        at_seconds = int(timestamp)
    except (KeyError, ValueError):
        raise BadRequest(f"The message is not signed: {ID}, {TIMESTAMP} and {SIGNATURE} are needed.") from None
    if abs(now_seconds - at_seconds) > TOLERANCE_SECONDS:
        raise BadRequest(f"The message was signed more than {TOLERANCE_SECONDS} seconds before or after now.")
    wanted = _signature(secret, id, at_seconds, body)
    for one in given.split():
        version, _, signature = one.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), wanted.encode()):
            return
    raise BadRequest("No signature of the message is of this secret.")


def _signature(secret: str, id: str, at_seconds: int, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise BadRequest(f"A signing secret is {PREFIX!r} and base64.") from None
    signed = b"%b.%d.%b" % (id.encode(), at_seconds, body)
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
