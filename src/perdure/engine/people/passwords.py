"""Password hashes (Argon2id), made in two threads of their own.

A hash takes about a tenth of a second and 64 MiB on purpose. One thread serves known devices, so that guesses from
elsewhere never delay known devices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from perdure.wire.base.errors import BadValue, TooManyRequests
from perdure.wire.people.accounts import PASSWORD_CHARACTERS_MIN

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")

THREADS: Final = 1
"""Threads for known devices, and as many for unknown devices."""
WAITING_MAX: Final = 100
"""Most requests waiting for a thread: about ten seconds. Further requests are refused."""
# Checked for unknown users, so that the answer takes as long. Parameters as in real hashes.
_NOBODYS: Final = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"


class Passwords:
    def __init__(self) -> None:
        self._threads = [ThreadPoolExecutor(THREADS, thread_name_prefix="perdure-password") for _ in (False, True)]
        self._under_way = [0, 0]

    async def hash(self, password: str) -> str:
        """Raises TooManyRequests."""
        return await self._run_in_thread(lambda: _hasher().hash(password))

    async def check_choice(self, password: str, where: str) -> None:
        """Raises BadValue, naming `where`, for a very common password, TooManyRequests."""
        if await self._run_in_thread(lambda: password.casefold() in _common()):
            raise BadValue(
                f"{where}: is one of the most common passwords, which are the first to be guessed; choose another",
                {"path": where},
            )

    async def check(self, password: str, kept: str | None, *, known: bool = False) -> bool:
        """None (no user) takes as long and is False. Raises TooManyRequests."""
        return (
            await self._run_in_thread(lambda: _is(password, _NOBODYS if kept is None else kept), known)
            and kept is not None
        )

    def close(self) -> None:
        for threads in self._threads:
            threads.shutdown(wait=False)

    async def _run_in_thread(self, work: Callable[[], T], known: bool = False) -> T:
        if self._under_way[known] >= THREADS + WAITING_MAX:
            raise TooManyRequests("Too many sign-ins at once; try again in a moment.")
        self._under_way[known] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads[known], work)
        finally:
            self._under_way[known] -= 1


@cache
def _common() -> frozenset[str]:
    # Some megabytes: only where people choose passwords.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # type: ignore[import-untyped]  # ships no types

    return frozenset(one for one in FREQUENCY_LISTS["passwords"] if len(one) >= PASSWORD_CHARACTERS_MIN)


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)


def _is(password: str, kept: str) -> bool:
    from argon2.exceptions import VerifyMismatchError

    try:
        return _hasher().verify(kept, password)
    except VerifyMismatchError:
        return False
