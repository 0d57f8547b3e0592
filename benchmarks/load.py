"""Plain requests from outside Python, and starts in batches: the rest of W7, and `benchmarks/looks.py`."""

import http.client
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.processes import Server
from benchmarks.workflows import PAYLOAD

CONNECTIONS: Final = 64


def plain(server: Server, seconds: float, folder: Path) -> tuple[float | None, str]:
    """Single starts per second from `load.c`, and what made them; None where there is no C compiler."""
    body = json.dumps({"payload": PAYLOAD}).encode()
    head = (
        f"POST /api/v1/workflows/noop1/run HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return run(server, head.encode() + body, seconds, folder)


def run(server: Server, request: bytes, seconds: float, folder: Path) -> tuple[float | None, str]:
    """How often a second `load.c` has a request answered, and what sent it; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None, "no C compiler here"
    program = folder / "load"
    subprocess.run([compiler, "-O2", "-o", program, Path(__file__).with_name("load.c")], check=True)
    file = folder / "request"
    file.write_bytes(request)
    done = subprocess.run(
        [program, str(server.port), str(seconds), str(CONNECTIONS), file],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    good, bad, took = done.stdout.split()
    if int(bad):
        raise RuntimeError(f"{bad} plain requests were not answered with 200")
    return int(good) / float(took), f"load.c, {CONNECTIONS} connections"


def batches(server: Server, seconds: float, size: int) -> float:
    """Starts per second in batches of `size`, one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = json.dumps({"workflows": [{"workflow_id": "noop1", "payload": PAYLOAD}] * size}).encode()
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    done, begin = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - begin < seconds:
        connection.request("POST", "/api/v1/workflows/batch_run", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"a batch was answered with {answer.status}: {text[:300]!r}")
        done += size
    connection.close()
    return done / (time.perf_counter() - begin)
