"""Invitations: an e-mail proves nothing, the handed-over link is what gives rights."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from tests.server.serving import Served, serving
from tests.server.users import (
    AUTH,
    PASSWORD,
    PROJECTS,
    Person,
    accept,
    an_email,
    browser,
    cheap_passwords,
    invite,
    person,
)

KEYS = "/api/v1/api-keys"


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    with cheap_passwords():
        async with serving(database) as served:
            yield served


async def invited_by(served: Served, headers: dict[str, str], project_id: str, email: str, role: str = "Admin") -> Any:
    reply = await served.client.post(
        f"{PROJECTS}/{project_id}/members", json={"email": email, "role": role}, headers=headers
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


async def projects_of(client: httpx2.AsyncClient) -> list[str]:
    return [one["id"] for one in (await client.get(PROJECTS)).json()["projects"]]


def says(page: httpx2.Response) -> str:
    return re.sub("<[^>]*>", " ", page.text)


async def test_an_account_that_another_project_made_gets_no_rights_by_its_email(served: Served) -> None:
    """F4: B's admin signs up as somebody else; later A invites that e-mail."""
    email = an_email()
    b, of_b = await served.other_project()
    for_b = await invited_by(served, of_b, b, email)
    async with person(served, email, invitation=for_b["invitation"]) as attacker:
        for_a = await invited_by(served, {}, served.project_id, email)
        assert for_a["member"] is None and for_a["path"] == f"/join?invitation={for_a['invitation']}"
        assert await projects_of(attacker.client) == [b]
        inside = {"x-project-id": served.project_id}
        assert (await attacker.client.get(KEYS, headers=inside)).status_code == 404
        for token in ("", for_b["invitation"], "x" * 200, "\u05e2\u05de", "\0"):
            reply = await attacker.client.post(f"{AUTH}/invitation", json={"invitation": token})
            assert reply.status_code == 422, reply.text
        assert (await attacker.client.post(f"{AUTH}/invitation", json={"invitation": None})).status_code in (400, 422)
        # The person has A's link. Their e-mail has an account that is not theirs, so they take another one.
        async with browser(served) as client:
            page = await client.get(for_a["path"])
            assert page.status_code == 200 and email in says(page)
            form = {"invitation": for_a["invitation"], "email": email, "password": PASSWORD + "!", "do": "new"}
            taken = await client.post("/join", data=form)
            assert taken.status_code == 409 and "has signed up already" in says(taken)
            done = await client.post("/join", data=form | {"email": an_email()})
            assert done.status_code == 303, done.text
            assert await projects_of(client) == [served.project_id]
            assert (await client.get(KEYS, headers=inside)).status_code == 200
        assert await projects_of(attacker.client) == [b]
        reply = await attacker.client.post(f"{AUTH}/invitation", json={"invitation": for_a["invitation"]})
        assert reply.status_code == 422, "it was used"


async def test_who_overtakes_a_pending_invitation_gains_nothing(served: Served) -> None:
    email = an_email()
    for_a = await invited_by(served, {}, served.project_id, email)
    b, of_b = await served.other_project()
    for_b = await invited_by(served, of_b, b, email)
    async with person(served, email, invitation=for_b["invitation"]) as attacker:
        assert await projects_of(attacker.client) == [b]
    async with person(served, an_email(), invitation=for_a["invitation"]) as real:
        assert await projects_of(real.client) == [served.project_id]


async def test_a_free_email_signs_up_as_it_was_invited(served: Served) -> None:
    made = await invited_by(served, {}, served.project_id, an_email(), "Read")
    async with browser(served) as client:
        form = {"invitation": made["invitation"], "email": "other@example.com", "password": PASSWORD, "do": "new"}
        reply = await client.post("/join", data=form)
        assert reply.status_code == 422 and "another e-mail" in says(reply)


async def test_the_page_takes_a_password_or_the_session(served: Served) -> None:
    b, of_b = await served.other_project()
    async with person(served, "ann@example.com", invitation=await invite(served, "ann@example.com")) as ann:
        made = await invited_by(served, of_b, b, "ann@example.com", "Write")
        async with browser(served) as client:
            form = {"invitation": made["invitation"], "email": ann.email, "password": "wrong horse", "do": "known"}
            wrong = await client.post("/join", data=form)
            assert wrong.status_code == 401 and "wrong" in says(wrong)
            foreign = await client.post("/join", data=form, headers={"sec-fetch-site": "cross-site"})
            assert foreign.status_code == 403
            assert (await client.post("/join", data={"invitation": made["invitation"]})).status_code == 401
            done = await client.post("/join", data=form | {"password": PASSWORD})
            assert done.status_code == 303 and set(await projects_of(client)) == {served.project_id, b}
        c, of_c = await served.other_project()
        made = await invited_by(served, of_c, c, "someone@example.com", "Write")
        page = await ann.client.get(made["path"])
        assert "Join with this account" in page.text and ann.email in page.text
        joined = await ann.client.post("/join", data={"invitation": made["invitation"], "do": "join"})
        assert joined.status_code == 303 and c in await projects_of(ann.client)
        again = await ann.client.get(made["path"])
        assert again.status_code == 422 and "not valid" in again.text
        reply = await served.client.post(f"{AUTH}/invitation", json={"invitation": made["invitation"]})
        assert reply.status_code == 403, "a key is not a person"


async def test_an_invitation_is_taken_once(served: Served) -> None:
    people: list[Person] = []
    one, two = await invite(served, "one@example.com"), await invite(served, "two@example.com")
    async with (
        person(served, "one@example.com", invitation=one) as ann,
        person(served, "two@example.com", invitation=two) as bob,
    ):
        people = [ann, bob]
        c, of_c = await served.other_project()
        made = await invited_by(served, of_c, c, "three@example.com")
        replies = await asyncio.gather(
            *(who.client.post(f"{AUTH}/invitation", json={"invitation": made["invitation"]}) for who in people)
        )
        assert sorted(reply.status_code for reply in replies) == [200, 422]
        mine = await invited_by(served, {}, served.project_id, "four@example.com")
        reply = await ann.client.post(f"{AUTH}/invitation", json={"invitation": mine["invitation"]})
        assert (reply.status_code, reply.json()["error_type"]) == (409, "ALREADY_MEMBER")
        async with person(served, "four@example.com", invitation=mine["invitation"]):
            pass


@pytest.mark.parametrize("name", ["n" * 200, "\u05e9\u05dc\u05d5\u05dd", "<script>alert(1)</script>"])
async def test_the_page_shows_names_as_text(served: Served, name: str) -> None:
    async with person(served, "ann@example.com", invitation=await invite(served, "ann@example.com")) as ann:
        mine = await ann.project(name)
        reply = await ann.client.post(f"{PROJECTS}/{mine}/members", json={"email": "b@c.example", "role": "Read"})
        page = await ann.client.get(reply.json()["path"])
        assert "<script" not in page.text and "role" in says(page)
        await accept_late(served, reply.json()["invitation"])


async def accept_late(served: Served, token: str) -> None:
    email = an_email()
    async with person(served, email, invitation=await invite(served, email)) as late:
        await accept(late, token)
