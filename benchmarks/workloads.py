"""W1 to W8 as programs over a client; how the engine is reached (in this process, over HTTP) is a `Lab`'s business."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from benchmarks.figures import percentiles
from benchmarks.workflows import PAYLOAD, noop1, parent, sleeper, steps10, steps100, streaming, waits100

from perdure import Client, Handle
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import ListFilters

SLEEP_SECONDS = 2.0


class Lab(Protocol):
    """A running Perdure with a worker for benchmarks.workflows."""

    client: Client
    clients: Sequence[Client]
    """The first is `client`."""

    def worker_rss(self) -> int: ...
    def written(self) -> int | None: ...


async def warm_up(lab: Lab) -> None:
    handles = await asyncio.gather(*[lab.client.start(noop1, PAYLOAD) for _ in range(50)])
    await asyncio.gather(*[handle.result() for handle in handles])


async def throughput(lab: Lab, workload: str, seconds: float, conc: int) -> dict[str, Any]:
    """W1, W2: `conc` callers, each starts one execution after another and waits for its result. Callers take turns
    among the lab's clients, of which several servers have one each."""
    workflow, steps = (noop1, 1) if workload == "W1" else (steps10, 10)
    await warm_up(lab)
    done, written = 0, lab.written()
    begin = time.perf_counter()

    async def caller(client: Client) -> None:
        nonlocal done
        while time.perf_counter() - begin < seconds or not done:
            handle = await client.start(workflow, PAYLOAD)
            await handle.result()
            done += 1

    await asyncio.gather(*[caller(lab.clients[n % len(lab.clients)]) for n in range(conc)])
    took = time.perf_counter() - begin
    after = lab.written()
    per_execution = None if written is None or after is None else round((after - written) / done)
    return {
        "executions_per_s": done / took,
        "steps_per_s": done * steps / took,
        "bytes_written_per_execution": per_execution,
        "conc": conc,
    }


async def one_caller(lab: Lab, seconds: float, calls: int = 1_000) -> dict[str, Any]:
    """W3: start and await the result, one after another."""
    await warm_up(lab)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < calls and (time.perf_counter() - begin < seconds or len(times) < 20):
        start = time.perf_counter()
        await (await lab.client.start(noop1, PAYLOAD)).result()
        times.append((time.perf_counter() - start) * 1e3)
    return percentiles(times)


async def family(lab: Lab, seconds: float, children: int = 100) -> dict[str, Any]:
    """W4: a parent that starts its children and waits for all, one parent after another."""
    await warm_up(lab)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        assert await (await lab.client.start(parent, children)).result() == children
        times.append((time.perf_counter() - start) * 1e3)
    return {"children": children, **percentiles(times)}


async def sleepers(lab: Lab, count: int = 2_000) -> dict[str, Any]:
    """W5: how late the last one wakes after the last one was due, and what one costs in memory while it sleeps."""
    await warm_up(lab)
    before = lab.worker_rss()
    handles = await asyncio.gather(*[lab.client.start(sleeper, SLEEP_SECONDS) for _ in range(count)])
    ends = asyncio.gather(*[handle.result() for handle in handles])
    most, filters = before, ListFilters(workflow_id="sleeper", phases=["waiting"])
    while not ends.done():
        await asyncio.wait({ends}, timeout=0.2)
        if len((await lab.client.list(filters, limit=500)).executions) == min(count, 500):
            most = max(most, lab.worker_rss())
    await ends
    due = finished = 0
    cursor: str | None = None
    while True:
        page = await lab.client.list(ListFilters(workflow_id="sleeper"), cursor=cursor, limit=500)
        for execution in (one.raw for one in page.executions):
            assert execution.started_at_us is not None and execution.completed_at_us is not None
            due = max(due, execution.started_at_us + int(SLEEP_SECONDS * 1e6))
            finished = max(finished, execution.completed_at_us)
        cursor = page.next_cursor
        if cursor is None:
            break
    return {"sleepers": count, "last_ms_late": (finished - due) / 1e3, "bytes_per_sleeper": (most - before) / count}


async def stream(lab: Lab, seconds: float, at_once: int = 1, tokens: int = 50) -> dict[str, Any]:
    """How old tokens are when the client has them: executions that stream, `at_once` of them, one after another."""
    await warm_up(lab)
    first: list[float] = []
    every: list[float] = []
    begin = time.perf_counter()

    async def follow() -> None:
        handle = await lab.client.start(streaming, tokens)
        ages = [(time.monotonic_ns() - item.data) / 1e6 async for item in handle.stream()]
        assert len(ages) == tokens
        first.append(ages[0])
        every.extend(ages)

    while len(first) < 3 or time.perf_counter() - begin < seconds:
        await asyncio.gather(*[follow() for _ in range(at_once)])
    firsts = {f"first_{name}": value for name, value in percentiles(first).items()}
    return {"at_once": at_once, "tokens": len(every), **firsts, **percentiles(every)}


async def ends_of_children(handle: Handle[Any]) -> list[int]:
    """When the journal of a parent heard of each."""
    ends: list[int] = []
    seen = 0
    while rows := await handle._client.journal(handle.id, after=seen):
        ends += [row.at_us for row in rows if row.kind is Kind.CHILD]
        seen = rows[-1].seq
    return ends


async def parking(lab: Lab, seconds: float) -> dict[str, Any]:
    """A parent that waits for a child a hundred times in a row, beside one of a hundred steps; and whether the waits
    grow longer with the journal."""
    await warm_up(lab)
    steps: list[float] = []
    waits: list[float] = []
    tenth: list[float] = []
    hundredth: list[float] = []
    begin = time.perf_counter()
    while len(waits) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        assert await (await lab.client.start(steps100, PAYLOAD)).result() == 100
        steps.append((time.perf_counter() - start) * 1e3)
        start = time.perf_counter()
        handle = await lab.client.start(waits100, PAYLOAD)
        assert await handle.result() == sum(range(100))
        waits.append((time.perf_counter() - start) * 1e3)
        ends = await ends_of_children(handle)
        each = [(b - a) / 1e3 for a, b in itertools.pairwise(ends)]  # the first lasts from the first end to the second
        tenth += each[3:14]
        hundredth += each[-11:]
    medians = [statistics.median(times) for times in (steps, waits, tenth, hundredth)]
    return {
        "steps100_ms": medians[0],
        "waits100_ms": medians[1],
        "waits_to_steps": medians[1] / medians[0],
        "tenth_wait_ms": medians[2],
        "hundredth_wait_ms": medians[3],
        "hundredth_to_tenth": medians[3] / medians[2],
    }


async def submits(lab: Lab, seconds: float, callers: int = 64) -> dict[str, Any]:
    """W7, first part: starts from many callers of our client while no worker runs."""
    done, begin = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - begin < seconds or not done:
            await lab.client.start(noop1, PAYLOAD)
            done += 1

    await asyncio.gather(*[caller() for _ in range(callers)])
    return {"submits_per_s": done / (time.perf_counter() - begin), "callers": callers}


async def idle(seconds: float, cpu: Callable[[], float], memory: Callable[[], int]) -> dict[str, Any]:
    """What it costs to have nothing to do."""
    before = cpu()
    await asyncio.sleep(seconds)
    return {"idle_cpu_percent": (cpu() - before) / seconds * 100, "idle_rss_mb": memory() / 1e6}


Measure = Callable[[], Awaitable[dict[str, Any]]]
