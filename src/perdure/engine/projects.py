"""The service of projects, members and API keys. Keys and invitations are random, shown once, and kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from uuid_utils import uuid7

from perdure.engine.accounts import hash_of
from perdure.engine.executions import checked_id
from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import access, accounts
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.access import Principal, Role
from perdure.wire.accounts import DESCRIPTION_BYTES_MAX, Invitation, Member, Project, email_of, project_name_of
from perdure.wire.codec import check_text
from perdure.wire.errors import NotFound, PerdureError, Unauthorized
from perdure.wire.keys import (
    ApiKey,
    ApiKeyList,
    ApiKeys,
    CreateApiKey,
    DeleteApiKey,
    GetApiKeys,
    ListApiKeys,
    NewApiKey,
)
from perdure.wire.record import Message

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

_ALPHABET = string.ascii_letters + string.digits
_NO_SECRET = hashlib.sha256(b"nobody").hexdigest()

INVITATION_SECONDS: Final = 7 * 86_400
USE_NOTED_US: Final = 60_000_000
"""A key's use is recorded at most this often."""


class Added(NamedTuple):
    """A new member, or the token of an invitation."""

    member: Member | None
    invitation: str | None
    expires_at_us: int


class Projects(Service):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._engine = engine

    async def default(self) -> str:
        """Every store has this project. The first call makes it."""
        return await self._engine.store.write(
            access.default_project(id=str(uuid7()), now_us=self._engine.clock.now_us())
        )

    async def make(
        self, user_id: str, name: str, description: str | None, *, idempotency: Idempotency | None = None
    ) -> Project:
        """This user becomes its admin. Raises BadValue with the field, TooManyProjects."""
        return await self._engine.store.write(
            accounts.make_project(
                id=str(uuid7()),
                name=project_name_of(name),
                description=_description(description) or None,
                user_id=user_id,
                member_id=str(uuid7()),
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )

    async def get(self, project_id: str) -> Project:
        """Raises NotFound."""
        return await self._engine.store.read(accounts.read_project(project_id=project_id))

    async def change(self, project_id: str, name: str | None, description: str | None) -> Project:
        """None keeps a value. Raises BadValue with the field."""
        return await self._engine.store.write(
            accounts.change_project(
                project_id=project_id,
                name=None if name is None else project_name_of(name),
                description=_description(description),
                now_us=self._engine.clock.now_us(),
            )
        )

    async def of_user(self, user_id: str) -> list[Project]:
        """Newest first."""
        return await self._engine.store.read(accounts.projects_of(user_id=user_id))

    async def members(self, project_id: str) -> list[Member]:
        """Oldest first."""
        return await self._engine.store.read(accounts.list_members(project_id=project_id))

    async def add_member(
        self, project_id: str, email: str, role: Role, *, idempotency: Idempotency | None = None
    ) -> Added:
        """Make a user a member at once, or invite a new user for a week.

        Raises BadValue for an invalid e-mail, AlreadyMember, TooManyMembers, SecretShownOnce.
        """
        token = secrets.token_urlsafe(24)
        now_us = self._engine.clock.now_us()
        expires_at_us = now_us + INVITATION_SECONDS * 1_000_000
        member = await self._engine.store.write(
            accounts.add_member(
                project_id=project_id,
                email=email_of(email),
                role=role,
                member_id=str(uuid7()),
                token_hash=hash_of(token),
                expires_at_us=expires_at_us,
                now_us=now_us,
                idempotency=idempotency,
            )
        )
        return Added(member, token if member is None else None, expires_at_us)

    async def change_member(self, project_id: str, user_id: str, role: Role) -> Member:
        """Raises NotFound, LastAdmin."""
        return await self._engine.store.write(
            accounts.change_member(
                project_id=project_id,
                user_id=checked_id(user_id, "user"),
                role=role,
                now_us=self._engine.clock.now_us(),
            )
        )

    async def remove_member(self, project_id: str, user_id: str) -> None:
        """Raises NotFound, LastAdmin."""
        await self._engine.store.write(
            accounts.remove_member(project_id=project_id, user_id=checked_id(user_id, "user"))
        )

    async def invitations(self, project_id: str) -> list[Invitation]:
        """Valid ones, by e-mail."""
        return await self._engine.store.read(
            accounts.list_invitations(project_id=project_id, now_us=self._engine.clock.now_us())
        )

    async def withdraw_invitation(self, project_id: str, email: str) -> None:
        """Raises NotFound, and BadValue for an invalid e-mail."""
        await self._engine.store.write(
            accounts.withdraw_invitation(project_id=project_id, email=email_of(email, "email"))
        )

    async def create_key(
        self, project_id: str, name: str, role: Role = Role.WRITE, *, development: bool = False
    ) -> str:
        """Names need not be unique. Only now is the secret visible."""
        key, secret = self._new_key(name, role, development=development)
        await self.write(access.create_key(project_id=project_id, key=key, secret_hash=_hash(secret)))
        return f"sk_{key.id}_{secret}"

    @serves(CreateApiKey)
    async def make_key(self, scope: Scope, op: CreateApiKey) -> NewApiKey:
        """Raises KeyNameTaken, TooManyKeys, SecretShownOnce."""
        key, secret = self._new_key(op.name, op.role or Role.WRITE)
        await self.write(
            access.make_key(
                project_id=scope.project_id, key=key, secret_hash=_hash(secret), idempotency=scope.idempotency
            )
        )
        return NewApiKey(
            id=key.id,
            name=key.name,
            key=f"sk_{key.id}_{secret}",
            last_four_digits=key.last_four_digits,
            created_at_us=key.created_at_us,
            role=key.role,
        )

    async def keys(self, project_id: str) -> list[ApiKey]:
        """Newest first, without secrets."""
        return await self.read(access.list_keys(project_id=project_id))

    @serves(ListApiKeys)
    async def list_keys(self, scope: Scope, op: ListApiKeys) -> ApiKeys:
        return ApiKeys(scope.project_id, await self.keys(scope.project_id))

    @serves(GetApiKeys)
    async def get_keys(self, scope: Scope, op: GetApiKeys) -> ApiKeyList:
        return ApiKeyList(await self.keys(scope.project_id))

    @serves(DeleteApiKey)
    async def delete_key(self, scope: Scope, op: DeleteApiKey) -> Message:
        """`Engine.key_deleted` tells the caches. Raises NotFound."""
        if not await self.write(access.delete_key(project_id=scope.project_id, id=op.key_id)):
            raise NotFound(
                f"API key {op.key_id!r} does not exist; its id is the part of the key between the underscores."
            )
        return Message("API key deleted successfully")

    def _new_key(self, name: str, role: Role, *, development: bool = False) -> tuple[ApiKey, str]:
        """A key, and its secret."""
        secret = _random(32)
        key = ApiKey(
            id=_random(8),
            name=name,
            last_four_digits=secret[-4:],
            created_at_us=self.now_us(),
            role=role,
            development=development,
        )
        return key, secret

    async def authenticate(self, key: str) -> Principal:
        """Raises Unauthorized, alike for unknown and wrong keys."""
        prefix, _, rest = key.partition("_")
        id, _, secret = rest.partition("_")
        found = await self._engine.store.read(access.read_key(id=id)) if prefix == "sk" else None
        given = _hash(secret)
        if not hmac.compare_digest(given, found.secret_hash if found else _NO_SECRET) or found is None:
            raise Unauthorized("The API key is not valid; check `Authorization: Bearer sk_…`, or make a new key.")
        now_us = self._engine.clock.now_us()
        if found.last_used_at_us is None or found.last_used_at_us < now_us - USE_NOTED_US:
            with suppress(PerdureError):  # a read-only store must not block reads
                await self._engine.store.write(access.note_key_use(id=id, now_us=now_us))
        return Principal(found.project_id, found.role, id, found.development)

    async def is_key_of(self, principal: Principal) -> bool:
        """Whether the key still exists with the same project and role."""
        found = await self._engine.store.read(access.read_key(id=principal.key_id))
        return found is not None and (found.project_id, found.role) == (principal.project_id, principal.role)


def _description(text: str | None) -> str | None:
    if text is not None:
        check_text(text, where="body.description", max_bytes=DESCRIPTION_BYTES_MAX)
    return text


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
