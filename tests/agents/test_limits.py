"""When a refusal of a provider says to come back."""

import pytest
from pydantic_ai.exceptions import ModelHTTPError

from perdure.agents.limits import SECONDS_MAX, wait_of


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "20"}, 20.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "9999999"}, SECONDS_MAX),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (
            {
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "2s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "3s",
            },
            3.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({}, None),
    ],
)
def test_a_refusal_says_when(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_of(ModelHTTPError(429, "m", headers=headers)) == seconds


def test_a_provider_without_headers_says_nothing() -> None:
    assert wait_of(ModelHTTPError(429, "m")) is None
