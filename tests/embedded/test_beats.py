"""What a worker makes of the server's list of what it holds."""

import asyncio

from tests.embedded.house import House, reaches, until

from perdure.sdk.context import Context
from perdure.sdk.workflow import Registry
from perdure.wire.status import Phase


def app_with_a_gate() -> tuple[Registry, asyncio.Event]:
    app, gate = Registry(), asyncio.Event()

    async def wait_at_gate() -> str:
        await gate.wait()
        return "through"

    @app.workflow
    async def gated(ctx: Context) -> str:
        return await ctx.step("gate", wait_at_gate)

    return app, gate


async def test_one_beat_that_crossed_a_claim_drops_nothing_and_a_second_does(house: House) -> None:
    app, gate = app_with_a_gate()
    async with house.open(app) as p:
        handle = await p.start(app["gated"], None)
        await reaches(handle, Phase.RUNNING)
        await until(lambda: _running(p.worker.running))
        held = [(handle.id, (await handle.get()).attempt, 1)]
        p.worker.on_beat([])
        p.worker.on_beat(held)
        p.worker.on_beat([])
        assert p.worker.running == 1
        p.worker.on_beat([])
        assert p.worker.running == 0
        # The server still thinks that it runs here: two beats say so, and it is handed back.
        p.worker.on_beat(held)
        p.worker.on_beat(held)
        gate.set()
        assert await handle.result(timeout=10) == "through"


async def _running(amount: int) -> bool:
    return amount == 1


async def test_a_delivery_that_never_arrived_is_handed_back(house: House) -> None:
    app, gate = app_with_a_gate()
    gate.set()
    async with house.open(app) as p:
        take = p.worker._take
        p.worker._take = lambda claimed: None  # type: ignore[method-assign]  # the reply is lost on its way
        handle = await p.start(app["gated"], None)
        await reaches(handle, Phase.RUNNING)
        p.worker._take = take  # type: ignore[method-assign]
        held = [(handle.id, 1, 1)]
        p.worker.on_beat(held)
        p.worker.on_beat(held)
        assert await handle.result(timeout=10) == "through"
        assert (await handle.get()).attempt == 2
