"""The server that a program finds when the caller names none."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.sdk.clients import credentials, dev_note
from perdure.sdk.clients.credentials import DEFAULT_URL, find
from perdure.sdk.clients.dev_note import NOTE, RunningDev

KEY = "sk_abcdefgh_secret"


@pytest.fixture
def ours() -> Iterator[str]:
    """An address at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def note(folder: Path, pid: int, url: str, key: str | None = KEY) -> Path:
    (folder / NOTE).parent.mkdir()
    dev_note.write(folder / NOTE, RunningDev(url, pid, key))
    return folder / NOTE


def test_the_dev_server_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str) -> None:
    assert stat.S_IMODE(note(tmp_path, os.getpid(), ours).stat().st_mode) == 0o600
    below = tmp_path / "src" / "app"
    below.mkdir(parents=True)
    for folder in (tmp_path, below):
        monkeypatch.chdir(folder)
        assert find(environ={})[:2] == ((ours,), KEY)
        assert find(ours, environ={})[:2] == ((ours,), KEY), "the same server by its address"
        assert find("http://other", environ={})[:2] == (("http://other",), None)
        assert find(environ={"PERDURE_URL": "http://other"})[:2] == (("http://other",), None)
        assert find(environ={"PERDURE_API_KEY": "sk_other"})[:2] == ((ours,), "sk_other")


def test_the_key_of_a_note_without_one_is_among_the_credentials(tmp_path: Path, ours: str) -> None:
    note(tmp_path, os.getpid(), ours, None)
    credentials.path().parent.mkdir(parents=True)
    credentials.write(ours, api_key="sk_kept", project_id="p")
    assert find(environ={})[:2] == ((ours,), "sk_kept")


def test_a_kept_key_is_sent_only_to_a_server_that_is_named_or_runs_here(tmp_path: Path, ours: str) -> None:
    credentials.path().parent.mkdir(parents=True)
    for url in (DEFAULT_URL, ours):
        credentials.write(url, api_key="sk_kept", project_id="p")
    assert find(environ={}) == ((DEFAULT_URL,), None, True), "another folder's server may listen there"
    assert find(environ={"PERDURE_API_KEY": "sk_own"}) == ((DEFAULT_URL,), "sk_own", True)
    assert find(DEFAULT_URL, environ={}) == ((DEFAULT_URL,), "sk_kept", False)
    assert find(environ={"PERDURE_URL": DEFAULT_URL}) == ((DEFAULT_URL,), "sk_kept", False)
    note(tmp_path, os.getpid(), ours, None)
    assert find(environ={}) == ((ours,), "sk_kept", False)


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can ask whether a process runs")
def test_a_dev_server_that_was_killed_is_not_found(tmp_path: Path, ours: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note(tmp_path, gone.pid, ours)
    assert find(environ={})[:2] == ((DEFAULT_URL,), None)


def test_a_note_whose_process_id_is_another_processs_by_now_is_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    note(tmp_path, os.getpid(), url)
    assert find(environ={}).urls == (DEFAULT_URL,)


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "x", "url": "http://127.0.0.1"}', '{"url": 7}'])
def test_a_damaged_note_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / NOTE).parent.mkdir()
    (tmp_path / NOTE).write_text(text)
    assert find(environ={}).urls == (DEFAULT_URL,)


def test_a_note_lasts_as_long_as_its_block_and_another_processs_stays(tmp_path: Path, ours: str) -> None:
    with dev_note.written(ours, KEY):
        assert dev_note.find() == RunningDev(ours, os.getpid(), KEY)
        with dev_note.written("http://127.0.0.1:1", "sk_second"):
            assert dev_note.find() == RunningDev(ours, os.getpid(), KEY)
    assert not (tmp_path / NOTE).parent.exists(), "a folder that it made goes, too"
    (tmp_path / NOTE).parent.mkdir()
    with dev_note.written(ours, KEY):
        (tmp_path / NOTE).write_text(json.dumps({"pid": 1, "url": ours}))
    assert (tmp_path / NOTE).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_gets_no_note(tmp_path: Path, ours: str) -> None:
    tmp_path.chmod(0o500)
    try:
        with dev_note.written(ours, KEY):
            assert dev_note.find() is None
    finally:
        tmp_path.chmod(0o700)
