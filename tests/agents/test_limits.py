"""When a refusal of a provider says to come back, and how long a run waits for it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.capabilities import Hooks, ModelFallback
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, ModelRateLimitError, ModelUnavailableError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.agents.scripted import Script, crashed
from tests.embedded.house import keys_of

from perdure import ExecutionFailed, Registry
from perdure.agents import durable
from perdure.agents.limits import SECONDS_MAX, WAITS_MAX, requested_wait
from perdure.testing import embedded
from perdure.wire.base.records import Kind


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
    assert requested_wait(ModelHTTPError(429, "m", headers=headers)) == seconds


def test_a_provider_without_headers_says_nothing() -> None:
    assert requested_wait(ModelHTTPError(429, "m")) is None


# --- how long it is waited for -------------------------------------------------------------------------------------


def busy(seconds: float | None = 0.0) -> Exception:
    headers = None if seconds is None else {"retry-after-ms": str(int(seconds * 1_000))}
    return ModelHTTPError.for_category(ModelRateLimitError, status_code=429, model_name="script", headers=headers)


def streamed(script: Script) -> FunctionModel:
    """The same model, asked to stream."""

    async def words(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        said = await script._answer(messages, info)
        yield said.text or ""

    return FunctionModel(stream_function=words, model_name="script")


async def steps_of(handle: Any) -> list[str | None]:
    keys = await keys_of(handle, Kind.STEP, Kind.TIMER)
    return [key and key.rpartition("/")[2] for key in keys]


@pytest.mark.parametrize(("options", "times"), [({}, WAITS_MAX + 1), ({"model_step": {"retry": 3}}, 3)])
async def test_a_model_that_stays_busy_is_asked_a_bounded_number_of_times(options: Any, times: int) -> None:
    """However soon it says to come back: the pauses grow."""
    script = Script(busy())
    clerk = durable(Agent(script.model, name="clerk"), **options)
    async with embedded(Registry(clerk), parks=False) as p:
        before = p.clock.now_us()
        with pytest.raises(ExecutionFailed) as failed:
            await clerk.run(p, "?")
        waited = (p.clock.now_us() - before) / 1e6
    assert failed.value.type == "ModelRateLimitError"
    assert script.asked == {0: times}
    assert waited >= sum(min(2.0**n, 60.0) for n in range(times - 1))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fallback_on", [ModelAPIError, ModelRateLimitError])
async def test_a_model_to_fall_back_to_is_asked_at_once(stream: bool, fallback_on: type[Exception]) -> None:
    script, spare = Script(busy(3_600)), Script("from the spare")
    first, second = (streamed(script), streamed(spare)) if stream else (script.model, spare.model)
    clerk = durable(Agent(first, name="clerk", capabilities=[ModelFallback(second, fallback_on=fallback_on)]))
    async with embedded(Registry(clerk), parks=False) as p:
        handle = await clerk.start(p, "?")
        assert await handle.result() == "from the spare"
        assert await steps_of(handle) == ["model:1", "model:2"]
    assert script.asked == spare.asked == {0: 1}


async def test_a_crash_changes_nothing_of_a_fallback() -> None:
    script, spare = Script(busy(3_600)), Script("from the spare")
    agent = Agent(script.model, name="clerk", capabilities=[ModelFallback(spare.model)])
    assert (await crashed(durable(agent), "?")).result == "from the spare"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_refusal_that_nobody_falls_back_from_is_waited_for(stream: bool) -> None:
    refusals = [busy(90)]
    script, spare = Script(lambda *_: refusals.pop() if refusals else "at last"), Script("from the spare")
    first, second = (streamed(script), streamed(spare)) if stream else (script.model, spare.model)
    agent = Agent(first, name="clerk", capabilities=[ModelFallback(second, fallback_on=ModelUnavailableError)])
    clerk = durable(agent)
    async with embedded(Registry(clerk), parks=False) as p:
        before = p.clock.now_us()
        handle = await clerk.start(p, "?")
        assert await handle.result() == "at last"
        assert await steps_of(handle) == ["model:1", "timer", "model:2"]
        assert p.clock.now_us() - before >= 90_000_000
    assert script.asked == {0: 2} and not spare.asked


async def test_the_last_model_that_there_is_to_fall_back_to_is_waited_for() -> None:
    refusals = [busy(90)]
    script, spare = Script(busy(5)), Script(lambda *_: refusals.pop() if refusals else "at last")
    clerk = durable(Agent(script.model, name="clerk", capabilities=[ModelFallback(spare.model)]))
    async with embedded(Registry(clerk), parks=False) as p:
        before = p.clock.now_us()
        handle = await clerk.start(p, "?")
        assert await handle.result() == "at last"
        assert await steps_of(handle) == ["model:1", "model:2", "timer", "model:3"]
        assert p.clock.now_us() - before >= 90_000_000
    assert script.asked == {0: 1} and spare.asked == {0: 2}


async def test_models_that_all_stay_busy_are_asked_a_bounded_number_of_times() -> None:
    script, spare = Script(busy()), Script(busy())
    agent = Agent(script.model, name="clerk", capabilities=[ModelFallback(spare.model)])
    clerk = durable(agent, model_step={"retry": 3})
    async with embedded(Registry(clerk), parks=False) as p:
        with pytest.raises(ExecutionFailed, match="All models from ModelFallback failed"):
            await clerk.run(p, "?")
    assert script.asked == {0: 1} and spare.asked == {0: 3}


async def test_a_hook_sees_a_refusal_before_it_is_waited_for() -> None:
    seen: list[Exception] = []
    hooks = Hooks[None]()

    @hooks.on.model_request_error
    async def note(ctx: Any, *, request_context: Any, error: Exception) -> ModelResponse:
        seen.append(error)
        raise error

    refusals = [busy(90)]
    script = Script(lambda *_: refusals.pop() if refusals else "at last")
    clerk = durable(Agent(script.model, name="clerk", capabilities=[hooks]))
    async with embedded(Registry(clerk)) as p:
        handle = await clerk.start(p, "?")
        assert await handle.result() == "at last"
        assert await steps_of(handle) == ["model:1", "timer", "model:2"]
    assert [(type(one).__name__, getattr(one, "retry_after", None)) for one in seen] == [("ModelRateLimitError", 90.0)]


async def test_a_retry_of_the_workflow_asks_all_models_again() -> None:
    broken = [ModelHTTPError(500, "spare"), ModelHTTPError(500, "first")]
    script = Script(lambda *_: broken.pop() if broken else "at last")
    spare = Script(lambda *_: broken.pop())
    agent = Agent(script.model, name="clerk", capabilities=[ModelFallback(spare.model)])
    clerk = durable(agent, model_step={"retry": 1}, retry=2)
    async with embedded(Registry(clerk), parks=False) as p:
        assert await clerk.run(p, "?") == "at last"
    assert script.asked == {0: 2} and spare.asked == {0: 1}
