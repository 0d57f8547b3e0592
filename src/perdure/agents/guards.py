"""Guards look at what goes into an agent and what comes out. Each runs as a step: what it said is recorded.

A guard returns None when all is well, or something else to go on with instead. It raises `Tripped` to end the run;
one of the output may raise the library's `ModelRetry` to have the model answer again.

    async def no_secrets(ctx, output):
        if "sk_" in output.text:
            raise ModelRetry("Leave keys out.")

    support = durable(agent, input_guards=[on_topic], output_guards=[no_secrets])
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Raw, Struct
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.output import OutputContext
from pydantic_ai.tools import RunContext

from perdure.agents.inputs import Prompt, prompt_json, read_prompt
from perdure.agents.names import part
from perdure.agents.runs import AgentRun, current_run
from perdure.sdk.errors import Fatal
from perdure.sdk.payloads import values
from perdure.wire.records import MaybeRaw

InputGuard: TypeAlias = Callable[[Prompt], Prompt | Awaitable[Prompt | None] | None]
"""Gets the prompt."""
OutputGuard: TypeAlias = Callable[[RunContext[Any], Any], Any]
"""Gets the run and the output, valid by its type."""


class Tripped(Fatal):
    """Raised by a guard: the run ends here. The message says why."""

    code = "TRIPPED"


class _Verdict(Struct, frozen=True, omit_defaults=True):
    """What a guard said, as it is recorded."""

    said: str = "pass"
    message: str | None = None
    value: MaybeRaw = None


_PASS: Final = _Verdict()


async def guarded_prompt(run: AgentRun, guards: Sequence[InputGuard], prompt: Prompt) -> Prompt:
    """The prompt as the guards let it pass. Raises `Tripped`."""
    for guard in guards:
        replaced = await _asked(
            run, guard, (prompt,), lambda said, _: prompt_json(said), lambda said, _: read_prompt(said)
        )
        prompt = prompt if replaced is None else replaced
    return prompt


class OutputGuards(AbstractCapability[Any]):
    """Shows each valid output to the guards before the run ends with it."""

    def __init__(self, guards: Sequence[OutputGuard], hint: Any) -> None:
        self._guards = tuple(guards)
        self._hint = hint

    async def after_output_process(self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any) -> Any:
        run = current_run()
        if run is not None:
            for guard in self._guards:
                replaced = await _asked(run, guard, (ctx, output), self._written, self._read)
                output = output if replaced is None else replaced
        return output

    def _written(self, output: Any, where: str) -> bytes:
        return values.encode(output, self._hint, where=where)

    def _read(self, data: bytes, where: str) -> Any:
        return values.decode(data, self._hint, where=where)


async def _asked(
    run: AgentRun,
    guard: Callable[..., Any],
    given: tuple[Any, ...],
    write: Callable[[Any, str], bytes],
    read: Callable[[bytes, str], Any],
) -> Any:
    """Ask a guard, as a step; what it wants to go on with instead, or None."""
    name = part(getattr(guard, "__name__", type(guard).__name__))

    async def guarded() -> _Verdict:
        try:
            value = guard(*given)
            if inspect.isawaitable(value):
                value = await value
        except Tripped as error:
            return _Verdict("tripped", error.message)
        except ModelRetry as error:
            return _Verdict("retry", error.message)
        return _PASS if value is None else _Verdict("replaced", None, Raw(write(value, name)))

    verdict = await run.ctx.step(f"guard.{name}", guarded, key=run.keys.again(f"guard:{name}"))
    if verdict.said == "tripped":
        raise Tripped(verdict.message or f"Guard {name} let it not pass.")
    if verdict.said == "retry":
        raise ModelRetry(verdict.message or "Answer again.")
    return None if verdict.value is None else read(bytes(verdict.value), name)
