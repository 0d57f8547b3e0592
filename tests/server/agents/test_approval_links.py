"""Links to questions: makers and ends."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.server.agents.test_approvals import asked, link_of, path_of, submit
from tests.server.serving import LASTING, Hand, Served, serving
from tests.server.users import PROJECTS, cheap_passwords, member

from perdure.wire.base.access import Role

Json = Any
LINKS = "/api/v1/approval-links"
ROTATE = "/api/v1/signing-secret/rotate"
NOBODY = {"authorization": ""}


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    with cheap_passwords():
        async with serving(database, signup=True, **LASTING) as served:
            yield served


@pytest.fixture
async def id(served: Served) -> str:
    hand = Hand(served.client)
    await hand.register()
    return await asked(served, hand, {"refund": 1})


async def opens(served: Served, id: str, link: str) -> bool:
    reply = await served.client.get(path_of(id), params={"link": link}, headers=NOBODY)
    assert reply.status_code in (200, 401), reply.text
    return reply.status_code == 200


async def listed(served: Served) -> list[Json]:
    links: list[Json] = (await served.client.get(LINKS)).json()["links"]
    return links


async def made(served: Served, id: str, headers: dict[str, str], name: str = "ceo@a.example") -> str:
    reply = await served.client.post(f"{path_of(id)}/links", json={"name": name}, headers=headers)
    assert reply.status_code == 200, reply.text
    link: str
    [link] = parse_qs(urlsplit(reply.json()["path"]).query)["link"]
    return link


async def test_a_link_ends_with_the_key_that_made_it(served: Served, id: str) -> None:
    key = await served.key_of(Role.WRITE)
    link = await made(served, id, {"authorization": f"Bearer {key}"})
    assert await opens(served, id, link)
    [one] = await listed(served)
    assert one["name"] == "ceo@a.example" and one["made_by"].startswith("key 'write-") and one["used_at"] is None
    await served.client.delete(f"/api/v1/api-keys/{key.split('_')[1]}")
    assert not await opens(served, id, link)
    reply = await served.client.post(f"{path_of(id)}/submit?link={link}", json={"data": True}, headers=NOBODY)
    assert reply.status_code == 401
    assert await listed(served) == []


async def test_a_link_ends_with_its_makers_membership(served: Served, id: str) -> None:
    async with member(served, "Write") as ann:
        link = await made(served, id, ann.within(served.project_id))
        [one] = await listed(served)
        assert one["made_by"] == f"user {ann.email!r}"
        at = f"{PROJECTS}/{served.project_id}/members/{ann.id}"
        await served.client.put(at, json={"role": "Read"})
        assert not await opens(served, id, link), "a reader may not answer, and neither may their links"
        await served.client.put(at, json={"role": "Write"})
        assert await opens(served, id, link)
        await served.client.delete(at)
        assert not await opens(served, id, link) and await listed(served) == []


async def test_a_link_ends_with_the_secret(served: Served, id: str) -> None:
    first = await link_of(served, id)
    await served.client.post(ROTATE, json={"overlap_hours": 1})
    second = await link_of(served, id)
    assert await opens(served, id, first) and await opens(served, id, second), "the secrets overlap"
    until = (await served.client.get("/api/v1/signing-secret")).json()["previous_expires_at"]
    assert [one["expires_at"] == until for one in await listed(served)] == [False, True]
    await served.client.post(ROTATE, json={"overlap_hours": 0})
    assert not await opens(served, id, first) and not await opens(served, id, second)
    assert await listed(served) == []
    assert await opens(served, id, await link_of(served, id))


async def test_a_revoked_link_ends_at_once(served: Served, id: str) -> None:
    link = await link_of(served, id)
    [one] = await listed(served)
    _, theirs = await served.other_project()
    assert (await served.client.get(LINKS, headers=theirs)).json()["links"] == []
    assert (await served.client.delete(f"{LINKS}/{one['id']}", headers=theirs)).status_code == 404
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.delete(f"{LINKS}/{one['id']}", headers=reader)).status_code == 403
    assert await opens(served, id, link)
    assert (await served.client.delete(f"{LINKS}/{one['id']}")).status_code == 204
    assert not await opens(served, id, link)
    for name in (one["id"], "x" * 200, "\u202e\u05d3", "%00", "9223372036854775808"):
        assert (await served.client.delete(f"{LINKS}/{name}")).status_code in (400, 404, 422), name


@pytest.mark.parametrize("name", ["n" * 200, "\u05e2\u05de", "a 'b' for \"c\""])
async def test_an_answer_tells_who_made_its_link_for_whom(served: Served, id: str, name: str) -> None:
    link = await made(served, id, {}, name)
    reply = await served.client.post(f"{path_of(id)}/submit?link={link}", json={"data": True}, headers=NOBODY)
    said = reply.json()["answered_by"]
    assert said.startswith("link made by key 'test' (") and said.endswith(f" for {name!r}")
    [one] = await listed(served)
    assert one["name"] == name and one["used_at"] is not None
    page = await served.client.get(f"/approve/{id}/approve?link={link}", headers=NOBODY)
    assert page.status_code == 200 and "link made by" in page.text


async def test_only_the_link_that_answered_is_used(served: Served, id: str) -> None:
    link = await link_of(served, id)
    assert (await submit(served.client, id, True)).status_code == 200
    assert (await submit(served.client, id, False, headers=NOBODY)).status_code == 401
    reply = await served.client.post(f"{path_of(id)}/submit?link={link}", json={"data": 2}, headers=NOBODY)
    assert reply.status_code == 409
    assert [one["used_at"] for one in await listed(served)] == [None]


async def test_links_are_listed_newest_first_page_by_page(served: Served, id: str) -> None:
    for n in range(5):
        await made(served, id, {}, f"n{n}")
    names: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await served.client.get(LINKS, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        names += [one["name"] for one in page["links"]]
        cursor = page["next_cursor"]
    assert names == ["n4", "n3", "n2", "n1", "n0"]
    assert (await served.client.get(f"{LINKS}?cursor=x")).status_code == 400


async def test_deleting_an_execution_deletes_its_links(served: Served, id: str) -> None:
    await link_of(served, id)
    assert (await served.client.post(f"/api/v1/executions/{id}/cancel")).status_code == 200
    assert len(await listed(served)) == 1
    assert (await served.client.delete(f"/api/v1/executions/{id}")).status_code == 204
    assert await listed(served) == []


async def test_a_server_without_keys_makes_links_that_stay(database: str) -> None:
    async with serving(database, insecure_local=True, **LASTING) as served:
        hand = Hand(served.client)
        await hand.register()
        id = await asked(served, hand)
        link = await link_of(served, id)
        assert [one["made_by"] for one in await listed(served)] == ["local"]
        reply = await served.client.post(f"{path_of(id)}/submit?link={link}", json={"data": True})
        assert reply.json()["answered_by"] == "link made by local for 'ann@example.com'"
