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
from perdure.store.verbs import access, accounts
from perdure.store.verbs.access import ListedKey
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.access import Principal, Role
from perdure.wire.accounts import DESCRIPTION_BYTES_MAX, Invitation, Member, Project, email_of, project_name_of
from perdure.wire.codec import KEY_BYTES_MAX, check_name, check_text
from perdure.wire.errors import BadRequest, BadValue, NotFound, PerdureError, Unauthorized

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


class Projects:
    def __init__(self, engine: Engine) -> None:
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

    async def make_key(
        self, project_id: str, name: str, role: Role, *, idempotency: Idempotency | None = None
    ) -> tuple[str, ListedKey]:
        """Unique by name. Returns the key, visible only now, and its listing. Raises BadValue, KeyNameTaken,
        TooManyKeys, SecretShownOnce."""
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
                idempotency=idempotency,
            )
        )
        return f"sk_{id}_{secret}", made

    async def keys(self, project_id: str) -> list[ListedKey]:
        """Newest first, without secrets."""
        return await self._engine.store.read(access.list_keys(project_id=project_id))

    async def delete_key(self, project_id: str, id: str) -> None:
        """`Engine.key_deleted` tells the caches. Raises NotFound, and BadRequest for an impossible id."""
        if not is_key_id(id):
            raise BadRequest(f"{id!r} is not a key's id, which is the part of the key between the underscores.")
        if not await self._engine.store.write(access.delete_key(project_id=project_id, id=id)):
            raise NotFound(f"API key {id!r} does not exist; its id is the part of the key between the underscores.")

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
        return Principal(found.project_id, Role(found.role), id, found.development)

    async def is_key_of(self, principal: Principal) -> bool:
        """Whether the key still exists with the same project and role."""
        found = await self._engine.store.read(access.read_key(id=principal.key_id))
        return found is not None and (found.project_id, found.role) == (principal.project_id, principal.role.value)


def is_key_id(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isalnum()


def _description(text: str | None) -> str | None:
    if text is not None:
        check_text(text, where="body.description", max_bytes=DESCRIPTION_BYTES_MAX)
    return text


def _new() -> tuple[str, str]:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8)), "".join(secrets.choice(_ALPHABET) for _ in range(32))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
