"""Bad lines: requests and replies are lost, cut, delayed, doubled and sent again much later, on the way to the servers;
between servers and PostgreSQL the reply to a COMMIT is held up until the line breaks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from tests.faults.database import Postgres
from tests.faults.proxy import Proxy
from tests.faults.run import Broken, Run

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
    loads = [run.load(open_max=10, client=client), run.journeys(open_max=10, client=client)]
    loading = [asyncio.create_task(load.run(1_000_000)) for load in loads]
    answers: Counter[int] = Counter()
    for _ in range(periods):
        await run.progress(20)
        run.hit("bad lines", cluster.all_in_flight(), time.time_ns() // 1_000)
        for way in ways:
            way.set(**BAD)
        for line in database_lines:
            await asyncio.sleep(run.chance.uniform(0.1, 0.6))
            await break_commits(line)
        await run.progress(60, at_most=2.0)  # all may be waiting for what was lost
        for way in ways:
            way.heal()  # breaks the connections on which somebody waits for what was lost
            answers += await way.replay(30)
    for load in loads:
        load.stopping = True
    await asyncio.gather(*loading)
    verdict = await run.finish()
    made = sum((way.counts for way in ways), Counter[str]())
    run.figures["lines"] = dict(sorted(made.items()))
    run.figures["answers to what was sent again"] = dict(sorted(answers.items()))
    if any(status >= 500 and status != 503 for status in answers):
        raise Broken(f"an old message was answered by a server's error: {answers}")
    for fault in ("request lost", "reply lost", "reply cut", "duplicated", "replayed"):
        if not made[fault]:
            raise Broken(f"the run proves too little: no {fault}")
    run.demand(verdict, faults=periods, completed=10)


async def break_commits(line: Proxy) -> None:
    """What a server sends to its database arrives, what it is answered does not; then the connections break."""
    line.set(replies_down=True)
    await asyncio.sleep(0.05)
    line.cut()
    line.heal()
