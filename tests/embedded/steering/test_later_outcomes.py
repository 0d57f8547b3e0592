"""Retries of runs whose code called further steps after the failure, such as refunds."""

import pytest
from tests.embedded.house import Counter, House

from perdure.embedded import Embedded, embedded
from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import step
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadValue, LaterOutcomes


class Shop:
    """reserve, charge, ship; if ship fails, refund and release."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.count = Counter()
        self.breaks = True

        @step
        async def refund(order: int) -> None:
            self.note("refund")

        @step
        async def release(order: int) -> None:
            self.note("release")

        @step(on_retry="keep")
        async def notify(order: int) -> None:
            self.note("notify")

        @step(on_retry="redo")
        async def unlock(order: int) -> None:
            self.note("unlock")

        async def ship() -> str:
            self.note("ship")
            if self.breaks:
                raise ValueError("no van")
            return "shipped"

        @self.registry.workflow
        async def order(ctx: Context, number: int) -> str:
            await ctx.step("reserve", self.note, "reserve")
            await ctx.step("charge", self.note, "charge")
            try:
                return await ctx.step("ship", ship)
            except Exception:
                await refund(number)
                await release(number)
                raise

        @self.registry.workflow
        async def told(ctx: Context, number: int) -> str:
            try:
                return await ctx.step("ship", ship)
            finally:
                await notify(number)
                await unlock(number)

        @self.registry.workflow(retry=2)
        async def persistent(ctx: Context, number: int) -> str:
            try:
                shipped = await ctx.step("ship", ship)
            except Exception:
                self.breaks = False
                await refund(number)
                await unlock(number)
                raise
            await unlock(number)
            return shipped

    def note(self, name: str) -> None:
        self.count(name)


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def _failed(p: Embedded, workflow: str = "order") -> Handle[object]:
    handle = await p.start(workflow, 7)
    with pytest.raises(ExecutionFailed, match="no van"):
        await handle.result()
    return handle


async def test_a_retry_after_a_compensation_asks_first(house: House, shop: Shop) -> None:
    async with embedded(house.address, shop.registry, parks=house.parks) as p:
        handle = await _failed(p)
        with pytest.raises(LaterOutcomes, match="'refund' and 'release'") as refused:
            await p.retry(handle.id)
        assert refused.value.details == {"execution_id": handle.id, "later": ["refund", "release"]}
        assert (await p.get(handle.id)).retried_as is None
        with pytest.raises(BadValue, match="redo_later"):
            await p.retry(handle.id, keep_later=True, redo_later=True)


@pytest.mark.parametrize("how", ["keep_later", "redo_later"])
@pytest.mark.parametrize("breaks", [True, False])
async def test_the_answer_decides_whether_a_refund_runs_again(house: House, shop: Shop, how: str, breaks: bool) -> None:
    async with embedded(house.address, shop.registry, parks=house.parks) as p:
        handle = await _failed(p)
        shop.breaks = breaks
        keep = how == "keep_later"
        again = await p.retry(handle.id, keep_later=keep, redo_later=not keep)
        if breaks:
            with pytest.raises(ExecutionFailed, match="no van"):
                await again.result()
            with pytest.raises(LaterOutcomes, match="'refund' and 'release'"):
                await p.retry(again.id)
        else:
            assert await again.result() == "shipped"
        assert (shop.count["reserve"], shop.count["charge"], shop.count["ship"]) == (1, 1, 2)
        runs = 2 if breaks and not keep else 1
        assert (shop.count["refund"], shop.count["release"]) == (runs, runs)


async def test_a_step_decides_for_itself(house: House, shop: Shop) -> None:
    async with embedded(house.address, shop.registry, parks=house.parks) as p:
        handle = await _failed(p, "told")
        shop.breaks = False
        assert await (await p.retry(handle.id)).result() == "shipped"
        assert (shop.count["ship"], shop.count["notify"], shop.count["unlock"]) == (2, 1, 2)


async def test_a_retry_of_the_workflow_itself_redoes_what_the_code_says(house: House, shop: Shop) -> None:
    async with embedded(house.address, shop.registry, parks=house.parks) as p:
        assert await (await p.start("persistent", 7)).result() == "shipped"
        assert (shop.count["ship"], shop.count["refund"], shop.count["unlock"]) == (2, 1, 2)
