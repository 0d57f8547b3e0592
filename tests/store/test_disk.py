"""Files and folders are on the disk when `sync` returns, on each system in its way."""

import os
import sys
from pathlib import Path

import pytest

from perdure.store.disk import sync


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
