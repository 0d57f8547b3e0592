"""Signing up, in and out: sessions and their ends, and the powerlessness of other sites' pages."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from tests.server.serving import Served, serving
from tests.server.users import AUTH, PASSWORD, PROJECTS, an_email, browser, invite, member, person

from perdure.engine.people import passwords, projects
from perdure.engine.people.accounts import hash_of
from perdure.server.access.auth import Failures, Gate
from perdure.server.access.cookies import TOKENS_MAX, Cookies
from perdure.server.routes import accounts as routes
from perdure.store.verbs.people import accounts
from perdure.store.verbs.people.accounts import NewSession
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import Forbidden, NotFound


@pytest.fixture
async def open_house(database: str) -> AsyncIterator[Served]:
    """A server where anybody may sign up."""
    async with serving(database, signup=True) as served:
        yield served


def signing_up(email: str, **fields: Any) -> dict[str, Any]:
    return {"first_name": "Ann", "last_name": "Lee", "email": email, "password": PASSWORD, **fields}


async def sign_in(client: httpx2.AsyncClient, email: str, password: str = PASSWORD, **headers: str) -> httpx2.Response:
    return await client.post(f"{AUTH}/signin", json={"email": email, "password": password}, headers=headers)


# --- signing up ----------------------------------------------------------------------------------------------------


async def test_who_signs_up_is_signed_in(open_house: Served) -> None:
    async with browser(open_house) as client:
        reply = await client.post(f"{AUTH}/signup", json=signing_up(" Ann.Lee@Example.COM "))
        assert reply.status_code == 200, reply.text
        said = reply.json()
        assert said["message"] == "User created"
        assert said["user"] == {
            "id": said["user"]["id"],
            "email": "ann.lee@example.com",
            "first_name": "Ann",
            "last_name": "Lee",
            "display_name": "Ann Lee",
            "auth_provider": "password",
            "external_id": None,
        }
        session, device = reply.headers.get_list("set-cookie")
        assert device.startswith("perdure_device=") and "HttpOnly" in device
        name, *attributes = session.split("; ")
        assert name.startswith("perdure_session=us_")
        assert sorted(attributes) == ["HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Lax"]
        assert (await client.get(f"{AUTH}/me")).json() == said["user"]
    kept = await open_house.engine.store.read(accounts.find_user(email="ann.lee@example.com"))
    assert kept is not None and kept.password_hash.startswith("$argon2id$")


async def test_an_email_is_one_users_however_it_is_written(open_house: Served) -> None:
    async with browser(open_house) as client:
        assert (await client.post(f"{AUTH}/signup", json=signing_up("a@b.example"))).status_code == 200
        again = await client.post(f"{AUTH}/signup", json=signing_up("A@B.example"))
        assert (again.status_code, again.json()["error_type"]) == (409, "EMAIL_ALREADY_EXISTS")
        assert "set-cookie" not in again.headers


NO_USER = [
    ("email", ""),
    ("email", "nobody"),
    ("email", "a@"),
    ("email", "@b"),
    ("email", "a b@c.example"),
    ("email", "a@b@c.example"),
    ("email", "a\0@c.example"),
    ("email", "a" * 300 + "@c.example"),
    ("password", ""),
    ("password", "1234567"),
    ("password", "x" * 1_025),
    ("password", "12345678\0"),
    *(("password", common) for common in ("password", "PassWord1", "12345678", "qwertyuiop", "iloveyou")),
    ("first_name", "x" * 257),
    ("last_name", "a\nb"),
    ("first_name", None),
    ("invitation", 7),
]


async def test_what_cannot_be_is_told_by_its_field(open_house: Served) -> None:
    async with browser(open_house) as client:
        for field, value in NO_USER:
            reply = await client.post(f"{AUTH}/signup", json={**signing_up(an_email()), field: value})
            assert reply.status_code == 422, reply.text
            assert f"body.{field}" in reply.json()["error"]
            assert PASSWORD not in reply.text


async def test_sign_up_is_closed_unless_a_setting_opens_it(served: Served) -> None:
    async with browser(served) as client:
        for email in (an_email(), "no address"):
            reply = await client.post(f"{AUTH}/signup", json=signing_up(email))
            assert (reply.status_code, reply.json()["error_type"]) == (422, "SIGNUP_DISABLED")


async def test_an_invitation_opens_it_for_one_email_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    email = an_email()
    first = await invite(served, email)
    second = await invite(served, email, "Write")
    monkeypatch.setattr(projects, "INVITATION_SECONDS", 0)
    late = await invite(served, "late@example.com")
    async with browser(served) as client:
        for body in (
            signing_up(email, invitation=first),
            signing_up("other@example.com", invitation=second),
            signing_up("late@example.com", invitation=late),
            signing_up(email, invitation="no token"),
        ):
            reply = await client.post(f"{AUTH}/signup", json=body)
            assert reply.status_code == 422 and "body.invitation" in reply.json()["error"], reply.text
    async with person(served, email.upper(), invitation=second) as somebody:
        listed = (await somebody.client.get(PROJECTS)).json()["projects"]
        assert [project["id"] for project in listed] == [served.project_id]
        members = (await somebody.client.get(f"{PROJECTS}/{served.project_id}/members")).json()
        assert [(one["user_id"], one["role"]) for one in members] == [(somebody.id, "Write")]
    async with browser(served) as client:
        again = await client.post(f"{AUTH}/signup", json=signing_up(email, invitation=second))
        assert again.status_code == 422, "it was used"


async def test_open_invitations_are_listed_and_can_be_withdrawn(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitations = f"{PROJECTS}/{served.project_id}/invitations"
    token, kept = await invite(served, "zoe@example.com", "Write"), await invite(served, "bob@example.com")
    monkeypatch.setattr(projects, "INVITATION_SECONDS", 0)
    await invite(served, "late@example.com")
    listed = (await served.client.get(invitations)).json()
    assert [(one["email"], one["role"]) for one in listed] == [
        ("bob@example.com", "Admin"),
        ("zoe@example.com", "Write"),
    ]
    assert all(set(one) == {"email", "role", "expires_at"} for one in listed), "no token"
    for role in (Role.READ, Role.WRITE):
        other = {"authorization": f"Bearer {await served.key_of(role)}"}
        assert (await served.client.get(invitations, headers=other)).status_code == 403
        assert (await served.client.delete(f"{invitations}/zoe@example.com", headers=other)).status_code == 403
    _, other = await served.other_project()
    assert (await served.client.delete(f"{invitations}/zoe@example.com", headers=other)).status_code == 404
    assert (await served.client.delete(f"{invitations}/ZOE%40example.com")).status_code == 204
    again = await served.client.delete(f"{invitations}/zoe@example.com")
    assert (again.status_code, again.json()["error_type"]) == (404, "NOT_FOUND")
    assert (await served.client.delete(f"{invitations}/nobody")).status_code == 422
    async with browser(served) as client:
        for email, invitation, status in (("zoe@example.com", token, 422), ("bob@example.com", kept, 200)):
            reply = await client.post(f"{AUTH}/signup", json=signing_up(email, invitation=invitation))
            assert reply.status_code == status, reply.text
    assert (await served.client.get(invitations)).json() == [], "an invitation that was used is gone"


async def test_a_provider_of_identities_is_not_asked(served: Served) -> None:
    body = {"provider": "x", "user_id": "x", "email": "a@b.example"}
    assert (await served.client.post(f"{AUTH}/oauth-signin", json=body)).status_code == 404


# --- signing in ----------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_told_like_an_unknown_email(
    open_house: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    real = passwords._is

    def counted(password: str, kept: str) -> bool:
        checked.append(kept)
        return real(password, kept)

    async with person(open_house) as somebody, browser(open_house) as client:
        monkeypatch.setattr(passwords, "_is", counted)
        wrong = await sign_in(client, somebody.email, "another one")
        unknown = await sign_in(client, an_email())
        assert wrong.status_code == unknown.status_code == 401
        assert wrong.json() == unknown.json()
        assert len(checked) == 2, "a hash is checked for who is unknown, too: it takes as long"
        assert "set-cookie" not in wrong.headers
        right = await sign_in(client, f" {somebody.email.upper()} ")
        assert right.json() == {"message": "Signed in", "user": somebody.user}
        assert client.cookies["perdure_session"] != somebody.token


async def test_wrong_passwords_have_to_wait_and_right_ones_of_their_address_do_not(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server counts failures by address for any account, and by e-mail from any address."""
    monkeypatch.setattr(routes, "SLOWED_SECONDS", 0.0)
    checked: list[str] = []
    real = passwords._is

    def counted(password: str, kept: str) -> bool:
        checked.append(kept)
        return real(password, kept)

    async with serving(database, signup=True, auth_failures_max=3, proxies=["127.0.0.1"]) as served:

        async def status(email: str, address: str, password: str = "wrong one") -> int:
            client.cookies.clear()  # no device is known
            return (await sign_in(client, email, password, **{"x-forwarded-for": address})).status_code

        async with person(served) as ann, person(served) as bob, browser(served) as client:
            monkeypatch.setattr(passwords, "_is", counted)
            for _ in range(5):
                assert await status(ann.email, "198.51.100.1", PASSWORD) == 200, "what was right does not count"
            checked.clear()
            assert [await status(an_email(), "198.51.100.2") for _ in range(20)] == [401] * 3 + [429] * 17
            assert len(checked) == 3, "hashes stay few"
            assert len(served.app.services.wrong_passwords._by_name) == 7, "and so does what is remembered"
            assert await status(ann.email, "198.51.100.2", PASSWORD) == 200, "others share the address"
            assert await status(ann.email, "198.51.100.2") == 429
            assert [await status(ann.email, f"203.0.113.{n}") for n in range(4)] == [401, 401, 429, 429]
            assert await status(ann.email, "203.0.113.99", PASSWORD) == 200, "a right one passes from anywhere"
            assert await status(bob.email, "203.0.113.9", PASSWORD) == 200
            assert (await ann.client.get(f"{AUTH}/me")).status_code == 200, "who is signed in stays so"


async def test_guesses_of_others_lock_no_owner_out(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F10: guesses come from changing addresses. The owner signs in from a new address, and from a known device."""
    monkeypatch.setattr(routes, "SLOWED_SECONDS", 0.0)
    async with (
        serving(database, signup=True, auth_failures_max=3, proxies=["127.0.0.1"]) as served,
        person(served) as ann,
        browser(served) as guesser,
        browser(served) as elsewhere,
    ):

        async def guess(n: int) -> int:
            headers = {"x-forwarded-for": f"198.51.{n // 200}.{n % 200}"}
            return (await sign_in(guesser, ann.email, f"guess {n}", **headers)).status_code

        async def owner(client: httpx2.AsyncClient, address: str, password: str = PASSWORD) -> int:
            return (await sign_in(client, ann.email, password, **{"x-forwarded-for": address})).status_code

        guesses = asyncio.gather(*(guess(n) for n in range(60)))
        assert await owner(elsewhere, "203.0.113.1") == 200
        assert await owner(ann.client, "203.0.113.2") == 200
        statuses = await guesses
        assert set(statuses) == {401, 429} and statuses.count(401) <= 3, "failures are late, not unread"
        assert [await guess(1) for _ in range(4)][-1] == 429
        # The guessers' own network refuses the owner, too, but not the owner's device.
        async with browser(served) as new:
            assert await owner(new, "198.51.0.1") == 429
        assert await owner(ann.client, "198.51.0.1") == 200
        wrong = [await owner(ann.client, "203.0.113.3", "wrong one") for _ in range(4)]
        assert wrong == [401, 401, 401, 429], "a device counts, too"


async def test_a_device_is_known_until_its_user_has_another_password(open_house: Served) -> None:
    known = open_house.engine.accounts.knows_device
    async with person(open_house) as ann, person(open_house) as bob:
        (device,) = [one.value or "" for one in ann.client.cookies.jar if one.name == "perdure_device"]
        assert await known(ann.email, device)
        assert not await known(bob.email, device) and not await known("nobody@example.com", device)
        until, _, mac = device.partition(".")
        later = str(int(until) + 1)
        for wrong in (
            "",
            ".",
            "x",
            until,
            f"{later}.{mac}",
            f"1.{mac}",
            f"{'9' * 400}.{mac}",
            "\u0665.x",
            "9223372036854775808.x",
        ):
            assert not await known(ann.email, wrong), wrong
        body = {"current_password": PASSWORD, "new_password": "another horse"}
        assert (await ann.client.post(f"{AUTH}/password", json=body)).status_code == 200
        assert not await known(ann.email, device)
        (device,) = [one.value or "" for one in ann.client.cookies.jar if one.name == "perdure_device"]
        assert await known(ann.email, device)


async def test_a_sign_up_that_cannot_succeed_costs_no_hash_and_stops_nobody_elses(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "SLOWED_SECONDS", 0.0)
    async with serving(database, auth_failures_max=3) as served, browser(served) as client:
        hashed: list[str] = []
        real = served.engine.accounts._passwords.hash

        async def counted(password: str) -> str:
            hashed.append(password)
            return await real(password)

        monkeypatch.setattr(served.engine.accounts._passwords, "hash", counted)
        bodies = [signing_up(an_email(), invitation="no token") for _ in range(5)]
        statuses = [(await client.post(f"{AUTH}/signup", json=body)).status_code for body in bodies]
        assert statuses == [422, 422, 422, 429, 429] and not hashed
        async with member(served) as ann:
            again = await client.post(f"{AUTH}/signup", json=signing_up(ann.email))
            assert (again.status_code, again.json()["error_type"]) == (422, "SIGNUP_DISABLED")
        assert len(hashed) == 1


async def test_a_failure_of_a_slowed_address_is_answered_late(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with serving(database, auth_failures_max=1) as served, member(served) as ann, browser(served) as client:
        monkeypatch.setattr(routes, "sleep", sleep)
        for email in (an_email(), an_email(), ann.email):
            await sign_in(client, email, "wrong one")
        assert len(slept) == 2 and all(0 < seconds <= routes.SLOWED_SECONDS for seconds in slept)


def test_an_attempt_counts_while_it_is_under_way() -> None:
    failures = Failures(2, lambda: 1.0, "wrong passwords")
    assert [failures.take("a") for _ in range(3)] == [True, True, False]
    assert "Too many wrong passwords" in failures.refusal().message
    for _ in range(5):
        failures.give_back("a")
    failures.give_back("never seen")
    assert [failures.take("a") for _ in range(3)] == [True, True, False]


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_a_session_ends_at_sign_out(open_house: Served) -> None:
    async with person(open_house) as somebody:
        token = somebody.token
        async with browser(open_house, cookie=f"perdure_session={token}") as thief:
            assert (await thief.get(f"{AUTH}/me")).status_code == 200
            reply = await somebody.client.post(f"{AUTH}/signout")
            assert reply.json() == {"message": "Signed out"}
            assert reply.headers["set-cookie"].startswith("perdure_session=; Path=/; Max-Age=0; ")
            assert "perdure_session" not in somebody.client.cookies
            assert (await thief.get(f"{AUTH}/me")).status_code == 401, "though it was found good a moment ago"
            assert (await somebody.client.post(f"{AUTH}/signout")).status_code == 401


async def test_a_session_ends_by_itself(open_house: Served) -> None:
    async with person(open_house) as somebody:
        now_us = open_house.engine.clock.now_us()
        for token, left_us, status in (("us_old", 0, 401), ("us_new", 60_000_000, 200)):
            session = NewSession(hash_of(token), now_us + left_us)
            await open_house.engine.store.write(
                accounts.open_session(user_id=somebody.id, session=session, now_us=now_us - 1)
            )
            async with browser(open_house, cookie=f"a=b; perdure_session={token}; c=d") as client:
                assert (await client.get(f"{AUTH}/me")).status_code == status


async def test_what_is_remembered_of_a_session_ends_with_it() -> None:
    now = 0.0
    asked: list[str] = []

    async def session(token: str, project_id: str) -> tuple[Principal, float]:
        asked.append(project_id)
        return Principal(project_id, Role.READ, "user u", user_id="u"), 10.0

    async def nobody(key: str) -> Principal:
        raise AssertionError

    gate = Gate(nobody, session, clock=lambda: now)
    headers = {b"cookie": b"perdure_session=us_x"}
    for _ in range(2):
        await gate.principal(headers, "a", "P")
        await gate.user(headers, "a")
    assert asked == ["p", ""]
    now = 10.1
    await gate.principal(headers, "a", "p")
    assert asked == ["p", "", "p"]
    gate.forget_user("somebody else")
    await gate.principal(headers, "a", "p")
    gate.forget_user("u")
    await gate.principal(headers, "a", "p")
    gate.forget(None)
    await gate.principal(headers, "a", "p")
    assert len(asked) == 5


async def test_so_many_sessions_and_no_more(open_house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SESSIONS_MAX", 2)
    async with person(open_house) as first, browser(open_house) as second, browser(open_house) as third:
        await sign_in(second, first.email)
        assert (await first.client.get(f"{AUTH}/me")).status_code == 200
        await sign_in(third, first.email)
        found = [(await client.get(f"{AUTH}/me")).status_code for client in (first.client, second, third)]
        assert found == [401, 200, 200], "the oldest has ended"


async def test_a_cookie_that_is_no_session_is_nobody(served: Served) -> None:
    async with browser(served) as client:
        for cookie in (b"", b"perdure_session=", b"perdure_session=us_x", b"perdure_session=\xff", b"x", b";=;"):
            reply = await client.get(f"{AUTH}/me", headers={b"cookie": cookie})
            assert (reply.status_code, reply.json()["error_type"]) == (401, "UNAUTHORIZED")


async def test_a_cookie_that_another_server_set_beside_ours_signs_nobody_out(open_house: Served) -> None:
    """A server on another port, or under a sibling name, can set a cookie of our name for us."""
    async with person(open_house) as ann, person(open_house) as eve, browser(open_house) as client:

        async def asked(*tokens: str) -> Any:
            cookie = "; ".join(f"perdure_session={token}" for token in tokens)
            return await client.get(f"{AUTH}/me", headers={"cookie": cookie})

        for tokens in ((ann.token, "us_tossed"), ("us_tossed", ann.token), (ann.token, ann.token), ("", ann.token)):
            assert (await asked(*tokens)).json() == ann.user
        assert (await asked(ann.token, eve.token)).status_code == 401, "whose request it is, nobody can say"
        assert (await asked(*[f"us_{n}" for n in range(TOKENS_MAX)], ann.token)).status_code == 401, "they are counted"


@pytest.mark.parametrize(
    ("values", "host", "tls", "name", "secure"),
    [
        ({}, "127.0.0.1:8080", False, "perdure_session", False),
        ({}, "localhost", True, "__Host-perdure_session", True),
        ({"loopback": False}, "perdure.example", False, "__Host-perdure_session", True),
        ({"loopback": False}, "perdure.example", True, "__Host-perdure_session", True),
        ({"loopback": False}, "[::1]:8080", False, "perdure_session", True),
        ({"secure": True}, "perdure.example", False, "__Host-perdure_session", True),
        ({"secure": False, "loopback": False}, "perdure.example", True, "perdure_session", False),
        ({"loopback": False}, "[", False, "__Host-perdure_session", True),
    ],
)
def test_one_policy_for_every_cookie(values: Any, host: str, tls: bool, name: str, secure: bool) -> None:
    cookies = Cookies(**values)
    headers = {b"host": host.encode()}
    key, said = cookies.header(headers, "us_x", 60.0, tls=tls)
    wanted = f"{name}=us_x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
    assert (key, said.decode()) == (b"set-cookie", wanted)
    sent = headers | {b"cookie": f"perdure_session=us_plain; {name}=us_x".encode()}
    assert "us_x" in cookies.tokens(sent)
    if name.startswith("__Host-"):
        assert cookies.tokens(sent) == ["us_x"]
        plain = headers | {b"cookie": b"perdure_session=us_plain"}
        assert cookies.tokens(plain) == ([] if not tls or host != "localhost" else ["us_plain"])


async def test_all_kinds_of_sessions_get_the_same_cookie(database: str) -> None:
    async with serving(database, cookie_secure=True, hosts=["perdure.example"]) as served, member(served) as ann:
        headers = {"host": "perdure.example"}
        link = (await served.client.post("/api/v1/sign-in-links")).json()["path"].partition("=")[2]
        kinds = ({"key": served.key}, {"link": link}, {"email": ann.email, "password": PASSWORD})
        for sent in kinds:
            async with browser(served, **headers) as client:
                cookie = (await client.post("/sign-in", data=sent)).headers.get_list("set-cookie")[0]
                name, *attributes = re.sub(r"Max-Age=\d+; ", "", cookie).split("; ")
                assert name.startswith("__Host-perdure_session=")
                assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
                assert (await client.get("/api/v1/me", headers={"cookie": name})).status_code == 200
                ended = await client.post("/sign-out", headers={"cookie": name})
                assert "__Host-perdure_session=; Path=/; Max-Age=0;" in ended.headers["set-cookie"]
                assert (await client.get("/api/v1/me", headers={"cookie": name})).status_code == 401


async def test_a_program_may_send_a_sessions_token(open_house: Served) -> None:
    async with person(open_house) as somebody:
        headers = {"authorization": f"Bearer {somebody.token}"}
        host, port = open_house.address
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", headers=headers) as client:
            assert (await client.get(f"{AUTH}/me")).json() == somebody.user
            assert (await client.put(f"{AUTH}/me", json={"first_name": "Eve"})).status_code == 200, "it is no cookie"
            assert (await client.post(f"{AUTH}/signout")).status_code == 200
            assert (await client.get(f"{AUTH}/me")).status_code == 401


@pytest.mark.parametrize(
    ("values", "secure"), [({}, False), ({"cookie_secure": True}, True), ({"session_hours": 0.5}, False)]
)
async def test_what_the_cookie_says_is_set(database: str, values: Any, secure: bool) -> None:
    async with serving(database, signup=True, **values) as served, browser(served) as client:
        cookie = (await client.post(f"{AUTH}/signup", json=signing_up(an_email()))).headers["set-cookie"]
        assert ("; Secure" in cookie) == secure
        assert f"Max-Age={int(values.get('session_hours', 24) * 3_600)};" in cookie


# --- what a user changes of themselves -----------------------------------------------------------------------------


async def test_names_change_and_null_leaves_one(open_house: Served) -> None:
    async with person(open_house) as somebody:
        reply = await somebody.client.put(f"{AUTH}/me", json={"first_name": "Eve", "last_name": None, "unknown": 1})
        assert reply.json() == {**somebody.user, "first_name": "Eve"}
        reply = await somebody.client.put(f"{AUTH}/me", json={"display_name": "E"})
        assert reply.json() == {**somebody.user, "first_name": "Eve", "display_name": "E"}
        assert (await somebody.client.get(f"{AUTH}/me")).json() == reply.json()
        refused = await somebody.client.put(f"{AUTH}/me", json={"display_name": "x" * 300})
        assert refused.status_code == 422 and "body.display_name" in refused.json()["error"]


async def test_another_password_ends_all_other_sessions(open_house: Served) -> None:
    async with person(open_house) as somebody, browser(open_house) as other:
        await sign_in(other, somebody.email)
        body = {"current_password": PASSWORD, "new_password": "battery staple"}
        wrong = await somebody.client.post(f"{AUTH}/password", json={**body, "current_password": "wrong one"})
        assert (wrong.status_code, wrong.json()["error_type"]) == (403, "FORBIDDEN")
        short = await somebody.client.post(f"{AUTH}/password", json={**body, "new_password": "short"})
        assert short.status_code == 422 and "body.new_password" in short.json()["error"]
        common = await somebody.client.post(f"{AUTH}/password", json={**body, "new_password": "Sunshine1"})
        assert common.status_code == 422 and "most common passwords" in common.json()["error"]
        assert (await somebody.client.post(f"{AUTH}/password", json=body)).status_code == 200
        assert (await somebody.client.get(f"{AUTH}/me")).status_code == 200, "with its new cookie"
        assert (await other.get(f"{AUTH}/me")).status_code == 401
        assert (await sign_in(other, somebody.email)).status_code == 401
        assert (await sign_in(other, somebody.email, "battery staple")).status_code == 200


async def test_a_password_that_the_operator_made_ends_all_sessions(open_house: Served) -> None:
    desk = open_house.engine.accounts
    async with person(open_house) as somebody:
        with pytest.raises(NotFound, match="No user has signed up"):
            await desk.reset_password("nobody@example.com")
        made = await desk.reset_password(somebody.email.upper())
        assert (await somebody.client.get(f"{AUTH}/me")).status_code == 401
        assert (await sign_in(somebody.client, somebody.email)).status_code == 401
        assert (await sign_in(somebody.client, somebody.email, made)).status_code == 200


async def test_a_key_is_no_user(served: Served) -> None:
    for method, path in (("GET", f"{AUTH}/me"), ("PUT", f"{AUTH}/me"), ("POST", f"{AUTH}/signout")):
        reply = await served.client.request(method, path, json={})
        assert (reply.status_code, reply.json()["error_type"]) == (403, "FORBIDDEN")
    assert (await served.client.get(f"{AUTH}/me", headers={"authorization": "Bearer sk_x"})).status_code == 401


async def test_without_keys_a_user_is_who_has_signed_in(database: str) -> None:
    async with serving(database, signup=True, insecure_local=True) as served, browser(served) as client:
        assert (await client.get(f"{AUTH}/me")).status_code == 401
        assert (await client.get("/api/v1/executions")).status_code == 200
        async with person(served) as somebody:
            assert (await somebody.client.get(f"{AUTH}/me")).json() == somebody.user
            reply = await somebody.client.put(f"{AUTH}/me", json={}, headers={"sec-fetch-site": "cross-site"})
            assert reply.status_code == 403


# --- other sites' pages --------------------------------------------------------------------------------------------

OURS = "http://127.0.0.1:1"
FROM = [
    ({"sec-fetch-site": "same-origin"}, True, True),
    ({"sec-fetch-site": "same-origin", "origin": OURS}, True, True),
    ({"origin": OURS}, True, True),
    ({"origin": "https://app.example.com", "sec-fetch-site": "cross-site"}, True, True),
    ({}, False, True),
    ({"sec-fetch-site": "none"}, False, True),
    ({"sec-fetch-site": "cross-site"}, False, False),
    ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:2"}, False, False),
    ({"origin": "http://127.0.0.1:2"}, False, False),
    ({"origin": "http://127.0.0.1"}, False, False),
    ({"origin": "null"}, False, False),
    ({"origin": OURS, "sec-fetch-site": "cross-site"}, False, False),
    ({"origin": ""}, False, False),
]


@pytest.mark.parametrize(("headers", "by_cookie", "signing_in"), FROM)
def test_where_a_request_may_come_from(headers: dict[str, str], by_cookie: bool, signing_in: bool) -> None:
    """Cookies count only from our own pages, which must say so; signing in also works without such a header."""

    async def nobody(key: str) -> Principal:
        raise AssertionError

    gate = Gate(nobody, origins=("https://app.example.com",))
    sent = {b"host": b"127.0.0.1:1", **{name.encode(): value.encode() for name, value in headers.items()}}
    for told, fine in ((True, by_cookie), (False, signing_in)):
        if fine:
            gate.check_page(sent, told=told)
        else:
            with pytest.raises(Forbidden):
                gate.check_page(sent, told=told)


async def test_a_cookie_alone_reads_and_changes_nothing(served: Served) -> None:
    async with member(served) as somebody, browser(served) as page:
        del page.headers["sec-fetch-site"]
        page.cookies.update(somebody.client.cookies)
        project = {"x-project-id": served.project_id}
        assert (await page.get("/api/v1/executions", headers=project)).status_code == 200
        start = {"payload": 1, "accept_early": True}
        for method, path, body in (
            ("POST", "/api/v1/workflows/w/run", start),
            ("PUT", f"{AUTH}/me", {"first_name": "Eve"}),
            ("POST", f"{AUTH}/signout", None),
            ("DELETE", f"{PROJECTS}/{served.project_id}/members/{somebody.id}", None),
        ):
            for site in ({}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
                reply = await page.request(method, path, json=body, headers=project | site)
                assert (reply.status_code, reply.json()["error_type"]) == (403, "FORBIDDEN"), (path, site)
        ours = {"sec-fetch-site": "same-origin"}
        assert (await page.post("/api/v1/workflows/w/run", json=start, headers=project | ours)).status_code == 200
        assert (await page.get(f"{AUTH}/me")).json() == somebody.user


async def test_another_sites_page_signs_nobody_in(open_house: Served) -> None:
    """Otherwise a victim would work in the site's account unawares."""
    async with person(open_house) as somebody, browser(open_house) as client:
        reply = await sign_in(client, somebody.email, **{"sec-fetch-site": "cross-site"})
        assert reply.status_code == 403 and "set-cookie" not in reply.headers
        body = signing_up(an_email())
        reply = await client.post(f"{AUTH}/signup", json=body, headers={"sec-fetch-site": "cross-site"})
        assert reply.status_code == 403
