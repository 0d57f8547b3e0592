"""An alarm for old snapshots of other sessions on PostgreSQL.

While a forgotten transaction or a stalled replica holds a snapshot, no vacuum removes the rows visible to the snapshot,
and each query of a queue walks over all of them. Until an operator ends the snapshot, claims use low-water marks.
"""

import logging
from typing import Final

from perdure.engine.base.core import Core
from perdure.store.verbs.runs.queries import Snapshot, old_snapshots

logger = logging.getLogger("perdure.engine")

OLD_SECONDS = 300
OLD_TRANSACTIONS = 100_000
CROWDED_SECONDS = 30
"""Seconds after which a snapshot makes claims use low-water marks."""
ROUND_SECONDS = 30.0

_WAYS_OUT: Final = {
    "session": "end its transaction, or that session: SELECT pg_terminate_backend({name})",
    "prepared": "end it: ROLLBACK PREPARED '{name}', or COMMIT PREPARED",
    "slot": "have its consumer catch up, or drop it: SELECT pg_drop_replication_slot('{name}')",
    "standby": "end the long query on that standby, or turn its hot_standby_feedback off",
}


class Snapshots:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: set[tuple[str, str]] = set()

    async def look(self) -> float:
        core = self._core
        held = await core.store.scan(
            old_snapshots(seconds=min(CROWDED_SECONDS, OLD_SECONDS), transactions=OLD_TRANSACTIONS)
        )
        core.crowded = bool(held)
        found = [one for one in held if one.seconds is None or one.seconds >= OLD_SECONDS]
        for one in found:
            if (one.kind, one.name) not in self._known:
                logger.warning("%s", _holder_text(one))
        self._known = {(one.kind, one.name) for one in found}
        core.stats.old_snapshots = len(found)
        return core.spread(ROUND_SECONDS)


def _holder_text(one: Snapshot) -> str:
    who = {
        "session": f"Session {one.name} (application {one.application!r}, user {one.user!r}, {one.state})",
        "prepared": f"The prepared transaction {one.name!r} (user {one.user!r})",
        "slot": f"The replication slot {one.name!r} ({one.state})",
        "standby": f"The standby {one.application!r} (session {one.name})",
    }[one.kind]
    since = f"more than {OLD_TRANSACTIONS:,} transactions" if one.seconds is None else f"{one.seconds} s"
    return (
        f"{who} has held a snapshot of the database for {since}. Meanwhile the database cannot clean up old "
        f"rows, and claims get slower; {_WAYS_OUT[one.kind].format(name=one.name)}."
    )
