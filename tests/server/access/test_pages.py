"""The dashboard's files, and signing in to it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx2
import pytest
from tests.server.access.test_auth import Clock
from tests.server.serving import Served, serving
from tests.server.users import AUTH, PROJECTS, Person, browser, member, use_link

from perdure.server.access import signin
from perdure.server.access.signin import LINK_SECONDS, SESSION_SECONDS, SignIns
from perdure.store.verbs.base import access
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import TooManyRequests


@asynccontextmanager
async def signed_in(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    link = (await served.client.post("/api/v1/sign-in-links")).json()
    async with browser(served) as client:
        reply = await use_link(client, link["path"])
        assert (reply.status_code, reply.headers["location"]) == (303, "/")
        yield client


async def shown(client: httpx2.AsyncClient) -> str:
    """The executions listed for the browser."""
    return (await client.get("/api/v1/executions")).text


async def test_without_a_session_nothing_is_shown(served: Served) -> None:
    await served.start("secret-workflow")
    async with browser(served) as client:
        assert "secret-workflow" not in await shown(client)
        assert (await client.get("/api/v1/me")).status_code == 401


async def test_every_page_has_one_shell(served: Served) -> None:
    async with browser(served) as client:
        shell = await client.get("/")
        assert shell.status_code == 200 and "script-src 'self'" in shell.headers["content-security-policy"]
        for path in ("/executions", f"/executions/{uuid4()}?tab=logs", "/p/x/inbox", "/sign-in", "/sign-in?token=no"):
            page = await client.get(path)
            assert (page.status_code, page.text) == (200, shell.text), path
        again = await client.get("/", headers={"if-none-match": shell.headers["etag"]})
        assert again.status_code == 304
        for path in ("/nothing", "/api/v1/nothing", "/assets/nothing.js", "/assets/..%2Findex.html"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.post("/executions")).status_code == 405


async def test_the_built_files_are_cached_for_ever_and_load_nothing_from_elsewhere(served: Served) -> None:
    async with browser(served) as client:
        page = (await client.get("/")).text
        names = re.findall(r'(?:src|href)="(/[^"]+)"', page)
        assert len(names) >= 3, page
        assert "http" not in page, "all its parts are this server's"
        for name in names:
            file = await client.get(name)
            assert file.status_code == 200 and "immutable" in file.headers["cache-control"], name
            assert file.headers["x-content-type-options"] == "nosniff"


async def test_a_session_acts_for_its_key_and_only_from_a_page_of_this_server(served: Served) -> None:
    other, _ = await served.other_project()
    async with signed_in(served) as client:
        me = (await client.get("/api/v1/me")).json()
        assert me["project_id"] == served.project_id and [one["id"] for one in me["projects"]] == [served.project_id]
        assert (me["role"], me["user_id"], me["can_sign_out"]) == ("admin", None, True)
        elsewhere = await client.get("/api/v1/executions", headers={"x-project-id": other})
        assert elsewhere.status_code == 404
        start = {"payload": 1, "accept_early": True}
        forged = await client.post("/api/v1/workflows/w/run", json=start, headers={"sec-fetch-site": "cross-site"})
        assert forged.status_code == 403
        assert (await client.post("/api/v1/workflows/w/run", json=start)).status_code == 200


async def test_a_user_is_told_of_all_projects(served: Served) -> None:
    async with member(served, "Read") as ann:
        me = (await ann.client.get("/api/v1/me")).json()
        assert me["project_id"] is None and served.project_id in [one["id"] for one in me["projects"]]
        assert me["user_id"] == ann.id and ann.email in me["name"]
        inside = (await ann.client.get("/api/v1/me", headers={"x-project-id": served.project_id})).json()
        assert (inside["project_id"], inside["role"]) == (served.project_id, "read")


async def test_a_link_signs_in_once(served: Served) -> None:
    link = (await served.client.post("/api/v1/sign-in-links")).json()
    async with browser(served) as first, browser(served) as second:
        cookie = (await use_link(first, link["path"])).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert (await first.get("/api/v1/me")).status_code == 200
        assert "name='link'" not in (await second.get(link["path"])).text
        late = await second.post("/sign-in", data={"link": link["path"].partition("=")[2]})
        assert late.status_code == 401 and "used or has expired" in late.text
        assert "set-cookie" not in late.headers


async def test_a_preview_uses_no_link_up(served: Served) -> None:
    """Chats preview links with HEAD or GET and without cookies; some run the page's scripts."""
    link = (await served.client.post("/api/v1/sign-in-links")).json()["path"]
    async with browser(served) as preview, browser(served) as person:
        for method in ("GET", "HEAD", "GET"):
            page = await preview.request(method, link)
            assert page.status_code == 200 and "set-cookie" not in page.headers
            assert "script" not in page.text and "refresh" not in page.text
            assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "same-origin"
            assert "form-action 'self'" in page.headers["content-security-policy"]
        assert (await use_link(person, link)).status_code == 303


async def test_another_sites_page_signs_nobody_in_with_a_link(served: Served) -> None:
    token = (await served.client.post("/api/v1/sign-in-links")).json()["path"].partition("=")[2]
    async with browser(served) as client:
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "", "origin": "https://evil.example"}):
            reply = await client.post("/sign-in", data={"link": token}, headers=headers)
            assert reply.status_code == 403 and "set-cookie" not in reply.headers
        assert (await client.post("/sign-in", data={"link": token})).status_code == 303


@pytest.mark.parametrize("way", [f"{AUTH}/signout", "/sign-out"])
async def test_a_session_of_a_link_or_a_key_ends_at_sign_out(served: Served, way: str) -> None:
    await served.start("secret-workflow")
    async with signed_in(served) as by_link, signed_in(served) as other, browser(served) as by_key:
        assert (await by_key.post("/sign-in", data={"key": served.key})).status_code == 303
        for client in (by_link, by_key):
            assert "secret-workflow" in await shown(client)
            cookie = {"cookie": f"perdure_session={client.cookies['perdure_session']}"}
            refused = await client.post(way, headers={"sec-fetch-site": "cross-site"})
            assert refused.status_code == 403
            reply = await client.post(way)
            assert reply.status_code in (200, 303), reply.text
            assert reply.headers["set-cookie"].startswith("perdure_session=; Path=/; Max-Age=0; ")
            async with browser(served, **cookie) as thief:
                assert "secret-workflow" not in await shown(thief)
            assert (await client.post(way)).status_code in (401, 303), "it has ended"
        assert "secret-workflow" in await shown(other), "of the same key, in another browser"


async def test_a_user_signs_out_on_the_page(served: Served) -> None:
    async with member(served) as ann:
        assert (await ann.client.post("/sign-out")).headers["location"] == "/"
        assert (await ann.client.get(f"{AUTH}/me")).status_code == 401


async def test_without_keys_there_is_nothing_to_sign_out_of(database: str) -> None:
    async with serving(database, insecure_local=True) as served, browser(served) as client:
        me = (await client.get("/api/v1/me")).json()
        assert (me["can_sign_out"], me["role"]) == (False, "admin")


async def test_making_a_link_needs_a_key(served: Served) -> None:
    async with browser(served) as client:
        assert (await client.post("/api/v1/sign-in-links")).status_code == 401


def test_links_and_sessions_expire() -> None:
    now = 0.0
    sign_ins = SignIns(clock=lambda: now)
    somebody = Principal("p", Role.READ, "k")
    late = sign_ins.make_link(somebody)
    used = sign_ins.use_link(sign_ins.make_link(somebody))
    assert used is not None
    caller, session = used
    assert caller == somebody
    assert session is not None
    headers = {b"cookie": f"perdure_session={session}".encode()}
    now = LINK_SECONDS + 1
    assert not sign_ins.is_link(late) and sign_ins.use_link(late) is None
    assert sign_ins.principal(headers) == somebody
    now = SESSION_SECONDS + 1
    assert sign_ins.principal(headers) is None
    sign_ins.begin(somebody)
    assert len(sign_ins._sessions._all) == 1, "what has expired takes no room"


def test_nobodys_links_and_sessions_end_for_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "SHARE_MAX", 3)
    sign_ins = SignIns()
    ann, bob = Principal("a", Role.READ, "ann"), Principal("b", Role.READ, "bob")
    of_ann = [sign_ins.make_link(ann), sign_ins.begin(ann)]
    links = [sign_ins.make_link(bob) for _ in range(10)]
    sessions = [sign_ins.begin(bob) for _ in range(10)]
    assert [sign_ins.is_link(link) for link in links] == [False] * 7 + [True] * 3
    found = [sign_ins.principal({b"cookie": b"perdure_session=" + one.encode()}) for one in sessions]
    assert found == [None] * 7 + [bob] * 3
    assert sign_ins.is_link(of_ann[0])
    assert sign_ins.principal({b"cookie": b"perdure_session=" + of_ann[1].encode()}) == ann
    sign_ins.forget("bob")
    assert sign_ins._links._shares.keys() == {"ann"} and len(sign_ins._links._all) == 1
    monkeypatch.setattr(signin, "KEPT_MAX", 1)
    with pytest.raises(TooManyRequests):
        sign_ins.make_link(bob)
    with pytest.raises(TooManyRequests):
        sign_ins.begin(bob)
    assert sign_ins.is_link(of_ann[0])


@asynccontextmanager
async def without_hints(database: str) -> AsyncIterator[tuple[Served, Clock]]:
    """A server that misses other servers' changes and remembers keys for 20 seconds."""
    async with serving(database, auth_cache_seconds=20) as served:
        clock = served.app.services.sign_ins._clock = Clock()
        served.engine.key_deleted = lambda key_id: None
        served.engine.user_changed = lambda user_id: None
        yield served, clock


async def test_a_sign_in_ends_soon_after_its_key(database: str) -> None:
    async with without_hints(database) as (served, clock):
        await served.start("secret-workflow")
        key = await served.key_of(Role.READ)
        link = await served.client.post("/api/v1/sign-in-links", headers={"authorization": f"Bearer {key}"})
        async with browser(served) as client:
            await use_link(client, link.json()["path"])
            clock.now += 20.1
            assert "secret-workflow" in await shown(client), "it was looked up, and is there"
            await served.engine.store.write(access.delete_key(project_id=served.project_id, id=key.split("_")[1]))
            assert "secret-workflow" in await shown(client)
            clock.now += 20.1
            for _ in range(2):
                assert "secret-workflow" not in await shown(client)


async def test_a_sign_in_whose_key_may_be_gone_is_looked_up_at_once(database: str) -> None:
    async with without_hints(database) as (served, _):
        await served.start("secret-workflow")
        key = await served.key_of(Role.READ)
        headers = {"authorization": f"Bearer {key}"}
        link, unused = [(await served.client.post("/api/v1/sign-in-links", headers=headers)).json() for _ in range(2)]
        async with browser(served) as client, browser(served) as late, signed_in(served) as other:
            await use_link(client, link["path"])
            await served.engine.store.write(access.delete_key(project_id=served.project_id, id=key.split("_")[1]))
            served.app.services.forget_key(None)  # hints may have been lost
            await use_link(late, unused["path"])
            for gone in (client, late):
                assert "secret-workflow" not in await shown(gone)
            assert "secret-workflow" in await shown(other)


async def sign_out(served: Served, ann: Person) -> None:
    await ann.client.post(f"{AUTH}/signout")


async def leave(served: Served, ann: Person) -> None:
    await served.client.delete(f"{PROJECTS}/{served.project_id}/members/{ann.id}")


async def get_another_role(served: Served, ann: Person) -> None:
    await served.client.put(f"{PROJECTS}/{served.project_id}/members/{ann.id}", json={"role": "Read"})


@pytest.mark.parametrize("change", [sign_out, leave, get_another_role])
async def test_a_users_link_ends_soon_after_what_it_was_made_with(
    database: str, change: Callable[[Served, Person], Awaitable[None]]
) -> None:
    async with without_hints(database) as (served, clock), member(served, "Write") as ann:
        await served.start("secret-workflow")
        headers = {"x-project-id": served.project_id}
        link = (await ann.client.post("/api/v1/sign-in-links", headers=headers)).json()["path"]
        async with browser(served) as client:
            await use_link(client, link)
            clock.now += 20.1
            assert "secret-workflow" in await shown(client)
            await change(served, ann)
            assert "secret-workflow" in await shown(client)
            clock.now += 20.1
            assert "secret-workflow" not in await shown(client)


async def test_a_change_during_the_look_is_not_overlooked() -> None:
    now = 0.0
    sign_ins = SignIns(clock=lambda: now)
    somebody = Principal("p", Role.READ, "k")
    headers = {b"cookie": f"perdure_session={sign_ins.begin(somebody)}".encode()}
    looks: list[str | None] = []

    async def still(principal: Principal, session_hash: str | None) -> bool:
        looks.append(session_hash)
        if len(looks) == 1:
            sign_ins.look_again()
        elif len(looks) == 3:
            sign_ins.forget("k")
        return True

    assert await sign_ins.checked(headers, still, 30.0) == somebody
    assert looks == []
    now = 30.0
    for _ in range(3):
        assert await sign_ins.checked(headers, still, 30.0) == somebody
    assert looks == [None, None], "once more, since something changed during the first look"
    now = 60.0
    assert await sign_ins.checked(headers, still, 30.0) is None
