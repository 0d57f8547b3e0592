"""Workflows made by hypothesis: trees of nested operations over everything that asyncio (and anyio) has for waiting.

Each operation writes into a trace, so two runs that interleave differently look different, and branches on the trace,
so they also go different ways.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import anyio
from hypothesis import strategies as st

from perdure.sdk.base.errors import StepFailed
from perdure.sdk.replay.machine import Machine
from perdure.wire.base.records import Kind

NAMES = ("a", "b", "c")
PAUSES = (0.0, 0.5, 2.0, 2.0, 60.0)


class Op(NamedTuple):
    kind: str
    parts: tuple[Op, ...] = ()
    number: int = 0

    def __repr__(self) -> str:
        inner = ", ".join(map(repr, self.parts))
        return f"Op({self.kind!r}, ({inner}{',' if len(self.parts) == 1 else ''}), {self.number})"


class Boom(StepFailed):
    """A step failed."""

    def __init__(self, key: str) -> None:
        super().__init__(key, key=key)


LEAVES = ("step", "step", "caught", "flaky", "fails", "sleep", "event", "child", "handle", "publish", "time", "nap")
PAIRS = (
    "seq",
    "gather",
    "gather_all",
    "group",
    "tasks",
    "as_completed",
    "first",
    "first_leave",
    "first_exception",
    "wait_timeout",
    "queue",
    "semaphore",
    "lock",
    "condition",
    "generator",
    "dropped_generator",
    "anyio_group",
    "branch",
    "cleanup",
    "rollback",
    "retry_loop",
    "two_futures",
)
SINGLES = ("timeout", "wait_for", "shield", "move_on", "cancelled", "anyio_shield", "swallow")


RISKY_LEAVES = ("step", "flaky", "flaky", "flaky", "caught", "sleep", "event", "child", "publish")
RISKY_PAIRS = ("rollback", "rollback", "cleanup", "seq", "gather", "group", "branch", "first", "queue", "anyio_group")


def programs(max_leaves: int = 16, *, risky: bool = False) -> st.SearchStrategy[Op]:
    """Trees of operations. Operations of `risky` trees often fail, and handle the failure before giving up."""
    numbers = st.integers(0, 4)
    leaf_kinds, pair_kinds = (RISKY_LEAVES, RISKY_PAIRS) if risky else (LEAVES, PAIRS)
    leaves = st.builds(lambda kind, number: Op(kind, (), number), st.sampled_from(leaf_kinds), numbers)

    def extend(inner: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
        many = st.lists(inner, min_size=2, max_size=4).map(tuple)
        return st.one_of(
            st.builds(Op, st.sampled_from(pair_kinds), many, numbers),
            st.builds(Op, st.sampled_from(pair_kinds), many, numbers),
            st.builds(lambda kind, part, number: Op(kind, (part,), number), st.sampled_from(SINGLES), inner, numbers),
        )

    body = extend(st.recursive(leaves, extend, max_leaves=max_leaves))
    return st.lists(body, min_size=1, max_size=3).map(lambda ops: Op("seq", tuple(ops)))


def program_of(op: Op) -> Callable[[Machine, list[Any]], Coroutine[Any, Any, Any]]:
    async def program(machine: Machine, trace: list[Any]) -> Any:
        return await _Run(machine, trace).run(op)

    return program


class _Run:
    def __init__(self, machine: Machine, trace: list[Any]) -> None:
        self.machine = machine
        self.trace = trace

    async def run(self, op: Op) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self.trace.append((op.kind, task.get_name()))
        try:
            result = await getattr(self, f"_{op.kind}")(op)
        except BaseException as error:
            self.trace.append((op.kind, type(error).__name__))
            raise
        self.trace.append((op.kind, result))
        return result

    async def _call(self, op: Op, how: str) -> Any:
        name = NAMES[op.number % 3]
        asked = self.machine.seen
        row = await self.machine.call(Kind.STEP, name, None, how)
        if not row.ok:
            assert row.key is not None
            self.machine.raised(row, asked)
            raise Boom(row.key)
        return int(bytes(row.value))

    # --- leaves ----------------------------------------------------------------------------------------------------

    async def _step(self, op: Op) -> Any:
        return await self._call(op, "works")

    async def _fails(self, op: Op) -> Any:
        return await self._call(op, "fails" if op.number == 0 else "works")

    async def _flaky(self, op: Op) -> Any:
        return await self._call(op, "flaky")

    async def _caught(self, op: Op) -> Any:
        try:
            return await self._call(op, "fails")
        except Boom:
            return "caught"

    async def _sleep(self, op: Op) -> Any:
        await asyncio.sleep(PAUSES[op.number])
        return self.machine.now_us

    async def _event(self, op: Op) -> Any:
        row = await self.machine.call(Kind.EVENT, f"topic{op.number % 2}", "all", "wait")
        return int(bytes(row.value))

    async def _child(self, op: Op) -> Any:
        call = self.machine.new_call(Kind.CHILD_STARTED, "child", None, "start")
        await self.machine.wait(call)
        return (await self.machine.child_end(call.key)).ok

    async def _handle(self, op: Op) -> Any:
        """Start a child, do something else, then await the child's end twice."""
        call = self.machine.new_call(Kind.CHILD_STARTED, "child", None, "start")
        await self.machine.wait(call)
        await self._call(op, "works")
        both = await asyncio.gather(self._end(call.key), self._end(call.key))
        return both[0]

    async def _end(self, key: str) -> bool:
        return (await self.machine.child_end(key)).ok

    async def _publish(self, op: Op) -> Any:
        return int(bytes((await self.machine.call(Kind.PUBLISHED, "topic", None, "publish")).value))

    async def _time(self, op: Op) -> Any:
        return (asyncio.get_running_loop().time(), self.machine.random().random(), str(self.machine.uuid()))

    async def _nap(self, op: Op) -> Any:
        for _ in range(op.number):
            await asyncio.sleep(0)

    # --- several ---------------------------------------------------------------------------------------------------

    async def _seq(self, op: Op) -> Any:
        return [await self.run(part) for part in op.parts]

    async def _gather(self, op: Op) -> Any:
        return await asyncio.gather(*map(self.run, op.parts))

    async def _gather_all(self, op: Op) -> Any:
        return [str(one) for one in await asyncio.gather(*map(self.run, op.parts), return_exceptions=True)]

    async def _group(self, op: Op) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.run(part)) for part in op.parts]
        return [task.result() for task in tasks]

    async def _anyio_group(self, op: Op) -> Any:
        results: list[Any] = []

        async def one(part: Op) -> None:
            with anyio.move_on_after(PAUSES[op.number] + 1):
                results.append(await self.run(part))

        async with anyio.create_task_group() as group:
            for part in op.parts:
                group.start_soon(one, part)
        return results

    async def _tasks(self, op: Op) -> Any:
        """A set of tasks, cancelled in the order in which the set iterates, awaited in the same."""
        tasks = {asyncio.ensure_future(self.run(part)) for part in op.parts}
        await asyncio.sleep(PAUSES[op.number])
        for task in tasks:
            task.cancel()
        return [str(one) for one in await asyncio.gather(*tasks, return_exceptions=True)]

    async def _as_completed(self, op: Op) -> Any:
        results = []
        for one in asyncio.as_completed([self.run(part) for part in op.parts]):
            try:
                results.append(await one)
            except Exception as error:
                results.append(type(error).__name__)
        return results

    async def _first(self, op: Op) -> Any:
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(self.run(part)) for part in op.parts], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return [str(task.exception() or task.result()) for task in done]

    async def _first_leave(self, op: Op) -> Any:
        """The losers go on by themselves."""
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(self.run(part)) for part in op.parts], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return [str(task.exception() or task.result()) for task in done]

    async def _first_exception(self, op: Op) -> Any:
        done, pending = await asyncio.wait(
            {asyncio.ensure_future(self.run(part)) for part in op.parts}, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in pending:
            task.cancel()
        results = [str(task.exception() or task.result()) for task in done]
        return results + [str(one) for one in await asyncio.gather(*pending, return_exceptions=True)]

    async def _wait_timeout(self, op: Op) -> Any:
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(self.run(part)) for part in op.parts], timeout=PAUSES[op.number]
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return [str(task.exception() or task.result()) for task in done]

    async def _two_futures(self, op: Op) -> Any:
        """Bare futures and gather's, in sets."""
        loop = asyncio.get_running_loop()
        bare = loop.create_future()
        both = {asyncio.gather(*map(self.run, op.parts), return_exceptions=True), bare, loop.create_future()}
        loop.call_later(PAUSES[op.number], bare.cancel)
        done, pending = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for future in pending:
            future.cancel()
        await asyncio.wait(both)
        for future in both:
            future.cancelled() or future.exception()  # retrieved
        return [future.cancelled() or str(future.result()) for future in done]

    async def _queue(self, op: Op) -> Any:
        queue: asyncio.Queue[Op] = asyncio.Queue(2)
        results: list[Any] = []

        async def worker() -> None:
            while True:
                part = await queue.get()
                try:
                    results.append(await self.run(part))
                except Exception as error:
                    results.append(type(error).__name__)
                finally:
                    queue.task_done()

        workers = [asyncio.create_task(worker()) for _ in range(1 + op.number % 2)]
        try:
            for part in op.parts:
                await queue.put(part)
            await queue.join()
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return results

    async def _semaphore(self, op: Op) -> Any:
        semaphore = asyncio.Semaphore(1 + op.number % 2)

        async def one(part: Op) -> Any:
            async with semaphore:
                return await self.run(part)

        return [str(one) for one in await asyncio.gather(*map(one, op.parts), return_exceptions=True)]

    async def _lock(self, op: Op) -> Any:
        lock = asyncio.Lock()

        async def one(part: Op) -> Any:
            async with asyncio.timeout(PAUSES[op.number] + 1), lock:
                return await self.run(part)

        return [str(one) for one in await asyncio.gather(*map(one, op.parts), return_exceptions=True)]

    async def _condition(self, op: Op) -> Any:
        condition = asyncio.Condition()
        ready: list[int] = []

        async def one(number: int, part: Op) -> Any:
            result = await self.run(part)
            async with condition:
                ready.append(number)
                condition.notify_all()
            return result

        async def last() -> int:
            async with condition:
                await condition.wait_for(lambda: ready)
                return ready[-1]

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(last())
            for number, part in enumerate(op.parts):
                group.create_task(one(number, part))
        return watching.result()

    async def _generator(self, op: Op) -> Any:
        return [value async for value in self._values(op)]

    async def _dropped_generator(self, op: Op) -> Any:
        async for value in self._values(op):
            return value

    async def _values(self, op: Op) -> AsyncIterator[Any]:
        try:
            for part in op.parts:
                yield await self.run(part)
        finally:
            if op.number == 1:
                self.trace.append("closed")
                await self._call(op, "works")

    async def _branch(self, op: Op) -> Any:
        """The way depends on everything that was seen so far."""
        return await self.run(op.parts[zlib.crc32(repr(self.trace).encode()) % len(op.parts)])

    async def _cleanup(self, op: Op) -> Any:
        try:
            return await self.run(op.parts[0])
        finally:
            for part in op.parts[1:]:
                await self.run(part)

    async def _rollback(self, op: Op) -> Any:
        try:
            return await self.run(op.parts[0])
        except Exception:
            for part in op.parts[1:]:
                await self.run(part)
            raise

    async def _retry_loop(self, op: Op) -> Any:
        for part in op.parts:
            try:
                return await self.run(part)
            except (Boom, TimeoutError, ExceptionGroup):
                await asyncio.sleep(PAUSES[op.number])
        return "none"

    # --- one -------------------------------------------------------------------------------------------------------

    async def _timeout(self, op: Op) -> Any:
        try:
            async with asyncio.timeout(PAUSES[op.number]):
                return await self.run(op.parts[0])
        except TimeoutError:
            return "late"

    async def _wait_for(self, op: Op) -> Any:
        try:
            return await asyncio.wait_for(self.run(op.parts[0]), PAUSES[op.number])
        except TimeoutError:
            return "late"

    async def _shield(self, op: Op) -> Any:
        task = asyncio.ensure_future(self.run(op.parts[0]))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(PAUSES[op.number]):
                return await asyncio.shield(task)
        except TimeoutError:
            return "left behind" if op.number % 2 else await task

    async def _move_on(self, op: Op) -> Any:
        with anyio.move_on_after(PAUSES[op.number]) as scope:
            return await self.run(op.parts[0])
        return scope.cancelled_caught

    async def _anyio_shield(self, op: Op) -> Any:
        with anyio.move_on_after(PAUSES[op.number]):
            try:
                return await anyio.sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.run(op.parts[0])

    async def _cancelled(self, op: Op) -> Any:
        task = asyncio.create_task(self.run(op.parts[0]))
        await asyncio.sleep(PAUSES[op.number])
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            assert current is not None
            if current.cancelling():
                raise
            return "cancelled"

    async def _swallow(self, op: Op) -> Any:
        try:
            return await self.run(op.parts[0])
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError | Exception):
                raise
            self.trace.append("swallowed")
            return await self._call(op, "works")
