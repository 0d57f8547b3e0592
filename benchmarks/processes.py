"""Server and worker as processes of their own, started with the commands that users type."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PERDURE: Final = (sys.executable, "-m", "perdure.cli.main")


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(store: str, role: str = "admin") -> str:
    """An API key in a store that no server has open, which may have keys of earlier runs."""
    command = [*PERDURE, "keys", "create", f"local-{uuid.uuid4()}", "--role", role, "--database", store, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=_environment({}), stdout=subprocess.PIPE, text=True, check=True)
    key: str = json.loads(done.stdout)["api_key"]
    return key


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would point the programs elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
    return {**kept, **more}


class Process:
    """One process, started and ended as often as wanted; what it says goes to a log file."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command = command
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; comes back at once."""
        assert self._process is None or self._process.poll() is not None
        with self._log.open("ab") as log:
            self._process = self._popen(log)

    def _popen(self, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, cwd=ROOT, env=_environment(self._environment), stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self, seconds: float = 40.0) -> int:
        """SIGTERM, and wait for its drain; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def said(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")


class Listening(Process):
    """A server on a port of its own, which it keeps when it is started again."""

    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, seconds: float = 30.0) -> float:
        """Wait until it answers; how long that took."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            if not self.is_alive:
                raise RuntimeError(f"The server ended:\n{self.said()}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return time.perf_counter() - begin
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.002)
        raise RuntimeError(f"The server is not ready after {seconds:g} s:\n{self.said()}")


class Server(Listening):
    """`perdure serve`."""

    def __init__(
        self,
        folder: Path,
        *,
        store: str | None = None,
        key: str | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.store = store or str(folder / "perdure.db")
        self.port = free_port()
        self.key = key or make_key(self.store)
        command = [*PERDURE, "serve", "--database", self.store, "--port", str(self.port), "--log-level", "WARNING"]
        super().__init__([*command, *options], folder / "server.log", environment or {})


class FloorServer(Listening):
    """benchmarks/floor_http.py."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.port = free_port()
        self.key = ""
        command = [sys.executable, "-m", "benchmarks.floor_http", store or str(folder / "floor.db"), str(self.port)]
        super().__init__(command, folder / "floor.log", {})


class Worker(Process):
    """`perdure work` for a server."""

    def __init__(
        self,
        server: Server,
        target: str,
        log: Path,
        *,
        capacity: int = 500,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [*PERDURE, "work", target, "--capacity", str(capacity)]
        here = {"PERDURE_URL": server.url, "PERDURE_API_KEY": server.key, **(environment or {})}
        super().__init__(command, log, here)

    def wait_ready(self, seconds: float = 30.0) -> float:
        """Wait until the server knows what this worker serves; how long that took."""
        begin = time.perf_counter()
        while "Serving deployment" not in self.said():
            if not self.is_alive or time.perf_counter() - begin > seconds:
                raise RuntimeError(f"The worker does not serve:\n{self.said()}")
            time.sleep(0.005)
        return time.perf_counter() - begin
