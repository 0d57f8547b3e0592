import msgspec
from msgspec import Struct

from perdure.store.base.interface import KeyDeleted, Notify, query, record, records, verb
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.base.try_lock import try_write
from perdure.wire.base.access import Role
from perdure.wire.base.errors import KeyNameTaken, NotFound, SecretShownOnce, TooManyKeys
from perdure.wire.people.keys import ApiKey

KEYS_MAX = 1_000


class StoredKey(Struct, frozen=True):
    project_id: str
    role: Role
    secret_hash: str
    development: bool
    last_used_at_us: int | None


@verb(locks="project=''")
async def default_project(*, id: str, now_us: int) -> str:
    """The oldest project. A store without projects gets one."""
    rows = await query("list_projects")
    if not rows:
        await query("lock_projects")
        rows = await query("list_projects")
    if not rows:
        await query("insert_project", id=id, name="default", now_us=now_us)
        return id
    [first], *_ = rows
    return str(first)


@verb(reads=True)
async def oldest_project() -> str:
    """Raises NotFound for a store without projects."""
    rows = await query("list_projects")
    if not rows:
        raise NotFound("This store has no project yet; start its program or server once.")
    [first], *_ = rows
    return str(first)


@verb(locks="api_key=key.id")
async def create_key(*, project_id: str, key: ApiKey, secret_hash: str) -> None:
    await query("insert_key", key, project_id=project_id, secret_hash=secret_hash)


@verb(locks="api_key=''")
async def make_key(*, project_id: str, key: ApiKey, secret_hash: str, idempotency: Idempotency | None = None) -> None:
    """Raises KeyNameTaken, TooManyKeys; SecretShownOnce for a repeated request."""
    first = await recall(project_id, idempotency)
    if first is not None:
        made = msgspec.json.decode(first, type=str)
        raise SecretShownOnce(
            f"The first request with this Idempotency-Key made the API key {made!r}, and only its answer had the "
            f"secret; if that is lost, delete it (DELETE /api/v1/api-keys/{made}) and make one with another "
            "Idempotency-Key.",
            {"id": made, "name": key.name},
        )
    known = await records(ApiKey, "list_keys", project_id=project_id)
    same = next((one.id for one in known if one.name == key.name), None)
    if same is not None:
        raise KeyNameTaken(
            f"Key {same!r} is named {key.name!r} already; choose another name, or delete that key first."
        )
    if len(known) >= KEYS_MAX:
        raise TooManyKeys(f"The project has {len(known):,} API keys, the most there may be; delete some first.")
    await query("insert_key", key, project_id=project_id, secret_hash=secret_hash)
    await remember(project_id, idempotency, msgspec.json.encode(key.id), key.created_at_us)


@verb(reads=True)
async def list_keys(*, project_id: str) -> list[ApiKey]:
    """The project's keys, newest first."""
    return await records(ApiKey, "list_keys", project_id=project_id)


@verb(reads=True)
async def read_key(*, id: str) -> StoredKey | None:
    return await record(StoredKey, "read_key", id=id)


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
    """Servers refuse messages from workers with another epoch."""
    await query("write_meta", name="epoch", value=epoch)


@verb(locks="")
async def touch(*, now_us: int, ballast: str = "") -> bool:
    """Test whether writes land; `ballast` makes the write larger. False: another server was testing."""
    return await try_write("touched_at_us", f"{now_us}{ballast}")
