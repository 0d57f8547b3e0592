"""Callers tell of what never ends, and do not wait for it for ever."""

from pathlib import Path

import pytest
from tests.faults import load
from tests.faults.ledger import Ledger
from tests.faults.load import Load

from perdure import Context
from perdure.embedded import embedded
from perdure.sdk.workflows.workflow import Registry


async def test_an_execution_that_is_stuck_is_named_and_holds_nobody_up(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()

    @registry.workflow
    async def odd_ones_wait(ctx: Context, n: int) -> int:
        if n % 2:
            await ctx.suspend("for ever")
        return n

    async with embedded(database, registry) as client:
        for seconds in (0.5, 10.0, 60.0):  # on a slow machine the others may need more than the first
            monkeypatch.setattr(load, "STUCK_SECONDS", seconds)
            callers = Load(client, Ledger(tmp_path / f"{seconds}"), odd_ones_wait, lambda n: n, open_max=2)
            await callers.run(4)
            if len(callers.wrong) == 2:
                break
    assert sorted(callers.wrong) == [f"odd_ones_wait-{n} has not ended after {seconds:g} s" for n in (1, 3)]
    assert (callers.started, callers.done) == (4, 4)
