"""Compensation: when the car cannot be booked, the hotel and the flight are cancelled, each as a step of its own."""

import asyncio

from perdure import Context, ExecutionFailed, Fatal, Registry, StepFailed, step
from perdure.testing import embedded

registry = Registry()
CANCELLED: list[str] = []


@step(retry=3)
async def book(what: str) -> str:
    if what == "car":
        raise Fatal("the garage is empty")
    return f"{what}-7"


@step(retry=20, on_failure="hold")
async def cancel(what: str) -> None:
    CANCELLED.append(what)  # a provider must accept a cancellation of what was never booked


@registry.workflow(on_cancel="wake")
async def trip(ctx: Context) -> str:
    begun: list[str] = []
    try:
        for what in ("flight", "hotel", "car"):
            begun.append(what)  # before the call: a time-out does not say whether it booked
            await book(what)
    except (StepFailed, asyncio.CancelledError):
        for what in reversed(begun):
            await cancel(what)
        raise
    return "booked"


async def main() -> list[str]:
    CANCELLED.clear()
    async with embedded(registry) as p:
        try:
            await (await p.start(trip)).result()
        except ExecutionFailed as error:
            print(error)
    return CANCELLED


if __name__ == "__main__":
    print(asyncio.run(main()))
