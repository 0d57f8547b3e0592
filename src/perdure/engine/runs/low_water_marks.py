"""Low-water marks of queues, for claims on a database that cannot clean up (`engine/base/snapshots.py`).

A queue is ordered by rank, then by the time of becoming ready, so the last claimed execution marks where the rank's
live executions begin. The next claim searches known ranks from a little before their marks, and all other ranks.
Because an execution may become ready below the mark, a claim now and then searches everything; the longer a full search
takes, the rarer.
"""

from collections.abc import Iterable
from typing import Final

from perdure.store.verbs.runs.claims import RankRange

MARGIN_US: Final = 2_000_000
RANKS_MAX: Final = 16
FULL_LOOK_SECONDS: Final = 5.0
FULL_LOOK_SHARE: Final = 20
"""Full searches take at most 1/20 of the time."""
EVERYWHERE: Final = RankRange(-(1 << 62), 0, 1 << 62)


class LowWaterMarks:
    def __init__(self) -> None:
        self._by_rank: dict[int, int] = {}
        self._full_look_at = 0.0

    def ranges(self, now: float) -> list[RankRange]:
        """Return ranges in the order to search. `now` is the loop's time."""
        if not self._by_rank or now >= self._full_look_at:
            return [EVERYWHERE]
        ranks = sorted(self._by_rank)
        first = RankRange(EVERYWHERE.rank, 0, ranks[0])
        return [
            first,
            *(
                RankRange(rank, self._by_rank[rank], before)
                for rank, before in zip(ranks, [*ranks[1:], EVERYWHERE.rank_before], strict=True)
            ),
        ]

    def note(self, heads: Iterable[tuple[int, int]], looked_at: list[RankRange], started: float, ended: float) -> None:
        """Move marks to a search's first executions: (rank, ready since in µs)."""
        if looked_at == [EVERYWHERE]:
            self._full_look_at = ended + max(FULL_LOOK_SECONDS, (ended - started) * FULL_LOOK_SHARE)
        for rank, ready_at_us in heads:
            self._by_rank.pop(rank, None)
            self._by_rank[rank] = ready_at_us - MARGIN_US
            if len(self._by_rank) > RANKS_MAX:
                del self._by_rank[next(iter(self._by_rank))]
