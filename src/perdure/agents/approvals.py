"""Questions to people: approve a tool, answer the agent, give the result of an outside call.

Existing clients rely on the keys `approve_{tool}_{call}`, `ask_user_{call}` and `call_{tool}_{call}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, cast

from pydantic import JsonValue, ValidationError
from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.external_events import ExternalEventError, ExternalEventWaiter
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, RunContext, Tool, ToolApproved, ToolDenied

from perdure.agents.code_calls import hooked_code
from perdure.agents.names import part
from perdure.agents.runs import AgentRun, current_run
from perdure.agents.steps import TOOL_KEY

ARGUMENTS: Final = "arguments"
FEEDBACK: Final = "feedback"


class ApprovalQuestions:
    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        """Seconds that a question stays open. None: no limit."""

    async def answered(
        self, run: AgentRun, ctx: RunContext[Any], requests: DeferredToolRequests
    ) -> DeferredToolResults:
        decisions = asyncio.gather(*(self._decision(run, ctx, one, requests.metadata) for one in requests.approvals))
        answers = asyncio.gather(*(self._decide_call(run, ctx, one, requests) for one in requests.calls))
        await asyncio.gather(decisions, answers)
        return requests.build_results(
            approvals=dict(zip((one.tool_call_id for one in requests.approvals), decisions.result(), strict=True)),
            calls=dict(zip((one.tool_call_id for one in requests.calls), answers.result(), strict=True)),
        )

    async def _decision(
        self, run: AgentRun, ctx: RunContext[Any], call: ToolCallPart, metadata: Mapping[str, dict[str, Any]]
    ) -> ToolApproved | ToolDenied:
        arguments = call.args_as_dict()
        note: str | None = None
        while True:
            question = _approval(call, arguments, metadata.get(call.tool_call_id), note)
            key = run.keys.again(f"approve_{part(call.tool_name)}_{part(call.tool_call_id)}")
            try:
                answer = await run.ask(key, question, self.timeout)
            except TimeoutError:
                return ToolDenied("Nobody allowed this call in time, so it was not made.")
            said = answer if isinstance(answer, dict) else {"approved": answer}
            if said.get("approved") is not True:
                return ToolDenied(_denial(said.get(FEEDBACK)))
            try:
                edited = _edited(said.get(ARGUMENTS), arguments)
                if edited is not None:
                    await _check(ctx, call, edited)
            except ValueError as error:
                note = str(error)
                continue  # ask again
            return ToolApproved(override_args=edited)

    async def _decide_call(
        self, run: AgentRun, ctx: RunContext[Any], call: ToolCallPart, requests: DeferredToolRequests
    ) -> Any:
        tool = ctx.tools.get(call.tool_name)
        if tool is None or tool.kind != "external":  # the tool's code deferred the call
            return await self._ask_about(run, call, requests)
        ctx = replace(ctx, tool_name=call.tool_name, tool_call_id=call.tool_call_id)
        try:
            return await hooked_code(
                run,
                ctx,
                call.tool_name,
                call.tool_call_id,
                call.args_as_dict(),
                make=lambda: self._ask_about(run, call, requests),
            )
        except (ModelRetry, ToolFailed) as signal:  # a hook's signal to the model
            return signal

    async def _ask_about(self, run: AgentRun, call: ToolCallPart, requests: DeferredToolRequests) -> Any:
        if requests.kind(call.tool_call_id) == "question":
            question = (requests.metadata.get(call.tool_call_id) or {}).get("question") or call.args_as_dict()
            return await ask_person(run, question, call.tool_call_id, self.timeout)
        key = run.keys.again(f"call_{part(call.tool_name)}_{part(call.tool_call_id)}")
        asked = {"tool": call.tool_name, "tool_call_id": call.tool_call_id, ARGUMENTS: call.args_as_dict()}
        try:
            return await run.ask(key, asked, self.timeout)
        except TimeoutError:
            return "The call was not answered in time."


def _approval(
    call: ToolCallPart, arguments: dict[str, Any], reason: Mapping[str, Any] | None, note: str | None
) -> dict[str, Any]:
    form: dict[str, Any] = {
        "title": f"Allow {call.tool_name}?",
        "description": note,
        "context": dict(reason) if reason else None,
        "fields": [
            {"key": "approved", "type": "boolean", "label": "Allow the call?", "required": True},
            {
                "key": ARGUMENTS,
                "type": "textarea",
                "label": "Arguments",
                "description": "Runs exactly as it stands here. A JSON object.",
                "default": json.dumps(arguments, ensure_ascii=False, indent=2),
            },
            {"key": FEEDBACK, "type": "textarea", "label": "Feedback", "description": "What the agent is told."},
        ],
    }
    return {
        "tool": call.tool_name,
        "tool_call_id": call.tool_call_id,
        ARGUMENTS: arguments,
        "_form": {name: value for name, value in form.items() if value is not None},
        "_source": "agent",
        "_tool": call.tool_name,
    }


def _edited(given: object, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Returns None for the model's own arguments. Raises ValueError."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise ValueError(f"The arguments are not JSON ({error}). Enter them again.") from None
    # Compare JSON, because Python counts 1, 1.0 and True as equal.
    if given is None or json.dumps(given, sort_keys=True) == json.dumps(arguments, sort_keys=True):
        return None
    if not isinstance(given, dict):
        raise ValueError("The arguments must be a JSON object. Enter them again.")
    return given


async def _check(ctx: RunContext[Any], call: ToolCallPart, arguments: dict[str, Any]) -> None:
    """Raises ValueError for invalid arguments, which the library would count as the model's mistake."""
    if ctx.tool_manager is None:
        return
    edited = replace(call, args=arguments)
    try:
        await ctx.tool_manager.validate_tool_call(edited, approved=True, wrap_validation_errors=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        said = ": ".join([".".join(map(str, first["loc"])), first["msg"]])
    except ModelRetry as error:  # from a validator of the program
        said = error.message
    except ToolFailed:
        return  # the tool's own message to the model
    else:
        return
    raise ValueError(f"The tool does not take these arguments ({said}). Enter them again.")


def _denial(feedback: object) -> str:
    return f"The call was denied: {feedback}" if isinstance(feedback, str) and feedback else "The call was denied."


async def ask_person(run: AgentRun, question: object, call_id: str | None, timeout: float | None) -> str:
    asked = question if isinstance(question, dict) else {"question": question}
    options = asked.get("options")
    field: dict[str, Any] = {"key": "answer", "label": "Answer", "type": "textarea", "required": True}
    if isinstance(options, list) and options:
        field |= {"type": "select", "options": options}
    title = asked.get("question")
    shown = {**asked, "_form": {"title": str(title or "The agent asks"), "fields": [field]}, "_source": "agent"}
    try:
        answer = await run.ask(run.keys.again(f"ask_user_{part(call_id or 'call')}"), shown, timeout)
    except TimeoutError:
        return "The user did not answer in time."
    if isinstance(answer, dict) and "answer" in answer:
        answer = answer["answer"]
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def ask_user_tool(timeout: float | None) -> Tool[Any]:

    async def ask_user(ctx: RunContext[Any], question: str, options: list[str] | None = None) -> str:
        """Ask the user a question and wait for the answer, however long it takes.

        Args:
            ctx: The run.
            question: What to ask.
            options: Answers to choose from, if there are only some.
        """
        run = current_run()
        if run is None:
            raise RuntimeError("ask_user works only in durable runs.")
        asked: dict[str, Any] = {"question": question}
        if options:
            asked["options"] = options
        return await ask_person(run, asked, ctx.tool_call_id, timeout)

    return Tool(ask_user, metadata={TOOL_KEY: False})


class Waiter(ExternalEventWaiter):
    """The library's waits for outside events. The token is `{execution id}/{step key}`."""

    def __init__(self, run: AgentRun) -> None:
        self._run = run

    async def wait(
        self, name: str, *, ask: Callable[[str], Awaitable[JsonValue]], timeout: timedelta | None
    ) -> JsonValue:
        run = self._run
        key = run.keys.again(f"event_{part(name)}")
        token = f"{run.ctx.execution_id}/{key}"

        async def handed_out(token: str) -> Any:
            return await ask(token)

        answered: JsonValue = await run.ctx.step(f"ask.{part(name)}", handed_out, token, key=f"{key}.ask")
        if answered is not None:
            return answered
        seconds = None if timeout is None else timeout.total_seconds()
        try:
            # Nothing is shown, so an answer may come before this line.
            answer = await run.ask(key, None, seconds)
        except TimeoutError:
            raise ExternalEventError(f"No answer came within {timeout}.") from None
        return cast(JsonValue, answer)  # every answer is JSON
