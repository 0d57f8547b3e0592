"""Limits open connections in all and by address."""

from collections.abc import Callable
from typing import Protocol

from perdure.server.access.auth import to_network


class CrowdMember(Protocol):
    @property
    def evictable(self) -> bool: ...

    def evict(self) -> None: ...


class ConnectionLimit:
    """A connection is anonymous until a request shows a key, a session or a signed link. At a limit, the oldest
    anonymous connection without an open request closes; without such a connection, the server refuses the new
    connection."""

    def __init__(self, most: int, per_address_most: int, exempt: Callable[[str], bool]) -> None:
        self._most = most
        self._per_address_most = per_address_most
        self._exempt = exempt
        """Exempt proxies: all clients of a proxy share an address."""
        self._owners: dict[CrowdMember, str] = {}
        self._counts: dict[str, int] = {}
        self._anonymous: dict[CrowdMember, None] = {}
        """Anonymous connections in order of arrival."""

    def __len__(self) -> int:
        return len(self._owners)

    def enter(self, member: CrowdMember, address: str) -> bool:
        """Returns False at the limit."""
        owner = to_network(address)
        count = self._counts.get(owner, 0)
        if count >= self._per_address_most and not self._exempt(address):
            if not self._make_room(owner):
                return False
        elif len(self._owners) >= self._most and not self._make_room(None):
            return False
        self._owners[member] = owner
        self._counts[owner] = self._counts.get(owner, 0) + 1
        self._anonymous[member] = None
        return True

    def recognize(self, member: CrowdMember) -> None:
        self._anonymous.pop(member, None)

    def leave(self, member: CrowdMember) -> None:
        owner = self._owners.pop(member, None)
        if owner is None:
            return
        self._anonymous.pop(member, None)
        left = self._counts.pop(owner) - 1
        if left:
            self._counts[owner] = left

    def _make_room(self, owner: str | None) -> bool:
        for member in self._anonymous:
            if member.evictable and owner in (None, self._owners[member]):
                self.leave(member)
                member.evict()
                return True
        return False
