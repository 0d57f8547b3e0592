from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from perdure.sdk.base.checks import checked_name
from perdure.sdk.payloads.errors import execution_failure
from perdure.sdk.payloads.values import encode
from perdure.wire.base.codec import NAME_BYTES_MAX
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import checked_id
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import StreamItems
from perdure.wire.runs.requests import Emitted
from perdure.wire.runs.streams import ITEM_BYTES_MAX, StreamEnd

if TYPE_CHECKING:
    from perdure.sdk.transports.transport import Transport

WAITING_MAX: Final = 10_000
"""Most items waiting in a worker for its server; beyond the limit the oldest are dropped."""
REPORT_BYTES: Final = 4 << 20
"""Most bytes of items in one report."""
PLACES_MAX: Final = 10_000
"""Most keys whose runs a client remembers."""


class StreamItem(NamedTuple):
    """An item of an execution or a descendant, with `kind` and `data` as given to `ctx.emit`.

    `restarted`: the step under `key` restarted after a lost worker or a failed try. Drop earlier items of the same
    execution and key.
    """

    kind: str
    data: Any
    path: tuple[str, ...]
    """The keys of the children that lead to the descendant; empty for the execution's own items."""
    key: str
    attempt: int
    tries: int
    restarted: bool
    execution_id: str
    n: int
    """The item's number within its execution, without gaps: a jump counts the dropped items."""
    at: datetime
    cursor: str
    """`handle.stream(after=item.cursor)` continues behind the item."""


def to_emitted(kind: str, data: object, key: str, tries: int) -> Emitted:
    kind = checked_name(kind, "kind", NAME_BYTES_MAX)
    value = encode(data, where="data")
    if len(value) > ITEM_BYTES_MAX:
        raise BadValue(f"data: {len(value):,} bytes of JSON; an item of a stream may have {ITEM_BYTES_MAX:,}")
    return Emitted(kind, key, Raw(value), tries)


_making: Final = threading.Lock()


class Outbox:
    """Items come from any thread.

    `notify` gets the execution's id, in any thread, when the first item arrives after a `take`.
    """

    __slots__ = ("_execution_id", "_items", "_notified", "_notify")

    def __init__(self, execution_id: str, notify: Callable[[str], None] | None) -> None:
        self._execution_id = execution_id
        self._items: deque[Emitted] | None = None
        """Made for the first item: an empty deque doubles a small execution's context."""
        self._notified = False
        self._notify = notify

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, item: Emitted) -> None:
        if self._items is None:
            with _making:
                if self._items is None:
                    self._items = deque(maxlen=WAITING_MAX)
        self._items.append(item)
        if not self._notified:
            self._notified = True
            if self._notify is not None:
                self._notify(self._execution_id)

    @property
    def fits(self) -> bool:
        """Whether one report takes all items."""
        return sum(memoryview(one.data).nbytes for one in tuple(self._items or ())) <= REPORT_BYTES

    def take(self, *, last: bool) -> list[Emitted]:
        """The oldest items, or the newest with `last`, in the final report."""
        self._notified = False
        items = self._items or deque()
        taken: list[Emitted] = []
        room = REPORT_BYTES
        while items and room > 0:
            one = items.pop() if last else items.popleft()
            taken.append(one)
            room -= memoryview(one.data).nbytes
        if last:
            items.clear()
            taken.reverse()
        return taken


async def follow(transport: Transport, execution_id: str, after: str | None) -> AsyncGenerator[StreamItem, None]:
    seen: dict[str, int] = {}
    runs: dict[tuple[str, str], tuple[int, int]] = {}
    async with aclosing(transport.stream(StreamItems(checked_id(execution_id), after))) as items:
        async for cursor, item in items:
            if isinstance(item, StreamEnd):
                if item.phase is not Phase.COMPLETED:
                    raise execution_failure(execution_id, await transport.result(execution_id))
                return
            if item.n <= seen.get(item.execution_id, 0):
                continue
            seen[item.execution_id] = item.n
            run = (item.attempt, item.tries)
            place = (item.execution_id, item.key)
            restarted = run > runs.pop(place, run)
            runs[place] = run
            if len(runs) > PLACES_MAX:
                del runs[next(iter(runs))]
            shared = msgspec.structs.asdict(item) | {"data": msgspec.json.decode(item.data)}
            at = datetime.fromtimestamp(shared.pop("at_us") / 1e6, UTC)
            yield StreamItem(**shared, at=at, restarted=restarted, cursor=cursor)
