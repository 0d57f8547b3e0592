"""The workflows of the fault tests, and the effect log: a line for each step body that begins or ends.

A line is appended by a single write and survives SIGKILL. The line names the step, the execution, the attempt, the
process, the time (microseconds of the wall clock), and when the process last found its lease good. A body that begins
as a stale attempt is excused only if the process was stopped between that look and the body.
"""

from __future__ import annotations

import asyncio
import os
import time

from perdure import Context, current_step, step, workflow
from perdure.sdk.workers.lease import Lease

STEPS = 5
STEP_SECONDS = float(os.environ.get("FAULTS_STEP_SECONDS", "0.05"))
EFFECTS = os.environ.get("FAULTS_EFFECTS", os.devnull)
MODULUS = 1_000_003
NAP_SECONDS = 1.0
LINGER_SECONDS = float(os.environ.get("FAULTS_LINGER_SECONDS", "1"))

_descriptor = os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_lease_seen_us = 0


def watch_lease() -> None:
    """Remember when a lease was last found good."""
    is_good = Lease.is_good

    def watched(self: Lease) -> bool:
        global _lease_seen_us
        asked_us = time.time_ns() // 1_000
        good = is_good(self)
        if good:
            _lease_seen_us = asked_us
        return good

    Lease.is_good = watched  # type: ignore[method-assign]  # nothing else tells when this answered yes


if os.devnull != EFFECTS:
    watch_lease()


def note(what: str) -> None:
    """Write a line about the running step to the effect log."""
    info = current_step()
    attempt = 0 if info.context is None else info.context.attempt
    now_us = time.time_ns() // 1_000
    line = f"{what}\t{info.execution_id}\t{info.key}\t{attempt}\t{os.getpid()}\t{now_us}\t{_lease_seen_us}\n"
    os.write(_descriptor, line.encode())


def following(value: int, i: int) -> int:
    """What step `i` makes of a value."""
    return (value * 31 + i * 7 + 1) % MODULUS


def expected(n: int) -> list[int]:
    """What an execution must come to, worked out without Perdure."""
    values = [n]
    for i in range(STEPS):
        values.append(following(values[-1], i))
    return values[1:]


@step
async def advance(value: int, i: int) -> int:
    note("begin")
    await asyncio.sleep(STEP_SECONDS)
    note("end")
    return following(value, i)


@step
async def finish(values: list[int]) -> list[int]:
    """The last of five steps, with the values of all."""
    note("begin")
    await asyncio.sleep(STEP_SECONDS)
    note("end")
    return [*values[1:], following(values[-1], STEPS - 1)]


@workflow
async def five_steps(ctx: Context, n: int) -> list[int]:
    """Five steps, one after the other. The worker reports the last one together with the end."""
    values = [n]
    for i in range(STEPS - 1):
        values.append(await advance(values[-1], i))
    return await finish(values)


@workflow
async def journey(ctx: Context, n: int) -> list[int]:
    """Everything that can be lost: steps, a timer, a child, an event of its own, an answer, steps side by side."""
    first = await advance(n, 0)
    await ctx.sleep(0.1)
    below = await ctx.run_child(five_steps, first)
    await ctx.publish("journeys", {"n": n})
    answer = await ctx.suspend("answer", answer_type=int)
    both = await asyncio.gather(advance(below[-1], 1), advance(below[-1], 2))
    return [first, *below, answer, *both]


def expected_journey(n: int) -> list[int]:
    """The result of a journey, when the answer is `answer_to(n)`."""
    first = following(n, 0)
    below = expected(first)
    return [first, *below, answer_to(n), following(below[-1], 1), following(below[-1], 2)]


@workflow
async def nap(ctx: Context, n: int) -> list[int]:
    """A step, a timer, a step."""
    first = await advance(n, 0)
    await ctx.sleep(NAP_SECONDS)
    return [first, await advance(first, 1)]


def expected_nap(n: int) -> list[int]:
    first = following(n, 0)
    return [first, following(first, 1)]


@step
async def linger(value: int) -> int:
    note("begin")
    await asyncio.sleep(LINGER_SECONDS)
    note("end")
    return following(value, 0)


@workflow
async def lingering(ctx: Context, n: int) -> list[int]:
    """A long step, and a short one."""
    first = await linger(n)
    return [first, await advance(first, 1)]


def expected_lingering(n: int) -> list[int]:
    first = following(n, 0)
    return [first, following(first, 1)]


@step
async def mended(value: int, n: int) -> int:
    """It fails for each fifth input while the folder of the effect log has no file `mended`."""
    note("begin")
    if n % 5 == 0 and not os.path.exists(os.path.join(os.path.dirname(EFFECTS), "mended")):
        raise ValueError(f"{n} is too much")
    note("end")
    return following(value, 1)


@workflow
async def mendable(ctx: Context, n: int) -> list[int]:
    """Two steps, of which the second fails for each fifth input until it is mended."""
    first = await advance(n, 0)
    return [first, await mended(first, n)]


def expected_mendable(n: int) -> list[int]:
    first = following(n, 0)
    return [first, following(first, 1)]


@workflow
async def asks(ctx: Context, n: int) -> int:
    return await ctx.suspend("answer", answer_type=int)


@workflow
async def forkable(ctx: Context, n: int) -> list[int]:
    """A child that waits for its answer while its parent has one and goes on."""
    below = asyncio.create_task(ctx.run_child(asks, n))
    first = await advance(n, 0)
    answer = await ctx.suspend("answer", answer_type=int)
    return [first, answer, await advance(answer, 1), await below]


def expected_forkable(n: int, answer: int, below: int) -> list[int]:
    """The result of `forkable` with these answers."""
    return [following(n, 0), answer, following(answer, 1), below]


def answer_to(n: int) -> int:
    return following(n, 9)


@step
async def abort() -> None:
    note("begin")
    os.abort()


@workflow
async def poison(ctx: Context) -> None:
    """Takes its worker with it, each time."""
    await abort()
