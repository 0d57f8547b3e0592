"""Sessions: what an agent remembers of one, with a version that keeps concurrent writers apart."""

from msgspec import Raw

from perdure.store.interface import query, verb
from perdure.wire.errors import Conflict
from perdure.wire.sessions import Memory


@verb
async def get_memory(*, project_id: str, session_id: str) -> Memory:
    """What is remembered of a session; of an unknown one nothing, in version 0."""
    rows = await query("read_memory", project_id=project_id, session_id=session_id)
    if not rows:
        return Memory(None, Raw(b"[]"), 0)
    summary, messages, version = rows[0]
    return Memory(None if summary is None else bytes(summary).decode(), Raw(messages), version)


@verb
async def put_memory(
    *, project_id: str, session_id: str, summary: str | None, messages: Raw, version: int | None, now_us: int
) -> int:
    """Replace what is remembered; answers the new version.

    With a `version` only that one is replaced (0: there is none yet): raises Conflict when it is another one by now.
    """
    values = {
        "project_id": project_id,
        "session_id": session_id,
        # Bytes, because a text may hold NUL, which PostgreSQL's texts may not.
        "summary": None if summary is None else summary.encode(),
        "messages": bytes(messages),
        "now_us": now_us,
    }
    if version is None:
        rows = await query("put_memory", **values)
    elif version == 0:
        rows = await query("insert_memory", **values)
    else:
        rows = await query("update_memory", version=version, **values)
    if not rows:
        found = await query("read_memory", project_id=project_id, session_id=session_id)
        known = found[0][2] if found else 0
        raise Conflict(
            f"The memory of session {session_id!r} has version {known}, not {version}; read it again and put your "
            "change on top.",
            {"version": known},
        )
    new: int = rows[0][0]
    return new
