"""Low-water marks of queues, for claims on a database that cannot clean up.

While another session holds an old snapshot (`engine/snapshots.py`), a query for the first ready executions walks over
all that have left the queue since. Executions are ordered by rank and by the time when they became ready. The last
claimed one therefore marks, for its rank, where the live ones begin. The next claim searches each known rank from a
little before that mark, and all unknown ranks.

An execution may become ready below its mark (a slow commit, an overdue timer). Now and then a claim therefore searches
everything, more rarely the longer that takes.
"""

from collections.abc import Iterable
from typing import Final

from perdure.store.verbs.claims import Range

MARGIN_US: Final = 2_000_000
RANKS_MAX: Final = 16
"""Marks are kept for at most this many priorities."""
FULL_LOOK_SECONDS: Final = 5.0
FULL_LOOK_SHARE: Final = 20
"""Full searches take at most one part in this many of the time."""
EVERYWHERE: Final = Range(-(1 << 62), 0, 1 << 62)


class Floors:
    """The low-water marks of one deployment."""

    def __init__(self) -> None:
        self._by_rank: dict[int, int] = {}
        self._full_look_at = 0.0

    def ranges(self, now: float) -> list[Range]:
        """The ranges to search, in order. `now` is the loop's time."""
        if not self._by_rank or now >= self._full_look_at:
            return [EVERYWHERE]
        ranks = sorted(self._by_rank)
        first = Range(EVERYWHERE.rank, 0, ranks[0])
        return [
            first,
            *(
                Range(rank, self._by_rank[rank], before)
                for rank, before in zip(ranks, [*ranks[1:], EVERYWHERE.rank_before], strict=True)
            ),
        ]

    def note(self, heads: Iterable[tuple[int, int]], looked_at: list[Range], started: float, ended: float) -> None:
        """Move the marks to the first executions that a search found, as (rank, ready since in µs). `started` and
        `ended` are the loop's times."""
        if looked_at == [EVERYWHERE]:
            self._full_look_at = ended + max(FULL_LOOK_SECONDS, (ended - started) * FULL_LOOK_SHARE)
        for rank, ready_at_us in heads:
            self._by_rank.pop(rank, None)
            self._by_rank[rank] = ready_at_us - MARGIN_US
            if len(self._by_rank) > RANKS_MAX:
                del self._by_rank[next(iter(self._by_rank))]
