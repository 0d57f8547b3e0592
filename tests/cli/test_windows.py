"""What commands do otherwise on Windows, as far as it can be seen elsewhere."""

import os

import pytest
from tests.cli.processes import House


def test_a_copy_is_synced_by_a_handle_that_may_write(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    sync, synced = os.fsync, []

    def as_on_windows(handle: int) -> None:
        """Refuses what Windows refuses."""
        if not os.path.isdir(f"/dev/fd/{handle}"):
            if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise PermissionError(13, "Permission denied")
            synced.append(handle)
        sync(handle)

    house.run("keys", "create", "one")
    monkeypatch.setattr(os, "fsync", as_on_windows)
    house.run("backup", "copy.db")
    house.run("restore", "copy.db", "--force")
    assert len(synced) == 2
