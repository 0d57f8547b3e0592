"""Locks without waiting. True: the rows are locked, or do not exist. False: another transaction holds a row.

A sweep asks here first, so a held row delays one execution only.
"""

from perdure.store.base.interface import query, value


async def try_lock(project_id: str, execution_id: str) -> bool:
    row = {"project_id": project_id, "id": execution_id}
    return bool(await query("try_lock_execution", **row)) or not await query("read_state", **row)


async def try_lock_session(project_id: str, session_id: str) -> bool:
    session = {"project_id": project_id, "session_id": session_id}
    return bool(await query("try_lock_transcript", **session)) or not await query("read_version", **session)


async def _try_lock_waits(execution_id: str) -> bool:
    return not await value("locked_waits", execution_id=execution_id)


async def try_lock_end(project_id: str, execution_id: str, parent_id: str | None) -> bool:
    """Lock the rows for an execution's end: waits, parent, the parent's waits, sessions, next turns."""
    if parent_id is not None and not (await try_lock(project_id, parent_id) and await _try_lock_waits(parent_id)):
        return False
    if not await _try_lock_waits(execution_id):
        return False
    for session_id, _ in await query("turns_of_execution", execution_id=execution_id):
        if not await try_lock_session(project_id, session_id):
            return False
        session = {"project_id": project_id, "session_id": session_id}
        taken = await query("taken_turns", taken_by=execution_id, **session)
        for (id,) in [*taken, *await query("next_turn", **session)]:
            if not await try_lock(project_id, id):
                return False
    return True


async def try_lock_below(project_id: str, execution_id: str) -> bool:
    """Lock the open descendants of an execution, and the rows for their ends."""
    tree = [execution_id]
    for parent_id in tree:
        for id, over in await query("children_to_cancel", project_id=project_id, id=parent_id):
            tree.append(id)
            if not over and not (await try_lock(project_id, id) and await try_lock_end(project_id, id, None)):
                return False
    return True


async def try_write(name: str, value: str) -> bool:
    """False: another transaction holds the name."""
    locked = bool(await query("try_lock_meta", name=name)) or not await query("read_meta", name=name)
    if locked:
        await query("write_meta", name=name, value=value)
    return locked
