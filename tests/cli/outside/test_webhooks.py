"""`perdure webhooks`, with a receiver that is there."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.cli.processes import House, serving, until_true, working

GOT: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """Takes everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        GOT.append(self.headers["webhook-id"])
        self.send_response(200)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"thanks")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_end_is_told_and_told_again(tmp_path: Path, receiver: str) -> None:
    house = House(tmp_path)
    house.env["PERDURE_OUTBOUND_HOSTS"] = "127.0.0.1"
    with serving(house), working(house):
        made = house.json("webhooks", "create", receiver, "--workflow", "double", "--description", "mine")
        assert made["id"] in house.run("webhooks", "ls").stdout
        assert "must start with https" in house.run("webhooks", "create", "http://example.com/", code=2).stderr
        id = house.run("run", "double", "--input", "[2]", "--detach").stdout.strip()
        until_true(lambda: [one["state"] for one in house.lines("webhooks", "deliveries")] == ["delivered"])
        [one] = house.lines("webhooks", "deliveries", "--execution", id)
        assert (one["id"], one["status"], one["answer"]) == (f"{id}.{made['id']}", 200, "thanks")
        assert "thanks" in house.run("webhooks", "deliveries", "--state", "delivered").stdout
        assert "No deliveries match." in house.run("webhooks", "deliveries", "--state", "failed").stdout
        assert "is sent again" in house.run("webhooks", "redeliver", one["id"]).stdout
        until_true(lambda: [one["id"]] * 2 == GOT)
        until_true(lambda: "delivered, 2 tries, status 200, thanks" in house.run("webhooks", "deliveries").stdout)
        secret = house.run("webhooks", "secret").stdout.strip()
        assert secret.startswith("whsec_")
        rotated = house.run("webhooks", "secret", "--rotate", "--overlap-hours", "1")
        assert rotated.stdout.strip() != secret and "also signs until" in rotated.stderr
        assert "goes with --rotate" in house.run("webhooks", "secret", "--overlap-hours", "1", code=2).stderr
        assert "is deleted" in house.run("webhooks", "rm", made["id"]).stdout
        assert "No webhooks" in house.run("webhooks", "ls").stdout
