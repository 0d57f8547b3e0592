"""The least that a server can do for an existing client's worker: what `python -m benchmarks.stand_in --floor` asks.

uvicorn with the same parser and loop as ours, an application without routes, checks or a state machine, and the ledger
of benchmarks/floor.py: each change that the worker reports is one row, on disk before the answer. A start is brought to
the worker over a connection that stays open. What it takes, no server of this kind can go below.
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import uvicorn
from benchmarks.figures import run_loop
from benchmarks.floor import Ledger

from perdure.store.open import is_postgres

JSON: Final = [(b"content-type", b"application/json")]


class Records(Protocol):
    def record(self, run: int, place: int, what: str, value: object) -> Awaitable[None]: ...


class PostgresLedger:
    """One connection, and a commit for each record."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, store: str) -> "PostgresLedger":
        import asyncpg

        connection = await asyncpg.connect(store)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS floor_records"
            " (n BIGSERIAL PRIMARY KEY, run BIGINT, place BIGINT, what TEXT, value TEXT)"
        )
        return cls(connection)

    async def record(self, run: int, place: int, what: str, value: object) -> None:
        await self._connection.execute(
            "INSERT INTO floor_records (run, place, what, value) VALUES ($1, $2, $3, $4)",
            run,
            place,
            what,
            json.dumps(value),
        )

    def close(self) -> None:
        self._connection.terminate()


class Floor:
    """The application."""

    def __init__(self, ledger: Records) -> None:
        self._ledger = ledger
        self._port = 0
        self._runs = 0
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        status, text = await self._answer(scope["method"], scope["path"].split("/"), body)
        head = [*JSON, (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": text})

    async def _answer(self, method: str, path: list[str], body: bytes) -> tuple[int, bytes]:
        said = json.loads(body) if body else {}
        match method, path[1:]:
            case "POST", ["api", "v1", "workers", "register"]:
                self._port = int(said["push_endpoint_url"].rpartition(":")[2])
                return 200, b'{"worker_id":"one"}'
            case "POST", ["api", "v1", "workflows", _, "run"]:
                number = self._runs = self._runs + 1
                self._ends[str(number)] = asyncio.get_running_loop().create_future()
                await self._ledger.record(number, 0, "start", said)
                task = asyncio.create_task(self._bring(b'{"execution_id":"%d"}' % number))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                return 200, b'{"execution_id":"%d"}' % number
            case "GET", ["api", "v1", "executions", id]:
                await self._ends[id]
                del self._ends[id]
                return 200, b'{"status":"completed"}'
            case "GET", ["internal", "executions", *_]:
                return 404, b"{}"
            case "POST", ["internal", "executions", id, "complete"]:
                await self._ledger.record(int(id), 0, "end", said)
                self._ends[id].set_result(None)
            case "POST", ["internal", "executions", id, "steps"]:
                await self._ledger.record(int(id), 0, "step", said)
            case "POST", ["api", "v1", "events", "publish"]:
                await self._ledger.record(int(said["execution_id"]), 0, "event", said)
        return 200, b"{}"

    async def _bring(self, body: bytes) -> None:
        kept = self._kept.pop() if self._kept else await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = kept
        writer.write(b"POST /execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        self._kept.append(kept)


async def serve(store: str, port: int) -> None:
    ledger = await PostgresLedger.open(store) if is_postgres(store) else Ledger(store)
    try:
        config = uvicorn.Config(
            Floor(ledger), port=port, http="httptools", lifespan="off", access_log=False, log_level="warning"
        )
        await uvicorn.Server(config).serve()
    finally:
        ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    run_loop(serve(given.store, given.port))


if __name__ == "__main__":
    main()
