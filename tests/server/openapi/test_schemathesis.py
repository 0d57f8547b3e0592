"""Requests within and beyond the OpenAPI document: no server error, every answer as documented."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.server.serving import Hand, Served, serving
from tests.server.users import Person, member

from perdure.engine.base.service import Scope
from perdure.server.app import all_routes
from perdure.server.http import openapi
from perdure.wire.base.access import Caller, Role
from perdure.wire.runs.deployments import UseDeployment

# The pages are for people, and say what is wrong in HTML; test_malformed.py sends them what is no form.
DRAWN = ("Pages", "Dashboard", "MCP")
"""Tags of routes that answer and refuse with pages; and MCP, with JSON-RPC's errors."""
ROUTES = [route for route in all_routes() if route.tag not in DRAWN or route.path.startswith("/api/")]
USERS = {(route.method, route.path) for route in ROUTES if route.caller is Caller.USER}
schema = schemathesis.openapi.from_dict(openapi.document(ROUTES, version="1"))


@schemathesis.serializer("application/x-protobuf")
def no_protobuf(ctx: Any, value: Any) -> bytes:
    """The document describes the body only as bytes."""
    return value if isinstance(value, bytes) else repr(value).encode()


BESIDE_A_THREAD = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
"""The server's thread draws its pauses from `random` while the test draws cases."""

CHECKS: Any = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)

RENEWED_MAX = 300
"""Cases before the next test gets a server of its own."""


class Running:
    """A server on a separate thread, with a worker that holds an execution."""

    served: Served
    hand: Hand
    queued: str
    held: Any
    schedule: str
    person: Person
    key_id: str

    def __init__(self) -> None:
        self.renewed = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    async def _main(self) -> None:
        values: dict[str, Any] = {
            "poll_seconds_max": 0.05,
            "lease_seconds": 600.0,
            "signup": True,
            "auth_failures_max": 1_000_000,
            "stream_seconds_max": 0.05,
        }
        async with serving(":memory:", **values) as served:
            self.served = served
            self.hand = Hand(served.client)
            self._loop = asyncio.get_running_loop()
            self._over = asyncio.Event()
            await self._renew(person=True)
            self._ready.set()
            await self._over.wait()
            await self.person.client.aclose()

    async def _renew(self, *, person: bool) -> None:
        """Make a fresh worker, a queued execution and a held execution. A person only comes on demand, because hashing
        a password takes time."""
        self.hand = Hand(self.served.client)
        await self.hand.register()
        await self.served.engine.serve(Scope(self.served.project_id), UseDeployment("default"))
        # Named in full: a case may have registered another deployment, or limits for a queue.
        place = {"deployment_id": "default", "queue_name": self.hand.id}
        self.queued = await self.served.start(start_at="2999-01-01T00:00:00Z", **place)
        await self.served.start(**place)
        self.held = await self.hand.claim()
        made = {"workflow_id": "w", "cron": "0 9 * * *", "timezone": "Europe/Berlin", "key": self.hand.id}
        reply = await self.served.client.post("/api/v1/schedules", json=made)
        assert reply.status_code == 200, reply.text
        self.schedule = reply.json()["schedule_id"]
        self.key_id = (await self.served.key_of(Role.READ)).split("_")[1]
        if not person:
            return
        if hasattr(self, "person"):
            await self.person.client.aclose()
        async with member(self.served, "Read") as somebody:  # a case may have ended the session of the one before
            client = httpx2.AsyncClient(base_url=somebody.client.base_url, cookies=somebody.client.cookies)
            self.person = Person(client, somebody.user)

    def headers(self, case: Any) -> dict[str, str]:
        """The headers of an admin's key, or of a user where no key counts; and a header that lets a stream end."""
        token = self.person.token if (case.method.upper(), case.path) in USERS else self.served.key
        headers = {"authorization": f"Bearer {token}"}
        if case.path == "/api/v1/events/stream" and not (case.headers or {}).get("Last-Event-ID", "").strip():
            headers["last-event-id"] = "0"  # a stream is cut only for who knows how to come back
        return headers

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def renew(self, *, person: bool) -> None:
        self.renewed += 1
        asyncio.run_coroutine_threadsafe(self._renew(person=person), self._loop).result(10)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Running]]:
    """The running server, if any."""
    servers: list[Running] = []
    yield servers
    for one in servers:
        one.stop()


@pytest.fixture
def running(servers: list[Running]) -> Running:
    """A server, the same for many cases: each leaves things there, and a project may have so many keys and no more."""
    if servers and servers[0].renewed >= RENEWED_MAX:
        servers.pop().stop()
    if not servers:
        servers.append(Running())
        servers[0].start()
    return servers[0]


IN_PATH = frozenset({"execution_id", "schedule_id", "project_id", "key_id", "user_id"})
IN_BODY = frozenset({"project_id", "email", "worker_id", "epoch", "claim_id", "items"})


def names_something(case: Any) -> bool:
    """Whether `know` may find a name."""
    in_body = IN_BODY & case.body.keys() if isinstance(case.body, dict) else ()
    return bool(IN_PATH & (case.path_parameters or {}).keys() or in_body)


def know(case: Any, running: Running) -> None:
    """Replace the case's names by meaningful names."""
    if "execution_id" in (case.path_parameters or {}):
        case.path_parameters["execution_id"] = running.held["id"] if case.method == "GET" else running.queued
    if "schedule_id" in (case.path_parameters or {}):
        case.path_parameters["schedule_id"] = running.schedule
    known = {"project_id": running.served.project_id, "key_id": running.key_id, "user_id": running.person.id}
    for name in known.keys() & (case.path_parameters or {}).keys():
        case.path_parameters[name] = known[name]
    body = case.body
    if not isinstance(body, dict):
        return
    for name in ("project_id", "email"):
        if name in body:
            body[name] = running.served.project_id if name == "project_id" else running.person.email
    if isinstance(body.get("worker_id"), str) and case.path != "/worker/v1/register":
        body["worker_id"] = running.hand.id
    if isinstance(body.get("epoch"), str):
        body["epoch"] = running.hand.epoch
    if "claim_id" in body:
        body["wait_seconds"] = 0.05  # the default holds a claim for longer than the test's client waits
    items = body.get("items")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and "execution_id" in item:
            item.update(execution_id=running.held["id"], attempt=running.held["attempt"])


FEW: Any = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)


@BESIDE_A_THREAD
@schema.parametrize()
@settings(FEW, phases=[Phase.generate])
def test_the_document_holds(running: Running, case: "schemathesis.Case[Any]") -> None:
    hold(running, case)


def checks_of(reply: Any) -> Any:
    """The document describes a stream's text, which the check takes for a description of each event."""
    of_stream = "text/event-stream" in str(reply.headers.get("content-type"))
    return tuple(check for check in CHECKS if check is not response_schema_conformance) if of_stream else CHECKS


def hold(running: Running, case: "schemathesis.Case[Any]") -> None:
    """Ask with the case's own names, then with meaningful names; each answer must be as documented."""
    of_user = (case.method.upper(), case.path) in USERS
    for known in (False, True):
        if known and (of_user or names_something(case)):
            running.renew(person=of_user)
            know(case, running)
        reply = case.call(base_url=running.served.server.url, headers=running.headers(case))
        case.validate_response(reply, checks=checks_of(reply))
        if reply.status_code >= 400:
            body = reply.json()
            assert body["error"] and body["error_type"]
