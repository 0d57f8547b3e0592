/** Programs that run as they stand: `perdure dev app.py`, or python app.py for the last one. */

export const CODE = {
  workflow: {
    word: "Workflow",
    run: "perdure dev app.py",
    start: ["order", 7],
    text: `from perdure import Context, step, workflow


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)  # recorded: never runs again
    await ctx.sleep(20)  # durable: kill the worker now
    return f"order {order_id} is paid, {receipt}"
`,
  },
  agent: {
    word: "Agent",
    run: "perdure dev app.py",
    start: ["support", "Where is my order? May I have my money back?"],
    text: `# pip install "perdure[agents]"
# The model "test" calls each tool once and needs no key. A real one: "openai:gpt-5.2"
from pydantic_ai import Agent

from perdure.agents import durable

agent = Agent("test", name="support", defer_model_check=True)


@agent.tool_plain
async def find_order(number: int) -> str:
    """Where an order is."""
    return f"order {number} is on its way"


@agent.tool_plain(requires_approval=True)
async def refund(number: int, cents: int) -> str:
    """Pay money back, after a person approves it."""
    return f"{cents} cents for order {number}"


support = durable(agent)
`,
  },
  fastapi: {
    word: "FastAPI",
    run: "uvicorn app:app --port 8000",
    start: ["order", 7],
    text: `# pip install perdure fastapi uvicorn
# No server to run: the pages are at http://127.0.0.1:8080
from contextlib import asynccontextmanager

from fastapi import FastAPI

from perdure import Context, step, workflow
from perdure.embedded import embedded


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)
    await ctx.sleep(20)
    return receipt


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with embedded("orders.db", serve=8080) as app.state.perdure:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: int) -> dict[str, str]:
    handle = await app.state.perdure.start(order, order_id, key=f"order-{order_id}")
    return {"execution": handle.id}
`,
  },
} as const;
