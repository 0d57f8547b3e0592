"""Pauses of queues, concurrency keys, workflows and deployments.

A pause counts once its row exists, because claims check for a row (`admission.sql`). The pause's number in `gate` keeps
held executions out of the indexes of ready ones. `mark` writes the number to executions that were ready before, and
`release` removes the number.
"""

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from perdure.store.base.interface import Notify, Ready, query, record, records, serves, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.deployments import active_deployment
from perdure.wire.base.errors import BadValue, WorkflowNotFound
from perdure.wire.base.operation import Listed
from perdure.wire.base.times import rfc3339
from perdure.wire.runs.queues import Pause, PauseKind
from perdure.wire.steering.pauses import ListPauses

MARKED_AT_ONCE: Final = 2_000
"""Executions per batch; short, because claims share PostgreSQL's sweep connection."""
RELEASED_AT_ONCE: Final = 500


class PauseTarget(Struct, frozen=True, gc=False):
    project_id: str
    kind: PauseKind
    name: str
    concurrency_key: str
    """Empty for other kinds."""


class _Marked(PauseTarget, frozen=True, gc=False):
    place: str | None


class PauseWork(Struct, frozen=True, gc=False):
    number: int
    state: str
    until_us: int | None


@verb(sweep=True)
async def pause(*, what: PauseTarget, until_us: int | None, note: str | None, paused_by: str, now_us: int) -> Pause:
    """Pause, and return the pause without `held`. Raises BadValue for a past end, WorkflowNotFound,
    DeploymentNotFound."""
    if until_us is not None and until_us <= now_us:
        raise BadValue(f"until: {rfc3339(until_us)} is past; name a later time.", {"path": "until"})
    if what.kind is PauseKind.DEPLOYMENT:
        await active_deployment(what.project_id, what.name)
    elif what.kind is PauseKind.WORKFLOW and not await query(
        "any_workflow", project_id=what.project_id, name=what.name
    ):
        raise WorkflowNotFound(f"Workflow {what.name!r} is in no active deployment; `perdure workflows` lists them.")
    await query("begin_pause")
    values = {**asdict(what), "until_us": until_us, "note": note, "paused_by": paused_by, "now_us": now_us}
    paused = await record(Pause, "put_pause", **values)
    assert paused is not None
    return paused


@verb(sweep=True)
async def unpause(*, what: PauseTarget) -> bool:
    """End a pause. False: the target was not paused."""
    await query("begin_pause")
    if not await query("end_pause", **asdict(what)):
        return False
    await Notify(Ready(what.project_id, None))
    return True


@verb(reads=True)
async def read_pause(*, what: PauseTarget) -> Pause | None:
    return await record(Pause, "read_pause", **asdict(what))


@verb(sweep=True)
async def end_due(*, now_us: int) -> list[PauseTarget]:
    """End the pauses whose time is over, and return their targets."""
    await query("begin_pause")
    ended = await records(PauseTarget, "end_due_pauses", now_us=now_us)
    await Notify(*{Ready(one.project_id, None) for one in ended})
    return ended


@serves(ListPauses, scans=True)
async def list_pauses(at: At, op: ListPauses) -> Listed[Pause]:
    return Listed(await records(Pause, "list_pauses", at))


@verb(reads=True)
async def pauses_to_work() -> list[PauseWork]:
    """List pauses with executions to mark or release, and pauses that end by themselves."""
    return await records(PauseWork, "pauses_to_work")


@verb(sweep=True)
async def mark(*, number: int) -> bool:
    """Give the pause's number to the next executions that were ready before the pause. False: another server does
    so."""
    pause = await record(_Marked, "try_lock_pause", number=number, state="marking")
    if pause is None:
        return False
    what = asdict(pause)
    del what["place"]
    workflow_id, after = ("", "") if pause.place is None else msgspec.json.decode(pause.place, type=tuple[str, str])
    seen = await query("open_after", workflow_id=workflow_id, after=after, limit=MARKED_AT_ONCE, **what)
    ids = [id for _, id, covered in seen if covered]
    if ids:
        await query("mark_paused", number=number, ids=msgspec.json.encode(ids).decode(), **what)
    more = len(seen) == MARKED_AT_ONCE
    place = None
    if more:
        *last, _ = seen[-1]
        place = msgspec.json.encode(last).decode()
    await query("note_marked", number=number, state="marking" if more else "holding", place=place)
    return True


@verb(sweep=True)
async def release(*, number: int) -> bool:
    """Release the next executions that an ended pause holds. False: another server does so, or the executions are
    locked."""
    pause = await record(_Marked, "try_lock_pause", number=number, state="ending")
    if pause is None:
        return False
    released = await query("release_paused", project_id=pause.project_id, number=number, limit=RELEASED_AT_ONCE)
    if released:
        await Notify(*{Ready(pause.project_id, deployment_id) for (deployment_id,) in released})
    elif not await query("any_paused", number=number):
        await query("delete_pause", number=number)
    return bool(released)
