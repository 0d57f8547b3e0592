"""The lock queue: verbs wait for rows of other transactions, one by one on a connection of their own.

A statement run by hand, a dump, or a silent server may hold a row for long. A verb in need of the row comes here after
a time-out. A verb with the first limit of a queue waits here for all transactions that may have read the old state.

**Order.** Rows named by a verb's arguments belong to the verb from its arrival. Later verbs for such a row, or for the
held row, come here too and wait behind it. After a refusal the row counts as held for a while, since the caller tries
again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from perdure.store.base.interface import Answer, Hint, Item
from perdure.store.base.locks import Row
from perdure.store.base.statements import Statement
from perdure.store.drivers.postgres_connection import PostgresConnection
from perdure.store.drivers.postgres_writer import EXCLUSIVE, SHARED, Writer

WAIT_SECONDS_MAX = 6.0
"""The caller gets an error after the first try ending later."""
PAUSE_SECONDS: Final = 0.05
BELIEVED_SECONDS: Final = 10.0
"""Seconds that a row counts as held after a time-out."""
_LIMITS: Final = f"SET LOCAL lock_timeout = 100; SELECT {SHARED}"
"""A short wait, because the verb's own locked rows block other verbs."""
_LIMITS_ALONE: Final = f"SET LOCAL lock_timeout = 1000; SELECT {EXCLUSIVE}; SET LOCAL lock_timeout = 100"
"""A longer wait, during which all other verbs wait."""


class _Waiter:
    __slots__ = ("_answer", "_left", "alone", "named", "rows", "until")

    def __init__(self, answer: Answer, named: Sequence[Row], until: float, left: "Callable[[_Waiter, bool], None]"):
        self._answer = answer
        self._left = left
        self.named = named
        self.rows: Sequence[Row] = ()
        """Held rows needed by the verb. Empty after its success."""
        self.alone = False
        self.until = until

    def __call__(self, result: Any, error: Exception | None) -> None:
        self._left(self, error is None)
        self._answer(result, error)


class LockQueue(Writer):
    def __init__(
        self,
        postgres: PostgresConnection,
        queries: dict[str, Statement],
        committed: Callable[[int, float, Sequence[Hint]], None],
        moved: Callable[[str], None],
    ) -> None:
        super().__init__(postgres, "aside", queries, committed, moved)
        self._awaited: Counter[Row] = Counter()
        """How many verbs name each row."""
        self._held: dict[Row, float] = {}
        """The loop's time at which each row stops to count as held."""
        self._turn = 0
        self._ahead: set[Row] = set()

    @property
    def busy(self) -> bool:
        if self._held:
            now = asyncio.get_running_loop().time()
            self._held = {row: until for row, until in self._held.items() if until > now}
        return bool(self._held or self._awaited)

    def bars(self, rows: Sequence[Row]) -> bool:
        """True if a row counts as held or an earlier verb waits for it."""
        return any(row in self._held or row in self._awaited for row in rows)

    def take(self, item: Item, rows: Sequence[Row], *, barred: bool = False) -> None:
        """Take a verb that was barred, or timed out on one of the rows."""
        self._note(self._waiter(item), [row for row in rows if row in self._held] if barred else rows)

    def take_alone(self, item: Item) -> None:
        self._waiter(item).alone = True

    def _waiter(self, item: Item) -> _Waiter:
        verb, answer = item
        named = verb.locks()
        waiter = _Waiter(answer, named, asyncio.get_running_loop().time() + WAIT_SECONDS_MAX, self._left)
        self._awaited.update(named)
        if self._closing:
            self._refuse(
                [(verb, waiter)], "another transaction holds what it needs, and the server ends", trouble=False
            )
        else:
            self.submit([(verb, waiter)])
        return waiter

    def sift(self, group: list[Item]) -> list[Item]:
        """Take the verbs with held or awaited rows; return the others."""
        if not self.busy:
            return group
        free: list[Item] = []
        for item in group:
            named = item[0].locks()
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

    def _limits(self) -> str:
        return _LIMITS_ALONE if self._alone else _LIMITS

    async def _next(self) -> list[Item]:
        """The round's next verb. A verb behind a failed one for the same row is skipped."""
        while True:
            while self._turn < len(self.inbox):
                item = self.inbox[self._turn]
                named = item[0].locks()
                if self._ahead.isdisjoint(named):
                    del self.inbox[self._turn]
                    self._alone = self._waiter_of(item).alone
                    return [item]
                self._wait_on(named)
            self._turn = 0
            self._ahead.clear()
            await asyncio.sleep(PAUSE_SECONDS)

    def _wait_on(self, named: Sequence[Row]) -> None:
        """No later verb may overtake this one in the round."""
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
            self._refuse([item], f"another transaction holds what it needs ({why})", trouble=False)
        else:
            self.inbox.insert(self._turn, item)
            self._wait_on(waiter.named)
        return True
