"""What the code of one execution has asked for, and what of it is still to come.

A call is *made* when the code calls (its key is allocated in the scope of the task), *asked for* when the code awaits
it, *issued* once the runner was told to start it, and *given up* when the code lets go of it before its outcome came.
"""

from asyncio import Future
from collections.abc import Coroutine
from typing import Any, Final

from perdure.sdk.errors import Fatal
from perdure.sdk.replay.calls import CHILD_STARTED, EVENT, STEP, Call
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.leftovers import LateEvents, Leftovers
from perdure.sdk.replay.places import Swap, What, swapped
from perdure.wire.limits import STEPS_MAX
from perdure.wire.records import Kind, Row, fingerprint_of_timer

OURS: Final = frozenset({Kind.STEP, Kind.CHILD_STARTED, Kind.PUBLISHED, Kind.SENT, Kind.TRANSCRIPT})
"""What this worker has to do something for; everything else comes by itself."""
_WAITS: Final = frozenset({Kind.EVENT, Kind.RESUME})


class Asked:
    """The machine's books of calls: `Machine` delivers rows to them."""

    __slots__ = (
        "_abandoned",
        "_calls",
        "_child_waits",
        "_children",
        "_fresh",
        "_given_up",
        "_given_up_asked",
        "_late_events",
        "_leftovers",
        "_ours",
        "_swaps",
        "loop",
        "steps",
    )

    def __init__(self, loop: InnerLoop) -> None:
        self.loop = loop
        self.steps = 0
        """How many its code has called."""
        self._calls: dict[str, Call] = {}
        """Asked for, not answered."""
        self._given_up: dict[str, Kind] = {}
        self._given_up_asked: dict[str, What] | None = {}
        """What those asked for. None once anything was started: keys stay as they are then."""
        self._fresh: list[Call] = []
        self._abandoned: list[Call] = []
        self._ours = 0
        """How many of `_calls` this worker has to do something for."""
        self._children: dict[str, Row | None] | None = None
        """By key, children whose start was asked for; their ends as far as they have come."""
        self._child_waits: dict[str, list[Future[Row]]] | None = None
        self._late_events: LateEvents | None = None
        """Present once a wait for an event was given up."""
        self._leftovers: Leftovers | None = None
        """Present once a step's try has failed."""
        self._swaps: tuple[Swap, ...] = ()
        """Scopes and keys that have changed places (see `places`)."""

    # --- for workflow code -----------------------------------------------------------------------------------------

    def new_call(
        self,
        kind: Kind,
        name: str | None,
        fingerprint: str | None,
        request: object,
        *,
        key: str | None = None,
        of: type[Call] = Call,
    ) -> Call:
        """A call with its key, which is allocated now, in the scope of the current task. `ask` asks for it.

        A callable `request` is called with the final key when the call is started. Raises `Fatal` for one too many.
        """
        loop = self.loop
        if kind is STEP:
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise Fatal(
                    f"An execution may call {STEPS_MAX:,} steps, for a replay goes through all of them; give parts of "
                    "the work to children (ctx.map_children), or do more in one step."
                )
        call = of(
            loop.key_for(name or kind.value) if key is None else loop.claim_key(key), kind, name, fingerprint, request
        )
        if self._swaps:
            call.made_after = len(self._swaps)
        return call

    def ask(self, call: Call) -> "Future[Row]":
        """Ask for `call`: await the future, and tell `give_up` when anything but a row comes out of it."""
        if self.loop.closed:
            return Future(loop=self.loop)  # A `finally` block of an execution that leaves memory: it waits in vain.
        if self._swaps:
            for swap in self._swaps[call.made_after :]:
                call.key = swapped(call.key, swap)
        if self._leftovers is not None and call.key in self._leftovers.aside:
            self._leftovers.ask(call)
        future = call.future = Future(loop=self.loop)
        if call.kind is EVENT and self._late_events is not None:
            row = self._late_events.take(call)
            if row is not None:
                future.set_result(row)
                return future
        self._calls[call.key] = call
        self._fresh.append(call)
        if call.kind in OURS:
            self._ours += 1
            if call.kind is CHILD_STARTED:
                if self._children is None:
                    self._children = {}
                self._children.setdefault(call.key, None)
        return future

    def give_up(self, call: Call) -> None:
        """The code that asked for `call` was cancelled (or its outcome was delivered; then this does nothing)."""
        if self._calls.get(call.key) is not call:
            return
        del self._calls[call.key]
        if call.kind in OURS:
            self._ours -= 1
        self._let_go(call)

    def _let_go(self, call: Call) -> None:
        """`call` is no longer asked for, but its outcome may still come."""
        self._given_up[call.key] = call.kind
        if self._given_up_asked is not None:
            self._given_up_asked[call.key] = (call.kind, call.name, call.fingerprint)
        if call.kind is EVENT:
            self._late_events = self._late_events or LateEvents()
            self._late_events.waits[call.key] = call
        if call.issued:
            self._abandoned.append(call)

    async def wait(self, call: Call) -> Row:
        """Ask for `call` and wait for its outcome."""
        try:
            return await self.ask(call)
        except BaseException:
            self.give_up(call)
            raise

    def call(
        self, kind: Kind, name: str | None, fingerprint: str | None, request: object, *, key: str | None = None
    ) -> Coroutine[Any, Any, Row]:
        """`new_call` now, and a coroutine that asks for it when it is awaited."""
        return self.wait(self.new_call(kind, name, fingerprint, request, key=key))

    def child_end(self, key: str) -> "Future[Row]":
        """The end of the child that was started under `key`. Any number of branches may wait for it, at any time; one
        that gives up cancels its future."""
        future: Future[Row] = Future(loop=self.loop)
        if self.loop.closed:
            return future
        assert self._children is not None and key in self._children, f"no child was started under {key!r}"
        row = self._children[key]
        if row is not None:
            future.set_result(row)
            return future
        if self._child_waits is None:
            self._child_waits = {}
        self._child_waits.setdefault(key, []).append(future)
        return future

    def timer_asked(self, key: str) -> str:
        if self._leftovers is not None:
            key = self._leftovers.free_key(key)
        return key

    def timer_cancelled(self, key: str, due_us: int) -> None:
        self._given_up[key] = Kind.TIMER
        if self._given_up_asked is not None:
            self._given_up_asked[key] = (Kind.TIMER, None, fingerprint_of_timer(due_us))

    # --- for the runner --------------------------------------------------------------------------------------------

    def waits(self) -> list[str]:
        """The keys of all open waits for events and answers, in the order in which they were asked for."""
        return [call.key for call in self._calls.values() if call.kind in _WAITS]

    def children(self) -> list[str]:
        """The keys of the children whose ends are awaited."""
        waits = self._child_waits or {}
        return [key for key, futures in waits.items() if not all(future.done() for future in futures)]

    def outstanding(self) -> list[Call]:
        """Everything that was asked for and not answered."""
        return list(self._calls.values())

    # --- for the machine -------------------------------------------------------------------------------------------

    def _swap(self, swap: Swap) -> None:
        """Two scopes, or two calls of one scope, change places. None of their calls has been issued."""
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

    def _take_fresh(self) -> list[Call]:
        """What was asked for since, to be started."""
        started = []
        for call in self._fresh:
            if self._calls.get(call.key) is call:
                call.issued = True
                if callable(call.request):
                    call.request = call.request(call.key)
                started.append(call)
        self._fresh = []
        return started

    def _waits_for_a_child(self) -> bool:
        waits = self._child_waits
        while waits:
            key, futures = next(iter(waits.items()))
            if not all(future.done() for future in futures):
                return True
            del waits[key]  # Given up since.
        return False

    def _take_abandoned(self) -> list[Call]:
        abandoned, self._abandoned = self._abandoned, []
        return [call for call in abandoned if call.key in self._given_up]  # The others' outcomes came all the same.

    def _was_asked(self, row: Row) -> bool:
        key, kind = row.key or "", row.kind  # no key is empty
        call = self._calls.get(key)
        return (
            (call is not None and call.kind is kind and call.name == row.name)
            or (kind is Kind.TIMER and key in self.loop.timers)
            or (kind is Kind.CHILD and self._children is not None and key in self._children)
            or self._given_up.get(key) is kind
        )
