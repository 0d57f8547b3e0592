"""The whole table of routes: the callers of each, and the separation of projects.

A new route is covered at once: a request from its document makes things in one project, and the other project asks for
them. Facts missing in documents stand in `tests/server/requests.py` and `Everything.build`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from tests.server.requests import IDS, NOBODY, PROTOCOL, ROUTES, URL, body_of, name_of, query_of, url_of
from tests.server.serving import NO_TLS, Hand, Served, serving
from tests.server.users import PROJECTS, Person, member, person

from perdure.engine.base.calls import HttpAnswer
from perdure.server.http.routing import Route
from perdure.wire.base.access import Caller, Role

Json = Any

WITHOUT_A_ROLE: Final = {
    "health": "tells nothing",
    "ready": "tells nothing",
    "openapi_document": "the same for everybody",
    "openapi_document_of_contract": "the same for everybody",
    "docs_page": "the same for everybody",
    "asset": "the same for everybody",
    "show_metrics": "asks for READ itself, unless a setting opens it",
    "get_approval": "asks for READ itself, or for a signed link",
    "submit_approval": "asks for WRITE itself, or for a signed link",
    "approval_page_of": "looks for a session itself, or for a signed link",
    "answer_on_page": "looks for a session itself, or for a signed link",
    "approve_style": "the same for everybody",
    "sign_in_with_key": "the key, the password or the link is the proof",
    "sign_in_browser": "the key, the password or the link is the proof",
    "sign_out_on_page": "ends the session of its cookie",
    "dashboard": "the same for everybody; its data come from routes with roles",
    "sign_in": "shows a button",
    "join_page": "the invitation's token is the proof",
    "join": "the invitation's token is the proof",
    "accept_invitation": "a user, whatever project",
    "signup": "has a setting, and invitations",
    "signin": "the password is the proof",
    "signout": "ends the session that it is asked with",
    "get_me": "a user, whatever project",
    "update_me": "a user, whatever project",
    "change_password": "a user, whatever project",
    "create_project": "a user, whatever project",
}
RANK: Final = {role: rank for rank, role in enumerate((Role.READ, Role.WORK, Role.WRITE, Role.ADMIN))}
KEYED: Final = [route for route in ROUTES if route.role is not None]

SECRET: Final = "the-secret-of-a"
"""Every thing with a text in project A holds the secret."""


async def ask(client: httpx2.AsyncClient, route: Route, **request: Any) -> tuple[int, str]:
    """A route's answer: status and text. For a successful stream, only the beginning."""
    async with client.stream(route.method, **request) as reply:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            return reply.status_code, ""
        await reply.aread()
        return reply.status_code, reply.text


CHANGING: Final = re.compile("/workers/|/stats|/overview|/calendar")
LASTING: Final = ("id", "execution_id", "webhook_id", "url", "created_at")
"""The lasting fields of a delivery."""


@asynccontextmanager
async def quiet(store: str) -> AsyncIterator[Served]:
    """A server whose polls are short and whose streams are silent, so that every route answers at once."""
    values: dict[str, Any] = {
        "poll_seconds_max": 0.05,
        "lease_seconds": 600.0,
        "signup": True,
        "auth_failures_max": 100_000,
    }
    async with serving(store, **values, outbound_hosts=[NOBODY]) as served:
        # Nobody answers, and nobody says so: what is to be called must not change by itself while somebody looks.
        served.engine.outbound.request = _silence  # type: ignore[method-assign]
        yield served


async def _silence(*_: Any, **__: Any) -> HttpAnswer:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


@asynccontextmanager
async def everybody(served: Served) -> AsyncIterator[dict[Role, Person]]:
    """A member of each role."""
    async with member(served) as admin, member(served, "Read") as reader, member(served, "Write") as writer:
        yield {Role.READ: reader, Role.WRITE: writer, Role.ADMIN: admin}


# --- roles ---------------------------------------------------------------------------------------------------------


def test_every_route_has_a_role_or_a_reason() -> None:
    assert {route.name for route in ROUTES if route.role is None} == set(WITHOUT_A_ROLE)


def test_what_changes_something_needs_more_than_to_read() -> None:
    harmless = {"wait_for_executions", "make_sign_in_link", "mcp"}
    """`mcp` checks the role of each operation itself: tests/mcp/test_server.py."""
    assert {route.name for route in KEYED if not route.safe and route.role is Role.READ} <= harmless


async def test_each_route_takes_the_roles_it_says(database: str) -> None:
    """A key and a member of each role at every route: refused below the route's role, and never above."""
    async with quiet(database) as served, everybody(served) as people:
        wrong: list[str] = []
        for role, somebody in people.items():
            key = {"authorization": f"Bearer {await served.key_of(role)}"}
            user = somebody.within(served.project_id)
            for route in KEYED:
                assert route.role is not None
                url = url_of(route, {"project_id": served.project_id})
                for who, headers in (("key", key), ("user", user)):
                    status, text = await ask(
                        served.client,
                        route,
                        url=url,
                        params=query_of(route),
                        json=body_of(route),
                        headers=headers | PROTOCOL,
                    )
                    may = RANK[role] >= RANK[route.role]
                    if (may and status in (401, 403)) or (not may and (status != 403 or "FORBIDDEN" not in text)):
                        wrong.append(f"{name_of(route)} as {who} with {role}: {status} {text}")
        assert "\n".join(wrong) == ""


async def test_a_users_route_takes_no_key(database: str) -> None:
    async with quiet(database) as served:
        for route in ROUTES:
            if route.caller in (Caller.USER, Caller.SESSION):
                for role in Role:
                    headers = {"authorization": f"Bearer {await served.key_of(role)}"}
                    status, text = await ask(
                        served.client, route, url=url_of(route), json=body_of(route), headers=headers
                    )
                    assert status == 403 and "FORBIDDEN" in text, name_of(route)


# --- projects ------------------------------------------------------------------------------------------------------


TOLD_ANYWAY: Final = {"worker_heartbeat": "a worker that is not known is told to register anew"}
"""Routes that answer a missing thing without 404, and why."""
DESTRUCTIVE: Final = ("erase", "cancel", "drain", "rotate", "retire", "remove", "delete", "claim", "report", "beat")


class Everything:
    """A thing of each kind in a project, by the names in paths."""

    def __init__(self, owner: Person, project_id: str, key: str, address: str) -> None:
        headers = {"authorization": f"Bearer {key}", **PROTOCOL}
        self.client = httpx2.AsyncClient(base_url=address, headers=headers, timeout=60, verify=NO_TLS)
        self.ids: dict[str, str] = {"project_id": project_id, "user_id": owner.id, "key_id": key.split("_")[1]}
        self.secrets = {SECRET}

    @property
    def names(self) -> dict[str, str]:
        """The value of each name in a path: a known id, or the common word."""
        return {name: self.ids.get(name, "w") for route in KEYED for name in route.path_names}

    async def post(self, path: str, body: Json) -> Json:
        reply = await self.client.post(path, json=body)
        assert reply.status_code in (200, 204), reply.text
        return reply.json() if reply.content else None

    async def build(self) -> None:
        """Make every thing; `SECRET` stands in each text."""
        hand = Hand(self.client)
        await hand.register()
        body = {"payload": {"said": SECRET}, "tags": {"t": SECRET}, "key": SECRET, "session_id": "w"}
        started = await self.post("/api/v1/workflows/w/run", body)
        self.ids["execution_id"] = started["execution_id"]
        self.ids["trace_id"] = started["execution_id"].replace("-", "")
        item = await hand.claim()
        assert item is not None
        wait = {"type": "wait", "key": "w", "fingerprint": None, "data": {"said": SECRET}}
        await hand.report(item, entries=[wait], logs=[{"at_us": 1, "level": 20, "text": SECRET}])
        schedule = {"workflow_id": "w", "cron": "0 9 * * *", "timezone": "UTC", "key": "k", "payload": SECRET}
        self.ids["schedule_id"] = (await self.post("/api/v1/schedules", schedule))["schedule_id"]
        project_id = self.ids["project_id"]
        await self.post("/api/v1/api-keys", {"name": SECRET, "project_id": project_id})
        await self.post("/api/v1/workers/deployments", {"deployment_id": "pushed"})
        place = {
            "project_id": project_id,
            "deployment_id": "pushed",
            "push_endpoint_url": URL + "worker",
            "mode": "push",
        }
        self.ids["worker_id"] = (await self.post("/api/v1/workers/register", place))["worker_id"]
        trigger = {"workflow_id": "w", "deployment_id": "default", "event_topic": "quiet", "batch_size": 1}
        await self.post("/api/v1/event-triggers/register", trigger)
        (made,) = (await self.client.get("/api/v1/event-triggers")).json()["triggers"]
        self.ids["trigger_id"] = made["id"]
        await self._fill()
        secret = (await self.client.get("/api/v1/signing-secret")).json()
        self.secrets |= {value for value in secret.values() if isinstance(value, str) and value.startswith("whsec_")}

    async def _fill(self) -> None:
        """Call every other route that makes things, and note the ids in the answers."""
        for route in KEYED:
            if not route.safe and route.method != "DELETE" and not route.name.startswith(DESTRUCTIVE):
                values: dict[str, Json] = {
                    "any": SECRET,
                    "description": SECRET,
                    "summary": SECRET,
                    "system_prompt": SECRET,
                }
                values |= {"project_id": self.ids["project_id"], "deployment_id": "default", "version": None}
                values["expires_in_seconds"] = 3_600
                status, text = await ask(
                    self.client, route, url=url_of(route, self.names), json=body_of(route, **values)
                )
                if status == 200 and text:
                    said = json.loads(text)
                    self._note(said)
                    self._note_id(route, said)

    def _note_id(self, made: Route, said: Json) -> None:
        """Note a made thing's `id` for the paths below the route."""
        for route in KEYED:
            rest = route.path.removeprefix(made.path + "/{")
            if rest != route.path and isinstance(said, dict) and isinstance(said.get("id"), str):
                self.ids.setdefault(rest.partition("}")[0], said["id"])

    def _note(self, said: Json) -> None:
        if isinstance(said, dict):
            for name, value in said.items():
                known = name in {name for route in KEYED for name in route.path_names} and value != SECRET
                if known and isinstance(value, str):
                    self.ids.setdefault(name, value)
                self._note(value)
        elif isinstance(said, list):
            for value in said:
                self._note(value)

    async def settled(self) -> dict[str, Json]:
        """The answers once nothing changes unprompted any more."""
        before = await self.seen()
        async with asyncio.timeout(60):
            while (found := await self.seen()) != before:
                before = found
        return before

    async def seen(self) -> dict[str, Json]:
        """The answers that the project's admin reads at every reading route."""
        found: dict[str, Json] = {}
        for route in KEYED:
            # Whether a worker answers changes by itself, and so does the time that numbers are of.
            if route.safe and route.media_type == "application/json" and not CHANGING.search(route.path):
                status, text = await ask(self.client, route, url=url_of(route, self.names), params=query_of(route))
                if status == 200 and route.path.endswith(
                    "/deliveries"
                ):  # what becomes of a call changes by itself, too
                    kept = [{name: one[name] for name in LASTING} for one in json.loads(text)["deliveries"]]
                    text = json.dumps(kept)
                found[name_of(route)] = (status, text)
        return found


@asynccontextmanager
async def two_projects(served: Served) -> AsyncIterator[tuple[Everything, dict[str, dict[str, str]]]]:
    """Project A with every thing, and headers of B's callers: an admin key, an admin, and either naming A."""
    async with person(served) as ann, person(served) as bob:
        a, b = await ann.project("a"), await bob.project("b")
        everything = Everything(ann, a, await served.key_of(Role.ADMIN, project_id=a), str(served.client.base_url))
        async with everything.client:
            await everything.build()
            key = {"authorization": f"Bearer {await served.key_of(Role.ADMIN, project_id=b)}"}
            others = {"a key of B": key, "a key of B that names A": key | {"x-project-id": a}}
            yield everything, others | {"a user of B": bob.within(b), "a user of B who names A": bob.within(a)}


def aimed(body: Json, ids: dict[str, str]) -> Json:
    """A body whose fields name existing ids, at any depth."""
    if isinstance(body, dict):
        known = {**ids, "parent_execution_id": ids["execution_id"], "root_execution_id": ids["execution_id"]}
        return {
            name: known.get(name, aimed(value, ids)) if not isinstance(value, dict | list) else aimed(value, ids)
            for name, value in body.items()
        }
    if isinstance(body, list):
        return [aimed(value, ids) if isinstance(value, dict | list) else ids["execution_id"] for value in body]
    return body


async def test_what_belongs_to_a_project_does_not_exist_for_another(database: str) -> None:
    """B asks every route for A's things, with A's ids in path, query and body: each is missing, and unchanged."""
    async with quiet(database) as served, two_projects(served) as (everything, others):
        before = await everything.settled()
        assert everything.ids.keys() >= IDS
        showing = {name for name, (_, text) in before.items() if SECRET in text}
        assert len(showing) >= 15, "there is something to see"
        wrong: list[str] = []
        for route in (*KEYED, *(route for route in ROUTES if route.asks)):
            named = not IDS.isdisjoint(route.path_names) and route.name not in TOLD_ANYWAY
            for who, headers in others.items():
                if route.caller is Caller.EITHER and "names A" in who:
                    continue  # the former asks for no project
                for body in (body_of(route), aimed(body_of(route), everything.ids)):
                    status, text = await ask(
                        served.client,
                        route,
                        url=url_of(route, everything.names),
                        params=query_of(route),
                        json=body,
                        headers=headers | PROTOCOL,
                    )
                    told = any(secret in text for secret in everything.secrets)
                    if told or status >= 500 or (status != 404 and (named or "names A" in who)):
                        wrong.append(f"{name_of(route)} by {who}: {status} {text}")
        assert "\n".join(wrong) == ""
        after = await everything.seen()
        assert {name: said for name, said in after.items() if said != before[name]} == {}


async def test_a_user_without_a_project_sees_none(database: str) -> None:
    async with quiet(database) as served, person(served) as nobody:
        assert (await nobody.client.get(PROJECTS)).json() == {"projects": []}
        for route in KEYED:
            if route.caller is not Caller.EITHER:
                for headers, found in ((nobody.within(served.project_id), 404), ({}, 400)):
                    if not headers and route.project_at is not None:
                        continue  # the path names it
                    reply = await nobody.client.request(
                        route.method, url_of(route, {"project_id": served.project_id}), headers=headers | PROTOCOL
                    )
                    assert reply.status_code == found, (name_of(route), reply.text)
