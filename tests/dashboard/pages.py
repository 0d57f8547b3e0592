"""Pages of the dashboard in a real Chromium, signed in at a real server."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Error, Locator, Page
from tests.server.serving import Hand, Served

import perdure
from perdure.wire.base.access import Role

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BUILT: Final = (Path(perdure.__file__).parent / "dashboard" / "index.html").is_file()
HOSTILE: Final = "<img src=x onerror=alert(1)>\u202e{{7*7}}"
SHOWN: Final = "<img src=x onerror=alert(1)>⟨U+202E⟩{{7*7}}"
"""What a page shows of `HOSTILE`."""


class Opened:
    """A page, and everything in the page that must not happen."""

    def __init__(self, page: Page, wrong: list[str]) -> None:
        self.page = page
        self.wrong = wrong

    async def count_clicks(self) -> None:
        """Count the clicks of a person from here on."""
        await self.page.evaluate(
            "addEventListener('click', (e) => e.isTrusted && (window.clicks ??= 0, window.clicks++), true)"
        )

    async def clicks(self) -> int:
        clicks: int = await self.page.evaluate("window.clicks ?? 0")
        return clicks


@asynccontextmanager
async def telling(page: Page) -> AsyncIterator[None]:
    """A failure says where the page was and what the page showed."""
    try:
        yield
    except (AssertionError, Error) as error:
        with suppress(Error):  # the browser may be gone
            error.add_note(f"{page.url} shows:\n{await page.inner_text('body', timeout=5_000)}")
        raise


@asynccontextmanager
async def opened(
    browser: Browser,
    served: Served,
    path: str,
    *,
    role: Role = Role.ADMIN,
    scheme: Any = "light",
    width: int = 1440,
    height: int = 900,
) -> AsyncIterator[Opened]:
    """A page in a browser that an API key of `role` has signed in."""
    wrong: list[str] = []
    host, port = served.address
    origin = f"http://{host}:{port}"
    context = await browser.new_context(
        base_url=origin, color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    key = served.key if role is Role.ADMIN else await served.key_of(role)
    reply = await context.request.post("/api/v1/sign-in", data={"key": key}, headers={"origin": origin})
    assert reply.ok, await reply.text()
    page = await context.new_page()
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda line: wrong.append(line.text) if "Security Policy" in line.text else None)
    page.on("request", lambda request: None if f":{port}/" in request.url else wrong.append(f"asked {request.url}"))
    await page.goto(path)
    try:
        async with telling(page):
            yield Opened(page, wrong)
    finally:
        await context.close()
    assert wrong == [], wrong


async def overlap(one: Locator, other: Locator) -> bool:
    """Whether two things on a page cover each other."""
    a, b = await one.bounding_box(), await other.bounding_box()
    assert a is not None and b is not None
    beside = a["x"] >= b["x"] + b["width"] or b["x"] >= a["x"] + a["width"]
    return not (beside or a["y"] >= b["y"] + b["height"] or b["y"] >= a["y"] + a["height"])


async def failed(served: Served, hand: Hand, *, error: str = "no stock", **fields: Any) -> str:
    """An execution that a worker has failed."""
    id = await served.start(**fields)
    item = await hand.claim()
    assert item["id"] == id
    await hand.fail(item, error)
    return id


async def completed(served: Served, hand: Hand, result: Any = None, **fields: Any) -> str:
    id = await served.start(**fields)
    item = await hand.claim()
    assert item["id"] == id
    await hand.complete(item, result)
    return id
