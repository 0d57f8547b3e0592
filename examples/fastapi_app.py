"""Perdure inside a FastAPI application: the engine and its worker live as long as the application does.

    uvicorn examples.fastapi_app:app
    curl -X PUT localhost:8000/orders/7 -H 'content-type: application/json' -d '{"item": "book", "amount": 30}'
    curl localhost:8000/orders/7
    curl -X POST localhost:8000/orders/7/approval -H 'content-type: application/json' -d 'true'

Stop the server whenever you like and start it again: orders go on where they were.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from perdure import Context, ExecutionFailed, Registry, RetryPolicy, step
from perdure.embedded import Embedded, embedded
from perdure.wire.errors import Conflict, NotFound

registry = Registry()


class Order(BaseModel):
    item: str
    amount: int


class Receipt(BaseModel):
    charged: int
    approved: bool


@step(retry=RetryPolicy(max_attempts=5, initial_seconds=0.1), timeout=10)
async def charge(order: Order) -> int:
    """A call to a payment service would be here."""
    return order.amount


@registry.workflow
async def purchase(ctx: Context, order: Order) -> Receipt:
    """Charges at once what is small; asks a person first if it is not."""
    if order.amount >= 100:
        approved = await ctx.suspend("approval", order, answer_type=bool, timeout=7 * 86_400)
        if not approved:
            return Receipt(charged=0, approved=False)
    return Receipt(charged=await charge(order), approved=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with embedded(os.environ.get("ORDERS_DB", "orders.db"), registry) as p:
        app.state.perdure = p
        yield


app = FastAPI(title="Orders", lifespan=lifespan)


def perdure(request: Request) -> Embedded:
    p: Embedded = request.app.state.perdure
    return p


Perdure = Annotated[Embedded, Depends(perdure)]


@app.put("/orders/{number}", status_code=202)
async def put_order(number: int, order: Order, p: Perdure) -> dict[str, str]:
    """Accepted means kept: the same number again is the same order."""
    handle = await p.start(purchase, order, key=f"order-{number}")
    return {"execution": handle.id}


@app.get("/orders/{number}")
async def get_order(number: int, p: Perdure) -> dict[str, object]:
    """How far an order is; its receipt once there is one."""
    try:
        handle = await p.find(purchase, f"order-{number}")
        return {"status": "done", "receipt": await handle.result(timeout=1.0)}
    except NotFound as error:
        raise HTTPException(404, f"There is no order {number}.") from error
    except TimeoutError:
        return {"status": "open"}
    except ExecutionFailed as error:
        return {"status": "failed", "error": error.message}


@app.post("/orders/{number}/approval")
async def approve(number: int, approved: Annotated[bool, Body()], p: Perdure) -> dict[str, bool]:
    """What a person says of a large order; said once."""
    try:
        handle = await p.find(purchase, f"order-{number}")
        await handle.resume("approval", approved)
    except NotFound as error:
        raise HTTPException(404, f"There is no order {number}.") from error
    except Conflict as error:
        raise HTTPException(409, "That was decided before.") from error
    return {"approved": approved}
