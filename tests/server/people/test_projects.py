"""Projects and their members: sight, rights, and no lockout."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from tests.server.serving import Served, serving
from tests.server.users import AUTH, PROJECTS, Person, accept, an_email, browser, invite, member, use_link

from perdure.store.verbs.people import accounts
from perdure.wire.base.access import Role

KEYS = "/api/v1/api-keys"
RUN = "/api/v1/workflows/w/run"
LIST = "/api/v1/executions"
UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


async def add(somebody: Person, project_id: str, email: str, role: str = "Read") -> Any:
    return await somebody.client.post(f"{PROJECTS}/{project_id}/members", json={"email": email, "role": role})


# --- projects ------------------------------------------------------------------------------------------------------


async def test_who_makes_a_project_is_its_admin(served: Served) -> None:
    async with member(served) as ann, member(served, "Read") as bob:
        reply = await ann.client.post(PROJECTS, json={"name": " Shop ", "description": "Sells things", "unknown": 1})
        made = reply.json()
        assert (made["name"], made["description"], made["created_at"]) == ("Shop", "Sells things", made["updated_at"])
        plain = (await ann.client.post(PROJECTS, json={"name": "Plain", "description": None})).json()
        assert set(plain) == {"id", "name", "created_at", "updated_at"}, "no description, no key for it"
        assert (await ann.client.get(f"{PROJECTS}/{made['id']}")).json() == made
        listed = (await ann.client.get(PROJECTS)).json()["projects"]
        assert [one["name"] for one in listed] == ["Plain", "Shop", "default"], "newest first"
        assert [one["name"] for one in (await bob.client.get(PROJECTS)).json()["projects"]] == ["default"]
        (one,) = (await ann.client.get(f"{PROJECTS}/{made['id']}/members")).json()
        assert (one["user_id"], one["role"], one["created_at"]) == (ann.id, "Admin", made["created_at"])
        user = {"id": ann.id, "email": ann.email, "first_name": "Ann", "last_name": "Lee", "display_name": "Ann Lee"}
        assert one["user"] == user
        for path in (f"{PROJECTS}/{made['id']}", f"{PROJECTS}/{made['id']}/members", f"{KEYS}/project/{made['id']}"):
            reply = await bob.client.get(path)
            assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")
        assert (await ann.client.get(f"{PROJECTS}/no-id")).status_code == 400


async def test_a_key_has_its_project_and_makes_none(served: Served) -> None:
    reply = await served.client.get(PROJECTS)
    assert [one["id"] for one in reply.json()["projects"]] == [served.project_id]
    assert (await served.client.get(f"{PROJECTS}/{served.project_id.upper()}")).json()["name"] == "default"
    assert (await served.client.get(f"{PROJECTS}/{UNKNOWN}")).status_code == 404
    assert (await served.client.get(f"{PROJECTS}/{served.project_id}/members")).json() == []
    reply = await served.client.post(PROJECTS, json={"name": "x"})
    assert (reply.status_code, reply.json()["error_type"]) == (403, "FORBIDDEN")


async def test_a_project_changes_its_name(served: Served) -> None:
    path = f"{PROJECTS}/{served.project_id}"
    before = (await served.client.get(path)).json()
    changed = (await served.client.patch(path, json={"name": "Shop", "description": "d"})).json()
    assert (changed["name"], changed["description"]) == ("Shop", "d") and changed["updated_at"] > before["updated_at"]
    changed = (await served.client.patch(path, json={"description": ""})).json()
    assert changed["name"] == "Shop" and "description" not in changed
    assert (await served.client.get(path)).json() == changed
    for body, status in (({"name": " "}, 422), ({"name": "a\n"}, 200), ({"description": "a\0"}, 422), ({"x": 1}, 422)):
        assert (await served.client.patch(path, json=body)).status_code == status


async def test_so_many_projects_and_no_more(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "PROJECTS_MAX", 2)
    async with member(served) as ann:
        await ann.project()
        reply = await ann.client.post(PROJECTS, json={"name": "x"})
        assert (reply.status_code, reply.json()["error_type"]) == (400, "TOO_MANY_PROJECTS")


# --- which project a user means ------------------------------------------------------------------------------------


async def test_a_user_names_the_project(served: Served) -> None:
    async with member(served) as ann:
        mine = await ann.project()
        body = {"payload": 1, "accept_early": True}
        reply = await ann.client.post(RUN, json=body)
        assert reply.status_code == 400 and "X-Project-ID" in reply.json()["error"]
        for header in ("X-Project-ID", "Project-ID"):
            assert (await ann.client.post(RUN, json=body, headers={header: mine.upper()})).status_code == 200
        for name, count in ((mine, 2), (served.project_id, 0)):
            listed = await ann.client.get(LIST, headers={"x-project-id": name})
            assert len(listed.json()["executions"]) == count
        for other in (UNKNOWN, "no-id"):
            reply = await ann.client.post(RUN, json=body, headers={"X-Project-ID": other})
            assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")
        both = {"X-Project-ID": mine, "Project-ID": served.project_id}
        assert (await ann.client.get(LIST, headers=both)).status_code == 404
        reply = await ann.client.get(f"{PROJECTS}/{mine}/members", headers={"X-Project-ID": served.project_id})
        assert reply.status_code == 404, "a path and a header that disagree"


async def test_a_page_reads_a_stream_of_a_project_that_its_query_names(served: Served) -> None:
    """An EventSource sends no headers."""
    async with member(served) as ann:
        url = f"/api/v1/events/stream?topic=t&project_id={served.project_id}"
        async with ann.client.stream("GET", url) as reply:
            assert reply.status_code == 200
        url = f"/api/v1/events/stream?topic=t&project_id={UNKNOWN}"
        assert (await ann.client.get(url)).status_code == 404


async def test_without_keys_every_project_is_the_default_one(database: str) -> None:
    async with serving(database, insecure_local=True) as served, browser(served) as client:
        for path in (f"{PROJECTS}/{UNKNOWN}", f"{PROJECTS}/{served.project_id}"):
            assert (await client.get(path)).json()["id"] == served.project_id
        assert [one["id"] for one in (await client.get(PROJECTS)).json()["projects"]] == [served.project_id]
        reply = await client.post(
            RUN, json={"payload": 1, "accept_early": True}, headers={"X-Project-ID": str(uuid4())}
        )
        assert reply.status_code == 200
        assert (await client.post(KEYS, json={"name": "x", "project_id": UNKNOWN})).status_code == 200
        assert len((await client.get(f"{KEYS}/project/{UNKNOWN}")).json()) == 2
        assert (await client.post(PROJECTS, json={"name": "x"})).status_code == 401


# --- members -------------------------------------------------------------------------------------------------------


async def test_a_role_is_what_a_user_may_do(served: Served) -> None:
    start = {"payload": 1, "accept_early": True}
    async with member(served, "Read") as reader, member(served, "Write") as writer, member(served) as admin:
        project = {"x-project-id": served.project_id}
        for somebody, found in ((reader, [200, 403, 403]), (writer, [200, 200, 403]), (admin, [200, 200, 200])):
            replies = [
                await somebody.client.get(LIST, headers=project),
                await somebody.client.post(RUN, json=start, headers=project),
                await somebody.client.get(KEYS, headers=project),
            ]
            assert [reply.status_code for reply in replies] == found


async def test_another_role_and_an_end_count_at_once(served: Served) -> None:
    async with member(served) as ann, member(served) as bob:
        mine = await ann.project()
        project = {"x-project-id": mine}
        assert (await bob.client.get(LIST, headers=project)).status_code == 404
        reply = await add(ann, mine, bob.email.upper())
        assert reply.json()["member"] is None
        assert (await bob.client.get(LIST, headers=project)).status_code == 404, "not before they accept"
        await accept(bob, reply.json()["invitation"])
        again = await add(ann, mine, bob.email)
        assert (again.status_code, again.json()["error_type"]) == (409, "ALREADY_MEMBER")
        assert (await bob.client.get(LIST, headers=project)).status_code == 200
        start = {"payload": 1, "accept_early": True}
        assert (await bob.client.post(RUN, json=start, headers=project)).status_code == 403
        changed = await ann.client.put(f"{PROJECTS}/{mine}/members/{bob.id}", json={"role": "Write"})
        assert changed.json()["role"] == "Write" and changed.json()["updated_at"] > changed.json()["created_at"]
        assert (await bob.client.post(RUN, json=start, headers=project)).status_code == 200
        listed = (await bob.client.get(f"{PROJECTS}/{mine}/members")).json()
        assert [(one["user"]["email"], one["role"]) for one in listed] == [(ann.email, "Admin"), (bob.email, "Write")]
        assert (await ann.client.delete(f"{PROJECTS}/{mine}/members/{bob.id}")).status_code == 204
        assert (await bob.client.get(LIST, headers=project)).status_code == 404
        for reply in (
            await ann.client.delete(f"{PROJECTS}/{mine}/members/{bob.id}"),
            await ann.client.put(f"{PROJECTS}/{mine}/members/{bob.id}", json={"role": "Read"}),
        ):
            assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"email": "a@b.example", "role": "Owner"}, 422),
        ({"email": "a@b.example", "role": "admin"}, 422),
        ({"email": "nobody", "role": "Read"}, 422),
        ({"email": "a@b.example"}, 422),
        ({"email": "a@b.example", "role": "Read", "x": 1}, 422),
    ],
)
async def test_who_cannot_be_added(served: Served, body: Any, status: int) -> None:
    reply = await served.client.post(f"{PROJECTS}/{served.project_id}/members", json=body)
    assert reply.status_code == status and "body" in reply.json()["error"]


async def test_the_last_admin_stays(served: Served) -> None:
    async with member(served) as ann, member(served, "Write") as bob:
        path = f"{PROJECTS}/{served.project_id}/members/{ann.id}"
        for reply in (
            await ann.client.delete(path),
            await ann.client.put(path, json={"role": "Write"}),
            await served.client.delete(path),
        ):
            assert (reply.status_code, reply.json()["error_type"]) == (409, "LAST_ADMIN")
        assert (await ann.client.put(path, json={"role": "Admin"})).status_code == 200
        other = f"{PROJECTS}/{served.project_id}/members/{bob.id}"
        assert (await ann.client.put(other, json={"role": "Admin"})).status_code == 200
        assert (await ann.client.delete(path)).status_code == 204
        assert (await bob.client.delete(other)).status_code == 409


async def test_two_admins_who_remove_each_other_leave_one(served: Served) -> None:
    async with member(served) as ann, member(served) as bob:
        members = f"{PROJECTS}/{served.project_id}/members"
        replies = await asyncio.gather(
            *(served.client.delete(f"{members}/{somebody.id}") for somebody in (ann, bob)),
        )
        assert sorted(reply.status_code for reply in replies) == [204, 409]
        assert [one["role"] for one in (await served.client.get(members)).json()] == ["Admin"]


async def test_a_key_that_only_reads_sees_no_whole_emails(served: Served) -> None:
    members = f"{PROJECTS}/{served.project_id}/members"
    async with member(served, "Read") as ann:
        for role, email in ((Role.READ, f"{ann.email[0]}***@example.com"), (Role.WRITE, ann.email)):
            key = {"authorization": f"Bearer {await served.key_of(role)}"}
            (one,) = (await served.client.get(members, headers=key)).json()
            assert (one["user"]["email"], one["user"]["display_name"]) == (email, "Ann Lee")
        (one,) = (await ann.client.get(members)).json()
        assert one["user"]["email"] == ann.email, "members know each other"


async def test_a_project_asks_for_many_emails_only_slowly(database: str) -> None:
    async with serving(database, auth_failures_max=3) as served, member(served) as ann:
        other = await ann.project()
        statuses = [(await add(ann, other, an_email())).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await add(ann, await ann.project(), an_email())).status_code == 200, "each project by itself"


async def test_so_many_members_and_no_more(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MEMBERS_MAX", 1)
    await invite(served, an_email())
    body = {"email": an_email(), "role": "Read"}
    reply = await served.client.post(f"{PROJECTS}/{served.project_id}/members", json=body)
    assert (reply.status_code, reply.json()["error_type"]) == (400, "TOO_MANY_MEMBERS")


# --- keys of any project -------------------------------------------------------------------------------------------


async def test_an_admin_makes_keys_of_their_projects_and_of_no_others(served: Served) -> None:
    async with member(served, "Write") as ann:
        mine = await ann.project()
        project = {"x-project-id": mine}
        reply = await ann.client.post(KEYS, json={"name": "deploy", "project_id": mine}, headers=project)
        made = reply.json()
        assert reply.status_code == 200, reply.text
        key = {"authorization": f"Bearer {made['key']}"}
        assert (await served.client.get(f"{PROJECTS}", headers=key)).json()["projects"][0]["id"] == mine
        (listed,) = (await ann.client.get(f"{KEYS}/project/{mine}")).json()
        assert listed["id"] == made["id"] and listed["last_used_at"] is not None
        theirs = (await served.client.get(KEYS)).json()["keys"][0]["id"]
        for reply, status in (
            (await ann.client.get(f"{KEYS}/project/{served.project_id}"), 403),
            (await ann.client.get(f"{KEYS}/project/{UNKNOWN}"), 404),
            (await ann.client.get(f"{KEYS}/project/no-id"), 400),
            (await ann.client.post(KEYS, json={"name": "x", "project_id": served.project_id}, headers=project), 404),
            (await ann.client.post(KEYS, json={"name": "x", "project_id": mine}), 400),
            (await ann.client.delete(f"{KEYS}/{theirs}", headers=project), 404),
            (await ann.client.delete(f"{KEYS}/no-id", headers=project), 400),
        ):
            assert reply.status_code == status, reply.text
        assert (await ann.client.delete(f"{KEYS}/{made['id']}", headers=project)).status_code == 200
        assert (await served.client.get(LIST, headers=key)).status_code == 401


async def test_a_user_and_their_project_are_not_a_keys(served: Served) -> None:
    """A key sees only its project's members."""
    async with member(served) as ann:
        mine = await ann.project()
        key = {"authorization": f"Bearer {await served.key_of(Role.ADMIN)}"}
        for path in (f"{PROJECTS}/{mine}", f"{PROJECTS}/{mine}/members", f"{KEYS}/project/{mine}"):
            assert (await served.client.get(path, headers=key)).status_code == 404
        assert (await served.client.get(f"{AUTH}/me", headers=key)).status_code == 403


# --- the live page -------------------------------------------------------------------------------------------------


async def test_a_users_link_opens_one_project_and_ends_with_the_users_session(served: Served) -> None:
    await served.start("of-default")
    async with member(served) as ann, browser(served) as other:
        mine = await ann.project()
        body = {"payload": 1, "accept_early": True}
        await ann.client.post("/api/v1/workflows/of-mine/run", json=body, headers={"x-project-id": mine})
        link = (await ann.client.post("/api/v1/sign-in-links", headers={"x-project-id": mine})).json()["path"]
        assert (await use_link(other, link)).status_code == 303
        page = (await other.get("/api/v1/executions")).text
        assert "of-mine" in page and "of-default" not in page
        assert (await other.get("/api/v1/me")).json()["project_id"] == mine
        await ann.client.post(f"{AUTH}/signout")
        for client in (ann.client, other):
            assert (await client.get("/api/v1/me")).status_code == 401
