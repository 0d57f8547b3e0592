"""Hashes of passwords as they are really made."""

import asyncio

import pytest

from perdure.engine import passwords
from perdure.engine.passwords import Passwords
from perdure.wire.errors import TooManyRequests


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
