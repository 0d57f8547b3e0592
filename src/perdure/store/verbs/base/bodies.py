"""Bodies of steps, compared with recorded outcomes."""

from collections.abc import Sequence
from typing import NamedTuple

from perdure.store.base.interface import query, verb
from perdure.wire.base.records import Kind


class Body(NamedTuple):
    """A started body of a step. `attempt` and `started_at_us` are the worker's."""

    execution_id: str
    attempt: int
    key: str
    started_at_us: int


@verb(reads=True)
async def count_rerun(*, bodies: Sequence[Body]) -> int:
    """Counts bodies that began after the outcome of their step.

    An outcome of an earlier attempt was there before the body. An outcome of the same attempt was there if its body
    began earlier: both times are the same worker's.
    """
    amount = 0
    for body in bodies:
        for kind, attempt, started_at_us in await query("recorded_runs", execution_id=body.execution_id, key=body.key):
            earlier = started_at_us is not None and (attempt, started_at_us) < (body.attempt, body.started_at_us)
            amount += kind == Kind.STEP and earlier
    return amount
