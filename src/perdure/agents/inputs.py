from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeAlias, TypeVar

from msgspec import Raw, Struct
from msgspec.json import decode, encode
from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, UserContent
from pydantic_ai.usage import UsageLimits

from perdure.wire.base.errors import BadValue
from perdure.wire.base.records import MaybeRaw

T = TypeVar("T")

Prompt: TypeAlias = str | Sequence[UserContent] | None
"""Text, or text with images and files. None if the agent's instructions suffice."""


class AgentInput(Struct, frozen=True, omit_defaults=True):
    """The JSON payload of an agent's execution. A string stands for the prompt.

    To start an agent by HTTP, send `{"input": "…"}`.
    """

    input: MaybeRaw = None
    message_history: MaybeRaw = None
    deps: MaybeRaw = None
    """JSON of the agent's `deps_type`."""
    model: str | None = None
    """The agent's own model, or a name from `durable(agent, models={…})`."""
    usage_limits: MaybeRaw = None
    """Replaces the agent's `UsageLimits`."""

    def prompt(self) -> Prompt:
        """Raises `BadValue`."""
        return None if self.input is None else read_prompt(bytes(self.input))

    def messages(self) -> list[ModelMessage] | None:
        """Raises `BadValue`."""
        if self.message_history is None or bytes(self.message_history) == b"null":
            return None
        found: list[ModelMessage] = _validate(list[ModelMessage], self.message_history, "message_history")
        return found

    def dependencies(self, deps_type: Any) -> Any:
        """Raises `BadValue`."""
        assert self.deps is not None
        return _validate(deps_type, self.deps, "deps")

    def limits(self) -> UsageLimits | None:
        """Raises `BadValue`, also for an unknown limit."""
        given = _plain(self.usage_limits)
        if given is None:
            return None
        if isinstance(given, dict) and (unknown := given.keys() - {one.name for one in fields(UsageLimits)}):
            raise BadValue(f"usage_limits: {min(unknown)!r} is not a field of UsageLimits.")
        assert self.usage_limits is not None
        limits: UsageLimits = _validate(UsageLimits, self.usage_limits, "usage_limits")
        return limits

    def differs_from(self, other: AgentInput) -> str | None:
        """The reason why this message cannot join a run with the input `other`. None if the message can."""
        if _plain(self.message_history) is not None:
            return "it has a message history of its own"
        if self.model not in (None, other.model):
            return "it has a model of its own"
        if _plain(self.usage_limits) not in (None, _plain(other.usage_limits)):
            return "it has limits of its own"
        deps = _plain(self.deps)
        return None if deps is None or deps == _plain(other.deps) else "it has dependencies of its own"


AgentPayload: TypeAlias = str | AgentInput | None


def as_input(payload: AgentPayload) -> AgentInput:
    if isinstance(payload, AgentInput):
        return payload
    return AgentInput() if payload is None else AgentInput(Raw(encode(payload)))


def make_input(
    prompt: Prompt,
    deps: Any,
    deps_type: Any,
    message_history: Sequence[ModelMessage] | None,
    model: str | None = None,
    usage_limits: UsageLimits | None = None,
) -> AgentPayload:
    """Raises `BadValue` for a value outside JSON."""
    others = (deps, message_history, model, usage_limits)
    if all(one is None for one in others) and (prompt is None or isinstance(prompt, str)):
        return prompt
    return AgentInput(
        None if prompt is None else Raw(prompt_json(prompt)),
        None if message_history is None else Raw(ModelMessagesTypeAdapter.dump_json(list(message_history))),
        None if deps is None else Raw(_write(deps_type, deps)),
        model,
        None if usage_limits is None else Raw(_write(UsageLimits, usage_limits)),
    )


def prompt_json(prompt: Prompt) -> bytes:
    """Raises `BadValue`."""
    return encode(prompt) if prompt is None or isinstance(prompt, str) else _write(list[UserContent], list(prompt))


def read_prompt(data: bytes) -> Prompt:
    """Raises `BadValue`."""
    said = decode(data)
    return said if said is None or isinstance(said, str) else _validate(list[UserContent], data, "input")


def _plain(value: MaybeRaw) -> Any:
    return None if value is None else decode(value)


@functools.lru_cache(maxsize=1_024)
def type_adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def _write(type_: Any, value: Any) -> bytes:
    try:
        return type_adapter(type_).dump_json(value)
    except Exception as error:  # a type without a schema, or the program's serializer
        raise BadValue(f"`{getattr(type_, '__name__', type_)}` cannot be sent as JSON: {error}") from error


def _validate(type_: Any, data: bytes | Raw, where: str) -> Any:
    try:
        return type_adapter(type_).validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(one) for one in (where, *first["loc"]))
        raise BadValue(f"{path}: {first['msg']}") from None
