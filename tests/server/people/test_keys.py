"""API keys over HTTP: made and shown once, listed without their secrets, deleted at once."""

import asyncio
from typing import Any

import pytest
from tests.server.serving import Served

from perdure.server.access.auth import Gate
from perdure.store.verbs.base import access
from perdure.wire.base.access import Principal, Role

KEYS = "/api/v1/api-keys"


async def make(served: Served, name: str, **fields: Any) -> Any:
    return await served.client.post(KEYS, json={"name": name, "project_id": served.project_id, **fields})


async def status_with(served: Served, key: str, path: str = "/api/v1/executions") -> int:
    return (await served.client.get(path, headers={"authorization": f"Bearer {key}"})).status_code


async def test_a_key_is_shown_once_and_works(served: Served) -> None:
    reply = await make(served, "deploy")
    made = reply.json()
    assert reply.status_code == 200 and reply.headers["cache-control"] == "no-store"
    assert made["key"].startswith(f"sk_{made['id']}_") and made["last_four_digits"] == made["key"][-4:]
    assert (made["name"], made["role"], made["last_used_at"]) == ("deploy", "write", None)
    assert await status_with(served, made["key"]) == 200
    listed = await served.client.get(f"{KEYS}/project/{served.project_id}")
    assert [key["name"] for key in listed.json()] == ["deploy", "test"], "newest first"
    del made["key"]
    used = listed.json()[0].pop("last_used_at")
    assert {**listed.json()[0], "last_used_at": None} == {**made, "development": False}
    assert used >= made["created_at"]
    assert (await served.client.get(KEYS)).json() == {"project_id": served.project_id, "keys": listed.json()}
    assert served.key.rpartition("_")[2] not in listed.text


@pytest.mark.parametrize(("role", "lists"), [("read", 403), ("write", 403), ("admin", 200)])
async def test_the_role_is_as_asked_and_only_admins_see_keys(served: Served, role: str, lists: int) -> None:
    made = (await make(served, "one", role=role)).json()
    assert made["role"] == role
    assert await status_with(served, made["key"], KEYS) == lists


async def test_a_deleted_key_is_refused_at_once(served: Served) -> None:
    made = (await make(served, "one", role="admin")).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    link = (await served.client.post("/api/v1/sign-in-links", headers=headers)).json()["path"]
    assert await status_with(served, made["key"]) == 200
    reply = await served.client.delete(f"{KEYS}/{made['id']}")
    assert reply.json() == {"message": "API key deleted successfully"}
    assert await status_with(served, made["key"]) == 401, "though it was found good a moment ago"
    assert "name='link'" not in (await served.client.get(link)).text
    assert await status_with(served, served.key) == 200
    again = await served.client.delete(f"{KEYS}/{made['id']}")
    assert (again.status_code, again.json()["error_type"]) == (404, "NOT_FOUND")


async def test_names_are_unique_in_a_project(served: Served) -> None:
    first = (await make(served, "one")).json()
    reply = await make(served, "one")
    assert (reply.status_code, reply.json()["error_type"]) == (400, "DUPLICATE_KEY")
    assert first["id"] in reply.json()["error"] and "'one'" in reply.json()["error"]
    await served.client.delete(f"{KEYS}/{first['id']}")
    assert (await make(served, "one")).status_code == 200


async def test_a_project_has_so_many_keys_and_no_more(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KEYS_MAX", 2)
    assert (await make(served, "second")).status_code == 200
    reply = await make(served, "third")
    assert (reply.status_code, reply.json()["error_type"]) == (400, "LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": ""}, 422),
        ({"name": "   "}, 422),
        ({"name": "x" * 3_000}, 422),
        ({"name": "a\0"}, 422),
        ({"name": "x", "role": "root"}, 422),
        ({"name": "x", "project_id": "0190a5f2-7c1e-7b3a-9d55-0242ac120002"}, 404),
        ({"name": "x", "project_id": "x"}, 404),
    ],
)
async def test_what_cannot_be_made(served: Served, fields: Any, status: int) -> None:
    assert (await make(served, **fields)).status_code == status
    assert len((await served.client.get(KEYS)).json()["keys"]) == 1


async def test_another_projects_keys_do_not_exist(served: Served) -> None:
    project_id, headers = await served.other_project()
    mine = (await served.client.get(KEYS)).json()["keys"][0]["id"]
    assert (await served.client.get(f"{KEYS}/project/{served.project_id}", headers=headers)).status_code == 404
    assert (await served.client.delete(f"{KEYS}/{mine}", headers=headers)).status_code == 404
    reply = await served.client.post(KEYS, json={"name": "x", "project_id": served.project_id}, headers=headers)
    assert reply.status_code == 404
    assert (await make(served, "same")).status_code == 200
    body = {"name": "same", "project_id": project_id}
    assert (await served.client.post(KEYS, json=body, headers=headers)).status_code == 200
    assert await status_with(served, served.key) == 200


async def test_a_key_that_is_deleted_while_it_is_looked_up_is_not_remembered() -> None:
    found, go_on = asyncio.Event(), asyncio.Event()

    async def answer(key: str) -> Principal:
        found.set()
        await go_on.wait()
        return Principal("p", Role.READ, "abcdefgh")

    gate = Gate(answer)
    headers = {b"authorization": b"Bearer sk_abcdefgh_" + b"x" * 32}
    asking = asyncio.create_task(gate.principal(headers, "a"))
    await found.wait()
    gate.forget("abcdefgh")
    go_on.set()
    await asking
    assert gate._known == {}
    await gate.principal(headers, "a")
    assert len(gate._known) == 1
    gate.forget("another1")
    assert len(gate._known) == 1
