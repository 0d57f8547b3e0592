"""Signing a browser in through the API, and the cookie's reach."""

from typing import Any

import pytest
from tests.server.serving import Served, serving
from tests.server.users import AUTH, PASSWORD, PROJECTS, browser, member

from perdure.wire.base.access import Role

SIGN_IN = "/api/v1/sign-in"
EXECUTIONS = "/api/v1/executions"


async def token_of_link(served: Served, **headers: str) -> str:
    link: str = (await served.client.post("/api/v1/sign-in-links", headers=headers)).json()["path"]
    return link.partition("=")[2]


@pytest.mark.parametrize("way", ["key", "link"])
async def test_a_key_or_a_link_signs_in_to_the_api(served: Served, way: str) -> None:
    id = await served.start()
    sent = {way: served.key if way == "key" else await token_of_link(served)}
    async with browser(served) as client:
        assert (await client.get(EXECUTIONS)).status_code == 401
        reply = await client.post(SIGN_IN, json=sent)
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"kind": "key", "role": "admin", "project_id": served.project_id, "user": None}
        assert "HttpOnly" in reply.headers["set-cookie"]
        assert [one["id"] for one in (await client.get(EXECUTIONS)).json()["executions"]] == [id]
        assert (await client.post(f"{EXECUTIONS}/{id}/cancel")).status_code == 200
        assert (await client.post(f"{AUTH}/signout")).status_code == 200
        assert (await client.get(EXECUTIONS)).status_code == 401


async def test_a_cookie_changes_nothing_from_another_sites_page(served: Served) -> None:
    id = await served.start()
    async with browser(served) as client:
        await client.post(SIGN_IN, json={"key": served.key})
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "", "origin": "https://evil.example"}):
            reply = await client.post(f"{EXECUTIONS}/{id}/cancel", headers=headers)
            assert reply.status_code == 403
    assert (await served.client.get(f"{EXECUTIONS}/{id}")).json()["status"] == "pending"


async def test_a_session_has_the_role_of_its_key_and_ends_with_it(served: Served) -> None:
    key = await served.key_of(Role.READ)
    async with browser(served) as client:
        assert (await client.post(SIGN_IN, json={"key": key})).json()["role"] == "read"
        assert (await client.get(EXECUTIONS)).status_code == 200
        assert (await client.post("/api/v1/workflows/w/run", json={"payload": 1})).status_code == 403
        assert (await client.get("/api/v1/api-keys")).status_code == 403
        assert (await client.get(f"{AUTH}/me")).status_code == 403, "a key is not a user"
        assert (await served.client.delete(f"/api/v1/api-keys/{key.split('_')[1]}")).status_code < 300
        assert (await client.get(EXECUTIONS)).status_code == 401


async def test_a_session_stays_in_its_project(served: Served) -> None:
    other, _ = await served.other_project()
    async with browser(served) as client:
        await client.post(SIGN_IN, json={"key": served.key})
        assert (await client.get(EXECUTIONS, headers={"x-project-id": other})).status_code == 404


async def test_a_user_signs_in_and_names_the_project(served: Served) -> None:
    async with member(served) as ann, browser(served) as client:
        reply = await client.post(SIGN_IN, json={"email": f" {ann.email.upper()} ", "password": PASSWORD})
        shown = reply.json()
        assert (shown["kind"], shown["role"], shown["user"]["email"]) == ("user", None, ann.email)
        assert (await client.get(f"{AUTH}/me")).json() == shown["user"]
        mine = (await client.get(PROJECTS)).json()["projects"][0]["id"]
        assert (await client.get(EXECUTIONS)).status_code == 400
        assert (await client.get(EXECUTIONS, headers={"x-project-id": mine})).status_code == 200
        link = await token_of_link(served, **ann.within(mine))
        by_link = (await client.post(SIGN_IN, json={"link": link})).json()
        assert (by_link["kind"], by_link["project_id"], by_link["user"]) == ("user", mine, shown["user"])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 400),
        ({"key": "sk_wrong", "link": "t"}, 400),
        ({"email": "a@example.com"}, 400),
        ({"key": 7}, 422),
        ({"name": "x"}, 422),
        ({"key": "sk_wrong"}, 401),
        ({"key": "schlüssel"}, 401),
        ({"key": "us_token"}, 401),
        ({"link": "used"}, 401),
        ({"email": "nobody@example.com", "password": "not the one"}, 401),
    ],
)
async def test_what_is_wrong_signs_nobody_in(served: Served, sent: Any, status: int) -> None:
    async with browser(served) as client:
        reply = await client.post(SIGN_IN, json=sent)
        assert (reply.status_code, "set-cookie" in reply.headers) == (status, False), reply.text


async def test_other_sites_do_not_sign_in(served: Served) -> None:
    async with browser(served) as client:
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": ""}):
            assert (await client.post(SIGN_IN, json={"key": served.key}, headers=headers)).status_code == 403


async def test_wrong_keys_are_slowed_down_and_good_ones_are_not(database: str) -> None:
    async with serving(database, auth_failures_max=3) as served, browser(served) as client:
        statuses = [(await client.post(SIGN_IN, json={"key": "sk_wrong"})).status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert (await client.post(SIGN_IN, json={"key": served.key})).status_code == 200
