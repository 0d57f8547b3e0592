"""Bodies of steps that ran, held against what was recorded before."""

from collections.abc import Sequence
from typing import NamedTuple

from perdure.store.base.interface import query, verb
from perdure.wire.base.records import Kind


class Body(NamedTuple):
    """A body of a step that began; `attempt` and `started_at_us` are its worker's, as the worker reports them."""

    execution_id: str
    attempt: int
    key: str
    started_at_us: int


@verb(reads=True)
async def count_rerun(*, bodies: Sequence[Body]) -> int:
    """How many began after the outcome of their step.

    An outcome of an earlier attempt was there before. One of the same attempt was there if it is of an earlier body:
    both times are the same worker's.
    """
    amount = 0
    for body in bodies:
        for kind, attempt, started_at_us in await query("recorded_runs", execution_id=body.execution_id, key=body.key):
            earlier = started_at_us is not None and (attempt, started_at_us) < (body.attempt, body.started_at_us)
            amount += kind == Kind.STEP and earlier
    return amount
