"""The lease as its worker sees the lease: good, or in doubt."""

import asyncio
import contextlib
import os
import selectors
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from perdure.sdk.workers import lease as lease_module
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.unstarted import Unstarted
from perdure.sdk.workers.worker import Worker
from perdure.wire.runs.requests import BeatReply, RegisterReply

LEASE_US = 3_600_000_000


@contextlib.contextmanager
def answering(handle: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            handle(self)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def accept(request: BaseHTTPRequestHandler) -> None:
    """Say that the lease holds."""
    body = msgspec.json.encode(BeatReply(lost=False))
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


class Listener:
    """The part of a worker that a lease needs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.beats = asyncio.Queue[float]()
        self.in_flight: list[tuple[str, str, int, int]] = []
        self.unbegun = Unstarted()

    def on_beat(self, holding: object, sent: float) -> None:
        self.beats.put_nowait(sent)

    def on_lease(self) -> None:
        pass


async def test_a_lease_is_in_doubt_once_its_connection_is_closed_even_if_the_next_one_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server cuts the lease of a closed connection. A later request of the worker may never be answered, so the
    worker must not trust the old deadline until a request succeeds."""
    monkeypatch.setattr("perdure.sdk.workers.lease.CONNECTION_GONE_SECONDS", 0.0)
    requests = 0
    asked_again = threading.Event()
    go_on = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal requests
            requests += 1
            if requests == 2:  # taken in, and not answered for now
                asked_again.set()
                go_on.wait(30)
            self.rfile.read(int(self.headers["Content-Length"]))
            body = msgspec.json.encode(BeatReply(lost=False))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = requests == 1

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    listener = Listener()
    lease = HttpLease([f"http://127.0.0.1:{server.server_port}"], None)
    try:
        reply = RegisterReply("epoch", "project", LEASE_US, LEASE_US // 4, 0)
        lease.begin(cast(Worker, listener), "w", reply, lease.now())
        assert await asyncio.wait_for(listener.beats.get(), 30)
        assert await asyncio.to_thread(asked_again.wait, 30)
        assert not lease.is_good()
        go_on.set()
        assert await asyncio.wait_for(listener.beats.get(), 30)
        assert lease.is_good()
    finally:
        go_on.set()
        await lease.end()
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()


@pytest.mark.skipif(sys.platform == "win32", reason="sockets have no small numbers there")
async def test_beats_go_on_where_descriptors_have_large_numbers() -> None:
    """A worker has many connections: `select` would end the thread, and the worker would lose all executions."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2_048:
        pytest.skip(f"only {hard} descriptors may be open here")
    listener = Listener()
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_048), hard))
    try:
        with answering(accept) as url:
            while not opened or opened[-1] < 1_100:
                opened.append(os.open(os.devnull, os.O_RDONLY))
            lease = HttpLease([url], None)
            lease.begin(cast(Worker, listener), "w", RegisterReply("epoch", "p", LEASE_US, 50_000, 0), lease.now())
            for _ in range(3):
                await asyncio.wait_for(listener.beats.get(), 30)
            await lease.end()
    finally:
        for one in opened:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
async def test_a_silent_server_is_left_for_the_next_one_while_the_lease_holds() -> None:
    """The silence never ends: only the time-out, a third of the lease at most, sends the beats to the other server."""
    over = threading.Event()
    left: asyncio.Queue[str] = asyncio.Queue()
    listener = Listener()
    with answering(lambda request: void(over.wait(60))) as silent, answering(accept) as other:
        lease = HttpLease([silent, other], None, left.put_nowait)
        try:
            lease.begin(cast(Worker, listener), "w", RegisterReply("epoch", "p", 15_000_000, 500_000, 0), lease.now())
            assert await asyncio.wait_for(left.get(), 60) == silent
            await asyncio.wait_for(listener.beats.get(), 60)
            assert lease.is_good()
        finally:
            over.set()
            await lease.end()


async def test_a_worker_that_hears_nothing_does_not_renew_its_lease() -> None:
    """The worker's requests arrive, the answers do not. The worker may not trust its lease, so the server should give
    the work to another worker. After an answer the worker goes on."""
    beats = 0
    again = threading.Event()
    asked = threading.Semaphore(0)
    listener = Listener()

    def hear(request: BaseHTTPRequestHandler) -> None:
        nonlocal beats
        if request.command == "GET":
            asked.release()
        else:
            beats += 1
        again.wait(60)
        with contextlib.suppress(OSError):  # it has not waited for this
            accept(request)

    with answering(hear) as url:
        lease = HttpLease([url], None)
        lease.begin(cast(Worker, listener), "w", RegisterReply("epoch", "p", 600_000, 150_000, 0), lease.now())
        try:
            for _ in range(3):
                assert await asyncio.to_thread(asked.acquire, timeout=60)
            assert beats == 1 and not lease.is_good()
            again.set()
            await asyncio.wait_for(listener.beats.get(), 60)
        finally:
            again.set()
            await lease.end()


def void(_: object) -> None:
    """Answers nothing."""


async def test_beats_go_below_the_path_in_the_address() -> None:
    paths: list[str] = []
    listener = Listener()

    def note(request: BaseHTTPRequestHandler) -> None:
        paths.append(request.path)
        accept(request)

    with answering(note) as url:
        lease = HttpLease([f"{url}/perdure/"], None)
        lease.begin(cast(Worker, listener), "w", RegisterReply("epoch", "p", LEASE_US, LEASE_US // 4, 0), lease.now())
        await asyncio.wait_for(listener.beats.get(), 60)
        await lease.end()
    assert paths == ["/perdure/worker/v1/beat"]


async def test_a_worker_gives_its_work_up_once_the_store_has_been_away_for_too_long() -> None:
    started_over = asyncio.Event()
    listener = Listener()
    refused = 0

    async def start_over() -> None:
        lease._stop.set()
        started_over.set()

    def refuse(request: BaseHTTPRequestHandler) -> None:
        nonlocal refused
        refused += 1
        body = b'{"error":"The disk is full.","error_type":"STORE_AWAY"}'
        request.send_response(503)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    listener.start_over = start_over  # type: ignore[attr-defined]  # as in a worker
    with answering(refuse) as url:
        lease = HttpLease([url], None)
        reply = RegisterReply("epoch", "p", LEASE_US, LEASE_US // 4, 0, outage_us=1)
        lease.begin(cast(Worker, listener), "w", reply, lease.now())
        await asyncio.wait_for(started_over.wait(), 60)
        await lease.end()
    assert refused == 2 and not lease.is_good()


@pytest.mark.parametrize("takes_names", [True, False])
async def test_a_beat_comes_early_if_it_has_other_steps_to_name(
    takes_names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.sdk.workers.lease.EARLY_SECONDS", 0.0)
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"]))))
            accept(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    listener = Listener()
    listener.in_flight = [("execution", "pay", 1, 5)]
    lease = HttpLease([f"http://127.0.0.1:{server.server_port}"], None)
    beat_us = LEASE_US // 4 if takes_names else 50_000
    try:
        reply = RegisterReply("epoch", "project", LEASE_US, beat_us, 0, beats_name_steps=takes_names)
        lease.begin(cast(Worker, listener), "w", reply, lease.now())
        await asyncio.wait_for(listener.beats.get(), 30)
        listener.in_flight = []
        await asyncio.wait_for(listener.beats.get(), 30)
    finally:
        await lease.end()
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()
    plain = {"worker_id": "w", "epoch": "epoch"}
    named = {**plain, "in_flight": [["execution", "pay", 1, 5]]} if takes_names else plain
    assert bodies[:2] == [named, plain]


async def test_a_lease_ends_while_its_thread_waits_for_the_next_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(selectors.DefaultSelector):
        """Returns only for what happens at the socket."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            waits.set()
            return super().select(120)

    waits = threading.Event()
    monkeypatch.setattr(lease_module, "selectors", SimpleNamespace(DefaultSelector=Deaf, EVENT_READ=1))
    with answering(accept) as url:
        lease = HttpLease([url], None)
        lease.begin(
            cast(Worker, Listener()), "w", RegisterReply("epoch", "project", LEASE_US, LEASE_US // 4, 0), lease.now()
        )
        await asyncio.to_thread(waits.wait, 60)
        await lease.end()
        assert lease._thread is not None and not lease._thread.is_alive()
