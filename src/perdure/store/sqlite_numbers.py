"""The numbers of executions and events in the order in which a store created them; here those of a file.

**Why not times.** A wait takes the events that were published after its execution was started. A clock can go back
between the two; a number cannot. Start and publish take their numbers from one counter inside their transactions. If
the publish was sent after the start was answered, its number is greater. If the start was sent after the publish was
answered, the start's number is greater. If they overlap, either order is true. Within a topic numbers grow with `seq`,
because a publish takes them while it holds the topic. On PostgreSQL a sequence without a cache does the same. A crash
or a failover does not take it back: its log is written before the log of the rows.

**Why it costs nothing.** The one writer of a file counts in memory. Each time the file is opened the store reserves a
range of numbers on disk, behind all that were used before. A process that ends leaves the rest of its range unused.
"""

from typing import Final

import apsw

RANGE: Final = 1 << 32
SPARE: Final = 1 << 20
"""More than one group of verbs can use."""


class Numbers:
    """Gives numbers to statements on this connection, as `created_number()`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._last = self.end = 0
        """Every number that was or will be given out before the next `reserve` is below `end`."""
        connection.create_scalar_function("created_number", self._next, 0)

    def _next(self, *_: object) -> int:
        self._last += 1
        return self._last

    def reserve(self) -> None:
        """Reserve a range if the present one is used up. Call it before a transaction, or in one that is committed
        before any number is used."""
        if self._last + SPARE < self.end:
            return
        row = self._connection.execute(
            "INSERT INTO meta VALUES ('created_numbers', ?1) ON CONFLICT DO UPDATE SET value = value + ?1 "
            "RETURNING value",
            (RANGE,),
        ).get
        self.end = int(row)
        self._last = max(self._last, self.end - RANGE)
