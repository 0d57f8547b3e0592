"""Workers as operators see them, with the steps in flight at their last beat."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from perdure.store.base.interface import query, records, verb
from perdure.wire.insight.timeline_fold import RunningStep
from perdure.wire.runs.requests import StepInFlight
from perdure.wire.runs.workers import ListedWorker

LOOK_ROWS: Final = 1_000
"""Journal rows searched for outcomes newer than the beat."""
_decode: Final = msgspec.json.Decoder(list[StepInFlight]).decode


@verb(reads=True)
async def list_workers(
    *, project_id: str, after: str, limit: int, now_us: int, lease_us: int, push_lease_us: int
) -> list[ListedWorker]:
    """`lease_us` and `push_lease_us` are how long a beat's lease lasts."""
    times = {"now_us": now_us, "lease_us": lease_us, "push_lease_us": push_lease_us}
    return await records(ListedWorker, "list_all_workers", project_id=project_id, after=after, limit=limit, **times)


def write_steps(steps: Sequence[StepInFlight]) -> bytes | None:
    return msgspec.json.encode(steps) if steps else None


async def steps_of(worker_id: str) -> Mapping[str, list[RunningStep]]:
    """Return a worker's running steps by execution."""
    found: dict[str, list[RunningStep]] = {}
    for (said,) in await query("worker_in_flight", worker_id=worker_id):
        for id, key, tries, started_at_us in _decode(said):
            found.setdefault(id, []).append(RunningStep(key, tries, started_at_us))
    return found


async def without_outcome(execution_id: str, next_seq: int, steps: Iterable[RunningStep]) -> list[RunningStep]:
    """Leave out steps whose outcomes the journal has got since the beat."""
    wanted = {step.key: step for step in steps}
    if not wanted:
        return []
    keys = json.dumps(list(wanted))
    after = max(0, next_seq - 1 - LOOK_ROWS)
    for key, started_at_us in await query("begun_steps", execution_id=execution_id, after=after, keys=keys):
        if key in wanted and started_at_us is not None and started_at_us >= wanted[key].started_at_us:
            del wanted[key]
    return list(wanted.values())
