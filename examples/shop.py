"""A shop whose executions show what the dashboard can show: retries, a lost worker, waits, children, people, an agent.

    perdure dev examples/shop.py
    perdure run fulfil_order --input '{"order": 48213, "items": 6, "total": 128.9}' --key order-48213

`make screenshots` fills a server with it and takes the pictures of the documentation.
"""

import asyncio
from dataclasses import dataclass

from pydantic_ai import Agent

from examples.agents.models import call, model, results
from perdure import Budget, Context, Fatal, Queue, RetryPolicy, current_step, step, workflow
from perdure.agents import durable

ORDERS = Queue("orders", total_limit=40)
MAIL = Queue("mail", total_limit=4)


@dataclass
class Order:
    order: int
    items: int = 3
    total: float = 42.0
    customer: str = "mara@example.com"
    approve_above: float = 100.0
    tax_failures: int = 1
    charge_seconds: float = 0.4


@dataclass
class Approval:
    approved: bool
    total: float
    note: str = ""


@step
async def validate_order(order: Order) -> int:
    await asyncio.sleep(0.012)
    if order.total <= 0:
        raise Fatal(f"Order {order.order} has nothing to pay.")
    return order.order


@step
async def price_items(order: Order) -> float:
    await asyncio.sleep(0.05)
    return order.total


@step(name="tax.quote", retry=RetryPolicy(max_attempts=3, initial_seconds=0.5))
async def quote_tax(order: Order) -> float:
    await asyncio.sleep(0.15)
    if current_step().tries <= order.tax_failures:
        raise ConnectionError("503 from tax.example")
    return round(order.total * 0.19, 2)


@step(name="fraud.score")
async def score_fraud(order: Order) -> float:
    await asyncio.sleep(0.3)
    return 0.08


@step
async def charge_card(order: Order, total: float) -> dict[str, object]:
    await asyncio.sleep(order.charge_seconds)
    return {
        "receipt": f"rcpt_{order.order}",
        "amount": ["EUR", total],
        "card": "•••• 4242",
        "captured": True,
        "idempotency_key": current_step().idempotency_key,
    }


@step
def render_invoice(order: Order) -> str:
    return f"<h1>Invoice {order.order}</h1>"


@workflow(queue=ORDERS)
async def reserve_item(ctx: Context, item: int) -> str:
    await ctx.step("stock.reserve", asyncio.sleep, 0.2 + 0.15 * (item % 4))
    return f"shelf-{item}"


@workflow(queue=MAIL)
async def send_mail(ctx: Context, to: str) -> str:
    await ctx.step("mail.send", asyncio.sleep, 0.25)
    return f"sent to {to}"


@workflow
async def ship_order(ctx: Context, order: int) -> str:
    await ctx.step("pick_carrier", asyncio.sleep, 0.2)
    await ctx.step("print_label", asyncio.sleep, 0.35)
    scan = await ctx.wait_for_event("carrier.scan", match={"order": order}, timeout=3 * 86_400)
    await ctx.step("track.register", asyncio.sleep, 0.1)
    return f"scanned as number {scan.sequence_id}"


@workflow(queue=ORDERS, searchable=["payload.customer", "payload.order"])
async def fulfil_order(ctx: Context, order: Order) -> dict[str, object]:
    """Take an order from its check to the parcel."""
    await validate_order(order)
    total = await price_items(order)
    ctx.progress(1, 6)
    total += await quote_tax(order)
    await ctx.map_children(reserve_item, list(range(order.items)), limit=4)
    ctx.progress(2, 6)
    await score_fraud(order)
    if total > order.approve_above:
        answer = await ctx.suspend(
            "approve_total",
            {"order": order.order, "customer": order.customer, "total": total},
            timeout=86_400,
            answer_type=Approval,
        )
        if not answer.approved:
            raise Fatal(f"Order {order.order} was rejected: {answer.note or 'no reason given'}.")
        total = answer.total
    ctx.progress(3, 6)
    receipt = await charge_card(order, total)
    ctx.log("charged %.2f euros, receipt %s", total, receipt["receipt"])
    await ctx.publish("orders.paid", {"order": order.order, "total": total})
    await render_invoice(order)
    ctx.progress(4, 6)
    parcel = await ctx.start_child(ship_order, order.order)
    await ctx.run_child(send_mail, order.customer)
    await ctx.sleep(2)
    ctx.progress(5, 6)
    return {"receipt": receipt, "parcel": await parcel.result()}


@workflow(queue=MAIL, schedule="0 7 * * mon-fri")
async def daily_report(ctx: Context) -> int:
    """Count yesterday's orders."""
    await ctx.step("report.count", asyncio.sleep, 0.1)
    return 48


agent = Agent(
    model(
        call("find_order", order=48213),
        call("refund", order=48213, euros=48),
        lambda messages: f"I refunded the damaged cup: {results(messages)[-1]}. Is there anything else?",
    ),
    name="support",
    instructions="Answer customers of the shop. Look the order up before you promise anything.",
)


@agent.tool_plain
async def find_order(order: int) -> dict[str, object]:
    """What was ordered, and where the parcel is."""
    return {"order": order, "items": ["cup", "plate", "bowl"], "parcel": "delivered on Friday"}


@agent.tool_plain(requires_approval=True)
async def refund(order: int, euros: float) -> str:
    """Pay money back to the customer's card."""
    return f"{euros} euros of order {order}"


support = durable(agent, answer_timeout=3 * 86_400, budget=Budget(calls=20))
