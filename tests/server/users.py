"""Users for tests: each user signs up, has a browser with a cookie, and belongs to projects."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import argon2
import httpx2
from tests.server.serving import NO_TLS, Served

from perdure.engine.people import passwords

AUTH = "/api/v1/auth"
PROJECTS = "/api/v1/projects"
PASSWORD = "correct horse"


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Hashes without cost."""
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    before = passwords._hasher, passwords._NOBODYS
    passwords._hasher, passwords._NOBODYS = lambda: cheap, cheap.hash("nobody's")  # type: ignore[assignment, misc]  # for a while
    try:
        yield
    finally:
        passwords._hasher, passwords._NOBODYS = before  # type: ignore[misc]  # as it was


def browser(served: Served, **headers: str) -> httpx2.AsyncClient:
    """A browser on a page of the server: with cookies, without a key."""
    host, port = served.address
    own = {"sec-fetch-site": "same-origin", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx2.AsyncClient(base_url=f"http://{host}:{port}", headers=own, timeout=60, verify=NO_TLS)


async def use_link(client: httpx2.AsyncClient, path: str) -> httpx2.Response:
    """Open a sign-in link in a browser and press the button; returns the answer."""
    page = await client.get(path)
    assert page.status_code == 200 and "set-cookie" not in page.headers, page.text
    found = re.search(r"name='link' value='([^']*)'", page.text)
    return await client.post("/sign-in", data={"link": "" if found is None else found[1]})


def an_email() -> str:
    return f"{uuid4()}@example.com"


class Person:
    """Somebody who has signed up and is signed in."""

    def __init__(self, client: httpx2.AsyncClient, user: Any) -> None:
        self.client = client
        self.user = user
        self.id: str = user["id"]
        self.email: str = user["email"]

    @property
    def token(self) -> str:
        """The session's token from the cookie."""
        (token,) = [cookie.value for cookie in self.client.cookies.jar if cookie.name == "perdure_session"]
        assert token is not None
        return token

    def within(self, project_id: str) -> dict[str, str]:
        """Headers of a program that acts as the user in a project."""
        return {"authorization": f"Bearer {self.token}", "x-project-id": project_id}

    async def project(self, name: str = "theirs") -> str:
        """Make a project."""
        reply = await self.client.post(PROJECTS, json={"name": name})
        assert reply.status_code == 200, reply.text
        id: str = reply.json()["id"]
        return id


@asynccontextmanager
async def person(served: Served, email: str | None = None, *, invitation: str | None = None) -> AsyncIterator[Person]:
    """A person who signs up, with an invitation if sign-up is closed."""
    email = email or an_email()
    async with browser(served) as client:
        body = {"first_name": "Ann", "last_name": "Lee", "email": email, "password": PASSWORD}
        if invitation is not None:
            body["invitation"] = invitation
        reply = await client.post(f"{AUTH}/signup", json=body)
        assert reply.status_code == 200, reply.text
        yield Person(client, reply.json()["user"])


async def invite(served: Served, email: str, role: str = "Admin", *, project_id: str | None = None) -> str:
    """An invitation to a project, by default the server's own."""
    body = {"email": email, "role": role}
    reply = await served.client.post(f"{PROJECTS}/{project_id or served.project_id}/members", json=body)
    assert reply.status_code == 200, reply.text
    token: str = reply.json()["invitation"]
    return token


async def accept(somebody: Person, invitation: str) -> None:
    """Somebody who is signed in becomes a member."""
    reply = await somebody.client.post(f"{AUTH}/invitation", json={"invitation": invitation})
    assert reply.status_code == 200, reply.text


@asynccontextmanager
async def member(served: Served, role: str = "Admin") -> AsyncIterator[Person]:
    """A new user who belongs to the server's own project."""
    email = an_email()
    async with person(served, email, invitation=await invite(served, email, role)) as somebody:
        yield somebody
