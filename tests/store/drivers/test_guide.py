"""docs/postgresql.md and the guide of failover: what operators type works, and the numbers are those of the code."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests import postgres
from tests.kit.polling import until
from tests.store.world import World, step

from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.engine.loops import BATCH
from perdure.store.base.interface import query, verb
from perdure.store.base.statements import parse
from perdure.store.drivers import postgres_connection, postgres_writer
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.verbs.insight import live
from perdure.wire.base.errors import Unavailable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "postgresql.md").read_text(encoding="utf-8")
FAILOVER = (DOCS / "guides" / "postgresql-and-failover.md").read_text(encoding="utf-8")


def block(name: str, database: str) -> list[str]:
    """The statements of the guide's block `name`, for `database` and its roles."""
    found = re.search(rf"<!-- tested: {name} -->\n```sql\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    text = re.sub(r"--.*", "", found[1])
    return [re.sub(r"\bperdure(?=\b|_)", database, part).strip() for part in text.split(";") if part.strip()]


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


async def follow(server: postgres.Server, name: str) -> str:
    """Do what the guide has for the first start; the address of the database."""
    for statement in block("roles", name):
        await postgres.admin(statement, server)
    url = server.database_url(name)
    await (await PostgresStore.open(as_role(url, name))).close()  # as the owner: this migrates
    for statement in block("grants", name):
        await postgres.admin(statement, url=url)
    return url


@pytest.fixture(scope="module")
def guided() -> Iterator[tuple[postgres.Server, str]]:
    """A server with roles of its own, after the guide's first start."""
    with postgres.running() as server:
        yield server, asyncio.run(follow(server, "guided"))


async def test_a_role_that_only_reads_and_writes_rows_can_serve(guided: tuple[postgres.Server, str]) -> None:
    _, url = guided
    store = await PostgresStore.open(as_role(url, "guided_server"))
    world = await World.make(store)
    await world.register()
    id = await world.running()
    await world.report(id, [step("s")])
    await world.publish("topic", 1)
    await world.finish(id)
    await world.check()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await postgres.admin("ALTER TABLE executions ADD COLUMN more TEXT", url=as_role(url, "guided_server"))
    await store.close()


async def test_a_server_takes_eight_connections(guided: tuple[postgres.Server, str]) -> None:
    _, url = guided
    store = await PostgresStore.open(as_role(url, "guided_server"))
    engine = Engine(store, settings=EngineSettings())
    await engine.start()
    looking = await asyncpg.connect(url)
    seen: set[int] = set()
    names = f"^perdure (?!open).* {store.server_id[:8]}$"  # a session that was closed may be listed for a while

    async def all_there() -> bool:
        project_id = await engine.projects.default()
        looks = (live.count_open(project_id=one) for one in (project_id, "another"))
        await asyncio.gather(*map(store.scan, looks))
        rows = await looking.fetch("SELECT 1 FROM pg_stat_activity WHERE application_name ~ $1", names)
        seen.add(len(rows))
        return len(rows) == 8

    try:
        await until(all_there, 60, "each connection has been needed")
        assert max(seen) == 8
    finally:
        await looking.close()
        await engine.stop()
    assert "Each takes eight connections" in GUIDE


async def test_the_statement_for_a_restored_dump_gives_the_store_a_new_life(
    guided: tuple[postgres.Server, str],
) -> None:
    _, url = guided
    before = await PostgresStore.open(as_role(url, "guided_server"))
    await before.close()
    for statement in block("epoch", "guided"):
        await postgres.admin(statement, url=url)
    after = await PostgresStore.open(as_role(url, "guided_server"))
    await after.close()
    assert before.epoch != after.epoch


async def test_what_may_lose_data_is_refused_unless_the_address_allows_it(guided: tuple[postgres.Server, str]) -> None:
    server, url = guided
    role = as_role(url, "guided_server")
    await postgres.admin("ALTER DATABASE guided SET synchronous_commit = off", server)
    try:
        with pytest.raises(postgres_connection.NotOurDatabase, match="synchronous_commit=off"):
            await PostgresStore.open(role)
        await (await PostgresStore.open(f"{role}&allow_data_loss=on")).close()
    finally:
        await postgres.admin("ALTER DATABASE guided RESET synchronous_commit", server)
    await (await PostgresStore.open(role)).close()


async def test_what_may_lose_data_from_now_on_does_not_lose_ours() -> None:
    """The driver checks a connection when made; the server's settings may change later."""

    @verb(reads=True)
    async def setting() -> str:
        ((found,),) = await query("setting")
        return str(found)

    asked = parse("-- name: setting\nSELECT current_setting('synchronous_commit');\n", "test", "postgres")
    with postgres.running({"fsync": "off"}) as server:
        url = server.database_url(await postgres.make(server=server))
        ours, careless = [await PostgresStore.open(one) for one in (url, f"{url}&allow_data_loss=on")]
        for store in (ours, careless):
            store._write._queries = store._write._queries | asked
            assert await store.write(setting()) == "on"
        await postgres.admin("ALTER SYSTEM SET synchronous_commit = off", server)
        await postgres.admin("SELECT pg_reload_conf()", server)

        async def has_heard() -> bool:
            return await careless.write(setting()) == "off"

        await until(has_heard, 60, "the sessions have heard of it")
        assert await ours.write(setting()) == "on"
        await ours.close()
        await careless.close()


async def test_a_role_that_does_not_see_old_snapshots_is_told_so(
    guided: tuple[postgres.Server, str], caplog: pytest.LogCaptureFixture
) -> None:
    server, url = guided
    await (await PostgresStore.open(as_role(url, "guided"))).close()
    await (await PostgresStore.open(as_role(url, "guided_server"))).close()
    assert "old snapshots" not in caplog.text
    await postgres.admin("REVOKE pg_monitor FROM guided_server", server)
    try:
        await (await PostgresStore.open(as_role(url, "guided_server"))).close()
    finally:
        await postgres.admin("GRANT pg_monitor TO guided_server", server)
    assert "GRANT pg_monitor TO guided_server" in caplog.text


async def test_a_database_that_is_away_is_told_at_start(guided: tuple[postgres.Server, str]) -> None:
    _, url = guided
    with pytest.raises(Unavailable):
        await PostgresStore.open(re.sub(r"host=[^&]*", "host=127.0.0.1&port=1", url))


def test_the_numbers_of_the_guide_are_those_of_the_code() -> None:
    limits = {name: value.removesuffix("s") for name, value in postgres_writer._SETTINGS.items()}
    unknown = postgres_connection.COMMAND_SECONDS_MAX + postgres_connection.RECONNECT_SECONDS_MAX
    flowing = " ".join(f"{GUIDE} {FAILOVER}".split())
    for said in (
        f"for up to {postgres_connection.RECONNECT_SECONDS_MAX:.0f} s; changes wait",
        f"`UNKNOWN_OUTCOME` after {unknown:.0f} s",
        f"lease has run out ({EngineSettings().lease_seconds:.0f} s)",
        f"batches of at most {BATCH} executions",
        f"gives up after {postgres_connection.MIGRATE_LOCK_SECONDS:.0f} s",
        f"({limits['statement_timeout']} s for a statement, {limits['lock_timeout']} s for a lock, "
        f"{limits['idle_in_transaction_session_timeout']} s between statements)",
    ):
        assert said in flowing
