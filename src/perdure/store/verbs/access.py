from typing import NamedTuple

import msgspec

from perdure.store.interface import KeyDeleted, Notify, query, verb
from perdure.store.verbs.idempotency import Idempotency, recall, remember
from perdure.store.verbs.try_lock import try_write
from perdure.wire.errors import KeyNameTaken, SecretShownOnce, TooManyKeys


class Key(NamedTuple):
    project_id: str
    role: str
    secret_hash: str
    development: bool
    last_used_at_us: int | None


class ListedKey(NamedTuple):
    id: str
    name: str
    role: str
    last_four: str
    development: bool
    created_at_us: int
    last_used_at_us: int | None = None


KEYS_MAX = 1_000


@verb(locks="project=''")
async def default_project(*, id: str, now_us: int) -> str:
    """The id of the oldest project; makes one if the store has no project."""
    rows = await query("list_projects")
    if not rows:
        await query("lock_projects")
        rows = await query("list_projects")
    if not rows:
        await query("insert_project", id=id, name="default", now_us=now_us)
        return id
    first: str = rows[0][0]
    return first


@verb(locks="api_key=id")
async def create_key(
    *,
    id: str,
    project_id: str,
    name: str,
    role: str,
    secret_hash: str,
    last_four: str,
    development: bool,
    now_us: int,
) -> None:
    await query(
        "insert_key",
        id=id,
        project_id=project_id,
        name=name,
        role=role,
        secret_hash=secret_hash,
        last_four=last_four,
        development=int(development),
        now_us=now_us,
    )


@verb(locks="api_key=''")
async def make_key(
    *,
    id: str,
    project_id: str,
    name: str,
    role: str,
    secret_hash: str,
    last_four: str,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> None:
    """Store a new key with a unique name. Raises KeyNameTaken, TooManyKeys; SecretShownOnce for a repeated request."""
    first = await recall(project_id, idempotency)
    if first is not None:
        made = msgspec.json.decode(first, type=str)
        raise SecretShownOnce(
            f"The first request with this Idempotency-Key made the API key {made!r}, and only its answer had the "
            f"secret; if that is lost, delete it (DELETE /api/v1/api-keys/{made}) and make one with another "
            "Idempotency-Key.",
            {"id": made, "name": name},
        )
    known = await query("list_keys", project_id=project_id)
    same = [row[0] for row in known if row[1] == name]
    if same:
        raise KeyNameTaken(f"Key {same[0]!r} is named {name!r} already; choose another name, or delete that key first.")
    if len(known) >= KEYS_MAX:
        raise TooManyKeys(f"The project has {len(known):,} API keys, the most there may be; delete some first.")
    await query(
        "insert_key",
        id=id,
        project_id=project_id,
        name=name,
        role=role,
        secret_hash=secret_hash,
        last_four=last_four,
        development=0,
        now_us=now_us,
    )
    await remember(project_id, idempotency, msgspec.json.encode(id), now_us)


@verb(looks=True)
async def list_keys(*, project_id: str) -> list[ListedKey]:
    rows = await query("list_keys", project_id=project_id)
    return [
        ListedKey(id, name, role, last_four, bool(development), created_at_us, last_used_at_us)
        for id, name, role, last_four, development, created_at_us, last_used_at_us in reversed(rows)
    ]


@verb(looks=True)
async def read_key(*, id: str) -> Key | None:
    rows = await query("read_key", id=id)
    return Key(rows[0][0], rows[0][1], rows[0][2], bool(rows[0][3]), rows[0][4]) if rows else None


@verb(locks="api_key=id")
async def note_key_use(*, id: str, now_us: int) -> None:
    await query("note_key_use", id=id, now_us=now_us)


@verb(locks="api_key=id")
async def delete_key(*, project_id: str, id: str) -> bool:
    deleted = bool(await query("delete_key", project_id=project_id, id=id))
    if deleted:
        await Notify(KeyDeleted(id))
    return deleted


@verb(locks="meta='epoch'")
async def new_epoch(*, epoch: str) -> None:
    """After a restore: servers refuse messages from workers that carry another epoch."""
    await query("write_meta", name="epoch", value=epoch)


@verb(locks="")
async def touch(*, now_us: int, ballast: str = "") -> bool:
    """Test whether writes land, with an invisible write that `ballast` makes larger. False: another server was
    testing, so this one wrote nothing."""
    return await try_write("touched_at_us", f"{now_us}{ballast}")
