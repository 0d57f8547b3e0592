"""The live page and signing in to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from tests.server.serving import Hand, Served

from perdure.server.signin import LINK_SECONDS, SESSION_SECONDS, SignIns
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
            assert "Sign in" in page.text


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
