from typing import Annotated, ClassVar, Final

from msgspec import Meta, field

from perdure.wire.base.access import Role
from perdure.wire.base.codec import KEY_BYTES_MAX, check_name
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import Time, Uuid
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Message, Record


def _id(value: str, where: str) -> str:
    if not (len(value) == 8 and value.isascii() and value.isalnum()):
        raise BadRequest(f"{value!r} is not a key's id, which is the part of the key between the underscores.")
    return value


def _name(value: str, where: str) -> str:
    check_name(value, where=where, max_bytes=KEY_BYTES_MAX)
    if not value.strip():
        raise BadValue(f"{where}: is blank; say what the key is for.")
    return value


KeyId = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9A-Za-z]{8}$"}), _id]


class ApiKey(Record, frozen=True, kw_only=True):
    """A key without the secret. `id` is the part of the key between the underscores."""

    shown_as: ClassVar[str] = "ApiKeyResponse"

    id: KeyId
    name: str
    last_four_digits: str
    created_at_us: Time = field(name="created_at")
    last_used_at_us: Time | None = field(default=None, name="last_used_at")
    """The last use, to about a minute."""
    role: Role
    development: bool = False
    """Made by `perdure dev`: refused on an address within reach of other machines."""


class ApiKeys(Record, frozen=True):
    shown_as: ClassVar[str] = "ApiKeysResponse"

    project_id: Uuid
    keys: list[ApiKey]


class NewApiKey(Record, frozen=True, kw_only=True):
    """`key` is shown here and never again."""

    shown_as: ClassVar[str] = "CreateApiKeyResponse"

    id: KeyId
    name: str
    key: str
    last_four_digits: str
    created_at_us: Time = field(name="created_at")
    last_used_at_us: Time | None = field(default=None, name="last_used_at")
    role: Role


keys: Final = Noun("API keys")


@keys.get("/api/v1/api-keys", role=Role.ADMIN)
class ListApiKeys(Operation[ApiKeys], frozen=True):
    """The keys of the caller's project, newest first."""


@keys.get("/api/v1/api-keys/project/{project_id}", role=Role.ADMIN, contract=True)
class GetApiKeys(Operation[Listed[ApiKey]], frozen=True):
    """Keys of a project, newest first."""

    project_id: str


@keys.post("/api/v1/api-keys", role=Role.ADMIN, contract=True, idempotent=True)
class CreateApiKey(Operation[NewApiKey], frozen=True):
    """Make a key.

    Only this answer has the secret. Repeating the request with the same Idempotency-Key is 409 `SECRET_SHOWN_ONCE`,
    with the id of the key.
    """

    name: Annotated[str, _name]
    """Unique in the project."""
    project_id: Uuid
    role: Role | None = None
    """`read`, `work` (for workers), `write` (the default) or `admin`."""


@keys.delete("/api/v1/api-keys/{key_id}", role=Role.ADMIN, contract=True)
class DeleteApiKey(Operation[Message], frozen=True):
    """Delete a key.

    This server refuses the key from the next request on, and ends the key's sign-ins; other servers follow within
    `auth_cache_seconds`.
    """

    key_id: KeyId
