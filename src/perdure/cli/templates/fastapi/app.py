"""Orders: a web application with durable workflows in its own process, on one SQLite file.

A request starts an execution and may be gone before it ends. After a restart the execution continues where it was.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from perdure.embedded import Embedded, embedded
from perdure import Context, NotFound, step, workflow


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)
    await asyncio.sleep(1)  # durable, for three days as well
    return receipt


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    store, port = os.environ.get("ORDERS_DB", "orders.db"), int(os.environ.get("DASHBOARD_PORT", "8080"))
    async with embedded(store, serve=port) as perdure:  # the dashboard; its link is printed
        app.state.perdure = perdure
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: int, request: Request) -> dict[str, str]:
    """Answered as soon as the order is on disk. To place it twice is to place it once."""
    perdure: Embedded = request.app.state.perdure
    handle = await perdure.start(order, order_id, key=f"order-{order_id}")
    return {"execution": handle.id}


@app.get("/orders/{order_id}")
async def look(order_id: int, request: Request, wait: float = 0.0) -> dict[str, str | None]:
    """The receipt, if it comes within `wait` seconds."""
    perdure: Embedded = request.app.state.perdure
    try:
        handle = await perdure.find(order, f"order-{order_id}")
    except NotFound:
        raise HTTPException(404, f"Order {order_id} does not exist.") from None
    try:
        return {"receipt": await handle.result(timeout=min(wait, 30.0))}
    except TimeoutError:
        return {"receipt": None}
