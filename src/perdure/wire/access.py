"""The caller of a request, and its role."""

from enum import Enum, StrEnum
from typing import Final

from msgspec import Struct


class Role(StrEnum):
    """WRITE also starts, cancels, publishes and works; ADMIN also manages keys, members and the project."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, needed: "Role") -> bool:
        return _RANK[self] >= _RANK[needed]


_RANK: Final = {role: rank for rank, role in enumerate(Role)}


class Caller(Enum):
    ANYONE = "anyone"
    """No credentials."""
    PROJECT = "project"
    """A key, or a user who names one of their projects."""
    EITHER = "either"
    """As `PROJECT`, but a user need not name one."""
    USER = "user"
    SESSION = "session"
    """The handler checks it: a session of a user, a key or a sign-in link."""


class Principal(Struct, frozen=True):
    """`key_id` names the caller where callers are counted. `development` keys are refused on addresses that are
    reachable from outside. `project_id` is empty for a user who named no project."""

    project_id: str
    role: Role
    key_id: str
    development: bool = False
    user_id: str | None = None
