"""Whether the store takes writes is judged by those that it refuses, too."""

from collections.abc import AsyncIterator

import pytest

from perdure.engine import engine as engines
from perdure.engine.engine import TROUBLE_US, Engine
from perdure.store.interface import Tell, Trouble, verb
from perdure.store.open import open_store
from perdure.wire.errors import Unavailable


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(await open_store(":memory:"))
    await engine.start()
    yield engine
    await engine.stop()


@verb
async def _in_trouble() -> None:
    await Tell(Trouble("no space left"))


async def test_a_change_that_was_just_refused_is_held_against_the_store(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small write may find room on a disk that is full for all others."""
    now_us = 10 * TROUBLE_US
    monkeypatch.setattr(engines, "boottime_us", lambda: now_us)
    await engine.health()
    await engine.store.write(_in_trouble())
    with pytest.raises(Unavailable, match="no space left"):
        await engine.health()
    now_us += TROUBLE_US
    await engine.health()
