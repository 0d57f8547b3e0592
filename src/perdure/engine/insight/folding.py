"""The background duty that folds ends into rollups."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from perdure.engine.base.core import Core
from perdure.store.verbs.insight import ended
from perdure.store.verbs.insight.ended import HOUR_US, MINUTE_US, Folds, Group, minute

SECONDS: Final = 5.0
"""Seconds between two folds: readers count the ends of about ten seconds singly."""
STEP_US: Final = 3_000_000
"""The least time that a fold covers, so servers do not fold in turns."""
YOUNG_US: Final = 5_000_000
"""Younger ends wait for transactions that commit late and for servers with another clock."""
SETTLED_US: Final = 5 * MINUTE_US
"""Transactions with older ends have committed."""


class Folding:
    """Folds ends on any server: a second fold changes nothing."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pruned_at_us = 0

    async def fold(self) -> float:
        """Run a round, at most one step."""
        core = self._core
        now_us = core.clock.now_us()
        folds = await core.store.read(ended.folds())
        if folds is None:
            await core.store.write(ended.begin())
            return 0.0
        if now_us < folds.folded_to_us:
            await core.store.write(ended.reopen(was=folds, from_us=now_us // HOUR_US * HOUR_US))
            return 0.0
        if now_us - self._pruned_at_us >= HOUR_US:
            self._pruned_at_us = now_us
            await core.store.write(ended.prune_counts(now_us=now_us))
        if await self._fold_new(folds, now_us) or await self._settle(folds, now_us):
            return 0.01
        return core.spread(SECONDS)

    async def _fold_new(self, folds: Folds, now_us: int) -> bool:
        """Fold new ends. Without ends, write once at the end of a minute, so the minute can settle."""
        to_us = now_us - YOUNG_US
        if to_us - folds.folded_to_us < STEP_US:
            return False
        groups, end_us = await self._core.store.scan(ended.piece_after(from_us=folds.folded_to_us, to_us=to_us))
        over = folds.folded_to_us % MINUTE_US and minute(to_us) > folds.folded_to_us
        if not groups and not over:
            return False
        await self._write(folds, replace(folds, folded_to_us=end_us if groups else minute(end_us)), groups)
        return True

    async def _settle(self, folds: Folds, now_us: int) -> bool:
        to_us = minute(min(folds.folded_to_us, now_us - SETTLED_US))
        if to_us <= folds.settled_to_us:
            return False
        groups, end_us = await self._core.store.scan(ended.missed(from_us=folds.settled_to_us, to_us=to_us))
        await self._write(folds, replace(folds, settled_to_us=end_us), groups)
        return True

    async def _write(self, was: Folds, now: Folds, groups: Sequence[Group]) -> None:
        core = self._core
        await core.store.write(ended.fold(was=was, now=now, groups=groups, now_us=core.clock.now_us()))
