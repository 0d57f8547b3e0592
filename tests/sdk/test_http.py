"""The transport over HTTP, the clients on it, and a worker at the other end: against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec import Raw, structs
from tests.kit.polling import until
from tests.server.serving import Served, serving

from perdure.cli.base.connect import ask
from perdure.engine.base.service import Scope
from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed
from perdure.sdk.clients import credentials
from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.clients.sync import SyncClient
from perdure.sdk.transports.connection import Response, _keep_alive
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.transports.results import POLL_SECONDS
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import step
from perdure.sdk.workflows.workflow import Registry
from perdure.store.base.executions import State
from perdure.store.base.interface import records, verb
from perdure.store.verbs.runs import claims
from perdure.wire.agents.budgets import RaiseBudget
from perdure.wire.base.errors import (
    BadRequest,
    BadValue,
    Conflict,
    NotCancellable,
    NotFound,
    PerdureError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownOutcome,
    WorkflowNotFound,
)
from perdure.wire.base.operation import Operation
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListExecutions, ListFilters
from perdure.wire.runs.requests import (
    ClaimReply,
    ClaimRequest,
    EventItem,
    Publish,
    ReportItem,
    ReportRequest,
    StartItem,
)

app = Registry()
logger = logging.getLogger("tests.http")


@step
async def double(number: int) -> int:
    return number * 2


@app.workflow
async def doubled(ctx: Context, number: int) -> int:
    ctx.log("doubling %d", number)
    ctx.progress(1, 2, "half")
    return await double(number)


@app.workflow
async def nothing(ctx: Context) -> None:
    return None


@app.workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no such luck")


@app.workflow
async def asks(ctx: Context) -> object:
    return await ctx.suspend("approve", {"amount": 120})


@app.workflow
async def waits_for_a_word(ctx: Context) -> object:
    return await ctx.suspend("word")


@app.workflow
async def listens(ctx: Context) -> object:
    return (await ctx.wait_for_event("orders/new", match={"id": 7})).data


@asynccontextmanager
async def working(served: Served, kind: type[HttpTransport] = HttpTransport) -> AsyncIterator[Worker]:
    """A worker over HTTP for the length of the block."""
    url, transport = served.server.url, kind(served.server.url, served.key)
    worker = Worker(transport, app, lease=HttpLease([url], served.key), grace_seconds=5)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.drain()
        await transport.close()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        yield client


class Relay:
    """Stands between a client and a server; `spoil` may answer for the server, or drop an answer."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.requests: list[bytes] = []
        self.spoil: Callable[[int, bytes], bytes | None] = lambda number, answer: answer
        """(number of the request, the server's answer) → what the client gets; None closes the connection."""
        self.port = 0
        self.lines: dict[asyncio.Task[None] | None, tuple[asyncio.StreamWriter, ...]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self.target)
        self.lines[asyncio.current_task()] = back, writer
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self.requests.append(request := await _message(reader))
                    number = len(self.requests)
                    back.write(request)
                    answer = self.spoil(number, await _message(there))
                    if answer is None:
                        return
                    writer.write(answer)
        finally:
            for one in (back, writer):
                one.close()
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()

    def key_of(self, request: bytes) -> bytes:
        """The Idempotency-Key of a request."""
        return next((line for line in request.split(b"\r\n") if line.lower().startswith(b"idempotency-key:")), b"")


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


@pytest.fixture
async def relay(served: Served) -> AsyncIterator[Relay]:
    relay = Relay(served.address)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    yield relay
    server.close()
    for writer in itertools.chain(*relay.lines.values()):
        writer.close()
    await asyncio.gather(*filter(None, relay.lines))


async def polling(client: Client) -> None:
    """Wait until a result is asked for."""

    async def asked() -> bool:
        return bool(client._transport._results._polls)  # type: ignore[attr-defined]  # an HttpTransport

    await until(asked)


# --- what a client can do ------------------------------------------------------------------------------------------


async def test_a_workflow_runs_on_a_worker_elsewhere(served: Served, client: Client) -> None:
    async with working(served):
        handle = await client.start(doubled, 21, key="answer", tags={"team": "blue"})
        assert await handle.result() == 42
        again = await client.start(doubled, 21, key="answer")
        assert (again.id, again.existing) == (handle.id, True)
        with pytest.raises(Conflict, match=handle.id):
            await client.start(doubled, 5, key="answer")
        assert (await client.find(doubled, "answer")).id == handle.id
        execution = await handle.get()
        assert (execution.phase, execution.result, execution.input) == (Phase.COMPLETED, 42, 21)
        assert execution.tags == {"team": "blue"}
        assert execution.progress is not None and execution.progress["text"] == "half"
        assert execution.started_at is not None and execution.completed_at is not None
        assert datetime.now(UTC) > execution.completed_at >= execution.started_at >= execution.created_at
        rows = await client.journal(handle.id)
        assert [row.kind for row in rows if row.kind is Kind.STEP] == [Kind.STEP]
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        assert (rows, False) == await served.engine.executions.journal(served.project_id, handle.id)
        assert [line.text for _, line in await client.logs(handle.id)] == ["doubling 21"]
        page = await client.list(ListFilters(workflow_id="doubled", tag="team=blue", phases=["completed"]))
        assert [one.id for one in page.executions] == [handle.id]
        assert (await client.list(ListFilters(phases=["failed"]))).executions == []
        await client.delete(handle.id)
        with pytest.raises(NotFound):
            await handle.get()


async def test_a_result_of_none_is_a_result(served: Served, client: Client) -> None:
    async with working(served):
        handle = await client.start(nothing)
        await handle.result()
        assert (await handle.get()).raw.result == Raw(b"null")


async def test_failures_and_cancellations_are_told(served: Served, client: Client) -> None:
    async with working(served):
        with pytest.raises(ExecutionFailed, match="no such luck") as failed:
            await (await client.start(fails)).result()
        assert failed.value.type == "ValueError"
        handle = await client.start(asks)
        await until(lambda: _is(handle.get, Phase.WAITING))
        assert (await handle.cancel()).phase is Phase.CANCELLED
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        with pytest.raises(NotCancellable):
            await handle.cancel()


async def _is(get: Callable[[], Awaitable[Any]], phase: Phase) -> bool:
    return (await get()).phase is phase


async def test_answers_and_events_reach_who_waits(served: Served, client: Client) -> None:
    async with working(served):
        asking, listening = await client.start(asks), await client.start(listens)
        await until(lambda: _is(asking.get, Phase.WAITING))
        assert await asking.resume("approve", {"ok": True}) == "answered"
        with pytest.raises(Conflict, match="was answered by"):
            await asking.resume("approve", {"ok": False})
        assert await asking.result() == {"ok": True}
        numbers = [await client.publish("orders/new", {"id": id}) for id in (6, 7)]
        assert numbers == [1, 2]
        assert await listening.result() == {"id": 7}
        events = await client.events("orders/new", after=1)
        assert [(event.sequence_id, event.data) for event in events] == [(2, Raw(b'{"id":7}'))]


async def test_a_step_that_shows_nothing_can_be_answered_before_it_asks(served: Served, client: Client) -> None:
    handle = await client.start(waits_for_a_word)
    assert await handle.resume("word", "go") == "early"
    async with working(served):
        assert await handle.result() == "go"


async def test_an_answer_that_names_its_question_is_for_no_other(served: Served, client: Client) -> None:
    handle = await client.start(asks)
    assert await handle.resume("approve", "unseen") == "early"
    async with working(served):
        await until(lambda: _is(handle.get, Phase.WAITING))
        with pytest.raises(Conflict, match="was answered before it asked"):
            await handle.resume("approve", "unseen")
        [shown] = msgspec.json.decode(await ask(client, "GET", "/api/v1/approvals"))["approvals"]
        with pytest.raises(Conflict, match="asks something else by now"):
            await handle.resume("approve", "seen", question=f"{handle.id}.1")
        assert await handle.resume("approve", "seen", question=shown["question"]) == "answered"
        assert await handle.result() == "seen"


async def test_a_journal_is_watched_to_its_end(served: Served, client: Client) -> None:
    handle = await client.start(doubled, 1)

    async def watch() -> list[Kind]:
        return [row.kind async for row in client.watch(handle.id)]

    task = asyncio.create_task(watch())
    async with working(served):
        kinds = await asyncio.wait_for(task, 60)
    assert kinds[-1] is Kind.COMPLETED
    assert Kind.STEP in kinds


async def test_what_belongs_to_a_user_can_be_erased(served: Served, client: Client) -> None:
    async with working(served):
        mine = await client.start(doubled, 1, user_id="ada")
        await mine.result()
        waiting = await client.start(asks, user_id="ada")
        assert await client.erase(user_id="ada") == (1, 1)
        await waiting.cancel()


async def test_ids_in_upper_case_name_the_same(served: Served, client: Client) -> None:
    async with working(served):
        handle = await client.start(doubled, 21)
        loud: Handle[object] = client.handle(handle.id.upper())
        assert await loud.result() == 42
        assert (await loud.get()).id == handle.id
        assert await client.journal(loud.id) == await client.journal(handle.id)


async def test_refusals_arrive_as_the_errors_they_are(served: Served, client: Client) -> None:
    async with working(served):
        with pytest.raises(WorkflowNotFound, match="unheard_of"):
            await client.start("unheard_of")
        with pytest.raises(NotFound):
            await client.get("0190a5f2-7c1e-7b3a-9d55-0242ac120002")
        with pytest.raises(NotFound):
            await client.handle("0190a5f2-7c1e-7b3a-9d55-0242ac120002").result()
        with pytest.raises(BadRequest, match="not an execution id"):
            await client.get("../../secrets")
        with pytest.raises(BadRequest, match="limit"):
            await client.list(limit=0)
    async with Client(HttpTransport(served.server.url, "sk_aaaaaaaa_" + "b" * 32)) as stranger:
        with pytest.raises(Unauthorized):
            await stranger.list()
    async with Client(HttpTransport(served.server.url)) as nobody:
        with pytest.raises(Unauthorized, match="PERDURE_API_KEY"):
            await nobody.list()


# --- how it travels ------------------------------------------------------------------------------------------------


class Counting(HttpTransport):
    """Counts requests by path, and the most that were under way at once."""

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self.paths: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def request(self, method: str, path: str, *args: Any, **values: Any) -> Response:
        self.paths[path] += 1
        self.under_way[path] += 1
        self.most[path] = max(self.most[path], self.under_way[path])
        try:
            return await super().request(method, path, *args, **values)
        finally:
            self.under_way[path] -= 1


async def test_many_starts_and_results_share_requests(served: Served) -> None:
    transport = Counting(served.server.url, served.key)
    async with working(served), Client(transport) as client:

        async def one(number: int) -> int:
            return await (await client.start(doubled, number)).result()

        assert await asyncio.gather(*map(one, range(300))) == [2 * number for number in range(300)]
    assert transport.paths["/api/v1/executions"] < 30
    assert transport.paths["/api/v1/executions/wait"] < 100
    assert transport.most["/api/v1/executions/wait"] <= 3


async def test_a_worker_that_was_given_up_says_that_it_is_alive(served: Served, client: Client) -> None:
    """A loss of such a worker is not a crash: on a starved machine five would poison a healthy execution."""
    engine = served.engine
    begun, gate = asyncio.Semaphore(0), asyncio.Event()

    @step
    async def waits() -> None:
        begun.release()
        await gate.wait()

    @app.workflow
    async def healthy(ctx: Context) -> str:
        await double(1)
        await waits()
        return "done"

    @verb(reads=True)
    async def counts(id: str) -> tuple[int, int]:
        [state] = await records(State, "read_state", project_id=served.project_id, id=id)
        return state.losses, state.undelivered

    try:
        async with working(served) as worker:
            handle = await client.start(healthy)
            await begun.acquire()
            first = worker.id
            late_us = engine.clock.now_us() + 10 * engine.lease_us

            async def reaped() -> bool:  # once no beat has its row locked
                return await engine.store.write(claims.reap(now_us=late_us, limit=10)) == 1

            await until(reaped)
            await begun.acquire()

            async def forgiven() -> bool:
                return await engine.store.read(counts(id=handle.id)) == (0, 1)

            await until(forgiven)
            assert worker.id != first
            gate.set()
            assert await handle.result() == "done"
    finally:
        app.workflows.pop("healthy")


R = TypeVar("R")


class Watching(HttpTransport):
    """Notes how much each claim asks for, and delays the answers by `late_us`."""

    late_us = 0

    def __init__(self, url: str, key: str | None) -> None:
        super().__init__(url, key)
        self.asked: list[int] = []

    async def call(self, op: Operation[R], key: str | None = None, *, patience: float | None = None) -> R:
        if isinstance(op, ClaimRequest):
            self.asked.append(op.capacity)
        reply = await super().call(op, key, patience=patience)
        if isinstance(reply, ClaimReply):
            reply = structs.replace(reply, held_us=(reply.held_us or 0) - self.late_us)
        return reply


@pytest.mark.parametrize("late_us", [-3_600_000_000, 1_000_000], ids=["in time", "late"])
async def test_work_that_came_late_is_acknowledged_before_it_begins(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch, late_us: int
) -> None:
    """The server may have given the execution to another worker."""
    monkeypatch.setattr(Watching, "late_us", late_us)

    @verb(reads=True)
    async def acknowledged(id: str) -> bool:
        [state] = await records(State, "read_state", project_id=served.project_id, id=id)
        return bool(state.acked)

    @app.workflow
    async def looks(ctx: Context) -> bool:
        return await ctx.step("look", lambda: served.engine.store.read(acknowledged(id=ctx.execution_id)))

    try:
        async with working(served, Watching):
            assert await (await client.start(looks)).result() == (late_us > 0)
    finally:
        app.workflows.pop("looks")


async def test_a_worker_without_room_asks_on_before_its_work_begins(served: Served, client: Client) -> None:
    """The worker's next claim says that the work has arrived, even if the work then keeps the loop from running."""
    transport = Watching(served.server.url, served.key)
    worker = Worker(transport, app, lease=HttpLease([served.server.url], served.key), capacity=1, grace_seconds=5)

    @app.workflow
    async def counts(ctx: Context) -> list[int]:
        return await ctx.step("count", lambda: list(transport.asked))

    await worker.start()
    try:
        asked = await (await client.start(counts)).result()
        assert asked == [1, 0]
    finally:
        await worker.drain()
        await transport.close()
        app.workflows.pop("counts")


class Stumbling(HttpTransport):
    """The first claim fails like no transport should."""

    stumbled = False

    async def call(self, op: Operation[R], key: str | None = None, *, patience: float | None = None) -> R:
        if isinstance(op, ClaimRequest) and not self.stumbled:
            self.stumbled = True
            raise RuntimeError("nobody thought of this")
        return await super().call(op, key, patience=patience)


async def test_a_claim_that_fails_as_none_should_is_not_the_workers_last(
    served: Served, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(served, Stumbling):
        assert await (await client.start(doubled, 4)).result() == 8
    assert "nobody thought of this" in caplog.text


class Sharing(HttpTransport):
    """Refuses a body that holds `word`, like a server that knows less than this client."""

    def __init__(self, *args: Any, word: bytes = b"poison", error: PerdureError | None = None, **values: Any) -> None:
        super().__init__(*args, **values)
        self.bodies: list[bytes] = []
        self.keys: list[bytes] = []
        self.word = word
        self.error = error or BadRequest("not in here")

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: bytes = b"", **values: Any
    ) -> Response:
        if method == "POST":
            self.bodies.append(body or b"")
            self.keys.append(headers)
            if self.word in (body or b""):
                raise self.error
        return await super().request(method, path, body, headers=headers, **values)


async def payloads_of(served: Served) -> list[Any]:
    page = await served.engine.serve(Scope(served.project_id), ListExecutions(limit=500))
    return sorted((msgspec.json.decode(one.payload) for one in page.executions), key=str)


async def test_large_starts_leave_in_several_requests(served: Served) -> None:
    transport = Sharing(served.server.url, served.key)
    async with Client(transport) as client:
        texts = [str(n) * (1 << 20) for n in range(9)] * 4  # 1 MiB each; so much is gathered
        handles = await asyncio.gather(*[client.start(doubled.name, text) for text in texts])
    assert len({handle.id for handle in handles}) == len(texts)
    assert [body.count(b"workflow_id") for body in transport.bodies] == [1] * 36


async def test_one_start_that_is_too_large_for_the_server_takes_no_other_with_it(database: str) -> None:
    async with serving(database, request_bytes_max=100_000) as served:
        async with Client(HttpTransport(served.server.url, served.key)) as client:
            texts = ["a" * 40_000, "b" * 40_000, "c" * 150_000, "d" * 40_000]
            answers = await asyncio.gather(*[client.start("w", text) for text in texts], return_exceptions=True)
        assert [type(one) for one in answers] == [Handle, Handle, TooLarge, Handle]
        assert await payloads_of(served) == [texts[0], texts[1], texts[3]]


async def test_a_refused_request_is_repeated_item_by_item_under_new_keys(served: Served) -> None:
    transport = Sharing(served.server.url, served.key)
    async with Client(transport) as client:
        answers = await asyncio.gather(
            *[client.start("w", "poison" if n == 2 else n) for n in range(5)], return_exceptions=True
        )
    assert [type(one) for one in answers] == [Handle, Handle, BadRequest, Handle, Handle]
    assert [body.count(b"workflow_id") for body in transport.bodies] == [5, 1, 1, 1, 1, 1]
    assert len(set(transport.keys)) == 6
    assert await payloads_of(served) == [0, 1, 3, 4]


async def test_what_cannot_be_sent_at_all_takes_no_other_with_it(served: Served) -> None:
    async with Client(HttpTransport(served.server.url, served.key)) as client:
        answers = await asyncio.gather(
            client.start("w", 0), client.start("w", 1, priority=10**5_000), client.start("w", 2), return_exceptions=True
        )
    assert [type(one) for one in answers] == [Handle, BadValue, Handle]
    assert await payloads_of(served) == [0, 2]


async def test_starts_whose_request_may_have_arrived_are_not_started_again_one_by_one(
    served: Served, relay: Relay
) -> None:
    refusal = b'{"error":"unknown field","error_type":"BAD_REQUEST"}'
    no = b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%s" % (len(refusal), refusal)
    relay.spoil = lambda number, answer: None if number == 1 else no
    async with Client(HttpTransport(relay.url, served.key)) as client:
        answers = await asyncio.gather(*[client.start("w", n) for n in range(3)], return_exceptions=True)
        assert [type(one) for one in answers] == [UnknownOutcome] * 3
        with pytest.raises(BadRequest):
            await client.start("w", 3)
    assert len(relay.requests) == 3
    assert await payloads_of(served) == [0, 1, 2, 3]  # the relay has passed on what it answered with a refusal


async def test_a_server_that_goes_away_between_single_starts_is_told_to_all_that_are_left(served: Served) -> None:
    class Leaving(Sharing):
        async def request(self, *args: Any, **values: Any) -> Response:
            if len(self.bodies) == 2:
                self.word, self.error = b"", Unavailable("gone")
            return await super().request(*args, **values)

    transport = Leaving(served.server.url, served.key)
    async with Client(transport) as client:
        answers = await asyncio.gather(
            *[client.start("w", "poison" if n == 2 else n) for n in range(5)], return_exceptions=True
        )
    assert [type(one) for one in answers] == [Handle, *[Unavailable] * 4]
    assert len(transport.bodies) == 3


async def test_closing_a_client_between_single_starts_is_told_to_all_that_are_left(served: Served) -> None:
    class Slow(Sharing):
        async def request(self, *args: Any, **values: Any) -> Response:
            if len(self.bodies) == 2:
                here.set()
                await asyncio.Event().wait()
            return await super().request(*args, **values)

    here = asyncio.Event()
    client = Client(Slow(served.server.url, served.key))
    starts = [asyncio.ensure_future(client.start("w", "poison" if n == 2 else n)) for n in range(5)]
    await here.wait()
    await client.close()
    answers = await asyncio.wait_for(asyncio.gather(*starts, return_exceptions=True), 60)
    assert [type(one) for one in answers] == [Handle, *[Unavailable] * 4]


async def test_a_lone_caller_pays_one_request_for_a_result(served: Served) -> None:
    transport = Counting(served.server.url, served.key)
    async with working(served), Client(transport) as client:
        await (await client.start(doubled, 1)).result()
    assert transport.paths == {"/api/v1/executions": 1, "/api/v1/executions/wait": 1}


async def test_results_asked_for_late_are_not_kept_waiting_by_quiet_ones(served: Served) -> None:
    transport = Counting(served.server.url, served.key)
    async with working(served), Client(transport) as client:
        quiet = []
        for _ in range(8):  # more polls than there may be: they are merged
            handle = await client.start(asks)
            quiet.append((handle, asyncio.create_task(handle.result())))
            await until(lambda handle=handle: _is(handle.get, Phase.WAITING))  # type: ignore[misc]
        async with asyncio.timeout(POLL_SECONDS - 10):  # no quiet poll has ended by then
            assert await (await client.start(doubled, 4)).result() == 8
            for number, (handle, task) in enumerate(quiet):
                await handle.resume("approve", number)
                assert await task == number
    assert transport.most["/api/v1/executions/wait"] <= 3


async def test_a_result_nobody_waits_for_any_more_is_not_asked_for(served: Served) -> None:
    transport = HttpTransport(served.server.url, served.key)
    async with working(served), Client(transport) as client:
        handle = await client.start(asks)
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 seconds; it goes on"):
            await handle.result(timeout=0.05)
        assert transport._results._waiting == {}
        await until(lambda: _is(handle.get, Phase.WAITING))
        await handle.resume("approve", 1)
        assert await handle.result() == 1


async def test_a_start_whose_answer_was_lost_starts_once(served: Served, relay: Relay) -> None:
    relay.spoil = lambda number, answer: None if number <= 2 else answer
    async with Client(HttpTransport(relay.url, served.key)) as client:
        handle = await client.start(doubled, 1)
        assert [one.id for one in (await client.list()).executions] == [handle.id]
    keys = [relay.key_of(request) for request in relay.requests[:3]]
    assert len(keys[0]) > 30
    assert keys == [keys[0]] * 3


async def test_a_budget_is_raised_once_for_each_key(served: Served, relay: Relay) -> None:
    id = await served.start(budget={"calls": 1})
    async with Client(HttpTransport(relay.url, served.key)) as client:
        for _ in range(2):
            raised = await client._transport.call(RaiseBudget(id, calls=2), "step")
            assert raised.calls.limit == 3
    name = hashlib.sha256(b"step").hexdigest().encode()
    assert {relay.key_of(request) for request in relay.requests} == {b"Idempotency-Key: " + name}


async def test_an_event_whose_answer_was_lost_is_published_once(served: Served, relay: Relay) -> None:
    relay.spoil = lambda number, answer: None if number == 1 else answer
    async with Client(HttpTransport(relay.url, served.key)) as client:
        assert await client.publish("t", 1) == 1
        assert await client.publish("t", 1) == 2


async def test_a_cancel_and_a_resume_whose_answers_were_lost_are_done(served: Served, relay: Relay) -> None:
    async with working(served), Client(HttpTransport(relay.url, served.key)) as client:
        first, second = await client.start(asks), await client.start(asks)
        await until(lambda: _is(first.get, Phase.WAITING))
        lost = len(relay.requests) + 1
        relay.spoil = lambda number, answer: None if number == lost else answer
        assert (await first.cancel()).phase is Phase.CANCELLED
        await until(lambda: _is(second.get, Phase.WAITING))
        lost = len(relay.requests) + 1
        await second.resume("approve", "yes")
        assert await second.result() == "yes"


async def test_two_different_answers_are_never_both_acknowledged_although_a_reply_was_lost(
    served: Served, relay: Relay, client: Client
) -> None:
    async with working(served), Client(HttpTransport(relay.url, served.key)) as unlucky:
        handle = await client.start(asks)
        await until(lambda: _is(handle.get, Phase.WAITING))
        await handle.resume("approve", "yes")
        relay.spoil = lambda number, answer: None if number in (1, 3) else answer
        with pytest.raises(Conflict, match="was answered by"):
            await unlucky.resume(handle.id, "approve", "no")
        assert len(relay.requests) == 2
        await unlucky.resume(handle.id, "approve", "yes")
        assert len(relay.requests) == 4
        assert await handle.result() == "yes"


async def test_a_cancel_whose_answer_was_lost_does_not_claim_an_end_of_another_kind(
    served: Served, relay: Relay, client: Client
) -> None:
    async with working(served), Client(HttpTransport(relay.url, served.key)) as unlucky:
        handle = await client.start(nothing)
        await handle.result()
        relay.spoil = lambda number, answer: None if number == 1 else answer
        with pytest.raises(NotCancellable):
            await unlucky.cancel(handle.id)


async def test_a_deletion_whose_answer_was_lost_is_done(served: Served, relay: Relay, client: Client) -> None:
    async with working(served), Client(HttpTransport(relay.url, served.key)) as unlucky:
        handle = await client.start(nothing)
        await handle.result()
        relay.spoil = lambda number, answer: None if number == 1 else answer
        await unlucky.delete(handle.id)
        with pytest.raises(NotFound):
            await unlucky.delete(handle.id)


async def test_a_busy_server_is_asked_again(served: Served, relay: Relay) -> None:
    busy = b'{"error":"The server is going away.","error_type":"UNAVAILABLE"}'
    answer_busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n" % len(busy) + busy
    relay.spoil = lambda number, answer: answer_busy if number <= 2 else answer
    async with Client(HttpTransport(relay.url, served.key)) as client:
        assert (await client.list()).executions == []
    assert len(relay.requests) == 3


async def test_another_server_takes_over(served: Served, unused_tcp_port: int) -> None:
    dead = f"http://127.0.0.1:{unused_tcp_port}"
    async with Client(HttpTransport([dead, served.server.url], served.key, patience_seconds=0)) as client:
        assert (await client.list()).executions == []


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The address of a server that takes requests and never answers, and an event that a request sets."""
    asked = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_024):
                asked.set()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_what_a_silent_server_was_asked_is_asked_another_one(served: Served) -> None:
    async with silent() as (url, asked):
        transport = HttpTransport([url, served.server.url], served.key, patience_seconds=0)
        transport._turn = 0
        async with Client(transport) as client:
            starting = asyncio.create_task(client.start(doubled, 1))
            await asked.wait()
            transport.leave(url)
            assert (await starting).id == (await client.list()).executions[0].id
            assert transport.urls == [served.server.url, url]


async def test_a_silent_server_that_is_the_only_one_is_not_left() -> None:
    async with silent() as (url, asked), Client(HttpTransport(url)) as client:
        listing = asyncio.create_task(client.list().page())
        await asked.wait()
        client._transport.leave(url)  # type: ignore[attr-defined]  # it is an HttpTransport
        await asyncio.sleep(0)
        assert not listing.done()
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="needs an option to give macOS' name to")
def test_a_silent_machine_is_found_out_under_macos_names_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = socket.TCP_KEEPIDLE
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", idle, raising=False)
    with socket.socket() as line:
        _keep_alive(line)
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert line.getsockopt(socket.IPPROTO_TCP, idle) == 5
    _keep_alive(line)  # refused, and no complaint: macOS does that as soon as the peer has closed


async def test_servers_that_are_all_away_are_all_named(unused_tcp_port: int) -> None:
    urls = [f"http://127.0.0.1:{unused_tcp_port}", f"http://localhost:{unused_tcp_port}"]
    async with Client(HttpTransport(urls, patience_seconds=0)) as client:
        with pytest.raises(Unavailable) as told:
            await client.list()
    assert all(url in told.value.message for url in urls)


def test_many_clients_spread_over_the_servers() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in (1, 2)]
    assert {HttpTransport(urls).urls[0] for _ in range(64)} == set(urls)


async def test_workers_that_lost_their_server_together_do_not_come_back_together(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    dead = f"http://127.0.0.1:{unused_tcp_port}"
    transports = [HttpTransport([dead], "key", patience_seconds=0) for _ in range(10)]
    workers = [Worker(transport, Registry(doubled)) for transport in transports]
    starting = [asyncio.create_task(worker.start(wait=True)) for worker in workers]

    def pauses() -> list[str]:
        return [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "perdure.worker"]

    async with asyncio.timeout(60):
        while len(pauses()) < 10:  # noqa: ASYNC110  # they tell nobody but the log
            await asyncio.sleep(0.01)
    for task in starting:
        task.cancel()
    await asyncio.gather(*starting, return_exceptions=True)
    for transport in transports:
        await transport.close()
    assert len(set(pauses())) > 3, pauses()


async def test_a_server_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with Client(HttpTransport(url, patience_seconds=0)) as client:
        with pytest.raises(Unavailable, match=f"{url} .connection refused.; start it with `perdure dev`"):
            await client.list()


async def test_an_unknown_outcome_is_called_so(served: Served, relay: Relay) -> None:
    relay.spoil = lambda number, answer: None
    async with Client(HttpTransport(relay.url, served.key, patience_seconds=0)) as client:
        with pytest.raises(UnknownOutcome, match="may have taken effect"):
            await client.start(doubled, 1)
        with pytest.raises(Unavailable):
            await client.list()


async def test_what_a_command_makes_is_made_once_though_the_answer_was_lost(served: Served, relay: Relay) -> None:
    relay.spoil = lambda number, answer: None if number == 1 else answer
    async with Client(HttpTransport(relay.url, served.key)) as client:
        body = b'{"agent_id":"a","role":"user","content":"hi"}'
        await ask(client, "POST", "/internal/conversation/c/add", body)
        read = await ask(client, "GET", "/api/v1/conversation/c/get?agent_id=a")
    first, again, look = relay.requests
    assert relay.key_of(first) == relay.key_of(again) != b"" == relay.key_of(look)
    assert len(msgspec.json.decode(read)["messages"]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x02",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["noise", "no-json", "no-body"],
)
async def test_somebody_else_on_the_port_is_an_error_of_ours(served: Served, relay: Relay, answer: bytes) -> None:
    relay.spoil = lambda number, _: answer
    async with Client(HttpTransport(relay.url, served.key, patience_seconds=0)) as client:
        with pytest.raises(PerdureError):
            await client.list()


async def test_a_result_survives_a_server_that_is_replaced(database: str, unused_tcp_port: int) -> None:
    async with serving(database, port=unused_tcp_port) as first:
        client = Client(HttpTransport(first.server.url, first.key))
        result = asyncio.create_task((await client.start(doubled, 8)).result())
        await polling(client)
    async with serving(database, port=unused_tcp_port) as second, working(second):
        assert await asyncio.wait_for(result, 60) == 16
    await client.close()


def test_a_client_may_be_used_by_one_event_loop_after_another() -> None:
    client = Client(HttpTransport("http://127.0.0.1:1", patience_seconds=0))
    for _ in range(2):
        with pytest.raises(Unavailable):
            asyncio.run(client.list().page())


def test_a_bad_address_or_key_is_refused_at_once() -> None:
    urls = ("localhost:8080", "ftp://example.com", "http://", "http://user@example.com")
    for url in (*urls, "http://h:99999", "http://h:http", "http://[::1"):
        with pytest.raises(BadRequest):
            HttpTransport(url)
    with pytest.raises(BadRequest):
        HttpTransport("http://127.0.0.1", "sk_a\r\nX-Evil: 1")


# --- where server and key come from --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PERDURE_URL", "PERDURE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", str(tmp_path))
    return tmp_path


def test_arguments_go_before_the_environment_before_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials.find()[:2] == (("http://127.0.0.1:8080",), None)
    credentials.write("http://127.0.0.1:8080", api_key="from the file", project_id="p")
    credentials.write("https://there", api_key="from the file too", project_id="q")
    assert credentials.find("http://127.0.0.1:8080").api_key == "from the file"
    assert credentials.find("https://there/").api_key == "from the file too"
    monkeypatch.setenv("PERDURE_URL", "https://there, https://elsewhere")
    assert credentials.find()[:2] == (("https://there", "https://elsewhere"), "from the file too")
    monkeypatch.setenv("PERDURE_API_KEY", "from the environment")
    assert credentials.find().api_key == "from the environment"
    assert credentials.find("http://x", "given")[:2] == (("http://x",), "given")


def test_the_file_of_keys_is_its_owners_alone(home: Path) -> None:
    credentials.write('http://odd"name', api_key="k", project_id="p")
    file = home / ".config" / "perdure" / "credentials.toml"
    if sys.platform != "win32":  # a file there is as private as the home it is in
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert credentials.read() == {'http://odd"name': {"api_key": "k", "project_id": "p"}}
    file.write_text("not toml")
    with pytest.raises(BadRequest, match="cannot be read"):
        credentials.find("http://127.0.0.1:8080")


async def test_a_client_with_a_timeout_gives_up_on_servers_that_are_away_or_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        silent_url, gone_url = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (silent, gone))
        gone.close()
        for url in (silent_url, gone_url, [gone_url, silent_url]):
            async with asyncio.timeout(25), Client.connect(url, "key", timeout=0.2) as client:
                with pytest.raises(Unavailable):
                    await client.get("0199a5c8-73f7-77f2-99c2-26c47dee6e01")
                with pytest.raises((Unavailable, UnknownOutcome)):
                    await client.start("order", 7)
        with Client.sync(gone_url, "key", timeout=0.2) as blocking, pytest.raises(Unavailable):
            await asyncio.to_thread(blocking.get, "0199a5c8-73f7-77f2-99c2-26c47dee6e01")
    with pytest.raises(BadValue, match="`timeout` must be a finite number"):
        Client.connect(timeout=-1)


# --- without an event loop -----------------------------------------------------------------------------------------


async def test_threads_share_a_client_without_a_loop(served: Served) -> None:
    def use(client: SyncClient) -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda number: client.start(doubled, number).result(timeout=60), range(40)))

    def rest(client: SyncClient) -> None:
        handle = client.start(waits_for_a_word, key="one")
        assert handle.resume("word", "fine") in ("early", "answered")
        assert client.result(handle.id) == "fine"
        assert client.find(waits_for_a_word, "one").id == handle.id
        page = client.list(workflow=doubled, limit=15)
        assert (len(page.executions), sorted(one.result or 0 for one in page)) == (
            15,
            [2 * number for number in range(40)],
        )
        assert client.publish("t", {"a": 1}) == 1
        assert client.append_messages("s", [{"said": 1}, "two"]) == 2
        assert [bytes(entry.message) for entry in client.transcript("s").entries] == [b'{"said":1}', b'"two"']
        assert client.transcript("s", version=1).version == 1
        with pytest.raises(NotCancellable):
            handle.cancel()
        waiting = client.start(asks)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.02)
        assert waiting.cancel().phase is Phase.CANCELLED
        with pytest.raises(ExecutionCancelled):
            client.handle(waiting.id, asks).result()

    async with working(served):
        with Client.sync(served.server.url, served.key) as client:
            assert await asyncio.to_thread(use, client) == [2 * number for number in range(40)]
            await asyncio.to_thread(rest, client)
    assert not [thread for thread in threading.enumerate() if thread.name == "perdure-client"]
    with pytest.raises(Unavailable, match="closed"):
        client.get("x")


async def test_closing_a_client_ends_who_waits_in_another_thread(served: Served) -> None:
    client = Client.sync(served.server.url, served.key)
    handle = await asyncio.to_thread(client.start, doubled, 1)  # nobody runs it
    waiting = asyncio.create_task(asyncio.to_thread(handle.result))
    await polling(client._twin)
    results = client._twin._transport._results  # type: ignore[attr-defined]  # an HttpTransport
    await asyncio.to_thread(client.close)
    with pytest.raises(Unavailable, match="closed"):
        await waiting
    assert not results._polls


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_process_has_a_client_of_its_own(served: Served) -> None:
    with Client.sync(served.server.url, served.key) as client:
        await asyncio.to_thread(client.start, doubled, 1)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                client.start(doubled, 2)
                code = 0
            os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await asyncio.to_thread(client.start, doubled, 3)
    page = await served.engine.serve(Scope(served.project_id), ListExecutions())
    assert sorted(bytes(one.payload) for one in page.executions) == [b"1", b"2", b"3"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_starts_under_way_stay_with_the_parent_of_a_forked_process(served: Served) -> None:
    with Client.sync(served.server.url, served.key) as client:
        starts = client._twin._starts
        threads = [threading.Thread(target=client.start, args=(doubled, number)) for number in (1, 2, 3)]
        # The server runs in this loop, so it answers nothing until the fork: two requests are open, and a start waits.
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(starts._sending) + len(starts._waiting) < number:
                time.sleep(0.001)
        assert len(starts._sending) == 2
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            code = 1
            with contextlib.suppress(BaseException):
                client.start(doubled, 4)
                code = 0
            os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        for thread in threads:
            await asyncio.to_thread(thread.join)
    page = await served.engine.serve(Scope(served.project_id), ListExecutions())
    assert sorted(bytes(one.payload) for one in page.executions) == [b"1", b"2", b"3", b"4"]


async def test_a_plain_request_has_the_shape_of_the_public_api(served: Served, relay: Relay) -> None:
    """Whoever reads the traffic sees what the documentation says."""
    async with Client(HttpTransport(relay.url, served.key)) as client:
        await client._transport.start([StartItem("w", Raw(b'{"a":1}'), accept_early=True)])
    head, _, body = relay.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/executions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert body == b'{"items":[{"workflow_id":"w","payload":{"a":1},"accept_early":true}]}'


async def test_a_report_that_cannot_be_written_is_refused_like_any_other(served: Served) -> None:
    """The worker then sends the items one by one, and only the bad item is refused."""
    transport = HttpTransport(served.server.url, served.key)
    event = EventItem(Raw(b"1"), dedup_key=object())  # type: ignore[arg-type]  # the mistake
    item = ReportItem("01a21d68-a9e6-7078-b3f9-70ed5ca90289", 1, 1, 1, [Publish("k", None, "t", [event])])
    try:
        with pytest.raises(BadValue, match=r"The request cannot be sent: .*object"):
            await transport.call(ReportRequest("w", "epoch", [item]))
    finally:
        await transport.close()


@pytest.mark.parametrize("status", [401, 403, 404, 500, 502, 504])
async def test_what_somebody_on_the_way_says_is_no_failure_of_what_a_worker_runs(
    served: Served, client: Client, relay: Relay, status: int
) -> None:
    """A load balancer whose server is away, or that lets no request through at the moment."""
    page = b"<html>not now</html>"
    no = b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%s" % (status, len(page), page)
    barred = iter([no, no])

    def spoil(number: int, answer: bytes) -> bytes:
        return next(barred, answer) if b"/report " in relay.requests[number - 1] else answer

    relay.spoil = spoil
    transport = HttpTransport(relay.url, served.key)
    worker = Worker(transport, app, lease=HttpLease([served.server.url], served.key), grace_seconds=5)
    await worker.start()
    try:
        assert await (await client.start(doubled, 3)).result() == 6
    finally:
        await worker.drain()
        await transport.close()
    assert next(barred, None) is None


async def test_a_draining_worker_does_not_claim_again_what_it_releases(
    served: Served, client: Client, relay: Relay
) -> None:
    """A proxy may keep the connection of the claim open after the worker has closed its end."""
    begun = asyncio.Event()
    registry = Registry()

    @registry.workflow
    async def stays(ctx: Context) -> None:
        async def body() -> None:
            begun.set()
            await asyncio.Event().wait()

        await ctx.step("body", body)

    transport = HttpTransport(relay.url, served.key)
    worker = Worker(transport, registry, lease=HttpLease([served.server.url], served.key), grace_seconds=0)
    await worker.start()
    handle = await client.start(stays)
    await begun.wait()
    await served.until_waiting(worker.id)
    await worker.drain()
    await transport.close()
    kinds = [row.kind for row in await client.journal(handle.id)]
    assert kinds[-1] == Kind.RELEASED and kinds.count(Kind.CLAIMED) == 1
