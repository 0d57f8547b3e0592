"""Signing keys of projects: made once, for any first caller; replaced with an overlap."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.signatures import verify
from perdure.wire.people.signing import RotateSigningSecret

HOUR = 3_600.0


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    store = await open_store(database)
    yield Engine(store, clock=ManualClock())
    await store.close()


async def test_a_project_has_one_secret_whoever_asks_first(engine: Engine) -> None:
    project_id = await engine.projects.default()
    found = await asyncio.gather(*(engine.signing.secrets(project_id) for _ in range(8)))
    assert len({secrets.secret for secrets in found}) == 1
    assert len({secrets.links for secrets in found}) == 1
    assert found[0].links != found[0].secret
    assert (await engine.signing.secrets("another")).secret != found[0].secret


async def test_while_two_secrets_overlap_messages_carry_both(engine: Engine) -> None:
    assert isinstance(engine.clock, ManualClock)
    project_id = await engine.projects.default()
    old = (await engine.signing.secrets(project_id)).secret
    new = (await engine.serve(Scope(project_id), RotateSigningSecret(2.0))).secret
    body = b"{}"

    async def good(secret: str) -> bool:
        headers = await engine.signing.headers(project_id, "m", body)
        try:
            verify(secret, headers, body, now_seconds=engine.clock.now_us() / 1e6)
        except BadRequest:
            return False
        return True

    assert await good(old) and await good(new)
    engine.clock.advance(2 * HOUR + 1)
    assert not await good(old) and await good(new)
    newest = (await engine.serve(Scope(project_id), RotateSigningSecret(0))).secret
    assert not await good(new) and await good(newest)
    with pytest.raises(BadValue, match="overlap_hours"):
        await engine.serve(Scope(project_id), RotateSigningSecret(-1))


async def test_the_first_secret_may_be_made_by_replacing_none(engine: Engine) -> None:
    project_id = await engine.projects.default()
    made = await engine.serve(Scope(project_id), RotateSigningSecret())
    kept = await engine.signing.secrets(project_id)
    assert (kept.secret, kept.previous) == (made.secret, None)
