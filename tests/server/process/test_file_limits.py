"""The server asks the system for as many connections as allowed."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from perdure.server.process.signals import raise_file_limit

resource = pytest.importorskip("resource", reason="nothing counts descriptors there")
CROWD = 300
SERVE = f"ulimit -Sn 256; exec {sys.executable} -m perdure.cli.main serve --insecure-local --port 0 --log-format text"


def test_a_server_takes_more_connections_than_macos_allows_at_first(tmp_path: Path) -> None:
    with (
        subprocess.Popen(["sh", "-c", SERVE], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server,
        ExitStack() as opened,
    ):
        opened.callback(server.kill)
        assert server.stderr is not None
        line = next(line for line in server.stderr if "Listening on " in line)
        port = int(line.rstrip(".\n").rpartition(":")[2])
        for _ in range(CROWD):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(1_024).startswith(b"HTTP/1.1 200")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


Limits = tuple[int, int]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], list[Limits]]:
    """Fake limits: soft, hard, and truly granted. Returns the limits asked for."""

    def behave(soft: int, hard: int, granted: int) -> list[Limits]:
        asked: list[Limits] = []

        def ask(_: int, limits: Limits) -> None:
            if limits[0] > granted:
                raise ValueError("current limit exceeds maximum limit")
            asked.append(limits)

        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", ask)
        return asked

    return behave


ANY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "granted", "asked"),
    [
        (256, ANY, 1 << 62, [(65_536, ANY)]),
        (256, ANY, 10_240, [(10_240, ANY)]),
        (256, ANY, 1_000, []),
        (1_024, 4_096, 4_096, [(4_096, 4_096)]),
        (1_024, 1_024, 1_024, []),
        (ANY, ANY, 1 << 62, []),
        (200_000, 500_000, 500_000, []),
        (20_000, ANY, 20_000, []),
    ],
)
def test_what_is_asked_for_is_never_less_than_it_was(
    system: Callable[[int, int, int], list[Limits]], soft: int, hard: int, granted: int, asked: list[Limits]
) -> None:
    found = system(soft, hard, granted)
    raise_file_limit()
    assert found == asked
