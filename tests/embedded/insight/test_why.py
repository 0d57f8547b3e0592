"""Explanations read the rows that real workers write."""

from tests.embedded.house import Counter, House, ends, reaches

from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.status import Phase


def version(count: Counter, name: str) -> Registry:
    app = Registry()

    async def pay() -> None:
        raise ConnectionError("the provider is down")

    @app.workflow
    async def changing(ctx: Context) -> None:
        await ctx.step(name, count, name)
        await ctx.wait_for_event("go")

    @app.workflow
    async def billing(ctx: Context) -> None:
        try:
            await ctx.step("discount", pay)
        except Exception:
            await ctx.step("none", count, "none")
        await ctx.step("pay", pay)

    @app.workflow
    async def order(ctx: Context) -> None:
        try:
            await ctx.run_child(billing)
        except Exception as error:
            await ctx.step("note", count, "note")
            raise RuntimeError("the order failed") from error

    return app


async def test_a_failure_of_a_child_and_a_divergence(house: House, count: Counter) -> None:
    async with house.open(version(count, "a")) as p:
        failed = await p.start("order")
        assert await ends(failed) is Phase.FAILED
        found = await p.why(failed.id, slow=True)
        assert found.sentence.startswith("In its child ")
        assert "(billing) step 'pay' failed: ConnectionError: the provider is down (" in found.sentence
        assert f"{__name__.rpartition('.')[2]}.py:" in found.sentence
        assert found.path is not None
        waiting = await p.start("changing")
        await reaches(waiting, Phase.WAITING)
        assert (await p.why(waiting.id)).remedy == "an event of topic 'go'"
    async with house.open(version(count, "b")) as p:
        await p.publish("go", None)
        await reaches(p.handle(waiting.id), Phase.BLOCKED)
        sentence = (await p.why(waiting.id)).sentence
        assert "is step 'a', but the code asks for step 'b' (" in sentence
        assert f"{__name__.rpartition('.')[2]}.py:" in sentence


async def test_a_program_reads_the_id_and_the_times_as_those_of_an_execution(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waits(ctx: Context) -> None:
        await ctx.suspend("ask", timeout=3600)

    async with house.open(app) as p:
        handle = await p.start(waits)
        await reaches(handle, Phase.WAITING)
        why, info = await p.why(handle.id), await handle.get()
        assert why.id == why.execution_id == info.id
        assert why.since is not None and why.since_us is not None
        assert why.since.timestamp() == why.since_us / 1e6
        assert why.until == info.due_at
        await handle.cancel()
