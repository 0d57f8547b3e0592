"""The database on both kinds: schema, size, and copies from one kind to another."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import asyncpg
import pytest
from tests import postgres
from tests.cli.processes import House, serving, working

from perdure.cli.base.server_or_file import place
from perdure.store import inspection
from perdure.store.drivers import migrate, postgres_connection, sqlite
from perdure.store.drivers.migrate import Migration, migrations
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs.runs import queries

KNOWN = migrations("sqlite")[-1].number
DATABASES = ["sqlite"] if sys.platform == "win32" else ["sqlite", "postgres"]
on_postgres = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@contextmanager
def empty_database() -> Iterator[str]:
    """The address of a PostgreSQL database without tables of Perdure."""
    name = asyncio.run(postgres.make())
    try:
        yield postgres.shared().database_url(name)
    finally:
        asyncio.run(postgres.drop(name))


@pytest.fixture
def target() -> Iterator[str]:
    with empty_database() as url:
        yield url


@pytest.fixture(params=DATABASES)
def address(request: pytest.FixtureRequest, house: House) -> Iterator[str]:
    """Where a store may be made."""
    if request.param == "sqlite":
        yield str(house.folder / "perdure.db")
    else:
        with empty_database() as url:
            yield url


def execute(address: str, *commands: str) -> None:
    """Run statements in a database, beside whatever Perdure does."""

    async def main() -> None:
        connection = await asyncpg.connect(address)
        for command in commands:
            await connection.execute(command)
        await connection.close()

    if is_postgres(address):
        asyncio.run(main())
    else:
        file = apsw.Connection(address)
        for command in commands:
            file.execute(command)
        file.close()


@pytest.fixture
def older(house: House, address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that lacks a migration of this release."""
    house.run("keys", "create", "one", "--database", address)
    more = Migration(KNOWN + 1, "stern", "CREATE TABLE stern (id INTEGER PRIMARY KEY)", compatible=False)
    for module in (inspection, migrate, postgres_connection, sqlite):
        monkeypatch.setattr(module, "migrations", lambda dialect: [*migrations(dialect), more])
    return address


LATER = [f"{KNOWN + 1:04}_stern"]


def set_schema(address: str, number: int) -> None:
    file = f"PRAGMA user_version={number}"
    execute(address, f"UPDATE meta SET value = '{number}' WHERE name = 'schema'" if is_postgres(address) else file)


# --- migrate -----------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_does_nothing(house: House, older: str) -> None:
    for _ in range(2):
        found = house.json("migrate", "--dry-run", "--database", older)
        assert found == {"schema": KNOWN, "dry_run": True, "migrations": LATER, "compatible": False}
    said = house.run("migrate", "--dry-run", "--database", older).stdout
    assert f"{LATER[0]} (stop all servers first)" in said


def test_an_older_schema_is_brought_up_to_date_once(house: House, older: str) -> None:
    found = house.json("migrate", "--database", older)
    assert found == {"schema": KNOWN + 1, "dry_run": False, "migrations": LATER, "compatible": False}
    again = house.json("migrate", "--database", older)
    assert again == {"schema": KNOWN + 1, "dry_run": False, "migrations": [], "compatible": True}
    assert "the newest that this release knows" in house.run("migrate", "--database", older).stdout


def test_a_newer_schema_is_refused_unless_it_is_compatible(house: House, address: str) -> None:
    house.run("keys", "create", "one", "--database", address)
    set_schema(address, 999)
    assert "schema 999, newer than this release" in house.run("migrate", "--database", address).stdout
    execute(address, "UPDATE meta SET value = '999' WHERE name = 'schema_least'")
    for command in (("migrate",), ("migrate", "--dry-run"), ("db", "size")):
        refused = house.run(*command, "--database", address, code=2).stderr
        assert "has schema 999" in refused and "install a newer Perdure" in refused


def test_a_store_of_a_build_before_the_first_release_is_refused_by_each_command(house: House, address: str) -> None:
    house.run("keys", "create", "one", "--database", address)
    if not is_postgres(address):
        house.run("backup", "early.db", "--database", address)
        set_schema(str(house.folder / "early.db"), 49)
    set_schema(address, 49)
    commands: list[tuple[str, ...]] = [("migrate",), ("migrate", "--dry-run"), ("db", "size"), ("doctor",)]
    commands += [("serve", "--port", "0"), ("keys", "list"), ("erase", "--session", "s")]
    if not is_postgres(address):
        commands += [("backup", "copy.db"), ("restore", "early.db", "--force")]
    for command in commands:
        refused = house.run(*command, "--database", address, code=2).stderr
        assert "has schema 49: a build before the first release made it" in refused, refused
        assert "Name another file or database to start a new store." in refused
    set_schema(address, KNOWN)
    assert [key["name"] for key in house.lines("keys", "list", "--database", address)] == ["one"]


def test_what_is_no_store_is_not_migrated(house: House, address: str) -> None:
    execute(address, "CREATE TABLE executions (id INTEGER)")
    for command in (("migrate",), ("migrate", "--dry-run"), ("db", "size")):
        house.run(*command, "--database", address, code=2)
    if not is_postgres(address):
        assert "does not exist" in house.run("migrate", "--database", "no.db", code=2).stderr
        assert not (house.folder / "no.db").exists()


# --- db size ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_size_tells_what_each_workflow_uses(house: House, address: str) -> None:
    house.env["PERDURE_STORE"] = address
    house.env["PERDURE_API_KEY"] = house.run("keys", "create", "test", "--role", "admin").stdout.strip()
    with serving(house), working(house):
        house.run("run", "double", "--input", json.dumps([1] * 30), "-q")
        house.run("run", "double", "--input", "[2]", "-q")
        house.waiting("asks")
        found = house.json("db", "size")  # beside the server
    double, asks = found["workflows"]
    assert (double["workflow_id"], double["executions"], double["open"]) == ("double", 2, 0)
    assert (asks["workflow_id"], asks["executions"], asks["open"]) == ("asks", 1, 1)
    assert double["value_bytes"] >= 2 * len(json.dumps([1] * 30)) and double["log_bytes"] > 20
    parts = ("value_bytes", "journal_bytes", "log_bytes", "stream_bytes")
    assert double["bytes"] == sum(double[name] for name in parts) and double["stream_bytes"] > 0
    tables = {one["name"]: one for one in found["tables"]}
    assert tables["executions"]["bytes"] > tables["executions"]["index_bytes"] > 0
    assert found["bytes"] >= sum(one["bytes"] for one in found["tables"])
    shown = house.run("db", "size").stdout
    assert "double" in shown and "journal" in shown and "in all" in shown


def test_size_asks_for_a_migration_first(house: House, older: str) -> None:
    assert "`perdure migrate`" in house.run("db", "size", "--database", older, code=2).stderr


# --- doctor, erase --------------------------------------------------------------------------------------------------


@pytest.fixture
def used(house: House, address: str) -> str:
    """A store in which a workflow has run."""
    house.env["PERDURE_STORE"] = address
    house.env["PERDURE_API_KEY"] = house.run("keys", "create", "test", "--role", "admin").stdout.strip()
    with serving(house), working(house):
        house.run("run", "double", "--input", "[1]", "--session", "s", "-q")
        assert house.json("doctor")["ok"]  # beside the server
    return address


def test_doctor_finds_what_is_broken(house: House, used: str) -> None:
    assert "FAIL" not in house.run("doctor").stdout
    execute(used, "DELETE FROM journal WHERE kind = 'step'")
    found = house.json("doctor", code=1)
    assert found["ok"] is False
    assert len(found["checks"]["sequence_has_no_gap"]) == 1
    assert "FAIL sequence has no gap" in house.run("doctor", code=1).stdout


def test_doctor_asks_for_a_migration_first(house: House, older: str) -> None:
    assert "`perdure migrate`" in house.run("doctor", "--database", older, code=2).stderr


def test_erase_works_on_a_stopped_store(house: House, used: str) -> None:
    assert house.json("erase", "--session", "s", "--database", used) == {"erased": 1, "open": 0}


# --- store copy ---------------------------------------------------------------------------------------------------


@on_postgres
def test_a_moved_installation_goes_on_where_it_was(house: House, target: str) -> None:
    with serving(house), working(house):
        house.run("run", "double", "--input", "[1, 2]", "--key", "done", "-q")
        open_id = house.waiting("asks", "--key", "open")
        before = house.lines("ls")
        assert "is open in another process" in house.run("store", "copy", "perdure.db", target, code=2).stderr
    moved = house.json("store", "copy", "sqlite:perdure.db", target)
    assert moved["tables"]["executions"]["rows"] == 2 and len(moved["tables"]["journal"]["hash"]) == 64
    again = house.run("store", "copy", "perdure.db", target, code=2).stderr
    assert "holds a store already" in again

    house.env["PERDURE_STORE"] = target
    with serving(house), working(house):
        assert [one["id"] for one in house.lines("ls")] == [one["id"] for one in before]
        house.run("resume", open_id, "approve", "--data", '"yes"')
        assert house.run("run", "asks", "--key", "open", "-q").stdout.strip() == '"yes"'
        house.run("run", "double", "--input", "[3]", "-q")
    assert house.bodies() == [1, 2, 3]

    async def doctor() -> dict[str, list[str]]:
        store = await open_store(target)
        try:
            return await store.scan(queries.doctor())
        finally:
            await store.close()

    assert not any(asyncio.run(doctor()).values())


@on_postgres
def test_the_copy_has_an_epoch_of_its_own(house: House, target: str) -> None:
    async def epoch(address: str) -> str:
        store = await open_store(address)
        await store.close()
        return store.epoch

    house.run("keys", "create", "one")
    told = house.run("store", "copy", "perdure.db", target).stdout.splitlines()
    assert len({line.index(" rows, the same in both") for line in told[:-1]}) == 1  # one below the other
    assert asyncio.run(epoch(target)) != asyncio.run(epoch(str(house.folder / "perdure.db")))
    assert [key["name"] for key in house.lines("keys", "list", "--database", target)] == ["one"]


@on_postgres
def test_a_copy_that_differs_is_not_kept(house: House, target: str) -> None:
    house.run("keys", "create", "one")
    house.run("migrate", "--database", target)
    execute(
        target,
        "CREATE FUNCTION spoil() RETURNS trigger AS 'BEGIN NEW.name = ''two''; RETURN NEW; END' LANGUAGE plpgsql",
        "CREATE TRIGGER spoil BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION spoil()",
    )
    assert "'api_keys'" in house.run("store", "copy", "perdure.db", target, code=2).stderr
    execute(target, "DROP TRIGGER spoil ON api_keys")
    assert house.json("store", "copy", "perdure.db", target)["tables"]["api_keys"]["rows"] == 1


@on_postgres
@pytest.mark.parametrize(
    "fails", ["RAISE EXCEPTION ''no space''", "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW"]
)
def test_a_copy_that_the_database_breaks_off_is_told_and_repeated(house: House, target: str, fails: str) -> None:
    house.run("keys", "create", "one")
    house.run("migrate", "--database", target)
    execute(
        target,
        f"CREATE FUNCTION fails() RETURNS trigger AS 'BEGIN {fails}; END' LANGUAGE plpgsql",
        "CREATE TRIGGER fails BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION fails()",
    )
    assert "nothing was written" in house.run("store", "copy", "perdure.db", target, code=2).stderr
    execute(target, "DROP TRIGGER fails ON api_keys")
    assert house.json("store", "copy", "perdure.db", target)["tables"]["api_keys"]["rows"] == 1


@on_postgres
def test_a_role_that_may_not_look_is_told(house: House, target: str) -> None:
    house.run("migrate", "--database", target)
    role = "onlooker"
    execute(target, f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON meta TO {role}")
    address = re.sub("//([^/]*@)?", f"//{role}@", target, count=1)
    try:
        assert "permission denied" in house.run("db", "size", "--database", address, code=2).stderr
    finally:
        execute(target, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@on_postgres
def test_only_the_way_up_is_offered(house: House, target: str) -> None:
    house.run("keys", "create", "one")
    for source, to in ((target, "perdure.db"), ("perdure.db", "other.db"), (target, target)):
        assert "from SQLite" in house.run("store", "copy", source, to, code=2).stderr
    assert "does not exist" in house.run("store", "copy", "no.db", target, code=2).stderr


def test_an_address_is_shown_without_its_password() -> None:
    assert (
        place("postgresql://perdure:secret@db:5432/perdure?password=secret") == "postgresql://perdure@db:5432/perdure"
    )
    assert place("postgresql:///perdure?host=socket") == "postgresql:///perdure"
    assert place("sqlite:a.db") == "sqlite:a.db"
    assert place(str(Path("a") / "b.db")) == str(Path("a") / "b.db")
