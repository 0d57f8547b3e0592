"""Take pictures of all pages of the dashboard, light and dark, into docs/images.

A server, workers and a browser of its own; the executions are those of examples/shop.py, one of whose workers dies.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Page, async_playwright

from perdure import Client
from perdure.wire.runs.executions import ListFilters
from perdure.wire.steering.acts import PendingKind

ROOT: Final = Path(__file__).parent.parent
IMAGES: Final = ROOT / "docs" / "images"
PORT: Final = 8399
URL: Final = f"http://127.0.0.1:{PORT}"
ORDER: Final = {"order": 48213, "items": 6, "total": 128.9, "charge_seconds": 4.0}
SECONDS_MAX: Final = 90


@contextmanager
def process(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One `perdure` command with its log in the folder."""
    environment = os.environ | {"PERDURE_URL": URL, "PYTHONPATH": str(folder)}
    with (folder / f"{arguments[0]}.log").open("ab") as log:
        command = [sys.executable, "-m", "perdure.cli.main", *arguments]
        started = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGTERM)
        started.wait(20)


def serve(folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return process("serve", "--insecure-local", "--port", str(PORT), folder=folder)


def worker(folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return process("work", "examples/shop.py", "--deployment", "2026-11-29", folder=folder)


async def until(what: str, found: Any) -> Any:
    for _ in range(SECONDS_MAX * 5):
        with contextlib.suppress(OSError, LookupError):
            if (result := await found()) is not None:
                return result
        await asyncio.sleep(0.2)
    raise SystemExit(f"screenshots: {what} did not come within {SECONDS_MAX} s")


async def fill(client: Client, folder: Path, stack: AsyncExitStack) -> dict[str, str]:
    """Executions in every phase that the pictures show. Returns what the addresses name."""
    stack.enter_context(worker(folder))
    await until("a worker", lambda: workers(client, 1))
    order = await client.start("fulfil_order", ORDER, key="order-48213", tags={"tier": "vip"}, user_id="mara")
    for number in range(30):
        total = 20.0 + number if number % 7 else 150.0 + number
        failures = 3 if number % 5 == 4 else number % 2
        given = {"order": 48_300 + number, "items": 1 + number % 3, "total": total, "tax_failures": failures}
        await client.start("fulfil_order", given, key=f"order-{48_300 + number}", user_id=f"customer-{number % 9}")
    for number in range(12):
        await client.start("send_mail", f"customer-{number}@example.com")
    agent = await client.start("support", "My cup arrived broken. Order 48213.", session_id="mara", user_id="mara")
    await until("the order's question", lambda: asks(client, order.id))
    stack.enter_context(worker(folder))
    await until("a second worker", lambda: workers(client, 2))
    await client.resume(order.id, "approve_total", {"approved": True, "total": 120.0, "note": "a discount"})
    await until("the answer", lambda: has(client, order.id, "approve_total"))
    await asyncio.sleep(2.5)  # a beat names the step, so that the picture shows where it was torn
    holder = (await client.get(order.id)).assigned_to_worker
    [pid] = [one.pid for one in (await client.workers()).items if one.id == holder]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until("the parcel", lambda: has(client, order.id, "ship_order"))
    await client.start("fulfil_order", ORDER | {"order": 0, "total": 0}, key="order-0")
    await until("the agent's question", lambda: asks(client, agent.id))
    failed = await until("a failure", lambda: _failed(client))
    await client.queues.pause("mail")
    for number in range(5):
        await client.start("send_mail", f"later-{number}@example.com")
    return {"order": order.id, "agent": agent.id, "failed": failed}


async def spend(client: Client) -> None:
    """Shared budgets. A balance of the first holds a run back."""
    await client.budgets.put("customers", per="user", period="day", calls=3)
    await client.budgets.put("sessions", per="session", tokens=20_000, on_exceed="finish")
    await client.budgets.put("shop", per="project", period="day", calls=2_000, on_exceed="fail")
    for user in ("lena", "jonas", "jonas"):
        await client.start("support", "My plate arrived broken. Order 48213.", user_id=user)
    await until("a used-up budget", lambda: _asks_for_more(client, "jonas"))


async def workers(client: Client, amount: int) -> int | None:
    found = len((await client.workers()).items)
    return found if found >= amount else None


async def asks(client: Client, id: str) -> str | None:
    return next((call.key for call in await client.pending(id) if call.kind is PendingKind.ANSWER), None)


async def has(client: Client, id: str, name: str) -> str | None:
    return name if any(name in (row.name, row.key) for row in await client.journal(id)) else None


async def _failed(client: Client) -> str | None:
    page = await client.list(ListFilters(phases=["failed"]), limit=1)
    return page.executions[0].id if page.executions else None


async def _asks_for_more(client: Client, user: str) -> str | None:
    return (await client.budgets.balances("customers", key=user))[0].asking_execution_id


def addresses(ids: dict[str, str]) -> dict[str, str]:
    return {
        "overview": "/",
        "executions": "/executions",
        "execution": f"/executions/{ids['order']}?tab=timeline",
        "execution-failed": f"/executions/{ids['failed']}",
        "agent": f"/executions/{ids['agent']}",
        "inbox": "/inbox",
        "sessions": "/sessions",
        "workflows": "/workflows",
        "run-form": "/workflows/fulfil_order?run=1",
        "agents": "/agents",
        "queues": "/queues",
        "schedules": "/schedules",
        "events": "/events",
        "deployments": "/deployments",
        "traces": "/traces",
        "settings": "/settings",
    }


async def take(
    browser: Browser, pages: dict[str, str], width: int = 1440, height: int = 900, without: Sequence[str] = ()
) -> None:
    """Take pictures of these pages. `without` names buttons that hide a part of the page."""
    for scheme in ("light", "dark"):
        context = await browser.new_context(
            base_url=URL,
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": height},
        )
        page = await context.new_page()
        page.on("pageerror", lambda error: print(f"screenshots: {error}", file=sys.stderr))
        for name, path in pages.items():
            await _shot(page, path, IMAGES / f"{name}-{scheme}.png", without)
        await context.close()


async def _shot(page: Page, path: str, file: Path, without: Sequence[str]) -> None:
    await page.goto(path)
    await page.wait_for_load_state("load")
    await page.wait_for_timeout(1_200)  # the live feed keeps the network busy, so nothing says when a page is drawn
    for name in without:
        if await (button := page.get_by_role("button", name=name)).count():
            await button.click()
    await page.screenshot(path=file)
    print(f"screenshots: {file.relative_to(ROOT)}", flush=True)


def browser_path() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("screenshots: no Chromium on this machine (Debian: apt install chromium)")
    return found


async def main() -> None:
    chromium = browser_path()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
        shutil.copytree(ROOT / "examples", folder / "examples")  # tracebacks in the pictures show where the code is
        stack.enter_context(serve(folder))
        client = await stack.enter_async_context(Client.connect(URL))
        ids = await fill(client, folder, stack)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        await take(browser, addresses(ids))
        await spend(client)  # last: its runs and questions would crowd the other pages
        await take(browser, {"budgets": "/budgets"})
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
