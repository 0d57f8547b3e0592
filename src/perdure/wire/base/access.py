"""The caller of a request, and the caller's role."""

from enum import Enum, StrEnum
from typing import Final

from msgspec import Struct

from perdure.wire.base.errors import Forbidden


class Role(StrEnum):
    """WORK also runs, starts and publishes; it is for keys of workers. WRITE also answers, acts, cancels and changes
    settings. ADMIN also manages keys, members and the project."""

    READ = "read"
    WORK = "work"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, needed: "Role") -> bool:
        return _RANK[self] >= _RANK[needed]


_RANK: Final = {role: rank for rank, role in enumerate(Role)}


UNSTORED: Final = frozenset({"local", "embedded", "readonly"})
"""`key_id` of callers without a stored key."""


class Caller(Enum):
    ANYONE = "anyone"
    """No credentials."""
    PROJECT = "project"
    """A key, or a user naming a project."""
    EITHER = "either"
    """A key, or a user with or without a project."""
    USER = "user"
    SESSION = "session"
    """A session of a user, a key or a sign-in link, checked by the handler."""


class Principal(Struct, frozen=True):
    """`key_id` counts callers. Addresses reachable from outside refuse `development` keys. `project_id` is empty for a
    user who named no project."""

    project_id: str
    role: Role
    key_id: str
    development: bool = False
    user_id: str | None = None


def check_role(principal: Principal, needed: Role) -> None:
    """Raises `Forbidden` with the needed role."""
    if not principal.role.includes(needed):
        whose = "key"
        if principal.user_id is not None:  # members never have the role of workers
            whose, needed = "member of the project", max(needed, Role.WRITE, key=_RANK.__getitem__)
        raise Forbidden(f"This needs a {whose} with the role {needed.value!r}; this one has {principal.role.value!r}.")
