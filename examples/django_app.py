"""Perdure inside a Django project: the engine and its worker live as long as the ASGI server that runs it.

    uvicorn examples.django_app:application
    curl -X PUT localhost:8000/greetings/7 -d '{"name": "Ada", "after_seconds": 5}'
    curl localhost:8000/greetings/7

Django itself ignores the ASGI lifespan, so a few lines around its application start and end Perdure. A project under
WSGI has no event loop to live in: there the engine is a process of its own (`perdure serve`, `perdure work`), and views
call `perdure.Client.sync()`.
"""

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from perdure import Context, Registry, step
from perdure.embedded import Embedded, embedded
from perdure.wire.errors import NotFound

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

settings.configure(
    DEBUG=False,
    SECRET_KEY="an example needs none",
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
)
django.setup()


# --- workflows -----------------------------------------------------------------------------------------------------

registry = Registry()


@dataclass
class Greeting:
    name: str
    after_seconds: float = 0.0


@step
async def write(name: str) -> str:
    return f"Hello, {name}"


@registry.workflow
async def greet(ctx: Context, greeting: Greeting) -> str:
    await ctx.sleep(greeting.after_seconds)
    return await write(greeting.name)


# --- views ---------------------------------------------------------------------------------------------------------


class Perdure:
    """Where the views find it."""

    running: Embedded


async def greetings(request: HttpRequest, number: int) -> JsonResponse:
    p, key = Perdure.running, f"greeting-{number}"
    if request.method == "PUT":
        handle = await p.start(greet, Greeting(**json.loads(request.body)), key=key)
        return JsonResponse({"execution": handle.id}, status=202)
    try:
        handle = await p.find(greet, key)
        return JsonResponse({"status": "done", "text": await handle.result(timeout=1.0)})
    except NotFound:
        return JsonResponse({"error": f"There is no greeting {number}."}, status=404)
    except TimeoutError:
        return JsonResponse({"status": "open"})


urlpatterns = [path("greetings/<int:number>", greetings)]


# --- the application -----------------------------------------------------------------------------------------------


def with_perdure(inner: Application, store: str) -> Application:
    """An ASGI application that runs Perdure between the server's startup and its shutdown."""

    async def lifespan(receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    try:
                        Perdure.running = await stack.enter_async_context(embedded(store, registry))
                    except Exception as error:
                        await send({"type": "lifespan.startup.failed", "message": str(error)})
                        raise
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await stack.aclose()
                    await send({"type": "lifespan.shutdown.complete"})
                    return

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await inner(scope, receive, send)

    return application


application = with_perdure(get_asgi_application(), os.environ.get("GREETINGS_DB", "greetings.db"))
