"""The names of callers, stored with answers."""

from typing import Final

from perdure.engine.base.core import Core
from perdure.engine.base.service import Service
from perdure.store.verbs.base import access
from perdure.store.verbs.people import accounts
from perdure.wire.base.access import Principal

NAMES_MAX: Final = 10_000
EMBEDDING: Final = "the embedding program"


class Callers(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._keys: dict[str, str] = {}
        """Names by key id, which never change."""

    async def name(self, principal: Principal | None) -> str:
        if principal is None:
            return EMBEDDING
        if principal.user_id is not None:
            found = await self.read(accounts.read_user(user_id=principal.user_id))
            return f"user {found.user.email!r}"
        if principal.key_id not in self._keys:
            if len(self._keys) >= NAMES_MAX:
                self._keys.clear()
            for key in await self.read(access.list_keys(project_id=principal.project_id)):
                self._keys[key.id] = f"key {key.name!r} ({key.id})"
        return self._keys.setdefault(principal.key_id, principal.key_id)
