"""Guards check the input and output of an agent. Each guard runs as a step, which records the verdict.

A guard returns None to pass, or a replacement, or raises `Tripped` to end the run. An output guard may raise Pydantic
AI's `ModelRetry` to have the model answer again.

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
from perdure.sdk.base.errors import Fatal
from perdure.sdk.payloads import values
from perdure.wire.base.records import MaybeRaw

InputGuard: TypeAlias = Callable[[Prompt], Prompt | Awaitable[Prompt | None] | None]
OutputGuard: TypeAlias = Callable[[RunContext[Any], Any], Any]


class Tripped(Fatal):
    """A guard raises `Tripped` to end the run. The message gives the reason."""

    code = "TRIPPED"


class _GuardVerdict(Struct, frozen=True, omit_defaults=True):
    said: str = "pass"
    message: str | None = None
    value: MaybeRaw = None


_PASS: Final = _GuardVerdict()


async def guarded_prompt(run: AgentRun, guards: Sequence[InputGuard], prompt: Prompt) -> Prompt:
    """Raises `Tripped`."""
    for guard in guards:
        replaced = await _asked(
            run, guard, (prompt,), lambda said, _: prompt_json(said), lambda said, _: read_prompt(said)
        )
        prompt = prompt if replaced is None else replaced
    return prompt


class OutputGuards(AbstractCapability[Any]):
    def __init__(self, guards: Sequence[OutputGuard], hint: Any) -> None:
        self._guards = tuple(guards)
        self._hint = hint

    async def after_output_process(self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any) -> Any:
        run = current_run()
        if run is not None:
            for guard in self._guards:
                replaced = await _asked(run, guard, (ctx, output), self._written, self._decode_input)
                output = output if replaced is None else replaced
        return output

    def _written(self, output: Any, where: str) -> bytes:
        return values.encode(output, self._hint, where=where)

    def _decode_input(self, data: bytes, where: str) -> Any:
        return values.decode(data, self._hint, where=where)


async def _asked(
    run: AgentRun,
    guard: Callable[..., Any],
    given: tuple[Any, ...],
    write: Callable[[Any, str], bytes],
    read: Callable[[bytes, str], Any],
) -> Any:
    """Returns the guard's replacement, or None."""
    name = part(getattr(guard, "__name__", type(guard).__name__))

    async def guarded() -> _GuardVerdict:
        try:
            value = guard(*given)
            if inspect.isawaitable(value):
                value = await value
        except Tripped as error:
            return _GuardVerdict("tripped", error.message)
        except ModelRetry as error:
            return _GuardVerdict("retry", error.message)
        return _PASS if value is None else _GuardVerdict("replaced", None, Raw(write(value, name)))

    verdict = await run.ctx.step(f"guard.{name}", guarded, key=run.keys.again(f"guard:{name}"))
    if verdict.said == "tripped":
        raise Tripped(verdict.message or f"Guard {name} stopped the run.")
    if verdict.said == "retry":
        raise ModelRetry(verdict.message or "Answer again.")
    return None if verdict.value is None else read(bytes(verdict.value), name)
