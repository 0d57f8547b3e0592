"""Runs the workflow in this process, and kills it at every commit once."""

import asyncio

from app import Order, order
from perdure.testing import crash_everywhere, embedded


def test_an_order_is_charged_and_shipped() -> None:
    async def main() -> str:
        async with embedded() as p:
            return await (await p.start(order, Order(id=7, items=2))).result()

    assert asyncio.run(main()) == "receipt-7: parcel-7-1, parcel-7-2"


def test_an_order_survives_a_crash_at_every_commit() -> None:
    report = asyncio.run(crash_everywhere(order, Order(id=7)))
    assert report.result == "receipt-7: parcel-7-1"
