"""A run of a scenario: the cluster, the seed, the timeline, and the files kept when something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from tests.faults import app
from tests.faults import database as databases
from tests.faults.checker import Verdict, check
from tests.faults.cluster import Cluster, Worker
from tests.faults.effects import Effect
from tests.faults.ledger import Ledger
from tests.faults.load import Extra, Load
from tests.faults.proxy import Proxy
from tests.kit.polling import until

from perdure import Client, ExecutionFailed
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.workflow import Workflow
from perdure.store.verbs.runs.transitions import LOSSES_MAX
from perdure.wire.base.records import OUTCOMES
from perdure.wire.runs.executions import Execution

TURN_SECONDS = 120.0
"""Longest time to wait for anything before the run is given up."""

QUIET_SECONDS = 1.0
"""How long nobody asks for anything after the last fault: what would happen late happens before the checks."""

SOON_SECONDS = 2.0
"""Time after a fault in which an event may still come from the fault."""

FOR_EVER = 1_000_000
TAIL_FIRST = 10_000_000
"""Inputs of the executions that prove, at the end, that each server works again."""


class Size(StrEnum):
    """How much a scenario does."""

    SMALL = "small"
    MEDIUM = "medium"
    FULL = "full"


class Broken(AssertionError):
    """A promise was not kept."""


class ProvesTooLittle(Broken):
    """The run kept every promise, but met too few of the moments that the scenario is for."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the run proves too little: {why}")


class NotHere(Exception):
    """The machine does not offer what the scenario needs."""


class Run:
    """Everything a scenario needs. Use the run as a block: at the end of the block all processes have ended, and the
    run's files are removed unless something was wrong."""

    def __init__(self, name: str, database: str, size: Size, seed: int, *, keep: bool = False) -> None:
        self.name = name
        self.size = size
        self.seed = seed
        self.keep = keep
        self.chance = Random(f"{name} {database} {seed}")
        self.figures: dict[str, Any] = {}
        """Figures of the run to report besides the verdict."""
        self.timeline: list[str] = []
        self.faults: list[tuple[str, int, list[Effect]]] = []
        """Faults: the kind, the time (microseconds of the wall clock), and the caught bodies."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"perdure-faults-{name}-"))
        self.ledger = Ledger(self.folder / "ledger.jsonl")
        self.cluster: Cluster
        self.database: databases.Database
        self._database = database
        self._keys: dict[str, str] = {}
        self._loads: list[Load] = []
        self._loading: list[tuple[Load, asyncio.Task[None]]] = []
        self._clients: list[Client] = []
        self._began = time.monotonic()
        self._open = AsyncExitStack()
        self._dead: list[str] = []

    async def __aenter__(self) -> Run:
        self.database = await databases.make(self._database, self.folder)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if hasattr(self, "cluster"):
            self._dead = [node.name for node in (*self.cluster.workers, *self.cluster.servers) if not node.alive]
            self.cluster.kill()
        await self._open.aclose()
        for client in self._clients:
            await client.close()
        await self.database.close()
        if error is None and not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif error is not None:
            error.add_note(self.story())

    def story(self) -> str:
        """The command that repeats the run, and the timeline."""
        again = f"python -m tests.faults {self.name} --size {self.size} --database {self._database} --seed {self.seed}"
        kept = f"logs, ledger, effect log: {self.folder}"
        return "\n".join([again, kept, f"dead at the end: {self._dead or 'nobody'}", "timeline:", *self.timeline[-60:]])

    def pick(self, small: int, medium: int, full: int) -> int:
        """The amount for the run's size."""
        return {Size.SMALL: small, Size.MEDIUM: medium, Size.FULL: full}[self.size]

    def make_cluster(self, **options: Any) -> Cluster:
        """The run's cluster, not started yet."""
        self.cluster = Cluster(self.folder, self.database, **options)
        return self.cluster

    async def start_cluster(self, **options: Any) -> Cluster:
        cluster = self.make_cluster(**options)
        await cluster.start()
        return cluster

    async def proxy(self, port: int = 0, *, socket: str | None = None) -> Proxy:
        """A proxy to a server's port, or to the database's socket."""
        return await self._open.enter_async_context(Proxy(port, socket=socket, seed=self.chance.randrange(1 << 30)))

    async def proxies(self) -> list[Proxy]:
        """A line to each server (`prepare` has made the servers). Clients with a line's address go through the line."""
        return [await self.proxy(server.port) for server in self.cluster.servers]

    async def database_lines(self) -> list[Proxy]:
        """Put a proxy between each server and PostgreSQL, before the servers are made."""
        assert isinstance(self.database, databases.Postgres)
        lines = [await self.proxy(socket=self.database.socket) for _ in self.cluster.server_stores]
        self.cluster.server_stores = [self.database.through(line.port) for line in lines]
        return lines

    def note(self, what: str) -> None:
        """A line in the timeline."""
        line = f"{time.monotonic() - self._began:8.3f}  {what}"
        self.timeline.append(line)
        with (self.folder / "timeline.txt").open("a") as file:
            file.write(f"{line}\n")

    # --- load --------------------------------------------------------------------------------------------------------

    def client(self, *, patience_seconds: float = 0.0, urls: list[str] | None = None) -> Client:
        """A client of all servers (or of `urls`), closed with the run. The client has no patience: callers repeat their
        requests, so that the ledger counts missing answers."""
        client = self.cluster.client(urls, patience_seconds=patience_seconds)
        self._clients.append(client)
        return client

    def load(
        self,
        workflow: Workflow[int, Any] = app.five_steps,
        expected: Callable[[int], Any] = app.expected,
        *,
        client: Client | None = None,
        open_max: int = 300,
        also: Extra | None = None,
        first: int = 0,
        may_be_poisoned: bool = False,
    ) -> Load:
        """Callers of a workflow, whose results and ledger are held to account at the end."""
        load = Load(
            client or self.client(),
            self.ledger,
            workflow,
            expected,
            open_max=open_max,
            also=also,
            first=first,
            may_be_poisoned=may_be_poisoned,
        )
        self._keys[f"start {workflow.name}"] = workflow.name
        self._loads.append(load)
        return load

    def begin(self, *loads: Load) -> None:
        """Callers start executions, one after the other, until `stop_loads`."""
        self._loading += [(load, asyncio.create_task(load.run(FOR_EVER))) for load in loads]

    async def stop_loads(self) -> None:
        """Callers start no more executions. Returns when all callers have their results."""
        loading, self._loading = self._loading, []
        for load, _ in loading:
            load.stopping = True
        await asyncio.gather(*[task for _, task in loading])

    def journeys(self, *, open_max: int = 50, client: Client | None = None) -> Load:
        """Callers of the workflow that does everything. The callers answer the workflow's question at some time."""

        async def answer(handle: Handle[Any], n: int) -> None:
            await asyncio.sleep(self.chance.random())
            await handle.resume("answer", app.answer_to(n))

        return self.load(app.journey, app.expected_journey, client=client, open_max=open_max, also=answer)

    async def ended(self, handle: Handle[Any]) -> Execution:
        """A final execution, even if the execution failed."""
        with contextlib.suppress(ExecutionFailed):
            await handle.result()
        return (await handle.get()).raw

    # --- faults ------------------------------------------------------------------------------------------------------

    async def progress(self, steps: int, *, at_most: float | None = None) -> None:
        """Wait until that many more step bodies have ended, or nobody is left who would start any, or `at_most`
        seconds have passed."""
        target = self.cluster.effects.read().ended + steps
        until_seconds = None if at_most is None else time.monotonic() + at_most

        def made() -> bool:
            late = until_seconds is not None and time.monotonic() > until_seconds
            return late or self.cluster.effects.read().ended >= target or self.idle()

        await until(made, TURN_SECONDS, f"{steps} more steps ran")

    def idle(self) -> bool:
        """Whether all callers have their results."""
        return all(load.done == load.started for load in self._loads) and any(load.done for load in self._loads)

    async def victim(self, workers: list[Worker] | None = None) -> Worker:
        """A worker that runs a step at the moment, or any worker once all callers have their results."""
        among = workers or self.cluster.workers
        busy: list[Worker] = []

        def found() -> bool:
            busy[:] = [worker for worker in among if worker.alive and self.cluster.in_flight([worker])]
            return bool(busy) or self.idle()

        await until(found, TURN_SECONDS, "a worker runs a step")
        return self.chance.choice(busy or among)

    def hit(self, what: str, caught: list[Effect] | None = None, at_us: int | None = None) -> None:
        """Write down a fault that has happened, and the bodies caught by the fault: by default all running bodies."""
        caught = self.cluster.all_in_flight() if caught is None else caught
        at_us = time.time_ns() // 1_000 if at_us is None else at_us
        self.faults.append((what, at_us, caught))
        self.note(f"{what}, {len(caught)} bodies in flight")

    async def kill_worker(self) -> None:
        """SIGKILL a worker that runs a step, and start another in its place."""
        worker = await self.victim()
        at_us = time.time_ns() // 1_000
        worker.kill()
        self.hit("worker killed", self.cluster.effects.in_flight([worker.pid]), at_us)
        worker.start()

    async def freeze_workers(self, workers: list[Worker], seconds: float) -> None:
        """SIGSTOP `workers` for a time. A worker that held a lease wakes up to find the lease expired."""
        at_us = time.time_ns() // 1_000
        for worker in workers:
            worker.freeze()
        for worker in workers:
            self.hit("worker frozen", self.cluster.effects.in_flight([worker.pid]), at_us)
        await asyncio.sleep(seconds)
        for worker in workers:
            worker.thaw()
        self.note(f"{len(workers)} workers wake up after {seconds:.1f} s")

    async def kill_server(self, n: int | None = None, *, amid_a_step: bool = True) -> None:
        """SIGKILL a server while some step runs, and start the server again."""
        server = self.cluster.servers[self.chance.randrange(len(self.cluster.servers)) if n is None else n]
        if amid_a_step:
            await self.victim()
        at_us = time.time_ns() // 1_000
        server.kill()
        self.hit(f"{server.name} killed", self.cluster.effects.in_flight(w.pid for w in self.cluster.workers), at_us)
        server.start()

    # --- the end -----------------------------------------------------------------------------------------------------

    async def finish(self, *, one_clock: bool = True) -> Verdict:
        """Once all faults are healed and all callers have their results: a quiet period, another execution through each
        server, an orderly end, and the checks. Raises `Broken` with all findings."""
        await asyncio.sleep(QUIET_SECONDS)
        self.note("all is healed")
        for n, server in enumerate(self.cluster.servers):
            client = self.client(patience_seconds=TURN_SECONDS, urls=[server.url])
            async with asyncio.timeout(TURN_SECONDS):
                await self.load(client=client, first=TAIL_FIRST + n).run(1)
        stale = 0
        for server in self.cluster.servers:
            stale += (await server.counted(self.cluster.key)).get("perdure_stale_rejections_total", 0)
        self.note("the end")
        await self.cluster.stop()
        verdict = await check(self.cluster, self.ledger, keys=self._keys, one_clock=one_clock)
        verdict.counts["stale messages refused"] = stale
        for load in self._loads:
            verdict.add("wrong results", load.wrong)
            if load.workflow is app.journey:
                rows = await self.database.rows("SELECT data FROM events WHERE topic = 'journeys'")
                told = Counter(json.loads(data)["n"] for (data,) in rows)
                verdict.add("journeys told of more than once", [n for n, times in told.items() if times > 1])
                verdict.add("journeys never told of", set(range(load.started)) - told.keys())
        verdict.counts["faults"] = len(self.faults)
        verdict.counts["faults that caught a step in flight"] = sum(bool(caught) for _, _, caught in self.faults)
        self.figures["counts"] = {name: count for name, count in sorted(verdict.counts.items()) if count}
        if verdict.wrong:
            raise Broken("\n".join(verdict.wrong))
        return verdict

    async def check_given_up(self, load: Load) -> None:
        """Count a load's executions that were given up as POISONED. Raises `Broken` if an execution had not lost five
        workers since the execution's last outcome."""
        outcomes = ", ".join(f"'{kind}'" for kind in OUTCOMES)
        lost = dict(
            await self.database.rows(
                "SELECT execution_id, COUNT(*) FROM journal j WHERE kind = 'lost' AND seq > COALESCE((SELECT MAX(seq) "
                f"FROM journal o WHERE o.execution_id = j.execution_id AND o.kind IN ({outcomes})), 0) "
                "GROUP BY execution_id"
            )
        )
        # The last loss is told by the failure's row.
        if early := [id for id in load.poisoned if lost.get(id, 0) + 1 < LOSSES_MAX]:
            raise Broken(f"given up after less than {LOSSES_MAX} losses in a row: {early}")
        self.figures[f"given up after {LOSSES_MAX} losses in a row"] = len(load.poisoned)

    def demand(self, verdict: Verdict, **least: int) -> None:
        """The run was not in vain: these counts (with `_` for spaces) reached at least so much. Raises
        `ProvesTooLittle`."""
        short = [
            f"{name}: {verdict.counts[name.replace('_', ' ')]} of {wanted}"
            for name, wanted in least.items()
            if verdict.counts[name.replace("_", " ")] < wanted
        ]
        if short:
            raise ProvesTooLittle(", ".join(short))

    def recoveries(self, kind: str, *, alone: bool = False) -> list[float]:
        """How long each execution that was caught by a fault of this kind took until another process went on with
        it; those that had nothing left to do are left out. `alone`: leave out what another one of this kind had caught
        before it went on (each loss more makes it wait longer), and what waited while a fault of another kind happened,
        or soon after one."""
        found: list[float] = []
        others = [(what, at_us, {effect.execution_id for effect in caught}) for what, at_us, caught in self.faults]
        for n, (what, at_us, caught) in enumerate(self.faults):
            if what != kind:
                continue
            for id, seconds in self.cluster.effects.gone_on(caught, at_us).items():
                if seconds is None:
                    continue
                until_us = at_us + seconds * 1e6
                if not alone or not any(
                    other_us < until_us and (id in ids if other == kind else other_us > at_us - SOON_SECONDS * 1e6)
                    for m, (other, other_us, ids) in enumerate(others)
                    if m != n
                ):
                    found.append(seconds)
        return sorted(found)


def spread(values: list[float]) -> str:
    """Median, 99th percentile and maximum, in seconds."""
    if not values:
        return "none"
    values = sorted(values)
    at = [values[min(len(values) - 1, int(len(values) * part))] for part in (0.5, 0.99)]
    return f"p50 {at[0]:.2f} s, p99 {at[1]:.2f} s, max {values[-1]:.2f} s"
