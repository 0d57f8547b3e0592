"""The service of projects, members and API keys. Keys and invitations are random, shown once, and kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec.structs import asdict

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.people.accounts import hash_of, require_user
from perdure.store.verbs.base import access
from perdure.store.verbs.people import accounts
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import NotFound, PerdureError, Unauthorized
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import Message
from perdure.wire.people.keys import ApiKey, ApiKeys, CreateApiKey, DeleteApiKey, GetApiKeys, ListApiKeys, NewApiKey
from perdure.wire.people.projects import (
    AcceptInvitation,
    AddedMember,
    AddProjectMember,
    CreateProject,
    GetProjectById,
    GetProjects,
    Project,
)

_ALPHABET = string.ascii_letters + string.digits
_NO_SECRET = hashlib.sha256(b"nobody").hexdigest()

INVITATION_SECONDS: Final = 7 * 86_400
USE_NOTED_US: Final = 60_000_000


class Projects(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.admit: Callable[[str], None] = lambda project_id: None
        """Raises TooManyRequests to limit the rate of invitations."""

    async def default(self) -> str:
        return await self.write(access.default_project(id=self.new_id(), now_us=self.now_us()))

    @serves(CreateProject)
    async def make(self, scope: Scope, op: CreateProject) -> Project:
        now_us = self.now_us()
        project = Project(
            id=self.new_id(),
            name=op.name,
            description=op.description or None,
            created_at_us=now_us,
            updated_at_us=now_us,
        )
        return await self.write(
            accounts.make_project(
                project=project, user_id=require_user(scope), member_id=self.new_id(), idempotency=scope.idempotency
            )
        )

    @serves(GetProjects)
    async def get_all(self, scope: Scope, op: GetProjects) -> Listed[Project]:
        if scope.user_id is not None:
            return Listed(await self.of_user(scope.user_id))
        return Listed([await self.read(accounts.read_project(project_id=scope.project_id))])

    @serves(GetProjectById)
    async def get(self, scope: Scope, op: GetProjectById) -> Project:
        return await self.read(accounts.read_project(project_id=scope.project_id))

    async def of_user(self, user_id: str) -> list[Project]:
        return await self.read(accounts.projects_of(user_id=user_id))

    @serves(AddProjectMember)
    async def add_member(self, scope: Scope, op: AddProjectMember) -> AddedMember:
        """Invite a person for a week. An account gets no rights before the person accepts."""
        self.admit(scope.project_id)
        token = secrets.token_urlsafe(24)
        now_us = self.now_us()
        expires_at_us = now_us + INVITATION_SECONDS * 1_000_000
        await self.write(
            accounts.invite(
                project_id=scope.project_id,
                email=op.email,
                role=op.role,
                token_hash=hash_of(token),
                expires_at_us=expires_at_us,
                now_us=now_us,
                idempotency=scope.idempotency,
            )
        )
        return AddedMember(invitation=token, expires_at_us=expires_at_us, path=f"/join?invitation={token}")

    @serves(AcceptInvitation)
    async def accept(self, scope: Scope, op: AcceptInvitation) -> Project:
        return await self.join(require_user(scope), op.invitation)

    async def join(self, user_id: str, invitation: str) -> Project:
        """Raises BadValue, AlreadyMember."""
        project_id = await self.write(
            accounts.accept_invitation(
                user_id=user_id, token_hash=hash_of(invitation), member_id=self.new_id(), now_us=self.now_us()
            )
        )
        return await self.read(accounts.read_project(project_id=project_id))

    async def invitation(self, token: str) -> accounts.StoredInvitation:
        """Raises BadValue."""
        return await self.read(accounts.read_invitation(token_hash=hash_of(token), now_us=self.now_us()))

    async def create_key(
        self, project_id: str, name: str, role: Role = Role.WRITE, *, development: bool = False
    ) -> str:
        key, secret = self._new_key(name, role, development=development)
        await self.write(access.create_key(project_id=project_id, key=key, secret_hash=_hash(secret)))
        return f"sk_{key.id}_{secret}"

    @serves(CreateApiKey)
    async def make_key(self, scope: Scope, op: CreateApiKey) -> NewApiKey:
        key, secret = self._new_key(op.name, op.role or Role.WRITE)
        await self.write(
            access.make_key(
                project_id=scope.project_id, key=key, secret_hash=_hash(secret), idempotency=scope.idempotency
            )
        )
        shown = asdict(key)
        del shown["development"]
        return NewApiKey(key=f"sk_{key.id}_{secret}", **shown)

    async def keys(self, project_id: str) -> list[ApiKey]:
        return await self.read(access.list_keys(project_id=project_id))

    @serves(ListApiKeys)
    async def list_keys(self, scope: Scope, op: ListApiKeys) -> ApiKeys:
        return ApiKeys(project_id=scope.project_id, keys=await self.keys(scope.project_id))

    @serves(GetApiKeys)
    async def get_keys(self, scope: Scope, op: GetApiKeys) -> Listed[ApiKey]:
        return Listed(await self.keys(scope.project_id))

    @serves(DeleteApiKey)
    async def delete_key(self, scope: Scope, op: DeleteApiKey) -> Message:
        """`Engine.key_deleted` tells the caches."""
        if not await self.write(access.delete_key(project_id=scope.project_id, id=op.key_id)):
            raise NotFound(
                f"API key {op.key_id!r} does not exist; its id is the part of the key between the underscores."
            )
        return Message("API key deleted successfully")

    def _new_key(self, name: str, role: Role, *, development: bool = False) -> tuple[ApiKey, str]:
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
        found = await self.read(access.read_key(id=id)) if prefix == "sk" else None
        given = _hash(secret)
        if not hmac.compare_digest(given, found.secret_hash if found else _NO_SECRET) or found is None:
            raise Unauthorized(
                "The API key is not valid on this server; set PERDURE_API_KEY, or the header "
                "`Authorization: Bearer sk_…`, to one of its keys."
            )
        now_us = self.now_us()
        if found.last_used_at_us is None or found.last_used_at_us < now_us - USE_NOTED_US:
            with suppress(PerdureError):  # a read-only store must not block reads
                await self.write(access.note_key_use(id=id, now_us=now_us))
        return Principal(found.project_id, found.role, id, found.development)

    async def is_key_of(self, principal: Principal) -> bool:
        found = await self.read(access.read_key(id=principal.key_id))
        return found is not None and (found.project_id, found.role) == (principal.project_id, principal.role)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
