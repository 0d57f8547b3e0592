"""API keys of the caller's project: make, list, delete. A secret is shown once, in the answer that makes it."""

from typing import Annotated

from msgspec import Meta, Struct

from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.store.verbs.access import ListedKey
from perdure.wire.access import Role
from perdure.wire.public import Time, Uuid, rfc3339
from perdure.wire.public_accounts import MessageResponse

routes = Routes("API keys")

KeyId = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9A-Za-z]{8}$"})]


class ApiKeyResponse(Struct, frozen=True):
    """A key without its secret. `id` is the part of the key between the underscores."""

    id: KeyId
    name: str
    last_four_digits: str
    created_at: Time
    last_used_at: Time | None = None
    """To the minute, about: a use is noted when the key is looked up."""
    role: str | None = None
    """`read`, `write` or `admin`."""
    development: bool | None = None
    """Made by `perdure dev`: refused on an address that others can reach."""


class ApiKeysResponse(Struct, frozen=True):
    """The keys of the caller's project, newest first."""

    project_id: Uuid
    keys: list[ApiKeyResponse]


class CreateApiKeyRequest(Struct, frozen=True):
    """A key to make: a name that no other key of the project has, and what it may do."""

    name: str
    project_id: Uuid
    role: Role | None = None
    """`read`, `write` (the default) or `admin`."""


class CreateApiKeyResponse(Struct, frozen=True):
    """The new key. `key` is shown here and never again."""

    id: KeyId
    name: str
    key: str
    last_four_digits: str
    created_at: Time
    last_used_at: Time | None = None
    role: str | None = None


@routes.get("/api/v1/api-keys", role=Role.ADMIN)
async def list_api_keys(call: Call) -> ApiKeysResponse:
    """The keys of the caller's project, newest first."""
    return ApiKeysResponse(call.project_id, await _listed(call))


@routes.get("/api/v1/api-keys/project/{project_id}", role=Role.ADMIN, contract=True)
async def get_api_keys(call: Call, project_id: str) -> list[ApiKeyResponse]:
    """Keys of a project, newest first."""
    return await _listed(call)


@routes.post("/api/v1/api-keys", role=Role.ADMIN, contract=True, idempotent=True)
async def create_api_key(call: Call, body: CreateApiKeyRequest) -> CreateApiKeyResponse:
    """Make a key. Its secret is in this answer and nowhere else; only a hash of it is kept.

    So the same request again, by its Idempotency-Key, is 409 `SECRET_SHOWN_ONCE`, with the id of the key that it made.
    """
    call.check_project(body.project_id)
    key, made = await call.engine.projects.make_key(
        call.project_id, body.name, body.role or Role.WRITE, idempotency=idempotency(call)
    )
    return CreateApiKeyResponse(made.id, made.name, key, made.last_four, rfc3339(made.created_at_us), role=made.role)


@routes.delete("/api/v1/api-keys/{key_id}", role=Role.ADMIN, contract=True)
async def delete_api_key(call: Call, key_id: str) -> MessageResponse:
    """Delete a key.

    This server refuses it from its next request on, and ends its sign-ins; other servers of the store as soon as they
    hear of it, and within `auth_cache_seconds` at the latest.
    """
    await call.engine.projects.delete_key(call.project_id, key_id)
    return MessageResponse("API key deleted successfully")


async def _listed(call: Call) -> list[ApiKeyResponse]:
    return [_shown(key) for key in await call.engine.projects.keys(call.project_id)]


def _shown(key: ListedKey) -> ApiKeyResponse:
    return ApiKeyResponse(
        key.id,
        key.name,
        key.last_four,
        rfc3339(key.created_at_us),
        None if key.last_used_at_us is None else rfc3339(key.last_used_at_us),
        key.role,
        key.development,
    )
