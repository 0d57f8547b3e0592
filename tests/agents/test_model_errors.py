"""Failures of models: what comes back from a journal is of the library's class, with its fields."""

from typing import Any

import pytest
from pydantic_ai import Agent, exceptions
from pydantic_ai.capabilities import ModelFallback
from pydantic_ai.exceptions import ModelHTTPError
from tests.agents.scripted import Script, crashed

from perdure.agents import durable
from perdure.agents.model_errors import note_failure, recorded_failure
from perdure.sdk.base.errors import RecordedError, StepFailed
from perdure.sdk.payloads.errors import error_from_json, error_to_json

LIBRARY = (
    *("model_name", "body", "provider_error_code", "provider_error_type", "retry_after", "in_stream", "status_code"),
    *("suggested_model_id", "hint", "phase", "timeout", "setting", "message"),
)


def http(category: Any = None, status: int = 400, **fields: Any) -> ModelHTTPError:
    return ModelHTTPError.for_category(category, status_code=status, model_name="m", **fields)


FAILURES = [
    http(exceptions.ModelRateLimitError, 429, body={"error": {"code": 1}}, headers={"Retry-After": "20"}),
    http(exceptions.ModelQuotaExceededError, 402, body="pay", provider_error_code="insufficient_quota"),
    http(exceptions.ModelOverloadedError, 529, in_stream=True, provider_error_type="overloaded_error"),
    http(exceptions.ModelUnavailableError, 503),
    http(exceptions.ModelServerError, 500),
    http(exceptions.ModelContextWindowExceededError),
    http(exceptions.ModelAuthenticationError, 401),
    http(exceptions.ModelNotFoundError, 404, suggested_model_id="n", hint="Look there."),
    http(exceptions.ModelRequestRejectedError, 422, body=["a", 1, None]),
    http(None, 418, body={"tea": True}),
    exceptions.ModelContextWindowExceededError("m", "too long", provider_error_code="context_length_exceeded"),
    exceptions.ModelRateLimitError("m", "slow down", retry_after=1.5),
    exceptions.ModelConnectionError("m", "refused", phase="connect"),
    exceptions.ModelTimeoutError("m", "too slow", phase="read", in_stream=True),
    exceptions.ModelRequestTimeout("m", 5.0, setting="first_event_timeout"),
    exceptions.ModelAPIError("m", "whatever", body={"a": 1}),
    exceptions.IncompleteToolCall("cut off"),
    exceptions.OutputTokenLimitExceeded("cut off", '{"a": 1}'),
    exceptions.ContentFilterError("no", "not JSON"),
    exceptions.UnexpectedModelBehavior("odd"),
    exceptions.UsageLimitExceeded("enough."),
    exceptions.ConcurrencyLimitExceeded("full"),
    exceptions.SuspendedResponseExpired("gone"),
    exceptions.UserError("wrong"),
]


def recorded(error: Exception, wait_seconds: float | None = None) -> StepFailed:
    """The failure of a step that raised `error`."""
    note_failure(error, wait_seconds)
    return read(error_to_json(error))


def read(record: bytes) -> StepFailed:
    found = error_from_json(record)
    failure = StepFailed(found.message, type=found.type, key="model:1")
    failure.__cause__ = RecordedError(found.message, type=found.type, detail=found.detail, details=found.details)
    return failure


def fields(error: BaseException) -> dict[str, Any]:
    return {name: getattr(error, name, "none") for name in LIBRARY}


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: f"{type(error).__name__}-{error}"[:40])
def test_a_failure_comes_back_with_its_class_and_its_fields(error: Exception) -> None:
    failure = recorded(error)
    found, wait_seconds = recorded_failure(failure, "other")
    assert type(found) is type(error) and wait_seconds is None
    assert (str(found), fields(found)) == (str(error), fields(error))
    assert found.__cause__ is failure


def test_headers_that_say_when_to_come_back_are_kept_and_others_are_not() -> None:
    sent = {"Retry-After": "7", "x-should-retry": "true", "x-ratelimit-reset-tokens": "6s", "set-cookie": "secret"}
    record = recorded(http(exceptions.ModelRateLimitError, 429, headers=sent))
    assert "secret" not in str(record.cause and record.cause.details)
    found, _ = recorded_failure(record, "m")
    assert isinstance(found, ModelHTTPError) and found.provider_retry_hint is True
    assert found.headers == {"retry-after": "7", "x-should-retry": "true", "x-ratelimit-reset-tokens": "6s"}


def test_failures_of_models_that_stood_in_for_one_another_come_back_as_a_group() -> None:
    members = [http(exceptions.ModelRateLimitError, 429, body="b" * 9_000), ValueError("odd"), FAILURES[12]]
    failure = recorded(exceptions.FallbackExceptionGroup("All failed", members))
    group, _ = recorded_failure(failure, "m")
    assert isinstance(group, exceptions.FallbackExceptionGroup) and str(group) == "All failed (3 sub-exceptions)"
    busy, odd, unreachable = group.exceptions
    assert isinstance(busy, exceptions.ModelRateLimitError) and str(busy.body).startswith("bbb")
    assert isinstance(odd, RecordedError) and odd.type == "ValueError"
    assert isinstance(unreachable, exceptions.ModelConnectionError) and unreachable.phase == "connect"


def test_a_failure_with_a_long_body_keeps_its_class_and_its_message() -> None:
    page = "<html>ü" * 20_000
    for error in (http(exceptions.ModelUnavailableError, 503, body=page), http(None, 400, body={"page": page})):
        found = recorded_failure(recorded(error), "m")[0]
        assert type(found) is type(error) and isinstance(found, ModelHTTPError)
        assert len(str(found)) > 5_000 and str(error).startswith(str(found)[:5_000])
        assert 500 < len(str(found.body)) < 4_000
    odd = recorded_failure(recorded(exceptions.UnexpectedModelBehavior(page, page)), "m")[0]
    assert type(odd) is exceptions.UnexpectedModelBehavior


def test_a_class_of_the_programs_own_comes_back_as_the_librarys_that_it_is() -> None:
    class Mine(exceptions.ModelRateLimitError):
        pass

    found = recorded_failure(recorded(Mine("m", "slow down")), "m")[0]
    assert type(found) is exceptions.ModelRateLimitError


def test_what_is_not_the_librarys_stays_a_failed_step() -> None:
    failure = recorded(ValueError("odd"), 5.0)
    assert recorded_failure(failure, "m") == (failure, None)


def test_a_name_in_a_journal_names_no_class_outside_of_the_table() -> None:
    for kind in ("ModelRetry", "RunCancelled", "os.system"):
        record = b'{"type":"X","message":"x","details":{"model_error":{"kind":"%s","message":"x"}}}' % kind.encode()
        assert type(recorded_failure(read(record), "m")[0]) is RecordedError


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (b'{"type":"ModelRateLimitError","message":"status_code: 429, model_name: m, body: x"}', ModelHTTPError),
        (b'{"type":"ModelTimeoutError","message":"slow"}', exceptions.ModelAPIError),
        (b'{"type":"ContentFilterError","message":"no"}', exceptions.ContentFilterError),
        (b'{"type":"IncompleteToolCall","message":"cut"}', StepFailed),
        (b'{"type":"ModelRateLimitError","message":"x","details":{"model_error":5}}', exceptions.ModelAPIError),
    ],
)
def test_a_journal_of_an_older_release_is_read_as_it_was(record: bytes, kind: type[Exception]) -> None:
    assert type(recorded_failure(read(record), "m")[0]) is kind


@pytest.mark.slow
@pytest.mark.parametrize("error", [FAILURES[0], FAILURES[5], FAILURES[12], FAILURES[16]], ids=lambda one: str(one)[:20])
async def test_a_fallback_sees_the_same_failure_live_and_in_a_replay(error: Exception) -> None:
    seen: list[Exception] = []

    def falls_back(failure: Exception) -> bool:
        if isinstance(failure, exceptions.AgentRunError):  # and not that the execution leaves memory
            seen.append(failure)
        return isinstance(failure, type(error))

    script, spare = Script(error), Script("from the spare")
    agent = Agent(script.model, name="clerk", capabilities=[ModelFallback(spare.model, fallback_on=falls_back)])
    report = await crashed(durable(agent, model_step={"retry": 1}), "?")
    assert report.result == "from the spare"
    assert len(seen) > len(report.crashes) / 2
    assert all((type(one), fields(one)) == (type(error), fields(error)) for one in seen)
