"""Webhooks end to end: written with the end, sent at least once under one id, tried again, by whichever server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import msgspec
import pytest
from tests.engine.outside.test_outbound import Receiver, receiving
from tests.kit.polling import until
from tests.store.world import PROJECT, World, failure

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.engine.outside import webhooks as desk
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs.runs import queries
from perdure.wire.base.errors import BadRequest, BadValue, NotFound
from perdure.wire.base.operation import Operation
from perdure.wire.base.records import Problem
from perdure.wire.base.signatures import verify
from perdure.wire.outside.webhooks import (
    CreateWebhook,
    DeleteWebhook,
    Delivery,
    DeliveryState,
    ListDeliveries,
    ListWebhooks,
    Redeliver,
)
from perdure.wire.runs.executions import CancelExecution, DeleteExecution
from perdure.wire.runs.requests import StartItem

SETTINGS = EngineSettings(outbound_hosts=("127.0.0.0/8",))


R = TypeVar("R")


class House:
    """Engines of one store, and executions moved by hand."""

    def __init__(self, engines: list[Engine], world: World) -> None:
        self.engines = engines
        self.engine = engines[0]
        self.world = world
        self.project_id = PROJECT

    @property
    def clock(self) -> ManualClock:
        assert isinstance(self.engine.clock, ManualClock)
        return self.engine.clock

    async def end(self, **fields: Any) -> str:
        """Start, claim and complete an execution; returns its id."""
        item = StartItem("wf", accept_early=True, **fields)
        [started] = await self.engine.executions.start(self.project_id, [item])
        assert not isinstance(started, Problem), started
        [claimed] = await self.world.claim()
        assert claimed.id == started.execution_id
        await self.world.finish(claimed.id)
        return claimed.id

    async def deliveries(self, **filters: Any) -> list[Delivery]:
        return (await self.serve(ListDeliveries(**filters))).items

    def serve(self, op: Operation[R]) -> Awaitable[R]:
        return self.engine.serve(Scope(self.project_id), op)

    async def until_state(self, state: DeliveryState, tries: int = 1) -> Delivery:
        """Wait until the only delivery is in this state after `tries` tries, with nothing under way."""

        async def reached() -> bool:
            [one] = await self.deliveries()
            return (one.state, one.tries) == (state, tries) and one.answer is not None

        await until(reached)
        return (await self.deliveries())[0]

    async def until_delivered(self, execution_id: str) -> None:
        async def reached() -> bool:
            return [one.state for one in await self.deliveries(execution_id=execution_id)] == [DeliveryState.DELIVERED]

        await until(reached)

    async def advance(self, seconds: float) -> None:
        for engine in self.engines:
            assert isinstance(engine.clock, ManualClock)
            engine.clock.advance(seconds)
            engine.webhooks.notify()


@asynccontextmanager
async def houses(address: str, amount: int = 1, *, run: bool = True) -> AsyncIterator[House]:
    """Engines of one store, or a single engine on a file."""
    async with AsyncExitStack() as stack:
        engines: list[Engine] = []
        for _ in range(amount if is_postgres(address) else 1):
            store = await open_store(address)
            engine = Engine(store, clock=ManualClock(), settings=SETTINGS)
            engines.append(engine)
            if run:
                await engine.start()
                stack.push_async_callback(engine.stop)
            else:
                stack.push_async_callback(store.close)
        yield House(engines, await _world(engines[0]))


async def _world(engine: Engine) -> World:
    world = await World.make(engine.store)
    engine.store.listen(engine._receive)  # the world has listened in its place
    await world.register()
    return world


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with houses(database) as house:
        yield house


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as receiver:
        yield receiver


async def test_an_end_is_told_signed_to_the_project_and_to_the_executions_own_url(
    house: House, receiver: Receiver
) -> None:
    made = await house.serve(CreateWebhook(receiver.url))
    async with receiving(Receiver()) as own:
        id = await house.end(webhook_url=own.url)

        async def told() -> bool:
            return all(one.state is DeliveryState.DELIVERED for one in await house.deliveries())

        await until(told)
        secret = (await house.engine.signing.secrets(house.project_id)).secret
        for one, message_id in ((receiver, f"{id}.{made.id}"), (own, id)):
            [body] = one.bodies
            headers = dict(line.split(": ", 1) for line in one.heads[0].lower().strip().split("\r\n")[1:])
            # Base64 tells cases apart.
            signature = [line for line in one.heads[0].split("\r\n") if line.lower().startswith("webhook-signature")]
            headers["webhook-signature"] = signature[0].split(": ", 1)[1]
            verify(secret, headers, body, now_seconds=house.clock.now_us() / 1e6)
            assert headers["webhook-id"] == message_id
            message = msgspec.json.decode(body)
            assert message["type"] == "execution.completed"
            assert (message["data"]["id"], message["data"]["status"]) == (id, "completed")
            assert message["timestamp"] == message["data"]["completed_at"]
    assert {(one.id, one.status, one.answer, one.tries) for one in await house.deliveries()} == {
        (f"{id}.{made.id}", 200, "ok", 1),
        (id, 200, "ok", 1),
    }


async def test_without_webhooks_nothing_is_written(house: House) -> None:
    await house.end()
    assert await house.deliveries() == []


async def test_a_webhook_hears_of_its_workflow_and_of_roots_only(house: House, receiver: Receiver) -> None:
    await house.serve(CreateWebhook(receiver.url, workflow_id="other"))
    await house.end()
    assert await house.deliveries() == []
    mine = await house.serve(CreateWebhook(receiver.url, workflow_id="wf"))
    root = await house.end()
    await house.end(parent_execution_id=root, step_key=None)
    assert [one.id for one in await house.deliveries()] == [f"{root}.{mine.id}"]
    await house.serve(DeleteWebhook(mine.id))
    await house.end()
    assert len(await house.deliveries()) == 1


async def test_the_deliveries_of_one_execution_are_filtered_and_paged_like_all(
    house: House, receiver: Receiver
) -> None:
    made = [await house.serve(CreateWebhook(f"{receiver.url}{number}")) for number in range(3)]
    async with receiving(Receiver(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n")) as own:
        id = await house.end(webhook_url=own.url)

        async def told() -> bool:
            return not await house.deliveries(state=DeliveryState.PENDING)

        await until(told)
    await house.end()
    await until(told)

    async def ids(**filters: Any) -> list[str]:
        return [one.id for one in await house.deliveries(execution_id=id, **filters)]

    made.sort(key=lambda one: one.id, reverse=True)
    newest_first = [f"{id}.{one.id}" for one in made]
    assert await ids() == [*newest_first, id]
    assert await ids(state=DeliveryState.FAILED) == [id]
    assert await ids(state=DeliveryState.DELIVERED) == newest_first
    assert await ids(state=DeliveryState.PENDING) == []
    assert await ids(webhook_id=made[1].id.upper(), state=DeliveryState.DELIVERED) == [newest_first[1]]
    assert await ids(webhook_id=made[1].id, state=DeliveryState.FAILED) == []
    pages, cursor = [], None
    for _ in range(3):
        page = await house.serve(ListDeliveries(id, state=DeliveryState.DELIVERED, cursor=cursor, limit=2))
        pages.append([one.id for one in page.items])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == [newest_first[:2], newest_first[2:]]
    assert await ids(limit=4) == [*newest_first, id] and await ids(limit=1) == newest_first[:1]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_every_kind_of_end_is_told(house: House, receiver: Receiver, how: str) -> None:
    [started] = await house.engine.executions.start(
        house.project_id, [StartItem("wf", accept_early=True, webhook_url=receiver.url)]
    )
    assert not isinstance(started, Problem)
    if how == "cancelled":
        await house.engine.serve(Scope(house.project_id), CancelExecution(started.execution_id))
    else:
        await house.world.claim()
        await house.world.report(started.execution_id, end=failure())
    await house.until_state(DeliveryState.DELIVERED)
    assert msgspec.json.decode(receiver.bodies[0])["type"] == f"execution.{how}"


async def test_what_is_refused_is_tried_again_under_the_same_id_with_longer_pauses(
    house: House, receiver: Receiver
) -> None:
    receiver.answer = b"HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\nsorry"
    id = await house.end(webhook_url=receiver.url)
    for tries, pause in enumerate(desk.PAUSES_SECONDS, 1):
        one = await house.until_state(DeliveryState.PENDING, tries)
        assert (one.status, one.answer, len(receiver.bodies)) == (500, "sorry", tries)
        assert one.next_at_us is not None
        waits = (one.next_at_us - house.clock.now_us()) / 1e6
        assert 0.8 * pause <= waits <= 1.2 * pause
        await house.advance(waits + 0.001)
    one = await house.until_state(DeliveryState.FAILED, len(desk.PAUSES_SECONDS) + 1)
    assert one.next_at_us is None
    await house.advance(1e6)
    assert len(set(receiver.bodies)) == 1, "each says the same"
    ids = {line for head in receiver.heads for line in head.lower().split("\r\n") if line.startswith("webhook-id")}
    assert ids == {f"webhook-id: {id}"}

    receiver.answer = b"HTTP/1.1 204 Fine\r\ncontent-length: 0\r\n\r\n"
    again = await house.serve(Redeliver(one.id))
    assert (again.state, again.tries) == (DeliveryState.PENDING, len(desk.PAUSES_SECONDS) + 1)
    await house.until_state(DeliveryState.DELIVERED, len(desk.PAUSES_SECONDS) + 2)
    with pytest.raises(NotFound):
        await house.engine.serve(Scope("another"), Redeliver(one.id))


async def test_a_webhook_that_was_deleted_is_told_nothing_more(house: House, receiver: Receiver) -> None:
    receiver.answer = b"HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\nsorry"
    made = await house.serve(CreateWebhook(receiver.url))
    await house.end()
    await house.until_state(DeliveryState.PENDING)
    await house.serve(DeleteWebhook(made.id))
    await house.advance(60)
    one = await house.until_state(DeliveryState.FAILED, 2)
    assert (one.answer, len(receiver.bodies)) == ("The webhook was deleted.", 1)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (
            b"HTTP/1.1 302 Elsewhere\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            DeliveryState.PENDING,
        ),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", DeliveryState.FAILED),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 7000\r\ncontent-length: 0\r\n\r\n", DeliveryState.PENDING),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n" + b"x" * 900_000, DeliveryState.DELIVERED),
        (b"nonsense\r\n\r\n", DeliveryState.PENDING),
    ],
    ids=["redirect", "gone", "later", "long", "nonsense"],
)
async def test_what_an_answer_means(house: House, receiver: Receiver, answer: bytes, state: DeliveryState) -> None:
    receiver.answer = answer
    await house.end(webhook_url=receiver.url)
    one = await house.until_state(state)
    assert one.answer is not None and len(one.answer) <= desk.ANSWER_BYTES_MAX
    if b"retry-after" in answer:
        assert one.next_at_us is not None and one.next_at_us >= house.clock.now_us() + 6_999_000_000


async def test_a_slow_receiver_does_not_hold_up_others(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "CALL_SECONDS", 600.0)
    async with receiving(Receiver()) as slow:
        slow.hang.clear()
        for _ in range(30):
            await house.end(webhook_url=slow.url)
        await house.end(webhook_url=receiver.url)

        async def told() -> bool:
            return len(receiver.bodies) == 1

        await until(told)
        assert len(slow.bodies) <= desk.AT_ONCE_PER_HOST
        slow.hang.set()

        async def all_told() -> bool:
            found = await house.deliveries(state=DeliveryState.PENDING)
            return not found

        await until(all_told)
        assert len(slow.bodies) == 30, "each of them once"


async def test_many_receivers_that_hang_leave_room_for_one_that_answers(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "CALL_SECONDS", 600.0)
    async with AsyncExitStack() as stack:
        for _ in range(desk.AT_ONCE // desk.AT_ONCE_PER_HOST + 1):
            slow = await stack.enter_async_context(receiving(Receiver()))
            slow.hang.clear()
            stack.callback(slow.hang.set)
            for _ in range(desk.AT_ONCE_PER_HOST):
                await house.end(webhook_url=slow.url)
        told = await house.end(webhook_url=receiver.url)
        await house.until_delivered(told)
        answered = [one.execution_id for one in await house.deliveries(limit=200) if one.answer is not None]
        assert answered == [told], "none of the others was given up for it"


async def test_three_servers_share_the_work_and_send_each_message_once(database: str, receiver: Receiver) -> None:
    async with houses(database, 3) as house:
        ids = [await house.end(webhook_url=receiver.url) for _ in range(40)]
        for engine in house.engines:
            engine.webhooks.notify()

        async def all_told() -> bool:
            return not await house.deliveries(state=DeliveryState.PENDING)

        await until(all_told)
        told = sorted(msgspec.json.decode(body)["data"]["id"] for body in receiver.bodies)
        assert told == sorted(ids)
        found = await house.engine.store.read(queries.doctor())
        assert not any(found.values()), found


KILLED = """
import asyncio, os, signal, sys
from perdure.engine.outside import webhooks
from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.engine.base.settings import EngineSettings
from perdure.store.open import open_store

address, now_us, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]

async def main():
    engine = Engine(await open_store(address), clock=ManualClock(now_us),
                    settings=EngineSettings(outbound_hosts=("127.0.0.0/8",)))
    if moment == "before":  # it is taken, and not sent
        webhooks.asyncio.create_task = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
    else:  # it is sent, and that is not noted
        engine.webhooks._settle = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
    await engine.webhooks.deliver_due()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_server_that_dies_between_leaves_the_message_to_others(
    database: str, receiver: Receiver, moment: str
) -> None:
    async with houses(database, run=False) as house:
        id = await house.end(webhook_url=receiver.url)
        now_us = house.clock.now_us()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        database,
        str(now_us),
        moment,
        env={**os.environ, "PYTHONWARNINGS": ""},
        stderr=subprocess.DEVNULL,
    )
    assert await process.wait() == -signal.SIGKILL
    assert len(receiver.bodies) == (0 if moment == "before" else 1)
    async with houses(database) as house:
        [one] = await house.deliveries()
        assert (one.state, one.tries) == (DeliveryState.PENDING, 1)
        await house.advance(desk.OURS_US / 1e6 + 1)
        await house.until_state(DeliveryState.DELIVERED, 2)
    ids = [line for head in receiver.heads for line in head.lower().split("\r\n") if line.startswith("webhook-id")]
    assert ids == [f"webhook-id: {id}"] * (1 if moment == "before" else 2)


async def test_private_addresses_are_refused_when_given_and_when_called(database: str) -> None:
    async with houses(database, run=False) as house:
        house.engine.outbound.policy._networks.clear()
        for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://169.254.169.254/", "nonsense"):
            with pytest.raises(BadValue, match="url"):
                await house.serve(CreateWebhook(url))
            [refused] = await house.engine.executions.start(
                house.project_id, [StartItem("wf", accept_early=True, webhook_url=url)]
            )
            assert isinstance(refused, Problem) and refused.error_type == "BAD_VALUE"
            assert refused.details == {"path": "webhook_url"}
    async with houses(database) as house, receiving(Receiver()) as receiver:
        # It was allowed when it was given.
        url = f"https://127.0.0.1:{receiver.port}/"
        await house.serve(CreateWebhook(url))
        house.engine.outbound.policy._networks.clear()
        await house.end()
        one = await house.until_state(DeliveryState.PENDING)
        assert one.status is None and one.answer is not None and "not to be called" in one.answer
        assert receiver.connections == 0


async def test_what_is_long_is_left_out_of_the_message(house: House, receiver: Receiver) -> None:
    payload = msgspec.Raw(b'"' + b"x" * desk.BODY_BYTES_MAX + b'"')
    await house.end(webhook_url=receiver.url, payload=payload)
    await house.until_state(DeliveryState.DELIVERED)
    message = msgspec.json.decode(receiver.bodies[0])
    assert message["left_out"] == ["payload", "result"] and message["data"]["payload"] is None


async def test_a_project_has_so_many_webhooks_and_each_once(house: House, receiver: Receiver) -> None:
    first = await house.serve(CreateWebhook(receiver.url))
    assert await house.serve(CreateWebhook(receiver.url)) == first
    for n in range(19):
        await house.serve(CreateWebhook(f"{receiver.url}&n={n}"))
    with pytest.raises(BadRequest, match="20 webhooks"):
        await house.serve(CreateWebhook(f"{receiver.url}&more"))
    assert len((await house.serve(ListWebhooks())).items) == 20
    with pytest.raises(NotFound):
        await house.engine.serve(Scope("another"), DeleteWebhook(first.id))


async def test_deliveries_go_with_their_execution(house: House, receiver: Receiver) -> None:
    id = await house.end(webhook_url=receiver.url)
    await house.until_state(DeliveryState.DELIVERED)
    await house.engine.serve(Scope(house.project_id), DeleteExecution(id))
    assert await house.deliveries() == []
    found = await house.engine.store.read(queries.doctor())
    assert not any(found.values()), found
