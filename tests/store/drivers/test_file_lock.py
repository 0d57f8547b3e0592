"""One process has an SQLite file, under any of its names, and only the owner may read a store's files."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store.world import World

from perdure.store.drivers import file_lock
from perdure.store.drivers.file_lock import StoreInUse
from perdure.store.drivers.sqlite import NotOurFile, SQLiteStore
from perdure.store.inspection import file_at
from perdure.wire.runs.requests import StartItem

OPEN = """
import sys
from perdure.store.drivers.sqlite import SQLiteStore
SQLiteStore(sys.argv[1])
print("open", flush=True)
input()
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has locks that SQLite's own do not meet")
with_modes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


class Server:
    """A process that has a store open."""

    def __init__(self, path: Path, *prefix: str) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", OPEN, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.open = self._process.stdout.readline() == "open\n"
        self.pid = self._process.pid

    def end(self) -> str:
        """End the process in order; returns its standard error."""
        return self._process.communicate("\n", timeout=30)[1]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Another path to `s.db`, as a container with a mounted file has."""
    (tmp_path / "other").mkdir()
    (tmp_path / "s.db").touch()
    (tmp_path / "other" / "s.db").touch()
    bind = ["mount", "--bind", str(tmp_path / "s.db"), str(tmp_path / "other" / "s.db")]
    if shutil.which("mount") is None or subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        yield tmp_path / "other" / "s.db"
    finally:
        subprocess.run(["umount", bind[-1]], check=True)


@on_linux
def test_a_second_server_is_refused_on_a_bind_mount_of_the_file(tmp_path: Path, mounted: Path) -> None:
    first = Server(tmp_path / "s.db")
    try:
        with pytest.raises(StoreInUse, match=rf"is open in another process \({first.pid}\)"):
            SQLiteStore(str(mounted))
        assert not os.path.exists(f"{mounted}-wal")
    finally:
        first.end()
    second = SQLiteStore(str(mounted))
    with pytest.raises(StoreInUse, match="is open in this process"):
        SQLiteStore(str(tmp_path / "s.db"))
    refused = Server(tmp_path / "s.db")
    assert not refused.open and f"is open in another process ({os.getpid()})" in refused.end()
    asyncio.run(second.close())


@on_linux
def test_a_second_server_is_refused_on_a_hard_link(tmp_path: Path) -> None:
    first = Server(tmp_path / "s.db")
    try:
        (tmp_path / "link.db").hardlink_to(tmp_path / "s.db")
        with pytest.raises(StoreInUse, match=rf"link.db' is open in another process \({first.pid}\)"):
            SQLiteStore(str(tmp_path / "link.db"))
    finally:
        first.end()


def test_a_store_with_hard_links_is_refused_until_it_has_one_name(tmp_path: Path) -> None:
    """A log that a crash left beside one name would be missing under the other."""
    path, link = tmp_path / "s.db", tmp_path / "link.db"
    first = Server(path)
    first.kill()
    assert os.path.getsize(f"{path}-wal")
    link.hardlink_to(path)
    for name in (path, link):
        with pytest.raises(NotOurFile, match=r"has 2 names .* Keep the name that has a log beside it"):
            SQLiteStore(str(name))
    with pytest.raises(NotOurFile, match="has 2 names"), file_at(str(link)):
        pass
    with file_at(str(path)) as connection:  # its log lies beside it
        assert connection.pragma("quick_check") == "ok"
    link.unlink()
    asyncio.run(SQLiteStore(str(path)).close())


@on_linux
async def test_a_refused_second_store_leaves_sqlite_s_own_locks_alone(tmp_path: Path) -> None:
    """A process loses the POSIX locks of a file by closing any descriptor of the file."""
    path = tmp_path / "s.db"
    store = SQLiteStore(str(path))
    world = await World.make(store)
    (tmp_path / "link.db").hardlink_to(path)
    for name in ("s.db", "link.db"):
        with pytest.raises(StoreInUse):
            SQLiteStore(str(tmp_path / name))
    inode = str(path.stat().st_ino)
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    mine = [line[1] for line in locks if line[4] == str(os.getpid()) and line[5].endswith(f":{inode}")]
    assert sorted(set(mine)) == ["FLOCK", "POSIX"]
    await world.register()
    await world.start_all([StartItem("wf")])
    await store.close()


@on_linux
async def test_a_disk_of_another_machine_has_the_lock_beside_the_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS turns flock into record locks, which would keep SQLite out."""
    monkeypatch.setattr(file_lock, "network_file_system", lambda path: "nfs4")
    path = tmp_path / "s.db"
    store = SQLiteStore(str(path))
    inode = str(path.stat().st_ino)
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    assert not [line for line in lines if line[1] == "FLOCK" and line[5].endswith(f":{inode}")]
    refused = Server(path)
    assert not refused.open and "is open in another process" in refused.end()
    await store.close()


@with_modes
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_only_the_owner_may_read_the_files_of_a_new_store(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "s.db"
    before = os.umask(umask if os.geteuid() == 0 else umask & 0o077)
    try:
        store = SQLiteStore(str(path))
        await World.make(store)
        await store.backup(str(tmp_path / "copy.db"))
        modes = {found.name: found.stat().st_mode & 0o077 for found in tmp_path.iterdir()}
        assert modes == dict.fromkeys(("s.db", "s.db-wal", "s.db-shm", "s.db.lock", "copy.db"), 0)
        await store.close()
    finally:
        os.umask(before)


@with_modes
async def test_a_store_that_others_may_read_keeps_its_mode_and_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.db"
    await SQLiteStore(str(path)).close()
    assert not caplog.records
    path.chmod(0o640)
    store = SQLiteStore(str(path))
    assert path.stat().st_mode & 0o777 == 0o640 == os.stat(f"{path}-wal").st_mode & 0o777
    assert "can be read by other users of this machine (mode 640)" in caplog.text
    await store.close()
