"""Locks without waiting: each takes a row, or answers that it is held.

A sweep over many executions first asks here for every row that it would wait for. A held row then keeps the sweep from
one execution only, until a later round.
"""

from perdure.store.interface import query


async def is_held(project_id: str, execution_id: str) -> bool:
    """Lock an execution, unless it is held."""
    row = {"project_id": project_id, "id": execution_id}
    return not await query("lock_free", **row) and bool(await query("read_state", **row))


async def session_is_held(project_id: str, session_id: str) -> bool:
    """Lock a session's transcript, unless it is held."""
    session = {"project_id": project_id, "session_id": session_id}
    return not await query("lock_transcript_free", **session) and bool(await query("read_version", **session))


async def _waits_are_held(execution_id: str) -> bool:
    """Lock the open waits of an execution, unless one is held."""
    return bool((await query("locked_waits", execution_id=execution_id))[0][0])


async def end_is_held(project_id: str, execution_id: str, parent_id: str | None) -> bool:
    """Lock what an execution's end changes elsewhere: its waits, its parent and that one's waits, its sessions, and
    the next turns."""
    if parent_id is not None and (await is_held(project_id, parent_id) or await _waits_are_held(parent_id)):
        return True
    if await _waits_are_held(execution_id):
        return True
    for session_id, _ in await query("turns_of_execution", execution_id=execution_id):
        if await session_is_held(project_id, session_id):
            return True
        session = {"project_id": project_id, "session_id": session_id}
        taken = await query("taken_turns", taken_by=execution_id, **session)
        for (id,) in [*taken, *await query("next_turn", **session)]:
            if await is_held(project_id, id):
                return True
    return False


async def below_is_held(project_id: str, execution_id: str) -> bool:
    """Lock the open descendants of an execution, and what their ends change."""
    level = [execution_id]
    while level:
        below: list[str] = []
        for parent_id in level:
            for id, over in await query("children_to_cancel", project_id=project_id, id=parent_id):
                below.append(id)
                if not over and (await is_held(project_id, id) or await end_is_held(project_id, id, None)):
                    return True
        level = below
    return False


async def write_free(name: str, value: str) -> bool:
    """Write a value under a name, unless the name is held. Its holder then writes the value, or it stays as it is."""
    free = bool(await query("lock_meta_free", name=name)) or not await query("read_meta", name=name)
    if free:
        await query("write_meta", name=name, value=value)
    return free
