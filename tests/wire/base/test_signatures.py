"""Signed messages, against the scheme's example, and against every possible change."""

import pytest

from perdure.wire.base.errors import BadRequest
from perdure.wire.base.signatures import make_secret, signed_headers, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
AT = 1_614_265_330


def test_the_published_example() -> None:
    assert signed_headers([SECRET], ID, AT, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": str(AT),
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_either_of_two_secrets_is_good() -> None:
    old, new = make_secret(), make_secret()
    assert old != new
    headers = signed_headers([new, old], ID, AT, BODY)
    for secret in (old, new):
        verify(secret, headers, BODY, now_seconds=AT + 299)
    with pytest.raises(BadRequest, match="of this secret"):
        verify(make_secret(), headers, BODY, now_seconds=AT)


@pytest.mark.parametrize(
    ("change", "body", "now", "why"),
    [
        ({}, BODY + b" ", AT, "of this secret"),
        ({"webhook-id": "other"}, BODY, AT, "of this secret"),
        ({"webhook-timestamp": str(AT + 1)}, BODY, AT, "of this secret"),
        ({"webhook-signature": "v1a,xyz v2,abc ü"}, BODY, AT, "of this secret"),
        ({"webhook-timestamp": "soon"}, BODY, AT, "not signed"),
        ({}, BODY, AT + 301, "before or after"),
        ({}, BODY, AT - 301, "before or after"),
    ],
)
def test_what_was_changed_or_is_stale_is_refused(change: dict[str, str], body: bytes, now: int, why: str) -> None:
    headers = signed_headers([SECRET], ID, AT, BODY) | change
    with pytest.raises(BadRequest, match=why):
        verify(SECRET, headers, body, now_seconds=now)
    with pytest.raises(BadRequest, match="not signed"):
        verify(SECRET, {}, BODY, now_seconds=AT)


def test_a_secret_is_base64() -> None:
    with pytest.raises(BadRequest, match="base64"):
        signed_headers(["whsec_?"], ID, AT, BODY)
