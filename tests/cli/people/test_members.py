"""Members, in the file of a stopped store and on a running server."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from tests.cli.processes import House, serving


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def sign_up(url: str, email: str, invitation: str) -> Any:
    body = {"first_name": "Ann", "last_name": "Lee", "email": email, "password": "correct horse"}
    return post(f"{url}/api/v1/auth/signup", body | {"invitation": invitation})


def test_the_first_member_is_invited_before_there_is_a_server(house: House) -> None:
    said = house.run("members", "add", "Ann@Example.com", "--role", "admin")
    invitation = said.stdout.strip()
    assert (
        f"Hand this link to Ann@Example.com, and to no one else: https://YOUR-SERVER/join?invitation={invitation}"
        in said.stderr
        and "in perdure.db" in said.stderr
    )
    assert "No members in perdure.db" in house.run("members", "list").stdout
    with serving(house) as url:
        assert sign_up(url, "ann@example.com", invitation)["user"]["email"] == "ann@example.com"
        (listed,) = house.lines("members", "list")
        assert (listed["user"]["email"], listed["role"]) == ("ann@example.com", "Admin")
        table = house.run("members", "ls").stdout
        assert "ann@example.com" in table and "Ann Lee" in table and "Admin" in table
        again = house.run("members", "add", "ann@example.com", code=2).stderr
        assert "is a member already" in again
        assert "only admin" in house.run("members", "remove", "ann@example.com", code=2).stderr
        second = house.json("members", "add", "bob@example.com", "--role", "admin")
        sign_up(url, "bob@example.com", second["invitation"])
        assert f"not a member any more, on {url}" in house.run("members", "remove", "ANN@example.com").stdout
        assert "is not a member" in house.run("members", "rm", "ann@example.com", code=2).stderr
        noted = house.run("members", "add", "ann@example.com", "--role", "write").stderr
        assert f"{url}/join?invitation=" in noted and "role write" in noted
        assert "read, write or admin" in house.run("members", "add", "x@y.example", "--role", "owner", code=2).stderr
        assert "not an e-mail" in house.run("members", "add", "nobody", code=2).stderr


def test_invitations_are_listed_and_withdrawn(house: House) -> None:
    house.run("members", "add", "ann@example.com", "--role", "admin")
    (listed,) = house.lines("members", "invitations")
    assert (listed["email"], listed["role"]) == ("ann@example.com", "Admin")
    assert (
        "invitation of ann@example.com is withdrawn, in perdure.db"
        in house.run("members", "withdraw", "ann@example.com").stdout
    )
    assert "No open invitations in perdure.db" in house.run("members", "invitations").stdout
    with serving(house) as url:
        invitation = house.run("members", "add", "bob@example.com").stdout.strip()
        table = house.run("members", "invitations").stdout
        assert "bob@example.com" in table and "Read" in table
        assert f"is withdrawn, on {url}" in house.run("members", "withdraw", "Bob@Example.com").stdout
        assert "has no invitation" in house.run("members", "withdraw", "bob@example.com", code=2).stderr
        with pytest.raises(urllib.error.HTTPError, match="422"):
            sign_up(url, "bob@example.com", invitation)


def test_whoever_lost_a_password_gets_one_from_the_operator(house: House) -> None:
    invitation = house.run("members", "add", "ann@example.com").stdout.strip()
    with serving(house) as url:
        sign_up(url, "ann@example.com", invitation)
        assert "is open in another process" in house.run("members", "password", "ann@example.com", code=2).stderr
    said = house.run("members", "password", "Ann@Example.com")
    made = said.stdout.strip()
    assert "All their sessions have ended" in said.stderr
    assert (
        "No user has signed up as bob@example.com" in house.run("members", "password", "bob@example.com", code=2).stderr
    )
    with serving(house) as url:
        signed_in = post(f"{url}/api/v1/auth/signin", {"email": "ann@example.com", "password": made})
        assert signed_in["user"]["email"] == "ann@example.com"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(f"{url}/api/v1/auth/signin", {"email": "ann@example.com", "password": "correct horse"})
