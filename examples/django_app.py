"""Perdure beside Django: a worker of its own thread and event loop in the process, called from ordinary views.

    python examples/django_app.py runserver --noreload

It lives in a background thread, so views (sync or async, under WSGI or ASGI) call it without an event loop of
their own. With several server processes, run `perdure serve` and `perdure work` instead and use
`perdure.Client.sync()`.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from perdure import Context, step, workflow
from perdure.embedded import Embedded, embedded

T = TypeVar("T")

if not settings.configured:
    settings.configure(
        DEBUG=False,
        SECRET_KEY="only-for-this-example",
        ALLOWED_HOSTS=["localhost", "127.0.0.1", "testserver"],
        ROOT_URLCONF=__name__,
    )
    django.setup()


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)
    await asyncio.sleep(0.1)  # durable
    return receipt


class Background:
    """An embedded Perdure on an event loop of its own thread."""

    def __init__(self, store: str) -> None:
        self._ready: Future[Embedded] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(store,), name="perdure", daemon=True)
        self._thread.start()
        self.perdure = self._ready.result(timeout=30)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine over there and wait for it here."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    def close(self) -> None:
        """Let steps end and hand the rest back."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=60)

    def _run(self, store: str) -> None:
        async def live() -> None:
            try:
                async with embedded(store) as perdure:
                    self._ready.set_result(perdure)
                    await self._stop.wait()
            except BaseException as error:  # whoever waits for the start must hear of it
                if not self._ready.done():
                    self._ready.set_exception(error)
                raise

        self._loop.run_until_complete(live())
        self._loop.close()


background: Background | None = None


def here() -> Background:
    """The one of this process, started at first use."""
    global background  # one per process is what is meant
    if background is None:
        background = Background(os.environ.get("ORDERS_DB", "orders.db"))
    return background


@require_POST  # type: ignore[untyped-decorator]  # Django carries no types
def place(request: HttpRequest, order_id: int) -> JsonResponse:
    """Answered as soon as the order is on disk; placing it twice is placing it once."""
    bg = here()
    handle = bg.call(bg.perdure.start(order, order_id, key=f"order-{order_id}"))
    return JsonResponse({"execution": handle.id}, status=202)


@require_GET  # type: ignore[untyped-decorator]  # as above
def receipt(request: HttpRequest, order_id: int) -> JsonResponse:
    """Wait for an order's receipt."""
    bg = here()

    async def look() -> str:
        return await (await bg.perdure.find(order, f"order-{order_id}")).result(timeout=30)

    return JsonResponse({"receipt": bg.call(look())})


urlpatterns = [path("orders/<int:order_id>", place), path("orders/<int:order_id>/receipt", receipt)]


if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
