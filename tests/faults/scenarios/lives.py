"""Random programs against the model of what an execution's life should look like (tests/model), each step compared."""

from __future__ import annotations

import asyncio

from tests.faults.run import Run, Size
from tests.model.test_lives import WANTED, live


async def lives(run: Run) -> None:
    # A program on PostgreSQL takes as long as ten on SQLite; there 2,000 would be the whole hour.
    programs = run.pick(20, 200, 2_000) if run.database.servers_max == 1 else run.pick(10, 40, 200)
    enough = (100 if run.database.servers_max == 1 else 10) if run.size is Size.FULL else 1
    done = await asyncio.to_thread(
        live, run.database.name, programs=programs, most=10 * programs, steps=80, enough=enough
    )
    rarest = min(WANTED, key=lambda what: done[what])
    run.figures["rarest"] = f"{rarest}, {done[rarest]} times"
    run.figures["counts"] = {what: done[what] for what in ("programs", *sorted(WANTED))}
