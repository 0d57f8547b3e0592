"""The launcher of the tests' PostgreSQL leaves nothing behind, however the starting process ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest
from tests import postgres

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")
ROOT = Path(__file__).resolve().parents[1]

STARTER = """
import sys
from tests import postgres
server = postgres.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


async def test_every_database_is_a_fresh_copy_of_its_template() -> None:
    async def prepare(url: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE prepared (n BIGINT)")
        await connection.close()

    for _ in range(2):
        async with postgres.fresh(prepare) as url:
            connection = await asyncpg.connect(url)
            assert await connection.fetchval("SELECT COUNT(*) FROM prepared") == 0
            await connection.execute("INSERT INTO prepared VALUES (1)")
            await connection.close()


async def test_a_killed_server_starts_again_with_what_it_had() -> None:
    with postgres.running() as server:
        await postgres.admin("CREATE TABLE kept (n BIGINT)", server)
        server.kill()
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await postgres.admin("SELECT * FROM kept", server)
        server.start()
        await postgres.admin("SELECT * FROM kept", server)


async def test_a_server_starts_where_temporary_folders_are_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of macOS are half as long as a socket's path may be."""
    with tempfile.TemporaryDirectory(prefix="deep" * 20) as deep:
        os.chmod(deep, 0o755)
        monkeypatch.setattr(tempfile, "tempdir", deep)
        with postgres.running() as server:
            await postgres.admin("SELECT 1", server)
    assert server.folder is not None and not server.folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for it")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_server_ends_with_the_process_that_started_it(how: signal.Signals | None) -> None:
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdin is not None and starter.stdout is not None
        pid, url = starter.stdout.readline().split()
        assert _runs(int(pid))
        if how is None:
            starter.stdin.close()
        else:
            starter.send_signal(how)
        starter.wait()
    until = time.monotonic() + 30
    while _runs(int(pid)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(int(pid))
    folder = Path(url.partition("host=")[2]).parent
    postgres._sweep()
    assert not folder.exists()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
