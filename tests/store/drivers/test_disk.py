"""Files and folders are on the disk when `sync` returns, on every system; and kinds of disks."""

import os
import sys
from pathlib import Path

import pytest

from perdure.store.drivers.disk import network_file_system, sync
from perdure.store.drivers.sqlite import SQLiteStore


@pytest.mark.skipif(sys.platform == "win32", reason="what it asks of macOS is not there")
@pytest.mark.parametrize("known", [True, False])
def test_on_macos_the_disk_holds_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    import fcntl

    asked: list[str] = []

    def control(handle: int, what: int) -> None:
        assert what == 51
        if not known:
            raise OSError("not supported")
        asked.append("all of it")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda handle: asked.append("as it is"))
    (tmp_path / "a").touch()
    sync(tmp_path / "a")
    sync(tmp_path)
    assert asked == ["all of it" if known else "as it is"] * 2


def mounted(tmp_path: Path, *kinds: str) -> str:
    """A list of mounts: `/`, and one file system after the other at a folder with a space in its name."""
    place = str(tmp_path / "the store").replace(" ", "\\040")
    lines = [
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
        *(f"{n} 27 0:{n} / {place} rw shared:1 - {kind} host:/x rw" for n, kind in enumerate(kinds, 30)),
        "50 27 0:50 / /the rw - nfs4 host:/y rw",
    ]
    (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "mounts")


@pytest.mark.skipif(sys.platform == "win32", reason="Linux says it")
@pytest.mark.parametrize(
    ("kinds", "found"), [(["nfs4"], "nfs4"), (["nfs4", "xfs"], None), (["xfs", "cifs"], "cifs"), ([], None)]
)
def test_another_machine_s_file_system_is_known(tmp_path: Path, kinds: list[str], found: str | None) -> None:
    mounts = mounted(tmp_path, *kinds)
    assert network_file_system(tmp_path / "the store" / "s.db", mounts) == found
    assert network_file_system(tmp_path / "the store of another" / "s.db", mounts) is None


def test_where_nobody_says_what_is_mounted_nothing_is_known(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, str(tmp_path / "nothing")) is None
    (tmp_path / "odd").write_text("odd\n")
    assert network_file_system(tmp_path, str(tmp_path / "odd")) is None


async def test_a_store_on_another_machine_s_disk_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await SQLiteStore(str(tmp_path / "s.db")).close()
    assert not caplog.messages
    monkeypatch.setattr("perdure.store.drivers.sqlite.network_file_system", lambda path: "nfs4")
    await SQLiteStore(str(tmp_path / "s.db")).close()
    assert "another machine's disk (nfs4)" in caplog.text
