"""Tasks and processes that die: the server and the worker by SIGKILL, the clients by leaving."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from mcp.client.stdio import StdioServerParameters, stdio_client
from tests.cli.processes import PERDURE, House, end, is_ready, until_true, working
from tests.mcp import programs
from tests.mcp.client import Session, accepts, http_session, session
from tests.ports import free_port

YES = {"action": "accept", "content": {"approved": True, "note": "fine"}}


def stdio(house: House, *arguments: str) -> StdioServerParameters:
    command, *rest = PERDURE
    return StdioServerParameters(command=command, args=[*rest, "mcp", *arguments], env=house.env, cwd=house.folder)


def make_house(folder: Path, database: str) -> House:
    house = House(folder)
    (house.folder / "app.py").write_text(Path(programs.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    house.env |= {"GO_FILE": str(folder / "go"), "PERDURE_STORE": database}
    made = house.run("keys", "create", "test", "--role", "admin", "--database", database, apart=True)
    house.env["PERDURE_API_KEY"] = made.stdout.strip()
    house.env["PERDURE_URL"] = f"http://127.0.0.1:{free_port()}"
    return house


@pytest.mark.slow
async def test_a_task_survives_the_death_of_server_worker_and_client(database: str, tmp_path: Path) -> None:
    """The first client stays, over standard input and output. Another client leaves, and a new client comes."""
    house = make_house(tmp_path, database)
    url, key = house.env["PERDURE_URL"], house.env["PERDURE_API_KEY"]
    port = url.rpartition(":")[2]

    def serve(stack: ExitStack) -> int:
        process = house.start("serve", "--port", port)
        stack.callback(end, process, signal.SIGKILL)
        until_true(lambda: is_ready(url), process)
        return process.pid

    async with session(stdio_client(stdio(house)), elicitation_callback=accepts) as stays:
        with ExitStack() as first:
            serve(first)
            worker = first.enter_context(working(house))
            async with http_session(url, key, elicitation_callback=accepts) as leaves:
                created = await leaves.begin("run_long_order", id=7)
                before = await leaves.begin("run_order", id=8)
                await leaves.until_status(before.task_id, "input_required")
                asked = await stays.until(created.task_id, lambda task: "running" in (task.status_message or ""))
                assert asked.status == "working"
            worker.kill()
        Path(house.env["GO_FILE"]).touch()
        with ExitStack() as second:
            serve(second)
            second.enter_context(working(house))
            async with http_session(url, key, elicitation_callback=accepts) as comes:
                for id, one in ((created.task_id, stays), (before.task_id, comes)):
                    await _answer_and_end(one, id)
    assert house.side_file.read_text().split() == ["8", "7"], "the recorded step did not run again"


async def _answer_and_end(client: Session, id: str) -> None:
    task = await client.until_status(id, "input_required")
    (question,) = task.input_requests or {}
    await client.update_all(id, {question: YES})
    task = await client.until_status(id, "completed")
    assert task.result is not None and task.result["structuredContent"]["approved"] is True


async def test_the_command_serves_the_file_of_a_stopped_store(tmp_path: Path) -> None:
    house = make_house(tmp_path, "perdure.db")
    async with session(stdio_client(stdio(house, "--database", "perdure.db"))) as client:
        assert await client.text("list_executions") == "No execution matches."
        assert "no worker has registered its workflow" in await client.refusal("run_order", id=7)


async def test_the_command_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    house = make_house(tmp_path, "perdure.db")
    async with session(stdio_client(stdio(house)), mode="legacy", tasks=False) as client:
        assert "UNAVAILABLE" in await client.refusal("list_executions")
        assert "[workflows]" in await client.text("search_docs", words="workflow steps"), "this needs no server"
        process = house.start("serve", "--port", house.env["PERDURE_URL"].rpartition(":")[2])
        try:
            until_true(lambda: is_ready(house.env["PERDURE_URL"]), process)
            assert await client.text("list_executions") == "No execution matches."
        finally:
            end(process)
