"""Which calls came after a failure: `StepFailures.later_than`, with what a server without the machine would see."""

import asyncio
import contextlib
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sdk.fake_server import Journal, advance

from perdure.sdk.base.errors import StepFailed
from perdure.sdk.replay import failures
from perdure.sdk.replay.failures import calls_to_blame
from perdure.sdk.replay.machine import Machine
from perdure.sdk.workflows.steps import StepCall, step_result
from perdure.wire.base.records import Kind

Shape = Any
"""A step's name; ("all", …) gathers, ("each", …) calls in order, ("caught", body, handler) compensates and raises
again, ("finally", body, handler), ("quiet", body) goes on after a failure."""

names = st.sampled_from("abc")
shapes = st.recursive(
    names,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["all", "every", "each"]), inner, inner),
        st.tuples(st.sampled_from(["caught", "finally"]), inner, inner),
        st.tuples(st.just("quiet"), inner),
    ),
    max_leaves=9,
)


async def _nothing() -> None: ...


async def run(machine: Machine, shape: Shape) -> None:
    if isinstance(shape, str):
        await step_result(machine, machine.new_call(Kind.STEP, shape, None, StepCall(_nothing)), Any)
        return
    how, *parts = shape
    if how == "all":
        await asyncio.gather(*(run(machine, one) for one in parts))
    elif how == "every":
        found = await asyncio.gather(*(run(machine, one) for one in parts), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
    elif how == "each":
        for one in parts:
            await run(machine, one)
    elif how == "quiet":
        with contextlib.suppress(StepFailed):
            await run(machine, parts[0])
    elif how == "caught":
        try:
            await run(machine, parts[0])
        except StepFailed:
            await run(machine, parts[1])
            raise
    else:
        try:
            await run(machine, parts[0])
        finally:
            await run(machine, parts[1])


@settings(max_examples=400, derandomize=True, suppress_health_check=list(HealthCheck), deadline=None)
@given(shapes, st.integers(0, 2**32))
def test_calls_after_a_failure_are_those_that_the_code_made_once_it_had_it(shape: Shape, seed: int) -> None:
    """The test feeds rows singly, and so knows which calls were missing at the delivery of the failure. A replay in one
    go agrees."""
    fate, journal = random.Random(seed), Journal()
    machine = Machine(lambda: run(machine, shape), seed="s")
    made: dict[str, int] = {}
    effects = advance(machine, journal.rows)
    while True:
        made |= {call.key: len(journal.rows) for call in effects.started}
        if machine.is_done:
            break
        call = fate.choice(machine.outstanding())
        failed = fate.random() < 0.4
        value = '{"type": "ValueError", "message": "no"}' if failed else "1"
        effects = advance(machine, [journal.answer(call, value, ok=not failed, tries=1)])
    steps, _ = calls_to_blame(machine.error)
    if not steps:
        return
    failures_at = [row.seq for row in journal.rows if row.key in steps and not row.ok]
    expected = {key for key, at in made.items() if at >= min(failures_at) and key not in steps}
    later = machine.later_than(steps)
    assert later is not None and set(later) == expected
    recorded = {row.key for row in journal.rows if row.seq > min(failures_at)}
    assert set(later) <= recorded | set(made), "no call is invented"
    again = Machine(lambda: run(again, shape), seed="s")
    advance(again, journal.rows)
    replayed = again.later_than(steps)
    assert replayed is not None and set(replayed) & recorded == expected & recorded


def test_a_worker_says_that_it_cannot_tell_when_the_calls_are_too_many() -> None:
    async def code() -> None:
        try:
            await run(machine, "a")
        finally:
            for _ in range(failures.LATER_MAX):
                await run(machine, "b")

    journal = Journal()
    machine = Machine(code, seed="s")
    advance(machine, journal.rows)
    first = machine.outstanding()[0]
    advance(machine, [journal.answer(first, '{"type": "E", "message": ""}', ok=False)])
    while not machine.is_done:
        advance(machine, [journal.answer(machine.outstanding()[0], "1")])
    assert machine.later_than([first.key]) is None
