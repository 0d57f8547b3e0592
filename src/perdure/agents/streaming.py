"""An agent's live events: events of Pydantic AI as items of the execution's stream.

The step of a model emits words, and a new try takes them back. The agent's own code emits tool calls and results,
because the library does so only in a slower stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Generic, NamedTuple, TypeVar

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
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.steps import running_step
from perdure.sdk.workflows.streams import StreamItem
from perdure.wire.base.errors import BadValue

OutT = TypeVar("OutT")

_EVENT: Final[TypeAdapter[AgentStreamEvent]] = TypeAdapter(AgentStreamEvent, config=ConfigDict(defer_build=True))
"""Built at first use, because building takes 50 ms."""


class AgentItem(NamedTuple):
    """An item of an agent's stream, with Pydantic AI's event, if any."""

    item: StreamItem
    event: AgentStreamEvent | None

    @property
    def text(self) -> str:
        """The text added to the answer by the item."""
        event = self.event
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            return event.part.content
        if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            return event.delta.content_delta
        return ""


async def events(handle: Handle[Any], *, after: str | None = None) -> AsyncGenerator[AgentItem, None]:
    """Follow an agent's execution and its descendants, live. See `handle.stream` for `item.restarted` and errors.

    If a lost run left a part unfinished, the part's `PartEndEvent` comes before the first item of the new run.

    >>> handle = await support.start(client, "Where is my parcel?")                     # doctest: +SKIP
    >>> async for one in events(handle):                                                # doctest: +SKIP
    ...     print(one.text, end="")
    """
    unfinished: dict[tuple[str, str], tuple[StreamItem, PartStartEvent]] = {}
    cursor = ""
    async with aclosing(handle.stream(after=after)) as items:
        async for item in items:
            event, place = _parse_event(item), (item.execution_id, item.key)
            if item.restarted and place in unfinished:
                lost, begun = unfinished.pop(place)
                end = PartEndEvent(index=begun.index, part=begun.part)
                yield AgentItem(lost._replace(restarted=False, cursor=cursor), end)
            if isinstance(event, PartStartEvent):
                unfinished[place] = item, event
            elif isinstance(event, PartEndEvent):
                unfinished.pop(place, None)
            yield AgentItem(item, event)
            cursor = item.cursor


class AgentStream(Generic[OutT]):
    """A run of `DurableAgent.stream`, with items. Asking for the first item starts the run, unless `start` has.

    After the last item of a failed or cancelled run, the iteration raises the error of `result`.

    >>> stream = support.stream(client, "Where is my parcel?")                          # doctest: +SKIP
    >>> print((await stream.start()).id)                                                # doctest: +SKIP
    >>> said = [one.text async for one in stream]                                       # doctest: +SKIP
    >>> answer = await stream.result()                                                  # doctest: +SKIP
    """

    def __init__(self, start: Callable[[], Awaitable[Handle[OutT]]]) -> None:
        self._start = start
        self._handle: Handle[OutT] | None = None
        self._starting = asyncio.Lock()
        self._items = self._follow()

    async def start(self) -> Handle[OutT]:
        """Start the run, once, and return a handle."""
        async with self._starting:
            if self._handle is None:
                self._handle = await self._start()
            return self._handle

    async def result(self) -> OutT:
        """See `Handle.result`."""
        return await (await self.start()).result()

    async def _follow(self) -> AsyncGenerator[AgentItem, None]:
        async with aclosing(events(await self.start())) as items:
            async for item in items:
                yield item

    def __aiter__(self) -> AsyncGenerator[AgentItem, None]:
        return self._items

    async def __anext__(self) -> AgentItem:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Stop following. The run continues."""
        await self._items.aclose()


def _parse_event(item: StreamItem) -> AgentStreamEvent | None:
    if not isinstance(item.data, dict) or item.data.get("event_kind") != item.kind:
        return None
    try:
        return _EVENT.validate_python(item.data)
    except ValidationError:  # from another release, or cut
        return None


async def emit_events(ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
    async for event in events:
        emit_event(event)


def emitting(handler: EventStreamHandler[Any]) -> EventStreamHandler[Any]:
    async def emitted(events: AsyncIterable[AgentStreamEvent]) -> AsyncGenerator[AgentStreamEvent, None]:
        async for event in events:
            emit_event(event)
            yield event

    async def emit_all(ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        all_events = emitted(events)
        await handler(ctx, all_events)
        async for _ in all_events:  # unread by the handler
            pass

    return emit_all


def emit_event(event: AgentStreamEvent) -> None:
    step, run = running_step.get(), current_run()
    emit = step.emit if step is not None else run.ctx.emit if run is not None else None
    if emit is None:
        return
    data = _EVENT.dump_python(event, mode="json")
    try:
        emit(event.event_kind, data)
    except BadValue:  # too large: emit at least that there was a result
        emit(event.event_kind, _beginning(data))


def emit_answer(response: ModelResponse) -> None:
    kinds = [None, *(part.part_kind for part in response.parts), None]
    for index, part in enumerate(response.parts):
        emit_event(PartStartEvent(index=index, part=part, previous_part_kind=kinds[index]))
        emit_event(PartEndEvent(index=index, part=part, next_part_kind=kinds[index + 2]))


def _beginning(data: dict[str, Any]) -> dict[str, Any]:
    part = data.get("part")
    kept = {name: one for name, one in part.items() if len(str(one)) < 1_000} if isinstance(part, dict) else None
    if kept is not None and "index" in data:  # so that readers see its part begin and end
        return data | {"part": {"content": "", **kept}, "cut": True}
    return {"event_kind": data.get("event_kind"), "part": kept, "cut": True}


class Unstreamed(WrapperModel):
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
    """All of several fallback models must stream."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    if isinstance(model, FallbackModel):
        return all(map(can_stream, model.models))
    if isinstance(model, FunctionModel):
        return model.stream_function is not None
    return type(model).request_stream is not Model.request_stream
