"""Where a queue begins, for claims on a database that cannot clean up.

While somebody holds an old snapshot (`engine/snapshots.py`), a look for the first ready executions walks over all that
have gone through the queue since. Ready executions are ordered by rank and by the time at which they became ready; so
whatever was claimed last says, for its rank, where the living ones begin. From there on the next claim looks: per rank
from a little before that place on, and everywhere where no rank is known.

Something may become ready that belongs below such a floor (a server that was slow to commit, a timer that is long
overdue). Now and then a claim therefore looks at everything; the longer that takes, the more rarely.
"""

from collections.abc import Iterable
from typing import Final

from perdure.store.verbs.claims import Range

MARGIN_US: Final = 2_000_000
RANKS_MAX: Final = 16
"""More different priorities than that are not told apart."""
FULL_LOOK_SECONDS: Final = 5.0
FULL_LOOK_SHARE: Final = 20
"""Looks at everything take at most one in so many parts of the time."""
EVERYWHERE: Final = Range(-(1 << 62), 0, 1 << 62)


class Floors:
    """Of one deployment."""

    def __init__(self) -> None:
        self._by_rank: dict[int, int] = {}
        self._full_look_at = 0.0

    def ranges(self, now: float) -> list[Range]:
        """Where to look, in order. All times of this class are the loop's, but those in executions."""
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
        """The first executions, by rank and the time since which they were ready, that a look found."""
        if looked_at == [EVERYWHERE]:
            self._full_look_at = ended + max(FULL_LOOK_SECONDS, (ended - started) * FULL_LOOK_SHARE)
        for rank, ready_at_us in heads:
            self._by_rank.pop(rank, None)
            self._by_rank[rank] = ready_at_us - MARGIN_US
            if len(self._by_rank) > RANKS_MAX:
                del self._by_rank[next(iter(self._by_rank))]
