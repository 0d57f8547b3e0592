"""Hashes of passwords at real cost."""

import asyncio
import threading

import pytest

from perdure.engine.people import passwords
from perdure.engine.people.passwords import Passwords
from perdure.wire.base.errors import TooManyRequests


async def test_a_password_is_known_again_and_no_other_is() -> None:
    desk = Passwords()
    try:
        kept = await desk.hash("correct horse")
        assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$") and "correct" not in kept
        assert await desk.check("correct horse", kept)
        assert not await desk.check("correct  horse", kept)
        assert not await desk.check("correct horse", None)
    finally:
        desk.close()


def test_nobodys_hash_takes_as_long_as_anybodys() -> None:
    real = passwords._hasher().hash("x")
    assert passwords._NOBODYS.rsplit("$", 2)[0] == real.rsplit("$", 2)[0]
    assert len(passwords._NOBODYS) == len(real)
    assert not passwords._is("x", passwords._NOBODYS)


async def test_so_many_wait_for_a_hash_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 1)
    desk = Passwords()
    try:
        under_way = [asyncio.ensure_future(desk.hash("x")) for _ in range(passwords.THREADS + 1)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await desk.hash("x")
        await asyncio.gather(*under_way)
        await desk.hash("x")
    finally:
        desk.close()


async def test_guesses_take_one_thread_and_leave_one_to_known_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    guessing, owner = threading.Semaphore(0), threading.Semaphore(0)
    running = 0
    most = 0

    def check(password: str, kept: str) -> bool:
        nonlocal running, most
        if password == "right":
            return True
        running += 1
        most = max(most, running)
        guessing.release()
        owner.acquire(timeout=60)
        running -= 1
        return False

    monkeypatch.setattr(passwords, "_is", check)
    monkeypatch.setattr(passwords, "WAITING_MAX", 5)
    desk = Passwords()
    try:
        guesses = [asyncio.ensure_future(desk.check("guess", "hash")) for _ in range(6)]
        await asyncio.to_thread(guessing.acquire)
        with pytest.raises(TooManyRequests):
            await desk.check("guess", "hash")
        assert await desk.check("right", "hash", known=True), "while all guesses wait"
        owner.release(6)
        assert not any(await asyncio.gather(*guesses)) and most == 1
        assert await desk.check("right", "hash"), "in its turn, from anywhere"
    finally:
        owner.release(6)
        desk.close()
