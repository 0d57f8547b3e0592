"""The program that test_restart kills while it waits: tasks from a set download with one client.

    python downloads.py STORE

It prints `downloaded` when the bodies are recorded. Then it waits for a line, and prints the bodies."""

import asyncio
import sys
import threading

from perdure import Context, Registry, step
from perdure.embedded import embedded
from perdure.engine.base.settings import EngineSettings
from perdure.wire.base.records import Kind

URLS = frozenset({"/a", "/b", "/c", "/d", "/e"})
SETTINGS = EngineSettings(lease_seconds=1.0)
app = Registry()


class HttpClient:
    def __init__(self) -> None:
        self.lock = threading.Lock()


@step
async def download(client: HttpClient, url: str) -> str:
    return f"body of {url}"


@app.workflow
async def mirror(ctx: Context) -> dict[str, str]:
    client = HttpClient()
    bodies: dict[str, str] = {}

    async def one(url: str) -> None:
        bodies[url] = await download(client, url)

    async with asyncio.TaskGroup() as group:
        for url in URLS:
            group.create_task(one(url))
    await ctx.wait_for_event("go")
    return bodies


async def main(store: str) -> None:
    async with embedded(store, app, settings=SETTINGS) as p:
        handle = await p.start(mirror, key="mirror")
        while len([row for row in await p.journal(handle.id) if row.kind is Kind.STEP]) < len(URLS):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        sys.stdout.write("downloaded\n")
        sys.stdout.flush()
        if await asyncio.to_thread(sys.stdin.readline):
            await p.publish("go", None, dedup_key="go")
            bodies = await handle.result(timeout=60)
            sys.stdout.write(" ".join(f"{url}={body}" for url, body in sorted(bodies.items())) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
