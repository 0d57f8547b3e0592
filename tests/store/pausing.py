"""Pauses, as a server's loop works on them."""

from typing import Any, Final

from tests.store.world import PROJECT, World

from perdure.store.verbs.steering import pauses
from perdure.store.verbs.steering.pauses import PauseTarget, PauseWork
from perdure.wire.runs.queues import Pause, PauseKind
from perdure.wire.steering.pauses import EndedPause, ListPauses

ALL = [
    PauseTarget(PROJECT, PauseKind.DEPLOYMENT, "d", ""),
    PauseTarget(PROJECT, PauseKind.WORKFLOW, "wf", ""),
    PauseTarget(PROJECT, PauseKind.QUEUE, "q", ""),
    PauseTarget(PROJECT, PauseKind.KEY, "q", "k"),
]
"""Each covers the execution that `covered` starts."""
QUEUE = ALL[2]
COVERED: Final[dict[str, Any]] = {"queue_name": "q", "concurrency_key": "k"}


async def pause(world: World, what: PauseTarget, *, work: bool = True, **values: Any) -> Pause:
    given = {"until_us": None, "note": None, "paused_by": "ann", **values}
    paused = await world.do(pauses.pause, what=what, **given)
    if work:
        await work_all(world)
    return paused


async def unpause(world: World, what: PauseTarget, *, work: bool = True) -> EndedPause:
    paused = await world.do(pauses.read_pause, what=what)
    ended = await world.do(pauses.unpause, what=what)
    if work:
        await work_all(world)
    return EndedPause(was_paused=ended, held=0 if paused is None else paused.held)


async def end_due(world: World) -> list[PauseTarget]:
    ended = await world.do(pauses.end_due)
    await work_all(world)
    return ended


async def to_work(world: World) -> list[PauseWork]:
    return await world.do(pauses.pauses_to_work)


async def work_all(world: World) -> None:
    """Mark and release until nothing is left."""
    for one in await to_work(world):
        work = {"marking": pauses.mark, "ending": pauses.release}.get(one.state)
        while work is not None and await world.do(work, number=one.number):
            pass


async def listed(world: World) -> list[Pause]:
    return (await world.store.scan(pauses.list_pauses(world.at(), ListPauses()))).items
