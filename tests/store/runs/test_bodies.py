"""Whether a step's body ran despite its recorded outcome, as `perdure dev` counts."""

from tests.store.world import START_US, World, step

from perdure.store.verbs.base.bodies import Body, count_rerun


async def test_a_body_that_begins_after_the_outcome_counts(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("charge")])

    async def rerun(*bodies: Body) -> int:
        return await world.store.scan(count_rerun(bodies=bodies))

    own = Body(id, 1, "charge", START_US)
    assert await rerun(own) == 0, "the body whose outcome it is"
    assert await rerun(own._replace(started_at_us=START_US - 1)) == 0, "an earlier try"
    assert await rerun(own._replace(key="ship")) == 0, "nothing is recorded there"
    assert await rerun(own._replace(started_at_us=START_US + 1)) == 1, "the same worker, once more"
    assert await rerun(own._replace(attempt=2, started_at_us=0)) == 1, "the next worker, whatever its clock says"
    assert await rerun(own, own._replace(attempt=2), own._replace(attempt=3)) == 2


async def test_a_failed_try_is_no_outcome(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("charge", ok=False, last=False)])
    assert await world.store.scan(count_rerun(bodies=[Body(id, 2, "charge", START_US + 9)])) == 0
    await world.report(id, [step("charge", ok=False, tries=2)])
    assert await world.store.scan(count_rerun(bodies=[Body(id, 2, "charge", START_US + 9)])) == 1
