"""The conversation of a session: a run starts with the earlier messages and appends new messages.

A child has no conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Raw, json
from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.durable_exec import ModelRequestParams
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, infer_model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RunUsage

from perdure.agents.calls import Call, hooked
from perdure.agents.guards import InputGuard, Tripped, guarded_prompt
from perdure.agents.history import History, message_json
from perdure.agents.inputs import AgentPayload, Prompt, as_input
from perdure.agents.limits import admitted_request, failed_request, is_tried_again
from perdure.agents.runs import AgentRun, current_run
from perdure.agents.steps import CODEC
from perdure.sdk.base.errors import BudgetExceeded, StepFailed
from perdure.sdk.payloads.values import decode
from perdure.sdk.transcripts import (
    Reading,
    TakenMessage,
    append_messages,
    leave_messages,
    read_transcript,
    summarize,
    take_messages,
)
from perdure.wire.agents.agent_steps import SUMMARY as SUMMARY_STEP
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.retry import RetryPolicy

SUMMARY: Final = "What was said so far, in short:\n\n"
ASK: Final = (
    "Summarize the conversation so far for yourself, so that you can go on without it: what the user wants and told, "
    "what was done and found out, what is open. Names, numbers and ids exactly. Answer with the summary alone."
)
SUMMARY_RETRY: Final = RetryPolicy(max_attempts=2, initial_seconds=1.0)
"""Few tries, because the run can continue without a summary."""
_HISTORY: Final = History()


@dataclass(frozen=True)
class Compaction:
    """The limits above which a conversation is summarized, and the model for the summary.

    Above `above` messages, the next run first summarizes all but the last `keep`, in a step. A tool's call stays with
    its result. `tokens` adds a limit on the input and output of the last answer. The messages kept then have at most
    half as many.

        support = durable(agent, compaction=Compaction(above=200, keep=20, by="openai:gpt-5-mini"))
    """

    above: int = 200
    keep: int = 20
    by: Model | str | None = None
    """Default: the agent's own model."""
    tokens: int | None = None
    """Default: only messages count."""

    def __post_init__(self) -> None:
        if not 0 <= self.keep < self.above:
            raise ValueError(f"Compaction needs 0 <= keep < above; got {self!r}.")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"Compaction needs tokens >= 1; got {self!r}.")

    def cut(self, history: Sequence[ModelMessage]) -> int:
        """How many of the oldest messages to summarize."""
        cut = 0
        if len(history) > self.above:
            cut = _turn_before(history, len(history) - self.keep)
        if self.tokens is not None and (used := _tokens(history)) > self.tokens:
            turns = (at for at in range(1, len(history)) if _begins_turn(history[at]))
            half = self.tokens // 2
            cut = max(cut, next((at for at in turns if used - _tokens(history[:at]) <= half), len(history)))
        return cut


class SessionTurn:
    def __init__(self, run: AgentRun, reading: Reading) -> None:
        self._run = run
        self.reading = reading
        self.history = _HISTORY.messages(reading.messages)

    @classmethod
    async def begin(
        cls, run: AgentRun, compaction: Compaction | None, summarizer: Model | str | None
    ) -> SessionTurn | None:
        """None if the run has no conversation."""
        ctx = run.ctx
        if ctx.parent_execution_id is not None or ctx.session_id in (None, ctx.execution_id, ctx.machine.seed):
            return None
        made = cls(run, await read_transcript(ctx))
        if compaction is not None and not made.is_over:
            cut = compaction.cut(made.history)
            if cut >= 2:  # the first message may be a summary already
                await made._compact(cut, summarizer)
        return made

    @property
    def is_over(self) -> bool:
        """Whether another turn answered the run's message."""
        return self.reading.taken_by is not None

    def output(self, hint: Any) -> Any:
        assert self.reading.result is not None
        return decode(bytes(self.reading.result), hint, where=f"the result of {self.reading.taken_by}")

    async def end(self, new: Sequence[ModelMessage]) -> None:
        await append_messages(self._run.ctx, list(map(message_json, new)))

    async def _compact(self, cut: int, model: Model | str | None) -> None:
        old, entries = self.history[:cut], self.reading.entries
        try:
            text = await _summarized(self._run, old, model)
        except BudgetExceeded:
            return  # the run's first request raises it again
        except StepFailed as failed:
            # The next run tries again.
            self._run.ctx.log("The run goes on without a summary: %s", failed, level=logging.WARNING)
            return
        kept = [part for message in old if isinstance(message, ModelRequest) for part in message.parts]
        system = [part for part in kept if isinstance(part, SystemPromptPart)]
        summary = ModelRequest(parts=[*system, UserPromptPart(SUMMARY + text)])
        try:
            await summarize(self._run.ctx, message_json(summary), entries[cut - 1].seq)
        except BadRequest as refused:
            # A parallel run was first. The refusal is recorded, so a replay also keeps this summary.
            self._run.ctx.log("The summary is kept for this run alone: %s", refused.message)
        self.history = [summary, *self.history[cut:]]


class Delivered(AbstractCapability[Any]):
    """Adds messages arriving during a run to the next model request, after the input guards."""

    def __init__(self, guards: Sequence[InputGuard]) -> None:
        self._guards = tuple(guards)

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        run = current_run()
        if run is not None:
            with run.apart("messages"):
                await self._deliver(run, ctx)
        return request_context

    async def _deliver(self, run: AgentRun, ctx: RunContext[Any]) -> None:
        read = [(taken, _parse_prompt(run, taken)) for taken in await take_messages(run.ctx)]
        left = [taken for taken, prompt in read if not prompt]
        if left:
            await leave_messages(run.ctx, left)
        for taken, prompt in read:
            if prompt:
                try:
                    prompt = await guarded_prompt(run, self._guards, prompt)
                except (Tripped, ModelRetry, StepFailed) as error:
                    _left(run, taken, error)
                    await leave_messages(run.ctx, [taken])
                else:
                    ctx.enqueue(*([prompt] if isinstance(prompt, str) else prompt or []))


def _parse_prompt(run: AgentRun, taken: TakenMessage) -> Prompt:
    """Returns None to leave the message for a separate turn."""
    try:
        given = as_input(decode(bytes(taken.message), AgentPayload, where="the message"))
        prompt = given.prompt()
    except BadValue as error:
        _left(run, taken, f"it cannot be read: {error.message}")
        return None
    if prompt and (why := given.differs_from(run.given)) is not None:
        _left(run, taken, why)
        return None
    return prompt


def _left(run: AgentRun, taken: TakenMessage, why: object) -> None:
    run.ctx.log("The message of %s is left to a turn of its own: %s", taken.execution_id, why, level=logging.WARNING)


async def _summarized(run: AgentRun, messages: Sequence[ModelMessage], model: Model | str | None) -> str:
    async def summary() -> Raw:
        asked = infer_model(model) if isinstance(model, str) else model
        assert asked is not None, "an agent that runs has a model"
        settings = ModelSettings(max_retries=0)
        context = RunContext[Any](deps=None, model=asked, usage=RunUsage())
        request = ModelRequestParams(
            messages=list(messages),
            model_settings=settings,
            model_request_parameters=ModelRequestParameters(),
            run_context=context,
        )

        async def made() -> ModelResponse:
            said = await Agent(asked).run(ASK, message_history=list(messages), model_settings=settings)
            return said.response

        call = Call("model", asked.model_name, run.ctx.execution_id, run.agent_name, context, request=request)
        try:
            return CODEC.dump(ModelResponse, await hooked(run.hooks, call, made))
        except Exception as error:
            raise failed_request(error, run, None)  # noqa: B904  # has its cause

    try:
        recorded = await admitted_request(
            run,
            lambda: run.ctx.step(
                SUMMARY_STEP, summary, key=run.keys.again(SUMMARY_STEP), retry=SUMMARY_RETRY, retry_if=is_tried_again
            ),
        )
    finally:
        run.refusals = 0
    return summary_text(recorded)


def summary_text(recorded: Raw) -> str:
    """Older journals hold the text itself, newer journals an answer."""
    if bytes(recorded).startswith(b'"'):
        return json.decode(recorded, type=str)
    answer: ModelResponse = CODEC.load(ModelResponse, recorded)
    return answer.text or ""


def _tokens(messages: Sequence[ModelMessage]) -> int:
    """Tokens of the latest answer with a usage report. An answer's input covers all earlier messages."""
    answers = (one.usage for one in reversed(messages) if isinstance(one, ModelResponse))
    return next((took for one in answers if (took := one.input_tokens + one.output_tokens)), 0)


def _turn_before(messages: Sequence[ModelMessage], at: int) -> int:
    while 0 < at < len(messages) and not _begins_turn(messages[at]):
        at -= 1
    return at


def _begins_turn(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and all(
        isinstance(part, UserPromptPart | SystemPromptPart) for part in message.parts
    )
