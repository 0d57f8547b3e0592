"""The SDK's own worker in the simulation: the code that users run, in processes that freeze and die.

A process is a loop on top of the simulation's. A frozen process stops, and a killed process never goes on. Only the
lease's thread is another: a task. One workflow function over the public API runs scripts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context as Variables
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, Unpack, cast

from msgspec import structs
from tests.sim import scripts
from tests.sim.audit import Violation
from tests.sim.loop import SimLoop

import perdure.sdk.workers.lease
import perdure.sdk.workers.reporter
import perdure.sdk.workers.run_ends
import perdure.sdk.workers.step_runner
import perdure.sdk.workers.worker
from perdure.sdk.base.errors import ChildCancelled, ChildFailed, Fatal, StepFailed
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.transports.transport import Transport
from perdure.sdk.workers.lease import Lease
from perdure.sdk.workers.reporter import ReportingRun
from perdure.sdk.workers.runner import Runner
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import current_step
from perdure.sdk.workflows.workflow import Queue, Registry
from perdure.wire.base.errors import Conflict, NotFound, PerdureError
from perdure.wire.base.operation import Operation
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.runs.requests import (
    BeatRequest,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Fail,
    ItemReply,
    RegisterRequest,
    ReportItem,
    Suspend,
    WorkflowSpec,
)

if TYPE_CHECKING:
    from tests.sim.world import World

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

POISON_BODIES_MAX = 6
"""Five crashes, and the first delivery, which starts before it is acknowledged."""


class ProcessLoop(SimLoop):
    """The callbacks of one process on the simulation's loop. A frozen process delays, a dead one drops callbacks."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._base = world.loop
        self.frozen = False
        self.dead = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._backlog: list[asyncio.Handle] = []

    def time(self) -> float:
        return self._base.time()

    def create_task(  # type: ignore[override]  # the signature differs by Python version
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: Variables | None = None
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a killed process leaves tasks behind
        if len(self._tasks) > 200:
            self._tasks = [one for one in self._tasks if not one.done()]
        self._tasks.append(task)
        return task

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Variables | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._base.call_soon(self._run_in_process, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Variables | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + max(0.0, delay), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Variables | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        us = max(0, math.ceil((when - self.time()) * 1_000_000))
        self._base.call_at_us(self._base.us + us, self._run_in_process, handle)
        return handle

    def _run_in_process(self, handle: asyncio.Handle) -> None:
        if self.dead or handle._cancelled:
            return
        if self.frozen:
            self._backlog.append(handle)
            return
        with self._running():
            handle._run()

    def thaw(self) -> None:
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for handle in backlog:
            self._base.call_soon(self._run_in_process, handle)

    def close_all(self) -> None:
        """A dead process lets go of whatever its tasks hold."""
        with self._running():
            for task in self._tasks:
                coroutine = task.get_coro()
                if not task.done() and coroutine is not None:
                    coroutine.close()
        self._tasks.clear()
        self._backlog.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self._base.call_exception_handler(context)


class _Reporter(perdure.sdk.workers.reporter.Reporter):
    """See `_Worker`."""

    count: Callable[[str], None]

    def _take_reply(self, runner: ReportingRun, item: ReportItem, answer: ItemReply) -> None:
        match item.end:
            case Suspend(timer=(None, _)):
                self.count("suspended between tries")
            case Fail(take_back=[_, _, *_]):
                self.count("failures taken back together")
        if isinstance(item.end, Suspend) and not (answer.ended or answer.lost):
            self.count("suspends refused")
        super()._take_reply(runner, item, answer)


class _Worker(perdure.sdk.workers.worker.Worker):
    """The SDK's worker, which counts what must happen now and then."""

    count: Callable[[str], None]

    def _take(self, claimed: Claimed, now: float, ours_until: float) -> Runner | None:
        if claimed.ack_first:
            self.count("acknowledged first")
        if claimed.id in self._parked:
            self.count("parked and continued")
        return super()._take(claimed, now, ours_until)

    def hold_back(self, runner: Runner, call: DurableCall) -> None:
        self.count("steps held back")
        super().hold_back(runner, call)

    async def _start_over(self) -> None:
        self.count("registrations lost")
        await super()._start_over()

    async def _hand_back(self, execution_id: str, attempt: int) -> None:
        self.count("strangers handed back")
        await super()._hand_back(execution_id, attempt)


class Process:
    """A process with the SDK's worker. A `newer` process has extra code; an `old` process's release lacks forks."""

    def __init__(
        self, world: World, name: str, *, capacity: int, parks: bool, newer: bool = True, old: bool = False
    ) -> None:
        self.world = world
        self.name = name
        self.old = old
        self.draining = False
        self.loop = ProcessLoop(world)  # type: ignore[abstract]  # what nobody asks for is not there
        self.worker = _Worker(
            cast(Transport, SimTransport(self)),
            registry(world, self, newer=newer),
            deployment="sim",
            capacity=capacity,
            lease=SimLease(self),
            parks=parks,
        )
        self.worker.count = world.count
        self.worker.reporter = reporter = _Reporter(self.worker)
        reporter.count = world.count

    @property
    def id(self) -> str:
        return self.worker.id

    @property
    def dead(self) -> bool:
        return self.loop.dead

    @dead.setter
    def dead(self, dead: bool) -> None:
        if dead and not self.loop.dead:
            self.loop.dead = True
            self.world.loop.call_soon(self._forget)  # not now: its own code may be the one that runs

    @property
    def frozen(self) -> bool:
        return self.loop.frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self.loop.frozen = frozen

    @property
    def running(self) -> dict[str, Runner]:
        return self.worker._running

    def _forget(self) -> None:
        """The process is gone: let go of what it had in memory."""
        for runner in [*self.worker._running.values(), *self.worker._parked.values()]:
            runner.gone = True
            if runner.machine is not None:
                runner.machine.close()
        self.loop.close_all()
        self.worker.threads.shutdown()

    def thaw(self) -> None:
        self.loop.thaw()

    def later(self, us: int, action: Callable[[], None]) -> None:
        self.loop.call_at(self.loop.time() + us / 1e6, action)

    def start(self) -> None:
        self.loop.call_soon(lambda: self.loop.create_task(self.worker.start(wait=True)))

    def drain(self, grace_us: int) -> None:
        if self.draining:
            return
        self.draining = True
        self.world.log(f"{self.name} drains")
        self.worker.grace_seconds = grace_us / 1e6
        self.loop.call_soon(lambda: self.loop.create_task(self._drain()))

    async def _drain(self) -> None:
        await self.worker.drain()
        self.world.log(f"{self.name} left")
        self.dead = True


class SimTransport:
    """The worker's half of `Transport` over the simulated network."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def call(self, op: Operation[R]) -> R:
        process, future = self.process, self.process.loop.create_future()
        request: Any = op
        patience_us = 2_500_000 if isinstance(op, RegisterRequest | BeatRequest) else 2_000_000
        if isinstance(op, RegisterRequest):
            process.world.log(f"{process.name} registers", op.worker_id)
            # It says so without the code, too: what it is handed of that it blocks.
            others = [one for one in op.workflows if one.id != scripts.NEWER]
            workflows = [*others, WorkflowSpec(scripts.NEWER)]
            request = structs.replace(
                op, workflows=workflows, protocol=1 if process.old else op.protocol, host="sim", pid=1
            )
        elif isinstance(op, ClaimRequest):
            patience_us += int(op.wait_seconds * 1e6)

        def respond(outcome: object) -> None:
            if not future.done():
                future.set_result(outcome)

        process.world.network.call(process, op.endpoint.name, request, respond, timeout_us=patience_us)
        reply: Any = await future
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, ClaimReply):
            reply.news.sort()  # it comes out of a set
            if process.old:
                reply = structs.replace(reply, items=list(map(_as_old, reply.items)))
        told: R = reply
        return told


def _as_old(claimed: Claimed) -> Claimed:
    """The claim as seen by a worker that does not know forks."""
    return structs.replace(claimed, keys_id=None, seed_id=None)


class SimLease(Lease):
    """The product's lease, with a task in the place of the thread."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._beating: asyncio.Task[None] | None = None

    def _keep(self) -> None:
        if self._beating is None:
            self._beating = self._process.loop.create_task(self._beat_on())

    async def end(self) -> None:
        if self._beating is not None:
            self._beating.cancel()

    async def _beat_on(self) -> None:
        pause = 0.05
        while True:
            assert self._reply is not None
            sent = self.now()
            try:
                if not await self._beat(self._worker_id, self._reply.epoch, sent):
                    continue
                pause = 0.05
                await asyncio.sleep(self._reply.beat_us / 1e6)
            except PerdureError:
                if self._unreachable_since is None:
                    self._unreachable_since = self.now()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _beat(self, worker_id: str, epoch: str, sent: float) -> bool:
        worker = self._process.worker
        beat = await worker.transport.call(BeatRequest(worker_id, epoch))
        if beat.lost:
            if worker_id == self._worker_id:
                self._deadline = 0.0
                await worker.start_over()
            return False
        self._renewed(worker_id, beat.holding, sent)
        return True

    def _renewed(self, worker_id: str, holding: Sequence[tuple[str, int, int]], sent: float) -> None:
        assert self._reply is not None
        self._unreachable_since = None
        self._deadline = max(self._deadline, sent + self._reply.lease_us / 1e6)
        self._accepted(worker_id, list(holding), sent)


class Boom(Exception):
    """A step of a script fails."""


def registry(world: World, process: Process, *, newer: bool) -> Registry:
    """The workflows that run scripts, in a user's style."""
    app = Registry(Queue(scripts.NARROW, concurrency_limit=scripts.NARROW_PER_KEY, total_limit=scripts.NARROW_TOTAL))
    retry = RetryPolicy(max_attempts=3, initial_seconds=0.7, jitter=False)

    async def body(ctx: Context, op: scripts.Step, name: str) -> str:
        try:
            idempotency_key = current_step().idempotency_key
            bodies = world.audit.body(ctx.execution_id, ctx.attempt, op.key, process.id, idempotency_key)
            if op.poison and bodies > POISON_BODIES_MAX:
                raise Violation("I9 poison is contained", f"{ctx.execution_id} takes {bodies} workers with it")
        except Violation as violation:  # not for the worker to take for the step's failure
            world.loop.failure = violation
            raise
        world.log(f"{process.name} runs", ctx.execution_id, ctx.attempt, op.key, current_step().tries)
        if op.poison or bodies <= op.kills:
            world.kill(process, "poison")
        await asyncio.sleep(op.takes)
        if op.cancels:
            world.cancel(ctx.execution_id)
        if current_step().tries <= op.fails or ctx.retry_count < op.fragile:
            raise Boom("failed")
        return f"{name}:{op.key}"

    def draw(ctx: Context, key: str) -> None:
        try:
            world.audit.drew(ctx.execution_id, key, ctx.uuid())
        except Violation as violation:
            world.loop.failure = violation
            raise

    async def one(ctx: Context, op: scripts.Op, name: str) -> object:
        if isinstance(op, scripts.Step):
            policy = RetryPolicy(max_attempts=op.tries, initial_seconds=op.pause, factor=1.0, jitter=False)
            draw(ctx, op.key)
            try:
                on_failure: Literal["fail", "hold"] = "hold" if op.holds else "fail"
                return await ctx.step(op.key, body, ctx, op, name, retry=policy, key=op.key, on_failure=on_failure)
            except StepFailed:
                if op.caught:
                    return f"failed:{op.key}"
                raise
        if isinstance(op, scripts.Sleep):
            await ctx.sleep(op.seconds)
            return "slept"
        if isinstance(op, scripts.Event):
            match = None if op.number is None else {"number": op.number}
            try:
                event = await ctx.wait_for_event(op.topic, match=match, timeout=op.timeout, key=op.key)
            except TimeoutError:
                return "timeout"
            return event.sequence_id
        if isinstance(op, scripts.Suspended):
            try:
                return await ctx.suspend(op.key, timeout=op.timeout)
            except TimeoutError:
                return "timeout"
        if isinstance(op, scripts.Publish):
            for number in op.numbers:
                data = {"number": number, "by": f"{ctx.execution_id}/{op.key}"}
                await ctx.publish(op.topic, data, key=f"{op.key}/{number}")
            return "published"
        if isinstance(op, scripts.AnswerParent):
            assert ctx.parent_execution_id is not None
            try:
                await ctx.resume(ctx.parent_execution_id, op.step_key, "from the child", key=op.key)
            except (Conflict, NotFound):
                return "refused"
            return "answered"
        assert isinstance(op, scripts.Child)
        child = op.script
        try:
            handle = await ctx.start_child(
                child.workflow,
                child.name,
                queue=child.queue,
                concurrency_key=child.concurrency_key,
                run_timeout_seconds=child.timeout,
                key=op.key,
            )
        except ChildFailed:
            return "not started"
        try:
            return ["completed", await handle.result()]
        except ChildCancelled:
            return ["cancelled", None]
        except ChildFailed:
            return ["failed", None]

    async def run(ctx: Context, ops: tuple[scripts.Op, ...], name: str) -> list[object]:
        results: list[object] = []
        for op in ops:
            if isinstance(op, scripts.Together):
                results.append(await asyncio.gather(*[run(ctx, branch, name) for branch in op.branches]))
            else:
                results.append(await one(ctx, op, name))
        return results

    async def live(ctx: Context, name: str) -> object:
        script = world.script_named(name)
        try:
            if script.returns:
                await run(ctx, script.ops[:-1], name)
                return await one(ctx, script.ops[-1], name)
            return await run(ctx, script.ops, name)
        except StepFailed as error:
            if ctx.retry_count >= script.retries:
                raise Fatal("enough") from error
            raise
        except asyncio.CancelledError:
            if script.cleanup:
                await ctx.step("cleanup", body, ctx, scripts.Step("cleanup"), name, key="cleanup")
            raise

    @app.workflow(retry=retry)
    async def plain(ctx: Context, name: str) -> object:
        return await live(ctx, name)

    @app.workflow(retry=retry, on_cancel="wake")
    async def wakes(ctx: Context, name: str) -> object:
        return await live(ctx, name)

    if newer:

        @app.workflow(name=scripts.NEWER, retry=retry)
        async def newest(ctx: Context, name: str) -> object:
            return await live(ctx, name)

    return app


def patches(world: World) -> list[tuple[ModuleType, str, object]]:
    """The SDK's sources of chance, and its lasting changes to a process."""
    return [
        (perdure.sdk.workers.lease, "boottime", world.loop.time),
        (perdure.sdk.workers.worker, "uuid4", world.new_id),
        (perdure.sdk.workers.worker, "_collect_less", lambda: None),
        (perdure.sdk.workers.worker, "keep_logs", lambda: None),
        (perdure.sdk.workers.run_ends, "random", world.random),
        (perdure.sdk.workers.reporter, "random", world.random),
        (perdure.sdk.workers.step_runner, "random", world.random),
    ]
