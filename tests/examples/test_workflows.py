"""The examples of workflows, run offline as they stand."""

from examples.workflows import compensation, forms, hooks, queues, schedules, shared_state, triggers


async def test_compensation() -> None:
    assert await compensation.main() == ["car", "hotel", "flight"]


async def test_queues() -> None:
    most = await queues.main()
    assert most.pop("all") <= 4
    assert set(most.values()) == {1} and len(most) == 6


async def test_triggers() -> None:
    assert await triggers.main() == ["booked 10 orders", *[f"confirmed {number}" for number in range(10)]]


async def test_schedules() -> None:
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
    assert sorted(await schedules.main()) == sorted(f"{day} at 09:00" for day in days)


async def test_forms() -> None:
    assert await forms.main() == "parcel 7 goes by air in 2 boxes"


async def test_hooks() -> None:
    assert await hooks.main() == ["order begins with 7", "order gave 'order 7 is paid'"]


async def test_shared_state() -> None:
    assert [(answer.granted, answer.left) for answer in await shared_state.main()] == [(True, 3), (True, 1), (False, 1)]
