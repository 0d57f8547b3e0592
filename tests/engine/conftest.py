"""Fixtures of this folder's tests."""

from collections.abc import AsyncIterator
from functools import partialmethod

import pytest
from tests import postgres
from tests.databases import migrated

from perdure.engine.base.outbound import Outbound


@pytest.fixture(autouse=True)
def patient_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, look-ups and idle connections outlast a machine that stands still for some seconds."""
    monkeypatch.setattr(Outbound, "request", partialmethod(Outbound.request, seconds=60.0, connect_seconds=60.0))
    monkeypatch.setattr("perdure.engine.base.outbound.LOOKUP_SECONDS", 60.0)
    monkeypatch.setattr("perdure.engine.base.network.IDLE_SECONDS", 600.0)
    monkeypatch.setattr("perdure.engine.outside.webhooks.CALL_SECONDS", 60.0)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The address of an empty database on PostgreSQL."""
    async with postgres.fresh(migrated) as url:
        yield url
