"""10,000 malformed requests, as bytes, to a server in a process of its own.

Broken request lines, headers, chunks, lengths, JSON, UTF-8 and paths. Each gets an answer of the usual shape or a
closed connection, never a 5xx or a hang. The server is as small afterwards as before.
"""

import asyncio
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil
import pytest
from tests.cli.processes import PERDURE
from tests.ports import free_port
from tests.server.other_doors import QUESTION, OtherDoors
from tests.server.requests import NOBODY, ROUTES, body_of, query_of, url_of
from tests.server.serving import Hand

from perdure.server.http.routing import Route

COUNT: Final = 10_000
WARM: Final = 1_000
AT_ONCE: Final = 50
ANSWER_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 0.5
GROWTH_BYTES_MAX: Final = 50 << 20
SEED: Final = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG: Final = 70_000
WORDS: Final = (
    b"",
    b" ",
    b"\0",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xff\xfe",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"%00",
    b"-1",
    b"1e9999",
    b"9" * 40,
    b"../" * 8,
    b"a" * LONG,
    "ünï☃".encode(),
    b"Infinity",
    b"null",
    b"{}",
    b"[",
    b'"',
    b"\\",
    b"'; DROP TABLE executions; --",
)


class Maker:
    """Makes malformed requests: breaks a good request for some route."""

    def __init__(self, seed: int, key: str, question: str) -> None:
        self.random = random.Random(seed)
        self.key = key
        self.kinds: tuple[Callable[[], bytes], ...] = (
            self.request_line,
            self.first_bytes,
            self.header,
            self.many_headers,
            self.length,
            self.chunks,
            self.bad_json,
            self.wrong_shape,
            self.path,
            self.query,
            self.flipped,
            self.cut,
            self.two_at_once,
            *OtherDoors(self.random, key, question, WORDS).kinds,
        )

    def make(self) -> tuple[str, bytes]:
        kind = self.random.choice(self.kinds)
        return kind.__name__, kind()

    def route(self, *, with_body: bool = False) -> Route:
        # Streams do not end, pages have errors in HTML (see OtherDoors), and MCP those of JSON-RPC.
        found = [
            route
            for route in ROUTES
            if route.tag not in ("Pages", "MCP")
            and not route.name.startswith("stream")
            and (route.body_type or not with_body)
        ]
        return self.random.choice(found)

    def word(self) -> bytes:
        return self.random.choice(WORDS)

    def noise(self, most: int = 200) -> bytes:
        return self.random.randbytes(self.random.randrange(most))

    def good(
        self,
        route: Route,
        *,
        line: bytes | None = None,
        headers: list[bytes] | None = None,
        body: bytes | None = None,
        length: bool = True,
    ) -> bytes:
        """A request for a route, with some parts replaced."""
        if body is None:
            value = body_of(route)
            body = b"" if value is None else json.dumps(value).encode()
        query = "&".join(f"{name}={value}" for name, value in query_of(route).items())
        target = url_of(route) + (f"?{query}" if query else "")
        lines = [line if line is not None else f"{route.method} {target} HTTP/1.1".encode()]
        lines += [b"Host: 127.0.0.1", b"Connection: close", b"Perdure-Protocol: 1"]
        lines.append(b"Authorization: Bearer " + self.key.encode())
        lines += headers or []
        if length and (body or route.body_type is not None):
            lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
        return b"\r\n".join([*lines, b"", b""]) + body

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def request_line(self) -> bytes:
        route = self.route()
        target = url_of(route).encode()
        method = route.method.encode()
        return self.good(
            route,
            line=self.random.choice(
                [
                    method + b" " + target,
                    method + b"  " + target + b"  HTTP/1.1",
                    target + b" HTTP/1.1",
                    b" " + method + b" " + target + b" HTTP/1.1",
                    method.lower() + b" " + target + b" HTTP/1.1",
                    method + b" " + target + b" HTTP/9.9",
                    method + b" " + target + b" HTTP/1.1" + self.word(),
                    method + b" " + target + b" HTTPS/1.1",
                    method + b"\t" + target + b"\tHTTP/1.1",
                    method + self.word() + b" " + target + b" HTTP/1.1",
                    b"CONNECT 127.0.0.1:443 HTTP/1.1",
                    b"OPTIONS * HTTP/1.1",
                    b"TRACE " + target + b" HTTP/1.1",
                    b"PRI * HTTP/2.0",
                    method + b" http://127.0.0.1" + target + b" HTTP/1.1",
                    method + b" http://[::1 HTTP/1.1",
                    method + b" " + b"/" * LONG + b" HTTP/1.1",
                    method + b" //" + target + b" HTTP/1.1",
                    method + b" " + target + b"#x HTTP/1.1",
                    method + b" " + self.noise().replace(b"\n", b"") + b" HTTP/1.1",
                    b"\r\n\r\n" + method + b" " + target + b" HTTP/1.1",
                ]
            ),
        )

    def first_bytes(self) -> bytes:
        return self.random.choice(
            [
                self.noise(2_000),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self.noise(500),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.noise(100),
                b"\0" * self.random.randrange(1, 5_000),
                b"\r\n" * self.random.randrange(1, 500),
                b"SSH-2.0-x\r\n",
                b"HELO x\r\n",
                b"{}",
                self.word(),
            ]
        )

    def header(self) -> bytes:
        name = self.random.choice(
            [
                *(b"Host", b"Authorization", b"Cookie", b"X-Project-ID", b"Idempotency-Key", b"Last-Event-ID"),
                *(b"Content-Type", b"Content-Encoding", b"Expect", b"Upgrade", b"Connection", b"Transfer-Encoding"),
                *(b"Perdure-Protocol", b"Sec-Fetch-Site", b"X-Forwarded-For", b"Range", b"Origin"),
                *(b"", b"\xff", b"a b", b"(x)"),
            ]
        )
        value = self.random.choice(
            [
                self.word(),
                self.noise().replace(b"\n", b""),
                b"x" * LONG,
                b"close, , ,",
                b"100-continue",
                b"h2c",
                b"perdure_session=" + self.word(),
                b'perdure_session="us_x; a=b',
                b"Bearer us_" + self.word(),
                b"Bearer sk_" + self.word(),
                b"chunked, chunked",
                b"gzip",
            ]
        )
        joint = self.random.choice([b": ", b":", b" : ", b"", b":\t", b":\r\n ", b": \0"])
        return self.good(self.route(), headers=[name + joint + value])

    def many_headers(self) -> bytes:
        route = self.route()
        return self.good(
            route,
            headers=self.random.choice(
                [
                    [b"X-%d: y" % n for n in range(self.random.choice([90, 101, 2_000]))],
                    [b"Host: other"] * 2,
                    [b"Content-Length: 1", b"Content-Length: 2"],
                    [b"X: " + b"y" * 8_000] * 9,
                    [b" folded: x", b"\tfolded: y"],
                    [b"Authorization: Bearer x"],
                    [b"Cookie: " + b"a=b; " * 10_000],
                ]
            ),
        )

    def length(self) -> bytes:
        route = self.route(with_body=True)
        said = self.random.choice(
            [
                *(b"-1", b"+1", b"0x10", b"1e3", b"1 1", b"", b"9" * 30, b"18446744073709551616", b"33554433"),
                *(b"5, 5", b"x", b"%d" % self.random.randrange(2_000)),
            ]
        )
        more = self.random.choice([[], [b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: x"]])
        return self.good(route, headers=[b"Content-Length: " + said, *more], length=False)

    def chunks(self) -> bytes:
        route = self.route(with_body=True)
        value = json.dumps(body_of(route)).encode()
        size = b"%x" % len(value)
        body = self.random.choice(
            [
                b"zz\r\n" + value,
                b"-5\r\n" + value,
                b"F" * 17 + b"\r\n" + value,
                size + b"\r\n" + value + b"0\r\n\r\n",
                size + b"\r\n" + value,
                size + b"\n" + value + b"\n0\n\n",
                size + b";" + b"x" * LONG + b"\r\n" + value + b"\r\n0\r\n\r\n",
                size + b"\r\n" + value + b"\r\n0\r\nTrailer: x\r\nX" + b"y" * LONG + b"\r\n\r\n",
                size + b"\r\n" + value + b"\r\n0\r\n\r\n" + self.noise(),
                b"1\r\n{\r\n" * 500 + b"0\r\n\r\n",
                b"0\r\n\r\n",
                self.noise(500),
            ]
        )
        return self.good(
            route,
            headers=[b"Content-Type: application/json", b"Transfer-Encoding: chunked"],
            body=body,
            length=False,
        )

    def bad_json(self) -> bytes:
        good = json.dumps(body_of(route := self.route(with_body=True))).encode()
        at = self.random.randrange(len(good))
        return self.good(
            route,
            body=self.random.choice(
                [
                    self.noise(2_000),
                    self.word(),
                    good[:at],
                    good[:at] + self.word() + good[at:],
                    good[:at] + bytes([self.random.randrange(256)]) + good[at + 1 :],
                    good.replace(b'"w"', b'"\\ud800"'),
                    good.replace(b'"w"', b'"\xff"'),
                    good.replace(b'"w"', b'"\\u0000"'),
                    good.replace(b"1", b"9" * 5_000),
                    good.replace(b"1", b"1e999"),
                    good.replace(b"1", b"NaN"),
                    good.replace(b'"w"', b"[" * 5_000),
                    b"\xef\xbb\xbf" + good,
                    good.decode().encode("utf-16"),
                    b"[" * LONG,
                    b'{"a":' * LONG,
                    b'"' + b"x" * LONG,
                    good + good,
                ]
            ),
        )

    def wrong_shape(self) -> bytes:
        route = self.route(with_body=True)
        body = body_of(route)
        values: list[Any] = [
            None,
            True,
            -1,
            2**63,
            2**64,
            1.5,
            "",
            "\0",
            "x" * 3_000,
            [],
            {},
            [[]],
            {"a": {}},
            "☃\u202e",
        ]
        if isinstance(body, dict) and body:
            for name in self.random.sample(sorted(body), self.random.randrange(1, len(body) + 1)):
                body[name] = self.random.choice(values)
        return self.good(route, body=json.dumps(body).encode())

    def path(self) -> bytes:
        route = self.route()
        tricks = [
            "..",
            "%2e%2e",
            "%00",
            "%ff",
            "%c0%af",
            "%ed%a0%80",
            "%",
            "%zz",
            "%2F",
            "//",
            ";",
            "a" * 9_000,
            "☃",
            "\\",
        ]
        tricks += ["%25" * 50, "/".join("x" * 3_000), "%0d%0aX:%20y", "\x7f", "{execution_id}", "~", "+", "?", "??"]
        parts = url_of(route).split("/")
        at = self.random.randrange(len(parts))
        parts[at] = self.random.choice([parts[at], ""]) + self.random.choice(tricks)
        return self.good(route, line=f"{route.method} {'/'.join(parts)} HTTP/1.1".encode())

    def query(self) -> bytes:
        route = self.route()
        names = [
            "limit",
            "cursor",
            "wait",
            "after",
            "topic",
            "project_id",
            "workflow_id",
            "status",
            "created_after",
            "x",
        ]
        values = [
            "-1",
            "1e9",
            "%ff",
            "%00",
            "%",
            "%ed%a0%80",
            "9" * 30,
            "",
            "a" * 2_000,
            "[]",
            "null",
            "☃",
            "1&limit=1",
        ]
        query = "&".join(
            f"{self.random.choice(names)}={self.random.choice(values)}" for _ in range(self.random.choice([1, 2, 150]))
        )
        if "wait=9" in query:
            query = query.replace("wait=9", "wait=x9")  # that would be a long poll, which may take its time
        return self.good(route, line=f"{route.method} {url_of(route)}?{query} HTTP/1.1".encode())

    def flipped(self) -> bytes:
        sent = bytearray(self.good(self.route()))
        for _ in range(self.random.randrange(1, 6)):
            sent[self.random.randrange(len(sent))] = self.random.randrange(256)
        return bytes(sent)

    def cut(self) -> bytes:
        sent = self.good(self.route())
        return sent[: self.random.randrange(len(sent))]

    def two_at_once(self) -> bytes:
        first = self.good(self.route()).replace(b"Connection: close\r\n", b"")
        return first + self.random.choice([self.noise(), self.flipped(), self.chunks(), b"x" * LONG])


# --- asking --------------------------------------------------------------------------------------------------------


async def ask(port: int, sent: bytes, *, gives_up: bool) -> bytes:
    """The whole answer. A caller that gives up hangs up after a while without an answer; the others wait for the
    server's patience to end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answering = asyncio.ensure_future(reader.read())
    try:
        with suppress(OSError):
            writer.write(sent)
            await writer.drain()
        await asyncio.wait([answering], timeout=PATIENCE_SECONDS if gives_up else ANSWER_SECONDS)
        if gives_up and not answering.done():
            with suppress(OSError):
                writer.write_eof()
        with suppress(OSError):
            return await answering
        return b""
    finally:
        answering.cancel()
        writer.transport.abort()


def complaint(answer: bytes) -> str | None:
    """The fault of the answers, which may be several or missing."""
    while answer:
        head, found, rest = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        if not found or status is None:
            return f"this is no answer: {answer[:200]!r}"
        code = int(status[1])
        if code == 100:
            answer = rest
            continue
        if code >= 500 or code < 200:
            return f"{code}: {rest[:300]!r}"
        size = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        chunked = re.search(rb"\r\ntransfer-encoding: chunked", head, re.IGNORECASE)
        if size is None:
            return None if code == 204 or chunked else f"{code} without a length: {head!r}"
        body, answer = rest[: int(size[1])], rest[int(size[1]) :]
        if code >= 400 and re.search(rb"\r\ncontent-type: text/html", head, re.IGNORECASE):  # on a page
            if not body.startswith(b"<!doctype html>"):
                return f"{code}: {body[:300]!r}"
        elif code >= 400 and body:
            problem = json.loads(body)
            if not problem["error"] or not re.fullmatch("[A-Z_]+", problem["error_type"]):
                return f"{code}: {body!r}"
    return None


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[psutil.Process, int, str, str]]:
    """A server: process and port, a key, and a question's link address."""
    store = str(folder / "perdure.db")
    made = await asyncio.create_subprocess_exec(
        *PERDURE,
        *("keys", "create", "test", "--role", "admin", "--database", store, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=_environment(folder),
    )
    key = json.loads((await made.communicate())[0])["api_key"]
    port = free_port()
    with (folder / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *PERDURE,
            *("serve", "--database", store, "--port", str(port)),
            stderr=log,
            env=_environment(folder)
            | {
                "PERDURE_HEADER_SECONDS": "1",
                "PERDURE_BODY_SECONDS": "1",
                "PERDURE_KEEP_ALIVE_SECONDS": "1",
                "PERDURE_POLL_SECONDS_MAX": "0.1",
                "PERDURE_AUTH_FAILURES_MAX": "1000000",
                "PERDURE_SIGNUP": "true",
                "PERDURE_OUTBOUND_HOSTS": NOBODY,
            },
        )
    try:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            async with asyncio.timeout(60):
                while True:
                    with suppress(httpx2.TransportError):
                        if (await client.get("/ready")).status_code == 200:
                            break
                    await asyncio.sleep(0.05)
            question = await asked(client)
        yield psutil.Process(running.pid), port, key, question
        assert running.returncode is None, "it is still there"
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()


async def asked(client: httpx2.AsyncClient) -> str:
    """Ask a question in a step; returns the address for the answer."""
    hand = Hand(client)
    await hand.register()
    run = await client.post("/api/v1/workflows/w/run", json={"payload": None})
    wait = {"type": "wait", "key": "approve", "fingerprint": "f", "data": QUESTION, "expires_at_us": None}
    await hand.report(await hand.claim(), entries=[wait], end={"type": "suspend", "waits": ["approve"], "timer": None})
    path = f"/api/v1/approvals/{run.json()['execution_id']}/approve/links"
    made = await client.post(path, json={"name": "ann"})
    assert made.status_code == 200, made.text
    address: str = made.json()["path"]
    return address


def _environment(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "PATH": "/usr/bin:/bin"}


@pytest.mark.skipif(sys.platform == "win32", reason="a process is ended by a signal")
async def test_nothing_malformed_is_our_fault_or_hangs(tmp_path: Path) -> None:
    async with server(tmp_path) as (process, port, key, question):
        maker = Maker(SEED, key, question)
        statuses: Counter[str] = Counter()
        kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        wrong: list[str] = []
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(n: int) -> None:
            kind, sent = maker.make()
            async with gate:
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        answer = await ask(port, sent, gives_up=n % 20 != 0)
                except TimeoutError:
                    wrong.append(f"{n} {kind}: hangs: {sent[:300]!r}")
                    return
            status = answer[9:12].decode("latin-1") or "closed"
            statuses[status] += 1
            kinds[kind][status] += 1
            found = complaint(answer)
            if kind == "stream" and status == "200":
                found = "is answered with a stream"
            if found is not None:
                wrong.append(f"{n} {kind}: {found} after {sent[:500]!r}")

        await asyncio.gather(*(one(n) for n in range(WARM)))
        before = process.memory_info().rss
        await asyncio.gather(*(one(n) for n in range(WARM, COUNT)))
        growth = process.memory_info().rss - before
        assert wrong[:5] == []
        assert statuses.keys() >= {"200", "400", "404", "405", "413", "414", "415", "422", "431"}, statuses
        assert statuses["closed"] < COUNT // 4, statuses
        assert kinds["form"].keys() >= {"303", "400", "401", "403", "415", "422"}, kinds["form"]
        assert kinds["stream"].keys() >= {"400", "404"}, kinds["stream"]
        assert kinds["spans"].keys() >= {"200", "400", "413", "415"}, kinds["spans"]
        assert growth < GROWTH_BYTES_MAX, f"{growth >> 20} MiB more than before"
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/health")).status_code == 200
            metrics = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
            assert metrics.status_code == 200
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line for line in logged if line.get("level") == "ERROR"] == []
