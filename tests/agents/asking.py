"""A model of the provider that the tests have, whose requests say which step makes them.

So the provider's log, which nobody kills, tells which step asked what, and how often.
"""

from __future__ import annotations

from openai import AsyncOpenAI, DefaultAsyncHttpx2Client
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from tests.agents.provider import CALLER_HEADER, Call

from perdure import current_step


def signing_model(url: str) -> OpenAIChatModel:
    """The model at the address."""
    http_client = DefaultAsyncHttpx2Client(event_hooks={"request": [_sign]})
    client = AsyncOpenAI(base_url=url, api_key="none", http_client=http_client)
    return OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client))


async def _sign(request: object) -> None:
    info = current_step()
    attempt = 0 if info.context is None else info.context.attempt
    request.headers[CALLER_HEADER] = f"{info.execution_id} {attempt} {info.key}"  # type: ignore[attr-defined]


def signature(call: Call) -> tuple[str, int, str]:
    """The caller: the execution, the attempt, the step's key."""
    execution_id, attempt, key = call.caller.split(" ", 2)
    return execution_id, int(attempt), key
