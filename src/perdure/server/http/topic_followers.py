"""New events of followed topics, read once for all streams.

Each followed topic (and run) has a tail, which makes frames once and keeps the last frames. A stream behind the kept
frames reads the store to catch up, and delays neither other streams nor publishers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from perdure.engine.engine import Engine
from perdure.engine.runs.streams import PIECE_BYTES
from perdure.server.http.streams import frame
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.record import writer
from perdure.wire.base.wording import decoded_object
from perdure.wire.runs.events import Event
from perdure.wire.runs.executions import Finished

logger = logging.getLogger("perdure.server")

PAGE: Final = 100
KEPT_EVENTS: Final = 1_000
KEPT_BYTES: Final = 1 << 20
LINGER_SECONDS: Final = 0.25
"""Seconds that a run's stream outlives the run, because the worker's last events may come later."""
LOOK_SECONDS: Final = 1.0
FINISHES: Final = frozenset({"workflow_finish", "agent_finish", "tool_finish"})
"""Events followed by a push worker's report."""
REPORT_SECONDS: Final = 5.0
"""Seconds that the events wait for the report."""

_encode: Final = msgspec.json.Encoder().encode
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_twin: Final = writer(Event)


class TopicFollower:
    """A topic's newest frames, from after `first` to `last`."""

    def __init__(self, engine: Engine, project_id: str, topic: str, run_id: str | None) -> None:
        self._engine = engine
        self._project_id = project_id
        self._topic = topic
        self._run_id = run_id
        self._frames: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._taken: tuple[int, int, bytes] = (-1, -1, b"")
        self._waiting: set[asyncio.Future[None]] = set()
        self.streams = 0
        self.turn = 0
        self.first: int | None = None
        """All later events are in the tail. None: not started."""
        self.last = 0
        self.ended: Finished | None = None
        """Set when the run's last events have been read."""
        self.over = False

    async def run(self) -> None:
        try:
            await self._follow_topic()
        except PerdureError:
            pass  # the store is closed or unreachable: clients resume
        except Exception:  # streams must not wait forever
            logger.exception("The tail of topic %r failed; its streams end.", self._topic)
        finally:
            self.over = True
            self._tell()

    async def _follow_topic(self) -> None:
        events, engine = self._engine.events, self._engine
        ended: Finished | None = None
        self.first = self.last = await events.last(self._project_id, self._topic)
        self._tell()
        while True:
            cursors = events.watch_cursors(self._project_id, self._topic, None if ended else self._run_id)
            if self._run_id is not None and ended is None:
                # First, so that the page below has all events from before the end.
                ended = await engine.executions.how_ended(self._project_id, self._run_id)
            page = await events.page(self._project_id, self._topic, self.last, PAGE, bytes_max=PIECE_BYTES)
            page = await until_reported(engine, self._project_id, self._run_id, page)
            if page:
                self._keep(page)
            elif ended is None:
                await events.watch(cursors, engine.own_look(LOOK_SECONDS))
            elif not await events.watch(cursors, LINGER_SECONDS):
                self.ended = ended
                return

    def _keep(self, page: list[Event]) -> None:
        for event in page:
            one = event_frame(event)
            self._frames.append((event.sequence_id, one))
            self._bytes += len(one)
        while len(self._frames) > KEPT_EVENTS or (self._bytes > KEPT_BYTES and len(self._frames) > 1):
            self.first, one = self._frames.popleft()
            self._bytes -= len(one)
        self.last = page[-1].sequence_id
        self._tell()

    def _tell(self) -> None:
        self.turn += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def after(self, number: int) -> tuple[int, bytes]:
        """The next frames, and the number of the last. `number` is not before `first`."""
        if self._taken[0] == number and self._taken[1] == self.last:  # most streams want the same page
            return self._taken[1], self._taken[2]
        found = [(one, data) for one, data in self._frames if one > number][:PAGE]
        if not found:
            return number, b""
        last = found[-1][0]
        self._taken = (number, last, b"".join(data for _, data in found))
        return last, self._taken[2]

    async def wait(self, turn: int) -> None:
        if self.turn != turn:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


class Tails:
    """Each tail lives while streams follow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tails: dict[tuple[str, str, str | None], tuple[TopicFollower, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._tails)

    @contextmanager
    def following(self, project_id: str, topic: str, run_id: str | None) -> Iterator[TopicFollower]:
        key = (project_id, topic, run_id)
        known = self._tails.get(key)
        if known is None or known[0].over:
            tail = TopicFollower(self._engine, project_id, topic, run_id)
            known = self._tails[key] = tail, asyncio.get_running_loop().create_task(tail.run(), name="perdure-tail")
        tail, task = known
        tail.streams += 1
        try:
            yield tail
        finally:
            tail.streams -= 1
            if not tail.streams:
                task.cancel()
                if self._tails.get(key) == known:
                    del self._tails[key]


async def until_reported(engine: Engine, project_id: str, run_id: str | None, page: list[Event]) -> list[Event]:
    """Hold a run's finish event back until the push worker has let go of the run.

    A program with its own worker ends at the finish event. If the report came later, the worker would return the run to
    a queue without workers.
    """
    for index, event in enumerate(page):
        if run_id is None or event.event_type not in FINISHES or not _is_of(run_id, event):
            continue
        if index:
            return page[:index]
        age = (engine.clock.now_us() - event.created_at_us) / 1e6
        await engine.push.until_let_go(project_id, run_id, REPORT_SECONDS - max(age, 0.0))
    return page


def _is_of(run_id: str, event: Event) -> bool:
    try:
        source = _fields(event.data).get("_metadata")
    except (msgspec.DecodeError, RecursionError):  # of another program
        return False
    return decoded_object(source).get("execution_id") == run_id


def event_frame(event: Event) -> bytes:
    return frame(_encode(_twin(event)), id=str(event.sequence_id))
