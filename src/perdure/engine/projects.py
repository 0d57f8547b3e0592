"""Desk: projects and API keys. Keys are random, shown once, and kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from typing import TYPE_CHECKING

from uuid_utils import uuid7

from perdure.store.verbs import access
from perdure.wire.access import Principal, Role
from perdure.wire.errors import Unauthorized

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
        """Make a key. This is the only time its secret can be seen."""
        id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        secret = "".join(secrets.choice(_ALPHABET) for _ in range(32))
        await self._engine.store.write(
            access.create_key(
                id=id,
                project_id=project_id,
                name=name,
                role=role.value,
                secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
                last_four=secret[-4:],
                development=development,
                now_us=self._engine.clock.now_us(),
            )
        )
        return f"sk_{id}_{secret}"

    async def authenticate(self, key: str) -> Principal:
        """Whose key it is. Raises Unauthorized, without telling an unknown key from a wrong one."""
        prefix, _, rest = key.partition("_")
        id, _, secret = rest.partition("_")
        found = await self._engine.store.read(access.read_key(id=id)) if prefix == "sk" else None
        given = hashlib.sha256(secret.encode()).hexdigest()
        if not hmac.compare_digest(given, found.secret_hash if found else _NO_SECRET) or found is None:
            raise Unauthorized("The API key is not valid; check `Authorization: Bearer sk_…`, or make a new key.")
        return Principal(found.project_id, Role(found.role), id, found.development)
