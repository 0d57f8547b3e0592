"""The caller of a request, and its role."""

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


def check_role(principal: Principal, needed: Role) -> None:
    """Raises `Forbidden`, naming the role that is needed."""
    if not principal.role.includes(needed):
        whose = "key"
        if principal.user_id is not None:  # members never have the role of workers
            whose, needed = "member of the project", max(needed, Role.WRITE, key=_RANK.__getitem__)
        raise Forbidden(f"This needs a {whose} with the role {needed.value!r}; this one has {principal.role.value!r}.")
