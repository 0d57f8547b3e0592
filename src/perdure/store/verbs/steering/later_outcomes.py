"""Outcomes after a failure that a retry takes back, such as refunds.

An outcome is *later* if the code made the call after receiving the failure. When the code ends, the worker reports the
keys of later calls. Without a report (an older worker, or very many calls), every outcome recorded after the failure
counts. `@step(on_retry=…)` decides for its step; the caller decides for other steps.
"""

import json
from collections.abc import Mapping, Sequence

from msgspec import Struct

from perdure.store.base.interface import records
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.errors import LaterOutcomes
from perdure.wire.base.wording import listed, quoted
from perdure.wire.steering.forks import RetryExecution

LATER_MAX = 1_000
"""Keys listed in a refusal."""
ReportedKeys = Mapping[str, str | None] | None
"""Maps the keys of later calls to their steps' `on_retry`. None: the worker did not report."""


class Later(Struct, frozen=True):
    """Journal rows of later outcomes, by decision."""

    undecided: Sequence[JournalEntry] = ()
    redo: Sequence[JournalEntry] = ()

    @property
    def keys(self) -> list[str]:
        """Undecided keys, in the order of the journal."""
        return list(dict.fromkeys(row.key or "" for row in self.undecided))


async def find_later(execution_id: str, failures: Mapping[str, int], reported: ReportedKeys, cut: int) -> Later:
    """Find outcomes later than `failures`, the rows that a retry takes back, and before row `cut`."""
    if not failures or reported == {}:
        return Later()
    if reported is None:
        first = min(failures.values())
        rows = await records(JournalEntry, "outcomes_after", execution_id=execution_id, after=first, cut=cut)
        return Later([row for row in rows if row.key not in failures])
    rows = await records(
        JournalEntry, "outcomes_among", execution_id=execution_id, keys=json.dumps([*reported]), cut=cut
    )
    return Later(
        [row for row in rows if reported[row.key or ""] is None and row.key not in failures],
        [row for row in rows if reported[row.key or ""] == "redo"],
    )


def rows_to_drop(later: Later, request: RetryExecution) -> list[int]:
    """Raises LaterOutcomes if neither the request nor the code decides."""
    keys = later.keys
    if keys and not (request.keep_later or request.redo_later):
        id, names = request.execution_id, listed([quoted(key) for key in keys])
        raise LaterOutcomes(
            f"Execution {id!r} recorded {names} after the failure that this retry takes back. They may have undone "
            "earlier steps. `keep_later` keeps their outcomes, `redo_later` drops them, and an earlier `from_step` "
            "runs that step again too.",
            {"execution_id": id, "later": keys[:LATER_MAX]},
        )
    dropped = [*later.redo, *(later.undecided if request.redo_later else ())]
    return sorted(row.seq for row in dropped)
