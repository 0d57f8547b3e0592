"""Everything at once, in an order that comes from the seed: kills, freezes, bad and dead lines, restarts, outages."""

from __future__ import annotations

import asyncio

from tests.faults.database import Postgres
from tests.faults.proxy import Proxy
from tests.faults.run import Run
from tests.faults.scenarios.lines import BAD, break_commits
from tests.faults.scenarios.outages import interrupt

LEASE_SECONDS = 1.5


async def chaos(run: Run) -> None:
    cluster = run.make_cluster(
        servers=2, workers=3, capacity=6, settings={"lease_seconds": LEASE_SECONDS, "poll_seconds_max": 2}
    )
    database_lines = await run.database_lines() if isinstance(run.database, Postgres) else []
    await cluster.prepare()
    ways = await run.proxies()
    urls = [way.url for way in ways]
    cluster.worker_urls = lambda n: [urls[(n + i) % len(urls)] for i in range(len(urls))]
    await cluster.start()
    client = run.client(urls=urls)
    run.begin(run.load(open_max=10, client=client), run.journeys(open_max=10, client=client))
    monkey = Monkey(run, ways, database_lines)
    names = monkey.names()
    times = run.pick(len(names), 2 * len(names), 10 * len(names))
    order = [names[n % len(names)] for n in range(times)]
    run.chance.shuffle(order)
    for name in order:
        await run.progress(run.chance.randint(2, 15))
        await getattr(monkey, name)()
    for way in ways:
        way.heal()
    await run.stop_loads()
    verdict = await run.finish()
    run.figures["faults"] = dict(sorted(monkey.made.items()))
    run.demand(verdict, completed=10, faults=times // 2, rows_lost=1)


class Monkey:
    """Each method is a fault, from beginning to end."""

    def __init__(self, run: Run, ways: list[Proxy], database_lines: list[Proxy]) -> None:
        self.run = run
        self.ways = ways
        self.database_lines = database_lines
        self.made: dict[str, int] = {}

    def names(self) -> list[str]:
        """What can be done on this database."""
        names = ["kill_worker", "kill_server", "freeze_worker", "freeze_server", "restart_server", "bad_lines"]
        names += ["dead_line", "restart_worker"]
        return names + (["commits", "outage", "sessions"] if self.database_lines else [])

    def _note(self, name: str) -> None:
        self.made[name] = self.made.get(name, 0) + 1

    async def kill_worker(self) -> None:
        self._note("worker killed")
        await self.run.kill_worker()

    async def kill_server(self) -> None:
        self._note("server killed")
        await self.run.kill_server()

    async def freeze_worker(self) -> None:
        self._note("worker frozen")
        await self.run.freeze_workers([await self.run.victim()], LEASE_SECONDS * self.run.chance.uniform(0.3, 2.0))

    async def freeze_server(self) -> None:
        self._note("server frozen")
        server = self.run.chance.choice(self.run.cluster.servers)
        self._hit(f"{server.name} frozen")
        server.freeze()
        await asyncio.sleep(self.run.chance.uniform(0.5, 4.0))
        server.thaw()

    async def restart_server(self) -> None:
        self._note("server restarted")
        server = self.run.chance.choice(self.run.cluster.servers)
        self._hit(f"{server.name} restarts")
        server.terminate()
        await server.ended()
        server.start()

    async def restart_worker(self) -> None:
        self._note("worker restarted")
        worker = await self.run.victim()
        self._hit(f"{worker.name} restarts")
        worker.terminate()
        await worker.ended()
        worker.start()

    async def bad_lines(self) -> None:
        self._note("bad lines")
        self._hit("bad lines")
        for way in self.ways:
            way.set(**BAD)
        await asyncio.sleep(self.run.chance.uniform(0.5, 2.0))
        for way in self.ways:
            way.heal()
            await way.replay(10)

    async def dead_line(self) -> None:
        self._note("dead line")
        way = self.run.chance.choice(self.ways)
        self._hit("dead line")
        way.set(**{self.run.chance.choice(["down", "replies_down"]): True})
        await asyncio.sleep(self.run.chance.uniform(0.5, 2 * LEASE_SECONDS))
        way.heal()

    async def commits(self) -> None:
        self._note("commits unanswered")
        self._hit("commits unanswered")
        await break_commits(self.run.chance.choice(self.database_lines))

    async def outage(self) -> None:
        self._note("database stopped")
        await interrupt(self.run, self.run.chance.choice(["stop", "crash"]))

    async def sessions(self) -> None:
        self._note("sessions terminated")
        await interrupt(self.run, "sessions")

    def _hit(self, what: str) -> None:
        self.run.hit(what)
