"""What the page of an execution costs a browser: `python -m benchmarks.pages` (needs Chromium).

An embedded application serves its pages on a file. An execution of 5,000 steps is opened while it runs, and records 200
more. Beside the time on the clock, which a busy machine makes longer, stands the processor time of the page's main
thread.
"""

import asyncio
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.figures import run_loop
from playwright.async_api import CDPSession, Page, async_playwright

from perdure import Context, workflow
from perdure.embedded import Embedded, embedded

ROWS: Final = 5_000
LIVE_ROWS: Final = 200
IDLE_SECONDS: Final = 5
SETTLED_MS: Final = 3_000
waits = asyncio.Event()


@workflow
async def long(ctx: Context) -> None:
    for n in range(ROWS):
        await ctx.step(f"step {n}", int)
    waits.set()
    await ctx.wait_for_event("go on")
    for n in range(LIVE_ROWS):
        await ctx.step(f"live {n}", int)
        if n % 10 == 9:
            await ctx.sleep(0.1)
    await ctx.wait_for_event("end")


async def busy_ms(session: CDPSession) -> float:
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    [seconds] = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    return float(seconds) * 1e3


async def look(page: Page, p: Embedded, id: str) -> None:
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    for words in ("cold", "warm"):
        await page.goto("/")
        await page.wait_for_timeout(SETTLED_MS)
        painted = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(f"first contentful paint, {words}: {painted:.0f} ms")
    await page.goto("about:blank")
    before, began = await busy_ms(session), time.perf_counter()
    await page.goto(f"/executions/{id}")
    await page.locator(".wrow").first.wait_for()
    took = (time.perf_counter() - began) * 1e3
    print(f"first row of {ROWS:,}: {took:.0f} ms, {await busy_ms(session) - before:.0f} ms of the main thread")
    await page.wait_for_timeout(SETTLED_MS)
    before = await busy_ms(session)
    await page.wait_for_timeout(IDLE_SECONDS * 1e3)
    idle = (await busy_ms(session) - before) / IDLE_SECONDS / 10
    print(f"open and idle: {idle:.1f} % of the main thread, {await page.locator('.wf *').count()} nodes")
    before = await busy_ms(session)
    await p.publish("go on", None)
    await page.wait_for_timeout(2_000 + SETTLED_MS)
    print(f"{LIVE_ROWS} live rows: {await busy_ms(session) - before:.0f} ms of the main thread")


async def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with TemporaryDirectory() as folder:
        options: Any = {"executable_path": chromium, "args": ["--no-sandbox"]}
        async with embedded(str(Path(folder) / "perdure.db"), serve=0) as p, async_playwright() as play:
            handle = await p.start(long)
            await waits.wait()
            browser = await play.chromium.launch(**options)
            context = await browser.new_context(base_url=p.url, viewport={"width": 1440, "height": 900})
            await context.request.post("/api/v1/sign-in", data={"key": p.api_key}, headers={"origin": p.url or ""})
            await look(await context.new_page(), p, handle.id)
            await browser.close()
            await handle.cancel()


if __name__ == "__main__":
    run_loop(main())
