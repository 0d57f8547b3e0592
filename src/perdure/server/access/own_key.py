import hmac
import secrets
from collections.abc import Awaitable, Callable

from perdure.wire.base.access import Principal, Role


class OwnKey:
    """An API key of this process: no store knows it, and it ends with the process."""

    def __init__(self, id: str, project_id: str, role: Role) -> None:
        """`id` has eight letters, like those of other keys."""
        self.text = f"sk_{id}_{secrets.token_hex(16)}"
        self.principal = Principal(project_id, role, id, development=True)

    def before(self, others: Callable[[str], Awaitable[Principal]]) -> Callable[[str], Awaitable[Principal]]:
        async def authenticate(key: str) -> Principal:
            return self.principal if hmac.compare_digest(key, self.text) else await others(key)

        return authenticate
