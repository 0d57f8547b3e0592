"""The operator's commands, on files and beside a running server."""

import os
import sqlite3
import sys
from pathlib import Path

import pytest
from tests.cli.processes import House, serving, working


def test_a_copy_of_a_running_store_restores_into_a_stopped_one(house: House) -> None:
    with serving(house), working(house):
        house.run("run", "double", "--input", "[1]", "--key", "before", "-q")
        assert house.json("backup", "copy.db")["bytes"] > 10_000
        house.run("run", "double", "--input", "[2]", "--key", "after", "-q")
        assert "is there already" in house.run("backup", "copy.db", code=2).stderr
        refused = house.run("restore", "copy.db", "--force", code=2).stderr
        assert "is open in another process" in refused
        assert house.json("doctor") == {"ok": True, "checks": house.json("doctor")["checks"]}
    epoch = _epoch(house.folder / "perdure.db")
    assert "--force" in house.run("restore", "copy.db", code=2).stderr
    house.run("restore", "copy.db", "--force")
    assert _epoch(house.folder / "perdure.db") not in (epoch, _epoch(house.folder / "copy.db"))
    with serving(house):
        assert [one["key"] for one in house.lines("ls")] == ["before"]
    assert sorted(path.name for path in house.folder.glob(".*")) == []


def test_a_copy_is_made_of_the_store_of_dev_if_no_other_is_there_or_named(house: House) -> None:
    house.run("keys", "create", "one")
    (house.folder / ".perdure").mkdir()
    (house.folder / "perdure.db").rename(house.folder / ".perdure" / "perdure.db")
    assert "Copied .perdure/perdure.db to copy.db" in house.run("backup", "copy.db").stdout
    refused = house.run("backup", "other.db", "--database", "shop.db", code=2).stderr
    assert "the store of `perdure dev` is --database .perdure/perdure.db" in " ".join(refused.split())


def test_a_server_that_is_only_guessed_is_named(house: House) -> None:
    assert "Server: http://127.0.0.1:8080 (no server runs in this folder;" in house.run("ls", code=None).stderr


def _epoch(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        found: str = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0]
        return found
    finally:
        connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_the_owner_may_read_a_copy_unless_the_file_was_there_with_another_mode(house: House) -> None:
    store, copy = house.folder / "perdure.db", house.folder / "copy.db"
    house.run("keys", "create", "one")
    house.run("backup", "copy.db")
    store.unlink()
    house.run("restore", "copy.db")
    assert (store.stat().st_mode & 0o777, copy.stat().st_mode & 0o777) == (0o600, 0o600)
    store.chmod(0o640)
    copy.chmod(0o640)
    house.run("backup", "copy.db", "--force")
    house.run("restore", "copy.db", "--force")
    assert (store.stat().st_mode & 0o777, copy.stat().st_mode & 0o777) == (0o640, 0o640)


def test_what_is_no_copy_is_not_restored(house: House) -> None:
    house.run("keys", "create", "one")
    before = (house.folder / "perdure.db").read_bytes()
    (house.folder / "noise").write_bytes(b"noise" * 1_000)
    connection = sqlite3.connect(house.folder / "other.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    for name in ("noise", "other.db", "nothing"):
        assert repr(name) in house.run("restore", name, "--force", code=2).stderr
    assert (house.folder / "perdure.db").read_bytes() == before
    assert len(house.lines("keys", "ls")) == 1


def test_a_copy_never_takes_the_place_of_a_store_that_is_open(house: House) -> None:
    """The server would go on with a file that has lost its name, and lose acknowledged writes."""
    with serving(house):
        (house.folder / "link.db").symlink_to("perdure.db")
        inode = (house.folder / "perdure.db").stat().st_ino
        for name in ("perdure.db", "link.db"):
            assert "the same file" in house.run("backup", name, "--force", code=2).stderr
        house.run("backup", "copy.db")
        house.run("restore", "copy.db", "--database", "other.db")
        refused = house.run("backup", "perdure.db", "--database", "other.db", "--force", code=2).stderr
        assert "is open in another process" in refused
        assert (house.folder / "perdure.db").stat().st_ino == inode
    assert "the same file" in house.run("backup", "perdure.db", "--force", code=2).stderr
    (house.folder / "folder").mkdir()
    assert "is a folder" in house.run("backup", "folder", "--force", code=2).stderr


def test_a_store_behind_a_link_is_restored_where_it_is(house: House) -> None:
    (house.folder / "link.db").symlink_to("perdure.db")
    with serving(house):
        house.run("backup", "copy.db")
        refused = house.run("restore", "copy.db", "--database", "link.db", "--force", code=2).stderr
        assert "is open in another process" in refused
    epoch = _epoch(house.folder / "perdure.db")
    house.run("restore", "copy.db", "--database", "link.db", "--force")
    assert (house.folder / "link.db").is_symlink() and _epoch(house.folder / "perdure.db") != epoch


def test_what_cannot_be_opened_or_written_is_told_as_it_is(house: House) -> None:
    house.run("keys", "create", "one")
    (house.folder / "folder").mkdir()
    for command in (
        ("serve", "--port", "0"),
        ("doctor",),
        ("db", "size"),
        ("migrate",),
        ("backup", "c"),
        ("keys", "ls"),
    ):
        assert "'folder' is a folder" in house.run(*command, "--database", "folder", code=2).stderr
    (house.folder / ".copy.db.partial").mkdir()
    assert "copy.db" in house.run("backup", "copy.db", code=2).stderr


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_store_that_may_not_be_written_is_no_damaged_one(house: House) -> None:
    house.run("keys", "create", "one")
    (house.folder / "perdure.db").chmod(0o444)
    refused = house.run("serve", "--port", "0", code=2).stderr
    assert "may not read and write it" in refused and "backup" not in refused
    house.folder.chmod(0o555)
    assert "this user may not write in its folder" in house.run("backup", "../copy.db", code=2).stderr
    house.folder.chmod(0o755)
    closed = house.folder / "closed"
    closed.mkdir(mode=0o555)
    assert "'perdure.db' cannot be copied to 'closed/copy.db'" in house.run("backup", "closed/copy.db", code=2).stderr


def test_a_store_with_its_log_beside_it_is_no_copy(house: House) -> None:
    """A copy is one file: what is in the log would be lost without a word."""
    with serving(house):
        house.run("publish", "news", "--data", "1")
        for ending in ("", "-wal"):
            (house.folder / f"taken.db{ending}").write_bytes((house.folder / f"perdure.db{ending}").read_bytes())
    refused = house.run("restore", "taken.db", "--database", "other.db", code=2).stderr
    assert "taken.db-wal" in refused and "perdure backup COPY --database taken.db" in refused
    (house.folder / "link.db").symlink_to("taken.db")  # the log lies beside what it leads to
    assert "-wal" in house.run("restore", "link.db", "--database", "other.db", code=2).stderr
    assert not (house.folder / "other.db").exists()
    assert "not been closed" in house.run("backup", "taken.db", "--force", code=2).stderr
    house.run("backup", "copy.db", "--database", "taken.db")
    house.run("restore", "copy.db", "--database", "other.db")
    assert house.json("doctor", "--database", "copy.db")["ok"]
    house.run("backup", "copy.db", "--database", "other.db", "--force")  # a copy that was looked at is still a copy


def test_what_a_restore_that_was_killed_left_is_not_read_into_the_next(house: House) -> None:
    """A log of another copy lies beside the file that was being prepared."""
    house.run("keys", "create", "one")
    house.run("backup", "copy.db")
    with serving(house):
        house.run("publish", "news", "--data", "1")
        for ending in ("", "-wal"):
            left = (house.folder / f"perdure.db{ending}").read_bytes()
            (house.folder / f".other.db.restoring{ending}").write_bytes(left)
    house.run("restore", "copy.db", "--database", "other.db")
    assert house.json("doctor", "--database", "other.db")["ok"]
    assert [one["name"] for one in house.lines("keys", "ls", "--database", "other.db")] == ["one"]
    assert sorted(path.name for path in house.folder.glob(".*")) == []


def test_a_store_that_is_not_there_is_told(house: House) -> None:
    for command in (
        ("doctor",),
        ("db", "size"),
        ("migrate",),
        ("backup", "copy.db"),
        ("keys", "ls"),
        ("erase", "--user", "x", "--database", "no.db"),
    ):
        refused = house.run(*command, code=2).stderr
        assert "does not exist" in refused and "--database" in refused
    (house.folder / "perdure.db").write_text("noise")
    assert "perdure.db" in house.run("doctor", code=2).stderr


def test_the_store_of_dev_is_pointed_at(house: House) -> None:
    (house.folder / ".perdure").mkdir()
    (house.folder / ".perdure" / "perdure.db").touch()
    assert "--database .perdure/perdure.db" in house.run("doctor", code=2).stderr


def test_the_store_of_the_settings_file_is_the_store_of_every_command(house: House) -> None:
    """The server would not know a key that was made in another file."""
    (house.folder / "perdure.toml").write_text('store = "kept.db"\nlog_format = "text"\n')
    house.env["PERDURE_SETTINGS"] = "perdure.toml"
    made = house.json("keys", "create", "one", "--role", "admin")
    assert (house.folder / "kept.db").exists() and not (house.folder / "perdure.db").exists()
    house.env["PERDURE_API_KEY"] = made["api_key"]
    with serving(house):
        assert [one["name"] for one in house.lines("keys", "ls")] == ["one"]
        assert house.json("backup", "copy.db")["bytes"] > 10_000 and house.json("doctor")["ok"]
    house.env["PERDURE_STORE"] = "other.db"
    assert "'other.db'" in house.run("doctor", code=2).stderr
    assert "no_such" in house.run("serve", "--settings", "no_such.toml", code=2).stderr


@pytest.mark.slow
def test_a_port_that_is_taken_and_a_store_that_is_open_are_told(house: House) -> None:
    with serving(house) as url:
        port = url.rpartition(":")[2]
        assert "is open in another process" in house.run("serve", "--port", "0", code=2).stderr
        assert "choose another port" in house.run("serve", "--port", port, "--database", "b.db", code=2).stderr
    assert "--lease-seconds" in house.run("serve", "--lease-seconds", "-1", code=2).stderr
    assert "DEBUG, INFO" in house.run("serve", "--log-level", "loud", code=2).stderr
    assert "--port" in house.run("serve", "--port", "70000", code=2).stderr
