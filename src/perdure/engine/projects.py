"""Desk: projects and API keys. Keys are random, shown once, and kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from typing import TYPE_CHECKING

from uuid_utils import uuid7

from perdure.store.verbs import access
from perdure.store.verbs.access import ListedKey
from perdure.wire.access import Principal, Role
from perdure.wire.codec import KEY_BYTES_MAX, check_name
from perdure.wire.errors import BadValue, NotFound, Unauthorized

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

_ALPHABET = string.ascii_letters + string.digits
_NO_SECRET = hashlib.sha256(b"nobody").hexdigest()


class Projects:
    """Who is asking, and for which project."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def default(self) -> str:
        """The id of the one project that every store has; made at first use."""
        return await self._engine.store.write(
            access.default_project(id=str(uuid7()), now_us=self._engine.clock.now_us())
        )

    async def create_key(
        self, project_id: str, name: str, role: Role = Role.WRITE, *, development: bool = False
    ) -> str:
        """Make a key, whatever the names of others. This is the only time its secret can be seen."""
        id, secret = _new()
        await self._engine.store.write(
            access.create_key(
                id=id,
                project_id=project_id,
                name=name,
                role=role.value,
                secret_hash=_hash(secret),
                last_four=secret[-4:],
                development=development,
                now_us=self._engine.clock.now_us(),
            )
        )
        return f"sk_{id}_{secret}"

    async def make_key(self, project_id: str, name: str, role: Role) -> tuple[str, ListedKey]:
        """Make a key of a name of its own; answers the key, this once, and what is kept to be shown."""
        check_name(name, where="name", max_bytes=KEY_BYTES_MAX)
        if not name.strip():
            raise BadValue("name: is blank; say what the key is for.")
        id, secret = _new()
        now_us = self._engine.clock.now_us()
        made = ListedKey(id, name, role.value, secret[-4:], False, now_us)
        await self._engine.store.write(
            access.make_key(
                id=id,
                project_id=project_id,
                name=name,
                role=role.value,
                secret_hash=_hash(secret),
                last_four=secret[-4:],
                now_us=now_us,
            )
        )
        return f"sk_{id}_{secret}", made

    async def keys(self, project_id: str) -> list[ListedKey]:
        """The project's keys, newest first, without their secrets."""
        return await self._engine.store.read(access.list_keys(project_id=project_id))

    async def delete_key(self, project_id: str, id: str) -> None:
        """Forget a key. Raises NotFound. Whoever remembers good keys hears of it (`Engine.key_deleted`)."""
        if not await self._engine.store.write(access.delete_key(project_id=project_id, id=id)):
            raise NotFound(f"API key {id!r} does not exist; its id is the part of the key between the underscores.")

    async def authenticate(self, key: str) -> Principal:
        """Whose key it is. Raises Unauthorized, without telling an unknown key from a wrong one."""
        prefix, _, rest = key.partition("_")
        id, _, secret = rest.partition("_")
        found = await self._engine.store.read(access.read_key(id=id)) if prefix == "sk" else None
        given = _hash(secret)
        if not hmac.compare_digest(given, found.secret_hash if found else _NO_SECRET) or found is None:
            raise Unauthorized("The API key is not valid; check `Authorization: Bearer sk_…`, or make a new key.")
        return Principal(found.project_id, Role(found.role), id, found.development)


def _new() -> tuple[str, str]:
    """A new key's id and its secret."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8)), "".join(secrets.choice(_ALPHABET) for _ in range(32))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
