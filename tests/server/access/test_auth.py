"""Keys, projects, hosts and origins."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from tests.server.serving import Served, serving

from perdure.server.access import auth
from perdure.server.access.auth import Failures, Gate, is_loopback, to_network
from perdure.server.app import check_exposure
from perdure.server.process.settings import Settings
from perdure.store.verbs.base import access
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import BadRequest, Forbidden, TooManyRequests, Unauthorized

KEY = "sk_abcdefgh_" + "x" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic abc",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        "Bearer sk_" + "a" * 32,
        "Bearer \xff",
        f"Bearer {KEY}",
    ],
)
async def test_what_is_no_key_is_refused(served: Served, header: str) -> None:
    headers = {b"authorization": header.encode("latin-1")}
    reply = await served.client.get("/api/v1/executions", headers=headers)
    assert reply.status_code == 401


async def test_a_wrong_secret_is_refused_like_an_unknown_id(served: Served) -> None:
    wrong = served.key[:-1] + ("a" if served.key[-1] != "a" else "b")
    replies = [
        await served.client.get("/api/v1/executions", headers={"authorization": f"Bearer {key}"})
        for key in (wrong, KEY)
    ]
    assert [reply.status_code for reply in replies] == [401, 401]
    assert replies[0].json() == replies[1].json()


async def test_the_scheme_may_be_written_in_any_case(served: Served) -> None:
    for header in (f"bearer {served.key}", f"BEARER  {served.key}"):
        reply = await served.client.get("/api/v1/executions", headers={"authorization": header})
        assert reply.status_code == 200


async def test_a_request_may_repeat_its_keys_project(served: Served) -> None:
    for header in ("X-Project-ID", "Project-ID"):
        reply = await served.client.get("/api/v1/executions", headers={header: served.project_id})
        assert reply.status_code == 200
    for project_id, status in ((served.project_id, 200), ("x", 404)):
        reply = await served.client.get(f"/api/v1/events?topic=t&project_id={project_id}")
        assert reply.status_code == status


async def test_projects_do_not_see_each_other(served: Served) -> None:
    await served.client.post("/api/v1/events/publish", json={"topic": "t", "events": [{"data": 1}]})
    id = await served.start(key="k")
    _, other = await served.other_project()
    assert (await served.client.get("/api/v1/executions", headers=other)).json()["executions"] == []
    assert (await served.client.get("/api/v1/events?topic=t", headers=other)).json()["events"] == []
    found = await served.client.get("/api/v1/executions?workflow_id=w&key=k", headers=other)
    assert found.json()["executions"] == []
    waited = await served.client.post("/api/v1/executions/wait", json={"ids": [id], "wait_seconds": 5}, headers=other)
    assert waited.json()["missing"] == [id]
    child = {"payload": 1, "accept_early": True, "parent_execution_id": id}
    assert (await served.client.post("/api/v1/workflows/w/run", json=child, headers=other)).status_code == 404
    assert 'workflow="w"' in (await served.client.get("/metrics")).text
    assert 'workflow="w"' not in (await served.client.get("/metrics", headers=other)).text


async def test_a_revoked_key_stops_within_the_caches_time(database: str) -> None:
    async with serving(database, auth_cache_seconds=20) as served:
        served.engine.key_deleted = lambda key_id: None  # another server deletes it, and word of that is lost
        clock = served.app.services.gate._clock = Clock()
        key = await served.key_of(Role.READ)
        headers = {"authorization": f"Bearer {key}"}
        assert (await served.client.get("/api/v1/executions", headers=headers)).status_code == 200
        await served.engine.store.write(access.delete_key(project_id=served.project_id, id=key.split("_")[1]))
        assert (await served.client.get("/api/v1/executions", headers=headers)).status_code == 200
        clock.now += 20.1
        assert (await served.client.get("/api/v1/executions", headers=headers)).status_code == 401


async def test_many_wrong_keys_from_one_address_have_to_wait_and_good_ones_never(database: str) -> None:
    async with serving(database, auth_failures_max=3) as served:
        for key in (KEY, "no key at all"):
            wrong = {"authorization": f"Bearer {key}"}
            statuses = [(await served.client.get("/api/v1/executions", headers=wrong)).status_code for _ in range(5)]
            assert statuses == ([401, 401, 401, 429, 429] if key == KEY else [429] * 5)
        reply = await served.client.get("/api/v1/executions")
        assert reply.status_code == 200, "a key that the server has not seen since its start"


async def test_a_key_that_cannot_be_one_is_never_looked_up() -> None:
    async def answer(key: str) -> Principal:
        raise AssertionError(key)

    gate = _gate(answer, failures_max=2)
    for refusal in (Unauthorized, Unauthorized, TooManyRequests):
        with pytest.raises(refusal):
            await gate.principal({b"authorization": b"Bearer sk_short"}, "a")


def test_failures_are_forgiven_slowly_and_forgotten_first() -> None:
    clock = Clock()
    failures = Failures(2, clock)
    assert [failures.take("1.2.3.4") for _ in range(4)] == [True, True, False, False]
    assert failures.take("1.2.3.5")
    clock.now += auth.REFILL_SECONDS + 0.1
    assert [failures.take("1.2.3.4") for _ in range(2)] == [True, False]

    assert [failures.take(f"2001:db8:1:2:{n}::{n}") for n in range(3)] == [True, True, False]
    for n in range(auth.ADDRESSES_MAX + 10):
        failures.take(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}")
    assert len(failures._by_name) == auth.ADDRESSES_MAX
    assert failures.take("1.2.3.4")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("ann@example.com", "ann@example.com"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_what_counts_as_one_caller(address: str, network: str) -> None:
    assert to_network(address) == network


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
async def test_a_server_of_both_kinds_of_addresses_knows_ipv4_callers_by_their_own(database: str) -> None:
    """The system writes IPv4 addresses on `::` as IPv6, but the settings' proxies stay as written."""
    async with serving(database, auth_failures_max=1, proxies=["127.0.0.1"]) as served:
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: served.server._protocol(served.server.config, served.server.server_state, {}), sock=both
        )
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{both.getsockname()[1]}") as client:
            for address, status in (("198.51.100.1", 401), ("198.51.100.1", 429), ("198.51.100.2", 401)):
                headers = {"authorization": f"Bearer {KEY}", "x-forwarded-for": address}
                assert (await client.get("/api/v1/executions", headers=headers)).status_code == status
        listener.close()


async def test_a_proxy_that_the_settings_do_not_name_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(key: str) -> Principal:
        return Principal("p", Role.READ, "k")

    forwarded = {b"authorization": f"Bearer {KEY}".encode(), b"x-forwarded-for": b"198.51.100.1"}
    plain = {name: value for name, value in forwarded.items() if name == b"authorization"}
    told = _gate(answer, proxies=True)
    gate = _gate(answer)
    for asked, headers, address in (
        (told, forwarded, "10.0.0.1"),
        (gate, plain, "10.0.0.1"),
        (gate, forwarded, "8.8.8.8"),
    ):
        await asked.principal(headers, address)
        asked.forget(None)
    assert not caplog.records
    for address in ("10.0.0.1", "10.0.0.2"):
        await gate.principal(forwarded, address)
        gate.forget(None)
    [record] = caplog.records
    assert "a proxy at 10.0.0.1" in record.getMessage() and "`proxies`" in record.getMessage()


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("app.localhost:1", True),
        ("127.0.0.1:8080", True),
        ("127.9.9.9", True),
        ("[::1]:8080", True),
        ("proxy.example:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("0.0.0.0:8080", False),
        ("[::]:8080", False),
        ("192.168.1.2", False),
        ("localhost@evil.example", False),
        ("localhost, evil.example", False),
        ("", False),
    ],
)
async def test_hosts(database: str, host: str, fine: bool) -> None:
    async with serving(database, hosts=["proxy.example"]) as served:
        for path in ("/health", "/api/v1/executions"):
            reply = await served.answer(path, 200 if fine else 403, headers={"host": host})
            assert fine or reply.json()["error_type"] == "FORBIDDEN"


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("https://app.example", True),
        ("https://evil.example", False),
        ("http://app.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://[", False),
        ("chrome-extension://abc", False),
    ],
)
async def test_origins(database: str, origin: str, fine: bool) -> None:
    async with serving(database, origins=["https://app.example"], insecure_local=True) as served:
        body = {"payload": 1, "accept_early": True}
        reply = await served.client.post("/api/v1/workflows/w/run", json=body, headers={"origin": origin})
        assert reply.status_code == (200 if fine else 403)


async def test_insecure_local_needs_no_key_and_knows_one_project(database: str) -> None:
    async with serving(database, insecure_local=True) as served:
        headers = {"authorization": "", "x-project-id": "whatever"}
        body = {"payload": 1, "accept_early": True}
        started = await served.client.post("/api/v1/workflows/w/run", json=body, headers=headers)
        assert started.status_code == 200
        found = await served.client.get(f"/api/v1/executions/{started.json()['execution_id']}")
        assert found.status_code == 200
        for host in ("evil.example", "192.168.1.2"):
            assert (await served.client.get("/health", headers={"host": host})).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_others_may_only_reach_a_server_with_proper_keys(host: str) -> None:
    assert not is_loopback(host)
    settings = Settings(host=host)
    with pytest.raises(BadRequest, match="no API key"):
        check_exposure(settings, [])
    with pytest.raises(BadRequest, match="development"):
        check_exposure(settings, [("a", False), ("b", True)])
    check_exposure(settings, [("a", False)])
    with pytest.raises(BadRequest, match="insecure_local"):
        check_exposure(Settings(host=host, insecure_local=True), [("a", False)])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_a_loopback_server_needs_no_keys_to_start(host: str) -> None:
    check_exposure(Settings(host=host, insecure_local=True), [("a", True)])


async def test_a_server_that_must_not_be_reachable_does_not_start(database: str) -> None:
    with pytest.raises(BadRequest, match="no API key"):
        async with serving(database, host="0.0.0.0"):
            pass


def _gate(answer: Callable[[str], Awaitable[Principal]], **values: object) -> Gate:
    return Gate(answer, **values)  # type: ignore[arg-type]  # a test names what it changes


async def test_an_address_that_others_reach_refuses_development_keys() -> None:
    async def answer(key: str) -> Principal:
        return Principal("p", Role.ADMIN, "k", development=True)

    headers = {b"authorization": f"Bearer {KEY}".encode(), b"host": b"example.com"}
    with pytest.raises(Forbidden, match="development"):
        await _gate(answer, loopback=False).principal(headers, "1.2.3.4")
    assert (await _gate(answer).principal(headers, "1.2.3.4")).key_id == "k"


async def test_good_keys_are_remembered_for_a_while_and_bad_ones_never() -> None:
    asked: list[str] = []

    async def answer(key: str) -> Principal:
        asked.append(key)
        if len(asked) == 1:
            raise Unauthorized("no")
        return Principal("p", Role.READ, "k")

    clock = Clock()
    gate = _gate(answer, clock=clock, cache_seconds=30.0)
    headers = {b"authorization": f"Bearer {KEY}".encode()}
    with pytest.raises(Unauthorized):
        await gate.principal(headers, "a")
    for _ in range(3):
        await gate.principal(headers, "a")
    assert len(asked) == 2
    clock.now += 30.1
    await gate.principal(headers, "a")
    assert len(asked) == 3


async def test_wrong_keys_of_an_address_do_not_lock_out_good_ones() -> None:
    good = {KEY}

    async def answer(key: str) -> Principal:
        if key not in good:
            raise Unauthorized("no")
        return Principal("p", Role.READ, "k")

    def headers(key: str) -> dict[bytes, bytes]:
        return {b"authorization": f"Bearer {key}".encode()}

    clock = Clock()
    gate = _gate(answer, clock=clock, cache_seconds=30.0, failures_max=2)
    for _ in range(2):
        for refusal in (Unauthorized, Unauthorized, TooManyRequests):
            with pytest.raises(refusal):
                await gate.principal(headers(KEY[:-1] + "y"), "a")
        await gate.principal(headers(KEY), "a")
        gate.forget(None)  # word of a deletion may have been lost
        await gate.principal(headers(KEY), "a")
        clock.now += 2 * auth.REFILL_SECONDS + 30.1
    good.clear()
    for refusal in (Unauthorized, Unauthorized, TooManyRequests):  # a deleted key is a wrong key like others
        with pytest.raises(refusal):
            await gate.principal(headers(KEY), "a")


async def test_a_header_that_decides_is_there_once(served: Served) -> None:
    for name in ("authorization", "origin", "x-project-id", "idempotency-key"):
        reply = await served.client.get("/api/v1/executions", headers=[(name, "a"), (name, "a")])
        assert reply.status_code == 400 and name in reply.json()["error"]
    fine = [("x-other", "a"), ("x-other", "b")]
    assert (await served.client.get("/api/v1/executions", headers=fine)).status_code == 200
