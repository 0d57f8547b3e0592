"""Lists: output, pages, and the awaited things of executions."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.cli.processes import House, ask_server
from typer.testing import CliRunner

from perdure.cli.base import connect
from perdure.cli.main import app
from perdure.cli.runs import listings


def test_workers_are_listed_with_what_they_run(busy_house: House) -> None:
    house = busy_house
    (one,) = house.lines("workers")
    assert (one["deployment_id"], one["kind"], one["state"], one["url"]) == ("default", "native", "online", None)
    assert (one["running"], one["capacity"] > 0, one["last_beat_at"] is not None) == (0, True, True)
    shown = house.run("workers").stdout
    assert one["id"] in shown and f"0/{one['capacity']}" in shown and "Python 3." in shown and " ago" in shown


def test_topics_are_listed_over_pages(busy_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = busy_house
    monkeypatch.setattr(listings, "PAGE", 2)
    for topic in ("shop/a", "shop/b", "shop/c", "other"):
        house.run("publish", topic, "--data", "1", "--type", "made")
    house.run("publish", "shop/b", "--data", "2", "--type", "paid")
    listed = house.lines("topics", "--prefix", "shop/")
    assert [(one["topic"], one["last_sequence_id"]) for one in listed] == [("shop/a", 1), ("shop/b", 2), ("shop/c", 1)]
    shown = house.run("topics", "--prefix", "shop/", "--limit", "2")
    assert "paid" in shown.stdout and "shop/c" not in shown.stdout
    assert "The first 2; --limit shows more." in shown.stderr
    assert "No topic has this prefix." in house.run("topics", "--prefix", "nothing").stdout


def test_workflows_are_listed_with_what_starts_them(busy_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = busy_house
    for key in ("a", "b", "c"):
        id = house.run("schedules", "create", "double", "0 9 * * *", "--key", key, "--input", "[1]").stdout.strip()
    house.run("schedules", "pause", id)
    assert "No tools; only push workers" in house.run("tools").stdout
    monkeypatch.setattr(listings, "PAGE", 2)
    listed = house.lines("workflows")
    names = [one["workflow_id"] for one in listed]
    assert len(names) > 4 and names == sorted(names), "over several pages"
    assert {(one["deployment_id"], one["queue_name"] == one["workflow_id"]) for one in listed} == {("default", True)}
    monkeypatch.setattr(listings, "PAGE", 1_000)
    (line,) = [line for line in house.run("workflows").stdout.splitlines() if line.startswith("double ")]
    assert "0 9 * * * UTC (paused); 0 9 * * * UTC; 1 more" in line
    assert "The first 1; --limit shows more." in house.run("workflows", "-n", "1").stderr


def test_agents_and_tools_are_listed(busy_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = busy_house
    monkeypatch.setattr(listings, "DEFINITIONS_PAGE", 1)
    for name in ("writer", "reader"):
        agent = {"id": name, "provider": "openai", "model": "gpt", "tools": [{"name": "search"}]}
        ask_server(house, "POST", "/api/v1/agents/register", agent)
    ask_server(house, "POST", "/api/v1/tools/register", {"id": "search", "description": "Finds\nit"})
    assert [(one["id"], one["deployment_id"]) for one in house.lines("agents")] == [
        ("reader", "default"),
        ("writer", "default"),
    ]
    shown = house.run("agents").stdout
    assert "openai:gpt" in shown and "search" in shown
    assert "Finds it" in house.run("tools").stdout
    assert house.json("tools")["id"] == "search"


def test_a_command_says_what_it_waits_for_while_the_server_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    is_told = threading.Event()

    def note(text: str) -> None:
        notes.append(text)
        if text.startswith("Waiting"):
            is_told.set()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_told.wait(30)
            body = b'{"executions": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setattr(connect, "note", note)
    monkeypatch.setattr(connect, "SILENCE_SECONDS", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        shown = CliRunner().invoke(app, ["ls", "--url", url])
        server.shutdown()
    assert shown.exit_code == 0, shown.output
    assert notes == [f"Waiting for an answer of {url}. If its database is down, {url}/health says so."]
