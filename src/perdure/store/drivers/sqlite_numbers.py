"""Numbers executions and events in the order in which an SQLite store creates them.

A wait takes the events published after its execution was started. A clock can go back between the two; a number cannot.
Numbers within a topic grow with `seq`, because a publish holds the topic. PostgreSQL uses a sequence without a cache.

The only writer counts in memory. Each opening reserves a range on disk behind all used numbers.
"""

from typing import Final

import apsw

RANGE: Final = 1 << 32
SPARE: Final = 1 << 20
"""More numbers than a group of verbs can use."""


class Numbers:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._last = self.end = 0
        """All numbers before the next `reserve` are below `end`."""
        connection.create_scalar_function("created_number", self._next, 0)

    def _next(self, *_: object) -> int:
        self._last += 1
        return self._last

    def reserve(self) -> None:
        """Call before a transaction, or in a transaction with its commit before the first used number."""
        if self._last + SPARE < self.end:
            return
        row = self._connection.execute(
            "INSERT INTO meta VALUES ('created_numbers', ?1) ON CONFLICT DO UPDATE SET value = value + ?1 "
            "RETURNING value",
            (RANGE,),
        ).get
        self.end = int(row)
        self._last = max(self._last, self.end - RANGE)
