"""The server as a process: ready, drained, refused."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from tests.faults.disk import small_disk
from tests.faults.run import NotHere
from tests.kit.polling import until
from tests.ports import free_port
from tests.server.serving import Served, serving
from tests.store.disk import watched_disk

from perdure.server import app
from perdure.server.app import bind
from perdure.server.http.connections import ServerConnection
from perdure.server.telemetry import health
from perdure.store.base.interface import Store
from perdure.store.open import open_store
from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest, Unavailable

PROGRAM = """
import sys
from perdure.server.app import run
from perdure.server.process.settings import load
run(load({"store": sys.argv[1], "port": int(sys.argv[2]), "insecure_local": True}, environ={}))
"""


class Process:
    def __init__(self, process: asyncio.subprocess.Process, client: httpx2.AsyncClient) -> None:
        self.process = process
        self.client = client


async def start(store: str) -> Process:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, store, str(port), stderr=asyncio.subprocess.PIPE
    )
    client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.get("/ready")).status_code == 200:
                    return Process(process, client)
            except httpx2.TransportError:
                assert process.returncode is None, await process.stderr.read()  # type: ignore[union-attr]  # piped
                await asyncio.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal there asks for an end, it is one")
async def test_sigterm_ends_a_server_in_order(database: str) -> None:
    server = await start(database)
    body = {"payload": 1, "accept_early": True}
    id = (await server.client.post("/api/v1/workflows/w/run", json=body)).json()["execution_id"]
    poll = asyncio.create_task(server.client.get(f"/api/v1/executions/{id}?wait=50"))
    starts = [
        asyncio.create_task(server.client.post("/api/v1/workflows/w/run", json={**body, "key": str(n)}))
        for n in range(20)
    ]
    await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)  # the poll was sent before them
    server.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):  # the poll alone would last longer
        assert (await poll).json()["status"] == "pending"
        answers = await asyncio.gather(*starts, return_exceptions=True)
        assert await server.process.wait() == 0
    log = (await server.process.stderr.read()).decode()  # type: ignore[union-attr]  # piped
    assert '"level": "ERROR"' not in log and "Traceback" not in log
    await server.client.aclose()

    again = await start(database)
    acknowledged = [answer.json()["execution_id"] for answer in answers if isinstance(answer, httpx2.Response)]
    for known in [id, *acknowledged]:
        assert (await again.client.get(f"/api/v1/executions/{known}")).status_code == 200
    again.process.send_signal(signal.SIGINT)
    assert await again.process.wait() == 0
    await again.client.aclose()


async def test_who_takes_nothing_does_not_hold_up_the_end(database: str) -> None:
    writers = []
    served_late = serving(database, drain_seconds=2.0, body_seconds=60.0, write_seconds=60.0)
    async with asyncio.timeout(30), served_late as served:
        data = "x" * 1_000_000
        for _ in range(20):
            await served.client.post("/api/v1/events/publish", json={"topic": "t", "events": [{"data": data}]})
        for request in ("GET /api/v1/events/stream?topic=t HTTP/1.1", "POST /api/v1/executions HTTP/1.1"):
            reader, writer = await asyncio.open_connection(*served.address)
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # that of the connection
            head = f"{request}\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\nContent-Length: 10\r\n\r\n"
            writer.write(head.encode())
            writers.append(writer)
        await served.until_held()  # the stream; the start waits for its body
    for writer in writers:
        writer.transport.abort()


async def test_a_connection_that_is_made_as_the_server_ends_does_not_hold_it_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is accepted, but unknown while the others are told to close: the server tells it later."""
    told: list[ServerConnection] = []
    shutdown = ServerConnection.shutdown

    def not_the_first_time(self: ServerConnection) -> None:
        told.append(self)
        if told.count(self) > 1:
            shutdown(self)

    monkeypatch.setattr(ServerConnection, "shutdown", not_the_first_time)
    async with serving(database, drain_seconds=3_600.0) as served:
        reader, writer = await asyncio.open_connection(*served.address)
        await until(lambda: len(served.server.server_state.connections) == 1)
        served.server.stop()
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()
    assert len(told) >= 2


async def test_a_second_server_of_a_file_is_refused(tmp_path: Path) -> None:
    store = str(tmp_path / "perdure.db")
    server = await start(store)
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, store, "0", stderr=asyncio.subprocess.PIPE
    )
    _, log = await second.communicate()
    assert second.returncode != 0 and b"StoreInUse" in log
    body = {"payload": 1, "accept_early": True}
    assert (await server.client.post("/api/v1/workflows/w/run", json=body)).status_code == 200
    server.process.send_signal(signal.SIGTERM)
    await server.process.communicate()
    await server.client.aclose()


async def test_readiness_goes_off_first(served: Served) -> None:
    await served.answer("/ready", 200)
    served.app.services.drain.closing = True
    reply = await served.client.get("/ready")
    assert (reply.status_code, reply.json()["error_type"]) == (503, "UNAVAILABLE")
    assert "going away" in reply.json()["error"]
    await served.answer("/health", 200, '"healthy"')
    served.app.services.drain.closing = False


async def test_a_store_that_does_not_commit_is_not_ready(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(served.engine.store, "write", stuck)
    assert (await served.client.get("/ready")).status_code == 503


async def test_a_full_disk_is_seen_by_health_and_ready_and_forgotten_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.05)
    with watched_disk() as disk:
        async with serving(str(tmp_path / "perdure.db")) as served:
            await served.answer("/health", 200, '"healthy"')
            before = await served.start(payload={"n": 1})
            disk.full_from = "-wal"
            refused = await served.client.post("/api/v1/workflows/w/run", json={"payload": 2, "accept_early": True})
            assert (refused.status_code, refused.json()["error_type"]) == (503, "UNAVAILABLE")
            assert "nothing happened, try again" in refused.json()["error"]
            assert (await served.client.get(f"/api/v1/executions/{before}")).json()["payload"] == {"n": 1}
            red = await served.answer("/health", 503, "store cannot write")
            assert red.json()["error_type"] == "UNAVAILABLE"
            assert (await served.client.get("/ready")).status_code == 503
            assert "perdure_store_writable 0.0" in (await served.client.get("/metrics")).text
            disk.full_from = None
            for path in ("/health", "/ready"):
                await served.answer(path, 200)
            after = await served.start(payload=3)
            listed = (await served.client.get("/api/v1/executions")).json()["executions"]
            assert [one["id"] for one in listed] == [after, before], "what was refused did not happen"


async def test_a_driver_that_breaks_is_a_store_that_cannot_write(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks() -> None:
        raise ZeroDivisionError("a secret of the driver")

    with pytest.raises(Unavailable, match="cannot write") as told:
        await health.Health(breaks).check()
    assert "ZeroDivisionError" in told.value.message and "secret" not in told.value.message and "secret" in caplog.text


async def test_checks_close_together_share_one_write() -> None:
    asked: list[float] = []
    now = [0.0]

    async def check() -> None:
        asked.append(now[0])

    watched = health.Health(check, clock=lambda: now[0])
    for at in (0.0, 0.5, 1.0, 1.9, 2.0):
        now[0] = at
        await watched.check()
    assert asked == [0.0, 1.0, 2.0]


async def test_a_loop_that_was_held_up_tells_so(served: Served) -> None:
    time.sleep(health.TICK_SECONDS + 0.3)  # to block it is the test
    assert (await served.client.get("/health")).json()["loop_lag_seconds"] >= 0.2
    lag = re.search(r"^perdure_loop_lag_seconds (\S+)$", (await served.client.get("/metrics")).text, re.MULTILINE)
    assert lag is not None and float(lag[1]) >= 0.2


async def test_metrics(served: Served) -> None:
    await served.start()
    text = (await served.client.get("/metrics")).text
    assert 'perdure_executions_open{phase="queued",workflow="w"} 1.0' in text
    for name in (
        "perdure_claims_total",
        "perdure_stale_rejections_total",
        "perdure_deliveries_lost_total",
        "perdure_commit_group_verbs_count",
        "perdure_commit_group_seconds_sum",
        "perdure_timer_lag_seconds",
        "perdure_loop_lag_seconds",
        "perdure_store_writable 1.0",
        "perdure_queue_depth",
        "perdure_claim_latency",
        "perdure_streams_open",
        "perdure_connections_open",
    ):
        assert name in text
    assert (await served.client.get("/metrics", headers={"authorization": ""})).status_code == 401


async def test_a_project_sees_no_metrics_of_others(served: Served) -> None:
    """Counters cover the process, so they are for operators, who have the default project."""
    _, other = await served.other_project()
    await served.client.post("/api/v1/workflows/theirs/run", json={"payload": 1, "accept_early": True}, headers=other)
    text = (await served.client.get("/metrics", headers=other)).text
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert names == {
        "perdure_executions_open",
        "perdure_executions_ended_total",
        "perdure_queue_depth",
        "perdure_queue_oldest_seconds",
        "perdure_paused_executions",
    }
    assert 'workflow="theirs"' in text and not re.search(r"^perdure_\w+ ", text, re.MULTILINE)
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    text = (await served.client.get("/metrics", headers=reader)).text
    assert "perdure_claims_total 0.0" in text and "theirs" not in text


async def test_open_metrics_need_no_key(database: str) -> None:
    async with serving(database, metrics_open=True) as served:
        assert (await served.client.get("/metrics", headers={"authorization": ""})).status_code == 200


async def test_a_database_that_is_not_there_yet_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = iter(range(20))

    async def opens_late(url: str) -> Store:
        if next(tries) < 19:
            raise Unavailable("The database is not there.")
        return await open_store(url)

    monkeypatch.setattr(app, "open_store", opens_late)
    monkeypatch.setattr("random.uniform", lambda least, most: 0.0)
    store = await app._open_store(str(tmp_path / "app.db"))
    await store.close()
    assert [record.getMessage() for record in caplog.records] == [
        "The database is not there. It is tried for 60 seconds.",
        "The database answers.",
    ]


@pytest.mark.parametrize("before", ["nothing", "a store", "a store that was killed"])
async def test_a_server_that_starts_on_a_full_disk_waits_for_room(
    before: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: 0.01)
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(8))
        except NotHere as error:
            pytest.skip(str(error))
        path = str(disk.path / "s.db")
        if before == "a store that was killed":
            killed = (
                "import os, sys; from perdure.store.drivers.sqlite import *; s = SQLiteStore(sys.argv[1]); os._exit(0)"
            )
            subprocess.run([sys.executable, "-c", killed, path], check=True)
        elif before == "a store":
            await (await open_store(path)).close()
        disk.fill()
        there = set(disk.path.iterdir())
        opening = asyncio.create_task(app._open_store(path))
        await until(lambda: bool(caplog.records), 30, "the server says that it waits")
        assert "s.db' is full; make room on it. It is tried for 60 seconds." in caplog.text
        assert set(disk.path.iterdir()) == there, "nothing was begun that there is no room for"
        disk.free()
        await (await opening).close()
        monkeypatch.setattr(app, "STORE_SECONDS_MAX", 0.0)
        disk.fill()
        with pytest.raises(Unavailable, match="is full; make room on it"):
            await app._open_store(path)


def test_an_address_that_cannot_be_had_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadRequest, match="another port"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(BadRequest, match="not one to listen on"):
        bind("nowhere.invalid", 1)


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_an_address_is_one_servers_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with bind("127.0.0.1", 0) as bound:
        # Elsewhere a server that comes back has its address at once; on Windows two would have it at a time.
        assert bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == (platform != "win32")


async def test_a_proxys_word_for_the_callers_address_counts_only_if_trusted(database: str) -> None:
    wrong = {"authorization": "Bearer sk_abcdefgh_" + "x" * 32}
    for proxies, expected in (([], 429), (["127.0.0.1"], 401)):
        async with serving(database, auth_failures_max=1, proxies=proxies) as served:
            statuses = [
                (await served.client.get("/metrics", headers={**wrong, "x-forwarded-for": f"10.0.0.{n}"})).status_code
                for n in range(3)
            ]
            assert statuses == [401, expected, expected]


async def test_an_idle_server_sleeps(served: Served) -> None:
    before = os.times()
    await asyncio.sleep(2)  # what is measured is a stretch of time
    after = os.times()
    assert (after.user + after.system) - (before.user + before.system) < 0.2
