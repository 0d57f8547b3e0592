"""Limits the bytes of request bodies in memory."""

from typing import Final

from perdure.server.access.auth import to_network
from perdure.wire.base.errors import TooManyRequests, Unavailable

STRANGERS_PART: Final = 8
RESERVED_PART: Final = 4
"""A quarter is for small bodies, so large bodies do not block beats and claims."""
LIGHT_BYTES: Final = 64 << 10
"""The largest small body."""


class RequestsInFlight:
    """A body counts until the answer. A lone body is always accepted, because retries would meet the same refusal."""

    def __init__(self, bytes_max: int, per_address_bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._per_address_bytes_max = per_address_bytes_max
        self._strangers_bytes_max = bytes_max // STRANGERS_PART
        self._by_owner: dict[str, int] = {}
        self.bytes = 0
        self.strangers_bytes = 0

    def add(self, share: "Share", size: int) -> None:
        """Raises `TooManyRequests` or `Unavailable`, without counting."""
        own = share.bytes
        light = own + size <= LIGHT_BYTES
        total = self.bytes + size
        if total > _limit(self._bytes_max, light) and self.bytes > own:
            raise Unavailable(f"The bodies of other requests take {self.bytes:,} bytes already; try again later.")
        of_owner = self._by_owner.get(share.owner, 0) + size
        limit = _limit(self._per_address_bytes_max, light)
        if of_owner > limit and of_owner - size > own:
            raise TooManyRequests(
                f"The bodies of requests from this address take more than {limit:,} bytes; wait until some of these "
                "requests are answered."
            )
        if not share.known:
            strangers = self.strangers_bytes + size
            if strangers > self._strangers_bytes_max and strangers - size > own:
                raise TooManyRequests(
                    f"The bodies of requests without a key take more than {self._strangers_bytes_max:,} bytes; try "
                    "again later."
                )
            self.strangers_bytes = strangers
        self.bytes = total
        self._by_owner[share.owner] = of_owner
        share.bytes = own + size

    def release(self, share: "Share") -> None:
        self.bytes -= share.bytes
        if not share.known:
            self.strangers_bytes -= share.bytes
        left = self._by_owner.pop(share.owner, 0) - share.bytes
        if left > 0:
            self._by_owner[share.owner] = left
        share.bytes = 0


class Share:
    __slots__ = ("_in_flight", "bytes", "known", "owner")

    def __init__(self, in_flight: RequestsInFlight, address: str, *, known: bool) -> None:
        self._in_flight = in_flight
        self.owner = to_network(address)
        self.known = known
        self.bytes = 0

    def add(self, size: int) -> None:
        self._in_flight.add(self, size)

    def release(self) -> None:
        self._in_flight.release(self)


def _limit(bytes_max: int, light: bool) -> int:
    return bytes_max if light else bytes_max - bytes_max // RESERVED_PART
