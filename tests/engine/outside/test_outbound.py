"""Calls out, against real sockets: refusals, chosen addresses, and tolerated answers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from perdure.engine.base import network
from perdure.engine.base.addresses import Policy
from perdure.engine.base.calls import CallFailed, CallRefused
from perdure.engine.base.network import CALLS_MAX
from perdure.engine.base.outbound import Outbound
from perdure.wire.base.errors import BadValue

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Receiver:
    """A server with prepared answers that keeps each request."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                self.bodies.append(await reader.readexactly(int(length[0].split(":")[1])))
                await self.hang.wait()
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"


@asynccontextmanager
async def receiving(receiver: Receiver, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    server = await asyncio.start_server(receiver.serve, host, 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.hang.set()
        server.close()
        await server.wait_closed()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as receiver:
        yield receiver


@asynccontextmanager
async def calling(
    *hosts: str, loopback: bool = False, names: dict[str, list[str]] | None = None
) -> AsyncIterator[Outbound]:
    """A client. `names` are the answers of the name server, one after the other; the last one stays."""

    def look_up(host: str) -> Sequence[str]:
        if names is None or host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = names[host]
        return (answers.pop(0) if len(answers) > 1 else answers[0]).split()

    outbound = Outbound(Policy(hosts, loopback=loopback), look_up=look_up)
    try:
        yield outbound
    finally:
        await outbound.close()


def certificate_of(host: str, folder: Path) -> Path:
    """A key and a self-signed certificate in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(secret + signed.public_bytes(Encoding.PEM))
    return file


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    async with calling("127.0.0.1") as outbound:
        yield outbound


async def test_a_call_arrives_as_it_was_made(receiver: Receiver, outbound: Outbound) -> None:
    answer = await outbound.request("POST", receiver.url, b'{"a": 1}', {"x-more": "y"})
    assert (answer.status, answer.body) == (200, b"ok")
    assert receiver.bodies == [b'{"a": 1}']
    head = receiver.heads[0].lower()
    assert head.startswith("post /hook?x=1 http/1.1\r\n")
    assert f"host: 127.0.0.1:{receiver.port}\r\n" in head
    assert "x-more: y\r\n" in head
    assert "cookie" not in head and "accept-encoding: identity\r\n" in head


async def test_connections_are_kept_and_calls_run_side_by_side(receiver: Receiver, outbound: Outbound) -> None:
    for _ in range(3):
        await outbound.request("POST", receiver.url, b"{}")
    assert receiver.connections == 1
    receiver.hang.clear()
    calls = [asyncio.create_task(outbound.request("POST", receiver.url, b"{}")) for _ in range(20)]
    async with asyncio.timeout(60):
        while len(receiver.bodies) < 23:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)
    receiver.hang.set()
    assert [answer.status for answer in await asyncio.gather(*calls)] == [200] * 20


async def test_localhost_reaches_whoever_listens_on_one_family_only() -> None:
    async with calling(loopback=True) as outbound:
        for host in ("127.0.0.1", "::1"):
            async with receiving(Receiver(), host) as receiver:
                assert (await outbound.request("GET", f"http://localhost:{receiver.port}/")).status == 200


async def test_a_name_goes_on_to_its_next_address(receiver: Receiver) -> None:
    async with calling("two.example", names={"two.example": ["::1 127.0.0.1"]}) as outbound:
        assert (await outbound.request("GET", f"http://two.example:{receiver.port}/")).status == 200
    assert f"host: two.example:{receiver.port}\r\n" in receiver.heads[0].lower()


@pytest.mark.parametrize("turns", range(10))
async def test_whenever_a_caller_gives_up_no_connection_is_left_open(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Two addresses are tried side by side. The losing connection is made, too, before the loser hears."""
    monkeypatch.setattr(network, "HEAD_START_SECONDS", 0.0)
    made: list[httpcore2.AsyncNetworkStream] = []
    second = asyncio.Event()

    async def connect() -> httpcore2.AsyncNetworkStream:
        made.append(await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", receiver.port))
        return made[-1]

    async def loses() -> httpcore2.AsyncNetworkStream:
        stream = await connect()
        second.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return stream

    async def wins() -> httpcore2.AsyncNetworkStream:
        await second.wait()
        return await connect()

    closing: set[asyncio.Task[None]] = set()
    asking = asyncio.create_task(network._first([loses, wins], closing))
    async with asyncio.timeout(60):
        while len(made) < 2:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    [answer] = await asyncio.gather(asking, return_exceptions=True)
    await asyncio.gather(*closing)
    left = [stream for stream in made if stream.get_extra_info("socket").fileno() != -1]
    for stream in left:
        await stream.aclose()
    assert left == [one for one in made if one is answer]


# --- what is not called ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://public.example/", "must start with https"),
        ("https://inside.example/", "leads to 10.0.0.1"),
        ("https://half.example/", "leads to 10.0.0.1"),
        ("https://nowhere.example/", "does not exist"),
        ("https://127.0.0.1/", "leads to 127.0.0.1"),
        ("https://localhost/", "leads to 127.0.0.1"),
        ("https://169.254.169.254/latest/meta-data", "leads to 169.254.169.254"),
        ("https://[::ffff:169.254.169.254]/", "leads to ::ffff:"),
        ("https://user@public.example/", "user"),
        ("gopher://public.example/", "must start with https"),
        *((f"https://public.example:{port}/", f"port {port} belongs") for port in (22, 25, 6379, 6697, 11211)),
    ],
)
async def test_a_url_is_checked_when_it_is_given(url: str, why: str) -> None:
    names = {
        "public.example": ["93.184.216.34"],
        "inside.example": ["10.0.0.1"],
        "half.example": ["93.184.216.34 10.0.0.1"],
    }
    async with calling(names=names) as outbound:
        assert await outbound.check_url("https://public.example/x") == "https://public.example/x"
        with pytest.raises(BadValue, match=f"push_endpoint_url: .*{why}"):
            await outbound.check_url(url, "push_endpoint_url")


async def test_a_port_of_another_protocol_is_called_only_where_the_configuration_names_the_host() -> None:
    for outbound, url, fine in (
        (Outbound(Policy()), "https://93.184.216.34:22/", False),
        (Outbound(Policy()), "https://93.184.216.34:8443/", True),
        (Outbound(Policy(("93.184.216.34",))), "https://93.184.216.34:22/", True),
        (Outbound(Policy((), loopback=True)), "http://127.0.0.1:6666/", True),
    ):
        if fine:
            assert await outbound.check_url(url) == url
        else:
            with pytest.raises(BadValue, match="outbound_hosts"):
                await outbound.check_url(url)
            with pytest.raises(CallRefused, match="port 22"):  # also one that was kept before there was this rule
                await outbound.request("GET", url)
        await outbound.close()


async def test_a_name_server_that_is_away_refuses_no_url() -> None:
    def away(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    outbound = Outbound(Policy(), look_up=away)
    assert await outbound.check_url("https://public.example/")
    with pytest.raises(CallFailed, match="not found") as failed:
        await outbound.request("GET", "https://public.example/")
    assert not failed.value.sent
    await outbound.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "0.0.0.0"])
async def test_a_name_that_leads_elsewhere_later_is_not_followed(receiver: Receiver, address: str) -> None:
    async with calling(names={"rebound.example": ["93.184.216.34", address]}) as outbound:
        url = f"https://rebound.example:{receiver.port}/"
        await outbound.check_url(url)
        with pytest.raises(CallRefused, match=r"rebound\.example"):
            await outbound.request("GET", url)
    assert receiver.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001"])
async def test_this_machine_is_not_called_under_any_spelling(receiver: Receiver, host: str) -> None:
    outbound = Outbound(Policy())  # with the real name server: it knows more spellings than one would think
    for scheme in ("http", "https"):
        with pytest.raises((CallRefused, CallFailed)) as refused:
            await outbound.request("GET", f"{scheme}://{host}:{receiver.port}/")
        assert not refused.value.sent
        with pytest.raises(BadValue):
            await outbound.check_url(f"{scheme}://{host}:{receiver.port}/")
    assert receiver.connections == 0
    await outbound.close()


async def test_no_proxy_of_the_environment_is_asked(
    receiver: Receiver, outbound: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving(Receiver()) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await outbound.request("GET", receiver.url)).status == 200
        assert proxy.connections == 0


# --- what is put up with ---------------------------------------------------------------------------------------------


async def test_a_redirect_is_an_answer() -> None:
    async with receiving(Receiver()) as other, calling("127.0.0.1") as outbound:
        answer = f"HTTP/1.1 307 Elsewhere\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with receiving(Receiver(answer)) as receiver:
            found = await outbound.request("POST", receiver.url, b"{}")
        assert (found.status, found.headers["location"]) == (307, other.url)
        assert other.connections == 0


@pytest.mark.parametrize("length", [b"content-length: 10000000", b"transfer-encoding: chunked"])
async def test_no_more_is_read_than_was_asked_for(outbound: Outbound, length: bytes) -> None:
    data = b"x" * 200_000
    body = data if length.startswith(b"content") else b"%x\r\n%b\r\n" % (len(data), data)
    async with receiving(Receiver(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + body)) as receiver:
        answer = await outbound.request("GET", receiver.url, answer_bytes_max=1_000)
        assert (answer.status, answer.body) == (200, b"x" * 1_000)
        receiver.answer = OK
        assert (await outbound.request("GET", receiver.url)).body == b"ok", "what was cut off is no part of the next"


async def test_cookies_are_not_kept(outbound: Outbound) -> None:
    async with receiving(Receiver(OK.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"))) as receiver:
        for _ in range(2):
            await outbound.request("GET", receiver.url)
        assert "cookie" not in receiver.heads[1].lower()


async def test_an_answer_that_does_not_come_is_not_waited_for(outbound: Outbound) -> None:
    async with receiving(Receiver()) as slow, receiving(Receiver()) as quick:
        slow.hang.clear()
        with pytest.raises(CallFailed, match=r"within 0\.2 s") as failed:
            await outbound.request("GET", slow.url, seconds=0.2)
        assert failed.value.sent
        # Nor does it take anything from others, however many hang.
        hanging = [asyncio.create_task(outbound.request("GET", slow.url, seconds=600)) for _ in range(CALLS_MAX + 1)]
        await asyncio.sleep(0)
        assert (await outbound.request("GET", quick.url)).status == 200
        for call in hanging:
            call.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_an_answer_that_drips_is_not_waited_for_either(outbound: Outbound) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    receiver = Receiver()
    receiver.serve = drip  # type: ignore[method-assign]  # it says what it is told to say
    async with receiving(receiver):
        with pytest.raises(CallFailed, match=r"within 0\.3 s"):
            await outbound.request("GET", receiver.url, seconds=0.3)


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000])
async def test_what_is_no_answer_is_a_failed_call(outbound: Outbound, answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    receiver = Receiver()
    receiver.serve = say  # type: ignore[method-assign]  # as above
    async with receiving(receiver):
        with pytest.raises(CallFailed, match="broke off") as failed:
            await outbound.request("GET", receiver.url)
        assert failed.value.sent


async def test_nobody_listens(outbound: Outbound) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(CallFailed, match="No connection") as failed:
            await outbound.request("GET", f"http://127.0.0.1:{closed.getsockname()[1]}/")
    assert not failed.value.sent


async def test_an_answer_may_end_with_its_connection(outbound: Outbound) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        writer.close()

    receiver = Receiver()
    receiver.serve = say  # type: ignore[method-assign]  # as above
    async with receiving(receiver):
        answer = await outbound.request("GET", receiver.url)
    assert (answer.status, answer.body) == (200, b"all of it")


async def test_word_that_the_answer_is_to_come_is_no_answer(outbound: Outbound) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with receiving(Receiver(early + OK)) as receiver:
        answer = await outbound.request("GET", receiver.url)
    assert (answer.status, answer.body, "link" in answer.headers) == (200, b"ok", False)


async def test_a_connection_that_was_let_go_is_not_used_again(outbound: Outbound) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leaving.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    leaving = Receiver()
    leaving.serve = once  # type: ignore[method-assign]  # as above
    async with receiving(leaving):
        for _ in range(3):
            assert (await outbound.request("GET", leaving.url)).status == 200
    assert leaving.connections == 3


async def test_a_certificate_must_be_one_that_the_system_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = certificate_of("localhost", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://%s:{server.sockets[0].getsockname()[1]}/"
    async with calling(loopback=True) as outbound:
        with pytest.raises(CallFailed, match="No connection") as failed:
            await outbound.request("GET", url % "localhost")
        assert not failed.value.sent and receiver.heads == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with calling(loopback=True) as outbound:
        for _ in range(2):
            assert (await outbound.request("GET", url % "localhost")).body == b"ok"
        assert receiver.connections == 1
        with pytest.raises(CallFailed, match="No connection"):
            await outbound.request("GET", url % "127.0.0.1")  # it is made out to somebody else
    server.close()


async def test_a_header_cannot_carry_another_one(receiver: Receiver, outbound: Outbound) -> None:
    with pytest.raises(CallFailed, match="header"):
        await outbound.request("GET", receiver.url, headers={"x-more": "a\r\nx-other: b"})
    assert receiver.heads == []
