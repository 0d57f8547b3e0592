"""Perdure inside a FastAPI application: one process, one SQLite file, opened in the application's lifespan.

    uvicorn examples.fastapi_app:app

A request starts an execution and may be gone before it ends; a restart of the application goes on where it was. One
process has the file. With several (`--workers 2`) run `perdure serve` and `perdure work` instead and use
`perdure.Client`, or let the processes share a PostgreSQL database: ORDERS_DB=postgresql://…
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request

from perdure import Context, ExecutionFailed, NotFound, step, workflow
from perdure.embedded import Embedded, embedded


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)
    await asyncio.sleep(0.1)  # durable
    return receipt


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with embedded(os.environ.get("ORDERS_DB", "orders.db")) as perdure:
        app.state.perdure = perdure
        yield


app = FastAPI(lifespan=lifespan)


def perdure_of(request: Request) -> Embedded:
    perdure: Embedded = request.app.state.perdure
    return perdure


Perdure = Annotated[Embedded, Depends(perdure_of)]


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: int, perdure: Perdure) -> dict[str, str]:
    """Answered as soon as the order is on disk; placing it twice is placing it once."""
    handle = await perdure.start(order, order_id, key=f"order-{order_id}")
    return {"execution": handle.id}


@app.get("/orders/{order_id}")
async def look(order_id: int, perdure: Perdure, wait: float = 0.0) -> dict[str, str | None]:
    """How far an order is; with `wait`, its receipt if it comes within that many seconds."""
    try:
        handle = await perdure.find(order, f"order-{order_id}")
    except NotFound:
        raise HTTPException(404, f"There is no order {order_id}.") from None
    try:
        receipt: str | None = await handle.result(timeout=min(wait, 30.0))
    except TimeoutError:
        receipt = None
    except ExecutionFailed as error:
        raise HTTPException(500, str(error)) from None
    return {"status": (await handle.get()).phase.value, "receipt": receipt}
