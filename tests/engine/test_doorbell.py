"""The doorbell: a ring after a ticket was taken is not missed, and rings that nobody has a ticket for cost nothing."""

import asyncio

import pytest

from perdure.engine import doorbell
from perdure.engine.doorbell import Doorbell


async def test_a_ring_between_ticket_and_wait_is_not_missed() -> None:
    bell = Doorbell()
    bell.ring("a")
    ticket = bell.ticket("a")
    assert not await bell.wait("a", ticket, 0)
    bell.ring("b")
    assert not await bell.wait("a", ticket, 0)
    bell.ring("a")
    assert await bell.wait("a", ticket, 60)
    assert await bell.wait_any((("a", ticket),), 60, asyncio.get_running_loop().create_future())


async def test_a_ring_while_somebody_waits_wakes_him() -> None:
    bell = Doorbell()
    asyncio.get_running_loop().call_soon(bell.ring, "a")
    assert await bell.wait("a", bell.ticket("a"), 60)


async def test_a_ticket_that_was_crowded_out_says_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "RUNG_MAX", 3)
    bell = Doorbell()
    ticket = bell.ticket("a")
    bell.tickets("b", "c", "d")
    bell.ring("a")
    assert await bell.wait("a", ticket, 60)
    again = bell.ticket("a")
    assert await bell.wait("a", ticket, 60)  # somebody else's new ticket does not hide it
    assert not await bell.wait("a", again, 0)


def test_rings_without_a_ticket_leave_nothing_behind() -> None:
    bell = Doorbell()
    for n in range(100):
        bell.ring(("written", str(n)))
    assert not bell._rung
