"""What a worker makes of the server's list of what it holds."""

import asyncio
from typing import Any

import pytest
from tests.embedded.house import House, reaches
from tests.kit.polling import until

from perdure.embedded import Embedded
from perdure.engine.base.settings import EngineSettings
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.store.verbs.runs import claims
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import BeatRequest, RegisterRequest


def app_with_a_gate() -> tuple[Registry, asyncio.Event]:
    app, gate = Registry(), asyncio.Event()

    async def wait_at_gate() -> str:
        await gate.wait()
        return "through"

    @app.workflow
    async def gated(ctx: Context) -> str:
        return await ctx.step("gate", wait_at_gate)

    @app.workflow
    async def quick(ctx: Context) -> str:
        return "done"

    return app, gate


async def answer_two_claims(p: Embedded, app: Registry) -> None:
    """Have the open claim answered, and a later claim."""
    for _ in range(2):
        await (await p.start(app["quick"], None)).result(timeout=60)


def taken_at(p: Embedded, handle: Handle[Any]) -> float:
    """When the worker took the execution, on its lease's clock."""
    return p.worker._running[handle.id].taken_at


async def test_what_is_not_held_is_dropped_unless_it_was_taken_after_the_beat_was_sent(house: House) -> None:
    app, gate = app_with_a_gate()
    async with house.open(app) as p:
        handle = await p.start(app["gated"], None)
        await reaches(handle, Phase.RUNNING)
        await until(lambda: _running(p.worker.running))
        held = [(handle.id, (await handle.get()).attempt, 1)]
        taken = taken_at(p, handle)
        p.worker.on_beat([], taken - 1)
        p.worker.on_beat(held, taken + 1)
        assert p.worker.running == 1
        p.worker.on_beat([], taken + 1)
        assert p.worker.running == 0
        # The server still thinks that it runs here. Nothing is on its way any more, and it is handed back.
        p.worker.on_beat(held, taken + 2)
        await answer_two_claims(p, app)
        p.worker.on_beat(held, taken + 3)
        gate.set()
        assert await handle.result(timeout=60) == "through"


async def test_what_a_later_attempt_of_this_worker_holds_is_dropped_at_once(house: House) -> None:
    app, _ = app_with_a_gate()
    async with house.open(app) as p:
        handle = await p.start(app["gated"], None)
        await reaches(handle, Phase.RUNNING)
        await until(lambda: _running(p.worker.running))
        p.worker.on_beat([(handle.id, 2, 3)], taken_at(p, handle) - 1)
        assert p.worker.running == 0


async def _running(amount: int) -> bool:
    return amount == 1


async def test_a_delivery_that_never_arrived_is_handed_back(house: House) -> None:
    app, gate = app_with_a_gate()
    gate.set()
    async with house.open(app) as p:
        take = p.worker._take
        lost = asyncio.Event()
        p.worker._take = lambda claimed, now, ours_until: lost.set()  # type: ignore[method-assign]  # the reply is lost on its way
        handle = await p.start(app["gated"], None)
        await lost.wait()
        p.worker._take = take  # type: ignore[method-assign]
        held = [(handle.id, 1, 1)]
        p.worker.on_beat(held, 1.0)
        p.worker.on_beat(held, 2.0)
        assert (await handle.get()).attempt == 1  # a claim that was sent before may still bring it
        await answer_two_claims(p, app)
        p.worker.on_beat(held, 3.0)
        assert await handle.result(timeout=60) == "through"
        assert (await handle.get()).attempt == 2


class Odd:
    """A transport whose next call of a kind raises an unexpected error: the database refuses a statement."""

    def __init__(self, p: Embedded, monkeypatch: pytest.MonkeyPatch, kind: type[object]) -> None:
        self.calls = 0
        call = p.worker.transport.call

        async def odd(op: Any, key: str | None = None) -> Any:
            if isinstance(op, kind):
                self.calls += 1
                if self.calls == 1:
                    raise LookupError("no such plan")
            return await call(op, key)

        monkeypatch.setattr(p.worker.transport, "call", odd)


async def test_beats_go_on_after_an_odd_error(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house.open(Registry(), settings=EngineSettings(beat_seconds=0.05)) as p:
        if p.worker.lease is None:
            pytest.skip("an embedded worker on a file has no lease")
        odd = Odd(p, monkeypatch, BeatRequest)
        await until(lambda: odd.calls >= 3)
        assert p.worker.lease.is_good()


async def test_a_worker_registers_again_after_an_odd_error(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    app, gate = app_with_a_gate()
    gate.set()
    async with house.open(app) as p:
        odd, lost = Odd(p, monkeypatch, RegisterRequest), p.worker.id
        await p.engine.store.write(claims.drain(project_id=await p.engine.projects.default(), worker_id=lost, now_us=1))
        assert await (await p.start(app["gated"], None)).result(timeout=60) == "through"
        assert odd.calls == 2 and p.worker.id != lost
