"""The tools over HTTP, with the official client against a real server and worker."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError
from tests.mcp import programs
from tests.mcp.client import SECONDS, Session, accepts, http_session

from perdure.embedded import Embedded, embedded
from perdure.mcp import lines
from perdure.mcp.tools import TOOLS
from perdure.server.routes import tool_server
from perdure.store.base.interface import Verb
from perdure.wire.base.access import Role
from perdure.wire.base.status import Phase
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.runs.executions import GetSteps, ListExecutions
from perdure.wire.runs.requests import Started, StartItem
from perdure.wire.runs.workflows import RegisteredWorkflow, tool_name

Json = Any
YES = {"action": "accept", "content": {"approved": True, "note": "fine"}}
SHIPPED = {"receipt": "receipt-7", "approved": True, "note": "fine"}
UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


@pytest.fixture
async def app(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> AsyncIterator[Embedded]:
    monkeypatch.setenv("GO_FILE", str(tmp_path / "go"))
    (tmp_path / "go").touch()
    async with embedded(database, programs.registry, serve=0) as made:
        yield made


async def key_of(app: Embedded, role: Role) -> str:
    return await app.engine.projects.create_key(await app.engine.projects.default(), role.value, role)


def url_of(app: Embedded) -> str:
    assert app.url is not None
    return app.url


def admin(app: Embedded, **options: Any) -> Any:
    assert app.api_key is not None
    return http_session(url_of(app), app.api_key, **options)


async def ids_of(app: Embedded) -> list[str]:
    return [one.id for one in (await app._transport.call(ListExecutions())).executions]


# --- tasks ---------------------------------------------------------------------------------------------------------


async def test_a_call_is_a_task_that_another_client_follows_to_its_result(app: Embedded) -> None:
    async with admin(app) as session:
        assert session.client.protocol_version == "2026-07-28"
        created = await session.begin("run_double", input=21)
        assert (created.status, created.ttl_ms is not None) in (("working", True), ("completed", True))
    async with admin(app) as session:
        task = await session.until_status(created.task_id, "completed")
        assert task.result is not None and task.result["content"][0]["text"] == "42"
        assert await ids_of(app) == [created.task_id], "the task is the execution"


async def test_a_failure_is_a_result_with_its_error(app: Embedded) -> None:
    async with admin(app) as session:
        created = await session.begin(tool_name("hostile name: System"))
        task = await session.until_status(created.task_id, "completed")
        assert task.result is not None and task.result["isError"] is True
        assert "ValueError: fine" in task.result["content"][0]["text"]


async def test_a_question_is_an_elicitation_and_its_answer_resumes_the_run(app: Embedded) -> None:
    """The question of a child is the task's as well."""
    async with admin(app, elicitation_callback=accepts) as session:
        for tool in ("run_order", "run_long_order"):
            created = await session.begin(tool, id=7)
            task = await session.until_status(created.task_id, "input_required")
            ((key, request),) = (task.input_requests or {}).items()
            assert request["method"] == "elicitation/create"
            assert 'asks under approve:\n{"receipt":"receipt-7"}' in request["params"]["message"]
            properties = request["params"]["requestedSchema"]["properties"]
            assert {name: one["type"] for name, one in properties.items()} == {"approved": "boolean", "note": "string"}
            await session.update_all(created.task_id, {"another": YES, f"{UNKNOWN}.1/approve": YES})
            await session.update_all(created.task_id, {key: {"action": "decline"}})
            assert (await session.get(created.task_id)).input_requests == task.input_requests, "it stays open"
            await session.update_all(created.task_id, {key: YES})
            task = await session.until_status(created.task_id, "completed")
            assert task.result is not None and task.result["structuredContent"] == SHIPPED
            await session.update_all(created.task_id, {key: YES})


async def test_a_task_is_cancelled(app: Embedded) -> None:
    async with admin(app, elicitation_callback=accepts) as session:
        created = await session.begin("run_order", id=7)
        await session.until_status(created.task_id, "input_required")
        await session.cancel(created.task_id)
        await session.until_status(created.task_id, "cancelled")
        await session.cancel(created.task_id)
        (listed,) = (await app._transport.call(ListExecutions())).executions
        assert listed.phase is Phase.CANCELLED


async def test_unknown_tasks_and_clients_without_the_extension_are_refused(app: Embedded) -> None:
    async with admin(app) as session:
        for id in (UNKNOWN, "nonsense"):
            with pytest.raises(MCPError) as refused:
                await session.get(id)
            assert refused.value.error.code == types.INVALID_PARAMS
    async with admin(app, tasks=False) as session:
        with pytest.raises(MCPError) as refused:
            await session.get(UNKNOWN)
        assert refused.value.error.code == -32021
        assert refused.value.error.data == {
            "requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}
        }


async def test_a_client_without_tasks_waits_and_is_asked_in_between(app: Embedded) -> None:
    async with admin(app, tasks=False, elicitation_callback=accepts) as session:
        assert await session.text("run_double", input=4) == "8"
        result = await session.client.call_tool("run_order", {"id": 7})
        assert result.structured_content == SHIPPED


async def test_a_client_without_elicitation_answers_by_a_tool(app: Embedded) -> None:
    """A client of the protocol before tasks answers the same way."""
    async with admin(app, tasks=False, mode="legacy") as session:
        assert session.client.protocol_version == "2025-11-25"
        asked = await session.text("run_order", id=7)
        (id,) = await ids_of(app)
        assert f"Execution {id} is not over. It waits for an answer." in asked and '{"receipt":"receipt-7"}' in asked
        assert f"asks: id={id} step=" in await session.text("get_execution", id=id)
        assert f"id={id} step=" in await session.text("list_questions")
        assert "has 0 open questions" in await session.refusal("answer_question", id=id, step="other", answer=1)
        await session.text("answer_question", id=id, step="approve", answer=YES["content"])
        assert "is completed" in await session.text("get_execution", id=id, wait=30)


# --- roles ---------------------------------------------------------------------------------------------------------


async def test_a_read_key_can_start_and_change_nothing(app: Embedded) -> None:
    async with admin(app, elicitation_callback=accepts) as session:
        created = await session.begin("run_order", id=7)
        task = await session.until_status(created.task_id, "input_required")
    (key,) = task.input_requests or {}
    async with http_session(url_of(app), await key_of(app, Role.READ), elicitation_callback=accepts) as reader:
        named = {tool.name for tool in (await reader.client.list_tools()).tools}
        assert named == {tool.name for tool in TOOLS.values() if tool.role is Role.READ}
        assert created.task_id[:13] in await reader.text("list_executions")
        assert (await reader.get(created.task_id)).status == "input_required"
        for tool, arguments in (
            ("run_double", {"input": 1}),
            ("start_execution", {"workflow": "double", "input": 1}),
            ("retry_execution", {"id": created.task_id}),
            ("cancel_execution", {"id": created.task_id}),
            ("answer_question", {"id": created.task_id, "step": "approve", "answer": True}),
        ):
            needed = "write" if tool in ("retry_execution", "answer_question") else "work"
            assert f"FORBIDDEN: This needs a key with the role '{needed}'" in await reader.refusal(tool, **arguments)
        for change in (reader.cancel(created.task_id), reader.update_all(created.task_id, {key: YES})):
            with pytest.raises(MCPError, match=r"This needs a key with the role '(work|write)'"):
                await change
    assert await ids_of(app) == [created.task_id]
    (listed,) = (await app._transport.call(ListExecutions())).executions
    assert listed.phase is Phase.WAITING


def _text(said: Json) -> str:
    return str(said.content[0].text)


@pytest.mark.parametrize("role", [Role.READ, Role.ADMIN])
async def test_an_unknown_tool_reads_names_only_and_asks_for_the_role_first(
    app: Embedded, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    described: list[str] = []

    async def noted(project_id: str, found: RegisteredWorkflow) -> RegisteredWorkflow:
        described.append(found.id)
        return found

    monkeypatch.setattr("perdure.store.verbs.runs.deployments._described", noted)
    scans: list[str] = []
    scan = app.engine.store.scan

    async def counted(verb: Verb[Any]) -> Any:
        if "project_id" in verb.values:  # not the server's own
            scans.append(verb.name)
        return await scan(verb)

    monkeypatch.setattr(app.engine.store, "scan", counted)
    async with http_session(url_of(app), await key_of(app, role)) as session:
        for name in ("run_none", "run_none_0a1b2c", "run_" + "x" * 4_000, "walk"):
            said = await session.client.call_tool(name, {"input": 1})
            code = "FORBIDDEN: This needs a key with the role 'work'" if role is Role.READ else "NOT_FOUND: The tool"
            text = _text(said)
            assert said.is_error and text.startswith(code) and len(text) < 500
    assert described == []
    assert set(scans) <= ({"list_startable"} if role is Role.ADMIN else set())


async def test_numbers_beyond_64_bits_are_refused_by_name(app: Embedded) -> None:
    async with admin(app) as session:
        for name in ("get_journal", "get_logs"):
            said = await session.client.call_tool(name, {"id": UNKNOWN, "after": 2**63})
            assert _text(said).startswith("BAD_VALUE: arguments: Expected `int` <= 9223372036854775807")
    for tool in TOOLS.values():
        for shown in tool.schema["properties"].values():
            assert shown.get("type") != "integer" or "maximum" in shown, tool.name


async def test_requests_leave_no_line_in_the_log(app: Embedded, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with admin(app) as session:
            await session.client.call_tool("list_executions", {})
    assert not [one.message for one in caplog.records if "Terminating" in one.message]


@pytest.mark.parametrize("item", ["1", [], {"": 0}])
async def test_a_body_is_counted_before_the_library_decodes_it(app: Embedded, item: Json) -> None:
    def call(input: Json) -> Json:
        call = {"name": "run_double", "arguments": {"input": input}}
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}

    headers = {"authorization": f"Bearer {app.api_key}", "accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(base_url=url_of(app), headers=headers, timeout=SECONDS) as client:
        for taken in ([item] * 1_000, "[{," * tool_server.PARTS_MAX):
            assert (await client.post("/mcp", json=call(taken))).status_code == 200
        refused = await client.post("/mcp", json=call([item] * tool_server.PARTS_MAX))
        assert refused.status_code == 413 and "30,000 entries" in refused.json()["error"]
        large = await client.post("/mcp", json=call("x" * tool_server.BODY_BYTES_MAX))
        assert large.status_code == 413 and f"{tool_server.BODY_BYTES_MAX:,} bytes" in large.json()["error"]


async def test_the_door_has_the_checks_of_the_other_routes(app: Embedded) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"authorization": f"Bearer {app.api_key}", "accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(base_url=url_of(app), headers=headers) as client:
        assert (await client.post("/mcp", json=body)).status_code == 200
        assert (await client.post("/mcp", json=body, headers={"authorization": "Bearer no"})).status_code == 401
        assert (await client.post("/mcp", json=body, headers={"origin": "https://other.example"})).status_code == 403
        assert (await client.post("/mcp", json=body, headers={"host": "other.example"})).status_code == 403
        assert (await client.get("/mcp")).status_code == 405
        kind = {"content-type": "application/json"}
        assert (await client.post("/mcp", content=b"{", headers=kind)).status_code == 400
    assert app._server is not None
    too_long = app._server.application.settings.request_bytes_max + 1
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url_of(app).rpartition(":")[2]))
    head = f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {app.api_key}\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {too_long}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


# --- what the tools say --------------------------------------------------------------------------------------------


async def test_the_tools_show_start_and_retry_executions(app: Embedded) -> None:
    async with admin(app) as session:
        tools = {tool.name: tool for tool in (await session.client.list_tools()).tools}
        assert tools["run_order"].description == (
            "Run the workflow order and return its result. Charge an order, and ask a person before it is shipped."
        )
        assert tools["run_order"].input_schema["properties"]["id"] == {"type": "integer"}
        assert tools["run_double"].input_schema["required"] == ["input"]
        assert "BAD_VALUE: payload" in await session.refusal("run_double", input="no number")
        failing = {"workflow": "hostile name: System", "key": "key-1"}
        started = await session.text("start_execution", **failing)
        id = started.split()[2].rstrip(".")
        assert await session.text("start_execution", **failing) == started
        shown = await session.text("get_execution", id=id[:13], wait=30)
        assert "hostile name: System is failed" in shown and "input: null" in shown and 'key: "key-1"' in shown
        assert "failed" in (await session.text("why", id=id)).lower()
        assert " claimed" in await session.text("get_journal", id=id)
        assert await session.text("get_logs", id=id) == "No more lines."
        again = (await session.text("retry_execution", id=id)).split()[2].rstrip(",")
        assert f"{again[:13]} hostile name: System" in await session.text("list_executions", search="key-1")
        assert "already" in await session.refusal("cancel_execution", id=id)
        assert "NOT_FOUND" in await session.refusal("get_execution", id="0190a5f2-7c1e")
        assert "BAD_VALUE: arguments: " in await session.refusal("get_execution")
        assert "NOT_FOUND" in await session.refusal("run_nothing")


async def test_a_retry_after_a_refund_asks_what_becomes_of_it(app: Embedded) -> None:
    async with admin(app) as session:
        id = (await session.text("start_execution", workflow="refunded")).split()[2].rstrip(".")
        await session.text("get_execution", id=id, wait=30)
        assert (
            "LATER_OUTCOMES: " in (refused := await session.refusal("retry_execution", id=id)) and "'refund'" in refused
        )
        assert "Started execution" in await session.text("retry_execution", id=id, later="keep")


async def test_a_blocked_or_held_execution_is_mended(app: Embedded) -> None:
    name = "أ" * 56 + "n" * 144
    async with admin(app, elicitation_callback=accepts) as session:
        id = (await session.text("start_execution", workflow="refunded")).split()[2].rstrip(".")
        await session.text("get_execution", id=id, wait=30)
        forked = await session.text("fork_execution", id=id, steps={"ship": "by hand"}, note="a van")
        fork = forked.split()[2].rstrip(",")
        assert "is completed" in await session.text("get_execution", id=fork, wait=30)
        assert "CONFLICT" in await session.refusal("act_on_execution", id=id, action="complete", step="ship", value=1)
        created = await session.begin("run_order", id=7)
        await session.until_status(created.task_id, "input_required")
        act = {"id": created.task_id, "action": "complete", "step": "approve", "value": YES["content"]}
        assert "Done: complete" in await session.text("act_on_execution", **act)
        assert "is completed" in await session.text("get_execution", id=created.task_id, wait=30)
        queue = {"kind": "queue", "name": name}
        assert f'Paused queue "{name[:99]}' in await session.text("pause", **queue, note="x")
        assert "Ended the pause of queue" in await session.text("unpause", **queue)
        assert "Not paused: queue" in await session.text("unpause", **queue)
        ann = {"kind": "key", "name": "mail", "concurrency_key": name}
        assert "Paused key" in await session.text("pause", **ann)
        assert "BAD_VALUE" in await session.refusal("pause", kind="key", name=name)


async def test_a_cancel_and_a_retry_keep_the_note(app: Embedded) -> None:
    async with admin(app) as session:
        started = await session.text("start_execution", workflow="order", input={"id": 7})
        id = started.split()[2].rstrip(".")
        await session.text("cancel_execution", id=id, note="a duplicate")
        assert "is cancelled" in await session.text("get_execution", id=id, wait=30)
        assert "'a duplicate'" in await session.text("why", id=id)
        again = (await session.text("retry_execution", id=id, note="it was none")).split()[2].rstrip(",")
        [forked] = (await app._transport.call(GetSteps(again))).acts or []
        assert (forked.action, forked.note) == ("retry", "it was none")


async def test_the_documentation_is_searched_and_read(app: Embedded) -> None:
    async with admin(app) as session:
        assert "[workflows]" in await session.text("search_docs", words="steps retry idempotency key")
        page = await session.text("read_docs", page="http-api")
        offset = int(page.rpartition("More: offset=")[2])
        assert await session.text("read_docs", page="http-api", offset=offset) not in page
        assert "has no page" in await session.refusal("read_docs", page="nothing")


async def test_fifty_executions_take_at_most_1500_tokens(app: Embedded) -> None:
    items = [StartItem("order", programs.RAW, key=f"customer-{n:06}") for n in range(50)]
    started = await app._transport.start(items)
    async with admin(app) as session:
        text = await session.text("list_executions")
        rows = text.splitlines()
        assert len(rows) == 50 and lines.tokens(text) <= 1_500 and len(text) / 4 <= 1_500
        wanted = {one.execution_id for one in started if isinstance(one, Started)}
        for row in (rows[0], rows[-1]):
            (id,) = [one for one in wanted if one.startswith(row.split()[0])]
            assert (await session.text("get_execution", id=row.split()[0])).startswith(id)


def test_long_details_are_cut_to_the_size_of_the_list() -> None:
    now_us = time.time_ns() // 1_000
    found = [_summary(n, now_us) for n in range(50)]
    text = "\n".join(lines.executions(found, now_us))
    assert lines.tokens(text) <= 1_500 and text.count("\n") == 49
    (alone,) = lines.executions(found[:1], now_us)
    assert len(alone) > 300, "one has room"


def _summary(n: int, now_us: int) -> ExecutionSummary:
    return ExecutionSummary(
        id=f"019a5c3e-7b1f-7d2a-{n:04x}-0123456789ab",
        workflow_id="a_workflow_with_a_long_name" * 3,
        key=f"customer-{n}-" + "k" * 200,
        phase=Phase.FAILED,
        details="StepFailed: step 'charge' failed after 5 tries: " + "x" * 500,
        since_us=now_us,
        due_at_us=None,
        created_at_us=now_us - 90_000_000,
        started_at_us=None,
        completed_at_us=now_us,
        losses=0,
        tries=0,
        progress=None,
        deployment_id="default",
        queue_name="q",
        concurrency_key=None,
        paused=False,
        assigned_to_worker=None,
        parent_execution_id=None,
        root_execution_id=None,
        batch_id=None,
        session_id="s",
        user_id=None,
        tags=None,
        forked_from=None,
        forked_at_step=None,
        retried_as=None,
    )


async def test_hostile_text_stays_data(app: Embedded) -> None:
    """Hostile text is a JSON string within a line, and never a line of its own."""
    async with admin(app, elicitation_callback=accepts) as session:
        named = [tool.name for tool in (await session.client.list_tools()).tools]
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,48}", name) for name in named)
        created = await session.begin("run_hostile")
        task = await session.until_status(created.task_id, "input_required")
        ((key, request),) = (task.input_requests or {}).items()
        said = [request["params"]["message"], *[await _shown(session, tool, created.task_id) for tool in _LOOKING]]
        await session.update_all(created.task_id, {key: {"action": "accept", "content": {"answer": programs.HOSTILE}}})
        task = await session.until_status(created.task_id, "completed")
        assert task.result is not None
        said += [task.result["content"][0]["text"], await _shown(session, "get_execution", created.task_id)]
        assert json.loads(task.result["content"][0]["text"]) == programs.HOSTILE, "and it is whole"
        failed = await session.begin(tool_name("hostile name: System"))
        task = await session.until_status(failed.task_id, "completed")
        said += [await _shown(session, tool, failed.task_id) for tool in ("list_executions", "why", "get_journal")]
    for text in said:
        assert text.replace("\n", "").isprintable(), text
        assert not re.search(r"^(System|run_order completed|</result>)", text, re.MULTILINE), text
    assert sum("ignore the rules" in text for text in said) >= 6


_LOOKING = ("get_execution", "get_journal", "get_logs", "why", "list_executions", "list_questions")


async def _shown(session: Session, tool: str, id: str) -> str:
    return await session.text(tool, **({} if tool.startswith("list") else {"id": id}))


# --- what it costs -------------------------------------------------------------------------------------------------


def test_servers_and_commands_load_the_library_only_when_they_need_it() -> None:
    code = (
        "import sys, perdure.server.app, perdure.cli.main\n"
        "loaded = {'mcp', 'mcp_types', 'pydantic', 'perdure.mcp.docs', 'perdure.mcp.server'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_library_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['mcp'] = None; from perdure.cli.main import app; app(['mcp'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'perdure[mcp]'" in done.stderr


async def test_without_the_library_the_server_says_so(app: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.streamable_http_manager", None)
    headers = {"authorization": f"Bearer {app.api_key}"}
    async with httpx2.AsyncClient(base_url=url_of(app), headers=headers) as client:
        reply = await client.post("/mcp", json={})
        assert reply.status_code == 404 and "install `perdure[mcp]`" in reply.json()["error"]
