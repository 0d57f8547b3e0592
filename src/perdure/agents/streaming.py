"""What an agent does, while it does it: the library's events as items of the execution's stream.

Words of a model are emitted inside the step that asks it, so they are live, and a step that begins anew takes them
back; those of a model that does not stream come there, too, all at once. What follows from recorded answers (which
tool is called, what it gave) is emitted by the agent's own code: once, because a replay is silent. The library tells of
all that as a stream only, which takes its time; where no model streams, the same events are made here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from perdure.agents.runs import current_run
from perdure.sdk.client import Handle
from perdure.sdk.steps import running_step
from perdure.sdk.streams import StreamItem
from perdure.wire.errors import BadValue

_EVENT: Final[TypeAdapter[AgentStreamEvent]] = TypeAdapter(AgentStreamEvent, config=ConfigDict(defer_build=True))
"""Built when it is first used: that takes 50 ms, and most programs that import this stream nothing."""


class AgentItem(NamedTuple):
    """An item of an agent's stream. `event` is the library's event that it stands for, if it does."""

    item: StreamItem
    event: AgentStreamEvent | None

    @property
    def text(self) -> str:
        """The words that it adds to what the agent says."""
        event = self.event
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            return event.part.content
        if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            return event.delta.content_delta
        return ""


async def events(handle: Handle[Any], *, after: str | None = None) -> AsyncGenerator[AgentItem, None]:
    """What an agent's execution, and those below it, do while they do it; `item.restarted` as in `handle.stream`.

    >>> handle = await support.start(client, "Where is my parcel?")                     # doctest: +SKIP
    >>> async for one in events(handle):                                                # doctest: +SKIP
    ...     print(one.text, end="")
    """
    async with aclosing(handle.stream(after=after)) as items:
        async for item in items:
            yield AgentItem(item, _event_of(item))


def _event_of(item: StreamItem) -> AgentStreamEvent | None:
    if not isinstance(item.data, dict) or item.data.get("event_kind") != item.kind:
        return None
    try:
        return _EVENT.validate_python(item.data)
    except ValidationError:  # another release's, or cut to its beginning
        return None


async def emit_events(ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
    """The handler of an agent's events: each becomes an item of the stream."""
    async for event in events:
        if not isinstance(event, PartEndEvent):  # says again what its parts have said
            emit_event(event)


def telling(handler: EventStreamHandler[Any]) -> EventStreamHandler[Any]:
    """A handler that has each event in the execution's stream, and gives it to another one."""

    async def told(events: AsyncIterable[AgentStreamEvent]) -> AsyncGenerator[AgentStreamEvent, None]:
        async for event in events:
            if not isinstance(event, PartEndEvent):
                emit_event(event)
            yield event

    async def tell(ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        all_events = told(events)
        await handler(ctx, all_events)
        async for _ in all_events:  # what the handler left
            pass

    return tell


def emit_event(event: AgentStreamEvent) -> None:
    """An event as an item of the stream of the step, or of the run, whose code is running."""
    step, run = running_step.get(), current_run()
    emit = step.emit if step is not None else run.ctx.emit if run is not None else None
    if emit is None:
        return
    data = _EVENT.dump_python(event, mode="json")
    try:
        emit(event.event_kind, data)
    except BadValue:  # too long: a tool may give megabytes. That it gave something is told
        emit(event.event_kind, _beginning(data))


def emit_answer(response: ModelResponse) -> None:
    """What a model said that does not stream, each part in one piece."""
    for index, part in enumerate(response.parts):
        emit_event(PartStartEvent(index=index, part=part))


def _beginning(data: dict[str, Any]) -> dict[str, Any]:
    """An event without what is long in it."""
    part = data.get("part")
    kept = {name: one for name, one in part.items() if len(str(one)) < 1_000} if isinstance(part, dict) else None
    return {"event_kind": data.get("event_kind"), "part": kept, "cut": True}


class Unstreamed(WrapperModel):
    """A model beside others that stream: it is asked for its answer as a whole, which comes in one piece."""

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        said = await self.wrapped.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(said, model_request_parameters=model_request_parameters, replay_events=True)


def can_stream(model: Model) -> bool:
    """Whether a model may be asked to stream: of several that stand in for one another all, and of one that is made
    for tests, whether it was given what it takes."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    if isinstance(model, FallbackModel):
        return all(map(can_stream, model.models))
    if isinstance(model, FunctionModel):
        return model.stream_function is not None
    return type(model).request_stream is not Model.request_stream
