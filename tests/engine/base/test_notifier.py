"""The notifier: notifications after a cursor are not missed, and leave no trace without cursors."""

import asyncio

import pytest

from perdure.engine.base.notifier import Notifier


async def test_a_notification_between_cursor_and_wait_is_not_missed() -> None:
    notifier = Notifier()
    notifier.notify("a")
    cursor = notifier.cursor("a")
    assert not await notifier.wait("a", cursor, 0)
    notifier.notify("b")
    assert not await notifier.wait("a", cursor, 0)
    notifier.notify("a")
    assert await notifier.wait("a", cursor, 60)
    assert await notifier.wait_any((("a", cursor),), 60, asyncio.get_running_loop().create_future())


async def test_a_notification_wakes_the_waiter() -> None:
    notifier = Notifier()
    asyncio.get_running_loop().call_soon(notifier.notify, "a")
    assert await notifier.wait("a", notifier.cursor("a"), 60)


async def test_a_cursor_that_was_crowded_out_says_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.engine.base.notifier.CHANNELS_MAX", 3)
    notifier = Notifier()
    cursor = notifier.cursor("a")
    notifier.cursors("b", "c", "d")
    notifier.notify("a")
    assert await notifier.wait("a", cursor, 60)
    again = notifier.cursor("a")
    assert await notifier.wait("a", cursor, 60)  # somebody else's new cursor does not hide it
    assert not await notifier.wait("a", again, 0)


def test_notifications_without_a_cursor_leave_nothing_behind() -> None:
    notifier = Notifier()
    for n in range(100):
        notifier.notify(("written", str(n)))
    assert not notifier._last
