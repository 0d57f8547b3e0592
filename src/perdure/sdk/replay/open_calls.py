"""A call of workflow code is

- *made* when the code calls: the call gets a key in the scope of its task
- *asked for* when the code awaits the call
- *issued* when the runner starts the call
- *given up* when the code drops the call before its outcome
"""

import sys
from asyncio import Future
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from msgspec import structs

from perdure.sdk.base.errors import Fatal
from perdure.sdk.payloads.fingerprints import NUMBERS, with_tokens
from perdure.sdk.replay.calls import CHILD_STARTED, EVENT, STEP, DurableCall
from perdure.sdk.replay.failures import StepFailures
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.not_awaited import Made, Promise, not_awaited
from perdure.sdk.replay.orphaned_outcomes import LateEvents, OrphanedOutcomes
from perdure.sdk.replay.task_identity import Swap, What, swapped
from perdure.wire.base.limits import STEPS_MAX
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.runs.executions import Row

OURS: Final = frozenset({Kind.STEP, Kind.CHILD_STARTED, Kind.PUBLISHED, Kind.SENT, Kind.TRANSCRIPT})
"""The worker must act for these kinds. Other outcomes come by themselves."""
T = TypeVar("T")

_WAITS: Final = frozenset({Kind.EVENT, Kind.RESUME})


class OpenCalls:
    __slots__ = (
        "_abandoned",
        "_calls",
        "_child_waits",
        "_children",
        "_drawn",
        "_failures",
        "_fresh",
        "_given_up",
        "_given_up_asked",
        "_late_events",
        "_made",
        "_orphaned",
        "_ours",
        "_swaps",
        "_upsets",
        "loop",
        "seen",
        "steps",
    )

    def __init__(self, loop: InnerLoop) -> None:
        self.loop = loop
        self.steps = 0
        self.seen = 0
        self._failures: StepFailures | None = None
        self._calls: dict[str, DurableCall] = {}
        self._given_up: dict[str, Kind] = {}
        self._given_up_asked: dict[str, What] | None = {}
        """None once a call is started: keys are then fixed."""
        self._fresh: list[DurableCall] = []
        self._abandoned: list[DurableCall] = []
        self._ours = 0
        self._children: dict[str, Row | None] | None = None
        """The children by key, with their ends so far."""
        self._child_waits: dict[str, list[Future[Row]]] | None = None
        self._late_events: LateEvents | None = None
        self._orphaned: OrphanedOutcomes | None = None
        self._swaps: tuple[Swap, ...] = ()
        """See `task_identity`."""
        self._made: dict[DurableCall | Promise, Made] | None = None
        """Calls that the code has not asked for yet."""
        self._upsets = 0
        """Number of errors raised by calls in the code."""
        self._drawn = 0

    def new_call(
        self,
        kind: Kind,
        name: str | None,
        fingerprint: str | None,
        request: object,
        *,
        key: str | None = None,
        of: type[DurableCall] = DurableCall,
    ) -> DurableCall:
        """A callable `request` gets the final key at the call's start. Raises `Fatal` beyond STEPS_MAX."""
        loop = self.loop
        if kind is STEP:
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise Fatal(
                    f"An execution may call {STEPS_MAX:,} steps, because a replay repeats all of them. Move parts of "
                    "the work to children (ctx.map_children), or do more in one step."
                )
        key = loop.key_for(name or kind.value) if key is None else loop.claim_key(key)
        call = of(key, kind, name, fingerprint, request, made_at=loop.turn)
        if self._swaps:
            call.made_after = len(self._swaps)
        return call

    def made(
        self, call: DurableCall | Promise, coro: Coroutine[Any, Any, T], depth: int = 2
    ) -> Coroutine[object, None, T]:
        """The user's code must await `coro`. `depth` is the distance of the code's frame."""
        frame = sys._getframe(depth)
        if self._made is None:
            self._made = {}
        self._made[call] = coro, frame.f_code, frame.f_lasti, self._upsets
        return coro

    def begins(self, name: str, run: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[object, None, T]:
        """See `made`. The call gets its keys when the code awaits."""
        promise = Promise(name)

        async def begin() -> T:
            self._asked_for(promise)
            return await run()

        return self.made(promise, begin(), 3)

    def _asked_for(self, call: DurableCall | Promise) -> None:
        made = self._made
        if made is not None:
            made.pop(call, None)
            self._made = made or None

    def _forgotten(self) -> BaseException | None:
        made, self._made = self._made, None
        return None if made is None else not_awaited(made, self._upsets)

    def ask(self, call: DurableCall) -> "Future[Row]":
        """If the future gives anything but a row, call `give_up`."""
        self._asked_for(call)
        if self.loop.closed:
            return Future(loop=self.loop)  # A `finally` block during eviction: it waits in vain.
        if self._swaps:
            for swap in self._swaps[call.made_after :]:
                call.key = swapped(call.key, swap)
        if self._orphaned is not None and call.key in self._orphaned.aside:
            self._orphaned.ask(call)
        if self._failures is not None:
            call.after = self.seen
        future = call.future = Future(loop=self.loop)
        if call.kind is EVENT and self._late_events is not None:
            row = self._late_events.take(call)
            if row is not None:
                future.set_result(row)
                return future
        self._calls[call.key] = call
        self._fresh.append(call)
        if self._drawn and (scope := self.loop.own_scope()) is not None and scope.drawn is not None:
            call.fingerprint = with_tokens(call.fingerprint, [NUMBERS + scope.drawn])
        if call.kind in OURS:
            self._ours += 1
            if call.kind is CHILD_STARTED:
                if self._children is None:
                    self._children = {}
                self._children.setdefault(call.key, None)
        return future

    def give_up(self, call: DurableCall) -> None:
        """Does nothing if the outcome was delivered."""
        self._upsets += 1
        if self._calls.get(call.key) is not call:
            return
        del self._calls[call.key]
        if call.kind in OURS:
            self._ours -= 1
        self._let_go(call)

    def _let_go(self, call: DurableCall) -> None:
        self._given_up[call.key] = call.kind
        if self._given_up_asked is not None:
            self._given_up_asked[call.key] = (call.kind, call.name, call.fingerprint)
        if call.kind is EVENT:
            self._late_events = self._late_events or LateEvents()
            self._late_events.waits[call.key] = call
        if call.issued:
            self._abandoned.append(call)
        if call.after:
            self._note_later(call)

    def _note_failure(self, row: Row, *, seen: bool) -> None:
        self._failures = self._failures or StepFailures()
        self._failures.note(row, at=self.seen if seen else None)

    def _note_later(self, call: DurableCall) -> None:
        assert self._failures is not None
        settings = getattr(call.request, "settings", None)
        self._failures.note_later(call.after, call.key, getattr(settings, "on_retry", None))

    async def wait(self, call: DurableCall) -> Row:
        try:
            return await self.ask(call)
        except BaseException:
            self.give_up(call)
            raise

    def call(
        self, kind: Kind, name: str | None, fingerprint: str | None, request: object, *, key: str | None = None
    ) -> Coroutine[Any, Any, Row]:
        return self.wait(self.new_call(kind, name, fingerprint, request, key=key))

    def child_end(self, key: str) -> "Future[Row]":
        """Several branches may wait for the end, each with a future to cancel when giving up."""
        future: Future[Row] = Future(loop=self.loop)
        if self.loop.closed:
            return future
        assert self._children is not None and key in self._children, f"no child was started under {key!r}"
        row = self._children[key]
        if row is not None:
            if not row.ok:
                self._note_failure(row, seen=True)
            future.set_result(row)
            return future
        if self._child_waits is None:
            self._child_waits = {}
        self._child_waits.setdefault(key, []).append(future)
        return future

    def timer_asked(self, key: str) -> str:
        if self._orphaned is not None:
            key = self._orphaned.free_key(key)
        return key

    def timer_cancelled(self, key: str, due_us: int) -> None:
        self._given_up[key] = Kind.TIMER
        if self._given_up_asked is not None:
            self._given_up_asked[key] = (Kind.TIMER, None, fingerprint_of_timer(due_us))

    def waits(self) -> list[str]:
        return [call.key for call in self._calls.values() if call.kind in _WAITS]

    def children(self) -> list[str]:
        waits = self._child_waits or {}
        return [key for key, futures in waits.items() if not all(future.done() for future in futures)]

    def outstanding(self) -> list[DurableCall]:
        return list(self._calls.values())

    def _swap(self, swap: Swap) -> None:
        """The calls of both places were not issued."""
        self._swaps += (swap,)
        for call in self._calls.values():
            if call.key.startswith(swap):
                call.key = swapped(call.key, swap)
        self._calls = {call.key: call for call in self._calls.values()}
        self._given_up = {swapped(key, swap): kind for key, kind in self._given_up.items()}
        if self._given_up_asked is not None:
            self._given_up_asked = {swapped(key, swap): asked for key, asked in self._given_up_asked.items()}
        if self._children is not None:
            self._children = {swapped(key, swap): row for key, row in self._children.items()}
        if self._child_waits is not None:
            self._child_waits = {swapped(key, swap): futures for key, futures in self._child_waits.items()}
        if self._late_events is not None:
            self._late_events.waits = {swapped(key, swap): call for key, call in self._late_events.waits.items()}
        self.loop.swap(swap)

    def _take_fresh(self) -> list[DurableCall]:
        started = []
        for call in self._fresh:
            if self._calls.get(call.key) is call:
                call.issued = True
                if callable(call.request):
                    request: Any = call.request(call.key)
                    if getattr(request, "fingerprint", call.fingerprint) != call.fingerprint:
                        request = structs.replace(request, fingerprint=call.fingerprint)
                    call.request = request
                started.append(call)
        self._fresh = []
        return started

    def _waits_for_a_child(self) -> bool:
        waits = self._child_waits
        while waits:
            key, futures = next(iter(waits.items()))
            if not all(future.done() for future in futures):
                return True
            del waits[key]
        return False

    def _take_abandoned(self) -> list[DurableCall]:
        abandoned, self._abandoned = self._abandoned, []
        return [call for call in abandoned if call.key in self._given_up]  # the other outcomes came all the same

    def _is_excused(self, row: Row) -> bool:
        return self._orphaned is not None and self._orphaned.excuses(row)

    def _was_asked(self, row: Row) -> bool:
        key, kind = row.key or "", row.kind  # keys are not empty
        call = self._calls.get(key)
        return (
            (call is not None and call.kind is kind and row.name in (None, call.name))
            or (kind is Kind.TIMER and key in self.loop.timers)
            or (kind is Kind.CHILD and self._children is not None and key in self._children)
            or self._given_up.get(key) is kind
        )
