"""The lease as its worker sees it: when it is good, and when it is in doubt."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import msgspec
import pytest

from perdure.sdk.lease import Lease
from perdure.sdk.worker import Worker
from perdure.wire.requests import BeatReply, RegisterReply

LEASE_US = 3_600_000_000


class Listener:
    """As much of a worker as a lease needs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.beats = asyncio.Queue[float]()

    def on_beat(self, holding: object, sent: float) -> None:
        self.beats.put_nowait(sent)

    def on_lease(self) -> None:
        pass


async def test_a_lease_is_in_doubt_once_its_connection_is_closed_even_if_the_next_one_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server cuts the lease of a connection that closes. What this side asks then may never be answered, so it must
    not go by the old deadline until it finds that out."""
    monkeypatch.setattr("perdure.sdk.lease.CONNECTION_GONE_SECONDS", 0.0)
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
    lease = Lease([f"http://127.0.0.1:{server.server_port}"], None)
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
