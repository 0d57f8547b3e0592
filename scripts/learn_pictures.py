"""Take the pictures of Learn, light and dark, into docs/images: what a reader sees at the end of each page."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright
from scripts import learn
from scripts.screenshots import URL, asks, browser_path, has, process, serve, take, until, workers

from perdure import Client, Handle
from perdure.wire.steering.acts import PendingKind


async def waits(client: Client, id: str) -> str | None:
    return next((call.key for call in await client.pending(id) if call.kind is PendingKind.EVENT), None)


class Shop:
    """A reader's folder with a server, and a browser that takes pictures of it."""

    def __init__(self, folder: Path, client: Client, browser: Browser) -> None:
        self.folder = folder
        self.client = client
        self.browser = browser

    @asynccontextmanager
    async def worker(self, page: str, deployment: str = "dev") -> AsyncIterator[None]:
        """A worker with the program of this page."""
        for name, text in learn.files(page).items():
            (self.folder / name).write_text(text)
        with process("work", "shop.py", "--deployment", deployment, folder=self.folder):
            await until("a worker", lambda: workers(self.client, 1))
            yield

    async def order(self, id: int, items: int, total: int) -> Handle[Any]:
        names = ["cup", "plate", "bowl", "jug", "pot", "lid"][:items]
        return await self.client.start("fulfil", {"id": id, "items": names, "total": total})

    async def scan(self, order: Handle[Any], id: int) -> None:
        await until("a wait", lambda: waits(self.client, order.id))
        await self.client.publish("scans", {"order": id, "parcel": f"P-{id}"})
        await order.result()

    async def take(self, page: str, path: str, height: int = 560) -> None:
        await take(self.browser, {f"learn-{page}": path}, width=1200, height=height, without=["Hide the inspector"])

    async def kill_worker(self) -> None:
        [pid] = [one.pid for one in (await self.client.workers()).items if one.state == "online"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


async def follow(shop: Shop) -> None:
    async with shop.worker("step"):
        order = await shop.order(7, 2, 42)
        await order.result()
        await shop.take("step", f"/executions/{order.id}")

    async with shop.worker("crash"):
        order = await shop.order(8, 4, 58)
        await until("a packed item", lambda: has(shop.client, order.id, "pack#2"))
        await asyncio.sleep(1.2)  # a beat names the step, so that the picture shows where it was torn
        await shop.kill_worker()
    async with shop.worker("crash"):
        await until("a third item", lambda: has(shop.client, order.id, "pack#3"))
        await shop.take("crash", f"/executions/{order.id}")
        await order.result()

    async with shop.worker("wait"):
        order = await shop.order(9, 1, 12)
        await until("a wait", lambda: waits(shop.client, order.id))
        await shop.take("wait", f"/executions/{order.id}")
        await shop.scan(order, 9)

    async with shop.worker("approval"):
        order = await shop.order(10, 1, 142)
        await until("a question", lambda: asks(shop.client, order.id))
        await shop.take("approval", "/inbox")
        await shop.client.resume(order.id, "approve_total", {"approved": True})
        await shop.scan(order, 10)

    async with shop.worker("children"):
        order = await shop.order(11, 6, 90)
        await asyncio.sleep(3)  # two are packed, two are on their way, two wait
        await shop.take("children", f"/executions/{order.id}")
        await shop.scan(order, 11)

    async with shop.worker("schedule"):
        [schedule] = await shop.client.schedules.list()
        await (await shop.client.schedules.run(schedule.id)).result()
        await shop.take("schedule", "/schedules")

    async with shop.worker("agent"):
        run = await shop.client.start("support", "My cup is broken. Order 7.")
        await until("a question", lambda: asks(shop.client, run.id))
        await shop.take("agent", f"/executions/{run.id}", height=760)


async def produce(shop: Shop) -> None:
    """The last page begins with an empty store."""
    async with shop.worker("production", "v1"):
        order = await shop.order(12, 1, 12)
        await until("a wait", lambda: waits(shop.client, order.id))
        await shop.take("production", "/deployments")


async def main() -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        for pages in (follow, produce):
            with tempfile.TemporaryDirectory(prefix="shop-") as name, serve(Path(name)):
                async with Client.connect(URL) as client:
                    await pages(Shop(Path(name), client, browser))
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
