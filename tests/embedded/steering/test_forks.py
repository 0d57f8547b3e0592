"""Forks and retries with real workers: the code goes on over the outcomes that were kept."""

from pathlib import Path

import pytest
from tests.embedded.house import House, answer_when_asked, reaches, rows_of

from perdure.embedded import embedded
from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import current_step
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import Conflict
from perdure.wire.base.status import Phase

STEPS = 20


def _orders(side: Path, *, mended: bool) -> Registry:
    """A workflow of 20 steps: the 5th is a child, the 10th waits for an event, the 15th for a person."""
    app = Registry()

    def note(name: str) -> str:
        with side.open("a") as file:
            file.write(f"{name} {current_step().idempotency_key.partition(':')[0]}\n")
        return name

    @app.workflow
    async def shipping(ctx: Context, order: int) -> str:
        return await ctx.step("5", note, "5")

    @app.workflow
    async def order(ctx: Context, number: int) -> list[object]:
        done: list[object] = [str(ctx.uuid()), ctx.random.random()]
        for n in range(1, STEPS + 1):
            if n == 5:
                done.append(await ctx.run_child(shipping, number))
            elif n == 10:
                done.append((await ctx.wait_for_event("paid")).data)
            elif n == 15:
                done.append(await ctx.suspend("approve", {"order": number}))
            elif n == 18:
                done.append(await ctx.step("18", ship, number))
            else:
                done.append(await ctx.step(str(n), note, str(n)))
        return done

    def ship(number: int) -> str:
        if not mended:
            raise ValueError("a bug")
        return note("18")

    return app


async def test_a_failed_run_is_retried_with_mended_code_and_pays_nothing_twice(house: House, tmp_path: Path) -> None:
    """The execution fails at step 18 of 20. The retry runs steps 18 to 20, with the first idempotency keys."""
    side = tmp_path / "side"
    async with embedded(house.address, _orders(side, mended=False), deployment="v1", parks=house.parks) as p:
        first = await p.start("order", 7, key="order-7")
        await reaches(first, Phase.WAITING)
        await p.publish("paid", {"amount": 3})
        await answer_when_asked(first, "approve", "yes")
        with pytest.raises(ExecutionFailed, match="a bug"):
            await first.result()
    async with embedded(house.address, _orders(side, mended=True), deployment="v2", parks=house.parks) as p:
        retry = await p.retry(first.id, deployment_id="v2", note="mended")
        done = await retry.result()
        again = await retry.get()
        assert (again.deployment_id, again.key, again.forked_from, again.forked_at_step) == (
            "v2",
            "order-7",
            first.id,
            "18",
        )
        before = await p.get(first.id)
        assert (before.retried_as, before.phase) == (retry.id, Phase.FAILED)
        assert (await p.start("order", 7, key="order-7")).id == retry.id
        with pytest.raises(Conflict, match=retry.id):
            await p.retry(first.id)
        journal = await rows_of(retry)
        await p.delete(first.id)  # as retention does
        assert await rows_of(retry) == journal
        fork = await retry.fork(from_step="19")
        assert await fork.result() == done
    lines = [line.split() for line in side.read_text().splitlines()]
    ran = [name for name, _ in lines]
    expected = [str(n) for n in range(1, STEPS + 1) if n not in (10, 15)]
    assert ran == [*expected, "19", "20"]  # the fork ran the last two once more
    assert {key for name, key in lines if name != "5"} == {first.id}
