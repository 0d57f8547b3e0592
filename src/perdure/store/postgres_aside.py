"""Where verbs wait for what somebody else holds: one by one on a connection of their own, so that no other verb does.

A statement that runs by hand, a dump, a server that has gone silent in the middle of a transaction: for as long as one
of them holds a row, whoever needs it can only wait, and a group of others would wait with it. Such a verb has met a
time-out by itself before it comes here. Each is tried in turn, for a moment, until it gets through or has waited long
enough and its caller is told that others hold what it needs.

So does a verb that gives a queue its first limit: it waits until no transaction of any server is under way that may
have read that there was none.

**Order.** What a verb's arguments name is its own from the moment at which it came (store/lockstep.py), here too: later
verbs that name the same row, or need it, come here as well and are not tried before it. So does whatever needs the row
that is held, also for a while after the verb that met it was refused: its caller asks again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from perdure.store.interface import Hint
from perdure.store.lockstep import Row
from perdure.store.named import rows_named
from perdure.store.postgres_lane import EXCLUSIVE, SHARED, Answer, Item, Lane
from perdure.store.postgres_link import Link
from perdure.store.queries import Statement

WAIT_SECONDS_MAX = 6.0
"""How long a verb waits here, as a rule: its caller is told after the first try that ends later."""
PAUSE_SECONDS: Final = 0.05
"""Between the turns of those that wait. What they lock before they meet what is held is free meanwhile."""
BELIEVED_SECONDS: Final = 10.0
"""For how long a row counts as held after somebody has waited for it in vain."""
_LIMITS: Final = f"SET LOCAL lock_timeout = 100; SELECT {SHARED}"
"""Shorter than others wait for what a verb has locked before it meets what is held."""
_LIMITS_ALONE: Final = f"SET LOCAL lock_timeout = 1000; SELECT {EXCLUSIVE}; SET LOCAL lock_timeout = 100"
"""Everybody else waits meanwhile, too."""


class _Waiter:
    """Who waits for the answer of a verb that is here."""

    __slots__ = ("_answer", "_left", "alone", "named", "rows", "until")

    def __init__(self, answer: Answer, named: Sequence[Row], until: float, left: "Callable[[_Waiter, bool], None]"):
        self._answer = answer
        self._left = left
        self.named = named
        self.rows: Sequence[Row] = ()
        """What it needs and is held. When it gets through they are not."""
        self.alone = False
        """It must have the lock to itself that all others share."""
        self.until = until

    def __call__(self, result: Any, error: Exception | None) -> None:
        self._left(self, error is None)
        self._answer(result, error)


class AsideLane(Lane):
    """The verbs that wait, and what is known to be held."""

    def __init__(
        self,
        link: Link,
        queries: dict[str, Statement],
        committed: Callable[[int, float, Sequence[Hint]], None],
        moved: Callable[[str], None],
    ) -> None:
        super().__init__(link, "aside", queries, committed, moved)
        self._awaited: Counter[Row] = Counter()
        """How many verbs here name a row."""
        self._held: dict[Row, float] = {}
        """Until when a row is believed to be held, in the loop's time."""
        self._turn = 0
        """How many of the inbox had their turn in this round."""
        self._ahead: set[Row] = set()
        """What those name."""

    # --- for the lanes that verbs come from --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether anything is known to be held."""
        if self._held:
            now = asyncio.get_running_loop().time()
            self._held = {row: until for row, until in self._held.items() if until > now}
        return bool(self._held or self._awaited)

    def bars(self, rows: Sequence[Row]) -> bool:
        """Whether one of these rows is held, or is awaited by a verb that came earlier."""
        return any(row in self._held or row in self._awaited for row in rows)

    def take(self, item: Item, rows: Sequence[Row], *, barred: bool = False) -> None:
        """Take a verb in that waited in vain for one of these rows, or was barred since it needs them."""
        self._note(self._waiter(item), [row for row in rows if row in self._held] if barred else rows)

    def take_alone(self, item: Item) -> None:
        """Take a verb in that must have the lock to itself which all others share."""
        self._waiter(item).alone = True

    def _waiter(self, item: Item) -> _Waiter:
        verb, answer = item
        named = rows_named(verb)
        waiter = _Waiter(answer, named, asyncio.get_running_loop().time() + WAIT_SECONDS_MAX, self._left)
        self._awaited.update(named)
        if self._closing:
            self._refuse([(verb, waiter)], "others hold what it needs, and the server ends", trouble=False)
        else:
            self.submit([(verb, waiter)])
        return waiter

    def sift(self, group: list[Item]) -> list[Item]:
        """Take in those of a group that name what is held or awaited; answers with the others."""
        if not self.busy:
            return group
        free: list[Item] = []
        for item in group:
            named = rows_named(item[0])
            if self.bars(named):
                self.take(item, named, barred=True)
            else:
                free.append(item)
        return free

    def _note(self, waiter: _Waiter, rows: Sequence[Row]) -> None:
        waiter.rows = rows or waiter.rows
        self._held.update(dict.fromkeys(rows, asyncio.get_running_loop().time() + BELIEVED_SECONDS))

    def _left(self, waiter: _Waiter, done: bool) -> None:
        self._awaited.subtract(waiter.named)
        self._awaited = +self._awaited
        if done:
            for row in waiter.rows:
                self._held.pop(row, None)

    # --- turn by turn ------------------------------------------------------------------------------------------------

    def _limits(self) -> str:
        return _LIMITS_ALONE if self._alone else _LIMITS

    async def _next(self) -> list[Item]:
        """The next one whose turn it is, unless one before it names the same row and did not get through."""
        while True:
            while self._turn < len(self.inbox):
                item = self.inbox[self._turn]
                named = rows_named(item[0])
                if self._ahead.isdisjoint(named):
                    del self.inbox[self._turn]
                    self._alone = self._waiter_of(item).alone
                    return [item]
                self._wait_on(named)
            self._turn = 0
            self._ahead.clear()
            await asyncio.sleep(PAUSE_SECONDS)

    def _wait_on(self, named: Sequence[Row]) -> None:
        """Its turn is over: until the next round nobody overtakes it."""
        self._turn += 1
        self._ahead.update(named)

    def _run_alone(self, item: Item) -> None:
        self._waiter_of(item).alone = True
        self.inbox.insert(self._turn, item)  # its turn goes on

    def _waiter_of(self, item: Item) -> _Waiter:
        waiter = item[1]
        assert isinstance(waiter, _Waiter)
        return waiter

    def _late(self, item: Item, rows: Sequence[Row], why: str) -> bool:
        waiter = self._waiter_of(item)
        self._note(waiter, rows)
        if asyncio.get_running_loop().time() >= waiter.until:
            self._refuse([item], f"others hold what it needs ({why})", trouble=False)
        else:
            self.inbox.insert(self._turn, item)
            self._wait_on(waiter.named)
        return True
