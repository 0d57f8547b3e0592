"""A real PgBouncer in transaction mode before the tests' PostgreSQL, if the machine has PgBouncer.

PgBouncer runs like PostgreSQL does (tests/postgres.py): from a temporary folder, on a socket in the folder, as `nobody`
where root starts PgBouncer, and until the starting process ends.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from tests.postgres import _become, _place, _unprivileged

PORT = 6543
START_SECONDS_MAX = 30

needed = pytest.mark.skipif(
    shutil.which("pgbouncer") is None, reason="needs the program pgbouncer (Debian and Ubuntu: apt install pgbouncer)"
)


@contextlib.contextmanager
def before(url: str, **settings: object) -> Iterator[str]:
    """The address that leads through a PgBouncer to a database."""
    program = shutil.which("pgbouncer")
    assert program is not None
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    target = {
        "host": options.get("host") or parts.hostname or "127.0.0.1",
        "port": parts.port or 5432,
        "user": parts.username or options.get("user") or "postgres",
        "dbname": parts.path.lstrip("/"),
    }
    if parts.password:
        target["password"] = parts.password
    said = {
        "listen_addr": "",
        "listen_port": PORT,
        "pool_mode": "transaction",
        "auth_type": "any",
        "default_pool_size": 4,
        "max_client_conn": 500,
        "server_fast_close": 1,
        **settings,
    }
    folder = Path(tempfile.mkdtemp(prefix="perdure-pgbouncer-", dir=_place()))
    try:
        user = _unprivileged()
        if user is not None:
            os.chown(folder, *user)
        configuration = folder / "pgbouncer.ini"
        words = " ".join(f"{name}={value}" for name, value in target.items())
        lines = ["[databases]", f"db = {words}", "[pgbouncer]", f"unix_socket_dir = {folder}"]
        lines += [f"{name} = {value}" for name, value in said.items()]
        configuration.write_text("\n".join(lines) + "\n")
        configuration.chmod(0o644)
        log = folder / "log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [program, str(configuration)], preexec_fn=_become(user), cwd=folder, stdout=out, stderr=out
            )
        try:
            until = time.monotonic() + START_SECONDS_MAX
            while not _listens(folder / f".s.PGSQL.{PORT}"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"PgBouncer did not start: {log.read_text(errors='replace')[-2_000:]}")
                time.sleep(0.02)
            yield f"postgresql://someone@/db?host={quote(str(folder), safe='/')}&port={PORT}"
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    """Whether somebody takes connections there: the file is made a moment before that."""
    with socket.socket(socket.AF_UNIX) as tried:
        try:
            tried.connect(str(path))
        except OSError:
            return False
    return True
