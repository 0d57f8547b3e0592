"""Who is asking, and what that key may do."""

from enum import StrEnum

from msgspec import Struct


class Role(StrEnum):
    """READ reads; WRITE also starts, cancels, publishes and works; ADMIN also manages keys."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Principal(Struct, frozen=True):
    """The caller, as the key tells. `development` keys are refused on addresses that others can reach."""

    project_id: str
    role: Role
    key_id: str
    development: bool = False
