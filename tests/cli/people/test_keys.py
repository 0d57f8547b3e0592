"""API keys, in the file of a stopped store and on a running server."""

import pytest
from tests.cli.processes import House, end, is_ready, serving, until_true
from tests.ports import free_port

from perdure.sdk.clients import credentials, dev_note


def test_keys_are_made_shown_once_and_deleted_in_a_file(house: House) -> None:
    made = house.json("keys", "create", "reader", "--role", "read")
    assert made["api_key"].startswith(f"sk_{made['id']}_") and made["role"] == "read"
    (listed,) = house.lines("keys", "list")
    assert (listed["name"], listed["role"], listed["last_four_digits"]) == ("reader", "read", made["api_key"][-4:])
    assert made["api_key"] not in house.run("keys", "list").stdout
    assert "reader" in house.run("keys", "ls").stdout
    taken = house.run("keys", "create", "reader", code=2).stderr
    assert f"Key {made['id']!r} is named 'reader' already" in taken
    assert "read, work, write or admin" in house.run("keys", "create", "x", "--role", "root", code=2).stderr
    assert f"Key {made['id']} is deleted, in perdure.db." in house.run("keys", "delete", made["id"]).stdout
    assert "does not exist" in house.run("keys", "rm", made["id"], code=2).stderr
    assert "No keys in perdure.db" in house.run("keys", "list").stdout


def test_keys_of_a_running_server_are_managed_over_http(house: House) -> None:
    with serving(house) as url:
        said = house.run("keys", "create", "reader", "--role", "read")
        reader = said.stdout.strip()
        assert "Role read, project " in said.stderr and f", on {url}." in said.stderr
        assert [key["name"] for key in house.lines("keys", "list")] == ["reader", "test"]
        assert reader not in house.run("keys", "list").stdout
        assert "is named 'reader' already" in house.run("keys", "create", "reader", code=2).stderr
        admin = house.env["PERDURE_API_KEY"]
        house.env["PERDURE_API_KEY"] = reader
        assert house.lines("ls") == []
        assert "role 'work'" in house.run("run", "double", code=2).stderr
        assert "role 'admin'" in house.run("keys", "list", code=2).stderr
        house.env["PERDURE_API_KEY"] = admin
        (id,) = [key["id"] for key in house.lines("keys", "list") if key["name"] == "reader"]
        assert f"Key {id} is deleted, on {url}." in house.run("keys", "delete", id).stdout
        assert "does not exist" in house.run("keys", "delete", id, code=2).stderr
        house.env["PERDURE_API_KEY"] = reader
        assert "not valid" in house.run("ls", code=2).stderr
        assert "is open in another process" in house.run("keys", "list", "--database", "perdure.db", code=2).stderr
        assert "either a server" in house.run("keys", "list", "--database", "x", "--url", url, code=2).stderr


def test_a_server_that_was_named_and_is_away_is_not_replaced_by_a_file(house: House) -> None:
    house.run("keys", "create", "one")
    house.env["PERDURE_URL"] = f"http://127.0.0.1:{free_port()}"
    refused = house.run("keys", "create", "two", code=2).stderr
    assert "cannot be reached" in refused and "--database" in refused
    assert [key["name"] for key in house.lines("keys", "list", "--database", "perdure.db")] == ["one"]


def test_the_server_of_dev_is_found_by_its_note_and_the_file_when_it_is_stopped(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(credentials, "DEFAULT_URL", url)
    key = house.run("keys", "create", "kept", "--role", "admin").stdout.strip()
    folder = house.home / ".config" / "perdure"
    folder.mkdir(parents=True)
    (folder / "credentials.toml").write_text(f'["{url}"]\napi_key = "{key}"\n')
    assert [one["name"] for one in house.lines("keys", "list")] == ["kept"]
    server = house.start("serve", "--port", str(port))
    try:
        until_true(lambda: is_ready(url), server)
        refused = house.run("keys", "create", "astray", code=2).stderr
        assert "is open in another process" in refused, "a server that nobody named gets no kept key"
        (house.folder / ".perdure").mkdir()
        dev_note.write(house.folder / dev_note.NOTE, dev_note.RunningDev(url, server.pid))
        assert f", on {url}." in house.run("keys", "create", "second").stderr
    finally:
        end(server)
    assert [one["name"] for one in house.lines("keys", "list")] == ["second", "kept"]
