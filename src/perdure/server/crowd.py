"""Limits open connections in all and by address, and chooses which connection makes room."""

from collections.abc import Callable
from typing import Protocol

from perdure.server.auth import to_network


class Member(Protocol):
    """A connection, as counted here."""

    @property
    def evictable(self) -> bool: ...

    def evict(self) -> None: ...


class Crowd:
    """Counts open connections.

    A connection is anonymous until a request on it shows a key, a session or a signed link. At the limit, the oldest
    anonymous connection that does not wait for an answer closes. Without such a connection, the new one is refused.
    """

    def __init__(self, most: int, per_address_most: int, exempt: Callable[[str], bool]) -> None:
        self._most = most
        self._per_address_most = per_address_most
        self._exempt = exempt
        """True for proxies: the connections of all their clients have one address."""
        self._owners: dict[Member, str] = {}
        self._counts: dict[str, int] = {}
        self._anonymous: dict[Member, None] = {}
        """In order of arrival."""

    def __len__(self) -> int:
        return len(self._owners)

    def enter(self, member: Member, address: str) -> bool:
        """Admit a new connection. False at the limit."""
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

    def recognize(self, member: Member) -> None:
        """Its caller is known from now on."""
        self._anonymous.pop(member, None)

    def leave(self, member: Member) -> None:
        """The connection closed. Does nothing if it was never admitted or has left already."""
        owner = self._owners.pop(member, None)
        if owner is None:
            return
        self._anonymous.pop(member, None)
        left = self._counts.pop(owner) - 1
        if left:
            self._counts[owner] = left

    def _make_room(self, owner: str | None) -> bool:
        """Close the oldest evictable anonymous connection, of this owner or of any."""
        for member in self._anonymous:
            if member.evictable and owner in (None, self._owners[member]):
                self.leave(member)
                member.evict()
                return True
        return False
