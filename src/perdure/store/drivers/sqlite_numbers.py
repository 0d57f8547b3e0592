"""Numbers executions and events in the order in which an SQLite store creates them.

A wait takes the events published after its execution was started. A clock can go back between the two; a number
cannot. Within a topic numbers grow with `seq`, because a publish holds the topic. PostgreSQL uses a sequence without a
cache, which a crash or a failover does not take back: its log is written before that of the rows.

The only writer counts in memory. Each opening reserves a range on disk behind all used numbers.
"""

from typing import Final

import apsw

RANGE: Final = 1 << 32
SPARE: Final = 1 << 20
"""More than one group of verbs can use."""


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
        """Call it before a transaction, or in one that commits before any number is used."""
        if self._last + SPARE < self.end:
            return
        row = self._connection.execute(
            "INSERT INTO meta VALUES ('created_numbers', ?1) ON CONFLICT DO UPDATE SET value = value + ?1 "
            "RETURNING value",
            (RANGE,),
        ).get
        self.end = int(row)
        self._last = max(self._last, self.end - RANGE)
