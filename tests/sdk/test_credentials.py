"""Which server a program finds when nobody names one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.sdk.credentials import DEFAULT_URL, DEV_NOTE, find

OURS = "http://127.0.0.1:18080"


def note(folder: Path, pid: int) -> None:
    (folder / DEV_NOTE).parent.mkdir()
    (folder / DEV_NOTE).write_text(json.dumps({"pid": pid, "url": OURS}))


def test_the_dev_server_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(tmp_path, os.getpid())
    below = tmp_path / "src" / "app"
    below.mkdir(parents=True)
    for folder in (tmp_path, below):
        monkeypatch.chdir(folder)
        assert find(environ={}).urls == (OURS,)
        assert find("http://other", environ={}).urls == ("http://other",)
        assert find(environ={"PERDURE_URL": "http://other"}).urls == ("http://other",)


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can ask whether a process runs")
def test_a_dev_server_that_was_killed_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note(tmp_path, gone.pid)
    monkeypatch.chdir(tmp_path)
    assert find(environ={}).urls == (DEFAULT_URL,)


def test_a_damaged_note_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DEV_NOTE).parent.mkdir()
    (tmp_path / DEV_NOTE).write_text("{")
    monkeypatch.chdir(tmp_path)
    assert find(environ={}).urls == (DEFAULT_URL,)
