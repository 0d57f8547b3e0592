"""The live page and signing in to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from tests.server.people import AUTH, PROJECTS, Person, member
from tests.server.serving import Hand, Served, serving
from tests.server.test_auth import Clock

from perdure.server.signin import LINK_SECONDS, SESSION_SECONDS, SignIns
from perdure.store.verbs import access
from perdure.wire.access import Principal, Role


def browser(served: Served) -> httpx2.AsyncClient:
    """Somebody with cookies and no key."""
    host, port = served.address
    return httpx2.AsyncClient(base_url=f"http://{host}:{port}")


@asynccontextmanager
async def signed_in(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    link = (await served.client.post("/api/v1/sign-in-links")).json()
    async with browser(served) as client:
        page = await client.get(link["path"])
        assert page.status_code == 200
        assert "url=/" in page.text
        yield client


async def test_without_a_session_nothing_is_shown(served: Served) -> None:
    id = await served.start("secret-workflow")
    async with browser(served) as client:
        for path in ("/", f"/?execution={id}"):
            page = await client.get(path)
            assert "secret-workflow" not in page.text
            assert "Sign in" in page.text and "POST /api/v1/sign-in-links" in page.text


async def test_a_link_signs_in_once(served: Served) -> None:
    link = (await served.client.post("/api/v1/sign-in-links")).json()
    async with browser(served) as first, browser(served) as second:
        cookie = (await first.get(link["path"])).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Newest" in (await first.get("/")).text or "No executions" in (await first.get("/")).text
        late = await second.get(link["path"])
        assert "used or has expired" in late.text
        assert "set-cookie" not in late.headers


async def test_making_a_link_needs_a_key(served: Served) -> None:
    async with browser(served) as client:
        assert (await client.post("/api/v1/sign-in-links")).status_code == 401


async def test_the_page_shows_executions_and_a_journal(served: Served, hand: Hand) -> None:
    id = await served.start("w", {"n": 1})
    item = await hand.claim()
    await hand.complete(item, "done at last")
    async with signed_in(served) as client:
        assert id in (await client.get("/")).text
        page = (await client.get(f"/?execution={id}")).text
        assert "done at last" in page
        assert "claimed" in page
        assert "completed" in page


async def test_what_users_wrote_is_text_and_never_markup(served: Served, hand: Hand) -> None:
    evil = "<script>alert(1)</script>'\"&"
    id = await served.start("w", evil, key=evil)
    item = await hand.claim()
    await hand.fail(item, evil)
    async with signed_in(served) as client:
        for path in ("/", f"/?execution={id}"):
            page = await client.get(path)
            assert "<script>alert" not in page.text
            assert "&lt;script&gt;alert" in page.text
            assert "script-src 'self'" in page.headers["content-security-policy"]


async def test_another_projects_execution_is_not_shown(served: Served) -> None:
    _, headers = await served.other_project()
    reply = await served.client.post(
        "/api/v1/workflows/theirs/run", json={"payload": 1, "accept_early": True}, headers=headers
    )
    id = reply.json()["execution_id"]
    async with signed_in(served) as client:
        assert "theirs" not in (await client.get("/")).text
        page = (await client.get(f"/?execution={id}")).text
        assert "does not exist" in page
        assert "theirs" not in page


def test_links_and_sessions_expire() -> None:
    now = 0.0
    sign_ins = SignIns(lambda: now)
    somebody = Principal("p", Role.READ, "k")
    late = sign_ins.make_link(somebody)
    session = sign_ins.use_link(sign_ins.make_link(somebody))
    assert session is not None
    headers = {b"cookie": f"perdure_session={session}".encode()}
    now = LINK_SECONDS + 1
    assert sign_ins.use_link(late) is None
    assert sign_ins.principal(headers) == somebody
    now = SESSION_SECONDS + 1
    assert sign_ins.principal(headers) is None


@asynccontextmanager
async def without_hints(database: str) -> AsyncIterator[tuple[Served, Clock]]:
    """A server that hears nothing of what others do; it remembers keys for 20 seconds."""
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
            await client.get(link.json()["path"])
            clock.now += 20.1
            assert "secret-workflow" in (await client.get("/")).text, "it was looked up, and is there"
            await served.engine.store.write(access.delete_key(project_id=served.project_id, id=key.split("_")[1]))
            assert "secret-workflow" in (await client.get("/")).text
            clock.now += 20.1
            for _ in range(2):
                page = (await client.get("/")).text
                assert "Sign in" in page and "secret-workflow" not in page


async def test_a_sign_in_whose_key_may_be_gone_is_looked_up_at_once(database: str) -> None:
    async with without_hints(database) as (served, _):
        await served.start("secret-workflow")
        key = await served.key_of(Role.READ)
        headers = {"authorization": f"Bearer {key}"}
        link, unused = [(await served.client.post("/api/v1/sign-in-links", headers=headers)).json() for _ in range(2)]
        async with browser(served) as client, browser(served) as late, signed_in(served) as other:
            await client.get(link["path"])
            await served.engine.store.write(access.delete_key(project_id=served.project_id, id=key.split("_")[1]))
            served.app.services.forget_key(None)  # hints may have been lost
            await late.get(unused["path"])
            for gone in (client, late):
                assert "secret-workflow" not in (await gone.get("/")).text
            assert "secret-workflow" in (await other.get("/")).text


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
            await client.get(link)
            clock.now += 20.1
            assert "secret-workflow" in (await client.get("/")).text
            await change(served, ann)
            assert "secret-workflow" in (await client.get("/")).text
            clock.now += 20.1
            assert "secret-workflow" not in (await client.get("/")).text


async def test_a_change_during_the_look_is_not_overlooked() -> None:
    now = 0.0
    sign_ins = SignIns(lambda: now)
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
