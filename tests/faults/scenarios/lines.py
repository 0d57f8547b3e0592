"""Bad lines: requests and replies are lost, cut, delayed, doubled and sent again much later, on the way to the servers;
between servers and PostgreSQL the reply to a COMMIT is held up until the line breaks. What comes twice is answered as
the first time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter

from tests.faults import app
from tests.faults.database import Postgres
from tests.faults.duplicates import REPORT, Twice, judge, stale
from tests.faults.proxy import Proxy
from tests.faults.run import TURN_SECONDS, Broken, ProvesTooLittle, Run

from perdure import Client
from perdure.wire.base.errors import NotCancellable
from perdure.wire.base.status import LEASED

BAD = {
    "delay_seconds": 0.05,
    "requests_lost": 0.03,
    "replies_lost": 0.03,
    "replies_cut": 0.03,
    "duplicated": 0.1,
}


async def lines(run: Run) -> None:
    periods = run.pick(3, 8, 40)
    cluster = run.make_cluster(servers=2, workers=3, capacity=6, settings={"lease_seconds": 2.0, "poll_seconds_max": 2})
    database_lines = await run.database_lines() if isinstance(run.database, Postgres) else []
    await cluster.prepare()
    ways = await run.proxies()
    urls = [way.url for way in ways]
    cluster.worker_urls = lambda n: [urls[(n + i) % len(urls)] for i in range(len(urls))]
    await cluster.start()
    client = run.client(urls=urls)
    run.begin(run.load(open_max=10, client=client), run.journeys(open_max=10, client=client))
    callers = Callers(run.client(patience_seconds=TURN_SECONDS, urls=urls))
    calling = asyncio.create_task(callers.run())
    answers: Counter[int] = Counter()
    compared: Counter[str] = Counter()
    straight = run.client(patience_seconds=TURN_SECONDS)
    for _ in range(periods):
        await run.progress(20)
        run.hit("bad lines")
        for way in ways:
            way.set(**BAD)
        for line in database_lines:
            await asyncio.sleep(run.chance.uniform(0.1, 0.6))
            await break_commits(line)
        await run.progress(60, at_most=2.0)  # all may be waiting for what was lost
        for way in ways:
            way.heal()  # breaks the connections on which somebody waits for what was lost
            answers += await way.replay(40, ports=[other.upstream_port for other in ways])
            await compare(way.twice(), compared, straight)
    callers.stopping = True
    await run.stop_loads()
    await calling
    await callers.check()
    verdict = await run.finish()
    made = sum((way.counts for way in ways), Counter[str]())
    run.figures["lines"] = dict(sorted(made.items()))
    run.figures["answers to what was sent again"] = dict(sorted(answers.items()))
    run.figures["compared with the first answer"] = dict(sorted(compared.items()))
    if any(status >= 500 and status != 503 for status in answers):
        raise Broken(f"an old message was answered by a server's error: {answers}")
    for fault in ("request lost", "reply lost", "reply cut", "duplicated", "replayed"):
        if not made[fault]:
            raise ProvesTooLittle(f"no {fault}")
    for name in ("start", "publish", "resume", "cancel", REPORT, "claim"):
        if compared[name] < periods:
            raise ProvesTooLittle(f"{compared[name]} answers to copies of a {name} were compared")
    run.demand(verdict, faults=periods, completed=10)


class Callers:
    """Callers publish, and start executions to cancel, in turn. Each caller repeats a request until an answer comes."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stopping = False
        self.made = 0

    async def run(self) -> None:
        while not self.stopping:
            n, self.made = self.made, self.made + 1
            handle = await self.client.start(app.nap, n)
            await self.client.publish("lines", n)
            with contextlib.suppress(NotCancellable):  # it may be through
                await handle.cancel()

    async def check(self) -> None:
        """Nothing was published twice, or not at all. Raises `Broken`."""
        told: list[object] = []
        while page := await self.client.events("lines", after=len(told)):
            told += [json.loads(bytes(event.data)) for event in page]
        if told != list(range(self.made)):
            raise Broken(f"{self.made} events were published, these are there: {told}")


async def compare(twice: list[Twice], compared: Counter[str], straight: Client) -> None:
    """Compare the answers to copies with the first answers, and count the comparisons. Raises `Broken`."""
    for one in twice:
        name, wrong = judge(one)
        if wrong is not None:
            raise Broken(f"a copy of a {name} was answered otherwise: {wrong}")
        if name is None:
            continue
        compared[name] += 1
        if name != REPORT:
            continue
        for id, attempt, worker_id in stale(one):
            compared["reports that came too late"] += 1
            now = await straight.get(id)
            if now.phase in LEASED and (now.attempt, now.assigned_to_worker) == (attempt, worker_id):
                raise Broken(f"a copy of a report was told that {id} is lost, which {worker_id} holds: {one}")


async def break_commits(line: Proxy) -> None:
    """A server's statements reach the database, the replies do not. Then the connections break."""
    line.set(replies_down=True)
    await asyncio.sleep(0.05)
    line.cut()
    line.heal()
