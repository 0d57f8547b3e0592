"""A server, and a Chromium, for the tests of pages. They need the built files: `make dashboard`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright, expect
from tests.dashboard.pages import BUILT, CHROMIUM
from tests.server.serving import Hand, Served, serving

expect.set_options(timeout=30_000)  # milliseconds; a busy machine draws late


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = (
        "no Chromium on this machine (Debian: apt install chromium)"
        if CHROMIUM is None
        else "the dashboard is not built: make dashboard"
    )
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)
            if CHROMIUM is None or not BUILT:
                item.add_marker(pytest.mark.skip(reason=lacks))


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    # Nothing renews the lease of a `Hand`, and browsers start late. The end of a lease is news for a page, too.
    async with serving(database, lease_seconds=600.0) as served:
        yield served


@pytest.fixture
async def hand(served: Served) -> Hand:
    hand = Hand(served.client)
    await hand.register()
    return hand
